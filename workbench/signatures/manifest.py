"""Which tensors of several models are compared with those of a base: by name, by content, and what has no partner."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ArgumentError, LayerNotFoundError, SourceTypeError
from workbench.results import Column, short_source
from workbench.weights import ModelLike, TensorInfo, Weights, content_fingerprint, load
from workbench.weights.differences import differences
from workbench.weights.several import is_several, source_labels

EXAMPLES = 3  # names in a message
CHANGES = ("kept", "renamed", "shape", "dtype", "tied", "added", "removed")  # what headers tell of a tensor

COLUMNS: Mapping[str, Column] = {
    "tensor": Column("the tensor's name in the base; in the model where the base has none", str, ""),
    "label": Column("the model", str, ""),
    "change": Column("kept, renamed, shape, dtype, tied, added or removed: what headers tell", str, ""),
    "content": Column("identical (bit by bit), differs, or why it is not known: not read, no partner", str, ""),
    "other_name": Column("its name in the model; empty if removed", str, ""),
    "shape": Column("the shape in the base", str, ""),
    "other_shape": Column("the shape in the model", str, ""),
    "dtype": Column("the dtype in the base", str, ""),
    "other_dtype": Column("the dtype in the model", str, ""),
    "tied_to": Column("the name whose storage it shares in the base; empty if its own", str, ""),
    "other_tied_to": Column("the same in the model", str, ""),
}


@dataclass(frozen=True)
class Paired:
    """One model beside the base.

    Attributes:
        label: what it is called.
        weights: the model.
        partners: tensor of the base → its name in the model, in the base's order, whatever the shapes.
        renamed: the tensors among these whose bytes were found under another name.
    """

    label: str
    weights: Weights
    partners: Mapping[str, str]
    renamed: frozenset[str] = frozenset()

    def partner(self, name: str) -> TensorInfo | None:
        """What the model has for a tensor of the base."""
        return self.weights.infos[self.partners[name]] if name in self.partners else None


def labelled(
    b: ModelLike | Mapping[Any, ModelLike] | Sequence[ModelLike], floor: ModelLike | None
) -> tuple[list[tuple[str, Weights]], Weights | None]:
    """The models by their labels, opened, and the floor's.

    Raises:
        ArgumentError: there is none, or a label is empty or there twice.
        SourceTypeError: one is no model.
        CheckpointError: one cannot be opened.
    """
    given: list[tuple[Any, Any]]
    if not is_several(b):
        given = [(None, b)]
    else:
        several: Any = b
        given = list(several.items() if isinstance(several, Mapping) else enumerate(several))
        if not given:
            raise ArgumentError("b is empty: expected a model, a list of models, or a mapping of labels to models.")
    opened = []
    for key, model in given:
        try:
            opened.append(load(model))
        except SourceTypeError as error:
            raise SourceTypeError(f"b{'' if key is None else f'[{key!r}]'}: {error}") from error
    named = isinstance(b, Mapping) and is_several(b)
    labels = [str(key) for key, _ in given] if named else source_labels([one.source for one in opened])
    if twice := [label for place, label in enumerate(labels) if not label or label in labels[:place]]:
        raise ArgumentError(f"the label {twice[0]!r} is empty or stands for two models; give each a name of its own.")
    return list(zip(labels, opened, strict=True)), None if floor is None else load(floor)


def paired(base: Weights, label: str, other: Weights) -> Paired:
    """The model's tensors beside the base's: under the same name, or with the same bytes under another.

    Only tensors that one side lacks are read, and of these only those of a shape and dtype that the other lacks too.

    Raises:
        LayerNotFoundError: no tensor has a partner of its shape; the first difference is named.
    """
    partners = {name: name for name in base.infos if name in other.infos}
    removed = [name for name in base.infos if name not in partners]
    added = [name for name in other.infos if name not in base.infos]
    renamed = _renamed(base, removed, other, added)
    partners = {name: partners.get(name) or renamed[name] for name in base.infos if name in partners or name in renamed}
    if not any(base.infos[name].shape == other.infos[own].shape for name, own in partners.items()):
        raise LayerNotFoundError(_nothing_common(base, label, other, partners))
    return Paired(label, other, partners, frozenset(renamed))


def _renamed(base: Weights, removed: Sequence[str], other: Weights, added: Sequence[str]) -> dict[str, str]:
    """Tensors of one side alone whose bytes, if not all alike, the other side has under a name of its own."""
    wanted = {_form(other.infos[name]) for name in added}
    have = {_form(base.infos[name]) for name in removed} & wanted
    by_content: dict[str, list[str]] = {}
    for name in added:
        if _form(other.infos[name]) in have and _readable(other.infos[name]):
            tensor = other.borrowed(name)
            if not _constant(tensor):  # the ones and zeros of a fresh norm layer or bias are everybody's
                by_content.setdefault(content_fingerprint(tensor), []).append(name)
    found: dict[str, str] = {}
    for name in removed if by_content else ():
        if _form(base.infos[name]) in have and _readable(base.infos[name]):
            same = by_content.get(content_fingerprint(base.borrowed(name)))
            if same:
                found[name] = same.pop(0)
    return found


def _constant(tensor: Tensor) -> bool:
    flat = tensor.detach().reshape(-1)
    flat = flat.float() if flat.is_floating_point() and flat.dtype.itemsize == 1 else flat
    return bool((flat == flat[0]).all())


def _form(info: TensorInfo) -> tuple[Any, ...]:
    return (info.shape, info.dtype)


def _readable(info: TensorInfo) -> bool:
    return info.layout == torch.strided and 0 not in info.shape


def _nothing_common(base: Weights, label: str, other: Weights, partners: Mapping[str, str]) -> str:
    """Why nothing compares: other shapes, or other names; and a prefix that would make them the same."""
    if partners:
        return (
            f"{len(partners)} names are common, but no shape is: two architectures. The first difference: "
            f"{first_difference(base, Paired(label, other, partners))}."
        )
    names = [list(one.infos)[:EXAMPLES] for one in (base, other)]
    message = (
        f"no tensor of {short_source(base.source)} is in {label!r}: the base begins with {names[0]}, the other with "
        f"{names[1]}."
    )
    if prefix := _prefix(base.infos, other.infos):
        return f"{message} The base's names are the other's behind {prefix!r}: rename the tensors of one."
    if prefix := _prefix(other.infos, base.infos):
        return f"{message} The other's names are the base's behind {prefix!r}: rename the tensors of one."
    return message


def _prefix(longer: Mapping[str, Any], shorter: Mapping[str, Any]) -> str:
    """What stands in front of most names of one, that without it are names of the other; empty if nothing does."""
    first = next(iter(longer), "")
    places = [place + 1 for place, sign in enumerate(first) if sign == "."]
    prefix = next((first[:place] for place in places if first[place:] in shorter), "")
    return prefix if prefix and 2 * sum(name.removeprefix(prefix) in shorter for name in longer) > len(longer) else ""


def first_difference(base: Weights, model: Paired) -> str:
    """The first tensor, in the base's order, that the model lacks or has in another shape; empty if there is none."""
    found = differences(base, model.weights, ("the base", model.label), model.partners)
    return next((one.text for one in found if one.kind in ("missing", "shape", "added")), "")


def manifest_rows(base: Weights, model: Paired, content: Mapping[str, bool]) -> Iterator[dict[str, Any]]:
    """A row per tensor of either side.

    Args:
        base: the base.
        model: the model beside it.
        content: tensor of the base → whether its bytes are the model's; those that were not read are missing.
    """
    for name, info in base.infos.items():
        own = model.partner(name)
        known = "no partner" if own is None else "not read"
        if name in content:
            known = "identical" if content[name] else "differs"
        elif own is not None and (info.shape, info.dtype) != (own.shape, own.dtype):
            known = "differs"
        yield _row(name, model.label, _change(info, own, name in model.renamed), known, info, own)
    taken = set(model.partners.values())
    for name, own in model.weights.infos.items():
        if name not in taken:
            yield _row(name, model.label, "added", "no partner", None, own)


def _change(info: TensorInfo, own: TensorInfo | None, renamed: bool) -> str:
    if own is None:
        return "removed"
    if renamed:
        return "renamed"
    if info.shape != own.shape:
        return "shape"
    if info.dtype != own.dtype:
        return "dtype"
    return "kept" if info.tied_to == own.tied_to else "tied"


def _row(
    name: str, label: str, change: str, content: str, info: TensorInfo | None, own: TensorInfo | None
) -> dict[str, Any]:
    row = {"tensor": name, "label": label, "change": change, "content": content}
    row["other_name"] = own.name if own else ""
    for prefix, one in (("", info), ("other_", own)):
        row[f"{prefix}shape"] = shape_text(one.shape) if one else ""
        row[f"{prefix}dtype"] = str(one.dtype).removeprefix("torch.") if one else ""
        row[f"{prefix}tied_to"] = (one.tied_to or "") if one else ""
    return row


def shape_text(shape: Sequence[int]) -> str:
    """A shape as tables show it.

    Example:
        >>> shape_text((3, 4)), shape_text(())
        ('3×4', 'scalar')
    """
    return "×".join(map(str, shape)) or "scalar"

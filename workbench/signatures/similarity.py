"""How alike signatures are, and which is the nearest to each: retrieval by type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ArgumentError, Cancelled, nearest
from workbench.layers import Selection, layer_views
from workbench.linalg.pieces import flat_pieces
from workbench.progress import ProgressCallback, check_progress, reporter
from workbench.results import Column, Result, versions
from workbench.signatures.chosen import chosen
from workbench.signatures.common_ancestor import arithmetic, check_common
from workbench.signatures.signature import Signature
from workbench.weights import ModelLike, Weights, load

if TYPE_CHECKING:
    import pandas

ALL = "all"  # the layer of what is of all tensors together


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Similarity(Result):
    """Cosines of signatures, over all tensors and per layer, and the nearest to each."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "nearest": {
            "signature": Column("its label", str, ""),
            "type": Column("its type; empty where none was told", str, ""),
            "nearest": Column("label of the one with the largest cosine; empty where there is no other", str, ""),
            "nearest_type": Column("the type of that one", str, ""),
            "cosine": Column("cosine of both over all tensors", low=-1, high=1),
            "verdict": Column("same type, other type, or not judged: no types, or no other of its type", str, ""),
        },
        "pairs": {
            "first": Column("label of one", str, ""),
            "second": Column("label of the other", str, ""),
            "layer": Column("layer id; `all` for all tensors together", str, ""),
            "elements": Column("elements that were compared", int, low=0),
            "cosine": Column("⟨a, b⟩/(‖a‖·‖b‖); NaN where one is zero", low=-1, high=1),
        },
    }
    NEXT: ClassVar[str] = ".within, .between, .matrix(), .frame('pairs'), wb.figure(similarity)"

    def facts(self) -> str:
        """How many are retrieved, and the means within and between types."""
        words = list(self.tables["nearest"]["verdict"])
        same, other = words.count("same type"), words.count("other type")
        judged = f"{same} of {same + other} nearest are of the same type" if same + other else "no types to judge by"
        means = f"; mean cosine {self.within:.3f} within types, {self.between:.3f} between" if same + other else ""
        return f"{self.title}: {judged}{means}{self.stopped('tensors')}"

    @property
    def within(self) -> float:
        """Mean cosine of different signatures of one type, over all tensors; NaN where there are none."""
        return self._mean(same=True)

    @property
    def between(self) -> float:
        """Mean cosine of signatures of different types, over all tensors; NaN where there are none."""
        return self._mean(same=False)

    def matrix(self, layer: str = ALL) -> pandas.DataFrame:
        """The cosines of one layer, or of all tensors together, as a square or rectangle of labels.

        Raises:
            ArgumentError: there is no such layer.
        """
        table = self.tables["pairs"]
        if layer not in table["layer"]:
            raise ArgumentError(f"there is no layer {layer!r}." + nearest(layer, set(table["layer"])))
        rows = self.frame("pairs").query("layer == @layer")
        wide = rows.pivot(index="first", columns="second", values="cosine")
        return wide.loc[list(dict.fromkeys(rows["first"])), list(dict.fromkeys(rows["second"]))]

    def _mean(self, *, same: bool) -> float:
        types, table = self.meta["types"], self.tables["pairs"]
        found = [
            cosine
            for first, second, layer, cosine in zip(
                table["first"], table["second"], table["layer"], table["cosine"], strict=True
            )
            if layer == ALL
            and (self.meta["others"] or first != second)
            and (types["first"][first] == types["second"][second]) is same
            and types["first"][first]
        ]
        return fmean(found) if found else math.nan


def similarity(
    signatures: Mapping[str, ModelLike | Signature],
    others: Mapping[str, ModelLike | Signature] | None = None,
    *,
    types: Mapping[str, str] | None = None,
    layers: Selection = None,
    progress: ProgressCallback | None = None,
) -> Similarity:
    """The cosine ⟨a,b⟩/(‖a‖·‖b‖) of every two signatures, per layer and over all tensors, and each one's nearest.

    Args:
        signatures: label → Signature, or any weights that are differences.
        others: among these the nearest are looked for, as the same corruptions from another seed; None for the
            signatures themselves, each but itself.
        types: label → type, of both; None: with `others` a label is its own type, without there are none.
        layers: names or globs of modules, layer ids or tensors, or a predicate; None for all.
        progress: called before each layer with a Progress, and once at the end; it may raise `wb.Cancelled`, whose
            `partial` is of the tensors that were done.

    Returns:
        Similarity: `nearest` (a row per signature) and `pairs` (a row per pair and layer, in both orders).

    Raises:
        ArgumentError: there are none, they are of different architectures, or a label has no type.
        LayerNotFoundError: layers match nothing.
        Cancelled: the callback asked for it.

    Cost: a pass over the bytes; K²·n products for K signatures of n elements, in float64.

    Source: the RWS paper's figure of cosines between corruptions. Nearest neighbours by type are ours.

    Misreads: independent directions of n elements have cosines with a spread of 1/√n, but signatures share an ancestor
    and a clean network: compare within types with between, not with zero. `verdict` counts neighbours, not how far
    off the second nearest is.

    Example:
        >>> found = similarity(
        ...     {"a": {"w": torch.tensor([1.0, 0.0])}, "b": {"w": torch.tensor([3.0, 4.0])}}, types={"a": "x", "b": "x"}
        ... )
        >>> found.within, found.frame()["verdict"].tolist()
        (0.6, ['same type', 'same type'])
    """
    check_progress(progress)
    if (
        not isinstance(signatures, Mapping)
        or not signatures
        or (others is not None and not isinstance(others, Mapping))
    ):
        raise ArgumentError("expected a mapping of labels to signatures, as in {'blur': signature}.")
    first = {label: _weights(one) for label, one in signatures.items()}
    second = first if others is None else {label: _weights(one) for label, one in others.items()}
    named = {f"signature {label!r}": one for label, one in first.items()}
    check_common(named | ({} if others is None else {f"other {label!r}": one for label, one in second.items()}))
    known = {"first": _types(first, types, others), "second": _types(second, types, others)}
    models = [*first.values(), *(second.values() if others is not None else ())]
    leading = models[0]
    ids = {view.tensor: view.layer if view.part is None else view.tensor for view in layer_views(leading)}
    real = {info.name for info in arithmetic({str(n): m for n, m in enumerate(models)})[0] if info.tied_to is None}
    names = [name for name in chosen(leading, layers) if name in real]
    grams: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    meta = {
        "function": "wb.similarity",
        "source": ", ".join(first),
        "sources": {label: one.source for label, one in named.items()},
        "fingerprint": leading.fingerprint,
        "types": known,
        "others": others is not None,
        "parameters": {"layers": None if layers is None else names},
        "versions": versions(),
    }

    def built(done: int) -> Similarity:
        cut = {"cancelled": {"done": done, "total": len(names)}} if done < len(names) else {}
        rows = list(_pairs(grams, counts, list(first), list(second), square=others is None))
        return Similarity(
            tables={
                "nearest": Similarity.columns("nearest", _nearest(rows, known, square=others is None)),
                "pairs": Similarity.columns("pairs", rows),
            },
            meta=meta | cut,
        )

    report = reporter(progress, partial=lambda: built(len(grams)))
    try:
        for done, name in enumerate(names):
            report(ids[name], done, len(names))
            gram = _gram([one.borrowed(name) for one in models])
            grams[ids[name]], counts[ids[name]] = gram, leading.infos[name].elements
        report("", len(names), len(names))
    except Cancelled as stop:
        stop.partial = built(len(grams))
        raise
    return built(len(grams))


def _weights(one: ModelLike | Signature) -> Weights:
    return one.weights if isinstance(one, Signature) else load(one)


def _types(
    models: Mapping[str, Weights], types: Mapping[str, str] | None, others: Mapping[str, Any] | None
) -> dict[str, str]:
    if types is None:
        return {label: label if others is not None else "" for label in models}
    if missing := next((label for label in models if label not in types), None):
        raise ArgumentError(f"types has no {missing!r}: expected the type of every label.{nearest(missing, types)}")
    return {label: str(types[label]) for label in models}


def _gram(tensors: Sequence[Tensor]) -> Float[Tensor, "models models"]:
    total = torch.zeros(len(tensors), len(tensors), dtype=torch.float64)
    for pieces in flat_pieces(*tensors):
        stacked = torch.stack([piece.cpu() for piece in pieces])
        total += stacked @ stacked.T
    return total


def _pairs(
    grams: Mapping[str, Tensor], counts: Mapping[str, int], first: Sequence[str], second: Sequence[str], *, square: bool
) -> Iterator[dict[str, Any]]:
    size = len(first) + (0 if square else len(second))
    whole = sum(grams.values(), torch.zeros(size, size, dtype=torch.float64))
    for layer, gram in {ALL: whole, **grams}.items():
        norms = gram.diagonal().sqrt()
        cosines = (gram / (norms[:, None] * norms)).clamp(-1, 1)
        found = (cosines if square else cosines[: len(first), len(first) :]).tolist()
        elements = sum(counts.values()) if layer == ALL else counts[layer]
        for label, row in zip(first, found, strict=True):
            for other, cosine in zip(second, row, strict=True):
                yield {"first": label, "second": other, "layer": layer, "elements": elements, "cosine": cosine}


def _nearest(
    rows: Sequence[Mapping[str, Any]], types: Mapping[str, Mapping[str, str]], *, square: bool
) -> Iterator[dict[str, Any]]:
    for label, kind in types["first"].items():
        own = [row for row in rows if row["first"] == label and row["layer"] == ALL]
        own = [row for row in own if not (square and row["second"] == label) and not math.isnan(row["cosine"])]
        nothing: Mapping[str, Any] = {"second": "", "cosine": math.nan}
        best = max(own, key=lambda row: float(row["cosine"]), default=nothing)
        found = types["second"].get(best["second"], "")
        judged = bool(kind) and bool(own) and any(types["second"][row["second"]] == kind for row in own)
        yield {
            "signature": label,
            "type": kind,
            "nearest": best["second"],
            "nearest_type": found,
            "cosine": best["cosine"],
            "verdict": ("same type" if found == kind else "other type") if judged else "not judged",
        }

"""One layer in all models: the unit of work of `wb.diff`, its rows, and what layers add up to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.cache import Entry
from workbench.errors import LayerError
from workbench.layers import Layer, found
from workbench.signatures.common_ancestor import is_statistic
from workbench.signatures.concentration import lorenz_curve, outlier_channels
from workbench.signatures.elements import Sums, element_sums, kept_signs, not_finite_text
from workbench.signatures.manifest import Paired, shape_text
from workbench.signatures.rows import (
    View,
    layer_row,
    model_numbers,
    note,
    number_row,
    over,
    pair_row,
    pair_sums,
    ratio,
    summary,
    verdict_of,
)
from workbench.signatures.subspaces import base_singular, change_spectra
from workbench.weights import TensorInfo, Weights, content_fingerprint
from workbench.weights.differences import not_weights

UNCHANGED = {"changed": 0.0, "delta_norm": 0.0}  # of the same bits, also where they are not finite
DETAILS = ("lorenz", "outliers", "spectra")  # tables beyond the elementwise tier


@dataclass(frozen=True)
class Compared:
    """What every layer is compared with, and how: the plain arguments of the unit of work.

    Attributes:
        base: the base.
        models: the models beside it.
        floor: a second seed of the base, or None.
        detail: tables to add.
        density: share of |τ| kept for trimmed sign conflicts, or None for none.
        directions: leading singular vectors to compare.
        device: where spectra are computed.
    """

    base: Weights
    models: Sequence[Paired]
    floor: Paired | None
    detail: frozenset[str]
    density: float | None
    directions: int
    device: torch.device

    @property
    def labels(self) -> list[str]:
        """The models' labels."""
        return [model.label for model in self.models]


def unread(compared: Compared, view: View, info: TensorInfo) -> Entry | None:
    """The row of a tensor that need not be read: nobody has it in this shape, or it is tied everywhere."""
    others = [model.partner(info.name) for model in compared.models]
    told = [told_of(model.label, info, own) for model, own in zip(compared.models, others, strict=True)]
    if all(told):
        absent = all(own is None for own in others)
        verdict, reason = "absent" if absent else "shape", "; ".join(told)
    elif info.tied_to and all(own is None or own.tied_to for own in others):
        verdict, reason = "tied", f"tied to {info.tied_to}, compared there"
    elif 0 in info.shape:
        verdict, reason = "empty", "no elements"
    else:
        return None
    values = [
        number_row(view.layer, label, verdict, one or reason) for label, one in zip(compared.labels, told, strict=True)
    ]
    return found({"layers": [layer_row(view, verdict, reason)], "values": values})


def told_of(label: str, info: TensorInfo, own: TensorInfo | None) -> str:
    """Why a tensor cannot be compared with a model's; empty if it can."""
    if own is None:
        return f"not in {label}"
    return "" if own.shape == info.shape else f"{shape_text(own.shape)} in {label}"


def layer_changes(compared: Compared, view: View, tensor: Tensor) -> Entry:
    """The rows of one layer in all tables, the sums for the whole, and curves and spectra."""
    info = compared.base.infos[view.tensor]
    partners = [model.partner(info.name) for model in compared.models]
    told = [told_of(model.label, info, own) for model, own in zip(compared.models, partners, strict=True)]
    read = {place: compared.models[place] for place, reason in enumerate(told) if not reason}
    tensors = {place: model.weights.borrowed(model.partners[info.name]) for place, model in read.items()}
    for place, own in tensors.items():
        if own.layout != torch.strided:
            layout = str(own.layout).removeprefix("torch.")
            raise LayerError(f"{layout} layout in {read[place].label}: only dense tensors are compared")
    prints = {read[place].label: content_fingerprint(own) for place, own in tensors.items()}
    mine = content_fingerprint(tensor)
    own, others = part(view, tensor), [part(view, other) for other in tensors.values()]
    same = {
        place: prints[model.label] == mine
        or (bool(view.part) and content_fingerprint(other) == content_fingerprint(own))
        for (place, model), other in zip(read.items(), others, strict=True)
    }
    headers = [info, *(one for one in partners if one is not None and one.shape == info.shape)]
    if reason := next(filter(None, map(not_weights, headers)), "" if info.shape else "a scalar: it has no direction"):
        entry = _counted(compared, view, own, dict(zip(read, others, strict=True)), told, same, reason)
    else:
        entry = _measured(compared, view, own, dict(zip(read, others, strict=True)), told, same)
    return Entry({**entry.values, "others": prints}, entry.tensors)


def part(view: View, tensor: Tensor) -> Tensor:
    """What of a tensor belongs to a view."""
    return view.part.of(tensor) if view.part else tensor


def _counted(
    compared: Compared,
    view: View,
    own: Tensor,
    others: Mapping[int, Tensor],
    told: Sequence[str],
    same: Mapping[int, bool],
    reason: str,
) -> Entry:
    """Rows of what is no weights: how many elements differ, and no more."""
    values, changed = [], []
    for place, label in enumerate(compared.labels):
        if place not in others:
            values.append(number_row(view.layer, label, "absent", told[place]))
            continue
        apart = _comparable(own) != _comparable(others[place]).to(own.device)
        count = int(apart.sum())
        changed.append(count / own.numel())
        verdict = "identical" if same[place] else "no weights"
        text = f"{own.item()} → {others[place].item()}" if not own.ndim else f"{count} of {own.numel()} elements differ"
        row = number_row(view.layer, label, verdict, "" if same[place] else text)
        values.append(row | {"changed": changed[-1]})
    verdict = "identical" if all(same.values()) else "no weights"
    texts = dict.fromkeys(row["reason"] for row in values if row["reason"])
    row = layer_row(view, verdict, "; ".join([reason, *texts]))
    row |= {"elements": own.numel(), "models": len(others), "changed": fmean(changed)}
    return found({"layers": [row], "values": values})


def _comparable(tensor: Tensor) -> Tensor:
    """The same numbers, in a dtype that torch compares with any other: 8-bit floats are none."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize == 1 else tensor


def _measured(
    compared: Compared,
    view: View,
    own: Tensor,
    others: Mapping[int, Tensor],
    told: Sequence[str],
    same: Mapping[int, bool],
) -> Entry:
    """Rows of weights."""
    labels, floor = compared.labels, _floor(compared, view)
    broken, floorless = dict[int, str](), ""
    sums = _sums(own, others, floor)
    if not sums.finite:
        if sums.base_finite:
            broken = {
                place: _why(labels[place], other)
                for index, (place, other) in enumerate(others.items())
                if not sums.finite_of(index)
            }
            if floor is not None and not sums.finite_of(len(others)):
                floorless, floor = f"over no floor: {_why('the floor', floor)}", None
        if not sums.base_finite or len(broken) == len(others):
            return _refused(compared, view, own, others, told, same)
        others = {place: other for place, other in others.items() if place not in broken}
        sums = _sums(own, others, floor)
    places, tensors = list(others), list(others.values())
    pairs = list(combinations(range(len(places)), 2))
    noise = math.nan if floor is None else ratio(sums.changes[-1, -1], sums.base)
    values, tables = list[dict[str, Any]](), {name: list[dict[str, Any]]() for name in DETAILS}
    for place, label in enumerate(labels):
        if place not in others:
            without = ("not finite", broken[place]) if place in broken else ("absent", told[place])
            values.append(number_row(view.layer, label, *without))
            continue
        index = places.index(place)
        numbers = model_numbers(sums.of(index), over(ratio(sums.changes[index, index], sums.base), noise))
        verdict = "identical" if same[place] else verdict_of(numbers)
        reason = "; ".join(filter(None, ["" if same[place] else note(sums, index), floorless]))
        values.append(number_row(view.layer, label, verdict, reason) | numbers)
    trimmed = None
    if compared.density is not None and pairs:
        trimmed = [counts.tolist() for counts in kept_signs(own, tensors, compared.density)]
    plain = {field.name: _plain(getattr(sums, field.name)) for field in fields(sums)} | {"trimmed": trimmed}
    named = [labels[place] for place in places]
    layer_pairs = [
        {"layer": view.layer, **pair_row(named, i, j, pair_sums(plain, i, j), trimmed=trimmed is not None)}
        for i, j in pairs
    ]
    curves = dict[str, list[Tensor]]()
    for place, other in others.items():
        head = {"layer": view.layer, "label": labels[place]}
        if "lorenz" in compared.detail:
            curve, numbers = lorenz_curve(own, other)
            tables["lorenz"].append(head | numbers)
            curves.setdefault("lorenz", []).append(torch.from_numpy(curve))
        if "outliers" in compared.detail and isinstance(view, Layer):
            tables["outliers"] += [head | row for row in outlier_channels(replace(view, part=None), own, other)]
    kept = {name: torch.stack(rows) for name, rows in curves.items()}
    if "spectra" in compared.detail and isinstance(view, Layer):
        rows, spectra = _spectra(compared, view, own, others)
        tables["spectra"], kept = rows, kept | spectra
    row = summary(view, own, [one for one in values if not math.isnan(one["changed"])], values, layer_pairs, same)
    row |= {"norm": math.sqrt(sums.base), "floor": noise}
    info = compared.base.infos[view.tensor]
    if info.tied_to:
        told_tie = f"tied to {info.tied_to} in the base alone: in no total, as its weights are counted there"
        row["reason"] = "; ".join(filter(None, [row["reason"], told_tie]))
    entry = found({"layers": [row], "values": values, "layer_pairs": layer_pairs, **tables}, kept)
    if info.tied_to or info.buffer or is_statistic(info.name):
        return entry
    return Entry({**entry.values, "sums": {"places": places, "floor": floor is not None, **plain}}, entry.tensors)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _floor(compared: Compared, view: View) -> Tensor | None:
    """The second seed's tensor, if it has one of this shape."""
    floor, info = compared.floor, compared.base.infos[view.tensor]
    if floor is None or told_of(floor.label, info, floor.partner(info.name)):
        return None
    return part(view, floor.weights.borrowed(floor.partners[info.name]))


def _sums(own: Tensor, others: Mapping[int, Tensor], floor: Tensor | None) -> Sums:
    """Of the models, every pair of them, and the floor behind them."""
    tensors = [*others.values(), *([] if floor is None else [floor])]
    return element_sums(own, tensors, list(combinations(range(len(others)), 2)))


def _why(label: str, tensor: Tensor) -> str:
    return not_finite_text(label, tensor) or f"elements of {label} are so large that their squares overflow"


def _refused(
    compared: Compared,
    view: View,
    own: Tensor,
    others: Mapping[int, Tensor],
    told: Sequence[str],
    same: Mapping[int, bool],
) -> Entry:
    """Rows without norms, with what is not finite in which model; the same bits are still identical."""
    mine = not_finite_text("the base", own)
    values = []
    for place, label in enumerate(compared.labels):
        if place not in others:
            values.append(number_row(view.layer, label, "absent", told[place]))
        elif same[place]:
            values.append(number_row(view.layer, label, "identical", mine) | UNCHANGED)
        else:
            theirs = not_finite_text(label, others[place])
            reason = "; ".join(filter(None, [mine, theirs])) or _why("the base", own)
            values.append(number_row(view.layer, label, "not finite", reason))
    reasons = dict.fromkeys(part for one in values if one["reason"] for part in one["reason"].split("; "))
    row = layer_row(view, "identical" if all(same.values()) else "not finite", "; ".join(reasons))
    row |= {"elements": own.numel(), "models": sum(same.values()), **(UNCHANGED if any(same.values()) else {})}
    return found({"layers": [row], "values": values})


def _spectra(
    compared: Compared, view: Layer, own: Tensor, others: Mapping[int, Tensor]
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    whole = replace(view, part=None)  # the part is taken already
    base = own.to(compared.device)
    before = base_singular(whole, base, compared.directions)
    rows, spectra = [], dict[str, list[Tensor]]()
    for place, other in others.items():
        row, values = change_spectra(whole, base, other.to(compared.device), before, compared.directions)
        rows.append({"layer": view.layer, "label": compared.labels[place], **row})
        for name, one in values.items():
            spectra.setdefault(f"singular_{name}", []).append(one.cpu())
    return rows, {"singular_before": before.values.cpu(), **{name: torch.stack(one) for name, one in spectra.items()}}

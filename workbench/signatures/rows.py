"""Rows of a Diff from the sums over a layer's elements."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from workbench.layers import Exclusion, Layer
from workbench.results import Column
from workbench.signatures import columns
from workbench.signatures.elements import Array, Sums
from workbench.signatures.manifest import shape_text

View = Layer | Exclusion

WORDS = ("changed", "beyond floor", "within floor")  # verdicts of layers with numbers that differ


def ratio(squared: float, base: float) -> float:
    """‖τ‖/‖W‖ from their squares; 0 where both are zero, NaN where W alone is."""
    return math.sqrt(squared / base) if base > 0 else 0.0 if squared == 0 else math.nan


def cosine(product: float, one: float, other: float) -> float:
    """⟨x, y⟩/(‖x‖‖y‖) from squared norms, in [−1, 1]; NaN where one of them is zero."""
    if not (one > 0 and other > 0):
        return math.nan
    return min(
        max(product / (math.sqrt(one * other) if one == other else math.sqrt(one) * math.sqrt(other)), -1.0), 1.0
    )


def share(part_of: float, whole: float) -> float:
    """A share; NaN of nothing."""
    return float(part_of / whole) if whole else math.nan


def model_numbers(sums: Sums, index: int, noise: float) -> dict[str, float]:
    """The numbers of one model; `noise` is the floor's relative norm."""
    relative = ratio(sums.changes[index, index], sums.base)
    return {
        "changed": share(int(sums.changed[index]), sums.elements),
        "delta_norm": math.sqrt(sums.changes[index, index]),
        "relative_norm": relative,
        "over_floor": relative / noise if noise > 0 else math.nan,
        "cosine": cosine(sums.cross[index], sums.base, sums.others[index]),
        "sign_conflict": share(int(sums.flipped[index]), int(sums.both[index])),
    }


def note(sums: Sums, index: int) -> str:
    """What the numbers of one model leave open."""
    if sums.changed[index] and sums.changes[index, index] == 0:
        return "the changes are so small that their squares underflow"
    return "the base is all zero: there is no relative norm" if sums.base == 0 and sums.changed[index] else ""


def verdict_of(numbers: Mapping[str, float]) -> str:
    """`changed`; beside a floor, on which side of it."""
    over = numbers["over_floor"]
    return WORDS[0] if math.isnan(over) else WORDS[1] if over > 1 else WORDS[2]


def pair_row(labels: Sequence[str], sums: Sums, trimmed: tuple[Array, Array] | None, i: int, j: int) -> dict[str, Any]:
    """The row of two models' changes."""
    return {
        "one": labels[i],
        "other": labels[j],
        "elements": sums.elements,
        "cosine": cosine(sums.changes[i, j], sums.changes[i, i], sums.changes[j, j]),
        "null_sd": 1 / math.sqrt(sums.elements) if sums.elements else math.nan,
        "sign_conflict": share(int(sums.pair_flipped[i, j]), int(sums.pair_both[i, j])),
        "trimmed_conflict": math.nan if trimmed is None else share(int(trimmed[1][i, j]), int(trimmed[0][i, j])),
    }


def _empty(declared: Mapping[str, Column]) -> dict[str, Any]:
    """A row without numbers."""
    blank: Mapping[type, Any] = {float: math.nan, int: 0, str: "", bool: False}
    return {name: blank[column.kind] for name, column in declared.items()}


def number_row(layer: str, label: str, verdict: str, reason: str) -> dict[str, Any]:
    """A row of the table `values` without numbers."""
    return _empty(columns.COLUMNS["values"]) | {"layer": layer, "label": label, "verdict": verdict, "reason": reason}


def layer_row(view: View, verdict: str, reason: str) -> dict[str, Any]:
    """A row of the main table without numbers."""
    row = _empty(columns.COLUMNS["layers"]) | {"layer": view.layer, "depth": view.depth, "kind": view.kind}
    return row | {"shape": shape_text(view.shape), "verdict": verdict, "reason": reason}


def summary(
    view: View,
    own: Tensor,
    shown: Sequence[Mapping[str, Any]],
    values: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    same: Mapping[int, bool],
) -> dict[str, Any]:
    """A layer's row in the main table: means over the models that have numbers."""
    verdicts = [row["verdict"] for row in values]
    verdict = "identical" if all(same.values()) else next(word for word in (WORDS[1], *WORDS) if word in verdicts)
    reasons = dict.fromkeys(row["reason"] for row in values if row["reason"])
    if not all(same.values()) and any(same.values()):
        reasons |= {f"identical in {row['label']}": None for row in values if row["verdict"] == "identical"}
    reasons |= {view.remark: None} if isinstance(view, Layer) and view.remark else {}
    row = layer_row(view, verdict, "; ".join(reasons))
    row |= {name: mean(one[name] for one in shown) for name in columns.NUMBERS}
    row |= {"elements": own.numel(), "models": len(shown), "null_sd": 1 / math.sqrt(own.numel())}
    row["tau_cosine"] = mean(pair["cosine"] for pair in pairs)
    row["tau_conflict"] = mean(pair["sign_conflict"] for pair in pairs)
    return row


def mean(values: Iterable[float]) -> float:
    """The mean of what is a number; NaN of none."""
    numbers = [value for value in values if not math.isnan(value)]
    return fmean(numbers) if numbers else math.nan

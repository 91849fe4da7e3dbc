"""Rows of a Diff from the sums over a layer's elements."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from workbench.layers import Exclusion, Layer
from workbench.results import Column
from workbench.signatures import columns
from workbench.signatures.elements import Sums
from workbench.signatures.manifest import shape_text

View = Layer | Exclusion

WORDS = ("changed", "beyond floor", "within floor", "equal")  # verdicts of layers whose bytes differ


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


def over(change: float, noise: float) -> float:
    """A change over the floor's; infinite where the floor is 0 and the change is not, NaN of 0 over 0 or no floor."""
    return change / noise if noise > 0 else math.inf if noise == 0 and change > 0 else math.nan


def share(part_of: float, whole: float) -> float:
    """A share; NaN of nothing."""
    return float(part_of / whole) if whole else math.nan


def model_numbers(sums: Mapping[str, float | int], over_floor: float) -> dict[str, float]:
    """The numbers of one model, in a layer or over all.

    Args:
        sums: elements, base ΣW², others ΣW′², cross ΣWW′, change Στ², and the counts changed, both and flipped.
        over_floor: the relative norm over the floor's.
    """
    return {
        "changed": share(sums["changed"], sums["elements"]),
        "delta_norm": math.sqrt(sums["change"]) if sums["elements"] else math.nan,
        "relative_norm": ratio(sums["change"], sums["base"]) if sums["elements"] else math.nan,
        "over_floor": over_floor,
        "cosine": cosine(sums["cross"], sums["base"], sums["others"]),
        "sign_conflict": share(sums["flipped"], sums["both"]),
    }


def note(sums: Sums, index: int) -> str:
    """What the numbers of one model leave open."""
    if not sums.changed[index]:
        return "equal numbers, stored otherwise (another dtype, or the sign of a zero)"
    if sums.changed[index] and sums.changes[index, index] == 0:
        return "the changes are so small that their squares underflow"
    return "the base is all zero: there is no relative norm" if sums.base == 0 and sums.changed[index] else ""


def verdict_of(numbers: Mapping[str, float]) -> str:
    """`changed`, or `equal` if no element is; beside a floor, on which side of it."""
    beside = numbers["over_floor"]
    if not numbers["changed"]:
        return WORDS[3]
    return WORDS[0] if math.isnan(beside) else WORDS[1] if beside > 1 else WORDS[2]


def pair_row(
    labels: Sequence[str], i: int, j: int, sums: Mapping[str, float | int], *, trimmed: bool
) -> dict[str, Any]:
    """The row of two models' changes, in a layer or over all.

    Args:
        labels: the models'.
        i: place of one of them.
        j: place of the other.
        sums: elements, product Στᵢτⱼ, one Στᵢ², other Στⱼ², and the counts both and flipped, if `trimmed` those of the
            largest changes too.
        trimmed: whether the largest changes were looked at by themselves.
    """
    elements = int(sums["elements"])
    return {
        "one": labels[i],
        "other": labels[j],
        "elements": elements,
        "cosine": cosine(sums["product"], sums["one"], sums["other"]),
        "null_sd": 1 / math.sqrt(elements) if elements else math.nan,
        "sign_conflict": share(sums["flipped"], sums["both"]),
        "trimmed_conflict": share(sums["trimmed_flipped"], sums["trimmed_both"]) if trimmed else math.nan,
    }


def pair_sums(sums: Mapping[str, Any], i: int, j: int) -> dict[str, float | int]:
    """Of two models, from the sums of a layer as its unit of work keeps them."""
    found = {"elements": sums["elements"], "product": sums["changes"][i][j], "one": sums["changes"][i][i]}
    found |= {"other": sums["changes"][j][j], "both": sums["pair_both"][i][j], "flipped": sums["pair_flipped"][i][j]}
    if sums["trimmed"] is not None:
        found |= {"trimmed_both": sums["trimmed"][0][i][j], "trimmed_flipped": sums["trimmed"][1][i][j]}
    return found


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
    verdict = "identical" if all(same.values()) else _verdict(verdicts, len(shown))
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


def _verdict(verdicts: Sequence[str], measured: int) -> str:
    """Of a layer, from those of its models: `beyond in k of n` where the n models with numbers do not agree."""
    beyond = verdicts.count(WORDS[1])
    if 0 < beyond < measured:
        return f"beyond in {beyond} of {measured}"
    return next((word for word in (WORDS[1], *WORDS) if word in verdicts), "not finite")


def mean(values: Iterable[float]) -> float:
    """The mean of what is a number; NaN of none."""
    numbers = [value for value in values if not math.isnan(value)]
    return fmean(numbers) if numbers else math.nan

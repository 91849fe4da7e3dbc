"""What layers add up to: every sum of a model, and of each pair of models over the layers that both have."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

from workbench.results import many
from workbench.signatures.rows import model_numbers, over, pair_row, pair_sums

MODEL = "elements base others cross change changed both flipped change_beside_floor floor".split()
PAIR = "elements product one other both flipped trimmed_both trimmed_flipped".split()


WITHOUT = {"not finite": "not finite", "failed": "failed", "absent": "no partner", "shape": "another shape"}
SHOWN = 3  # layers in a reason

Gone: TypeAlias = Mapping[str, Mapping[str, str]]  # label → layer → why it is in no total of that model


def gone(values: Iterable[Mapping[str, Any]], labels: Sequence[str]) -> Gone:
    """What is missing from the totals, from the rows of layers that would count in them."""
    found: dict[str, dict[str, str]] = {label: {} for label in labels}
    for row in values:
        if row["verdict"] in WITHOUT:
            found[row["label"]][row["layer"]] = WITHOUT[row["verdict"]]
    return found


def _reason(missing: Mapping[str, str], elements: float, more: str = "") -> str:
    by_word: dict[str, list[str]] = {}
    for layer, word in missing.items():
        by_word.setdefault(word, []).append(layer)
    told = [] if elements else ["nothing was measured"]
    for word, layers in by_word.items():
        names = ", ".join(layers[:SHOWN]) + (", …" if layers[SHOWN:] else "")
        told.append(f"without {many(len(layers), 'layer')}, {word}: {names}")
    return "; ".join([*told, *([more] if more else [])])


def pooled_models(
    sums: Sequence[Mapping[str, Any]], labels: Sequence[str], missing: Gone, *, floor: bool
) -> list[dict[str, Any]]:
    """The numbers of each model over all its layers.

    Args:
        sums: of each layer, as the unit of work kept them.
        labels: the models'.
        missing: what is in no total.
        floor: whether there is a floor, which some layers may lack.
    """
    floorless = sum(not one["floor"] for one in sums) if floor else 0
    more = f"over_floor without {many(floorless, 'layer')} with no floor" if floorless else ""
    totals = [dict.fromkeys(MODEL, 0.0) for _ in labels]
    for one in sums:
        for index, place in enumerate(one["places"]):
            change = one["changes"][index][index]
            found = {"elements": one["elements"], "base": one["base"], "change": change}
            found |= {name: one[name][index] for name in ("others", "cross", "changed", "both", "flipped")}
            if one["floor"]:
                found |= {"change_beside_floor": change, "floor": one["changes"][-1][-1]}
            for name, value in found.items():
                totals[place][name] += value
    return [
        {
            "elements": int(total["elements"]),
            "reason": _reason(missing[label], total["elements"], more),
            **model_numbers(total, over(math.sqrt(total["change_beside_floor"]), math.sqrt(total["floor"]))),
        }
        for label, total in zip(labels, totals, strict=True)
    ]


def pooled_pairs(sums: Iterable[Mapping[str, Any]], labels: Sequence[str], missing: Gone) -> list[dict[str, Any]]:
    """The row of each pair of models, over the layers that both have."""
    totals = {pair: dict.fromkeys(PAIR, 0.0) for pair in combinations(range(len(labels)), 2)}
    trimmed = False
    for one in sums:
        for i, j in combinations(range(len(one["places"])), 2):
            total = totals[one["places"][i], one["places"][j]]
            trimmed = trimmed or one["trimmed"] is not None
            for name, value in pair_sums(one, i, j).items():
                total[name] += value
    return [
        pair_row(labels, i, j, total, trimmed=trimmed)
        | {"reason": _reason({**missing[labels[i]], **missing[labels[j]]}, total["elements"])}
        for (i, j), total in totals.items()
    ]

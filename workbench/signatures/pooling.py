"""What layers add up to: every sum of a model, and of each pair of models over the layers that both have."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from workbench.signatures.rows import model_numbers, over, pair_row, pair_sums

MODEL = "elements base others cross change changed both flipped change_beside_floor floor".split()
PAIR = "elements product one other both flipped trimmed_both trimmed_flipped".split()


def pooled_models(sums: Iterable[Mapping[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The numbers of each model over all its layers.

    Args:
        sums: of each layer, as the unit of work kept them.
        labels: the models'.
    """
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
            **model_numbers(total, over(math.sqrt(total["change_beside_floor"]), math.sqrt(total["floor"]))),
        }
        for total in totals
    ]


def pooled_pairs(sums: Iterable[Mapping[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The row of each pair of models, over the layers that both have."""
    totals = {pair: dict.fromkeys(PAIR, 0.0) for pair in combinations(range(len(labels)), 2)}
    trimmed = False
    for one in sums:
        for i, j in combinations(range(len(one["places"])), 2):
            total = totals[one["places"][i], one["places"][j]]
            trimmed = trimmed or one["trimmed"] is not None
            for name, value in pair_sums(one, i, j).items():
                total[name] += value
    return [pair_row(labels, i, j, total, trimmed=trimmed) for (i, j), total in totals.items()]

"""What layers add up to: every sum of a model, and of each pair of models over the layers that both have."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from workbench.signatures.rows import cosine, ratio, share

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
    rows = []
    for total in totals:
        beside = total["change_beside_floor"], total["floor"]
        rows.append(
            {
                "elements": int(total["elements"]),
                "changed": share(total["changed"], total["elements"]),
                "delta_norm": math.sqrt(total["change"]),
                "relative_norm": ratio(total["change"], total["base"]) if total["elements"] else math.nan,
                "over_floor": math.sqrt(beside[0] / beside[1]) if beside[1] > 0 else math.nan,
                "cosine": cosine(total["cross"], total["base"], total["others"]),
                "sign_conflict": share(total["flipped"], total["both"]),
            }
        )
    return rows


def pooled_pairs(sums: Iterable[Mapping[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The row of each pair of models, over the layers that both have."""
    totals = {pair: dict.fromkeys(PAIR, 0.0) for pair in combinations(range(len(labels)), 2)}
    trimmed = False
    for one in sums:
        for i, j in combinations(range(len(one["places"])), 2):
            total = totals[one["places"][i], one["places"][j]]
            changes = one["changes"]
            found = {"elements": one["elements"], "product": changes[i][j], "one": changes[i][i]}
            found |= {"other": changes[j][j], "both": one["pair_both"][i][j], "flipped": one["pair_flipped"][i][j]}
            if one["trimmed"] is not None:
                trimmed = True
                found |= {"trimmed_both": one["trimmed"][0][i][j], "trimmed_flipped": one["trimmed"][1][i][j]}
            for name, value in found.items():
                total[name] += value
    return [
        {
            "one": labels[i],
            "other": labels[j],
            "elements": int(total["elements"]),
            "cosine": cosine(total["product"], total["one"], total["other"]),
            "null_sd": 1 / math.sqrt(total["elements"]) if total["elements"] else math.nan,
            "sign_conflict": share(total["flipped"], total["both"]),
            "trimmed_conflict": share(total["trimmed_flipped"], total["trimmed_both"]) if trimmed else math.nan,
        }
        for (i, j), total in totals.items()
    ]

"""The table of correlations: every pair of compared columns, tested, corrected and judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from workbench.atlas.joining import CONTROLS, Grid, Place
from workbench.atlas.rank_correlation import (
    Floats,
    Integers,
    centred_ranks,
    cosine,
    holm,
    interval,
    kendall,
    layers_needed,
    mid_ranks,
    orthonormal,
    permutation_p,
    residuals,
)
from workbench.results import Column, many

LEVEL = 0.05  # of all pairs together
FEWEST = 3  # layers below which ρ is ±1 or nothing
DIGITS = 12  # of a mean of ranks over models: beyond is rounding, which would break ties


def _share(meaning: str) -> Column:
    return Column(meaning, low=0, high=1)


def _rho(meaning: str) -> Column:
    return Column(meaning, low=-1, high=1)


VERDICTS = ("positive", "negative", "not distinguishable from 0", "too few", "constant")
NO_CONTROL = "no control"
COLUMNS: Mapping[str, Column] = {
    "first": Column("a column", str, ""),
    "second": Column("another column", str, ""),
    "layers": Column("layers with both numbers; those of several models of one architecture count once", int, low=0),
    "rows": Column("rows with both numbers", int, low=0),
    "models": Column("models that these rows are of", int, low=0),
    "unread": Column("rows left out because a verdict says that a number is not to be read", int, low=0),
    "rho": _rho("Spearman's ρ, within architectures"),
    "rho_low": _rho("lower end of its 95 % interval (Bonett and Wright)"),
    "rho_high": _rho("upper end of its 95 % interval"),
    "tau": _rho("Kendall's τ_b, within architectures"),
    "p": _share("two-sided p of ρ: share of orders of the layers with |ρ| as large"),
    "p_least": _share("the least p that any order of these numbers has"),
    "p_holm": _share("p after Holm's correction for all pairs of the table"),
    "verdict": Column(" / ".join(VERDICTS), str, ""),
    "layers_needed": Column("layers at which a ρ of this size is found with probability 0.8 at 0.05/pairs", low=0),
    "controls": Column("what the partial correlation controls for", str, ""),
    "partial": _rho("Spearman's ρ of what a linear fit of the ranks to the controls' ranks leaves"),
    "partial_low": _rho("lower end of its 95 % interval"),
    "partial_high": _rho("upper end of its 95 % interval"),
    "partial_p": _share("two-sided p of it (Freedman and Lane)"),
    "partial_p_holm": _share("the same after Holm's correction for all pairs of the table"),
    "partial_verdict": Column(f"the verdict on it; `{NO_CONTROL}` where no control varies and is known", str, ""),
    "reason": Column("why the verdicts are what they are, and which controls could not be used", str, ""),
}


@dataclass(frozen=True)
class Units:
    """What is correlated: a number per layer of an architecture, the mean of its ranks within models.

    Attributes:
        ranks: name → centred ranks of it within strata, (n,).
        strata: architecture of each unit, ascending, (n,).
    """

    ranks: Mapping[str, Floats]
    strata: Integers


def units(values: Mapping[str, Sequence[float]], places: Sequence[Place], families: Mapping[str, str]) -> Units:
    """Ranks of each name within models, averaged over the models of an architecture, and ranked again within it.

    Two seeds of an architecture repeat its layers: they make their ranks surer, and are no further layers.
    """
    models = np.array([place.model for place in places])
    within = {name: np.zeros(len(places)) for name in values}
    for model in sorted(set(models.tolist())):
        inside = models == model
        for name, own in values.items():
            within[name][inside] = mid_ranks(np.asarray(own)[inside]) / (inside.sum() + 1)
    keys = [(families[place.model], place.layer) for place in places]
    kept = sorted(set(keys))
    rows = [[row for row, key in enumerate(keys) if key == one] for one in kept] if len(kept) < len(keys) else None
    order = [keys.index(one) for one in kept] if rows is None else []
    names = sorted({family for family, _ in kept})
    strata = np.array([names.index(family) for family, _ in kept], dtype=np.int64)
    ranks = {}
    for name, scaled in within.items():
        pooled = scaled[order] if rows is None else np.array([scaled[inside].mean() for inside in rows])
        ranks[name] = centred_ranks(np.round(pooled, DIGITS), strata)
    return Units(ranks, strata)


def column_pairs(columns: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair of columns, named in alphabetical order, so that no order of results changes a number."""
    return [(min(pair), max(pair)) for pair in combinations(columns, 2)]


def judged(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per pair that was measured, with its p corrected for all of them, and the verdicts."""
    rows: list[dict[str, Any]] = [{**row, "reason": list(row["reason"])} for row in pairs]
    for prefix in ("", "partial_"):
        corrected = holm([row[f"{prefix}p"] for row in rows])
        tests = sum(not math.isnan(p) for p in corrected)
        found = sum(p <= LEVEL for p in corrected)
        for row, p in zip(rows, corrected, strict=True):
            row[f"{prefix}p_holm"] = p
            _judge(row, prefix, tests, tests - found)
    tests = max(sum(not math.isnan(row["p"]) for row in rows), 1)
    for row in rows:
        row["layers_needed"] = layers_needed(row["rho"], LEVEL / tests)
        row["reason"] = "; ".join(row["reason"])
        del row["partial_p_least"]
    return rows


def column_values(grid: Grid, name: str) -> dict[Place, float]:
    """The numbers of a column, of the depth or of the size, that correlations read; NaN elsewhere."""
    if name in CONTROLS:
        return dict((grid.depths if name == "depth" else grid.sizes).items())
    return {place: cell.value if cell.used else math.nan for place, cell in grid.cells[name].items()}


def measured(
    grid: Grid, one: str, other: str, controls: Sequence[str], families: Mapping[str, str], *, draws: int, seed: int
) -> dict[str, Any]:
    """The numbers of one pair of columns; `judged` corrects them for all pairs, and says what they are worth."""
    wanted = [name for name in controls if name not in (one, other)]
    table = {name: column_values(grid, name) for name in (one, other, *wanted)}
    both = [place for place in grid.places if not any(math.isnan(table[name][place]) for name in (one, other))]
    lacking = {name: sum(math.isnan(table[name][place]) for place in both) for name in wanted}
    reason = [f"{name} is not known for {count} of these rows" for name, count in lacking.items() if count]
    usable = [name for name in wanted if not lacking[name]]
    found = units({name: [table[name][place] for place in both] for name in (one, other, *usable)}, both, families)
    x, y = found.ranks[one], found.ranks[other]
    count, strata = len(found.strata), len(set(found.strata.tolist()))
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan) | {"first": one, "second": other, "reason": reason}
    row |= {"layers": count, "rows": len(both), "models": len({place.model for place in both}), "controls": ""}
    row |= {"unread": _unread(grid, one, other), "verdict": "", "partial_verdict": "", "partial_p_least": math.nan}
    if count < FEWEST:
        return row
    if flat := [name for name in (one, other) if not found.ranks[name].any()]:
        row["verdict"] = row["partial_verdict"] = "constant"
        reason.append(f"{' and '.join(flat)}: equal in all layers")
        return row
    row["rho"], row["tau"] = cosine(x, y), kendall(x, y, found.strata)
    row["rho_low"], row["rho_high"] = interval(row["rho"], count - strata - 2)
    none = np.zeros((count, 0))
    name = f"{one} ~ {other}"
    row["p"], row["p_least"] = permutation_p(x, y, none, found.strata, draws=draws, seed=seed, name=name)
    varied = [name for name in usable if found.ranks[name].any()]
    basis = orthonormal([found.ranks[name] for name in varied], count)
    row["controls"] = ", ".join(varied)
    if not varied:
        row["partial_verdict"] = NO_CONTROL
        return row
    if count - strata - 2 - basis.shape[1] < 1:
        row["partial_verdict"] = "too few"
        reason.append(f"{row['controls']} leave {many(count, 'layer')} no freedom")
        return row
    left, right = residuals(x, basis), residuals(y, basis)
    if gone := [name for name, rest in ((one, left), (other, right)) if not rest.any()]:
        row["partial_verdict"] = "constant"
        reason.append(f"{row['controls']} leave nothing of {' and '.join(gone)}")
        return row
    row["partial"] = cosine(left, right)
    row["partial_low"], row["partial_high"] = interval(row["partial"], count - strata - 2 - basis.shape[1])
    row["partial_p"], row["partial_p_least"] = permutation_p(
        left, right, basis, found.strata, draws=draws, seed=seed, name=f"{name} | {row['controls']}"
    )
    return row


def _unread(grid: Grid, one: str, other: str) -> int:
    """Rows where both have a number and a verdict says that one is not to be read."""

    def has(name: str, place: Place) -> bool:
        return name in CONTROLS or not math.isnan(grid.cells[name][place].value)

    def unused(name: str, place: Place) -> bool:
        return name not in CONTROLS and not grid.cells[name][place].used

    return sum(
        has(one, place) and has(other, place) and (unused(one, place) or unused(other, place)) for place in grid.places
    )


def _judge(row: dict[str, Any], prefix: str, tests: int, open_tests: int) -> None:
    """Writes the verdict. `too few`: no order of these numbers could have been told from 0 beside what was found."""
    verdict, what = f"{prefix}verdict", "partial" if prefix else "rho"
    if row[verdict]:
        return
    p, least = row[f"{prefix}p"], row[f"{prefix}p_least"]
    if math.isnan(p):
        row[verdict] = "too few"
        if not prefix:
            row["reason"].append(f"{many(row['layers'], 'layer')} with both numbers")
    elif row[f"{prefix}p_holm"] <= LEVEL:
        row[verdict] = VERDICTS[0] if row[what] > 0 else VERDICTS[1]
    elif least * max(open_tests, 1) > LEVEL:
        row[verdict] = "too few"
        of = "of the partial correlation" if prefix else f"of {many(row['layers'], 'layer')}"
        more = f", and {tests} pairs are compared" if tests > 1 else ""
        row["reason"].append(f"no order {of} has a p below {least:.2g}{more}")
    else:
        row[verdict] = VERDICTS[2]

"""Figures of a Diff: what is drawn are the tables' numbers, and what cannot be drawn is told."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.figures import Heat, Points
from workbench.figures.diff import clustered
from workbench.figures.spec import Bars, Line

LABELS = ("blur", "noise", "defocus", "shot")


def model(seed: int, like: int | None = None, size: float = 0.1) -> dict[str, torch.Tensor]:
    def draw(number: int, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)

    shapes = {"fc1.weight": (12, 9), "fc2.weight": (8, 12), "fc2.bias": (8,)}
    base = {name: draw(n, *shape) for n, (name, shape) in enumerate(shapes.items())}
    own = {name: size * draw(100 * seed + n, *shape) for n, (name, shape) in enumerate(shapes.items())}
    if like is not None:
        own = {name: one + 2 * size * draw(100 * like + n, *shapes[name]) for n, (name, one) in enumerate(own.items())}
    return {name: base[name] + (own[name] if seed else 0) for name in shapes} | {"count": torch.tensor(seed)}


@cache
def diff(several: bool = True) -> wb.Diff:
    models = dict(zip(LABELS, (model(1, like=7), model(2, like=8), model(3, like=7), model(4, like=8)), strict=True))
    chosen = models if several else {"blur": models["blur"]}
    return wb.diff(model(0), chosen, floor=model(5), detail=["lorenz", "outliers", "spectra"])


@pytest.mark.parametrize("kind", ["norms", "cosines", "lorenz", "extraction", "singular", "overlap"])
def test_both_renderers_draw_every_kind(kind: str) -> None:
    layer = "fc1" if kind in ("lorenz", "extraction", "singular") else None
    figure = wb.figure(diff(), kind, layer=layer)
    assert figure.kind == kind and figure.csv().count("\n") > 3
    assert figure.to_plotly().data and figure.to_matplotlib().axes


def test_bars_are_the_norms_ranked_over_the_floor() -> None:
    figure = wb.figure(diff(), layer="fc2")
    rows = diff().frame().dropna(subset="relative_norm").sort_values("over_floor", ascending=False)
    for panel, column in zip(figure.panels, ("relative_norm", "over_floor"), strict=True):
        (bars,) = (mark for mark in panel.marks if isinstance(mark, Bars))
        assert list(bars.heights) == rows[column].tolist()
        assert [name for _, name in panel.x.ticks] == rows["layer"].tolist()
    (floor,) = (mark for mark in figure.panels[0].marks if isinstance(mark, Line))
    assert list(floor.y) == rows["floor"].tolist() and "1 without a number" in figure.panels[0].title
    alone = wb.figure(diff(), model="shot").panels[0].marks[0]
    values = diff().frame("values")
    own = values[values["label"] == "shot"].dropna(subset="relative_norm")
    assert isinstance(alone, Bars) and sorted(alone.heights) == sorted(own["relative_norm"])
    plain = wb.diff(model(0), model(1))
    assert len(wb.figure(plain).panels) == 1


@pytest.mark.parametrize("layer", [None, "fc1"])
def test_the_heat_map_puts_like_beside_like(layer: str | None) -> None:
    figure = wb.figure(diff(), "cosines", layer=layer)
    (heat,) = figure.panels[0].marks
    names = [name for _, name in figure.panels[0].x.ticks]
    assert isinstance(heat, Heat) and {frozenset(names[:2]), frozenset(names[2:])} == {
        frozenset({"blur", "defocus"}),
        frozenset({"noise", "shot"}),
    }
    rows = diff().frame("pairs" if layer is None else "layer_pairs")
    rows = rows if layer is None else rows[rows["layer"] == layer]
    for row in rows.to_dict("records"):
        i, j = names.index(row["one"]), names.index(row["other"])
        assert heat.values[i][j] == heat.values[j][i] == row["cosine"]
    assert all(heat.values[n][n] == 1 for n in range(4))


def test_clusters_of_planted_blocks_are_contiguous() -> None:
    kinds = np.array([0, 1, 2, 0, 1, 2, 0])
    order = clustered(np.where(kinds[:, None] == kinds[None], 0.8, 0.1) + 0.2 * np.eye(7))
    found = kinds[order].tolist()
    assert sum(a != b for a, b in zip(found, found[1:], strict=False)) == 2


def test_curves_are_the_tensors() -> None:
    curve = wb.figure(diff(), "lorenz", layer="fc1").panels[0].marks[1]
    assert isinstance(curve, Line) and list(curve.y) == diff().lorenz["fc1"][0].tolist()
    by_rank, by_bytes = wb.figure(diff(False), "extraction", layer="fc1").panels
    energy = diff(False).singular_change["fc1"][0].square()
    held, cost = by_rank.marks[0], by_bytes.marks[0]
    assert isinstance(held, Line) and held.y == pytest.approx((energy.cumsum(0) / energy.sum()).tolist())
    assert isinstance(cost, Line) and cost.x == tuple((12 + 9) * 8.0 * rank for rank in range(1, 10))
    dots = wb.figure(diff(), "singular", layer="fc1", model="shot").panels[0].marks[1]
    assert isinstance(dots, Points) and list(dots.x) == diff().singular_before["fc1"].tolist()
    assert list(dots.y) == diff().singular_after["fc1"][LABELS.index("shot")].tolist()


def test_overlaps_stand_beside_chance() -> None:
    figure = wb.figure(diff(False), "overlap", layer="fc2")
    rows = diff(False).frame("spectra")
    for panel, column in zip(figure.panels, ("overlap", "overlap_right"), strict=True):
        points = {mark.label or mark.role: mark for mark in panel.marks if isinstance(mark, Points)}
        assert list(points["blur"].y) == rows[column].tolist()
        assert list(points["chance"].y) == rows[column.replace("overlap", "chance")].tolist()
        assert points["accent"].ids == ("fc2",)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("cosines", {"several": False}, "cosines of changes need two models or more"),
        ("lorenz", {}, "shows one layer: say which"),
        ("lorenz", {"layer": "count"}, "count has no change to draw a curve of (no weights)"),
        ("singular", {"layer": "fc2.bias"}, "it is no matrix, or it did not change"),
        ("norms", {"layer": "count"}, "count has no relative norm (int64"),
        ("norms", {"model": "shoot"}, "Did you mean 'shot'?"),
        ("cosines", {"layer": "count"}, "no two models changed count"),
    ],
)
def test_what_cannot_be_drawn_is_told(kind: str, options: dict[str, Any], told: str) -> None:
    result = diff(options.pop("several", True))
    with pytest.raises(wb.FigureError) as raised:
        wb.figure(result, kind, **options)
    assert told in str(raised.value)


def test_details_that_were_not_made_are_named() -> None:
    plain = wb.diff(model(0), model(1))
    for kind, name in (("lorenz", "lorenz"), ("extraction", "spectra"), ("overlap", "spectra")):
        with pytest.raises(wb.FigureError, match=rf"it is made by wb\.diff\(\.\.\., detail='{name}'\)"):
            wb.figure(plain, kind, layer="fc1")
    with pytest.raises(wb.LayerNotFoundError, match="Did you mean 'fc1'"):
        wb.figure(plain, "norms", layer="fc11")
    nothing = wb.diff({"n": torch.tensor(1)}, {"n": torch.tensor(2)})
    with pytest.raises(wb.FigureError, match="no layer has a relative norm"):
        wb.figure(nothing)


def test_more_models_than_looks_are_told() -> None:
    many = wb.diff(model(0), {str(n): model(n) for n in range(1, 8)}, detail="lorenz")
    panel = wb.figure(many, "lorenz", layer="fc1").panels[0]
    assert panel.title == "the first 5 of 7 models; model= for another"
    assert sum(isinstance(mark, Line) for mark in panel.marks) == 6
    assert not math.isnan(many.row("fc1")["tau_cosine"])

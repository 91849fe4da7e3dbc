"""Figures of an Atlas: points are the table's numbers with their layers' ids, and what is not told from 0 is marked."""

import math
from functools import cache

import pytest
import torch

import workbench as wb
from workbench.figures import Heat, Points

COLUMNS = ["contents.rms", "diff.relative_norm", "contents.mean", "depth"]


@cache
def atlas(count: int = 9) -> wb.Atlas:
    """The change grows with rms; the mean is noise; the deepest layer has no weights in the diff."""
    random = torch.Generator().manual_seed(0)
    scales = [(5 * n) % count + 1 for n in range(count)]
    base = {f"{n}.weight": s * torch.randn(20, 20, generator=random) for n, s in enumerate(scales)}
    tuned = {name: w * (1 + 0.1 * s) for s, (name, w) in zip(scales, base.items(), strict=True)}
    extra = {f"{count}.weight": torch.ones(2, 2)}
    return wb.atlas(wb.contents(base | extra), wb.diff(base, tuned), columns=COLUMNS)


@pytest.mark.parametrize("kind", ["correlations", "pairs", "scatter"])
def test_both_renderers_draw_every_kind(kind: str) -> None:
    figure = wb.figure(atlas(), kind)
    assert figure.kind == kind and figure.csv().count("\n") > 3
    assert figure.to_plotly().data and figure.to_matplotlib().axes


def test_the_map_has_the_tables_numbers_twice_and_marks_what_is_not_told_from_0() -> None:
    figure = wb.figure(atlas())
    rows = atlas().frame("correlations")
    for panel, value, verdict in zip(figure.panels, ("rho", "partial"), ("verdict", "partial_verdict"), strict=True):
        (heat,) = (mark for mark in panel.marks if isinstance(mark, Heat))
        names = [name for _, name in panel.x.ticks]
        assert names == atlas().compared == [name for _, name in panel.y.ticks]
        marked = {
            (mark.label, place)
            for mark in panel.marks
            if isinstance(mark, Points)
            for place in zip(mark.x, mark.y, strict=True)
        }
        expected = set()
        for _, row in rows.iterrows():
            i, j = names.index(row["first"]), names.index(row["second"])
            assert (heat.values[i][j], heat.values[j][i]) == pytest.approx((row[value], row[value]), nan_ok=True, abs=0)
            if row[verdict] not in ("positive", "negative", "no control"):
                expected |= {(row[verdict], (i, j)), (row[verdict], (j, i))}
        assert marked == expected and all(math.isnan(heat.values[i][i]) for i in range(4))
    assert atlas().pair("contents.rms", "diff.relative_norm")["verdict"] == "positive"
    assert wb.figure(atlas(4)).panels[0].marks[1].label == "too few"


def test_a_layer_has_one_id_in_all_panels() -> None:
    figure = wb.figure(atlas(), "pairs", layer="3")
    assert [(panel.x.label, panel.y.label) for panel in figure.panels] == [
        ("contents.rms", "diff.relative_norm"),
        ("contents.rms", "contents.mean"),
        ("diff.relative_norm", "contents.mean"),
    ]
    frame = atlas().frame().set_index("layer")
    for panel in figure.panels:
        points = [mark for mark in panel.marks if isinstance(mark, Points) and mark.role != "accent"]
        drawn = {layer: (x, y) for mark in points for layer, x, y in zip(mark.ids, mark.x, mark.y, strict=True)}
        expected = frame[[panel.x.label, panel.y.label]].dropna()
        assert drawn == {layer: tuple(row) for layer, row in expected.iterrows()}
        (ring,) = (mark for mark in panel.marks if isinstance(mark, Points) and mark.role == "accent")
        assert ring.ids == ("3",) and (ring.x[0], ring.y[0]) == drawn["3"]
    assert "9" in set().union(*(mark.ids for mark in figure.panels[1].marks)), "it has no change, and a mean"
    assert len(wb.figure(atlas(), "pairs", columns=COLUMNS).panels) == 6


def test_colours_are_thirds_of_depth_and_the_same_in_all_panels() -> None:
    figure = wb.figure(atlas(), "pairs")
    depths = atlas().frame().set_index("layer")["depth"]
    spans = {}
    for panel in figure.panels:
        for mark in panel.marks:
            assert mark.label.startswith("depth ")
            low, high = map(float, mark.label.removeprefix("depth ").split("–"))
            assert all(low <= depths[layer] <= high for layer in mark.ids)
            spans.setdefault(mark.role, set()).add(mark.label)
    assert list(map(len, spans.values())) == [1, 1, 1]


def test_a_scatter_has_the_standard_errors_of_its_result() -> None:
    model = {f"{n}.weight": torch.randn(40, 40 + n, generator=torch.Generator().manual_seed(n)) for n in range(4)}
    spectrum = wb.spectrum(model)
    found = wb.atlas(spectrum, wb.contents(model), unread="kept")
    (panel,) = wb.figure(found, "scatter", x="contents.rms", y="spectrum.alpha").panels
    bars = {layer: e for mark in panel.marks for layer, e in zip(mark.ids, mark.error, strict=True)}
    assert bars == dict(zip(*(spectrum.tables["layers"][name] for name in ("layer", "alpha_error")), strict=True))
    assert panel.title.startswith(f"ρ = {found.pair('contents.rms', 'spectrum.alpha')['rho']:.2f}")


def test_an_infinite_number_is_not_drawn_and_told() -> None:
    base = {f"{n}.weight": torch.full((3, 3), n + 1.0) for n in range(4)}
    tuned = {name: w * (1 + 0.1 * n) for n, (name, w) in enumerate(base.items(), start=1)}
    floor = {name: w * (1.1 if n else 1) for n, (name, w) in enumerate(base.items())}
    found = wb.atlas(wb.contents(base), wb.diff(base, tuned, floor=floor))
    (panel,) = wb.figure(found, "scatter", x="contents.rms", y="diff.over_floor").panels
    assert math.inf in found.values("diff.over_floor") and "not drawn: 1 infinite" in panel.title
    assert sum(len(mark.x) for mark in panel.marks) == 3


def test_what_cannot_be_drawn_says_why() -> None:
    one = wb.atlas(wb.contents({"fc.weight": torch.eye(3)}))
    for message, result, kind, options in (
        ("no pair of columns has a correlation", one, "correlations", {}),
        ("fewer than two columns are compared: name two", one, "scatter", {}),
        ("pairs shows two to 4 columns", one, "pairs", {}),
        ("pairs shows two to 4 columns", atlas(), "pairs", {"columns": ["depth"]}),
        ("no layer has numbers of both", atlas(), "scatter", {"x": "diff.over_floor", "y": "depth"}),
        ("the figure 'correlations' is of all weights", atlas(), "correlations", {"layer": "3"}),
        ("columns= does not go with the figure 'scatter'", atlas(), "scatter", {"columns": ["depth"]}),
    ):
        with pytest.raises(wb.FigureError, match=message):
            wb.figure(result, kind, **options)
    with pytest.raises(wb.LayerNotFoundError, match="no layer '33'"):
        wb.figure(atlas(), "pairs", layer="33")
    with pytest.raises(wb.ArgumentError, match="no column 'dept'"):
        wb.figure(atlas(), "scatter", x="dept", y="contents.rms")


def test_tau_takes_the_place_of_rho_in_every_figure() -> None:
    row = atlas().pair("contents.rms", "diff.relative_norm")
    assert row["tau"] == pytest.approx(1) and round(row["tau"], 2) == 1
    other = atlas().pair("contents.mean", "contents.rms")
    assert round(other["tau"], 2) != round(other["rho"], 2), "else nothing is told apart here"
    figure = wb.figure(atlas(), "correlations", method="tau")
    (heat,) = (mark for mark in figure.panels[0].marks if isinstance(mark, Heat))
    names = [name for _, name in figure.panels[0].x.ticks]
    assert len(figure.panels) == 1 and heat.label == "Kendall's τ_b"
    assert heat.values[names.index("contents.mean")][names.index("contents.rms")] == other["tau"]
    scatter = wb.figure(atlas(), "scatter", x="contents.rms", y="contents.mean", method="tau")
    assert scatter.panels[0].title == f"τ = {other['tau']:.2f}"
    assert "τ" in wb.figure(atlas(), "pairs", method="tau").panels[0].title
    for kind in ("correlations", "pairs", "scatter"):
        with pytest.raises(wb.ArgumentError, match="expected 'rho' or 'tau'"):
            wb.figure(atlas(), kind, method="pearson")


def test_without_names_columns_of_different_layers_are_not_put_beside_each_other() -> None:
    model = {f"{n}.weight": torch.diag(torch.arange(1.0, 9.0) + n) for n in range(6)}
    halves = [wb.contents(model, layers=[str(n) for n in own]) for own in (range(3), range(3, 6))]
    found = wb.atlas({"one": halves[0], "other": halves[1]}, columns=["one.rms", "other.rms", "one.mean", "depth"])
    figure = wb.figure(found, "pairs")
    assert [(panel.x.label, panel.y.label) for panel in figure.panels] == [
        ("one.rms", "one.mean"),
        ("one.rms", "depth"),
        ("one.mean", "depth"),
    ]
    with pytest.raises(wb.FigureError, match="no layer has numbers of both"):
        wb.figure(found, "pairs", columns=["one.rms", "other.rms"])

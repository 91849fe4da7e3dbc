"""Both renderers draw the specification's own data, labels and limits; files are fit for print."""

import csv
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import rcParams
from matplotlib.colors import to_rgba
from matplotlib.patches import StepPatch
from pypdf import PdfReader

import workbench as wb
from workbench.figures import Axis, Bars, FigureSpec, Heat, Line, Panel, Points, Rule
from workbench.figures.density import log_density
from workbench.figures.plotly_renderer import outline
from workbench.figures.spec import limits
from workbench.figures.style import ROLES, color

CONTENTS = wb.contents({"fc.weight": torch.tensor([[0.0, 1.0, 5.0], [math.nan, 2.0, 3.0]]), "fc.bias": torch.ones(2)})

HEAVY = torch.from_numpy(np.random.default_rng(0).standard_t(2, size=(80, 60)))
OVERLAID = wb.spectrum({"heavy.weight": HEAVY}, detail=["noise", "randomised"])


@pytest.fixture(scope="module")
def spectrum() -> wb.Spectrum:
    noise = torch.Generator().manual_seed(0)
    heavy = torch.distributions.StudentT(2.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = {"heavy.weight": heavy.sample((80, 60)), "wide.weight": torch.randn(30, 90, generator=noise)}
    return wb.spectrum(tensors | {"small.weight": torch.randn(4, 9, generator=noise), "zero.weight": torch.zeros(5, 5)})


def specs(spectrum: wb.Spectrum) -> list[FigureSpec]:
    return [
        wb.figure(spectrum),
        wb.figure(spectrum, "alpha", layer="wide"),
        wb.figure(spectrum, "esd", layer="heavy"),
        wb.figure(wb.layers(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv2d(4, 5, 3)))),
        *(wb.figure(CONTENTS, kind, layer="fc") for kind in ("rms", "histogram", "heatmap")),
        wb.figure(OVERLAID, "esd", layer="heavy"),
        wb.figure(OVERLAID, "esd", layer="heavy", xmin=30.0),
    ]


def assert_plain(spec: FigureSpec) -> None:
    """The page draws the JSON itself: plotly changes nothing in it, as it would a name that only its objects know."""
    given, checked = spec.to_plotly_json(), json.loads(spec.to_plotly().to_json())
    checked["layout"].pop("template")
    given["layout"].pop("template")
    assert given == checked


@pytest.mark.parametrize("number", range(9))
def test_plotly_and_matplotlib_draw_the_same(spectrum: wb.Spectrum, number: int) -> None:
    spec = specs(spectrum)[number]
    screen, paper = spec.to_plotly(), spec.to_matplotlib()
    assert_plain(spec)
    (panel,), axes = spec.panels, paper.axes[0]
    assert screen.layout.title.text == spec.title == paper.get_suptitle()
    assert screen.layout.xaxis.title.text == panel.x.title == axes.get_xlabel()
    assert screen.layout.yaxis.title.text == panel.y.title == axes.get_ylabel()
    for axis, drawn, ours in (
        (screen.layout.xaxis, axes.get_xlim(), panel.x),
        (screen.layout.yaxis, axes.get_ylim(), panel.y),
    ):
        shown = [10**end for end in axis.range] if axis.type == "log" else axis.range
        np.testing.assert_allclose(shown, ours.ends, rtol=1e-12)
        np.testing.assert_allclose(drawn, ours.ends, rtol=1e-12)
    assert axes.get_xscale() == panel.x.scale and axes.get_yscale() == panel.y.scale

    stairs = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    points = [container for container in axes.containers if hasattr(container, "has_yerr")]
    lines = [line for line in axes.lines if line not in [container.lines[0] for container in points]]
    for mark, trace in zip(panel.marks, screen.data, strict=True):
        assert trace.name == mark.label
        if isinstance(mark, Bars):
            patch = stairs.pop(0)
            np.testing.assert_array_equal(patch.get_data().values, mark.heights)
            np.testing.assert_array_equal(patch.get_data().edges, mark.edges)
            np.testing.assert_array_equal((trace.x, trace.y), outline(mark, panel.y.limits[0]))
        elif isinstance(mark, Heat):
            (mesh,) = axes.collections
            np.testing.assert_array_equal(mesh.get_array().filled(np.nan), mark.values)
            np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], mark.x)
            np.testing.assert_array_equal(mesh.get_coordinates()[:, 0, 1], mark.y)
            assert (tuple(trace.x), tuple(trace.y)) == (mark.x, mark.y)
            np.testing.assert_array_equal(np.array(trace.z, float), mark.values)  # None, as JSON has no NaN
            assert mesh.get_clim() == (trace.zmin, trace.zmax) == mark.limits
            assert paper.axes[1].get_ylabel() == trace.colorbar.title.text == mark.label
        elif isinstance(mark, Rule):
            data = lines.pop(0).get_xdata() if mark.axis == "x" else None
            across = trace.x if mark.axis == "x" else trace.y
            assert set(across) == {mark.value} and (data is None or set(data) == {mark.value})
        elif isinstance(mark, Line):
            np.testing.assert_array_equal(lines.pop(0).get_xydata().T, (mark.x, mark.y))
            np.testing.assert_array_equal((trace.x, trace.y), (mark.x, mark.y))
        else:
            container = points.pop(0)
            np.testing.assert_array_equal(container.lines[0].get_xydata().T, (mark.x, mark.y))
            np.testing.assert_array_equal((trace.x, trace.y), (mark.x, mark.y))
            assert tuple(trace.error_y.array if mark.error else ()) == mark.error
            assert tuple(trace.customdata) == mark.ids
            assert to_rgba(container.lines[0].get_color()) == to_rgba(trace.marker.color) == to_rgba(color(mark.role))


def test_esd_is_a_density_and_the_fit_carries_the_tail(spectrum: wb.Spectrum) -> None:
    row, values = spectrum.row("heavy"), spectrum.eigenvalues["heavy"]
    bars, line, rule = wb.figure(spectrum, "esd", layer="heavy").panels[0].marks
    heights = np.nan_to_num(bars.heights)
    assert np.sum(heights * np.diff(bars.edges)) == pytest.approx(1, abs=1e-12)
    counts, _ = np.histogram(values.numpy(), bins=np.nextafter(bars.edges, [-1] + [9e99] * (len(bars.edges) - 1)))
    assert counts.sum() == len(values)
    assert (line.x[0], rule.value) == (row["xmin"], row["xmin"])
    # ∫ of the drawn law from xmin to ∞ is the share of eigenvalues in the tail
    share = line.y[0] * row["xmin"] / (row["alpha"] - 1)
    assert share == pytest.approx(float((values >= row["xmin"]).double().mean()), rel=1e-12)
    slope = math.log(line.y[1] / line.y[0]) / math.log(line.x[1] / line.x[0])
    assert slope == pytest.approx(-row["alpha"], rel=1e-12)


def test_density_of_equal_values_is_one_bar() -> None:
    edges, heights = log_density(torch.full((7,), 3.0, dtype=torch.float64))
    assert edges[0] < 3 < edges[1] and heights[0] * (edges[1] - edges[0]) == pytest.approx(1)


@pytest.mark.parametrize(("width", "points"), [("column", 3.25 * 72), ("page", 6.75 * 72)])
def test_pdf_has_the_columns_width_and_embedded_truetype(
    spectrum: wb.Spectrum, tmp_path: Path, width: str, points: float
) -> None:
    path = wb.figure(spectrum, "esd", layer="heavy").save(tmp_path / "esd.pdf", width=width)
    reader = PdfReader(path)
    assert float(reader.pages[0].mediabox.width) == pytest.approx(points, abs=0.5)
    fonts = [font.get_object() for font in reader.pages[0]["/Resources"]["/Font"].values()]
    inner = [font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font for font in fonts]
    assert inner and all("/FontFile2" in font["/FontDescriptor"].get_object() for font in inner)
    assert "α = " in reader.pages[0].extract_text()
    assert "wb.spectrum" in reader.metadata.subject and str(tmp_path) not in reader.metadata.subject


def test_same_figure_same_bytes(spectrum: wb.Spectrum, tmp_path: Path) -> None:
    figure = wb.figure(spectrum)
    for ending in ("pdf", "svg", "png", "csv"):
        first, second = (figure.save(tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
        assert first == second
    assert ">typical<" in (tmp_path / "a.svg").read_text() or ">heavy<" in (tmp_path / "a.svg").read_text()


def test_csv_holds_what_is_drawn(spectrum: wb.Spectrum) -> None:
    rows = [row for row in csv.DictReader(io.StringIO(wb.figure(spectrum).csv())) if row["mark"] == "points"]
    frame = spectrum.frame().set_index("layer")
    for row in rows:
        assert float(row["y"]) == frame.loc[row["id"], "alpha"]
        assert float(row["error"]) == frame.loc[row["id"], "alpha_error"]
    assert {row["id"] for row in rows} == set(frame.index[frame["alpha"].notna()])


def test_csv_has_every_number_of_every_mark_and_says_what_it_is(spectrum: wb.Spectrum) -> None:
    for spec in specs(spectrum):
        rows = list(csv.DictReader(io.StringIO(spec.csv())))
        (panel,), at = spec.panels, 0
        for mark in panel.marks:
            count = (
                1
                if isinstance(mark, Rule)
                else len(mark.heights)
                if isinstance(mark, Bars)
                else sum(map(len, mark.values))
                if isinstance(mark, Heat)
                else len(mark.x)
            )
            own, at = rows[at : at + count], at + count
            assert {row["mark"] for row in own} == {type(mark).__name__.lower()}
            assert {(row["x_is"], row["y_is"]) for row in own} == {(panel.x.title, panel.y.title)}
            assert {row["value_is"] for row in own} == {mark.label if isinstance(mark, Heat) else ""}
            if isinstance(mark, Heat):
                assert [float(row["value"]) for row in own] == pytest.approx(
                    [v for r in mark.values for v in r], nan_ok=True
                )
        assert at == len(rows)
    assert "depth [matrix layers]" in specs(spectrum)[0].csv()


def test_csv_names_the_places_of_axes_with_names() -> None:
    names = Axis(label="", limits=(-0.5, 1.5), ticks=((0.0, "fc"), (1.0, "out")))
    values = Axis(label="norm", unit="B", limits=(0.0, 1.0))
    edges = (-0.5, 0.5, 1.5)
    cells = [(x, y) for y in ("fc", "out") for x in ("fc", "out")]
    marks = [
        (Bars(edges=edges, heights=(0.5, 1.0), role="first"), values, [("fc", ""), ("out", "")]),
        (Points(x=(1.0, 0.5), y=(0.1, 0.2), role="first"), values, [("out", ""), ("", "")]),
        (Rule(axis="x", value=1.0), values, [("out", "")]),
        (Rule(axis="y", value=1.0), values, [("", "")]),
        (Heat(x=edges, y=edges, values=((0, 1), (2, 3)), limits=(0, 3)), names, cells),
    ]  # fmt: skip
    for mark, up, expected in marks:
        spec = FigureSpec(kind="t", title="", panels=(Panel(x=names, y=up, marks=(mark,)),))
        rows = list(csv.DictReader(io.StringIO(spec.csv())))
        assert [(row["x_name"], row["y_name"]) for row in rows] == expected
        assert {row["x_is"] for row in rows} == {"place, from 0"} and {row["y_is"] for row in rows} == {
            up.title or "place, from 0"
        }


def test_colours_have_symbols_of_their_own() -> None:
    solid = {name: look for name, look in ROLES.items() if name != "accent"}
    assert len({look.symbol for look in solid.values()}) == len({look.color for look in solid.values()}) == len(solid)


def test_a_notebook_shows_a_picture_without_the_machines_paths(tmp_path: Path) -> None:
    from PIL import Image
    from safetensors.torch import save_file

    save_file(
        {"fc.weight": torch.randn(30, 30, generator=torch.Generator().manual_seed(0))}, tmp_path / "m.safetensors"
    )
    data, metadata = wb.figure(wb.spectrum(tmp_path / "m.safetensors"))._repr_mimebundle_()
    picture = Image.open(io.BytesIO(data["image/png"]))
    assert picture.width == 2 * metadata["image/png"]["width"]
    assert str(tmp_path) not in str(picture.info)


@pytest.mark.parametrize(
    ("values", "scale", "expected"),
    [
        ([], "linear", (0, 1)),
        ([], "log", (0.1, 10)),
        ([math.nan, 2.0], "linear", (1.5, 2.5)),
        ([-1, 0, 1.0], "log", None),
    ],
)
def test_limits_always_exist(values: list[float], scale: str, expected: tuple[float, float] | None) -> None:
    low, high = limits(values, scale)
    assert low < high and (scale == "linear" or low > 0)
    assert expected is None or (low, high) == expected


def test_wrong_figures_are_refused_with_help(spectrum: wb.Spectrum, tmp_path: Path) -> None:
    figure = wb.figure(spectrum)
    for action, words in [
        (lambda: wb.figure(spectrum, "edd"), ["edd", "alpha", "Did you mean 'esd'"]),
        (lambda: wb.figure(spectrum, "esd"), ["say which", "heavy"]),
        (lambda: wb.figure(spectrum, "esd", layer="zero"), ["0 non-zero eigenvalues", "all elements are zero"]),
        (lambda: figure.save(tmp_path / "a.jpg"), [".pdf", "a.jpg"]),
        (lambda: figure.save(tmp_path / "no" / "a.pdf"), ["not a folder"]),
        (lambda: figure.save(tmp_path / "a.pdf", style="icnl"), ["icml", "Did you mean"]),
        (lambda: figure.save(tmp_path / "a.pdf", width="half"), ["column", "page"]),
        (lambda: wb.figure(wb.spectrum({"zero.weight": torch.zeros(5, 5)})), ["no layer", "reason"]),
    ]:
        with pytest.raises(wb.FigureError) as caught:
            action()
        assert all(word in str(caught.value) for word in words), caught.value
    with pytest.raises(wb.LayerNotFoundError, match="Did you mean 'heavy'"):
        wb.figure(spectrum, "esd", layer="heavi")


def test_specifications_that_cannot_be_drawn_are_refused() -> None:
    axis = Axis(label="x", limits=(0, 1))
    for mark, words in [
        (Line(x=(0.0,), y=(), role="first"), "1 x and 0 y"),
        (Bars(edges=(0.0,), heights=(1.0,), role="first"), "1 edges and 1 heights"),
        (Points(x=(), y=(), role="red"), "role 'red'"),
    ]:
        with pytest.raises(wb.FigureError, match=words):
            Panel(x=axis, y=axis, marks=(mark,))
    for low, high, scale in [(0, 1, "log"), (1, 1, "linear"), (0, math.inf, "linear")]:
        with pytest.raises(wb.FigureError, match="limits"):
            Axis(label="x", limits=(low, high), scale=scale)


def test_a_verdict_that_nobody_foresaw_is_drawn_too(spectrum: wb.Spectrum) -> None:
    table = dict(spectrum.tables["layers"]) | {"verdict": ["spike"] * 4}
    odd = wb.Spectrum(tables={**spectrum.tables, "layers": table}, meta=spectrum.meta, eigenvalues=spectrum.eigenvalues)
    (points,) = [mark for mark in wb.figure(odd).panels[0].marks if isinstance(mark, Points)]
    assert points.label == "spike" and len(points.x) == spectrum.frame()["alpha"].notna().sum()


def test_threads_that_save_figures_leave_matplotlibs_settings_alone(spectrum: wb.Spectrum, tmp_path: Path) -> None:
    before = dict(rcParams)
    figure = wb.figure(spectrum)
    with ThreadPoolExecutor(3) as pool:
        files = list(pool.map(lambda n: figure.save(tmp_path / f"{n}.pdf").read_bytes(), range(6)))
    assert len(set(files)) == 1 and dict(rcParams) == before


def test_a_figure_that_was_styled_further_keeps_its_fonts(spectrum: wb.Spectrum, tmp_path: Path) -> None:
    drawn = wb.figure(spectrum).to_matplotlib()
    drawn.axes[0].set_title("my own title")
    drawn.savefig(tmp_path / "own.pdf")
    fonts = PdfReader(tmp_path / "own.pdf").pages[0]["/Resources"]["/Font"].values()
    assert {font.get_object()["/Subtype"] for font in fonts} == {"/Type0"}


def test_noise_and_shuffled_elements_are_drawn_as_densities() -> None:
    matrix = torch.randn(900, 300, generator=torch.Generator().manual_seed(0))
    result = wb.spectrum({"fc.weight": matrix}, detail=["noise", "randomised"])
    marks = {mark.label: mark for mark in wb.figure(result, "esd", layer="fc").panels[0].marks}
    law, shuffled = marks["noise (Marchenko–Pastur)"], marks["shuffled elements"]
    assert np.trapezoid(law.y, law.x) == pytest.approx(1, abs=0.01)
    # λ/900 of noise with q = 1/3: edges (1 ∓ √q)², density √((b − x)(x − a))/(2πqx)
    x, q = np.array(law.x) / 900, 1 / 3
    low, high = (1 - math.sqrt(q)) ** 2, (1 + math.sqrt(q)) ** 2
    expected = np.sqrt(np.clip((high - x) * (x - low), 0, None)) / (2 * math.pi * q * x) / 900
    np.testing.assert_allclose(law.y, expected, rtol=0.1, atol=expected.max() * 0.05)
    assert np.trapezoid(shuffled.y, shuffled.x) == pytest.approx(1, abs=0.05)


def test_a_tail_is_fitted_anew_from_where_it_is_told(spectrum: wb.Spectrum) -> None:
    values = spectrum.eigenvalues["heavy"].numpy()
    xmin = float(np.median(values))
    above = values[values >= xmin]
    alpha = 1 + len(above) / np.log(above / xmin).sum()
    figure = wb.figure(spectrum, "esd", layer="heavy", xmin=xmin)
    line = next(mark for mark in figure.panels[0].marks if isinstance(mark, Line))
    slope = math.log(line.y[1] / line.y[0]) / math.log(line.x[1] / line.x[0])
    assert slope == pytest.approx(-alpha, rel=1e-12) and f"α = {alpha:.3f}" in figure.panels[0].title
    assert figure.provenance["refitted"] == f"xmin={xmin:g}"
    assert "no tail from xmin" in wb.figure(spectrum, "esd", layer="heavy", xmin=1e9).panels[0].title
    for code, xmin in {"alpha": 1.0, "esd": -1.0}.items():
        with pytest.raises(wb.FigureError, match="xmin"):
            wb.figure(spectrum, code, layer="heavy", xmin=xmin)


def test_the_density_of_windows_is_that_of_their_pooled_eigenvalues() -> None:
    farms = wb.farms({"fc.weight": HEAVY}, window=30)
    bars, line, rule = wb.figure(farms, "esd", layer="fc").panels[0].marks
    assert np.nansum(np.array(bars.heights) * np.diff(bars.edges)) == pytest.approx(1, abs=1e-12)
    assert rule.value == farms.row("fc")["xmin"]
    slope = math.log(line.y[1] / line.y[0]) / math.log(line.x[1] / line.x[0])
    assert slope == pytest.approx(-farms.row("fc")["alpha"], rel=1e-12)


def test_sampled_windows_carry_the_tail_of_all() -> None:
    farms = wb.farms(
        {"fc.weight": torch.randn(700, 700, generator=torch.Generator().manual_seed(0))}, window=40, resamples=0
    )
    row = farms.row("fc")
    assert row["num_eigenvalues"] == len(farms.eigenvalues["fc"])
    sampled = wb.Farms(
        tables={**farms.tables}, meta=farms.meta, eigenvalues={"fc": farms.eigenvalues["fc"][::10].contiguous()}
    )
    for result in (farms, sampled):  # the drawn law holds tail_size of all eigenvalues, also where a tenth is kept
        panel = wb.figure(result, "esd", layer="fc").panels[0]
        line = next(mark for mark in panel.marks if isinstance(mark, Line))
        mass = line.y[0] * line.x[0] / (row["alpha"] - 1)
        assert mass == pytest.approx(row["tail_size"] / row["num_eigenvalues"], rel=0.01)
        assert f"of {row['num_eigenvalues']}" in panel.title
        refit = wb.figure(result, "esd", layer="fc", xmin=row["xmin"]).panels[0].title
        assert "±" not in refit and abs(int(refit.split("n = ")[1].split()[0]) / row["tail_size"] - 1) < 0.01


def test_a_heat_of_another_shape_is_refused() -> None:
    axis = Axis(label="x", limits=(0.0, 1.0))
    with pytest.raises(wb.FigureError, match="has edges of 1×2 cells and other values"):
        Panel(x=axis, y=axis, marks=(Heat(x=(0, 1, 2), y=(0, 1), values=((1.0,),), limits=(0, 1)),))
    with pytest.raises(wb.FigureError, match="has no elements to draw"):
        wb.figure(wb.contents({"t": torch.zeros(0, 3)}), "heatmap")
    nothing = wb.contents({"t": torch.ones(3)})
    empty = wb.Contents(
        tables={"layers": {name: [] for name in nothing.tables["layers"]}},
        meta=nothing.meta,
        edges={},
        counts={},
        heat={},
    )
    with pytest.raises(wb.FigureError, match="cancelled before the first"):
        wb.figure(empty, "histogram")


def test_the_docstring_names_every_kind_of_every_result() -> None:
    from workbench.figures.figure import KINDS

    told = " ".join((wb.figure.__doc__ or "").split())
    told = told[told.index(" kind: ") : told.index(" layer: ")]
    starts = {result: told.index(f" {result.__name__}: `") for result in KINDS}
    for result, kinds in KINDS.items():
        end = min((start for start in starts.values() if start > starts[result]), default=len(told))
        for kind in kinds:
            assert f"`{kind}`" in told[starts[result] : end], (result.__name__, kind)


@pytest.mark.parametrize("name", ["Activations", "InteractionBasis", "Ablation", "Degeneracy", "Spectrum", "Unknown"])
def test_refusals_have_the_right_article(name: str) -> None:
    from workbench.figures.figure import KINDS

    known = {one.__name__: one for one in KINDS}
    result = object.__new__(known.get(name, type(name, (wb.Spectrum,), {})))
    with pytest.raises(wb.FigureError) as caught:
        wb.figure(result, "nothing")
    article = "a" if name in ("Degeneracy", "Spectrum") else "an"
    assert f" {article} {name}" in f" {caught.value}"


def test_titles_of_panels_are_as_small_on_screen_as_the_subtitle_of_one() -> None:
    panel = Panel(x=Axis(label="x", limits=(0, 1)), y=Axis(label="y", limits=(0, 1)), marks=(), title="rank 1 of 12")
    one, two = (FigureSpec(kind="t", title="t", panels=(panel,) * count).to_plotly().layout for count in (1, 2))
    assert [(note.text, note.font.size) for note in two.annotations] == [
        ("rank 1 of 12", one.title.subtitle.font.size)
    ] * 2


def test_names_that_look_like_markup_are_drawn_as_they_are() -> None:
    odd = "a<b>c</b> & d<br>e"
    axis = Axis(label=odd, limits=(0.0, 1.0), ticks=((0.5, odd),))
    marks = (Line(x=(0.0, 1.0), y=(0.0, 1.0), role="first", label=odd),)
    screen = FigureSpec(kind="t", title=odd, panels=(Panel(x=axis, y=axis, marks=marks, title=odd),)).to_plotly()
    title, x = screen.layout.title, screen.layout.xaxis
    for text in (title.text, title.subtitle.text, x.title.text, x.ticktext[0], screen.data[0].name):
        assert "<" not in text and unescape(text) == odd


@pytest.mark.parametrize(("decades", "step"), [(3, 1), (8, 1), (14, 2), (30, 4)])
def test_few_decades_are_named_on_a_vertical_axis(decades: int, step: int) -> None:
    axis = Axis(label="x", limits=(1.0, 10.0**decades), scale="log")
    marks = (Line(x=(1.0, 2.0), y=(1.0, 2.0), role="first"),)
    layout = FigureSpec(kind="t", title="t", panels=(Panel(x=axis, y=axis, marks=marks),)).to_plotly_json()["layout"]
    assert layout["yaxis"]["dtick"] == step and layout["xaxis"]["dtick"] == (2 if decades == 30 else 1)

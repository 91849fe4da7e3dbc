"""Several figures as one: letters, one legend that says whose its entries are, data and provenance of all."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import test_figure_text as readable
import workbench as wb
from workbench.figures import FigureSpec, Heat, Points

RANDOM = torch.Generator().manual_seed(0)
ONE, TWO = (
    {"fc.weight": torch.randn(40, 30, generator=RANDOM), "out.weight": torch.randn(rows, 20, generator=RANDOM)}
    for rows in (30, 31)
)
FIRST, SECOND = wb.figure(wb.spectrum(ONE)), wb.figure(wb.spectrum(TWO), "esd", layer="fc")
MAP = wb.figure(wb.contents(ONE), "heatmap", layer="fc")


def labels(spec: FigureSpec) -> list[list[str]]:
    return [[mark.label for mark in panel.marks if mark.label and not isinstance(mark, Heat)] for panel in spec.panels]


def test_panels_keep_axes_marks_and_titles_and_have_letters_in_both_renderers() -> None:
    spec = FIRST.beside(SECOND, MAP, title="All")
    assert [panel.letter for panel in spec.panels] == ["a", "b", "c"]
    for panel, old in zip(spec.panels, (FIRST, SECOND, MAP), strict=True):
        assert (panel.x, panel.y) == (old.panels[0].x, old.panels[0].y)
        assert len(panel.marks) == len(old.panels[0].marks) and panel.title.startswith(old.title)
    screen, paper = spec.to_plotly(), spec.to_matplotlib()
    axes = [axes for axes in paper.axes if axes.get_title(loc="left")]
    assert [one.get_title(loc="left") for one in axes] == ["a", "b", "c"]
    assert [note.text[:8] for note in screen.layout.annotations] == ["<b>a</b>", "<b>b</b>", "<b>c</b>"]
    assert [one.get_title().replace("\n", " ") for one in axes] == [panel.title for panel in spec.panels]
    ours = [note.text[8:].replace("<br>", " ").strip() for note in screen.layout.annotations]
    assert ours == [panel.title for panel in spec.panels]
    rows = {one.get_subplotspec().rowspan.start for one in axes}
    assert rows == {0, 1} and len(paper.axes) == 4  # a bar of colours, and no empty axes
    assert {name for name in screen.layout if name.startswith("yaxis")} == {"yaxis", "yaxis2", "yaxis3"}
    for one, panel in zip(axes, spec.panels, strict=True):
        np.testing.assert_allclose((one.get_xlim(), one.get_ylim()), (panel.x.ends, panel.y.ends))


def test_a_bar_of_colours_is_drawn_wherever_the_map_is() -> None:
    for spec in (MAP.beside(FIRST), FIRST.beside(MAP), MAP.beside(FIRST, MAP)):
        paper, screen = spec.to_matplotlib(), spec.to_plotly()
        bars = [axes for axes in paper.axes if axes.get_label() == "<colorbar>"]
        shown = [trace for trace in screen.data if trace.type == "heatmap" and trace.showscale]
        assert len(bars) == len(shown) == 1, spec.kind
        assert bars[0].get_ylabel() == shown[0].colorbar.title.text


def test_an_entry_of_the_legend_says_whose_it_is_where_panels_differ() -> None:
    (alone,) = labels(FIRST)
    assert labels(FIRST.beside(FIRST)) == [alone, alone]  # one legend for all
    first, second = labels(FIRST.beside(SECOND))
    assert first == [f"{label} (a)" for label in alone]
    assert all(label.endswith("(b)") for label in second)
    one, same, other = labels(FIRST.beside(FIRST, SECOND))
    assert one == same == [f"{label} (a, b)" for label in alone] and all(label.endswith("(c)") for label in other)


def test_an_entry_is_also_of_the_panels_that_draw_it_without_a_label() -> None:
    changed = wb.figure(wb.diff(ONE, {"x": TWO}, detail="spectra"), "extraction", layer="fc")
    shares, size = labels(changed.beside(FIRST))[:2]
    assert [label[-6:] for label in shares] == ["(a, b)"] and size == ["τ itself (b)"]


def test_data_and_provenance_are_those_of_all() -> None:
    spec = FIRST.beside(SECOND)
    rows = list(csv.DictReader(io.StringIO(spec.csv())))
    for letter, old in (("a", FIRST), ("b", SECOND)):
        before = list(csv.DictReader(io.StringIO(old.csv())))
        assert [row["y"] for row in rows if row["panel"] == letter] == [row["y"] for row in before]
    prints = [old.provenance["fingerprint"] for old in (FIRST, SECOND)]
    assert spec.provenance["fingerprint"] == f"a: {prints[0]} | b: {prints[1]}"
    assert spec.provenance["workbench"] == FIRST.provenance["workbench"]
    assert spec.provenance["layer"] == "b: fc"


def test_how_many_stand_beside_each_other(tmp_path: Path) -> None:
    spec = FIRST.beside(FIRST, FIRST, FIRST, columns=4)
    for (style, width), cols in {("icml", "column"): 1, ("neurips", "page"): 2, ("icml", "page"): 3}.items():
        figure = spec.to_matplotlib(style=style, width=width)
        starts = {axes.get_subplotspec().colspan.start for axes in figure.axes}
        assert len(starts) == cols, style
    assert spec.save(tmp_path / "all.pdf", style="nature").stat().st_size > 1000


def test_what_cannot_be_put_together_is_refused() -> None:
    for action, words in [
        (lambda: FIRST.beside(FIRST).beside(FIRST), "in one call"),
        (lambda: FIRST.beside(*[FIRST] * 26), "27 panels in one figure"),
        (lambda: FIRST.beside(FIRST, columns=0), "columns=0"),
        (lambda: FIRST.beside(wb.spectrum(ONE)), "got a Spectrum"),
    ]:
        with pytest.raises(wb.FigureError, match=words):
            action()


@pytest.mark.parametrize("paper", readable.DIFFERENT, ids="-".join)
def test_every_text_of_several_figures_is_seen_and_apart(paper: tuple[str, str]) -> None:
    examples = readable.EXAMPLES
    both = examples["titles"].beside(examples["legends"], examples["heat"], title="")
    assert_letters_apart(both, *paper)


@given(
    st.lists(
        st.sampled_from(["names", "titles", "legends", "one word", "heat in words", "short"]), min_size=2, max_size=4
    ),
    st.integers(1, 3),
    st.sampled_from(readable.PAPERS),
)
@settings(max_examples=5, phases=(Phase.explicit, Phase.generate), deadline=None)
def test_any_figures_can_be_read_together(names: list[str], columns: int, paper: tuple[str, str]) -> None:
    first, *others = (readable.EXAMPLES[name] for name in names)
    assert_letters_apart(first.beside(*others, columns=columns), *paper)


def assert_letters_apart(spec: FigureSpec, *paper: str) -> None:
    figure = readable.assert_readable(spec, *paper, resolutions=())
    lettered = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(lettered) == len(spec.panels)
    for axes in lettered:
        letter, title = axes._left_title.get_window_extent(), axes.title.get_window_extent()
        assert letter.x0 >= 0 and letter.y1 <= figure.bbox.height + 1
        assert not axes.title.get_text() or letter.x1 <= title.x0 + 1
        assert letter.y0 >= axes.bbox.y1 - 1


def test_neighbours_with_one_vertical_axis_name_it_once_and_are_zoomed_together() -> None:
    same, other = readable.line([1.0, 3.0], words="a"), readable.line([1.0, 4.0], words="b")
    spec = FigureSpec(kind="t", title="", panels=(same, same, same, other, other), columns=3)
    told = [(axes.get_ylabel(), bool(readable.names(axes.yaxis))) for axes in spec.to_matplotlib(width="page").axes]
    assert told == [("a", True), ("", False), ("", False), ("b", True), ("", False)]
    layout = spec.to_plotly().layout
    axes = [layout.yaxis, layout.yaxis2, layout.yaxis3, layout.yaxis4, layout.yaxis5]
    assert [axis.title.text for axis in axes] == ["a", "", "", "b", ""]
    assert [axis.showticklabels for axis in axes] == [None, False, False, None, False]
    assert [axis.matches for axis in axes] == [None, "y", "y", None, "y4"], "else one is read by the other's numbers"


def test_points_keep_what_a_click_selects() -> None:
    spec = FIRST.beside(SECOND)
    ids = [mark.ids for mark in spec.panels[0].marks if isinstance(mark, Points)]
    assert ids == [mark.ids for mark in FIRST.panels[0].marks if isinstance(mark, Points)]

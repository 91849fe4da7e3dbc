"""Printed figures can be read: no text leaves the figure, no name of an axis lies on another, the axes stay high."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench.figures import Axis, FigureSpec, Heat, Line, Panel
from workbench.figures.spec import Scale, limits, named_ticks

PAPERS = [(style, width) for style, widths in FigureSpec.VENUES.items() for width in widths]
DIFFERENT = [paper for paper in PAPERS if paper[0] != "iclr"]  # which is set as neurips is
ROLES = ("first", "second", "third", "fourth", "fifth", "muted")
GPT2 = [f"transformer.h.{block}.mlp.{name}" for block in range(12) for name in ("c_fc", "c_proj")]
SENTENCE = (
    "Interactions of 24 layers of the network openai-community/gpt2-medium, squared edges, about transformer.h.11"
)


def line(
    values: list[float],
    names: tuple[tuple[float, str], ...] = (),
    title: str = "",
    labels: tuple[str, ...] = (),
    scale: Scale = "linear",
    words: str = "directions",
) -> Panel:
    """A panel of lines over names."""
    x = tuple(map(float, range(len(values))))
    marks = tuple(
        Line(x=x, y=tuple(values), role=role, label=label) for role, label in zip(ROLES, labels, strict=False)
    )
    return Panel(
        x=Axis(label="layer", limits=limits(x), ticks=names),
        y=Axis(label=words, limits=limits(values, scale), scale=scale),
        marks=marks or (Line(x=x, y=tuple(values), role="first"),),
        title=title,
    )


def heat(names: list[str], label: str = "log₁₀ Λ/Λmax") -> Panel:
    rows = tuple((float(n), float(n + 1)) for n in range(len(names)))
    down = Axis(label="", limits=(-0.5, len(names) - 0.5), descending=True, ticks=named_ticks(names, 16))
    edges = tuple(n - 0.5 for n in range(len(names) + 1))
    marks = (Heat(x=(0.0, 1.0, 2.0), y=edges, values=rows, limits=(0.0, 30.0), label=label),)
    return Panel(x=Axis(label="direction", limits=(0.0, 2.0)), y=down, marks=marks)


def spec(*panels: Panel, title: str = SENTENCE) -> FigureSpec:
    return FigureSpec(kind="test", title=title, panels=panels)


DEPTHS = [float(n % 7) for n in range(24)]
EXAMPLES = {
    "names": spec(line(DEPTHS, named_ticks(GPT2, 10, 26)), title="Ranks"),
    "whole names": spec(line(DEPTHS, named_ticks([f"model.{name}.and.so.on · 40 of 3072" for name in GPT2], 24, 99))),
    "close names": spec(line(DEPTHS, tuple((0.01 * n, name) for n, name in enumerate(GPT2)))),
    "titles": spec(line(DEPTHS, title=SENTENCE * 3), title=SENTENCE * 4),
    "one word": spec(line(DEPTHS, title="layer" * 60), title="weights" * 70),
    "one legend": spec(line(DEPTHS, labels=(SENTENCE * 2,))),
    "legends": spec(line(DEPTHS, labels=tuple(f"{name}: 12 of 40 nodes predicted" for name in GPT2[:6]))),
    "heat": spec(heat(GPT2), title="Weights"),
    "heat in words": spec(heat([name * 4 for name in GPT2[:9]], "log₁₀ of the weights Λ/Λmax of directions")),
    "three": spec(*(line(DEPTHS, named_ticks(GPT2, 14), SENTENCE, ("a", GPT2[0])) for _ in range(3))),
    "few decades": spec(line([1.02, 1.5, 4.0], scale="log", words=f"eigenvalue of {SENTENCE}")),
    "many decades": spec(line([1e-30, 1.0, 1e30], scale="log"), line([1e-9, 1e9], labels=GPT2[:2])),
    "offset": spec(line([1e7 + 1e-3 * n for n in range(5)]), line([1e-7 * n for n in range(5)]), title=""),
    "short": spec(line([1.0, 2.0], labels=("one",)), title="short"),
}


def texts(figure: Figure) -> Iterator[Text]:
    """All texts that are seen."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *names(axes.xaxis), *names(axes.yaxis))
        yield from (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text())


def names(side: object) -> list[Text]:
    low, high = sorted(side.get_view_interval())
    ticks = [*side.get_major_ticks(), *side.get_minor_ticks()]
    return [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]


def assert_readable(drawn: FigureSpec, style: str, width: str, resolutions: tuple[int, ...] = (72, 300)) -> Figure:
    """As `.to_matplotlib()` gives it, and as it is saved: with the places that it has, at other resolutions."""
    figure = drawn.to_matplotlib(style=style, width=width)
    assert figure.get_figwidth() == FigureSpec.VENUES[style][width]
    figure.set_dpi(100)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for axes, panel in zip(figure.axes, drawn.panels, strict=False):
        np.testing.assert_allclose((axes.get_xlim(), axes.get_ylim()), (panel.x.ends, panel.y.ends), rtol=1e-12)
        assert axes.bbox.height > 130 and axes.bbox.width > 0.2 * figure.bbox.width / (len(drawn.panels) ** 0.5)
        for side in (axes.xaxis, axes.yaxis):
            inked = np.zeros(np.asarray(renderer.buffer_rgba()).shape[:2], int)
            for label in names(side):  # the drawn letters themselves
                renderer.clear()
                label.draw(renderer)
                inked += np.asarray(renderer.buffer_rgba())[..., 3] > 0
            assert inked.max() <= 1, (
                f"names of {side.axis_name} lie on each other: {[n.get_text() for n in names(side)]}"
            )
    assert_inside(figure)
    figure.set_layout_engine(None)
    for dpi in resolutions:
        figure.set_dpi(dpi)
        figure.draw_without_rendering()
        assert_inside(figure)
    return figure


def assert_inside(figure: Figure) -> None:
    """No text leaves the figure, and the legend is below everything that is drawn."""
    dpi = figure.dpi
    room = figure.bbox.padded(0.01 * dpi)
    for text in texts(figure):
        box = text.get_window_extent()
        inside = box.x0 >= room.x0 and box.x1 <= room.x1 and box.y0 >= room.y0 and box.y1 <= room.y1
        assert inside or not text.get_text(), f"{text.get_text()!r} at {dpi} dpi: {box} of {figure.bbox}"
    for legend in figure.legends:
        assert legend.get_window_extent().y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes) + 0.02 * dpi
        assert figure.bbox.padded(0.01 * dpi).y0 <= legend.get_window_extent().y0


@pytest.mark.parametrize("paper", DIFFERENT, ids="-".join)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_text_is_seen_and_apart(name: str, paper: tuple[str, str]) -> None:
    assert_readable(EXAMPLES[name], *paper)


WORDS = st.text("abcdefgλ0123456789._ ", max_size=120)
NUMBERS = st.lists(st.floats(1e-12, 1e12), min_size=2, max_size=6)


@given(
    NUMBERS,
    st.lists(WORDS, max_size=14),
    WORDS,
    st.lists(WORDS, max_size=6, unique=True),
    st.sampled_from(["linear", "log"]),
    WORDS,
    st.sampled_from(PAPERS),
)
@settings(max_examples=10, phases=(Phase.explicit, Phase.generate))  # a figure takes half a second
def test_any_words_can_be_read(
    values: list[float],
    ticks: list[str],
    title: str,
    labels: list[str],
    scale: Scale,
    head: str,
    paper: tuple[str, str],
) -> None:
    panel = line(values, named_ticks(ticks, 20, 200), title, tuple(labels), scale, title)
    assert_readable(spec(panel, title=head), *paper, resolutions=())


def test_broken_text_keeps_its_words_and_cut_names_their_ends() -> None:
    figure = assert_readable(EXAMPLES["heat in words"], "icml", "column")
    assert figure.get_suptitle().replace("\n", " ") == SENTENCE and "\n" in figure.get_suptitle()
    shown = [text.get_text() for text in names(figure.axes[0].yaxis)]
    assert len(shown) == 9 and all(text.startswith("…") and text.endswith(("c_fc", "c_proj")) for text in shown)
    figure = assert_readable(EXAMPLES["one word"], "icml", "column")
    assert figure.get_suptitle().replace("\n", "") == "weights" * 70


def test_names_are_turned_only_if_they_must_be() -> None:
    turned = {count: {text.get_rotation() for text in names(line_of(count).axes[0].xaxis)} for count in (2, 6, 24)}
    assert turned == {2: {0.0}, 6: {45.0}, 24: {90.0}}


def line_of(count: int) -> Figure:
    ticks = named_ticks([name[-13:] for name in GPT2[:count]], 30)
    return assert_readable(spec(line(DEPTHS[:count], ticks), title="x"), "icml", "column")


def test_a_figure_with_short_texts_has_its_usual_height() -> None:
    for paper, height in zip(PAPERS, (3.25, 6.75, 5.5, 5.5, 6.0, 89 / 25.4, 183 / 25.4), strict=True):
        assert assert_readable(EXAMPLES["short"], *paper).get_figheight() == pytest.approx(0.72 * height, abs=0.006)


def test_iclr_is_set_as_neurips_is() -> None:
    first, second = (
        EXAMPLES["legends"].to_matplotlib(style=style).canvas.print_to_buffer() for style in ("iclr", "neurips")
    )
    assert first == second


def test_the_same_figure_has_the_same_bytes(tmp_path: Path) -> None:
    for ending in ("pdf", "png"):
        first, second = (EXAMPLES["close names"].save(tmp_path / f"{n}.{ending}").read_bytes() for n in "ab")
        assert first == second

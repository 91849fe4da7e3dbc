"""Figures at the size, in the fonts and with the lines that a venue asks for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Text
from pypdf import PdfReader

import workbench as wb
from workbench.figures import Axis, Bars, FigureSpec, Heat, Line, Panel, Points, Rule

# read from the venues' style files and Nature's figure guide (docs/decisions/0010-figures.md), in points
POINTS = {
    ("icml", "column"): (6.75 - 0.25) / 2 * 72,  # textwidth less columnsep
    ("icml", "page"): 6.75 * 72,
    ("neurips", "page"): 5.5 * 72,
    ("iclr", "page"): 5.5 * 72,
    ("jmlr", "page"): 6.0 * 72,
    ("nature", "column"): 89 / 25.4 * 72,
    ("nature", "page"): 183 / 25.4 * 72,
}
SIZES = {"icml": (8, 9), "neurips": (8, 9), "iclr": (8, 9), "jmlr": (8, 9), "nature": (5, 7)}
LINES = {"icml": (0.5, 1.2), "neurips": (0.5, 1.2), "iclr": (0.5, 1.2), "jmlr": (0.5, 1.2), "nature": (0.25, 1.0)}
X, Y = Axis(label="λ₁", limits=(1e-3, 1e3), scale="log"), Axis(label="loss ± σ", unit="nats", limits=(0.0, 1.0))
EVERY = FigureSpec(
    kind="test",
    title="Every mark",
    panels=(
        Panel(
            x=X,
            y=Y,
            marks=(
                Bars(edges=(0.01, 0.1, 1.0), heights=(0.2, 0.4), role="third", label="bars"),
                Line(x=(0.01, 100.0), y=(0.1, 0.9), role="first", label="line"),
                Points(x=(1.0,), y=(0.5,), error=(0.1,), role="second", label="points"),
                Rule(axis="y", value=0.3, label="rule"),
            ),
            title="log₁₀ Λ/Λmax",
        ),
        Panel(x=Y, y=Y, marks=(Heat(x=(0.0, 1.0), y=(0.0, 1.0), values=((0.5,),), limits=(0.0, 1.0), label="cell"),)),
    ),
)


def texts(figure: Figure) -> Iterator[Text]:
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            yield text


@pytest.mark.parametrize(("style", "width"), POINTS)
def test_a_venues_width_fonts_and_lines(style: str, width: str, tmp_path: Path) -> None:
    page = PdfReader(EVERY.save(tmp_path / "f.pdf", style=style, width=width)).pages[0]
    assert float(page.mediabox.width) == pytest.approx(POINTS[style, width], abs=0.5)
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    names = {str(font["/BaseFont"]).partition("+")[2] for font in fonts}
    inner = [font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font for font in fonts]
    assert inner and all("/FontFile2" in font["/FontDescriptor"].get_object() for font in inner)  # TrueType, embedded
    if style == "nature":
        assert all("Serif" not in name and "STIX" not in name for name in names)
    else:  # the fallback has what the Times lacks: subscripts
        assert any(name.startswith("STIX") for name in names) and all("Sans" not in name for name in names)

    figure = EVERY.to_matplotlib(style=style, width=width)
    low, high = SIZES[style]
    assert {text.get_fontsize() for text in texts(figure)} <= set(np.arange(low, high + 0.5, 0.5))
    thin, wide = LINES[style]
    for line in figure.findobj(Line2D):
        assert thin <= line.get_linewidth() <= wide or line.get_linestyle() == "None", line
    for axes in figure.axes:
        assert all(thin <= spine.get_linewidth() <= wide for spine in axes.spines.values())
        for tick in (*axes.xaxis.get_major_ticks(), *axes.xaxis.get_minor_ticks()):
            assert thin <= tick.tick1line.get_markeredgewidth() <= wide


def test_the_venues_are_those_and_have_those_widths() -> None:
    found = {
        (style, width): 72 * inches for style, widths in FigureSpec.VENUES.items() for width, inches in widths.items()
    }
    assert found == pytest.approx(POINTS)


@pytest.mark.parametrize("style", ["neurips", "iclr", "jmlr"])
def test_a_venue_of_one_column_says_so(style: str, tmp_path: Path) -> None:
    with pytest.raises(wb.FigureError, match=f"{style} has one column, [56].* in wide: say width='page'"):
        EVERY.save(tmp_path / "f.pdf", style=style, width="column")
    left = EVERY.save(tmp_path / "default.pdf", style=style).read_bytes()
    assert left == EVERY.save(tmp_path / "page.pdf", style=style, width="page").read_bytes()


def test_every_sign_that_we_write_is_in_the_fonts() -> None:
    from matplotlib.font_manager import findfont, get_font

    from workbench.figures.matplotlib_renderer import SANS, SERIF

    root = Path(wb.__file__).parent
    written = {sign for file in (root / "figures").glob("*.py") for sign in file.read_text() if ord(sign) > 126}
    for families in (SERIF, SANS[-1:]):
        fonts = [get_font(findfont(FontProperties(family=family))) for family in families]
        assert not [sign for sign in written if not any(ord(sign) in font.get_charmap() for font in fonts)]
    assert "₁" in written and "α" in written


def test_the_screen_keeps_its_sans() -> None:
    from workbench.figures.matplotlib_renderer import drawn
    from workbench.figures.style import SCREEN

    figure = drawn(EVERY, SCREEN, SCREEN.widths["page"])
    assert {name for text in texts(figure) for name in text.get_fontfamily()} == {"DejaVu Sans"}

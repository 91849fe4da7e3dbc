"""Colours, symbols, dashes and venues: the only place that knows how a role looks, and what a paper asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MM = 1 / 25.4  # inches


@dataclass(frozen=True)
class Stroke:
    """A role's colour and dash, as lengths of ink and gap in widths of the line; () is solid."""

    color: str
    dash: tuple[float, ...]


@dataclass(frozen=True)
class Look(Stroke):
    """A role's colour, dash and symbol; colour never stands alone."""

    symbol: str
    marker: str  # matplotlib's name of the symbol


# Okabe & Ito's colours; two roles also differ in symbol as points and in dash as lines, so that grey print tells them
ROLES = {
    "first": Look("#0072B2", (), "circle", "o"),
    "second": Look("#D55E00", (4, 1.6), "square", "s"),
    "third": Look("#009E73", (5, 1.5, 1, 1.5), "triangle-up", "^"),
    "fourth": Look("#CC79A7", (1, 1.5), "diamond", "D"),
    "fifth": Look("#E69F00", (5, 1.5, 1, 1.5, 1, 1.5), "triangle-down", "v"),
    "muted": Look("#7F7F7F", (2.5, 1), "x", "x"),
    "accent": Look("#D55E00", (1, 3), "circle-open", "o"),
}
DASHES = {
    "fit": Stroke("#D55E00", (8, 2)),
    "reference": Stroke("#7F7F7F", (3, 3)),
    "contour": Stroke("#FFFFFF", ()),  # lies on a heat
}
HEAT = "cividis"  # even steps of lightness, told apart in all common forms of colour blindness
STEPS = "#00224e #123570 #3b496c #575d6d #707173 #8a8678 #a59c74 #c3b369 #e1cc55 #fee838".split()  # of it, evenly apart
SOFT = 0.55  # how much of a bar's colour is on white: mixed, as EPS has no transparency


@dataclass(frozen=True, kw_only=True)
class Venue:
    """What a venue asks of a figure.

    Attributes:
        widths: inches of a `column` and a `page`; only the page, where the page is one column.
        font: `serif` (a Times) or `sans`.
        size: points of labels and titles.
        small: points of ticks, legends and titles of panels.
        letter: points of a panel's letter.
        lines: points of the thinnest and of the widest line.
        source: where all this is said.
    """

    widths: Mapping[str, float]
    font: Literal["serif", "sans"] = "serif"
    size: float = 9
    small: float = 8
    letter: float = 9
    lines: tuple[float, float] = (0.5, 1.2)
    source: str


# read from the venues' own files in 2026; docs/decisions/0010-figures.md has each line
VENUES = {
    "icml": Venue(
        widths={"column": 3.25, "page": 6.75},
        source="icml2025.sty: textwidth 6.75 in, columnsep 0.25 in, Times; its instructions: lines of 0.5 points",
    ),
    "neurips": Venue(widths={"page": 5.5}, source="neurips_2025.sty: textwidth 5.5 in, 10 points, Times"),
    "iclr": Venue(widths={"page": 5.5}, source="iclr2025_conference.sty: textwidth 5.5 in, 10 points, Times"),
    "jmlr": Venue(widths={"page": 6.0}, source="jmlr2e.sty: textwidth 6.0 in, 11 points, a serif of the author's"),
    "nature": Venue(
        widths={"column": 89 * MM, "page": 183 * MM},
        font="sans",
        size=7,
        small=7,
        letter=8,
        lines=(0.25, 1.0),
        source="Nature's figure guide: 89 and 183 mm, 5 to 7 points, Arial or Helvetica, lines of 0.25 to 1 point",
    ),
}
SCREEN = Venue(widths={"page": 6.75}, font="sans", size=8, small=7, letter=9, source="a notebook's page")


def stroke(role: str) -> Stroke:
    """Colour and dash of a role."""
    return DASHES[role] if role in DASHES else ROLES[role]


def color(role: str) -> str:
    """The colour of a role."""
    return stroke(role).color

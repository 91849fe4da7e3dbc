"""Colours, symbols and widths: the only place that knows how a role looks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """A role's colour and symbol; colour never stands alone."""

    color: str
    symbol: str
    marker: str  # matplotlib's name of the symbol


# Okabe & Ito's colours, told apart in all common forms of colour blindness and in grey print with the symbols
ROLES = {
    "first": Look("#0072B2", "circle", "o"),
    "second": Look("#D55E00", "square", "s"),
    "third": Look("#009E73", "triangle-up", "^"),
    "fourth": Look("#CC79A7", "diamond", "D"),
    "fifth": Look("#E69F00", "triangle-down", "v"),
    "muted": Look("#7F7F7F", "x", "x"),
    "accent": Look("#D55E00", "circle-open", "o"),
}
HEAT = "cividis"  # even steps of lightness, told apart in all common forms of colour blindness
DASHES = {"fit": "#D55E00", "reference": "#7F7F7F", "contour": "#FFFFFF"}  # a rule is dashed; contours lie on a heat

WIDTHS = {  # inches; from the venues' style files
    "icml": {"column": 3.25, "page": 6.75},
    "neurips": {"column": 5.5, "page": 5.5},
}


def color(role: str) -> str:
    """The colour of a role."""
    return DASHES[role] if role in DASHES else ROLES[role].color

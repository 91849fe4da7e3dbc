"""A figure as data: closed, frozen, drawn the same by two renderers."""

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from workbench.errors import FigureError, nearest
from workbench.figures.style import DASHES, ROLES, SCREEN, VENUES, Venue

if TYPE_CHECKING:
    import matplotlib.figure
    import plotly.graph_objects

OTHER_ROLE = "fifth"  # of words without a look of their own

Floats: TypeAlias = tuple[float, ...]
Scale = Literal["linear", "log"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A polyline through (x, y)."""

    x: Floats
    y: Floats
    role: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Markers at (x, y), with an optional symmetric error of y and an id each (what a click selects)."""

    x: Floats
    y: Floats
    role: str
    label: str = ""
    error: Floats = ()
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A histogram: bar k stands on the edges k and k + 1; a height of NaN is an empty bar."""

    edges: Floats
    heights: Floats
    role: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A line across the panel at `value` of the named axis."""

    axis: Literal["x", "y"]
    value: float
    role: str = "reference"
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Heat:
    """A grid of values in colour: row i stands between the y edges i and i + 1; NaN is an empty cell.

    Attributes:
        x: edges along x.
        y: edges along y.
        values: rows of values, one row shorter than y, each one value shorter than x.
        limits: the values at the two ends of the colours.
        label: what the values are, beside the colours.
    """

    x: Floats
    y: Floats
    values: tuple[Floats, ...]
    limits: tuple[float, float]
    label: str = ""

    @property
    def scale(self) -> tuple[str, tuple[float, float]]:
        """What a bar of colours tells: panels that share it need one."""
        return self.label, self.limits


Mark: TypeAlias = Line | Points | Bars | Rule | Heat


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis with its label, unit, scale and limits; limits are always told, never guessed by a renderer.

    A descending axis begins at its far end, as the rows of a matrix are counted from the top. `ticks` are the places
    that are named, with their names; () leaves both to the renderer.
    """

    label: str
    limits: tuple[float, float]
    scale: Scale = "linear"
    unit: str = ""
    descending: bool = False
    ticks: tuple[tuple[float, str], ...] = ()

    def __post_init__(self) -> None:
        low, high = self.limits
        if not (math.isfinite(low) and math.isfinite(high) and low < high) or (self.scale == "log" and low <= 0):
            raise FigureError(f"axis {self.label!r} ({self.scale}) has the limits {self.limits}")

    @property
    def ends(self) -> tuple[float, float]:
        """The limits as the axis is walked, from its origin on."""
        return self.limits[::-1] if self.descending else self.limits

    @property
    def title(self) -> str:
        """Label and unit as both renderers print them."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Marks on a pair of axes, under a line of text, with a letter if it is one of several that were put together."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    title: str = ""
    letter: str = ""

    def __post_init__(self) -> None:
        for mark in self.marks:
            if isinstance(mark, Heat):
                rows, cols = len(mark.y) - 1, len(mark.x) - 1
                if len(mark.values) != rows or any(len(row) != cols for row in mark.values):
                    raise FigureError(f"Heat {mark.label!r} has edges of {rows}×{cols} cells and other values")
                continue
            if mark.role not in ROLES and mark.role not in DASHES:
                raise FigureError(f"role {mark.role!r} is not one of {sorted({*ROLES, *DASHES})}")
            if isinstance(mark, Line | Points) and len(mark.x) != len(mark.y):
                raise FigureError(f"{type(mark).__name__} {mark.label!r} has {len(mark.x)} x and {len(mark.y)} y")
            if isinstance(mark, Points) and not {len(mark.ids), len(mark.error)} <= {0, len(mark.x)}:
                raise FigureError(
                    f"Points {mark.label!r} has {len(mark.x)} x, {len(mark.ids)} ids and {len(mark.error)} errors"
                )
            if isinstance(mark, Bars) and len(mark.edges) != len(mark.heights) + 1:
                raise FigureError(f"Bars {mark.label!r} has {len(mark.edges)} edges and {len(mark.heights)} heights")


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """What is drawn, independent of who draws it.

    Attributes:
        kind: which figure of its result this is.
        title: the headline.
        panels: left to right, then down.
        columns: how many panels stand beside each other at most, where there is room; None for all.
        provenance: where the numbers come from; written into the metadata of saved files.
        VENUES: the venues of `to_matplotlib` and `save`, each with its widths in inches.
    """

    VENUES: ClassVar[Mapping[str, Mapping[str, float]]] = {name: venue.widths for name, venue in VENUES.items()}

    kind: str
    title: str
    panels: tuple[Panel, ...]
    columns: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def beside(self, *others: "FigureSpec", columns: int = 2, title: str = "") -> "FigureSpec":
        """This figure and others as one, its panels with the letters a, b, c.

        Every panel keeps its own axes and says above them what its figure's title said. The legend is one: where
        panels differ in it, an entry names the letters of those that it is of.

        Args:
            others: figures of one panel or several.
            columns: how many panels stand beside each other at most. A narrow page has fewer: each
                has 2.2 inches, or 2.7 with a bar of colours.
            title: the headline; none by default, as a paper has a caption.

        Returns:
            A FigureSpec like any other: `.save(…)`, `.to_plotly()`, `.csv()`. Its provenance is that of all.

        Raises:
            FigureError: more panels than letters, a figure that has letters already, or columns below 1.

        Example:
            >>> import torch, workbench as wb
            >>> sizes = wb.figure(wb.layers(torch.nn.Linear(3, 2)))
            >>> [panel.letter for panel in sizes.beside(sizes, sizes).panels]
            ['a', 'b', 'c']
        """
        from workbench.figures.panels import together

        return together((self, *others), columns, title)

    def to_plotly(self) -> "plotly.graph_objects.Figure":
        """An interactive plotly figure, to show or to style further."""
        from workbench.figures.plotly_renderer import drawn

        return drawn(self)

    def to_plotly_json(self) -> dict[str, Any]:
        """The same figure's `data` and `layout` as plain JSON: what a web page gives to plotly.js.

        It is made without plotly, in a few percent of `to_plotly()`'s time.
        """
        from workbench.figures.plotly_renderer import as_json

        return as_json(self)

    def to_matplotlib(self, *, style: str = "icml", width: str = "page") -> "matplotlib.figure.Figure":
        """A matplotlib figure at print size, made without pyplot.

        Args:
            style: a venue's name: `icml` (column 3.25 in, page 6.75 in), `neurips` (5.5 in), `iclr` (5.5 in), `jmlr`
                (6 in; these have one column, a `page`) or `nature` (column 89 mm, page 183 mm). It sets fonts, their
                sizes and the widths of lines; docs/decisions/0010-figures.md says from where.
            width: `column` or `page` of that venue.

        Raises:
            FigureError: the venue is unknown, or has no such width.
        """
        from workbench.figures.matplotlib_renderer import drawn

        return drawn(self, *venue_width(style, width))

    def save(self, path: str | os.PathLike[str], *, style: str = "icml", width: str | None = None) -> Path:
        """Writes the figure as PDF, EPS, SVG or PNG at a venue's print size, or its data as CSV.

        PDF and EPS embed their fonts as TrueType; text in SVG stays text. All say in their metadata where the numbers
        come from, and none has a date or a folder's name: the same figure gives the same bytes.

        Args:
            path: ends in `.pdf`, `.eps`, `.svg`, `.png` or `.csv`.
            style: a venue's name, as in `to_matplotlib`.
            width: `column` or `page` of that venue; None for a column, or for the page where there are no columns.

        Returns:
            The path.

        Raises:
            FigureError: the ending, the venue or the width is unknown, or the folder does not exist.
        """
        target = Path(path).expanduser()
        venue, inches = venue_width(style, width)
        if target.suffix not in (".pdf", ".eps", ".svg", ".png", ".csv"):
            raise FigureError(f"{target.name!r}: expected a name that ends in .pdf, .eps, .svg, .png or .csv.")
        if not target.parent.is_dir():
            raise FigureError(f"{target.parent} is not a folder; make it first, or save elsewhere.")
        if target.suffix == ".csv":
            target.write_text(self.csv(), encoding="utf-8")
        else:
            from workbench.figures.matplotlib_renderer import written

            target.write_bytes(written(self, venue, inches, target.suffix.removeprefix(".")))
        return target

    def csv(self) -> str:
        """The data drawn, a line per point: panel, mark, label, id, x, y, error, value, and what these are.

        `panel` counts from 0, or is the letter. Bars: left edge, height, width in place of the error. Heat: the cell's
        first edges, and its value. `x_name` and `y_name`: what the axis calls that place, where it has names; `x_is`,
        `y_is` and `value_is`: the axes' labels with their units.
        """
        from workbench.figures.data import table

        return table(self)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        from workbench.figures.matplotlib_renderer import SCREEN_DPI, written

        inches = SCREEN.widths["page"]
        size = {"width": round(inches * 96)}
        png = written(self, SCREEN, inches, "png", dpi=SCREEN_DPI)
        return {"image/png": png, "text/plain": repr(self)}, {"image/png": size}

    def __repr__(self) -> str:
        calls = ".save('figure.pdf'), .to_plotly(), .to_matplotlib(), .csv(), .beside(another)"
        return f"FigureSpec {self.kind}: {self.title}\nnext: {calls}"


def venue_width(style: str, width: str | None) -> tuple[Venue, float]:
    """A venue, and the width in inches of its column or page; of None the column, or the page if that is one column.

    Raises:
        FigureError: unknown venue, or one that has no such width.
    """
    if not isinstance(style, str) or style not in VENUES:
        raise FigureError(f"style {style!r} is not one of {sorted(VENUES)}." + nearest(style, VENUES))
    venue = VENUES[style]
    width = next(iter(venue.widths)) if width is None else width
    if width == "column" and width not in venue.widths:
        raise FigureError(f"{style} has one column, {venue.widths['page']:g} in wide: say width='page'.")
    if not isinstance(width, str) or width not in venue.widths:
        raise FigureError(f"width {width!r} is not one of {sorted(venue.widths)}." + nearest(width, venue.widths))
    return venue, venue.widths[width]


def scales(panels: Sequence[Panel]) -> list[set[tuple[str, tuple[float, float]]]]:
    """The bars of colours that stand beside each panel: one for panels that share it, beside the last of them."""
    own = [{mark.scale for mark in panel.marks if isinstance(mark, Heat)} for panel in panels]
    several = len(set().union(*own)) > 1
    last = max((number for number, scale in enumerate(own) if scale), default=0)
    return [scale if several or number == last else set() for number, scale in enumerate(own)]


def with_names(panels: Sequence[Panel], columns: int) -> list[bool]:
    """Whether the vertical axis of each panel has its names: not where the panel on its left has the same axis."""
    return [number % columns == 0 or panel.y != panels[number - 1].y for number, panel in enumerate(panels)]


def ordered(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """The words found, those with a look of their own first: a word nobody foresaw is drawn too."""
    words = dict.fromkeys(found)
    return [word for word in known if word in words] + [word for word in words if word not in set(known)]


def named_ticks(names: Sequence[str], most: int = 14, longest: int = 26) -> tuple[tuple[float, str], ...]:
    """Names at 0, 1, 2, …; of very many every second, fifth, … only, and of a long one its end."""
    step = next(
        step
        for power in itertools.count()
        for step in (10**power, 2 * 10**power, 5 * 10**power)
        if len(names) <= most * step
    )
    return tuple(
        (float(place), name if len(name) <= longest else f"…{name[1 - longest :]}")
        for place, name in enumerate(names)
        if place % step == 0
    )


def limits(values: Iterable[float], scale: Scale = "linear", pad: float = 0.05) -> tuple[float, float]:
    """Limits that hold all finite values (all positive ones on a log axis) with some air on both sides."""
    usable = [value for value in values if math.isfinite(value) and (scale == "linear" or value > 0)]
    if not usable:
        return (0.1, 10.0) if scale == "log" else (0.0, 1.0)
    low, high = min(usable), max(usable)
    if scale == "log":
        air = pad * math.log(high / low) or 0.5
        return low / math.exp(air), high * math.exp(air)
    air = pad * (high - low) or 0.5
    return low - air, high + air


def edges(centres: Sequence[float]) -> tuple[float, ...]:
    """Edges of cells about centres: half-way between them, the outer ones as far beyond."""
    middles = [(left + right) / 2 for left, right in zip(centres, centres[1:], strict=False)]
    first, last = (middles[0] - centres[0], centres[-1] - middles[-1]) if middles else (0.5, 0.5)
    return (centres[0] - first, *middles, centres[-1] + last)

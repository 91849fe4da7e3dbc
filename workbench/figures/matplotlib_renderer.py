"""FigureSpec → matplotlib, at print size and without pyplot."""

import io
import math
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import NullFormatter

from workbench.figures.fit_renderer import Drawn, fit
from workbench.figures.spec import Bars, FigureSpec, Heat, Line, Mark, Panel, Points, Rule, scales, with_names
from workbench.figures.style import HEAT, ROLES, SCREEN, SOFT, Venue, color, stroke

STYLE = Path(__file__).with_name("paper.mplstyle")
SCREEN_DPI = 192
PRINT_DPI = 300
NARROWEST, WITH_BAR = 2.2, 2.7  # inches of a panel beside others, names, numbers and a bar of colours with it
SIDE_BY_SIDE = 4.0  # inches; several panels of a narrower figure stand below each other
LONG = 230  # letters of a line of EPS, which may have 255
_LOCK = threading.RLock()


SERIF = ("STIXGeneral", "DejaVu Serif")  # a Times that comes with matplotlib, so that every machine draws it
LINES = {"serif": 0.95, "sans": 1.2}  # STIX's own lines are high
SANS = ("Arial", "Helvetica", "Liberation Sans", "Arimo", "DejaVu Sans")  # the first that there is


@contextmanager
def paper_style(venue: Venue) -> Iterator[None]:
    """Print settings of matplotlib. They are the process's, so one figure is drawn at a time."""
    with _LOCK, rc_context(), style.context(STYLE), rc_context(_settings(venue)):
        yield


def _settings(venue: Venue) -> Any:
    known = {font.name for font in fontManager.ttflist}
    families = SERIF if venue.font == "serif" else SANS[-1:] if venue is SCREEN else SANS
    thin, wide = venue.lines
    return {
        # the last has every sign that we write
        "font.family": [name for name in families[:-1] if name in known][:1] + [families[-1]],
        "mathtext.fontset": "stix" if venue.font == "serif" else "dejavusans",
        "font.size": venue.size,
        "figure.titlesize": venue.size,
        "axes.labelsize": venue.size,
        "axes.titlesize": venue.small,
        "xtick.labelsize": venue.small,
        "ytick.labelsize": venue.small,
        "legend.fontsize": venue.small,
        "lines.linewidth": wide,
        "lines.markeredgewidth": min(1.0, wide),
        **{name: max(0.6, thin) for name in ("axes.linewidth", "xtick.major.width", "ytick.major.width")},
        **{name: max(0.5, thin) for name in ("xtick.minor.width", "ytick.minor.width")},
        "svg.hashsalt": "weight-workbench",
    }


class PaperFigure(Figure):
    """A figure that is saved in the style in which it was drawn: fonts are embedded when it is saved."""

    venue: Venue = SCREEN

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """As `Figure.savefig`, under the print style."""
        with paper_style(self.venue):
            super().savefig(*arguments, **options)


def drawn(spec: FigureSpec, venue: Venue, inches: float) -> Figure:
    """The figure as a venue wants it, `inches` wide."""
    cols = _columns(spec, inches)
    rows = math.ceil(len(spec.panels) / cols)
    height = inches * (0.72 if cols == 1 == rows else 0.62 * rows if cols == 1 else (0.72 / cols + 0.1) * rows)
    with paper_style(venue):
        figure = PaperFigure(figsize=(inches, height))
        figure.venue = venue
        FigureCanvasAgg(figure)
        title = figure.suptitle(spec.title, linespacing=LINES[venue.font])
        told = scales(spec.panels)
        handles: dict[str, Any] = {}
        panels = []
        places = figure.subplots(rows, cols, squeeze=False).flat
        for panel, colours, named, axes in zip(spec.panels, told, with_names(spec.panels, cols), places, strict=False):
            _draw_panel(axes, panel, venue, colours)
            if not named:
                axes.yaxis.set_major_formatter(NullFormatter())
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.set_ylabel("")
            panels.append(Drawn(axes, panel.x, panel.y if named else replace(panel.y, ticks=())))
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        for axes in places:  # of a last row that is not full
            axes.remove()
        fit(figure, panels, (rows, cols), title, [(handle, label) for label, handle in handles.items()])
        return figure


def _columns(spec: FigureSpec, inches: float) -> int:
    """How many panels are beside each other."""
    count = len(spec.panels)
    if spec.columns is None:
        return 1 if inches < SIDE_BY_SIDE else count
    least = WITH_BAR if any(scales(spec.panels)) else NARROWEST
    return min(spec.columns, count, max(1, int(inches / least)))


def written(spec: FigureSpec, venue: Venue, inches: float, kind: str, *, dpi: int = PRINT_DPI) -> bytes:
    """The bytes of a PDF, EPS, SVG or PNG; the same spec gives the same bytes."""
    buffer = io.BytesIO()
    figure = drawn(spec, venue, inches)
    with rc_context({"figure.constrained_layout.use": False, "figure.autolayout": False}):
        figure.set_layout_engine(None)  # everything has its place: to look for it anew would draw it twice
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=_metadata(spec, kind))
    return _with_comments(buffer.getvalue(), spec) if kind == "eps" else buffer.getvalue()


def _metadata(spec: FigureSpec, kind: str) -> Mapping[str, Any]:
    creator = f"weight-workbench {spec.provenance.get('workbench', '')}".strip()
    story = "; ".join(f"{key}: {value}" for key, value in spec.provenance.items())
    title = spec.title or spec.kind
    if kind == "pdf":
        return {"Title": title, "Creator": creator, "Subject": story, "CreationDate": None}
    if kind == "svg":
        return {"Title": title, "Creator": creator, "Description": story, "Date": None}
    return {"Creator": creator} if kind == "eps" else {"Title": title, "Software": creator, "Description": story}


def _with_comments(eps: bytes, spec: FigureSpec) -> bytes:
    """EPS without its date, its title and provenance in comments: matplotlib writes neither.

    Signs beyond ASCII are written as in a Python literal, lines longer than EPS allows go on after `%%+`.
    """
    told = [("%%Title", spec.title or spec.kind), *((f"% {key}", value) for key, value in spec.provenance.items())]
    comments = []
    for key, value in told:
        plain = " ".join(value.splitlines()).encode("unicode_escape").decode("ascii")
        parts = [plain[start : start + LONG] for start in range(0, len(plain), LONG)] or [""]
        comments.append("\n%%+".join([f"{key}: {parts[0]}", *parts[1:]]))
    head, end, rest = eps.partition(b"%%EndComments\n")
    kept = [line for line in head.splitlines(keepends=True) if not line.startswith((b"%%CreationDate", b"%%Title"))]
    title, *facts = ("".join([comment, "\n"]).encode("ascii") for comment in comments)
    return b"".join([*kept, title, end, *facts, rest])


def _draw_panel(axes: Axes, panel: Panel, venue: Venue, colours: Collection[tuple[str, tuple[float, float]]]) -> None:
    axes.set_xscale(panel.x.scale)
    axes.set_yscale(panel.y.scale)
    axes.set_xlabel(panel.x.title, linespacing=LINES[venue.font])
    axes.set_ylabel(panel.y.title, linespacing=LINES[venue.font])
    axes.set_title(panel.title, linespacing=LINES[venue.font])
    axes.set_title(panel.letter, loc="left", fontsize=venue.letter, fontweight="bold")
    for mark in panel.marks:
        _draw_mark(axes, panel, mark, colours)
    for side, axis in ((axes.xaxis, panel.x), (axes.yaxis, panel.y)):
        if axis.ticks:
            side.set_ticks([place for place, _ in axis.ticks], [name for _, name in axis.ticks])
            side.set_ticks([], minor=True)
    axes.set_xlim(*panel.x.ends)  # after the ticks: those beyond an end would widen the axis
    axes.set_ylim(*panel.y.ends)


def _draw_mark(axes: Axes, panel: Panel, mark: Mark, colours: Collection[tuple[str, tuple[float, float]]]) -> None:
    label = mark.label or "_nolegend_"
    match mark:
        case Heat():
            low, high = mark.limits
            # cells as a picture inside vector files: thousands of small rectangles show seams
            mesh = axes.pcolormesh(mark.x, mark.y, mark.values, cmap=HEAT, vmin=low, vmax=high, rasterized=True)
            if mark.scale in colours:
                axes.figure.colorbar(mesh, ax=axes, label=mark.label)
        case Line():
            axes.plot(mark.x, mark.y, color=color(mark.role), linestyle=_dash(mark.role), label=label, zorder=3)
        case Points():
            look = ROLES[mark.role]
            ring = mark.role == "accent"
            axes.errorbar(
                mark.x,
                mark.y,
                yerr=mark.error or None,
                fmt=look.marker,
                color=look.color,
                markerfacecolor="none" if ring else look.color,
                markersize=8 if ring else None,
                elinewidth=0.7,
                label=label,
                zorder=4 if ring else 3,
            )
        case Bars():
            base = panel.y.limits[0]
            axes.stairs(
                mark.heights,
                mark.edges,
                baseline=base,
                fill=True,
                color=_soft(mark.role),
                label=label,
            )
        case Rule():
            draw = axes.axvline if mark.axis == "x" else axes.axhline
            draw(mark.value, color=color(mark.role), linestyle=_dash(mark.role), linewidth=0.8, label=label, zorder=2)


def _dash(role: str) -> Any:
    return (0, stroke(role).dash) if stroke(role).dash else "-"


def _soft(role: str) -> tuple[float, ...]:
    return tuple(1 - SOFT * (1 - part) for part in to_rgb(color(role)))

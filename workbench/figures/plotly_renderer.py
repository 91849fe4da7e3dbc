"""FigureSpec → plotly, for the screen."""

import math
import textwrap
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from workbench.figures.spec import Axis, Bars, FigureSpec, Heat, Line, Mark, Panel, Points, Rule, scales, with_names
from workbench.figures.style import ROLES, STEPS, color, stroke

if TYPE_CHECKING:
    import plotly.graph_objects as go

Domain: TypeAlias = list[float]

DECADES, UPRIGHT = 15, 8  # that are named on an axis, and on one that may be low: more lie on each other
HIGH = 400  # pixels of a row of panels, where there are several
WIDE = 130  # letters of a panel's title that stand beside each other on a page
SUBTITLE = 11  # pixels of a panel's title: plotly's own 16 leave the page where several panels are beside each other
NARROW = 480  # pixels that panels have beside the controls of an explorer: where names fit there, they fit anywhere
GAP, TITLED, NUMBER, LETTER, BAR = 14, 22, 38, 6, 70  # pixels: air, an axis title, a number, a letter, a colour bar
ROWS_APART = 0.32  # of the height, by the number of rows
MOST_APART = 0.6  # of the width, between all panels together


def drawn(spec: FigureSpec) -> "go.Figure":
    """The figure, on transparent paper so that the page's theme shows through."""
    import plotly.graph_objects as go

    return go.Figure(as_json(spec))


def as_json(spec: FigureSpec) -> dict[str, Any]:
    """The figure's traces and layout as JSON has them, made without plotly, whose own objects take long to make."""
    count = len(spec.panels)
    cols = min(spec.columns or count, count)
    rows = math.ceil(count / cols)
    bars, named = scales(spec.panels), with_names(spec.panels, cols)
    domains = _domains(count, cols, _between(spec.panels, cols, named, bars), ROWS_APART / rows)
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    told: set[str] = set()
    names = ""  # of the vertical axis that has them
    for number, (panel, (across, along)) in enumerate(zip(spec.panels, domains, strict=True)):
        tail = "" if number == 0 else str(number + 1)
        x, y = f"x{tail}", f"y{tail}"
        axes[f"xaxis{tail}"] = _axis(panel.x, DECADES) | {"anchor": y, "domain": across}
        axes[f"yaxis{tail}"] = _axis(panel.y, UPRIGHT) | {"anchor": x, "domain": along}
        if named[number]:
            names = y
        else:  # it is read by those names, so it is zoomed with them
            axes[f"yaxis{tail}"] |= {"showticklabels": False, "title": {"text": ""}, "matches": names}
        for mark in panel.marks:
            trace = _trace(panel, mark) | {"xaxis": x, "yaxis": y}
            if isinstance(mark, Heat):  # one bar of colours for panels that share it
                trace["showscale"] = mark.scale in bars[number]
                if rows > 1 or number < count - 1:
                    trace["colorbar"] |= _beside(across, along)
            elif mark.label:
                trace |= {"legendgroup": mark.label, "showlegend": mark.label not in told}
                told.add(mark.label)
            data.append(trace)
    subtitles = [_subtitle(panel, cols) for panel in spec.panels]
    subtitle = {"text": subtitles[0] if count == 1 else "", "font": {"size": SUBTITLE}}
    above = [_above(text, *domain) for text, domain in zip(subtitles, domains, strict=True) if text and count > 1]
    layout = axes | {
        "title": {"text": _plain(spec.title), "font": {"size": 14}, "x": 0.02, "subtitle": subtitle},
        "template": "none",
        "autosize": True,
        "font": {"size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        # as wide as most axes and a legend of one line need: where plotly finds that one needs more it draws all again
        "margin": {"l": 72, "r": 16, "t": 72, "b": 88 if told else 52},
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0.5,
            "xanchor": "center",
        },
        "hovermode": "closest",
        "meta": dict(spec.provenance),
    }
    some = ({"annotations": above} if above else {}) | ({"height": HIGH * rows} if rows > 1 else {})
    return {"data": data, "layout": layout | some}


def _domains(count: int, cols: int, between: float, below: float) -> list[tuple[Domain, Domain]]:
    """Where panels are in the figure, left to right, then down: shares of its width and of its height."""
    rows = math.ceil(count / cols)
    wide, high = (1 - between * (cols - 1)) / cols, (1 - below * (rows - 1)) / rows
    places = [(number % cols * (wide + between), 1 - number // cols * (high + below)) for number in range(count)]
    return [([left, min(1.0, left + wide)], [max(0.0, top - high), top]) for left, top in places]


def _above(text: str, across: Domain, along: Domain) -> dict[str, Any]:
    """A panel's title."""
    place = {"x": sum(across) / 2, "xanchor": "center", "xref": "paper", "y": along[1], "yanchor": "bottom"}
    return place | {"yref": "paper", "text": text, "showarrow": False, "font": {"size": SUBTITLE}}


def _between(panels: Sequence[Panel], cols: int, named: Sequence[bool], bars: Sequence[Collection[object]]) -> float:
    """The room between panels beside each other, as a share of the width: what stands in it has its own."""
    inner = [number for number in range(len(panels)) if number % cols]
    if not inner:
        return 0.0
    rooms = [
        GAP + (_beside_axis(panels[number].y) if named[number] else 0) + (BAR if bars[number - 1] else 0)
        for number in inner
    ]
    return min(max(rooms) / NARROW, MOST_APART / (cols - 1))


def _beside_axis(axis: Axis) -> float:
    """Pixels of the names or numbers of a vertical axis, and of its title."""
    names = LETTER * max((len(name) for _, name in axis.ticks), default=0)
    return (names or NUMBER) + (TITLED if axis.title else 0)


def _subtitle(panel: Panel, cols: int) -> str:
    """What stands above a panel; of several figures in lines that stay above it, since plotly breaks none."""
    if not panel.letter:
        return _plain(panel.title)
    lines = map(_plain, textwrap.wrap(panel.title, max(20, WIDE // cols)))
    return "<br>".join([f"<b>{panel.letter}</b>", *lines]).replace("</b><br>", "</b>  ", 1)


def _plain(text: str) -> str:
    """Names of layers may look like the markup that plotly reads."""
    return escape(text, quote=False)


def _beside(across: Domain, along: Domain) -> dict[str, Any]:
    """Where a bar of colours stands beside a panel that is not the last of one row."""
    (_, right), (low, high) = across, along
    return {"x": right, "xanchor": "left", "y": (low + high) / 2, "len": high - low}


def _axis(axis: Axis, decades: int) -> dict[str, Any]:
    span = [math.log10(value) for value in axis.ends] if axis.scale == "log" else list(axis.ends)
    powers = (
        {"dtick": math.ceil(abs(span[1] - span[0]) / decades), "exponentformat": "power", "tickfont": {"size": 10}}
        if axis.scale == "log" and abs(span[1] - span[0]) > 2
        else {}
    )
    if axis.ticks:
        places, names = zip(*axis.ticks, strict=True)
        powers = {
            "tickmode": "array",
            "tickvals": list(places),
            "ticktext": list(map(_plain, names)),
            "tickfont": {"size": 10},
        }
    grid = {
        "showline": True,
        "linecolor": "rgb(127,127,127)",
        "ticks": "outside",
        "tickcolor": "rgb(127,127,127)",
        "gridcolor": "rgba(127,127,127,0.2)",
        "zeroline": False,
    }
    return {
        # without standoff an inner panel's title lies on its tick labels
        "title": {"text": _plain(axis.title), "standoff": 8, "font": {"size": 12}},
        "type": axis.scale,
        "range": span,
        "automargin": True,  # else the title would lie on the numbers
        "ticklabeloverflow": "allow",
        **grid,
        **powers,
    }


def _trace(panel: Panel, mark: Mark) -> dict[str, Any]:
    if isinstance(mark, Heat):
        return {
            "type": "heatmap",
            "name": _plain(mark.label),
            "x": _numbers(mark.x),
            "y": _numbers(mark.y),
            "z": [_numbers(row) for row in mark.values],
            "zmin": mark.limits[0],
            "zmax": mark.limits[1],
            "colorscale": [[step / (len(STEPS) - 1), shade] for step, shade in enumerate(STEPS)],
            "colorbar": {"title": {"text": _plain(mark.label), "side": "right"}, "thickness": 12, "outlinewidth": 0},
            "hovertemplate": "%{x}, %{y}: %{z:.4g}<extra></extra>",
            "hoverongaps": False,
        }
    shown = {"type": "scatter", "name": _plain(mark.label), "showlegend": bool(mark.label)}
    match mark:
        case Line():
            return shown | {
                "x": _numbers(mark.x),
                "y": _numbers(mark.y),
                "mode": "lines",
                "line": {"color": color(mark.role), "width": 2, "dash": _dash(mark.role, 2)},
            }
        case Points():
            look = ROLES[mark.role]
            ring = mark.role == "accent"
            marker: dict[str, Any] = {"color": look.color, "symbol": look.symbol, "size": 15 if ring else 8}
            if ring:
                marker["line"] = {"width": 2, "color": look.color}
            trace = shown | {"x": _numbers(mark.x), "y": _numbers(mark.y), "mode": "markers", "marker": marker}
            if mark.error:
                trace["error_y"] = {"type": "data", "array": _numbers(mark.error), "thickness": 1, "width": 3}
            if mark.ids:
                trace |= {
                    "customdata": list(mark.ids),
                    "hovertemplate": "%{customdata}<br>%{x}: %{y:.4g}<extra></extra>",
                }
            return trace
        case Bars():
            x, y = outline(mark, panel.y.limits[0])
            soft = {"color": color(mark.role), "width": 1}
            return shown | {
                "x": _numbers(x),
                "y": _numbers(y),
                "mode": "lines",
                "line": soft,
                "fill": "toself",
                "hoverinfo": "skip",
            }
        case Rule():
            low, high = panel.y.limits if mark.axis == "x" else panel.x.limits
            across, along = [mark.value, mark.value], [low, high]
            x, y = (across, along) if mark.axis == "x" else (along, across)
            dashed = {"color": color(mark.role), "dash": _dash(mark.role, 1), "width": 1}
            return shown | {"x": x, "y": y, "mode": "lines", "line": dashed, "hoverinfo": "skip"}


def _numbers(values: Iterable[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _dash(role: str, width: float) -> str:
    return ",".join(f"{width * length:g}px" for length in stroke(role).dash) or "solid"


def outline(mark: Bars, base: float) -> tuple[list[float], list[float]]:
    """The bars' outline as one closed polygon that stands on `base`: plotly's own bars do not know log axes."""
    x, y = [], []
    for left, right, height in zip(mark.edges, mark.edges[1:], mark.heights, strict=False):
        top = base if math.isnan(height) else height
        x += [left, left, right, right]
        y += [base, top, top, base]
    return x, y

"""Text of a matplotlib figure that fits: broken, turned or cut by its measured size, the figure as tall as needed.

Constrained layout makes room for text, but neither breaks nor turns it, and makes the axes pay for all of it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Side
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Bbox

from workbench.figures.spec import Axis

if TYPE_CHECKING:
    from matplotlib.backend_bases import RendererBase

MARGIN = 0.93  # of the room that text takes: its size differs by some percent between resolutions
ASIDE, BETWEEN = 0.42, 0.34  # of the width of a panel, or of one beside others: a longer name is cut in front
BELOW = 1.4  # inches, the same for names below an axis
FLAT, LOW = 0.45, 1.4  # an axes is as high as this share of its width, and as these inches, at least
LINE, MOST = 0.14, 3.0  # inches of a name beside an axis, and what names make an axes high at most
AIR = 1.5  # points between the names of an axis
FEWER = 6  # numbers on an axis, and less, where more lie on each other
OUTER = 0.6  # inches of title and legend for which a figure has room in any case
SETTLED = 0.015  # inches that a height may be off
PASSES = 4  # heights and wraps settle in two or three
TURNS = (0, 45, 90)  # degrees of the names below an axis: the first at which they are apart


@dataclass(frozen=True)
class Drawn:
    """A panel's axes, and what they are of."""

    axes: Axes
    x: Axis
    y: Axis


def fit(
    figure: Figure, panels: Sequence[Drawn], grid: tuple[int, int], title: Text, legend: Sequence[tuple[Any, str]]
) -> None:
    """Breaks the texts of a figure, takes apart the names of each axis, adds a legend, and sets the height.

    The grid is rows and columns of panels. The height that the figure has is the least that it gets.
    """
    least, inch = float(figure.get_figheight()), float(figure.dpi)
    canvas: Any = figure.canvas
    renderer: RendererBase = canvas.get_renderer()
    rows, cols = grid
    width = float(figure.get_figwidth()) * inch
    title.set_text(wrapped(title, title.get_text(), width * MARGIN, renderer))
    room = width / cols
    for panel in panels:
        _shorten(panel.axes.xaxis, panel.x, min(BELOW * inch, ASIDE * width), renderer)
        _shorten(panel.axes.yaxis, panel.y, (ASIDE if cols == 1 else BETWEEN) * room, renderer)
    across = [(text, text.get_text(), axes) for axes in figure.axes for text in (axes.title, axes.xaxis.label)]
    upright = [(axes.yaxis.label, axes.get_ylabel(), axes) for axes in figure.axes]
    outer = [title, fitting_legend(figure, legend, renderer)] if legend else [title]
    high = max(sum(one.get_window_extent(renderer).height for one in outer) / inch - OUTER, 0.0)
    high += sum(LINE * int(2 * _length(text, words, renderer) / room) for text, words, _ in across)
    high += sum(rows * BELOW for panel in panels if len(panel.x.ticks) > 1)
    figure.set_figheight(least + high)  # enough for any layout; then as high as it needs
    engine: Any = figure.get_layout_engine()
    engine.execute(figure)
    for _ in range(PASSES):
        changed = False
        for text, words, axes in (*across, *upright):
            side = axes.bbox.height if text is axes.yaxis.label else axes.bbox.width
            side -= 2 * _letter(axes, renderer) if text is axes.title else 0.0
            lines = wrapped(text, words, side * MARGIN, renderer)
            changed |= lines != text.get_text()
            text.set_text(lines)
        for panel in panels:
            changed |= _take_apart(panel.axes.xaxis, panel.x, TURNS, renderer)
            changed |= _take_apart(panel.axes.yaxis, panel.y, TURNS[:1], renderer)
        if changed:
            engine.execute(figure)
        lacking = max(_wanted(panel, inch) - panel.axes.bbox.height / inch for panel in panels)
        height = max(least, round(figure.get_figheight() + rows * lacking, 2))
        if abs(height - figure.get_figheight()) > SETTLED:
            figure.set_figheight(height)
            engine.execute(figure)
        elif not changed:
            break


def _letter(axes: Axes, renderer: "RendererBase") -> float:
    """How wide a panel's letter is, with the air beside it."""
    letter: Any = axes._left_title  # type: ignore[attr-defined]
    return 1.5 * _length(letter, letter.get_text(), renderer) if letter.get_text() else 0.0


def _wanted(panel: Drawn, inch: float) -> float:
    """How many inches the axes are high at least: not flat, and room for names in lines."""
    places = sorted(place for place, _ in panel.y.ticks)
    low, high = panel.y.limits
    gap = min((two - one for one, two in pairwise(places)), default=high - low)
    return max(LOW, FLAT * panel.axes.bbox.width / inch, min(MOST, LINE * (high - low) / gap) if gap > 0 else 0.0)


def _length(text: Text, words: str, renderer: "RendererBase") -> float:
    """How long a line of `words` is in the text's font, whatever way the text runs."""
    font = text.get_fontproperties()
    return float(renderer.get_text_width_height_descent(words, font, ismath=False)[0])


def wrapped(text: Text, words: str, room: float, renderer: "RendererBase") -> str:
    """The words in lines of at most `room` pixels, broken at spaces, and inside of what is longer than a line."""
    if "$" in words and text.get_parse_math():
        return words  # a formula is one
    lines: list[str] = []
    for word in words.split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _length(text, joined, renderer) <= room:
            lines[-1] = joined
            continue
        lines.append(word)
        while len(lines[-1]) > 1 and _length(text, lines[-1], renderer) > room:
            whole = lines.pop()
            head = _longest([whole[:end] for end in range(1, len(whole))], text, room, renderer)
            lines += [head, whole[len(head) :]]
    return "\n".join(lines)


def _longest(parts: Sequence[str], text: Text, room: float, renderer: "RendererBase") -> str:
    """The longest that fits of ever longer parts; the first, if none does."""
    return parts[max(bisect_right(parts, room, key=lambda part: _length(text, part, renderer)) - 1, 0)]


def fitting_legend(figure: Figure, entries: Sequence[tuple[Any, str]], renderer: "RendererBase") -> Legend:
    """A legend below the axes, in as many columns as the figure has room for."""
    handles = [handle for handle, _ in entries]
    labels = [label for _, label in entries]
    width = figure.get_figwidth() * figure.dpi * MARGIN
    for cols in range(len(entries), 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=cols)
        over = legend.get_window_extent(renderer).width - width
        if over <= 0 or cols == 1:
            break
        legend.remove()
    texts = legend.get_texts()
    room = max(_length(text, label, renderer) for text, label in zip(texts, labels, strict=True)) - over
    for text, label in zip(texts, labels, strict=True):
        if over > 0:
            text.set_text(wrapped(text, label, room, renderer))
    return legend


def _shorten(side: Side, axis: Axis, room: float, renderer: "RendererBase") -> None:
    """Cuts names that are longer than their room in front: layers differ at their ends."""
    for label, (_, name) in zip(side.get_ticklabels() if axis.ticks else (), axis.ticks, strict=True):
        if _length(label, name, renderer) > room:
            ends = [f"…{name[-count:]}" for count in range(1, len(name))]
            label.set_text(_longest(ends, label, room, renderer))
    if axis.ticks:
        _name(side, [place for place, _ in axis.ticks], [label.get_text() for label in side.get_ticklabels()], renderer)


def _name(
    side: Side,
    places: Sequence[float],
    names: Sequence[str],
    renderer: "RendererBase",
    turn: float = 0,
    *,
    minor: bool = False,
) -> None:
    """Gives the places of an axis names that are turned; what it shows stays."""
    low, high = side.get_view_interval()
    look: dict[str, Any] = {"rotation": turn, "rotation_mode": "anchor", "ha": "right", "va": "center"} if turn else {}
    side.set_ticks(places, names, minor=minor, **look)
    side.set_view_interval(low, high, ignore=True)  # ticks beyond the ends would widen it
    side.get_tightbbox(renderer)  # puts the names where they are drawn


def _take_apart(side: Side, axis: Axis, turns: Sequence[int], renderer: "RendererBase") -> bool:
    """Turns the names of an axis until none lies on another, or draws fewer numbers; else leaves some out.

    Returns:
        Whether it had to.
    """
    if not _crowded(side, renderer):
        return False
    if axis.ticks:
        now = side.get_ticklabels()[0].get_rotation()
        for turn in (turn for turn in turns if turn > now):
            _name(side, side.get_ticklocs().tolist(), [one.get_text() for one in side.get_ticklabels()], renderer, turn)
            if not _crowded(side, renderer):
                return True
    elif axis.scale == "linear":
        for most in range(FEWER, 0, -1):
            side.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
            side.get_tightbbox(renderer)
            if not _crowded(side, renderer):
                return True
    kept: list[Bbox] = []
    gone: set[int] = set()
    for label, box in boxes(side, renderer):
        if any(box.overlaps(other) for other in kept):
            gone.add(id(label))
        else:
            kept.append(box)
    for minor in (False, True):
        ticks = side.get_minor_ticks() if minor else side.get_major_ticks()
        if any(id(tick.label1) in gone for tick in ticks):
            names = ["" if id(tick.label1) in gone else tick.label1.get_text() for tick in ticks]
            _name(
                side, [tick.get_loc() for tick in ticks], names, renderer, ticks[0].label1.get_rotation(), minor=minor
            )
    return True


def _crowded(side: Side, renderer: "RendererBase") -> bool:
    return any(one.overlaps(two) for (_, one), (_, two) in combinations(boxes(side, renderer), 2))


def boxes(side: Side, renderer: "RendererBase") -> list[tuple[Text, Bbox]]:
    """The visible names of an axis, those of decades first, with boxes about them in a frame turned as they are."""
    low, high = sorted(side.get_view_interval())
    slack = 1e-9 * (high - low)
    air = AIR / 2 * float(np.asarray(renderer.points_to_pixels(1.0)))
    found = []
    for tick in (*side.get_major_ticks(), *side.get_minor_ticks()):
        label, turn = tick.label1, tick.label1.get_rotation()
        if not label.get_text() or not low - slack <= tick.get_loc() <= high + slack:
            continue
        label.set_rotation(0)
        box = label.get_window_extent(renderer)
        label.set_rotation(turn)
        if turn:  # ends where it is anchored
            x, y = Affine2D().rotate_deg(-turn).transform(label.get_transform().transform(label.get_position()))
            box = Bbox.from_bounds(x - box.width, y - box.height / 2, box.width, box.height)
        found.append((label, box.padded(air)))
    return found

"""What is printed looks as it did: the inside of the axes, one picture for each kind of mark, against small references.

Only the inside is compared, on a grid of its own and blurred: letters are drawn anew by every version of the font
library and move the axes by a pixel or two, which is no change. `python tests/test_figure_pictures.py` draws the
references anew; look at them before they are committed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from workbench.figures import Axis, Bars, FigureSpec, Heat, Line, Panel, Points, Rule

FOLDER = Path(__file__).parent / "reference" / "figures"
SIZE, BLUR = (240, 160), 3  # pixels
APART = {"line": 0.3, "points": 0.2, "bars": 0.08, "rule": 0.3, "heat": 0.08}  # ‖ink − ink before‖ over ‖ink‖, blurred

X = tuple(np.linspace(0, 1, 40).tolist())
WAVE = tuple((0.5 + 0.4 * np.sin(7 * np.array(X))).tolist())
UNIT = Axis(label="x", limits=(0.0, 1.0))
DECADES = Axis(label="y", limits=(1e-3, 1.0), scale="log")


def panel(*marks: object, y: Axis = UNIT) -> FigureSpec:
    return FigureSpec(kind="t", title="", panels=(Panel(x=UNIT, y=y, marks=marks),))


FIGURES = {
    "line": panel(
        *(
            Line(x=X, y=tuple(value * scale for value in WAVE), role=role)
            for role, scale in (("first", 1.0), ("second", 0.8), ("third", 0.6), ("fourth", 0.4), ("fifth", 0.2))
        )
    ),
    "points": panel(
        *(
            Points(x=X[at::8], y=WAVE[at::8], role=role, error=(0.06,) * len(X[at::8]))
            for at, role in enumerate(("first", "second", "third", "fourth", "fifth", "muted"))
        ),
        Points(x=(0.5,), y=(0.8,), role="accent"),
    ),
    "bars": panel(Bars(edges=X, heights=tuple(value**4 for value in WAVE[1:]), role="first"), y=DECADES),
    "rule": panel(Rule(axis="x", value=0.25), Rule(axis="y", value=0.7, role="fit")),
    "heat": panel(
        Heat(
            x=X[::4],
            y=X[::4],
            values=tuple(tuple((np.array(WAVE[1:37:4]) * s).tolist()) for s in X[4::4]),
            limits=(0, 1),
        ),
        Line(x=X, y=WAVE, role="contour"),
    ),
}


def inside(spec: FigureSpec, dpi: int = 200) -> Image.Image:
    """What is drawn between the axes."""
    figure = spec.to_matplotlib(style="icml", width="column")
    figure.set_dpi(dpi)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    box = figure.axes[0].bbox
    edges = (box.x0 + 2, picture.height - box.y1 + 2, box.x1 - 2, picture.height - box.y0 - 2)
    return picture.resize(SIZE, Image.Resampling.BOX, box=edges)


def difference(one: Image.Image, two: Image.Image) -> float:
    """‖a − b‖/√(‖a‖‖b‖) of the blurred ink: 0 of equal pictures, √2 of pictures that share no ink."""
    first, second = (255 - np.asarray(picture.filter(ImageFilter.GaussianBlur(BLUR)), float) for picture in (one, two))
    norms = [float(np.linalg.norm(ink)) for ink in (first, second, first - second)]
    return norms[2] / float(np.sqrt(norms[0] * norms[1]))


def reference(name: str) -> Image.Image:
    return Image.open(FOLDER / f"{name}.png").convert("RGB")


@pytest.mark.parametrize("name", FIGURES)
def test_a_mark_looks_as_it_did(name: str) -> None:
    assert difference(inside(FIGURES[name]), reference(name)) < APART[name] / 2


@pytest.mark.parametrize("name", FIGURES)
def test_another_resolution_is_no_change(name: str) -> None:
    assert difference(inside(FIGURES[name], dpi=170), reference(name)) < APART[name]


def shifted(spec: FigureSpec, by: float) -> FigureSpec:
    """The same with its first mark moved by a share of the axis."""
    (only,) = spec.panels
    first, *others = only.marks
    if isinstance(first, Rule):
        moved = replace(first, value=first.value + by)
    elif isinstance(first, Bars):
        moved = replace(first, heights=tuple(height * 10 ** (3 * by) for height in first.heights))
    elif isinstance(first, Heat):
        moved = replace(first, values=tuple(tuple(value + 5 * by for value in row) for row in first.values))
    else:
        moved = replace(first, y=tuple(value + by for value in first.y))
    return replace(spec, panels=(replace(only, marks=(moved, *others)),))


@pytest.mark.parametrize("name", FIGURES)
def test_a_mark_that_moved_by_a_thirtieth_of_the_axis_is_seen(name: str) -> None:
    assert difference(inside(shifted(FIGURES[name], 1 / 30)), reference(name)) > APART[name]


def test_a_colour_or_a_dash_that_changed_is_seen() -> None:
    (only,) = FIGURES["line"].panels
    for role in ("second", "muted"):
        other = replace(only, marks=(replace(only.marks[0], role=role), *only.marks[1:]))
        assert difference(inside(replace(FIGURES["line"], panels=(other,))), reference("line")) > APART["line"]


def test_the_references_are_small_and_all_used() -> None:
    files = list(FOLDER.iterdir())
    assert {file.stem for file in files} == set(FIGURES) and sum(file.stat().st_size for file in files) < 300_000


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, spec in FIGURES.items():
        inside(spec).save(FOLDER / f"{name}.png", optimize=True)

"""The comparison of pages lets rounding pass, and nothing else."""

import math
from typing import Any

import numpy as np
import pytest

from browser.pages import assert_drawn
from workbench.figures import Axis, Bars, FigureSpec, Heat, Line, Panel, Points
from workbench.figures.spec import Mark

LARGE = tuple(10.0**-place for place in range(8))
NOISE = (3e-15, -1.0, 2e-15, 1e-15)  # −1: an eigenvalue that is not positive, and so not drawn


def spec(noise: tuple[float, ...] = NOISE, large: tuple[float, ...] = LARGE, *more: Mark) -> FigureSpec:
    """A spectrum on a log axis, its rounding apart."""
    axis = Axis(label="number", limits=(0.0, 13.0))
    marks: list[Mark] = []
    for start, values, label in ((1, large, "above"), (1 + len(large), noise, "rounding")):
        kept = [(float(n), value) for n, value in enumerate(values, start) if value > 0]
        x, y = zip(*kept, strict=True)
        marks.append(Points(x=x, y=y, role="first", label=label, ids=tuple(f"fc[{n:.0f}]" for n in x)))
    panel = Panel(x=axis, y=Axis(label="λ", limits=(1e-16, 2.0), scale="log"), marks=(*marks, *more), title="rank 8")
    return FigureSpec(kind="spectra", title="fc", panels=(panel,))


def page(own: FigureSpec) -> dict[str, Any]:
    """What a browser tells of a figure."""
    told = []
    for trace in own.to_plotly().data:
        error = trace.error_y.array if trace.type == "scatter" else None
        told.append(
            {
                "name": trace.name,
                "x": list(trace.x),
                "y": list(trace.y),
                "z": [list(row) for row in trace.z] if trace.type == "heatmap" else None,
                "fill": (trace.fill or "none") if trace.type == "scatter" else None,
                "error": list(error if error is not None else ()),
                "ids": list(trace.customdata if trace.customdata is not None else ()),
            }
        )
    return {"title": own.title, "subtitle": own.panels[0].title, "fits": True, "apart": True, "traces": told}


MORE = (
    Bars(edges=(1.0, 2.0, 4.0), heights=(0.5, math.nan), role="muted", label="bars"),
    Line(x=(1.0, math.nan, 3.0), y=(1e-3, math.nan, 1e-5), role="third", label="line"),
    Heat(x=(1.0, 2.0, 3.0), y=(1.0, 2.0), values=((0.1, math.nan),), limits=(0.0, 1.0), label="heat"),
)


def test_the_same_numbers_pass() -> None:
    own = spec(NOISE, LARGE, *MORE)
    assert_drawn(page(own), own)


@pytest.mark.parametrize("noise", [(1e-15, 2e-15, 3e-15, 4e-16), (5e-16, -1.0, -1.0, -1.0), (-1.0, 1e-13, -1.0, 2e-16)])
def test_rounding_may_differ_or_be_absent(noise: tuple[float, ...]) -> None:
    assert_drawn(page(spec(noise)), spec())
    assert_drawn(page(spec()), spec(noise))


@pytest.mark.parametrize("place", range(len(LARGE)))
def test_what_is_above_rounding_stays_exact(place: int) -> None:
    wrong = np.array(LARGE)
    wrong[place] *= 1 + 1e-4
    with pytest.raises(AssertionError, match="above: y"):
        assert_drawn(page(spec(large=tuple(wrong))), spec())
    fewer = np.array(LARGE)
    fewer[place] = -1.0
    with pytest.raises(AssertionError, match="only on one side"):
        assert_drawn(page(spec(large=tuple(fewer))), spec())
    with pytest.raises(AssertionError, match="only on one side"):
        assert_drawn(page(spec()), spec(large=tuple(fewer)))


def test_ids_names_and_heats_stay_exact() -> None:
    own = spec(NOISE, LARGE, *MORE)
    for number, key, value in [(0, "ids", "fc[9]"), (1, "ids", "fc[1]"), (4, "z", [0.1000001, math.nan])]:
        shown = page(own)
        shown["traces"][number][key][0] = value
        with pytest.raises(AssertionError):
            assert_drawn(shown, own)
    shown = page(own)
    shown["traces"][0]["name"] = "below"
    with pytest.raises(AssertionError):
        assert_drawn(shown, own)

"""Roles can be told apart with any colour vision and in grey: by colour, or by symbol and dash, which are proved here.

Machado, Oliveira & Fernandes 2009, A Physiologically-based Model for Simulation of Color Vision Deficiency, of severity
1.0, on linear RGB; differences by CIEDE2000 (Sharma, Wu & Dalal 2005), whose published pairs are the formula's oracle.
"""

import json
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb, to_rgba

from workbench.figures import Axis, FigureSpec, Heat, Line, Panel, Points
from workbench.figures.style import DASHES, HEAT, ROLES, STEPS, stroke

MACHADO = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "grey": [[0.2126, 0.7152, 0.0722]] * 3,
    "full": np.eye(3),
}
TOLD = 8.0  # CIEDE2000; 2.3 are just seen between patches side by side, thin lines apart need more
WHITE = np.array([0.95047, 1.0, 1.08883])
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(color: str | tuple[float, ...]) -> np.ndarray:
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(color: str | tuple[float, ...], vision: str) -> np.ndarray:
    seen = np.clip(np.array(MACHADO[vision]) @ linear(color), 0, 1)
    t = XYZ @ seen / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one: np.ndarray, two: np.ndarray) -> float:
    (l1, a1, b1), (l2, a2, b2) = one, two
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - np.sqrt(c7 / (c7 + 25**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2
    hm = h1 + h2 if c1 * c2 == 0 else (h1 + turn / 2) % 360
    t = sum(
        weight * np.cos(np.radians(factor * hm + shift))
        for weight, factor, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    )
    sl = 1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * (1 + t)
    rt = -np.sin(np.radians(60 * np.exp(-(((hm - 275) / 25) ** 2)))) * 2 * np.sqrt(cm**7 / (cm**7 + 25**7))
    x, y, z = (l2 - l1) / sl, (c2 - c1) / sc, dh / sh
    return float(np.sqrt(x * x + y * y + z * z + rt * y * z))


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
        ((50, 0, 0), (50, -1, 2), 2.3669),
    ],
)
def test_the_formula_gives_the_published_differences(one: tuple, two: tuple, expected: float) -> None:
    assert ciede2000(np.array(one, float), np.array(two, float)) == pytest.approx(expected, abs=5e-5)
    assert ciede2000(np.array(two, float), np.array(one, float)) == pytest.approx(expected, abs=5e-5)


def test_the_simulations_leave_greys_alone() -> None:
    for vision in MACHADO:
        assert np.sum(MACHADO[vision], 1) == pytest.approx(1, abs=2e-6)


def least(one: str, two: str) -> dict[str, float]:
    return {vision: ciede2000(lab(one, vision), lab(two, vision)) for vision in MACHADO}


def confused(looks: dict[str, tuple[str, object]]) -> list[tuple[str, str, str]]:
    """Pairs that differ neither in shape nor, with some vision, in colour."""
    return [
        (first, second, vision)
        for first, second in combinations(looks, 2)
        if looks[first][1] == looks[second][1]
        for vision, difference in least(looks[first][0], looks[second][0]).items()
        if difference < TOLD
    ]


def test_no_two_roles_are_confused_as_points_or_as_lines() -> None:
    points = {role: (look.color, look.symbol) for role, look in ROLES.items()}
    lines = {role: (stroke(role).color, stroke(role).dash) for role in (*ROLES, *DASHES)}
    assert confused(points) == confused(lines) == []
    assert len({look.marker for look in ROLES.values()}) == len(ROLES) - 1  # the accent is a ring
    alike = {"good": ("#2CA02C", "circle"), "bad": ("#D62728", "circle")}  # what the check is for
    assert confused(alike) == [("good", "bad", "deutan")]


def test_the_five_colours_differ_for_everyone_who_sees_colours() -> None:
    colours = [ROLES[role].color for role in ("first", "second", "third", "fourth", "fifth")]
    for vision in ("full", "protan", "deutan", "tritan"):
        found = {pair: least(*pair)[vision] for pair in combinations(colours, 2)}
        assert min(found.values()) > TOLD, (vision, min(found, key=found.get), min(found.values()))


def test_lightness_of_a_map_rises_with_every_vision() -> None:
    colours = matplotlib.colormaps[HEAT](np.linspace(0, 1, 64))[:, :3]
    for vision in MACHADO:
        assert (np.diff([lab(tuple(c), vision)[0] for c in colours]) > 0).all(), vision


def test_both_renderers_draw_a_roles_dash_and_symbol() -> None:
    axis = Axis(label="x", limits=(0.0, 1.0))
    roles = [*ROLES, *DASHES]
    lines = tuple(Line(x=(0.0, 1.0), y=(0.0, 1.0), role=role) for role in roles)
    dots = tuple(Points(x=(0.5,), y=(0.5,), role=role) for role in ROLES)
    spec = FigureSpec(kind="t", title="", panels=(Panel(x=axis, y=axis, marks=(*lines, *dots)),))
    screen, paper = spec.to_plotly(), spec.to_matplotlib()
    drawn = [line for line in paper.axes[0].lines if len(line.get_xdata()) == 2]
    for role, line, trace in zip(roles, drawn, screen.data, strict=False):
        lengths = line._unscaled_dash_pattern[1] or ()
        assert tuple(lengths) == stroke(role).dash, role
        shown = () if trace.line.dash == "solid" else tuple(float(px[:-2]) / 2 for px in trace.line.dash.split(","))
        assert shown == pytest.approx(stroke(role).dash), role
    symbols = [trace.marker.symbol for trace in screen.data[len(roles) :]]
    assert symbols == [look.symbol for look in ROLES.values()]


def test_a_heats_colours_are_those_of_print() -> None:
    shades = [to_rgba(shade) for shade in STEPS]
    np.testing.assert_allclose(shades, colormaps[HEAT](np.linspace(0, 1, len(STEPS))), atol=1.5 / 255)
    axis = Axis(label="x", limits=(0.0, 1.0))
    heat = Heat(x=(0.0, 1.0), y=(0.0, 1.0), values=((1.0,),), limits=(0.0, 1.0))
    spec = FigureSpec(kind="t", title="", panels=(Panel(x=axis, y=axis, marks=(heat,)),))
    (trace,) = spec.to_plotly_json()["data"]
    assert [shade for _, shade in trace["colorscale"]] == STEPS  # a name would be another scale in the page
    assert trace["colorscale"] == json.loads(spec.to_plotly().to_json())["data"][0]["colorscale"]

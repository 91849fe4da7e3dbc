"""Figures of activations, bases and the audit: what is drawn are the results' own numbers, in both renderers."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb
from workbench.figures import FigureSpec, Heat, Line, Points, Rule


@cache
def network() -> nn.Sequential:
    """A rank of 3 behind its first layer, and a dead unit."""
    draws = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 2)
    )
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=draws))
        net[0].bias[0] = -100.0
    return net


@cache
def data() -> list[torch.Tensor]:
    return [torch.randn(50, 3, generator=torch.Generator().manual_seed(1))]


@cache
def audit() -> wb.Degeneracy:
    return wb.degeneracy(network(), data())


@cache
def basis(kind: str = "local") -> wb.InteractionBasis:
    return wb.interaction_basis(network(), data(), kind=kind)


@cache
def moments() -> wb.Activations:
    return wb.activations(network(), data())


def figures() -> list[FigureSpec]:
    return [
        wb.figure(moments()),
        wb.figure(moments(), layer="1"),
        wb.figure(audit()),
        wb.figure(audit(), "spectra", layer="1", threshold=1e-3),
        wb.figure(basis()),
        wb.figure(basis(), layer="1", direction=2),
        wb.figure(basis("neuron"), layer="1"),
    ]


def points(spec: FigureSpec, panel: int = 0) -> dict[float, float]:
    """Every drawn point, by x."""
    marks = [mark for mark in spec.panels[panel].marks if isinstance(mark, Points) and mark.role != "accent"]
    return {x: y for mark in marks for x, y in zip(mark.x, mark.y, strict=True)}


def rules(spec: FigureSpec, panel: int = 0) -> dict[str, float]:
    return {mark.label: mark.value for mark in spec.panels[panel].marks if isinstance(mark, Rule)}


@pytest.mark.parametrize("number", range(7))
def test_plotly_and_matplotlib_draw_the_same(number: int) -> None:
    spec = figures()[number]
    screen, paper = spec.to_plotly(), spec.to_matplotlib()
    for place, panel in enumerate(spec.panels):
        axes, suffix = paper.axes[place], str(place + 1) if place else ""
        across, down = screen.layout[f"xaxis{suffix}"], screen.layout[f"yaxis{suffix}"]
        assert across.title.text == panel.x.title == axes.get_xlabel()
        for drawn, own, ours in ((across, axes.get_xlim(), panel.x), (down, axes.get_ylim(), panel.y)):
            shown = [10**end for end in drawn.range] if drawn.type == "log" else drawn.range
            np.testing.assert_allclose(shown, ours.ends, rtol=1e-12)
            np.testing.assert_allclose(own, ours.ends, rtol=1e-12)
    assert screen.layout.title.text == spec.title == paper.get_suptitle()


def test_the_audits_spectra_are_its_eigenvalues_with_both_thresholds() -> None:
    spec, row = wb.figure(audit(), "spectra", layer="1", threshold=1e-3), audit().row("1")
    for panel, values, floor in (
        (0, audit().activation_eigenvalues["1"], row["activation_floor"]),
        (1, audit().gradient_eigenvalues["1"], row["gradient_floor"]),
    ):
        drawn = points(spec, panel)
        assert drawn == {float(n): v for n, v in enumerate(values.tolist(), start=1) if v > 0}
        assert rules(spec, panel)["noise floor"] == floor
        assert rules(spec, panel)["0.001 of the largest"] == pytest.approx(1e-3 * float(values.max()), rel=1e-12)
    above = wb.degeneracy(network(), data(), threshold=1e-3).row("1")
    assert f"{above['activation_rank']:g} above 0.001" in spec.panels[0].title
    assert f"rank {row['gradient_rank']:g} of 6" in spec.panels[1].title


def test_ranks_over_depth_are_the_tables() -> None:
    spec, frame = wb.figure(audit(), "ranks", layer="3"), audit().frame()
    lines = {mark.label: mark for mark in spec.panels[0].marks if isinstance(mark, Points)}
    assert list(lines["r_G of activations"].y) == frame["activation_rank"].tolist()
    assert list(lines["r_M′ of gradients"].y) == frame["gradient_rank"].tolist()
    assert list(lines["width d"].y) == frame["width"].tolist()
    (ring,) = [mark for mark in spec.panels[0].marks if isinstance(mark, Points) and mark.role == "accent"]
    assert (ring.ids, ring.y) == (("3",), (audit().row("3")["activation_rank"],))
    with pytest.raises(wb.LayerNotFoundError, match="no layer '9'"):
        wb.figure(audit(), "ranks", layer="9")


def test_weights_of_a_layer_are_lambda_and_the_predicted_count() -> None:
    spec = wb.figure(basis(), layer="1", direction=2)
    weights = basis().weights("1").tolist()
    assert list(points(spec).values()) == weights
    predicted = basis().predicted_nodes("1")
    ((label, place),) = rules(spec).items()
    assert label.startswith(f"{predicted} nodes predicted") and place == predicted - 0.5
    needed = next(mark for mark in spec.panels[0].marks if isinstance(mark, Points) and mark.role == "first")
    assert len(needed.x) == predicted - 1
    (ring,) = [mark for mark in spec.panels[0].marks if isinstance(mark, Points) and mark.role == "accent"]
    assert (ring.x, ring.y, ring.ids) == ((2.0,), (weights[1],), ("1[2]",))


def test_weights_of_all_layers_are_shares_of_the_largest() -> None:
    spec = wb.figure(basis())
    lines = [mark for mark in spec.panels[0].marks if isinstance(mark, Line)]
    for layer, line in zip(basis().layers, lines, strict=True):
        weights = basis().weights(layer)
        np.testing.assert_allclose(line.y, (weights / weights.max()).tolist(), rtol=1e-12)


def test_many_layers_are_a_heat_map() -> None:
    layers = [part for _ in range(6) for part in (nn.Linear(4, 4), nn.Tanh())]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), *layers)
    many = wb.interaction_basis(net, data())
    (heat,) = wb.figure(many).panels[0].marks
    assert isinstance(heat, Heat) and len(heat.values) == len(many.layers) > 5
    weights = many.weights(many.layers[0])
    shares = torch.log10(weights / weights.max()).clamp_min(-8)
    np.testing.assert_allclose(heat.values[0][: len(shares)], shares.tolist(), atol=1e-12)


def test_units_without_a_weight_are_told_and_not_drawn() -> None:
    spec, weights = wb.figure(basis("neuron"), layer="1"), basis("neuron").weights("1")
    assert int((weights == 0).sum()) == 1 and spec.panels[0].title == "not drawn: 1 with Λ = 0"
    assert len(points(spec)) == 5


def test_activations_have_a_spectrum_or_ranks_over_depth() -> None:
    spec, row = wb.figure(moments(), "spectrum", layer="1"), moments().row("1")
    values = moments().eigenvalues["1"].tolist()
    assert points(spec) == {float(n): value for n, value in enumerate(values, start=1) if value > 0}
    assert rules(spec) == {"noise floor": row["noise_floor"]}
    over = {mark.label: mark for mark in wb.figure(moments()).panels[0].marks if isinstance(mark, Points)}
    assert list(over["rank"].y) == moments().frame()["rank"].tolist()


def test_options_are_checked() -> None:
    with pytest.raises(wb.FigureError, match="threshold= does not go with the figure 'ranks': it takes no options"):
        wb.figure(audit(), "ranks", threshold=0.1)
    with pytest.raises(wb.FigureError, match="nodes= does not go with the figure 'weights': it takes direction="):
        wb.figure(basis(), "weights", nodes=3)
    for wrong in (0, 2.0, True):
        with pytest.raises(wb.ArgumentError, match="expected a share of the largest eigenvalue"):
            wb.figure(audit(), "spectra", layer="1", threshold=wrong)
    for direction in (0, 99):
        with pytest.raises(wb.ArgumentError, match="expected 1 to"):
            wb.figure(basis(), layer="1", direction=direction)
    with pytest.raises(wb.ArgumentError, match="is of one layer: say which"):
        wb.figure(basis(), direction=1)
    with pytest.raises(wb.FigureError, match="shows one layer: say which"):
        wb.figure(audit(), "spectra")
    with pytest.raises(wb.LayerNotFoundError):
        wb.figure(basis(), layer="none")


def test_a_constant_layer_has_a_reason_in_place_of_a_figure() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.zero_()
        net[2].weight.fill_(1.0)
    found = wb.activations(net, [torch.randn(5, 2, generator=torch.Generator().manual_seed(0))])
    assert "rank 0 of 2" in wb.figure(found, layer="1").panels[0].title

"""The figure of an Ablation shows its table, the network's own numbers, what is needed and what Λ predicts."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import workbench as wb
from workbench.degeneracy.ablation import Ablation
from workbench.figures import Line, Points, Rule
from workbench.figures.ablation import curve


def made(total: int = 20, unit: str = "nodes", metric: str = "accuracy", predicted: int | None = 5) -> Ablation:
    """An ablation by hand: loss 2/(1 + kept), accuracy right from 4 on, NaN with one."""
    kept = sorted({0, 1, 2, 3, 4, 5, 10, total})
    loss = [math.nan if k == 1 else 2 / (1 + k) for k in kept]
    accuracy = [0.9 if k > 3 else 0.1 * k for k in kept]
    parameters = {"layer": "fc1", "metric": metric, "tolerance": 0.001}
    mask = torch.zeros(total, dtype=torch.bool)
    reason = ["the loss is nan" if value != value else "" for value in loss]
    return Ablation(
        tables={
            "points": {"kept": kept, "loss": loss, "accuracy": accuracy, "reason": reason},
            "metrics": {"kept": [], "metric": [], "value": []},
        },
        meta={
            "function": "wb.ablation",
            "source": "Net in memory",
            "fingerprint": "f",
            "versions": {"workbench": "0"},
            "parameters": parameters,
            "layer": "fc1",
            "unit": unit,
            "total": total,
            "predicted": predicted,
            "unablated": {"loss": 2 / (1 + total), "accuracy": 0.9},
        },
        mask=mask,
    )


def marks(spec: wb.FigureSpec, panel: int, kind: type) -> list[Any]:
    return [mark for mark in spec.panels[panel].marks if isinstance(mark, kind)]


def test_both_curves_and_what_is_needed() -> None:
    found = made()
    spec = curve(found, None)
    assert [panel.y.label for panel in spec.panels] == ["loss", "accuracy"]
    assert spec.title == "4 of 20 nodes of fc1 needed" and spec.kind == "ablation"
    loss, accuracy = (marks(spec, panel, Line)[0] for panel in (0, 1))
    assert loss.x == (0, 2, 3, 4, 5, 10, 20) and loss.y == tuple(2 / (1 + k) for k in loss.x)  # NaN is no point
    assert accuracy.x == (0, 1, 2, 3, 4, 5, 10, 20)
    for panel, own in ((0, 2 / 21), (1, 0.9)):
        rules = {rule.axis: rule for rule in marks(spec, panel, Rule)}
        assert rules["y"].value == own and rules["y"].label == "unablated"
        assert rules["x"].value == 5.0 and rules["x"].label == "5 predicted by Λ"
    ringed = [mark for mark in marks(spec, 1, Points) if mark.role == "accent"]
    assert [(mark.x, mark.y) for mark in ringed] == [((4.0,), (0.9,))]
    assert not [mark for mark in marks(spec, 0, Points) if mark.role == "accent"]
    assert marks(spec, 1, Points)[0].ids[4] == "4 nodes" and spec.panels[0].title == ""


def test_many_edges_are_on_a_logarithmic_axis_and_none_of_them_in_words() -> None:
    spec = curve(made(total=1000, unit="edges", predicted=None), None)
    assert all(panel.x.scale == "log" and panel.x.limits[0] > 0 for panel in spec.panels)
    assert marks(spec, 1, Line)[0].x == (1, 2, 3, 4, 5, 10, 1000)
    assert spec.panels[0].title == "loss 2 with none" and spec.panels[1].title == "accuracy 0 with none"
    assert spec.panels[0].x.label == "edges kept"
    assert not [rule for rule in marks(spec, 0, Rule) if rule.axis == "x"]


def test_none_is_enough_and_the_axis_has_no_place_for_it() -> None:
    found = made(total=1000, unit="edges", predicted=None)
    table = {**found.tables["points"], "accuracy": [0.9] * len(found.tables["points"]["kept"])}
    flat = Ablation(tables={**found.tables, "points": table}, meta=found.meta, mask=found.mask)
    assert flat.needed == 0
    loss, accuracy = curve(flat, None).panels
    assert (loss.title, accuracy.title) == ("loss 2 with none", "accuracy 0.9 with none, which is enough")
    both = curve({"rib": found, "flat": flat}, None).panels[1]
    assert both.title == "rib: accuracy 0 with none; flat: accuracy 0.9 with none, which is enough"
    few = {name: cells[:1] for name, cells in table.items()}
    only = curve(Ablation(tables={**found.tables, "points": few}, meta=found.meta, mask=found.mask), None)
    assert only.panels[1].x.scale == "linear" and marks(only, 1, Line)[0].x == (0,) and only.panels[1].title == ""
    ringed = [mark.x for mark in marks(only, 1, Points) if mark.role == "accent"]
    assert ringed == [(float(only.panels[1].marks[1].x[0]),)]


@pytest.mark.parametrize("total", [20, 1000])
def test_a_legend_tells_each_look_once(total: int) -> None:
    spec = curve(made(total=total), None)
    (legend,) = spec.to_matplotlib().legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert sorted(labels) == ["4 needed", "5 predicted by Λ", "ablated", "unablated"]
    assert sorted({trace.name for trace in spec.to_plotly().data if trace.showlegend}) == sorted(labels)


@pytest.mark.parametrize("value", [0.0, 0.98, 0.5, 1.0])
def test_a_constant_accuracy_has_an_axis_of_accuracies(value: float) -> None:
    found = made()
    table = {**found.tables["points"], "accuracy": [value] * 4 + [value + 1e-16] * 4}
    meta = {**found.meta, "unablated": {"loss": 2 / 21, "accuracy": value}}
    y = curve(Ablation(tables={**found.tables, "points": table}, meta=meta, mask=found.mask), None).panels[1].y
    low, high = y.limits
    assert -0.01 < low < value < high < 1.01 and 0.015 < high - low < 0.05


def test_a_loss_that_differs_by_rounding_is_drawn_as_a_constant() -> None:
    found = made()
    table = {**found.tables["points"], "loss": [2.3 + 1e-6 * n for n in range(8)]}
    meta = {**found.meta, "unablated": {"loss": 2.3, "accuracy": 0.9}}
    y = curve(Ablation(tables={**found.tables, "points": table}, meta=meta, mask=found.mask), None).panels[0].y
    assert y.limits[0] < 2.3 < y.limits[1] and 2e-3 < y.limits[1] - y.limits[0] < 5e-3


def test_several_by_label() -> None:
    spec = curve({"local": made(), "PCA": made(total=30)}, None)
    assert [line.label for line in marks(spec, 1, Line)] == ["local: 4 needed", "PCA: 4 needed"]
    assert [line.role for line in marks(spec, 1, Line)] == ["first", "second"]
    assert [rule.value for rule in marks(spec, 1, Rule)] == [0.9] and spec.title == "Nodes of fc1 that are kept"
    assert [rule.label for rule in marks(spec, 0, Rule)] == ["unablated", ""]  # two networks of two losses


def test_both_renderers_and_files(tmp_path: Path) -> None:
    spec = curve(made(total=1000), None)
    assert len(spec.to_plotly().data) >= 4 and len(spec.to_matplotlib().axes) == 2
    assert spec.save(tmp_path / "ablation.pdf").stat().st_size > 1000
    assert "4 nodes" in spec.csv()


def test_refusals() -> None:
    with pytest.raises(wb.FigureError, match="layer='fc1': the figure 'ablation'"):
        curve(made(), "fc1")
    with pytest.raises(wb.FigureError, match="6 ablations in one figure: it shows 5"):
        curve({str(number): made() for number in range(6)}, None)
    with pytest.raises(wb.FigureError, match="nodes and edges in one figure"):
        curve({"a": made(), "b": made(unit="edges")}, None)
    found = made()
    points = {name: [] for name in found.tables["points"]}
    empty = Ablation(tables=dict(found.tables) | {"points": points}, meta=found.meta, mask=found.mask)
    with pytest.raises(wb.FigureError, match="no loss of this ablation"):
        curve(empty, None)


def test_a_real_one_without_accuracy() -> None:
    from workbench.degeneracy.ablation import ablation
    from workbench.degeneracy.interaction_basis import interaction_basis

    net = nn.Sequential(nn.Identity(), nn.Linear(3, 2))
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    error = wb.evaluator(net, [(x, net(x).detach())], "mse", device="cpu")
    found = ablation(error, interaction_basis(net, [x], "0", device="cpu"), "0")
    spec = curve(found, None)
    assert [panel.y.label for panel in spec.panels] == ["loss"]
    assert marks(spec, 0, Line)[0].y == found.tables["points"]["loss"]
    assert [mark.x for mark in marks(spec, 0, Points) if mark.role == "accent"] == [(float(found.needed),)]

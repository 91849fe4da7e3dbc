"""Figures of groups and matchings: what is drawn are the tables' numbers, in both renderers."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb
from workbench.figures import Heat, Points
from workbench.figures.spec import named_ticks


class Attention(nn.Module):
    """Two heads with a residual stream, and a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.last = nn.Linear(8, 2)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """Two classes a step."""
        x = self.first(steps)
        q, k, v = (part(x).unflatten(-1, (2, 4)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.last(x + self.o(mixed))


def network(seed: int) -> Attention:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Attention()


@cache
def groups() -> wb.PermutationGroups:
    return wb.permutation_groups(network(0), torch.randn(2, 5, 3))


@cache
def matching(**more: Any) -> wb.Matching:
    return wb.match(groups(), network(0), network(1), restarts=1, gammas=(0.0, 0.5))


def points(figure: wb.FigureSpec, panel: int = 0) -> list[Points]:
    return [mark for mark in figure.panels[panel].marks if isinstance(mark, Points)]


def test_the_graph_has_a_point_for_every_group_of_every_parameter() -> None:
    figure = wb.figure(groups())
    rows = groups().frame()
    drawn = {(y, name) for mark in points(figure) for y, name in zip(mark.y, mark.ids, strict=True)}
    expected = set()
    for row, axes in enumerate(rows["axes"]):
        names = {axis.partition("[")[0] for axis in axes.split(", ")}
        expected |= {(float(row), name.removesuffix(".weight")) for name in names if name.endswith(".weight")}
    kept = {(float(len(rows)), name) for name in ("first", "last")}  # the input's and the output's axis
    assert drawn == expected | kept
    labels = dict(figure.panels[0].y.ticks)
    assert [labels[float(row)] for row in range(len(rows))] == [
        f"{name} · {size}" for name, size in zip(rows["group"], rows["size"], strict=True)
    ]


def test_a_line_joins_the_groups_that_one_parameter_has() -> None:
    figure = wb.figure(groups())
    joints = next(mark for mark in figure.panels[0].marks if getattr(mark, "role", "") == "muted")
    assert "o" in {name for mark in points(figure) for name in mark.ids}
    assert sum(map(math.isnan, joints.x)) == len(joints.x) // 3  # pairs of ends, apart by a NaN


def test_objective_and_distance_are_the_sweeps() -> None:
    figure = wb.figure(matching(), "objective")
    table = matching().frame("sweeps")
    for panel, column in enumerate(("objective", "distance")):
        for start, mark in enumerate(points(figure, panel)):
            rows = table[table["start"] == start]
            assert list(mark.y) == rows[column].tolist() and list(mark.x) == rows["sweep"].tolist()
        assert len(points(figure, panel)) == 2


def test_reduction_is_the_table_of_layers_by_their_ids() -> None:
    figure = wb.figure(matching(), "reduction", layer="q")
    table = matching().frame("layers").set_index("layer")["reduction"]
    marks = [mark for mark in points(figure) if mark.role != "accent"]
    drawn = {name: y for mark in marks for name, y in zip(mark.ids, mark.y, strict=True)}
    assert drawn == table.to_dict()
    (ring,) = (mark for mark in points(figure) if mark.role == "accent")
    assert ring.ids == ("q",) and ring.y == (table["q"],)


def test_alignment_is_overlap_by_count() -> None:
    figure = wb.figure(matching())
    assert figure.kind == "objective"
    figure = wb.figure(matching(), "alignment")
    table = matching().frame("alignment")
    layers = table["layer"].drop_duplicates().tolist()
    for panel, column in enumerate(("overlap_before", "overlap_after")):
        (heat,) = (mark for mark in figure.panels[panel].marks if isinstance(mark, Heat))
        shares = (table[column] / table["vectors"]).to_numpy().reshape(len(layers), 2)
        assert np.allclose(heat.values, shares, rtol=1e-12)
        assert [name for _, name in figure.panels[panel].y.ticks] == layers


def test_both_renderers_show_the_same_names_and_one_bar_of_colours() -> None:
    figure = wb.figure(matching(), "alignment")
    plotly, paper = figure.to_plotly(), figure.to_matplotlib()
    named = [name for _, name in figure.panels[0].y.ticks]
    assert list(plotly.layout.yaxis.ticktext) == named
    assert [label.get_text() for label in paper.axes[0].get_yticklabels()] == named
    assert [trace.showscale for trace in plotly.data if trace.type == "heatmap"] == [False, True]
    assert len(paper.axes) == 3  # two panels and one bar


def test_a_label_is_told_once_in_the_legend() -> None:
    figure = wb.figure(matching(), "objective")
    shown = [trace.name for trace in figure.to_plotly().data if trace.showlegend]
    assert len(shown) == len(set(shown)) == 2
    (legend,) = figure.to_matplotlib().legends
    assert [text.get_text() for text in legend.get_texts()] == shown


def test_what_cannot_be_drawn_says_what_to_do() -> None:
    fixed = wb.permutation_groups(nn.Linear(3, 2), torch.randn(1, 3))
    with pytest.raises(wb.FigureError, match="no free group"):
        wb.figure(fixed)
    plain = wb.match(groups(), network(0), network(1), gammas=())
    with pytest.raises(wb.FigureError, match=r"gammas=\(0, 0.3\)"):
        wb.figure(plain, "alignment")
    with pytest.raises(wb.FigureError, match="A = B"):
        wb.figure(wb.match(groups(), network(0), network(0), gammas=()), "reduction")
    with pytest.raises(wb.LayerNotFoundError, match="Did you mean"):
        wb.figure(matching(), "reduction", layer="firts")


@pytest.mark.parametrize(("count", "step"), [(1, 1), (14, 1), (15, 2), (28, 2), (29, 5), (71, 10), (1500, 200)])
def test_many_names_are_thinned_evenly(count: int, step: int) -> None:
    ticks = named_ticks([str(number) for number in range(count)])
    assert [place for place, _ in ticks] == list(range(0, count, step)) and len(ticks) <= 14


def test_a_long_name_keeps_its_end() -> None:
    ((_, name),) = named_ticks(["model.layers.10.self_attn.q_proj"], longest=10)
    assert len(name) == 10 and name.endswith("q_proj") and name.startswith("…")

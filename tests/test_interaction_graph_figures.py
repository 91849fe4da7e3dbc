"""Figures of interaction graphs and modules: what is drawn are the edges and tables, in both renderers."""

import math
from functools import cache

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.degeneracy.modules import InteractionModules, interaction_modules
from workbench.figures import Line, Points
from workbench.figures.interaction_graph import layered_graph, module_graph, module_sizes
from workbench.figures.spec import Bars, Rule
from workbench.results import versions

LAYERS = ("fc1", "fc2", "output")


def graph_of(edges: dict[str, torch.Tensor], layers: tuple[str, ...] = LAYERS) -> InteractionGraph:
    nodes = [*(edges[source].shape[1] for source in layers[:-1]), edges[layers[-2]].shape[0]]
    segments = [
        {
            "source": source,
            "target": target,
            "source_nodes": edges[source].shape[1],
            "target_nodes": edges[source].shape[0],
            "edges": int((edges[source][1:, 1:] != 0).sum()),
            "total": 0.0,
            "constant": 0.0,
            "error": 0.0,
        }
        for source, target in zip(layers, layers[1:], strict=False)
    ]
    rows = {"layer": layers, "depth": range(len(layers)), "nodes": nodes, "predicted_nodes": nodes}
    meta = {"source": "made", "function": "wb.interaction_graph", "parameters": {"edges": "functional"}}
    return InteractionGraph(
        tables={"segments": InteractionGraph.columns("segments", segments), "layers": rows},
        meta=meta | {"versions": versions()},
        edges=edges,
    )


@cache
def graph(sign: float = 1.0) -> InteractionGraph:
    """Two modules, even and odd directions, in layers of 8, 12 and 6 directions."""
    draws = torch.Generator().manual_seed(0)
    edges = {}
    for source, cols, rows in (("fc1", 8, 12), ("fc2", 12, 6)):
        same = (torch.arange(rows)[:, None] + torch.arange(cols)) % 2 == 0
        own = torch.where(same, 1.0, 0.01) * torch.rand(rows, cols, generator=draws, dtype=torch.float64)
        edges[source] = torch.zeros(rows + 1, cols + 1, dtype=torch.float64)
        edges[source][1:, 1:] = torch.where(torch.rand(rows, cols, generator=draws) < 0.5, sign, 1.0) * own
        edges[source][1:, 0] = 9.0
    return graph_of(edges)


@cache
def modules() -> InteractionModules:
    return interaction_modules(graph(), norm="sqrt", nulls=6)


def places(figure: wb.FigureSpec) -> dict[tuple[float, float], str]:
    marks = [mark for mark in figure.panels[0].marks if isinstance(mark, Points)]
    return {(x, y): name for mark in marks for x, y, name in zip(mark.x, mark.y, mark.ids, strict=True)}


def drawn(figure: wb.FigureSpec, role: str | None = None) -> set[tuple[str, str]]:
    """The edges drawn, by the names of their ends."""
    names, found = places(figure), set()
    for mark in figure.panels[0].marks:
        if isinstance(mark, Line) and role in (None, mark.role):
            points = list(zip(mark.x, mark.y, strict=True))
            found |= {(names[points[at]], names[points[at + 1]]) for at in range(0, len(points), 3)}
            assert all(math.isnan(points[at][0]) for at in range(2, len(points), 3))
    return found


def strongest(found: InteractionGraph, source: str, target: str, count: int) -> set[tuple[str, str]]:
    sizes = found.edges[source][1:, 1:].abs().numpy()
    order = np.argsort(-sizes, axis=None, kind="stable")[:count]
    return {(f"{source}[{place % sizes.shape[1] + 1}]", f"{target}[{place // sizes.shape[1] + 1}]") for place in order}


def test_every_direction_is_a_point_in_its_order_and_constants_stand_apart() -> None:
    names = {name: place for place, name in places(layered_graph(graph(), None)).items()}
    assert len(names) == 9 + 13 + 7
    for column, (layer, size) in enumerate(zip(LAYERS, (8, 12, 6), strict=True)):
        downs = [names[f"{layer}[{direction}]"] for direction in range(1, size + 1)]
        assert [x for x, _ in downs] == [column] * size
        np.testing.assert_allclose([y for _, y in downs], np.linspace(0, 1, size), atol=1e-15)
        assert names[f"{layer}[0]"] == (column, 1.12)


def test_the_strongest_edges_are_drawn_as_many_as_are_asked_for() -> None:
    figure = layered_graph(graph(), None, edges=20)
    expected = strongest(graph(), "fc1", "fc2", 10) | strongest(graph(), "fc2", "output", 10)
    assert drawn(figure) == expected
    assert figure.panels[0].title.startswith("20 of 168 edges drawn: ")
    figure = layered_graph(graph(), None, edges={"fc1": 3, "fc2": 5})
    assert drawn(figure) == strongest(graph(), "fc1", "fc2", 3) | strongest(graph(), "fc2", "output", 5)


def test_by_default_edges_end_where_they_carry_most_of_the_sum() -> None:
    figure = layered_graph(graph(), None)
    for source, target in zip(LAYERS, LAYERS[1:], strict=False):
        sizes = np.sort(graph().edges[source][1:, 1:].abs().numpy(), axis=None)[::-1]
        count = sum(1 for edge in drawn(figure) if edge[0].startswith(source))
        assert sizes[:count].sum() >= 0.95 * sizes.sum() > sizes[: count - 1].sum()
        half = [edge for edge in drawn(figure, "first") if edge[0].startswith(source)]
        assert sizes[: len(half)].sum() >= 0.5 * sizes.sum() > sizes[: len(half) - 1].sum()
        assert set(half) == strongest(graph(), source, target, len(half))


def test_negative_edges_have_a_look_of_their_own() -> None:
    both = graph(-1.0)
    figure = layered_graph(both, None)
    for role, sign in (("first", 1), ("second", -1)):
        found = drawn(figure, role)
        assert found
        for source, target in found:
            layer, col = source.rstrip("]").split("[")
            row = target.rstrip("]").split("[")[1]
            assert sign * float(both.edges[layer][int(row), int(col)]) > 0
    labels = {mark.role: mark.label for mark in figure.panels[0].marks if isinstance(mark, Line)}
    assert labels == {"muted": "weaker edges", "first": "strongest: half of Σ|E|, positive", "second": "negative"}


def test_modules_colour_their_nodes_and_the_edges_between_them() -> None:
    for figure in (layered_graph(graph(), None, modules=modules(), edges=80), module_graph(modules(), None)):
        rows = modules().frame()
        module = {
            f"{layer}[{direction}]": number
            for layer, direction, number in zip(rows["layer"], rows["direction"], rows["module"], strict=True)
        }
        points = [mark for mark in figure.panels[0].marks if isinstance(mark, Points)]
        assert [mark.role for mark in points] == ["first", "second", "muted"]
        for number, mark in enumerate(points[:2]):
            assert set(mark.ids) == {name for name, own in module.items() if own == number}
            assert mark.label == f"{number} ({len(mark.ids)})"
            assert all({module[end] for end in edge} == {number} for edge in drawn(figure, mark.role))
        assert set(points[2].ids) == {f"{layer}[0]" for layer in LAYERS}
        assert all(module[source] != module[target] for source, target in drawn(figure, "muted"))
        assert drawn(figure, "first") and drawn(figure, "second")
        assert figure.title.startswith("2 modules, Q = 0.")


def test_modules_have_the_names_that_they_are_given() -> None:
    called = {1: "odd"}
    for figure in (
        layered_graph(graph(), None, modules=modules(), names=called),
        module_graph(modules(), None, names=called),
    ):
        labels = [mark.label for mark in figure.panels[0].marks if isinstance(mark, Points)]
        assert labels[0].startswith("0 (") and labels[1].startswith("1 odd (")
    assert module_sizes(modules(), None, names=called).panels[0].x.ticks == ((0.0, "0"), (1.0, "1 odd"))
    with pytest.raises(wb.ArgumentError, match="names has 7: expected numbers of the 2 modules"):
        module_graph(modules(), None, names={7: "none"})
    with pytest.raises(wb.ArgumentError, match="names has 0: expected numbers of the 0 modules"):
        layered_graph(graph(), None, names={0: "even"})


def test_the_graph_of_modules_groups_directions_by_module() -> None:
    names = {name: y for (_, y), name in places(module_graph(modules(), None)).items()}
    rows = modules().frame()
    for layer in LAYERS:
        own = rows[rows["layer"] == layer].sort_values(["module", "direction"])
        downs = [names[f"{layer}[{direction}]"] for direction in own["direction"]]
        assert downs == sorted(downs) and len(set(downs)) == len(downs) and downs[0] == 0 and downs[-1] == 1


def test_a_layer_is_shown_with_its_neighbours() -> None:
    figure = layered_graph(graph(), "fc1")
    assert [name for _, name in figure.panels[0].x.ticks] == ["fc1 · 8", "fc2 · 12"]
    assert figure.title.endswith("about fc1") and all(source.startswith("fc1") for source, _ in drawn(figure))
    assert len(module_graph(modules(), "fc2").panels[0].x.ticks) == 3


def test_a_budget_of_nodes_draws_the_first_and_says_of_how_many() -> None:
    figure = layered_graph(graph(), None, nodes={"fc2": 5})
    assert [name for _, name in figure.panels[0].x.ticks] == ["fc1 · 8", "fc2 · 5 of 12", "output · 6"]
    assert {name for name in places(figure).values() if name.startswith("fc2")} == {f"fc2[{d}]" for d in range(6)}
    assert "last drawn" in dict(figure.panels[0].y.ticks).values()
    figure = layered_graph(graph(), None, nodes=1)
    assert {y for _, y in places(figure)} == {0.0, 1.12}


def test_small_modules_are_told_together() -> None:
    edges = torch.block_diag(torch.zeros(1, 1), *(torch.ones(2, 2) for _ in range(7))).double()
    blocks = graph_of({"a": edges}, ("a", "b"))
    figure = layered_graph(blocks, None, modules=interaction_modules(blocks, norm="id", nulls=0), edges=28)
    labels = [mark.label for mark in figure.panels[0].marks if isinstance(mark, Points)]
    assert labels == [*(f"{number} (4)" for number in range(5)), "", "others"]
    assert len(drawn(figure, "muted")) == 8  # two modules of four edges


def test_sizes_and_q_beside_its_null() -> None:
    figure = module_sizes(modules(), None)
    sizes, null = figure.panels
    heights = [height for mark in sizes.marks if isinstance(mark, Bars) for height in mark.heights]
    assert heights == list(modules().tables["modules"]["size"])
    (bars,) = (mark for mark in null.marks if isinstance(mark, Bars))
    (rule,) = (mark for mark in null.marks if isinstance(mark, Rule))
    values = modules().tables["partitions"]["modularity"]
    assert rule.value == values[0] == modules().modularity and sum(bars.heights) == 6
    assert bars.edges[0] == pytest.approx(min(values[1:])) and bars.edges[-1] == pytest.approx(max(values[1:]))
    assert null.x.limits[0] < min(values) and null.x.limits[1] > max(values)


def test_without_null_graphs_only_sizes_are_drawn_and_equal_ones_have_a_width() -> None:
    assert len(module_sizes(interaction_modules(graph(), nulls=0), None).panels) == 1
    flat = torch.zeros(4, 4, dtype=torch.float64)
    flat[1:, 1:] = 1
    figure = module_sizes(interaction_modules(graph_of({"a": flat}, ("a", "b")), norm="id", nulls=3), None)
    (bars,) = (mark for mark in figure.panels[1].marks if isinstance(mark, Bars))
    assert sum(bars.heights) == 3 and bars.edges[-1] > bars.edges[0]


def test_both_renderers_show_the_same_points_and_lines() -> None:
    for figure in (layered_graph(graph(), None), module_graph(modules(), None)):
        panel = figure.panels[0]
        traces, axes = figure.to_plotly().data, figure.to_matplotlib().axes[0]
        shown = axes.lines
        marks = [mark for mark in panel.marks if isinstance(mark, Line | Points)]
        assert len(traces) == len(marks) == len(shown)
        for mark, trace, line in zip(marks, traces, shown, strict=True):
            np.testing.assert_array_equal(np.array(trace.y, dtype=float), np.array(mark.y))
            np.testing.assert_array_equal(np.array(line.get_ydata(), dtype=float), np.array(mark.y))
        assert list(figure.to_plotly().layout.yaxis.ticktext) == [label.get_text() for label in axes.get_yticklabels()]


def test_what_cannot_be_drawn_says_what_to_do() -> None:
    with pytest.raises(wb.LayerNotFoundError, match="no layer 'fc'.*Did you mean"):
        layered_graph(graph(), "fc")
    with pytest.raises(wb.ArgumentError, match="edges=0: expected a whole number from 1 on"):
        layered_graph(graph(), None, edges=0)
    with pytest.raises(wb.ArgumentError, match="nodes=True: expected a whole number"):
        layered_graph(graph(), None, nodes=True)
    empty = graph_of({"a": torch.zeros(3, 3, dtype=torch.float64)}, ("a", "b"))
    with pytest.raises(wb.FigureError, match="no edge is other than zero"):
        layered_graph(empty, None)
    with pytest.raises(wb.ArgumentError, match="modules are of another graph"):
        layered_graph(empty, None, modules=modules())
    found = interaction_modules(empty, nulls=0)
    with pytest.raises(wb.FigureError, match="no edge is other than zero"):
        module_graph(found, None)
    with pytest.raises(wb.FigureError, match="there are no modules"):
        module_sizes(found, None)

    def cancel(_: wb.Progress) -> None:
        raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stop:
        interaction_modules(graph(), progress=cancel)
    with pytest.raises(wb.FigureError, match="cancelled before the first"):
        module_graph(stop.value.partial, None)
    with pytest.raises(wb.FigureError, match="leave it out"):
        module_sizes(modules(), "fc1")

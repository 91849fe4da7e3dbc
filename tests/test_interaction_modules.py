"""Modules of interaction graphs against hand calculations, two other libraries' modularity, and laws."""

import functools
import math
import subprocess
import sys
from typing import Any

import graspologic_native
import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.degeneracy.interaction_basis import interaction_basis
from workbench.degeneracy.interaction_graph import InteractionGraph, interaction_graph
from workbench.degeneracy.leiden import communities, modularity
from workbench.degeneracy.modules import InteractionModules, interaction_modules
from workbench.progress import Progress
from workbench.results import versions


def graph_of(*inner: Tensor, **meta: Any) -> InteractionGraph:
    """A graph with these edges between directions, and constants without edges."""
    edges = [torch.block_diag(torch.zeros(1, 1, dtype=torch.float64), one.double()) for one in inner]
    layers = [f"l{number}" for number in range(len(edges) + 1)]
    nodes = [edges[0].shape[1], *(one.shape[0] for one in edges)]
    segments = [
        {
            "source": layers[place],
            "target": layers[place + 1],
            "source_nodes": nodes[place],
            "target_nodes": nodes[place + 1],
            "edges": int((one != 0).sum()),
            "total": 0.0,
            "constant": 0.0,
            "error": 0.0,
        }
        for place, one in enumerate(edges)
    ]
    rows = {"layer": layers, "depth": range(len(layers)), "nodes": nodes, "predicted_nodes": nodes}
    return InteractionGraph(
        tables={"segments": InteractionGraph.columns("segments", segments), "layers": rows},
        meta={
            "source": "made by hand",
            "function": "wb.interaction_graph",
            "parameters": {"edges": "squared"},
            "versions": versions(),
            **meta,
        },
        edges=dict(zip(layers, edges, strict=False)),
    )


def planted(seed: int = 0, *, noise: float = 0.02, sizes: tuple[int, ...] = (12, 15, 9)) -> InteractionGraph:
    """Three modules: direction d is of module d mod 3."""
    draws = torch.Generator().manual_seed(seed)
    blocks = [torch.arange(size) % 3 for size in sizes]
    return graph_of(
        *(
            torch.where(two[:, None] == one, 1.0, noise) * torch.rand(len(two), len(one), generator=draws).add(0.1)
            for one, two in zip(blocks, blocks[1:], strict=False)
        )
    )


def symmetric(size: int, seed: int, share: float = 0.3) -> np.ndarray:
    draws = np.random.default_rng(seed)
    half = np.triu(draws.exponential(size=(size, size)) * (draws.random((size, size)) < share), 1)
    return half + half.T


def sets(found: InteractionModules) -> set[frozenset[tuple[str, int]]]:
    rows = found.frame()
    return {
        frozenset(zip(own["layer"], own["direction"], strict=True))
        for module, own in rows[rows["module"] >= 0].groupby("module")
    }


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_equal_blocks_are_two_modules_with_q_of_one_half() -> None:
    """Each holds half of the weight and sends none out: Q = 2·(1/2 − (1/2)²)."""
    block = torch.ones(3, 3)
    for norm in ("id", "sqrt", "sum", "max", "log"):
        found = interaction_modules(graph_of(torch.block_diag(block, block)), norm=norm, nulls=3)
        assert found.modularity == pytest.approx(0.5, abs=1e-15)
        assert found.frame("modules").to_dict("list") == {
            "module": [0, 1],
            "size": [6, 6],
            "layers": [2, 2],
            "internal": [1.0, 1.0],
        }
        assert found.null_mean < 0.4 and found.z > 0  # zeros change places too, so that the blocks are gone


def test_unequal_blocks_by_hand() -> None:
    """Weights 4 and 12 of 16: Q = 1 − (1/4)² − (3/4)²; the larger one, in nodes, is module 0."""
    found = interaction_modules(graph_of(torch.block_diag(torch.ones(2, 2), torch.ones(4, 3))), norm="id", nulls=0)
    assert found.modularity == pytest.approx(1 - 1 / 16 - 9 / 16, abs=1e-15)
    assert found.tables["modules"]["size"] == (7, 4)
    assert math.isnan(found.null_mean) and math.isnan(found.null_sd) and math.isnan(found.z)


@pytest.mark.parametrize("size", [5, 8, 13])
def test_a_complete_uniform_graph_is_one_module_of_q_0(size: int) -> None:
    """Every null graph is the graph itself, so there is no spread and no z."""
    found = interaction_modules(graph_of(torch.ones(size, size)), norm="id", nulls=3)
    assert found.modularity == pytest.approx(0, abs=1e-12) == found.null_mean
    assert found.tables["modules"]["size"] == (2 * size,) and math.isnan(found.z)


def test_noise_has_the_q_of_its_null() -> None:
    found = interaction_modules(graph_of(torch.rand(20, 15, generator=drawn(3))), norm="id", nulls=20)
    assert found.modularity > 0.05 and abs(found.z) < 4


def test_karate_club_reaches_its_known_optimum() -> None:
    """0.4198 is the proven maximum of the unweighted graph (Brandes et al. 2008)."""
    karate = nx.karate_club_graph()
    weights = nx.to_numpy_array(karate, weight=None)
    labels = communities(weights, resolution=1.0, generator=drawn())
    assert modularity(weights, labels) == pytest.approx(0.4197896, abs=1e-7)


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
def test_q_is_that_of_two_libraries(resolution: float) -> None:
    weights = symmetric(30, 1)
    labels = communities(weights, resolution=resolution, generator=drawn())
    q = modularity(weights, labels, resolution)
    groups = [set(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)]
    edges = [(str(i), str(j), float(weights[i, j])) for i, j in np.argwhere(np.triu(weights))]
    names = {str(node): int(label) for node, label in enumerate(labels)}
    assert q == pytest.approx(graspologic_native.modularity(edges, names, resolution), abs=1e-12)
    assert q == pytest.approx(
        nx.community.modularity(nx.from_numpy_array(weights), groups, resolution=resolution), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_single_move_raises_q_and_communities_are_connected(seed: int) -> None:
    weights = symmetric(24, seed)
    labels = communities(weights, resolution=1.0, generator=drawn(seed))
    q, count = modularity(weights, labels), labels.max() + 1
    for node in range(len(weights)):
        for label in range(count + 1):
            moved = labels.copy()
            moved[node] = label
            assert modularity(weights, moved) <= q + 1e-11
    graph = nx.from_numpy_array(weights)
    assert all(nx.is_connected(graph.subgraph(np.flatnonzero(labels == label))) for label in range(count))


@pytest.mark.parametrize("seed", range(3))
def test_no_worse_than_another_librarys_louvain(seed: int) -> None:
    weights = symmetric(60, seed, 0.15)
    graph = nx.from_numpy_array(weights)
    peer = max(
        nx.community.modularity(graph, nx.community.louvain_communities(graph, seed=start)) for start in range(3)
    )
    assert modularity(weights, communities(weights, resolution=1.0, generator=drawn())) >= peer - 0.01


def test_equal_weights_end() -> None:
    """Near-ties, where rounding may move a node to and fro (scikit-network's Leiden did not end on such)."""
    draws = np.random.default_rng(0)
    for _ in range(20):
        half = np.triu(draws.choice([0, 0.0591344, 0.07031047, 0.23956523], size=(40, 40)), 1)
        communities(half + half.T, resolution=1.0, generator=drawn())


def test_planted_modules_are_found_under_every_norm() -> None:
    expected = {frozenset((layer, d) for layer, d in keys) for keys in _planted_keys()}
    for norm in ("id", "sqrt", "sum", "max", "log"):
        found = interaction_modules(planted(), norm=norm, nulls=5)
        assert sets(found) == expected, norm
        assert found.z > 5


def _planted_keys() -> list[list[tuple[str, int]]]:
    sizes = {"l0": 12, "l1": 15, "l2": 9}
    return [
        [(layer, d + 1) for layer, size in sizes.items() for d in range(size) if d % 3 == module] for module in range(3)
    ]


def test_the_order_of_directions_changes_no_bit() -> None:
    graph = planted(noise=0.4)
    orders = [torch.randperm(size, generator=drawn(size)) for size in (12, 15, 9)]
    inner = [graph.edges[f"l{place}"][1:, 1:] for place in (0, 1)]
    shuffled = graph_of(*(one[orders[place + 1]][:, orders[place]] for place, one in enumerate(inner)))
    found, other = (interaction_modules(one, nulls=4) for one in (graph, shuffled))
    names = {
        (f"l{place}", new + 1): (f"l{place}", int(old) + 1)
        for place, order in enumerate(orders)
        for new, old in enumerate(order)
    }
    assert sets(found) == {frozenset(names[key] for key in own) for own in sets(other)}
    assert found.tables["partitions"] == other.tables["partitions"]


@pytest.mark.parametrize("norm", ["id", "sum", "max", "log"])
def test_the_scale_of_edges_makes_no_difference(norm: Any) -> None:
    graph = planted(noise=0.3)
    scaled = graph_of(*(7e-5 * edges[1:, 1:] for edges in graph.edges.values()))
    found, other = (interaction_modules(one, norm=norm, nulls=2) for one in (graph, scaled))
    assert sets(found) == sets(other)
    assert found.modularity == pytest.approx(other.modularity, abs=1e-9)


def test_two_networks_side_by_side_are_two_modules() -> None:
    """On all pairs of their inputs, so that nothing of one correlates with the other, in a scrambled hidden layer."""
    draws = drawn(0)
    normal = functools.partial(torch.randn, generator=draws, dtype=torch.float64)
    scramble = normal(12, 12)
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 6)]
    net = nn.Sequential(*layers).double()
    for linear in (net[0], net[2], net[3], net[5]):
        rows, cols = linear.weight.shape
        linear.weight.data = torch.block_diag(*(normal(rows // 2, cols // 2) / 2 for _ in range(2)))
        linear.bias.data = normal(rows) / 2
    net[2].weight.data, net[2].bias.data = scramble @ net[2].weight.data, scramble @ net[2].bias.data
    net[3].weight.data = net[3].weight.data @ scramble.inverse()
    one, two = normal(24, 4), normal(24, 4)
    data = [torch.cat([one.repeat_interleave(24, 0), two.repeat(24, 1)], 1)]
    graph = interaction_graph(net, data, interaction_basis(net, data))
    halves = interaction_modules(graph, nulls=0, resolution=0.1)  # so small that only what has no edge between is apart
    assert halves.tables["modules"]["internal"] == (1.0, 1.0)
    assert halves.tables["modules"]["layers"] == (len(set(halves.tables["nodes"]["layer"])),) * 2
    found = interaction_modules(graph, nulls=5)
    assert found.z > 3 and found.modularity >= 0.49
    assert all(any(own <= half for half in sets(halves)) for own in sets(found))


def test_norms_by_hand() -> None:
    edges = torch.tensor([[1.0, 100.0], [0.0, 0.01]], dtype=torch.float64)
    expected = {
        "id": [[1, 100], [0, 0.01]],
        "sqrt": [[1, 10], [0, 0.1]],
        "sum": [[1 / 101.01, 100 / 101.01], [0, 0.01 / 101.01]],
        "max": [[0.01, 1], [0, 0.0001]],
        "log": [[4, 6], [0, 2]],  # ε = 1e-6·100
    }
    for norm, weights in expected.items():
        found = interaction_modules(graph_of(edges), norm=norm, nulls=0)
        np.testing.assert_allclose(found.weights["l0"][1:, 1:], weights, rtol=1e-12)
    found = interaction_modules(graph_of(edges), epsilon=0.1, nulls=0)
    np.testing.assert_allclose(found.weights["l0"][1:, 1:], [[1, 3], [0, 0]], rtol=1e-12)
    assert found.tables["segments"]["edges"] == (2,) and found.tables["segments"]["epsilon"] == (0.1,)


def test_epsilon_of_each_segment() -> None:
    graph = graph_of(torch.full((2, 2), 10.0), torch.full((2, 2), 10.0))
    found = interaction_modules(graph, epsilon={"l0": 1.0, "l1": 0.1}, nulls=0)
    assert float(found.weights["l0"][1, 1]) == 1 and float(found.weights["l1"][1, 1]) == pytest.approx(2, abs=1e-12)


def test_strength_and_internal_share_are_sums_of_weights() -> None:
    found = interaction_modules(planted(noise=0.3), norm="id", nulls=0)
    rows = found.frame()
    strength = {
        "l0": found.weights["l0"].sum(0),
        "l1": found.weights["l0"].sum(1) + found.weights["l1"].sum(0),
        "l2": found.weights["l1"].sum(1),
    }
    for layer, direction, value in zip(rows["layer"], rows["direction"], rows["strength"], strict=True):
        assert value == pytest.approx(float(strength[layer][direction]), rel=1e-12)
    for module, internal in zip(*(found.tables["modules"][name] for name in ("module", "internal")), strict=True):
        own = {
            key: module_ for *key_, module_ in rows[["layer", "direction", "module"]].values for key in [tuple(key_)]
        }
        inside = sum(
            2 * float(weights[i, j])
            for (source, weights), target in zip(found.weights.items(), ("l1", "l2"), strict=True)
            for i in range(1, weights.shape[0])
            for j in range(1, weights.shape[1])
            if own[source, j] == own[target, i] == module
        )
        assert internal == pytest.approx(inside / rows[rows["module"] == module]["strength"].sum(), rel=1e-12)


def test_null_graphs_have_the_weights_of_every_segment() -> None:
    from workbench.degeneracy.weighted_graph import weighted_graph

    weighted = weighted_graph(planted(), "id", None, constant=False)
    own, null = weighted.adjacency(), weighted.adjacency(drawn())
    places = [[place for place, node in enumerate(weighted.linked) if node.layer == f"l{n}"] for n in range(3)]
    for source, target in zip(places, places[1:], strict=False):
        here, there = own[np.ix_(target, source)], null[np.ix_(target, source)]
        assert not np.array_equal(here, there)
        np.testing.assert_array_equal(np.sort(here, axis=None), np.sort(there, axis=None))
    np.testing.assert_array_equal(null, null.T)
    assert null[np.ix_(places[0], places[2])].sum() == 0


def test_the_constant_takes_part_only_if_asked() -> None:
    graph = planted()
    for edges in graph.edges.values():
        edges[1:, 0] = 5.0
    without, with_it = (interaction_modules(graph, nulls=2, constant=constant) for constant in (False, True))
    assert 0 not in without.tables["nodes"]["direction"] and float(without.weights["l0"][:, 0].sum()) == 0
    rows = with_it.frame().set_index(["layer", "direction"])
    assert rows.loc[("l0", 0), "strength"] > 0
    assert rows.loc[("l2", 0), "module"] == -1  # nothing moves it, and it is the last layer's
    assert len(rows) == len(without.frame()) + 3
    assert with_it.tables["segments"]["pairs"] == (13 * 15, 16 * 9)


def test_a_graph_without_edges_has_isolated_nodes_and_no_q() -> None:
    found = interaction_modules(graph_of(torch.zeros(2, 3)), nulls=2)
    assert set(found.tables["nodes"]["module"]) == {-1} and math.isnan(found.modularity)
    assert found.tables["modules"]["size"] == () and "no edge from l0" in found.meta["notes"][0]
    assert "0 modules, 5 nodes without edges" in found.facts()


def test_an_isolated_node_is_in_no_module() -> None:
    edges = torch.block_diag(torch.ones(2, 2), torch.zeros(1, 1), torch.ones(2, 2))
    found = interaction_modules(graph_of(edges), norm="id", nulls=3)
    rows = found.frame()
    assert rows[rows["module"] == -1][["layer", "direction"]].values.tolist() == [["l0", 3], ["l1", 3]]
    assert found.modularity == pytest.approx(0.5, abs=1e-15)


def test_a_layer_without_edges_parts_the_graph() -> None:
    one, none = torch.ones(2, 2), torch.zeros(2, 2)
    found = interaction_modules(graph_of(one, none, none, one), norm="id", nulls=2)
    assert found.tables["modules"]["layers"] == (2, 2) and found.modularity == pytest.approx(0.5, abs=1e-15)


def test_negative_edges_count_by_their_size_and_are_told() -> None:
    block = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    found = interaction_modules(graph_of(torch.block_diag(block, block)), norm="id", nulls=0)
    assert found.modularity == pytest.approx(0.5, abs=1e-15)
    assert found.meta["notes"] == ["4 edges below 0: the size |E| counts"]


def test_resolution_makes_more_modules() -> None:
    counts = [
        len(interaction_modules(planted(noise=0.4), norm="id", nulls=0, resolution=one).tables["modules"]["size"])
        for one in (0.1, 1.0, 3.0)
    ]
    assert counts[0] == 1 and counts == sorted(counts) and counts[2] > counts[1]


def test_a_seed_gives_the_same_numbers_and_leaves_the_generators_alone() -> None:
    graph = planted(noise=0.5)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, more = (interaction_modules(graph, nulls=count) for count in (3, 3, 5))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert first.tables == again.tables
    assert first.tables["partitions"]["modularity"] == more.tables["partitions"]["modularity"][:4]
    other = interaction_modules(graph, nulls=3, seed=1)
    assert other.tables["partitions"]["modularity"][1:] != first.tables["partitions"]["modularity"][1:]


def test_another_process_finds_the_same() -> None:
    """A library's draws may depend on what the process has drawn before, or on the seed of its hashes."""
    code = (
        "import numpy as np, torch;from workbench.degeneracy.leiden import communities;"
        "r=np.random.default_rng(7);h=np.triu(r.exponential(size=(50,50)),1);"
        "print(communities(h+h.T,resolution=1.0,generator=torch.Generator().manual_seed(0)).tolist())"
    )
    draws = np.random.default_rng(7)
    half = np.triu(draws.exponential(size=(50, 50)), 1)
    found = [communities(half + half.T, resolution=1.0, generator=drawn()).tolist() for _ in range(3)]
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found[0] == found[1] == found[2] == eval(printed)


def test_progress_is_told_and_a_cancel_keeps_what_is_done() -> None:
    told: list[Progress] = []
    whole = interaction_modules(planted(), nulls=2, progress=told.append)
    assert [(one.done, one.total, one.item) for one in told] == [
        (0, 3, "graph"),
        (1, 3, "null graph 1"),
        (2, 3, "null graph 2"),
        (3, 3, ""),
    ]
    for after in (0, 1, 2):

        def stop(progress: Progress, after: int = after) -> None:
            if progress.done == after:
                raise wb.Cancelled

        with pytest.raises(wb.Cancelled) as caught:
            interaction_modules(planted(), nulls=2, progress=stop)
        partial = caught.value.partial
        assert partial.meta["cancelled"] == {"done": after, "total": 3}
        assert partial.tables["partitions"]["modularity"] == whole.tables["partitions"]["modularity"][:after]
        assert partial.tables["nodes"] == (
            whole.tables["nodes"] if after else {name: () for name in whole.tables["nodes"]}
        )
        assert "CANCELLED" in repr(partial)


def test_a_saved_result_reads_back(tmp_path: Any) -> None:
    found = interaction_modules(planted(), epsilon={"l0": 1e-3, "l1": 1e-4}, nulls=2)
    again = wb.open_result(found.save(tmp_path / "modules"))
    assert again.tables == found.tables and again.meta == found.meta
    assert all(torch.equal(again.weights[source], weights) for source, weights in found.weights.items())
    assert isinstance(again, InteractionModules) and again.z == found.z


def test_edges_that_are_not_finite_are_refused() -> None:
    graph = planted()
    graph.edges["l1"][2, 3] = math.nan
    with pytest.raises(wb.ArgumentError, match="1 of 160 edges from 'l1' are not finite"):
        interaction_modules(graph)


def test_edges_stay_as_they_are() -> None:
    graph = planted()
    before = {source: edges.clone() for source, edges in graph.edges.items()}
    found = interaction_modules(graph, norm="id", nulls=0)
    found.weights["l0"].zero_()
    assert all(torch.equal(graph.edges[source], edges) for source, edges in before.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "lgo"}, "norm='lgo': expected 'log'.*Did you mean 'log'"),
        ({"resolution": 0}, "resolution=0: expected a number above 0"),
        ({"resolution": math.inf}, "resolution=inf"),
        ({"constant": 1}, "constant=1: expected True or False"),
        ({"nulls": -1}, "nulls=-1: expected a number of null graphs"),
        ({"nulls": True}, "nulls=True"),
        ({"seed": 0.5}, "seed=0.5: expected an integer"),
        ({"epsilon": -1.0}, "epsilon=-1.0: expected a number above 0"),
        ({"epsilon": {"l0": 1.0}}, r"epsilon=.*for each layer that edges start from, \['l0', 'l1'\]"),
        ({"epsilon": {"l0": 1.0, "l1": 0.0}}, "expected a number above 0 for each layer"),
        ({"epsilon": 1.0, "norm": "id"}, "belongs to norm='log', and norm is 'id'"),
        ({"progress": 3}, "progress=3"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    call: Any = interaction_modules
    call = getattr(call, "__wrapped__", call)  # past beartype, as without it
    with pytest.raises(wb.ArgumentError, match=message):
        call(planted(), **given)


def test_other_objects_and_empty_graphs_are_refused() -> None:
    call: Any = getattr(interaction_modules, "__wrapped__", interaction_modules)
    with pytest.raises(wb.ArgumentError, match="graph is dict: expected wb.interaction_graph"):
        call({})
    whole = planted()
    empty = InteractionGraph(
        tables={
            "segments": {name: [] for name in InteractionGraph.COLUMNS["segments"]},
            "layers": whole.tables["layers"],
        },
        meta=whole.meta,
        edges={},
    )
    with pytest.raises(wb.ArgumentError, match="no segment: it was cancelled before the first"):
        interaction_modules(empty)
    part = InteractionGraph(
        tables=whole.tables, meta=dict(whole.meta) | {"cancelled": {}}, edges={"l0": whole.edges["l0"]}
    )
    found = interaction_modules(part, nulls=0)
    assert set(found.tables["nodes"]["layer"]) == {"l0", "l1"} and "not all of its segments" in found.meta["notes"][0]

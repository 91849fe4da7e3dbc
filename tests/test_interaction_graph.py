"""Interaction graphs against whole jacobians, by hand, and the paper's claims about edges."""

import inspect
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.func import jacrev

import workbench as wb
from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.interaction_basis import interaction_basis
from workbench.degeneracy.interaction_graph import InteractionGraph, interaction_graph
from workbench.degeneracy.passes import Passes

DOUBLE = torch.float64
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]])


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A float64 module whose draws do not depend on what ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build().double().requires_grad_(False)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.GELU, bias: bool = True, seed: int = 0) -> nn.Sequential:
    """An identity, then linear maps with functions of elements between."""

    def build() -> nn.Module:
        parts: list[nn.Module] = [nn.Identity()]
        for a, b in zip(widths, widths[1:], strict=False):
            parts += [nn.Linear(a, b, bias=bias), act()]
        return nn.Sequential(*parts[:-1])

    found: nn.Sequential = seeded(build, seed)
    return found


class Mixing(nn.Module):
    """Each token and the mean of the kept ones; a token that is padding meets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.others = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        mean = (tokens * mask[..., None]).sum(-2, keepdim=True) / mask.sum(-1)[..., None, None]
        return torch.tanh(self.own(tokens) + self.others(mean))


class Tokens(nn.Module):
    """Two layers of tokens and two outputs each."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.mix, self.down = nn.Linear(3, 4), nn.Tanh(), Mixing(), nn.Linear(3, 2)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        return self.down(self.mix(self.act(self.up(tokens)), attention_mask))


def legendre(points: int) -> list[tuple[float, float]]:
    nodes, shares = np.polynomial.legendre.leggauss(points)
    return [(float((node + 1) / 2), float(share / 2)) for node, share in zip(nodes, shares, strict=True)]


def loops(
    basis: InteractionBasis,
    source: str,
    target: str,
    segment: Callable[[Tensor, Tensor | None], Tensor],
    rows: Tensor,
    rule: Sequence[tuple[float, float]],
    formula: str = "squared",
    mask: Tensor | None = None,
) -> Tensor:
    """E by whole jacobians of coordinates: `segment` maps a sample (positions, width) to (positions, width)."""
    mu, C = basis.means[source], basis.bases[source]
    inverse = torch.cat([mu[None], basis.inverses[source]])
    total, count = torch.zeros(basis.nodes(target), basis.nodes(source), dtype=DOUBLE), 0
    for number, sample in enumerate(rows):
        own = None if mask is None else mask[number]
        keep = torch.ones(len(sample), dtype=torch.bool) if own is None else own != 0
        hat = torch.cat([torch.ones(len(sample), 1, dtype=DOUBLE), (sample - mu) @ C], 1)

        def mapped(
            coordinates: Tensor, own: Tensor | None = own, keep: Tensor = keep, sample: Tensor = sample
        ) -> Tensor:
            whole = torch.where(keep[:, None], coordinates @ inverse, sample)
            return (segment(whole, own) - basis.means[target]) @ basis.bases[target]

        end = mapped(hat)
        out = keep if len(end) == len(keep) else torch.ones(len(end), dtype=torch.bool)
        moved = torch.zeros(len(end), total.shape[0] - 1, total.shape[1], dtype=DOUBLE)
        for alpha, share in rule:
            jacobian = jacrev(mapped)(alpha * hat)  # (t, i, s, j)
            part = torch.einsum("tisj,sj->tij", jacobian[:, :, keep], hat[keep])
            if formula == "functional":
                part = part * 2 * (end - mapped(alpha * hat))[..., None]
            moved += share * part
        total[1:] += (moved[out] if formula == "functional" else moved[out].square()).sum(0)
        count += int(keep.sum())
    return total / count


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal up to a share of the largest number."""
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


RULES = [
    ("gradient", 1, [(1.0, 1.0)]),
    ("trapezoid", 3, [(0.0, 0.25), (0.5, 0.5), (1.0, 0.25)]),
    ("gauss-legendre", 3, legendre(3)),
]


@pytest.mark.parametrize("formula", ["squared", "functional"])
@pytest.mark.parametrize(("quadrature", "points", "rule"), RULES)
def test_edges_are_loops_over_jacobians(formula: Any, quadrature: Any, points: int, rule: Any) -> None:
    """Layers without positions, in batches of unequal sizes."""
    net, x = mlp(4, 5, 3), normal(9, 4)
    basis = interaction_basis(net, [x], ["0", "2"])
    graph = interaction_graph(net, [x[:2], x[2:3], x[3:]], basis, edges=formula, quadrature=quadrature, points=points)
    for source, target, segment, rows in (("0", "2", net[1:3], x), ("2", "3", net[3:], net[:3](x))):
        expected = loops(basis, source, target, lambda s, _, f=segment: f(s), rows[:, None], rule, formula)
        same(graph.edges[source], expected)
        assert not graph.edges[source][0].any()


@pytest.mark.parametrize("formula", ["squared", "functional"])
@pytest.mark.parametrize("kind", ["local", "pca", "neuron", "integrated"])
def test_edges_between_tokens_leave_padding_out(formula: Any, kind: Any) -> None:
    net, x = seeded(Tokens), normal(5, 4, 3)
    data = [{"tokens": x[:3], "attention_mask": MASK[:3]}, {"tokens": x[3:], "attention_mask": MASK[3:]}]
    basis = interaction_basis(net, data, ["act", "mix", "down"], kind=kind)
    graph = interaction_graph(net, data, basis, edges=formula, quadrature="gauss-legendre", points=2)
    act = net.act(net.up(x))
    expected = loops(basis, "act", "mix", net.mix, act, legendre(2), formula, MASK)
    same(graph.edges["act"], expected)
    expected = loops(basis, "mix", "down", lambda s, _: net.down(s), net.mix(act, MASK), legendre(2), formula, MASK)
    same(graph.edges["mix"], expected)


@pytest.mark.parametrize("formula", ["squared", "functional"])
def test_edges_between_pixels(formula: Any) -> None:
    """From maps of another size, and into an output without positions."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
    )
    x = normal(4, 2, 4, 4)
    basis = interaction_basis(net, [x], ["1", "3"])
    assert basis.layers[:2] == ["1", "3"] and len(basis.layers) == 3
    graph = interaction_graph(net, [x[:3], x[3:]], basis, edges=formula, quadrature="gradient")
    one, two = net[:2](x), net[:4](x)

    def inner(pixels: Tensor, _: Tensor | None) -> Tensor:
        return net[2:4](pixels.T.reshape(1, 3, 3, 3)).reshape(2, 4).T

    def end(pixels: Tensor, _: Tensor | None) -> Tensor:
        return net[4:](pixels.T.reshape(1, 2, 2, 2)).reshape(1, 2)

    rule = [(1.0, 1.0)]
    same(graph.edges["1"], loops(basis, "1", "3", inner, one.flatten(2).movedim(1, 2), rule, formula))
    same(graph.edges["3"], loops(basis, "3", basis.layers[2], end, two.flatten(2).movedim(1, 2), rule, formula))


def test_stochastic_edges_are_unbiased_and_know_their_error() -> None:
    """Over seeds the mean is that of squared edges within 4 standard errors, and `error` is their relative spread."""
    net, x = seeded(Tokens), normal(5, 4, 3)
    data = [{"tokens": x, "attention_mask": MASK}]
    basis = interaction_basis(net, data, ["act", "mix", "down"])
    exact = interaction_graph(net, data, basis)
    runs = [interaction_graph(net, data, basis, edges="stochastic", probes=4, seed=seed) for seed in range(12)]
    for source in ("act", "mix"):
        found = torch.stack([run.edges[source] for run in runs])
        error = found.std(0) / len(runs) ** 0.5
        assert bool(((found.mean(0) - exact.edges[source]).abs() <= 4 * error + 1e-12).all())
        place = exact.tables["segments"]["source"].index(source)
        true = exact.tables["segments"]["total"][place]
        off = [run.tables["segments"]["total"][place] / true - 1 for run in runs]
        told = [run.tables["segments"]["error"][place] for run in runs]
        if max(told) > 1e-9:
            assert 0.5 < np.sqrt(np.mean(np.square(off)) / np.mean(np.square(told))) < 2
    assert max(runs[0].tables["segments"]["error"]) > 1e-3 and exact.tables["segments"]["error"] == (0, 0)
    again = interaction_graph(net, data, basis, edges="stochastic", probes=4, seed=0)
    assert torch.equal(again.edges["act"], runs[0].edges["act"])
    assert not torch.equal(runs[1].edges["act"], runs[0].edges["act"])


def test_one_position_needs_no_draws() -> None:
    net, x = mlp(4, 5, 3), normal(9, 4)
    basis = interaction_basis(net, [x], "2")
    drawn = interaction_graph(net, [x], basis, edges="stochastic", probes=2)
    same(drawn.edges["2"], interaction_graph(net, [x], basis).edges["2"], 1e-12)
    assert drawn.tables["segments"]["error"] == (0,)


def test_the_constant_by_hand() -> None:
    """With f = μ ± 1 and 3·f the constant moves the output by 3μ, the direction by ±3."""
    net = nn.Sequential(nn.Identity(), nn.Linear(1, 1)).double().requires_grad_(False)
    net[1].weight.fill_(3.0), net[1].bias.fill_(7.0)
    x = torch.tensor([[4.0], [6.0]], dtype=DOUBLE)
    basis = interaction_basis(net, [x], "0")
    assert basis.means["0"].item() == 5 and basis.weights("0").item() == pytest.approx(9)
    for quadrature in ("gradient", "trapezoid", "gauss-legendre"):
        graph = interaction_graph(net, [x], basis, quadrature=quadrature)
        same(graph.edges["0"], torch.tensor([[0, 0], [225, 9]], dtype=DOUBLE), 1e-12)
    segment = interaction_graph(net, [x], basis).frame().loc[0]
    assert segment[["source", "target", "source_nodes", "target_nodes", "edges"]].tolist() == ["0", "1", 2, 2, 1]
    assert segment[["total", "constant", "error"]].tolist() == pytest.approx([9, 225, 0])
    functional = interaction_graph(net, [x], basis, edges="functional", points=2).edges["0"]
    # f̂(f) − f̂(αf) = 3(1−α)f and ∂_j·f̂_j = 3·5 or ±3: row sum E[(3f)²] = 9·26, of which 9·5·5 is the constant's
    same(functional, torch.tensor([[0, 0], [225, 9]], dtype=DOUBLE), 1e-12)
    assert float(functional.sum()) == pytest.approx(9 * 26)


def test_deep_linear_networks_have_diagonal_edges() -> None:
    """Golden test 5: E = diag(Λ); into outputs that are not rotated, Λ are the sums of the columns."""
    net, x = mlp(6, 12, 10, 7, 4, act=nn.Identity, bias=False), normal(200, 6)
    layers = ["1", "3", "5", "7"]
    basis = interaction_basis(net, [x], layers)
    edges = interaction_graph(net, [x], basis).edges
    expected = torch.linalg.eigvalsh(torch.cov(net(x).T, correction=0)).flip(0)
    for source in ("1", "3"):
        same(edges[source][1:, 1:], expected.diag())
    same(edges["5"][1:, 1:].sum(0), expected)


def inserted(width: int, condition: float, seed: int) -> tuple[nn.Linear, nn.Linear]:
    """A random map of that condition number and the map that undoes it."""
    left, right = (torch.linalg.qr(normal(width, width, seed=seed + k))[0] for k in (0, 100))
    scales = torch.logspace(-0.5, 0.5, width, base=condition, dtype=DOUBLE)
    maps = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
    for one, matrix in zip(maps, (left * scales @ right, right.T / scales @ left.T), strict=True):
        one.weight.data = matrix
    return maps


@pytest.mark.parametrize("condition", [7.7, 31.3])
def test_linear_maps_that_are_undone_change_no_edge(condition: float) -> None:
    """Golden test 4: squared edges to 1e-9; those of PCA change by a large factor."""
    net, x = mlp(5, 8, 6, 3), normal(80, 5)
    first, second = inserted(8, condition, 3), inserted(6, condition, 4)
    other = nn.Sequential(*net[:3], *first, *net[3:5], *second, *net[5:])
    found = {}
    for kind in ("local", "pca"):
        plain = interaction_graph(net, [x], interaction_basis(net, [x], ["2", "4"], kind=kind))
        turned = interaction_graph(other, [x], interaction_basis(other, [x], ["3", "7"], kind=kind))
        found[kind] = plain.edges["2"][1:, 1:], turned.edges["3"][1:, 1:]
    plain_edges, turned_edges = found["local"]
    torch.testing.assert_close(turned_edges, plain_edges, rtol=1e-9, atol=1e-9 * float(plain_edges.max()) * 1e-3)
    one, two = found["pca"]
    ratios = torch.maximum(one, two) / torch.minimum(one, two)
    large = torch.maximum(one, two) > 0.01 * float(torch.maximum(one, two).max())
    assert float(ratios[large].max()) > 3.7
    assert float((one - two).norm() / one.norm()) > 0.3


def test_functional_edges_are_complete() -> None:
    """Golden test 6: sums of rows are E[(f̂_i(f) − f̂_i(0))²], to the error of the quadrature."""
    net, x = mlp(5, 7, 4, act=nn.GELU, seed=2), normal(60, 5)
    with torch.no_grad():
        net[1].weight *= 4
    basis = interaction_basis(net, [x], "0")
    nodes = basis.coordinates("0", x) @ torch.cat([basis.means["0"][None], basis.inverses["0"]])
    expected = (net(nodes) - net(torch.zeros_like(nodes))).square().mean(0)
    errors = []
    for points in (2, 4, 8, 16):
        edges = interaction_graph(net, [x], basis, edges="functional", points=points).edges["0"]
        errors.append(float((edges[1:].sum(1) - expected).abs().max() / expected.max()))
    bounds = [(1e-3, 3e-1), (1e-5, 1e-2), (1e-8, 5e-5), (0, 1e-9)]
    assert all(low <= error <= high for error, (low, high) in zip(errors, bounds, strict=True)), errors


def scrambled_blocks() -> tuple[nn.Sequential, Tensor, list[str]]:
    """Two networks of one input each beside each other, all between them mixed by random maps, and all 24·24 inputs.

    Each network's inputs are independent of the other's in these data, so that the interactions fall apart.
    """

    def block(inputs: int, outputs: int) -> nn.Linear:
        whole = nn.Linear(2 * inputs, 2 * outputs)
        mask = torch.block_diag(torch.ones(outputs, inputs), torch.ones(outputs, inputs))
        whole.weight.data = 1.5 * torch.randn(2 * outputs, 2 * inputs) * mask / inputs**0.5
        whole.bias.data = 0.5 * torch.randn(2 * outputs)
        return whole

    def build() -> nn.Module:
        blocks = block(1, 3), block(3, 3), block(3, 2)
        maps = inserted(6, 7.7, 7), inserted(6, 7.7, 8)
        parts = [blocks[0], nn.Tanh(), *maps[0], blocks[1], nn.Tanh(), *maps[1], blocks[2]]
        return nn.Sequential(*parts)

    line = torch.linspace(-1, 1, 24, dtype=DOUBLE) + 0.2
    return seeded(build, 5), torch.cartesian_prod(line, line), ["2", "6"]


def components(graph: InteractionGraph, threshold: float = 1e-16) -> int:
    """Connected components of nodes other than constants, by edges above a share of each segment's largest."""
    names = [
        (layer, node)
        for layer in graph.layers
        for node in range(1, graph.frame("layers").set_index("layer")["nodes"][layer])
    ]
    places = {name: place for place, name in enumerate(names)}
    pairs = []
    for source, target in zip(graph.layers, graph.layers[1:], strict=False):
        inner = graph.edges[source][1:, 1:].abs()
        for i, j in (inner > threshold * inner.max()).nonzero().tolist():
            pairs.append((places[source, j + 1], places[target, i + 1]))
    rows, cols = np.array(pairs).T
    return int(connected_components(coo_matrix((np.ones(len(pairs)), (rows, cols)), (len(names),) * 2), False)[0])


def test_scrambled_blocks_are_found() -> None:
    """Golden test 7: two components; one by PCA, and not two without centring."""
    net, x, layers = scrambled_blocks()
    counts = {}
    for name, options in {"local": {}, "pca": {"kind": "pca"}, "uncentred": {"center": False}}.items():
        basis = interaction_basis(net, [x], layers, **options)
        if name != "pca":
            assert basis.frame("layers")["nodes"].tolist() == [7, 5, 5]  # what follows the second map is linear
        counts[name] = components(interaction_graph(net, [x], basis))
    assert counts["local"] == 2 and counts["pca"] == 1 and counts["uncentred"] != 2


def test_strongest_edges_are_a_sorted_list() -> None:
    net, x = mlp(4, 5, 3), normal(30, 4)
    basis = interaction_basis(net, [x], ["0", "2"])
    graph = interaction_graph(net, [x], basis, edges="functional")
    edges = graph.edges["0"]
    pairs = [(j, i, float(edges[i, j])) for i in range(1, len(edges)) for j in range(1, edges.shape[1])]
    pairs.sort(key=lambda pair: -abs(pair[2]))
    found = graph.strongest("0", 7)
    assert found.columns.tolist() == ["source", "target", "weight"]
    assert [tuple(row) for row in found.itertuples(index=False)] == pairs[:7]
    assert len(graph.strongest("0", 1000)) == len(pairs)
    with pytest.raises(wb.LayerNotFoundError, match="no edges start from '3'"):
        graph.strongest("3")
    with pytest.raises(wb.ArgumentError, match="count=0"):
        graph.strongest("0", 0)


def test_results_travel_and_teach_the_next_call(tmp_path: Path) -> None:
    net, x = mlp(4, 5, 3), normal(30, 4)
    graph = interaction_graph(net, [x], interaction_basis(net, [x], ["0", "2"]))
    for other in (wb.open_result(graph.save(tmp_path / "graph")), pickle.loads(pickle.dumps(graph))):
        assert isinstance(other, InteractionGraph) and repr(other) == repr(graph)
        assert all(graph.frame(name).equals(other.frame(name)) for name in graph.TABLES)
        assert list(other.edges) == ["0", "2"] and dict(other.meta) == dict(graph.meta)
        assert all(torch.equal(other.edges[layer], graph.edges[layer]) for layer in graph.edges)
    assert "wb.interaction_modules(graph)" in repr(graph) and "squared edges" in repr(graph)
    known = set(graph.meta["parameters"]) | {"module", "data", "basis", "seed", "progress"}
    assert known == set(inspect.signature(interaction_graph).parameters)
    table = graph.frame("layers")
    assert table["layer"].tolist() == ["0", "2", "3"] and table["nodes"].tolist() == [5, 4, 4]


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Hooks, modes, tensors and torch's random state are the very ones afterwards."""

    def state() -> list[Any]:
        found: list[Any] = [torch.get_rng_state().tolist(), torch.is_grad_enabled()]
        for path, part in module.named_modules():
            hooks = [len(getattr(part, name)) for name in vars(part) if name.endswith("_hooks")]
            tensors = [*part._parameters.items(), *part._buffers.items()]
            found += [path, part.training, hooks, *((name, id(t), t.grad, t.requires_grad) for name, t in tensors)]
        return found

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize("formula", ["squared", "functional", "stochastic"])
def test_a_cancel_anywhere_keeps_the_segments_that_are_done(formula: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Passes.__module__], "SECONDS", float("inf"))
    net, x = mlp(4, 5, 4, 3).train(), normal(30, 4)
    data = [x[:10], x[10:]]
    basis = interaction_basis(net, data, ["0", "2", "4"])
    told: list[tuple[str, int, int]] = []

    def listener(progress: wb.Progress, at: int | None = None) -> None:
        told.append((progress.item, progress.done, progress.total))
        if at == len(told):
            raise wb.Cancelled

    whole = interaction_graph(net, data, basis, edges=formula, points=2, progress=listener)
    calls = list(told)
    assert calls == [
        *((f"{layer}, batch {batch} of 2", n, 3) for n, layer in enumerate(("0", "2", "4")) for batch in (1, 2)),
        ("", 3, 3),
    ]
    for place, (_, done, _) in list(enumerate(calls, start=1))[:: 1 if formula == "squared" else 3]:
        told.clear()
        with unchanged(net), pytest.raises(wb.Cancelled) as stop:
            interaction_graph(
                net, data, basis, edges=formula, points=2, progress=lambda progress, at=place: listener(progress, at)
            )
        partial = stop.value.partial
        assert isinstance(partial, InteractionGraph) and list(partial.edges) == ["0", "2", "4"][:done]
        assert all(torch.equal(partial.edges[layer], whole.edges[layer]) for layer in partial.edges)
        if done < 3:
            assert f"CANCELLED after {done} of 3 segments" in repr(partial)
        if done == 0:
            assert f"{formula} edges; no segment; CANCELLED after 0" in partial.facts()


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, (4, 3)),
        ({"edges": "squared", "quadrature": "trapezoid", "points": 3}, (12, 9)),
        ({"edges": "functional", "points": 2}, (8, 6)),
        ({"edges": "stochastic", "probes": 5}, (20, 15)),
    ],
    ids=["squared", "integrated", "functional", "stochastic"],
)
def test_a_cancel_inside_a_batch_leaves_everything_as_before(
    options: Any, passes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[Passes.__module__], "SECONDS", 0.0)
    net, x = mlp(4, 5, 4, 3).train(), normal(30, 4)
    data = [x[:10], x[10:]]
    basis = interaction_basis(net, data, ["2", "4"], kind="neuron")
    items: list[str] = []
    whole = interaction_graph(net, data, basis, progress=lambda told: items.append(told.item), **options)
    expected = []
    for layer, count in zip(("2", "4"), passes, strict=True):
        for batch in (1, 2):
            begin = f"{layer}, batch {batch} of 2"
            expected += [begin, *(f"{begin}, pass {one} of {count}" for one in range(1, count + 1))]
    assert items == [*expected, ""]
    for at in [item for item in items if "pass 2 " in item]:

        def stopping(told: wb.Progress, at: str = at) -> None:
            if told.item == at:
                raise wb.Cancelled

        state = torch.get_rng_state()
        with unchanged(net), pytest.raises(wb.Cancelled) as stop:
            interaction_graph(net, data, basis, progress=stopping, **options)
        assert torch.equal(state, torch.get_rng_state()) and torch.is_grad_enabled()
        partial = stop.value.partial
        assert list(partial.edges) == ["2"][: at.startswith("4")]
        assert all(torch.equal(partial.edges[layer], whole.edges[layer]) for layer in partial.edges)


def test_bases_of_other_modules_are_refused_or_noted() -> None:
    net, x = mlp(4, 5, 3), normal(30, 4)
    basis = interaction_basis(net, [x], ["0", "2"])
    assert interaction_graph(net, [x], basis).meta["notes"] == []
    other = interaction_graph(mlp(4, 5, 3, seed=1), [x], basis)
    assert "note: the module's weights are not those that the basis is of" in repr(other)
    with pytest.raises(wb.ArgumentError, match="'2' has 6 features and the basis 5"):
        interaction_graph(mlp(4, 6, 3), [x], basis)
    with pytest.raises(wb.WorkbenchError, match="'2'"):
        interaction_graph(nn.Sequential(nn.Identity(), nn.Linear(4, 3)).double(), [x], basis)
    with pytest.raises(wb.ArgumentError, match="no two consecutive layers"):
        interaction_graph(net, [x], interaction_basis(net, [x], "3"))
    with pytest.raises(wb.Cancelled) as stop:
        interaction_basis(net, [x], ["0", "2"], progress=cancelled_at(3))
    assert len(stop.value.partial.layers) == 2
    with pytest.raises(wb.ArgumentError, match="was cancelled"):
        interaction_graph(net, [x], stop.value.partial)


def test_edges_that_are_no_numbers_are_told() -> None:
    net, x = mlp(4, 5, 3), normal(30, 4)
    basis = interaction_basis(net, [x], ["0", "2"])
    x[0, 0] = float("nan")
    assert "note: edges from 0, 2 are NaN or infinite" in repr(interaction_graph(net, [x], basis))


def cancelled_at(call: int) -> Callable[[wb.Progress], None]:
    told: list[wb.Progress] = []

    def listener(progress: wb.Progress) -> None:
        told.append(progress)
        if progress.done >= 2:
            raise wb.Cancelled

    return listener


def test_what_has_no_derivative_is_named() -> None:
    class Detached(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 2 * z.detach()

    net = seeded(lambda: nn.Sequential(nn.Identity(), Detached(), nn.Linear(4, 3)))
    x = normal(30, 4)
    basis = interaction_basis(net, [x], ["0"], kind="pca")
    for formula in ("squared", "functional"):
        with unchanged(net), pytest.raises(wb.ArgumentError, match="does not depend on '0' by anything differentiable"):
            interaction_graph(net, [x], basis, edges=formula)


ARGUMENTS = {
    "edges='square'": ("ArgumentError", "Did you mean 'squared'"),
    "quadrature='simpson'": ("ArgumentError", "quadrature='simpson'"),
    "quadrature=''": ("ArgumentError", "quadrature=''"),
    "points=1, quadrature='trapezoid'": ("ArgumentError", "at least 2"),
    "probes=1": ("ArgumentError", "probes=1"),
    "seed=None": ("ArgumentError", "seed=None"),
    "progress=3": ("ArgumentError", "progress=3"),
}
SCRIPT = """
import json, sys, torch
from torch import nn
from workbench.degeneracy.interaction_basis import interaction_basis
from workbench.degeneracy.interaction_graph import interaction_graph
net, x, raised = nn.Sequential(nn.Identity(), nn.Linear(3, 4)), torch.randn(20, 3), {}
basis = interaction_basis(net, [x])
calls = {code: f"interaction_graph(net, [x], basis, {code})" for code in sys.argv[1:]}
calls |= {"basis": "interaction_graph(net, [x], 3)", "data": "interaction_graph(net, (b for b in [x]), basis)"}
for name, code in calls.items():
    try:
        raised[name] = ["nothing", repr(eval(code))]
    except Exception as error:
        raised[name] = [type(error).__name__, str(error)]
print(json.dumps(raised))
"""


def test_wrong_arguments_are_told(unchecked: Callable[..., Any]) -> None:
    found = unchecked(SCRIPT, *ARGUMENTS)
    more = {
        "basis": ("ArgumentError", "expected wb.interaction_basis"),
        "data": ("ArgumentError", "one-shot generator"),
    }
    for code, (kind, message) in (ARGUMENTS | more).items():
        assert found[code][0] == kind and message in found[code][1], (code, found[code])

"""Interaction bases against numpy, whole jacobians, loops, the identities of the paper, and hostile users."""

import copy
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import jacrev, vmap

import workbench as wb
from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.gradients import gradient_gram
from workbench.degeneracy.interaction_basis import interaction_basis
from workbench.degeneracy.interaction_graph import interaction_graph
from workbench.degeneracy.passes import Passes
from workbench.linalg import Moments
from workbench.runtime.chain import Batch

DATA = Path(__file__).parents[1] / "data"
DOUBLE = torch.float64


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A float64 module whose draws do not depend on what ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build().double()


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.GELU, bias: bool = True, seed: int = 0) -> nn.Sequential:
    """Linear maps with functions of elements between; the first is a layer of its own by an identity before it."""

    def build() -> nn.Module:
        parts: list[nn.Module] = [nn.Identity()]
        for a, b in zip(widths, widths[1:], strict=False):
            parts += [nn.Linear(a, b, bias=bias), act()]
        return nn.Sequential(*parts[:-1])

    return seeded(build, seed)  # type: ignore[return-value]


class Tokens(nn.Module):
    """Each kept token is told the mean of the kept ones; padding meets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.mix, self.down = nn.Linear(3, 4), nn.Tanh(), Mixing(4, 3), nn.Linear(3, 2)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        return self.down(self.mix(self.act(self.up(tokens)), attention_mask))


class Mixing(nn.Module):
    """Tanh of a map of each token and of a map of the mean."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own, self.others = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        mean = (tokens * mask[..., None]).sum(-2, keepdim=True) / mask.sum(-1)[..., None, None]
        return torch.tanh(self.own(tokens) + self.others(mean))


MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]])


def metric_of(
    segment: Callable[..., Tensor], rows: Tensor, metric: Tensor, mask: Tensor | None = None, *, last: bool = False
) -> Tensor:
    """M′ from whole jacobians: `segment` maps a sample (positions, width) and its mask to (positions, width)."""
    total, count = torch.zeros(rows.shape[-1], rows.shape[-1], dtype=DOUBLE), 0
    for number, sample in enumerate(rows):
        keep = torch.ones(len(sample), dtype=torch.bool) if mask is None else mask[number] != 0
        jacobian = jacrev(lambda x, n=number: segment(x, None if mask is None else mask[n]))(sample)
        out = keep if len(jacobian) == len(keep) else torch.ones(len(jacobian), dtype=torch.bool)
        if last:
            out = torch.zeros_like(out).index_fill(0, out.nonzero().flatten()[-1:], True)
        for t in out.nonzero().flatten():
            for s in keep.nonzero().flatten():
                total += jacobian[t, :, s].T @ metric @ jacobian[t, :, s]
        count += int(keep.sum())
    return total / count


def covariance(rows: Tensor) -> Tensor:
    return torch.from_numpy(np.cov(rows.reshape(-1, rows.shape[-1]).numpy().T, bias=True).reshape(rows.shape[-1], -1))


def projected(gram: Tensor, metric: Tensor) -> Tensor:
    """P·M′·P with P the projector on the support of G."""
    values, vectors = np.linalg.eigh(gram.numpy())
    own = vectors[:, values > len(values) * 2.3e-16 * values[-1]]
    projector = torch.from_numpy(own @ own.T)
    return projector @ metric @ projector


def products(gram: Tensor, metric: Tensor, count: int) -> Tensor:
    """The largest eigenvalues of G·M′, by numpy."""
    return torch.from_numpy(np.sort(np.linalg.eigvals((gram @ metric).numpy()).real)[::-1][:count].copy())


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal up to a share of the largest number."""
    assert found.shape == expected.shape
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


def check_layer(basis: InteractionBasis, layer: str, gram: Tensor, metric: Tensor, tolerance: float = 1e-9) -> None:
    """All identities of one layer; C⁺M′C⁺ᵀ = 1 weighted by Λ, as rounding of M′ is, and as it is."""
    C, inverse, weights, metric = basis.bases[layer], basis.inverses[layer], basis.weights(layer), metric.detach()
    assert len(weights) and bool((weights[:-1] >= weights[1:]).all())
    root, one = weights.sqrt(), torch.eye(len(weights), dtype=DOUBLE)
    same(C.T @ gram @ C, weights.diag(), tolerance)
    same(inverse @ metric @ inverse.T * root * root[:, None], weights.diag(), tolerance)
    large = weights > 1e-6 * weights[0]
    same((inverse @ metric @ inverse.T)[large][:, large], one[large][:, large], tolerance)
    same(inverse @ C, one, tolerance)
    values, vectors = torch.linalg.eigh(gram)
    support = values > len(values) * 2.3e-16 * values[-1]
    half = vectors * (values.clamp_min(0) * support).sqrt() @ vectors.T
    same(half @ C @ C.T @ half, half @ metric @ half, tolerance)  # what Λ too small to keep leaves is small here alone
    if values[-1] * 1e-8 < values[support].min():
        same(C @ C.T, projected(gram, metric), tolerance)
    same(products(gram, metric, len(weights)), weights, tolerance)


@pytest.mark.parametrize("act", [nn.GELU, nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("estimator", ["auto", "exact"])
def test_the_local_basis_is_a_recursion_of_metrics(act: Callable[[], nn.Module], estimator: Any) -> None:
    """CCᵀ of a layer is P·E[Jᵀ(CCᵀ of the next)J]·P, so the oracle needs no basis."""
    net, x = mlp(5, 8, 6, 3, act=act), normal(70, 5)
    basis = interaction_basis(net, [x[:31], x[31:32], x[32:]], estimator=estimator)
    assert basis.layers == ["0", "2", "4", "5"]
    places = [0, 2, 4, 5]
    outputs = [net[: place + 1](x).detach() for place in places]
    same(basis.bases["5"], torch.eye(3, dtype=DOUBLE))
    same(basis.weights("5"), covariance(outputs[-1]).diagonal())
    metric = torch.eye(3, dtype=DOUBLE)
    for number in (2, 1, 0):
        segment = net[places[number] + 1 : places[number + 1] + 1]
        jacobians = vmap(jacrev(segment))(outputs[number])
        metric = torch.einsum("nea,ef,nfb->ab", jacobians, metric, jacobians) / len(x)
        gram, layer = covariance(outputs[number]), basis.layers[number]
        check_layer(basis, layer, gram, metric)
        same(basis.means[layer], outputs[number].mean(0))
        metric = projected(gram, metric.detach())
        same(basis.bases[layer] @ basis.bases[layer].T, metric)


def test_gradient_flow_goes_straight_to_the_output() -> None:
    net, x = mlp(5, 8, 6, 3), normal(60, 5)
    basis = interaction_basis(net, [x], kind="gradient-flow")
    for layer in ("0", "2", "4"):
        rows = net[: int(layer) + 1](x).detach()
        jacobians = vmap(jacrev(net[int(layer) + 1 :]))(rows)
        metric = torch.einsum("nea,neb->ab", jacobians, jacobians) / len(x)
        check_layer(basis, layer, covariance(rows), metric)


def test_principal_components_are_numpys() -> None:
    net, x = mlp(5, 8, 6, 3), normal(60, 5)
    basis = interaction_basis(net, [x], kind="pca")
    same(basis.bases[basis.layers[-1]], torch.eye(3, dtype=DOUBLE))  # the output keeps its own axes in every kind
    for layer in basis.layers[:-1]:
        rows = net[: int(layer) + 1](x).detach()
        values, vectors = np.linalg.eigh(np.cov(rows.numpy().T, bias=True))
        kept = values[::-1] > len(values) * 2.3e-16 * values[-1]
        same(basis.weights(layer), torch.from_numpy(values[::-1][kept].copy()))
        C = basis.bases[layer]
        assert kept.sum() == C.shape[1]
        same(
            (C * torch.from_numpy(vectors[:, ::-1][:, kept].copy())).sum(0).abs(), torch.ones(C.shape[1], dtype=DOUBLE)
        )
        same(basis.inverses[layer], C.T)
        assert (C.gather(0, C.abs().argmax(0, keepdim=True)) > 0).all()  # signs are no accident of the library


def test_neurons_are_the_axes_with_their_variances() -> None:
    net, x = mlp(4, 6, 3), normal(40, 4)
    basis = interaction_basis(net, [x], kind="neuron")
    for layer in basis.layers:
        rows = net[: int(layer) + 1](x).detach()
        assert torch.equal(basis.bases[layer], torch.eye(rows.shape[1], dtype=DOUBLE))
        same(basis.weights(layer), rows.var(0, correction=0))


@pytest.mark.parametrize("center", [True, False])
def test_the_integrated_basis_is_a_loop(center: bool) -> None:
    """Gradients by loops over samples and points; M from them, Λ from E[g·(f−μ)ᵀ] along the eigenvectors of M."""
    net, x = mlp(4, 7, 5, 3), normal(50, 4)
    basis = interaction_basis(net, [x[:20], x[20:]], kind="integrated", points=6, center=center)
    nodes, shares = np.polynomial.legendre.leggauss(6)
    outputs = [net[: int(layer) + 1](x).detach() for layer in basis.layers]
    for number in range(len(outputs) - 1):
        layer, following = basis.layers[number], basis.layers[number + 1]
        segment, after = net[int(layer) + 1 : int(following) + 1], basis.bases[following]
        mean = outputs[number].mean(0) if center else torch.zeros(outputs[number].shape[1], dtype=DOUBLE)
        beyond = outputs[number + 1].mean(0) if center else torch.zeros(outputs[number + 1].shape[1], dtype=DOUBLE)
        slopes = []
        for f in outputs[number]:
            hat = (segment(f) - beyond) @ after
            slope = torch.zeros_like(f)
            for node, share in zip(nodes, shares, strict=True):
                J = jacrev(lambda z, own=segment, to=beyond, C=after: (own(z) - to) @ C)(float((node + 1) / 2) * f)
                slope += float(share / 2) * hat @ J
            slopes.append(slope.detach())
        g, f = torch.stack(slopes), outputs[number]
        gram = covariance(f) if center else f.T @ f / len(f)
        metric, cross = g.T @ g / len(g), g.T @ (f - mean) / len(g)
        values, vectors = np.linalg.eigh(gram.numpy())
        kept = values > len(values) * 2.3e-16 * values[-1]
        R = torch.from_numpy(vectors[:, kept] / np.sqrt(values[kept]))
        back = torch.from_numpy((vectors[:, kept] * np.sqrt(values[kept])).T.copy())
        strengths, turned = np.linalg.eigh((back @ metric @ back.T).numpy())
        V = torch.from_numpy(turned[:, strengths > len(gram) * 2.3e-16 * strengths[-1]])
        expected = torch.stack([V[:, k] @ back @ cross @ R @ V[:, k] for k in range(V.shape[1])])
        order = expected.argsort(descending=True)
        order = order[expected[order] > 0]
        assert basis.weights(layer).shape == (len(order),)
        same(basis.weights(layer), expected[order])
        C = R @ V[:, order] * expected[order].sqrt()
        same(basis.bases[layer].abs(), C.abs(), 1e-8)
        same(basis.inverses[layer] @ basis.bases[layer], torch.eye(len(order), dtype=DOUBLE))
        same(basis.bases[layer].T @ gram @ basis.bases[layer], expected[order].diag())


def test_integrated_and_local_agree_where_all_is_linear_and_centred() -> None:
    """f̂(αf)·f̂(f) has the gradient Jᵀf̂(f), so M′ = Jᵀ·E[f̂f̂ᵀ]·J: of a linear net Λ are those of the output, squared."""
    net, x = mlp(6, 9, 5, 4, act=nn.Identity, bias=True), normal(80, 6)
    basis = interaction_basis(net, [x - x.mean(0)], ["1", "3"], kind="integrated")
    values = torch.linalg.eigvalsh(covariance(net(x - x.mean(0)).detach())).flip(0)
    same(basis.weights("3"), values)


def test_a_shift_of_the_output_changes_no_centred_basis() -> None:
    """f̂ = (f−μ)·C has no part in the mean, in the integrated basis too."""
    net, x = mlp(4, 6, 3), normal(50, 4)
    shifted = copy.deepcopy(net)
    with torch.no_grad():
        shifted[-1].bias += 5
    for kind in ("local", "integrated", "gradient-flow"):
        one, other = interaction_basis(net, [x], kind=kind), interaction_basis(shifted, [x], kind=kind)
        for layer in one.layers:
            same(other.weights(layer), one.weights(layer))


def test_deep_linear_networks_have_the_outputs_covariance_everywhere() -> None:
    """Golden test 5."""
    net, x = mlp(6, 12, 10, 7, 4, act=nn.Identity, bias=False), normal(200, 6)
    basis = interaction_basis(net, [x], ["1", "3", "5", "7"])
    expected = torch.linalg.eigvalsh(covariance(net(x).detach())).flip(0)
    for layer in ("1", "3", "5"):
        same(basis.weights(layer), expected)
    same(basis.weights("7"), covariance(net(x).detach()).diagonal())


def inserted(width: int, condition: float, seed: int) -> tuple[nn.Module, nn.Module]:
    """A random map of that condition number and the map that undoes it."""
    left, right = (torch.linalg.qr(normal(width, width, seed=seed + k))[0] for k in (0, 100))
    scales = torch.logspace(-0.5, 0.5, width, base=condition, dtype=DOUBLE)
    maps = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
    for one, matrix in zip(maps, (left * scales @ right, right.T / scales @ left.T), strict=True):
        one.weight.data = matrix
    assert np.linalg.cond(maps[0].weight.detach().numpy()) == pytest.approx(condition, rel=1e-9)
    return maps


@pytest.mark.parametrize("condition", [7.7, 31.3])
@pytest.mark.parametrize("kind", ["local", "integrated", "gradient-flow"])
def test_linear_maps_that_are_undone_change_no_weight(condition: float, kind: Any) -> None:
    """Golden test 4; the edges are in test_interaction_graph.py."""
    net, x = mlp(5, 8, 6, 3, act=nn.GELU), normal(80, 5)
    first, second = inserted(8, condition, 3), inserted(6, condition, 4)
    other = nn.Sequential(*net[:3], *first, *net[3:5], *second, *net[5:])
    assert torch.allclose(other(x), net(x), rtol=0, atol=1e-12)
    plain = interaction_basis(net, [x], ["2", "4"], kind=kind)
    turned = interaction_basis(other, [x], ["3", "7"], kind=kind)
    for one, two in (("2", "3"), ("4", "7")):
        torch.testing.assert_close(turned.weights(two), plain.weights(one), rtol=1e-9, atol=0)
    principal = interaction_basis(net, [x], ["2"], kind="pca"), interaction_basis(other, [x], ["3"], kind="pca")
    ratios = principal[1].weights("3") / principal[0].weights("2")
    assert float(ratios.max() / ratios.min()) > 3


def test_scales_change_no_rank() -> None:
    """A layer scaled by 1e-4 and undone, inputs scaled by 1e-4: absolute thresholds would find nothing."""
    net, x = mlp(5, 8, 6, 3, act=nn.ReLU), normal(80, 5)
    plain = interaction_basis(net, [x])
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        for place, factor in ((1, 1e-4), (3, 1e4)):
            scaled[place].weight *= factor
        scaled[1].bias *= 1e-4
    small = nn.Sequential(*copy.deepcopy(net))
    with torch.no_grad():
        small[1].weight *= 1e4
    assert torch.allclose(scaled(x), net(x)) and torch.allclose(small(1e-4 * x), net(x))
    for module, data in ((scaled, x), (small, 1e-4 * x)):
        found = interaction_basis(module, [data])
        for column in ("rank", "nodes", "predicted_nodes", "verdict", "reason"):
            assert found.tables["layers"][column] == plain.tables["layers"][column]
        for layer in found.layers:
            same(found.weights(layer), plain.weights(layer))


@pytest.mark.parametrize("positions", ["all", "last"])
def test_convolutions_sum_over_positions(positions: Any) -> None:
    """M′ over output and input pixels; the last position of an image is its last pixel."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
        )
    )
    x = normal(6, 2, 4, 4)
    basis = interaction_basis(net, [x[:4], x[4:]], positions=positions, features={"4": -1})
    assert basis.layers[:2] == ["1", "3"]
    one, two = net[:2](x).detach(), net[:4](x).detach()

    def rows(maps: Tensor) -> Tensor:
        return maps.flatten(2).movedim(1, 2)

    def whole(pixels: Tensor, _: None) -> Tensor:
        return net[4:](pixels.T.reshape(1, 4, 2, 2)).reshape(1, 3)

    def inner(pixels: Tensor, _: None) -> Tensor:
        return net[2:4](pixels.T.reshape(1, 3, 3, 3)).reshape(4, 4).T

    metric = metric_of(whole, rows(two), torch.eye(3, dtype=DOUBLE)) if "4" not in basis.layers else None
    if metric is None:  # the flattened maps are a layer of their own

        def flat(pixels: Tensor, _: None) -> Tensor:
            return pixels.T.reshape(1, -1)

        jacobian = net[5].weight.detach()
        last = projected(covariance(two.flatten(1)), jacobian.T @ jacobian)
        metric = metric_of(flat, rows(two), last)
    check_layer(basis, "3", covariance(rows(two)), metric)
    last_only = positions == "last"
    metric = metric_of(inner, rows(one), projected(covariance(rows(two)), metric), last=last_only)
    check_layer(basis, "1", covariance(rows(one)), metric)
    assert basis.frame("layers").set_index("layer").loc["1", ["positions", "samples"]].tolist() == [9, 54]


@pytest.mark.parametrize("positions", ["all", "last"])
def test_padding_counts_nowhere(positions: Any) -> None:
    net, x = seeded(Tokens), normal(5, 4, 3)
    data = [{"tokens": x[:3], "attention_mask": MASK[:3]}, {"tokens": x[3:], "attention_mask": MASK[3:]}]
    basis = interaction_basis(net, data, ["act", "mix", "down"], positions=positions)
    act = net.act(net.up(x)).detach()
    mix, keep, last = net.mix(act, MASK).detach(), MASK != 0, positions == "last"
    metric = metric_of(lambda s, _: net.down(s), mix, torch.eye(2, dtype=DOUBLE), MASK, last=last)
    check_layer(basis, "mix", covariance(mix[keep]), metric)
    metric = metric_of(net.mix, act, projected(covariance(mix[keep]), metric), MASK, last=last)
    check_layer(basis, "act", covariance(act[keep]), metric)
    assert set(basis.tables["layers"]["samples"]) == {int(keep.sum())}
    noise = [dict(batch, tokens=batch["tokens"] + 9 * (batch["attention_mask"] == 0)[..., None]) for batch in data]
    other = interaction_basis(net, noise, ["act", "mix", "down"], positions=positions)
    for layer in basis.layers:
        same(other.weights(layer), basis.weights(layer), 1e-12)


def test_the_integrated_basis_of_a_padded_sequence_takes_the_last_position_too() -> None:
    net, x = seeded(Tokens), normal(5, 4, 3)
    data = [{"tokens": x, "attention_mask": MASK}]
    mix = net.mix(net.act(net.up(x)), MASK).detach()
    keep = MASK != 0
    for positions in ("all", "last"):
        basis = interaction_basis(net, data, ["mix", "down"], kind="integrated", positions=positions, points=2)
        mean = net.down(mix)[keep].mean(0)
        hat = net.down(mix) - mean  # the segment is linear, so g = Σ_t f̂(t)·∂f̂(t)/∂f(s) at any α
        if positions == "last":
            ends = torch.stack([torch.arange(4) == int(row.nonzero()[-1]) for row in MASK])
            hat = hat * ends[..., None]
        g = (hat @ net.down.weight)[keep].detach()
        R = interaction_basis(net, data, ["mix", "down"], kind="pca").bases["mix"]
        gram = covariance(mix[keep])
        values = (R.T @ gram @ R).diagonal()
        whitened = (R / values.sqrt(), (R * values.sqrt()).T)
        V = torch.linalg.eigh(whitened[1] @ (g.T @ g / len(g)) @ whitened[1].T)[1]
        cross = g.T @ (mix[keep] - mix[keep].mean(0)) / len(g)
        expected = (V.T @ whitened[1] @ cross @ whitened[0] @ V).diagonal()
        kept = torch.linalg.eigvalsh(whitened[1] @ (g.T @ g / len(g)) @ whitened[1].T) > 1e-14
        expected = expected[kept][expected[kept] > 0].sort(descending=True).values
        same(basis.weights("mix"), expected)


@cache
def shipped(name: str, samples: int) -> tuple[nn.Module, Tensor]:
    import importlib.util

    spec = importlib.util.spec_from_file_location("basis_build", DATA / "build.py")
    assert spec and spec.loader
    sys.path.insert(0, str(DATA))
    try:
        build = importlib.util.module_from_spec(spec)
        sys.modules["basis_build"] = build
        spec.loader.exec_module(build)
    finally:
        sys.path.remove(str(DATA))
    recipe = build.RECIPES[name]
    module = recipe.module()
    module.load_state_dict(load_file(DATA / "checkpoints" / f"{name}-seed0.safetensors"))
    return module, build.digits(recipe.input_shape).test_x[:samples]


@pytest.mark.parametrize(
    ("name", "samples", "kind", "probes"),
    [
        ("digits-mlp512", 300, "local", None),
        ("digits-cnn32", 3, "local", None),
        ("digits-cnn32", 200, "local", 2),
        ("digits-cnn32", 60, "gradient-flow", None),
        ("digits-transformer", 4, "local", None),
        ("digits-transformer", 64, "local", 2),
        ("digits-resnet48", 64, "local", 2),
    ],
)
def test_identities_hold_on_the_shipped_models(name: str, samples: int, kind: Any, probes: int | None) -> None:
    """M′ once more through gradient_gram: exact on few images, the very probes on many."""
    module, x = shipped(name, samples)
    estimator = "auto" if probes is None else "Hutchinson"
    basis = interaction_basis(module, [x], kind=kind, probes=probes or 2, estimator=estimator)
    chain = basis.chain(module, [x])
    with chain.lent():
        (batch,) = chain.batches()
        outputs = [cut.rows(o, None) for cut, o in zip(chain.cuts, chain.outputs(batch, chain.cuts), strict=True)]
        for number, source in enumerate(chain.cuts[:-1]):
            target = chain.cuts[-1] if kind == "gradient-flow" else chain.cuts[number + 1]
            moments = Moments(source.width)
            moments.update(outputs[number])
            metric = gradient_gram(chain, source, target, basis.bases[target.layer], probes=probes).matrix
            check_layer(basis, source.layer, moments.covariance, metric)


def test_hutchinson_says_how_wrong_it_is() -> None:
    """Over seeds the distance from the exact M′, seen through Λ's sum, is what `error` tells, within a factor of 2."""
    net, x = mlp(5, 8, 6, act=nn.Tanh), normal(40, 5)
    exact = interaction_basis(net, [x], ["2"], estimator="exact")
    runs = [interaction_basis(net, [x], ["2"], estimator="Hutchinson", probes=8, seed=seed) for seed in range(12)]
    metric = exact.bases["2"] @ exact.bases["2"].T
    off = [float((run.bases["2"] @ run.bases["2"].T - metric).norm() / metric.norm()) for run in runs]
    told = [run.tables["layers"]["error"][0] for run in runs]
    assert 0.5 < np.sqrt(np.mean(np.square(off)) / np.mean(np.square(told))) < 2
    again = interaction_basis(net, [x], ["2"], estimator="Hutchinson", probes=8, seed=0)
    assert torch.equal(again.bases["2"], runs[0].bases["2"])
    assert not torch.equal(runs[1].bases["2"], runs[0].bases["2"])


def test_coordinates_and_back() -> None:
    net, x = mlp(4, 6, 3), normal(40, 4)
    basis = interaction_basis(net, [x], "2")
    rows = net[:3](x).detach()
    hat = basis.coordinates("2", rows)
    assert torch.equal(hat[:, 0], torch.ones(40, dtype=DOUBLE)) and hat.shape == (40, basis.nodes("2"))
    values, vectors = np.linalg.eigh(covariance(rows).numpy())
    C, inverse = basis.bases["2"], basis.inverses["2"]
    same(basis.restored("2", hat), basis.means["2"] + (rows - basis.means["2"]) @ C @ inverse, 1e-12)
    same(basis.restored("2", hat.float()), basis.restored("2", hat), 1e-6)
    centred = hat[:, 1:] - hat[:, 1:].mean(0)
    same(centred.T @ centred / 40, basis.weights("2").diag())
    for call in (basis.restored, basis.coordinates):
        with pytest.raises(wb.LayerNotFoundError, match="no layer '9'"):
            call("9", hat)
    for call in (basis.nodes, basis.weights, basis.predicted_nodes):
        with pytest.raises(wb.LayerNotFoundError, match="no layer 'two'"):
            call("two")


def test_predicted_nodes_count_weights_above_a_thousandth() -> None:
    net = nn.Sequential(nn.Identity(), nn.Linear(3, 3, bias=False)).double()
    net[1].weight.data = torch.tensor([1.0, 0.04, 0.02], dtype=DOUBLE).diag()
    x = torch.cat([torch.eye(3, dtype=DOUBLE), -torch.eye(3, dtype=DOUBLE)])
    basis = interaction_basis(net, [x], "0")
    same(basis.weights("0"), torch.tensor([1, 0.0016, 0.0004], dtype=DOUBLE) / 3, 1e-12)
    assert basis.predicted_nodes("0") == 3 and basis.predicted_nodes("0", 0.01) == 2
    assert basis.frame("layers")["predicted_nodes"].tolist()[0] == 3


def test_datapoints_are_the_ends_of_a_sorted_list() -> None:
    net, x = seeded(Tokens), normal(5, 4, 3)
    data = [{"tokens": x[:3], "attention_mask": MASK[:3]}, {"tokens": x[3:], "attention_mask": MASK[3:]}]
    basis = interaction_basis(net, data, ["mix", "down"])
    mix = net.mix(net.act(net.up(x)), MASK).detach()
    for direction in range(1, basis.nodes("mix")):
        values = (mix - basis.means["mix"]) @ basis.bases["mix"][:, direction - 1]
        rows = [
            (float(values[i, t]), *((0, i) if i < 3 else (1, i - 3)), t)
            for i in range(5)
            for t in range(4)
            if MASK[i, t]
        ]
        rows.sort(reverse=True)
        for count in (1, 3, 100):
            found = basis.datapoints(net, data, "mix", direction, count=count)
            expected = rows if len(rows) <= 2 * count else rows[:count] + rows[-count:]
            assert found[["batch", "sample", "position"]].to_numpy().tolist() == [list(row[1:]) for row in expected]
            np.testing.assert_allclose(found["coordinate"], [row[0] for row in expected], rtol=1e-9)
    bad = [dict(data[0], tokens=torch.full_like(x[:3], torch.nan))]
    for arguments, message in (
        ((net, data, "mix", 0), "direction=0: expected 1 to 2"),
        ((net, data, "mix", 3), "direction=3"),
        ((net, data, "mix", True), "direction=True"),
        ((net, [*data, *bad], "mix", 1), "NaN or infinite in batch 2"),
    ):
        with pytest.raises(wb.ArgumentError, match=message):
            basis.datapoints(*arguments)
    with pytest.raises(wb.ArgumentError, match="count=0: expected how many"):
        basis.datapoints(net, data, "mix", 1, count=0)
    with pytest.raises(wb.LayerNotFoundError, match="no layer 'mox'. Did you mean 'mix'"):
        basis.datapoints(net, data, "mox", 1)


def test_results_travel_and_teach_the_next_call(tmp_path: Path) -> None:
    net, x = mlp(4, 6, 3, act=nn.ReLU), normal(40, 4)
    for kind in ("local", "neuron", "pca"):
        basis = interaction_basis(net, [x], kind=kind, features={"0": 1})
        for other in (wb.open_result(basis.save(tmp_path / kind)), pickle.loads(pickle.dumps(basis))):
            assert isinstance(other, InteractionBasis) and repr(other) == repr(basis)
            for name in basis.TABLES:
                assert basis.frame(name).equals(other.frame(name))
            for field in ("means", "bases", "inverses"):
                one, two = getattr(basis, field), getattr(other, field)
                assert list(one) == list(two) and all(torch.equal(one[layer], two[layer]) for layer in one)
            assert json.dumps(dict(other.meta)) == json.dumps(dict(basis.meta))
            assert other.chain(net, [x]).layers == basis.layers
    assert "wb.interaction_graph(module, data, basis)" in repr(basis) and "pca basis" in repr(basis)
    parameters = set(basis.meta["parameters"]) | {"module", "data", "seed", "progress"}
    import inspect

    assert parameters == set(inspect.signature(interaction_basis).parameters)


# What hostile users do


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Hooks, modes, tensors, gradients and the global random states are the very ones afterwards.

    Python's own state is left out: the type checker of the tests draws from it.
    """

    def state() -> list[Any]:
        found: list[Any] = [torch.get_rng_state().tolist(), torch.is_grad_enabled()]
        found.append(np.random.get_state()[1].tolist())  # noqa: NPY002
        for path, part in module.named_modules(remove_duplicate=False):
            hooks = [len(getattr(part, name)) for name in vars(part) if name.endswith("_hooks")]
            found += [path, part.training, hooks]
            for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
                if tensor is not None:
                    grad = None if tensor.grad is None else tensor.grad.tolist()
                    found += [name, id(tensor), tensor.dtype, tensor.requires_grad, tensor._version, grad]
        return found

    before = state()
    yield
    assert state() == before


class Stop:
    """A callback that cancels at its n-th call and remembers what it was told."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.told = after, list[tuple[str, int, int]]()

    def __call__(self, progress: wb.Progress) -> None:
        self.told.append((progress.item, progress.done, progress.total))
        if self.after == len(self.told):
            raise wb.Cancelled


@pytest.mark.parametrize("kind", ["local", "integrated"])
def test_a_cancel_anywhere_keeps_the_layers_that_are_done(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Passes.__module__], "SECONDS", float("inf"))
    net, x = mlp(4, 6, 5, 3, act=nn.Tanh).train(), normal(40, 4)
    net[1].weight.grad = torch.ones_like(net[1].weight)
    data, listener = [x[:15], x[15:]], Stop()
    whole = interaction_basis(net, data, kind=kind, estimator="exact", points=2, progress=listener)
    dones = [done for _, done, _ in listener.told]
    assert dones == sorted(dones) and listener.told[-1] == ("", 4, 4)
    items = [item for item, _, _ in listener.told]
    assert set(items) == {"0", "2", "4", ""} | {
        f"{phase}, batch {batch} of 2" for phase in ("activations", "0", "2", "4") for batch in (1, 2)
    }
    items = [item.split(",")[0] for item in items]
    for place in sorted({2, *(items.index(item) + 1 for item in items)}):  # each phase's start, and a batch later
        done = dones[place - 1]
        with unchanged(net), pytest.raises(wb.Cancelled) as stop:
            interaction_basis(net, data, kind=kind, estimator="exact", points=2, progress=Stop(place))
        partial = stop.value.partial
        assert isinstance(partial, InteractionBasis) and partial.layers == whole.layers[4 - done :]
        for layer in partial.layers:
            assert torch.equal(partial.bases[layer], whole.bases[layer])
        if done < 4:
            assert partial.meta["cancelled"] == {"done": done, "total": 4}
            assert f"CANCELLED after {done} of 4 layers" in repr(partial)


PASSES: list[tuple[dict[str, Any], int, int]] = [  # passes a batch from the output to "4", and from "2" to "0"
    ({"estimator": "exact"}, 3, 5),
    ({"estimator": "Hutchinson", "probes": 7}, 7, 7),
    ({"kind": "integrated", "points": 4}, 4, 4),
]


@pytest.mark.parametrize(("options", "last", "first"), PASSES, ids=["exact", "Hutchinson", "integrated"])
def test_a_cancel_inside_a_batch_leaves_everything_as_before(
    options: Any, last: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = mlp(4, 6, 5, 3, act=nn.Tanh).train(), normal(40, 4)
    net[1].weight.grad = torch.ones_like(net[1].weight)
    data = [x[:15], x[15:]]
    monkeypatch.setattr(sys.modules[Passes.__module__], "SECONDS", 0.0)
    listener = Stop()
    whole = interaction_basis(net, data, progress=listener, **options)
    items = [item for item, _, _ in listener.told]
    for layer, passes in (("4", last), ("0", first)):
        for batch in (1, 2):
            inside = [item for item in items if item.startswith(f"{layer}, batch {batch} of 2, pass")]
            assert inside == [f"{layer}, batch {batch} of 2, pass {one} of {passes}" for one in range(1, passes + 1)]
    assert [done for _, done, _ in listener.told] == sorted(done for _, done, _ in listener.told)
    for place in [place for place, item in enumerate(items, start=1) if "pass 2" in item]:
        state = torch.get_rng_state()
        with unchanged(net), pytest.raises(wb.Cancelled) as stop:
            interaction_basis(net, data, progress=Stop(place), **options)
        partial = stop.value.partial
        assert torch.equal(state, torch.get_rng_state()) and torch.is_grad_enabled()
        done = listener.told[place - 1][1]
        assert partial.layers == whole.layers[4 - done :] and partial.meta["cancelled"] == {"done": done, "total": 4}
        assert all(torch.equal(partial.bases[layer], whole.bases[layer]) for layer in partial.layers)


def test_batches_of_other_lengths_are_counted_on() -> None:
    told: list[str] = []
    passes = Passes(told.append, "layer", 0)
    passes(Batch(0, ((), {}), 1, None, None))
    for _ in range(2):
        passes._told = float("-inf")
        passes.passed(1)
    assert told == ["layer, batch 1", "layer, batch 1, pass 1 of 1", "layer, batch 1, pass 2"]


def test_the_module_is_as_before() -> None:
    net, x = (
        seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 2))),
        normal(40, 4),
    )
    net.train()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    calls: list[int] = []
    handle = net[2].register_forward_hook(lambda *_: calls.append(1))
    with unchanged(net):
        interaction_basis(net, [x])
    assert calls
    handle.remove()


class Odd(nn.Module):
    """Two layers with something odd between them."""

    def __init__(self, odd: Callable[[Tensor], Tensor], width: int = 4) -> None:
        super().__init__()
        self.one, self.act, self.two, self.odd = nn.Linear(3, width), nn.Identity(), nn.Linear(width, 2), odd

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.odd(self.act(self.one(x))))


def test_operations_in_place_change_nothing() -> None:
    x = normal(30, 3)
    plain = interaction_basis(seeded(lambda: Odd(torch.relu)), [x], ["one", "two"])
    for odd in (torch.relu_, lambda z: z.mul_(1).relu_()):
        found = interaction_basis(seeded(lambda odd=odd: Odd(odd)), [x], ["one", "two"])
        for layer in plain.layers:
            same(found.bases[layer], plain.bases[layer], 1e-12)


@pytest.mark.parametrize("kind", ["local", "integrated", "gradient-flow"])
def test_what_has_no_derivative_is_named(kind: Any) -> None:
    for odd in (lambda z: z.detach() * 2, lambda z: z.detach().round() + 0 * z.detach()):
        net = seeded(lambda odd=odd: Odd(odd))
        with unchanged(net), pytest.raises(wb.ArgumentError, match="'two' does not depend on 'one' by anything diff"):
            interaction_basis(net, [normal(30, 3)], ["one", "two"], kind=kind, estimator="auto")


def test_chance_bypasses_and_repeats_are_refused_by_name() -> None:
    x = normal(30, 3)
    noisy = seeded(lambda: Odd(lambda z: z + torch.rand_like(z)))
    with unchanged(noisy), pytest.raises(wb.ArgumentError, match="not deterministic.*'two'"):
        interaction_basis(noisy, [x])

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            stem = self.stem(x)
            return self.head(stem + torch.tanh(self.inner(stem)))

    net = seeded(Residual)
    with unchanged(net), pytest.raises(wb.ArgumentError, match="'inner' does not determine 'head'.*'stem'.*residual"):
        interaction_basis(net, [x], ["stem", "inner"])
    assert interaction_basis(net, [x]).layers == ["stem", "head"]

    shared = nn.Linear(3, 3)
    twice = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(3, 2)).double()
    assert "0" not in interaction_basis(twice, [x]).layers
    with unchanged(twice), pytest.raises(wb.ArgumentError, match="'0'.*runs 2 times"):
        interaction_basis(twice, [x], ["0"])


def test_layers_come_in_the_order_in_which_they_run() -> None:
    net, x = mlp(4, 6, 5, 3), normal(40, 4)
    one, other = (interaction_basis(net, [x], names) for names in (["4", "2"], ["2", "4"]))
    assert one.layers == other.layers == ["2", "4", "5"]
    assert all(torch.equal(one.bases[layer], other.bases[layer]) for layer in one.layers)
    for names, message in ((["nine"], "no submodule 'nine'"), (["2", "9*"], "no submodule '9")):
        with unchanged(net), pytest.raises(wb.LayerNotFoundError, match=message):
            interaction_basis(net, [x], names)


def test_data_that_cannot_be_used_are_refused() -> None:
    net, x = mlp(4, 6, 3), normal(40, 4)
    for data, kind, message in (
        ((batch for batch in [x]), wb.ArgumentError, "one-shot generator"),
        ([], wb.ArgumentError, "data is empty"),
        ([x[:0]], wb.WorkbenchError, "samples"),
        ([x, x[:0]], wb.WorkbenchError, "batch 1"),
        ([x, normal(3, 5)], wb.EvaluationError, "batch 1"),
        ([torch.full_like(x, torch.nan)], wb.ArgumentError, "NaN"),
        ([x, torch.full_like(x, torch.inf)], wb.ArgumentError, "'0' are NaN or infinite"),
    ):
        with unchanged(net), pytest.raises(kind, match=message):
            interaction_basis(net, data)


def test_infinite_gradients_name_the_segment() -> None:
    root = Odd(lambda z: (z**2).sqrt())  # 0·∞ where a unit gives 0
    root.one.bias.data.zero_()
    x = torch.cat([normal(30, 3), torch.zeros(1, 3, dtype=DOUBLE)])
    with pytest.raises(wb.ArgumentError, match="gradients from 'two' to 'one' are NaN or infinite"):
        interaction_basis(seeded(lambda: root), [x], ["one", "two"], estimator="exact")


def test_one_sample_has_constants_only() -> None:
    net, x = mlp(4, 6, 3), normal(1, 4)
    for kind in ("local", "integrated", "pca", "gradient-flow"):
        basis = interaction_basis(net, [x], kind=kind)
        rows = basis.frame("layers").set_index("layer")
        assert rows["nodes"].tolist() == [1, 1, 4]
        assert rows["verdict"].tolist() == ["constant"] * 3
        assert rows["reason"].str.contains("same for all data").all() and (rows["predicted_nodes"][:-1] == 1).all()
        assert basis.restored("2", torch.ones(1, 1, dtype=DOUBLE)).tolist() == basis.means["2"][None].tolist()


def test_rounding_is_no_direction() -> None:
    """Equal samples differ in the last bit where products are blocked."""
    single = mlp(300, 300, 3)
    rows = interaction_basis(single, [normal(1, 300).repeat(37, 1)]).frame("layers")
    assert rows["rank"].tolist() == [0, 0, 0]


def test_before_a_constant_layer_nothing_has_influence() -> None:
    """The units of the middle layer are off for all data (noise alone, with which layers are tested, wakes them)."""
    net = mlp(3, 4, 3, act=nn.ReLU)
    with torch.no_grad():
        net[1].weight *= 4
        net[1].bias.fill_(-3)
    x = torch.cat([torch.zeros(8, 3, dtype=DOUBLE), 0.1 * normal(40, 3)])
    basis = interaction_basis(net, [x])
    rows = basis.frame("layers").set_index("layer")
    assert rows.loc["2", ["verdict", "nodes"]].tolist() == ["constant", 1]
    assert rows.loc["0", ["verdict", "nodes"]].tolist() == ["no influence", 1]
    assert "'2' has no directions" in rows.loc["0", "reason"] and rows.loc["0", "rank"] == 3
    edges = interaction_graph(net, [x], basis).edges
    assert edges["0"].tolist() == [[0.0]] and edges["2"].shape == (4, 1) and not edges["2"][0].any()


def test_half_precision_modules_are_cast_or_said() -> None:
    double, x = mlp(4, 6, 3), normal(40, 4)
    half = copy.deepcopy(double).half()
    with unchanged(half):
        found = interaction_basis(half, [x.half()])
    expected = interaction_basis(copy.deepcopy(half).double(), [x.half().double()])
    for layer in found.layers:
        same(found.weights(layer), expected.weights(layer), 1e-12)
    own = interaction_basis(half, [x.half()], dtype="own")
    assert own.meta["dtype"] == "float16" and own.bases["2"].dtype == DOUBLE
    same(own.weights("2")[:2], expected.weights("2")[:2], 0.05)


def test_hidden_layers_may_be_called_output() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.head(self.output(x)))

    net, x = seeded(Named), normal(30, 3)
    basis = interaction_basis(net, [x])
    assert basis.layers[0] == "output" and basis.layers[-1] == "(output)"
    assert basis.chain(net, [x]).layers == basis.layers


ARGUMENTS = {
    "kind='lokal'": ("ArgumentError", "Did you mean 'local'"),
    "estimator='fast'": ("ArgumentError", "estimator='fast': expected 'auto'"),
    "estimator='closed form', layers=['0', '4']": ("ArgumentError", "no closed form"),
    "probes=1": ("ArgumentError", "at least 2"),
    "probes=2.5": ("ArgumentError", "probes=2.5"),
    "positions='first'": ("ArgumentError", "expected 'all' or 'last'"),
    "quadrature='simpson'": ("ArgumentError", "quadrature='simpson'"),
    "points=0": ("ArgumentError", "points=0"),
    "threshold=1": ("ArgumentError", "threshold=1"),
    "threshold=-0.1": ("ArgumentError", "threshold=-0.1"),
    "threshold=math.nan": ("ArgumentError", "threshold=nan"),
    "dtype='float16'": ("ArgumentError", "dtype='float16'"),
    "device='tpu'": ("ArgumentError", "tpu"),
    "progress=3": ("ArgumentError", "progress=3"),
    "features={'9': 1}": ("LayerNotFoundError", "features names '9'"),
    "center='yes'": ("ArgumentError", "center='yes'"),
    "seed='a'": ("ArgumentError", "seed='a'"),
    "layers=[3]": ("ArgumentError", "named 3"),
}
SCRIPT = """
import json, math, sys, torch
from torch import nn
from workbench.degeneracy.interaction_basis import interaction_basis
net = nn.Sequential(nn.Identity(), nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
x, raised = torch.randn(20, 3), {}
calls = {code: f"interaction_basis(net, [x], {code})" for code in sys.argv[1:]}
calls |= {"module": "interaction_basis('net', [x])", "data": "interaction_basis(net, x)"}
for name, code in calls.items():
    try:
        raised[name] = ["nothing", repr(eval(code))]
    except Exception as error:
        raised[name] = [type(error).__name__, str(error)]
print(json.dumps(raised))
"""


def test_wrong_arguments_are_told(unchecked: Callable[..., Any]) -> None:
    found = unchecked(SCRIPT, *ARGUMENTS)
    expected = ARGUMENTS | {
        "module": ("ArgumentError", "expected an nn.Module"),
        "data": ("ArgumentError", "pass [data]"),
    }
    for code, (kind, message) in expected.items():
        assert found[code][0] == kind and message in found[code][1], (code, found[code])

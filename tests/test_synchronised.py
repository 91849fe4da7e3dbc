"""ReLUs that fire together: ranks of Jacobians by autograd, counts by numpy, and what is a ReLU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from workbench.degeneracy.audit import Degeneracy, degeneracy
from workbench.degeneracy.synchronised import CoFiring, free_directions, relu_gates
from workbench.runtime.cut_test import layer_chain


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with normal weights that depend on the seed alone."""
    module.double()
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=1000 * seed + index))
    return module


def jacobian(module: nn.Module, inputs: Tensor, only: str = "") -> Tensor:
    """The outputs by the parameters, by autograd: (samples·outputs, parameters)."""
    fixed = {name: value.detach() for name, value in module.named_parameters()}
    free = {name: value for name, value in fixed.items() if name.startswith(only)}
    found = jacrev(lambda own: functional_call(module, fixed | own, (inputs,)).flatten())(free)
    return torch.cat([part.reshape(part.shape[0], -1) for part in found.values()], 1)


def rank(matrix: Tensor) -> int:
    """Singular values above 1e-9 of the largest; the gap is asserted, so that the rank is no matter of taste."""
    values = torch.linalg.svdvals(matrix)
    relative = values / values[0]
    assert not bool(((relative > 1e-12) & (relative < 1e-7)).any()), relative
    return int((relative > 1e-9).sum())


def synchronised_net(k: int) -> tuple[nn.Module, Tensor]:
    """3-8-4 without copies: k units whose hyperplanes lie in a gap of 1200 points, each with weights of its own."""
    net = filled(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4, bias=False)), seed=3)
    points = 2 * torch.rand(20000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    first = net[0]
    with torch.no_grad():
        first.weight.div_(first.weight.norm(dim=1, keepdim=True))
        first.bias.mul_(0.2)
        for unit in range(1, k):
            first.weight[unit] = 1.5 * (first.weight[0] + 0.05 * drawn(3, seed=unit))
            first.bias[unit] = 1.5 * (first.bias[0] + 0.05 * drawn(1, seed=unit)[0])
        away = (points @ first.weight[0] + first.bias[0]).abs()
    return net, points[away > 0.3][:1200]


@pytest.mark.parametrize(("k", "expected", "pairs", "free"), [(0, 56, 0, 0), (2, 54, 1, 2), (3, 50, 3, 6)])
def test_golden_synchronised_relus_free_k_times_k_minus_1_directions(
    k: int, expected: int, pairs: int, free: int
) -> None:
    net, points = synchronised_net(k)
    assert sum(parameter.numel() for parameter in net.parameters()) == 64 and len(points) == 1200
    assert rank(jacobian(net, points)) == expected
    found = degeneracy(net, [points[:700], points[700:]], device="cpu")
    row = found.row("1")
    assert (row["synchronised"], row["dead"], row["relu"]) == (pairs, 0, "output")
    clusters = found.tables["clusters"]
    assert sum(clusters["free_directions"]) == free
    assert clusters["units"] == ((" ".join(map(str, range(k))),) if k else ())
    assert clusters["kind"] == (("synchronised",) if k else ())
    assert 64 - 8 - free == expected


@pytest.mark.parametrize("size", range(1, 7))
@pytest.mark.parametrize(("fan_in", "fan_out"), [(4, 4), (2, 5), (5, 2), (1, 3), (3, 1)])
def test_free_directions_are_those_of_a_linear_block(size: int, fan_in: int, fan_out: int) -> None:
    """A linear network is k units that fire together and always: its kernel is what is free, and k rescalings."""
    block = filled(nn.Sequential(nn.Linear(fan_in, size, bias=False), nn.Linear(size, fan_out, bias=False)))
    kernel = size * (fan_in + fan_out) - rank(jacobian(block, drawn(12, fan_in, seed=9)))
    assert kernel - size == free_directions(size, fan_in, fan_out)


@pytest.mark.parametrize("size", range(1, 7))
@pytest.mark.parametrize(("fan_in", "fan_out"), [(4, 4), (2, 5), (5, 2)])
def test_units_that_always_fire_leave_their_biases_to_the_next(size: int, fan_in: int, fan_out: int) -> None:
    block = filled(nn.Sequential(nn.Linear(fan_in, size), nn.Linear(size, fan_out)))
    matrix = jacobian(block, drawn(12, fan_in, seed=9))
    kernel = matrix.shape[1] - rank(matrix)
    assert kernel - size == free_directions(size, fan_in + 1, fan_out, shifts=True)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_numpy(seed: int) -> None:
    fires = np.random.default_rng(seed).random((40, 5)) < 0.4
    columns = [0, 1, 0, 2, 3, 1, 0, 4]
    values = np.where(fires[:, columns], 1.5, -0.5)
    values[:, 4], values[:, 6] = -1.0, 2.0  # dead, and always
    firing = CoFiring(8)
    for part in (values[:7], values[7:7], values[7:]):
        firing.update(torch.from_numpy(part))
    on = values > 0
    same = [(i, j) for i in range(8) for j in range(i) if on[:, i].any() and (on[:, i] == on[:, j]).all()]
    assert firing.pairs == len(same) and firing.dead == int((~on.any(0)).sum())
    assert [cluster.units for cluster in firing.clusters()] == [(0, 2), (1, 5), (6,)]
    assert [cluster.always for cluster in firing.clusters()] == [False, False, True]


class Applied(nn.Module):
    """A function between two linear layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(3, 4), function, nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Any:
        return self.last(self.function(self.first(inputs)))


def gates(module: nn.Module, inputs: Tensor, layers: Any = None) -> dict[str, tuple[str, float]]:
    chain = layer_chain(filled(module), [inputs], layers, device="cpu")
    with chain.lent():
        found = relu_gates(chain, next(chain.batches()))
    return {layer: (gate.role, gate.level) for layer, gate in found.items()}


RELUS = {
    "F.relu": (F.relu, 0.0),
    "relu_": (lambda x: x.relu_(), 0.0),
    "a copy": (lambda x: F.relu(x.clone()), 0.0),
    "transposed": (lambda x: F.relu(x.T).T, 0.0),
    "contiguous": (lambda x: F.relu(x.T.contiguous()).T, 0.0),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), 0.0),
    "leaky_relu_": (lambda x: F.leaky_relu(x, 0.2, inplace=True), 0.0),
    "clamp": (lambda x: x.clamp(min=0), 0.0),
    "clamp_min": (lambda x: torch.clamp_min(x, -0.5), -0.5),
    "threshold": (lambda x: F.threshold(x, 0.5, 0.0), 0.5),
    "with a residual": (lambda x: x + F.relu(x), 0.0),
}
NO_RELUS = {
    "gelu": F.gelu,
    "relu6": F.relu6,
    "clamp on both sides": lambda x: x.clamp(0, 1),
    "a falling slope": lambda x: F.leaky_relu(x, -0.2),
    "a threshold that jumps up": lambda x: F.threshold(x, 0.0, 3.0),
    "moved": lambda x: F.relu(x + 1),
    "moved in place": lambda x: x.add_(1).relu_(),
    "half of it": lambda x: torch.cat([F.relu(x[:, :2]), x[:, 2:]], 1),
    "none": lambda x: x,
}


@pytest.mark.parametrize("name", RELUS)
def test_a_relu_that_is_a_function_is_found(name: str) -> None:
    function, level = RELUS[name]
    assert gates(Applied(function), drawn(6, 3)) == {"first": ("input", level)}


@pytest.mark.parametrize("name", NO_RELUS)
def test_what_is_no_relu_of_the_layer_is_not_taken_for_one(name: str) -> None:
    assert gates(Applied(NO_RELUS[name]), drawn(6, 3)) == {}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU])
def test_a_relu_that_is_a_module_is_the_layer(kind: Any, inplace: bool) -> None:
    net = nn.Sequential(nn.Linear(3, 4), kind(inplace=inplace), nn.Linear(4, 2))
    assert gates(net, drawn(6, 3)) == {"1": ("output", 0.0)}
    assert gates(net, drawn(6, 3), ["0"]) == {"0": ("input", 0.0)}  # before it is changed in place


def test_a_module_that_ends_with_a_relu_is_found() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return F.relu(self.fc(inputs)).unsqueeze(1).flatten(1)

    net = nn.Sequential(Block(), nn.Linear(4, 2))
    assert gates(net, drawn(6, 3), ["0"]) == {"0": ("output", 0.0)}


@pytest.mark.parametrize("name", RELUS)
def test_firing_is_counted_where_the_relu_reads_more_than_its_level(name: str) -> None:
    function, level = RELUS[name]
    net, points = filled(Applied(function)), drawn(50, 3, seed=4)
    on = ((points @ net.first.weight.T + net.first.bias).detach() > level).numpy()
    pairs = sum(on[:, i].any() and (on[:, i] == on[:, j]).all() for i in range(4) for j in range(i))
    row = degeneracy(net, [points], device="cpu").row("first")
    assert (row["synchronised"], row["dead"], row["relu"]) == (pairs, int((~on.any(0)).sum()), "input")


def copies(between: nn.Module, following: nn.Module, writer: nn.Module | None = None) -> nn.Module:
    """A network whose first two units are copies of each other."""
    net = filled(nn.Sequential(writer or nn.Conv1d(2, 4, 3), between, nn.ReLU(), following))
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = net[0].weight[0], net[0].bias[0]
    return net


def clusters_of(net: nn.Module, inputs: Tensor, layers: Any = None) -> list[tuple[str, Any, str]]:
    features = {"2": 1} if inputs.ndim == 3 else None  # nothing tells channels from steps after a one-dimensional ReLU
    table = degeneracy(net, [inputs], layers, features=features, device="cpu").tables["clusters"]
    rows = zip(table["units"], table["free_directions"], table["reason"], strict=True)
    return [(units, None if free != free else free, reason) for units, free, reason in rows]


def test_a_cluster_of_channels_goes_through_fixed_linear_maps() -> None:
    after = nn.Sequential(nn.AvgPool1d(2), nn.Flatten(), nn.Linear(4 * 4, 2))
    assert clusters_of(copies(nn.Identity(), after), drawn(9, 2, 10)) == [("0 1", 2.0, "")]
    assert clusters_of(copies(nn.AvgPool1d(2), nn.Conv1d(4, 2, 2)), drawn(9, 2, 10)) == [("0 1", 2.0, "")]


@pytest.mark.parametrize(
    ("between", "following", "reason"),
    [
        (nn.MaxPool1d(2), nn.Conv1d(4, 3, 2), "what lies between '0' and the ReLUs is not linear"),
        (
            nn.Identity(),
            nn.Sequential(nn.MaxPool1d(2), nn.Conv1d(4, 3, 2)),
            "between the ReLUs and '3.1' is not linear",
        ),
        (nn.Identity(), nn.Conv1d(4, 4, 2, groups=2), "'3' reads them, which is no free matrix"),
        (nn.Identity(), nn.AvgPool1d(2), "no weights read them"),
    ],
)
def test_a_cluster_says_why_its_free_directions_are_unknown(
    between: nn.Module, following: nn.Module, reason: str
) -> None:
    ((units, free, told),) = clusters_of(copies(between, following), drawn(9, 2, 10), ["2"])
    assert units == "0 1" and free is None and reason in told


def test_groups_before_and_a_last_layer_have_no_free_matrix() -> None:
    writer = nn.Conv1d(2, 4, 3, groups=2)
    ((_, free, told),) = clusters_of(copies(nn.Identity(), nn.Conv1d(4, 3, 2), writer), drawn(9, 2, 10))
    assert free is None and "'0' makes them, which is no free matrix" in told
    net = copies(nn.Identity(), nn.Identity())[:3]
    ((_, free, told),) = clusters_of(net, drawn(9, 2, 10))
    assert free is None and told == "no weights read them"


class Summed(nn.Module):
    """A sum of features, which no weights follow."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.cumsum(1)


class Residual(nn.Module):
    """The ReLUs' layer is read by weights and by a sum."""

    def __init__(self, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(3, 4), nn.Linear(4, 4), last or nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.first(inputs))
        return self.last(hidden + self.inner(hidden))


class Twice(nn.Module):
    """The matrix before the ReLUs is used a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.act, self.last = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.act(self.same(torch.tanh(self.same(inputs)))))


def test_weights_that_are_not_free_are_told() -> None:
    for net, name, reason in (
        (Residual(), "first", "'last' reads them and what other weights make of them"),
        (Residual(Summed()), "first", "something reads them beside the weights after them"),
        (Twice(), "same", "'same' makes them, which is no free matrix"),
    ):
        filled(net)
        with torch.no_grad():
            first = getattr(net, name)
            first.weight[1], first.bias[1] = first.weight[0], first.bias[0]
        ((units, free, told),) = clusters_of(net, drawn(60, 3))
        assert units == "0 1" and free is None and reason in told


def test_a_batch_norm_before_the_relu_is_a_bias() -> None:
    """Three units, two inputs: without the shift of the norm there would be a column less."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 4))
    filled(net)
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[:1].expand(3, 2))
        net[1].weight.fill_(1.0)
        net[1].bias.fill_(0.25)
    ((units, free, told),) = clusters_of(net, drawn(60, 2))
    assert (units, free, told) == ("0 1 2", float(free_directions(3, 3, 4)), "")
    assert free_directions(3, 3, 4) != free_directions(3, 2, 4)


def test_units_that_always_fire_are_a_cluster_of_their_own() -> None:
    net = filled(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with torch.no_grad():
        net[0].bias[2] = 100.0
        net[0].bias[3] = -100.0
        net[0].weight[1], net[0].bias[1] = net[0].weight[0], net[0].bias[0]
    found: Degeneracy = degeneracy(net, [drawn(80, 3)], device="cpu")
    table = found.tables["clusters"]
    assert table["kind"] == ("synchronised", "always") and table["units"] == ("0 1", "2")
    assert table["free_directions"] == (2.0, 1.0)
    assert found.row("1")["dead"] == 1

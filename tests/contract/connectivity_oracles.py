"""Oracles of the primitives of connectivity: brute force, closed forms, plain torch."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

import workbench as wb


def _network(seed: int = 0, width: int = 4) -> nn.Sequential:
    """A convolution, a flatten and two linear layers, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 3), nn.ReLU(), nn.Linear(3, 2)
        ).double()


def _images() -> Tensor:
    return torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def permutation_groups_oracle() -> None:
    """Two groups by hand, the first behind a flatten of four positions; another order of them, the same function."""
    network, images = _network(), _images()
    groups = wb.permutation_groups(network, images)
    found = groups.frame()[["size", "axes"]].to_numpy().tolist()
    assert found == [
        [4, "0.weight[0], 0.bias[0], 3.weight[1]"],
        [3, "3.weight[0], 3.bias[0], 5.weight[1]"],
    ]
    shuffled = _network()
    shuffled.load_state_dict(dict(groups.apply(network, groups.random(seed=1))))
    torch.testing.assert_close(shuffled(images), network(images), rtol=1e-12, atol=1e-12)
    assert not torch.equal(shuffled[0].weight, network[0].weight)


def match_oracle() -> None:
    """Every order of four units is tried, and none is nearer than the one that is found."""
    a, b = (
        {name: torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for name, shape in shapes.items()}
        for seed, shapes in enumerate([{"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}] * 2)
    )
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    found = wb.match(wb.permutation_groups(module, torch.zeros(1, 3)), a, b)
    best = max(
        float((a["0.weight"] * b["0.weight"][list(order)]).sum())
        + float((a["0.bias"] * b["0.bias"][list(order)]).sum())
        + float((a["2.weight"] * b["2.weight"][:, list(order)]).sum())
        for order in permutations(range(4))
    ) + float((a["2.bias"] * b["2.bias"]).sum())
    assert found.objective == pytest.approx(best, rel=1e-6)


def match_many_oracle() -> None:
    """Three copies of one network whose units were shuffled come back to one network."""
    network = _network(width=16)
    groups = wb.permutation_groups(network, _images())
    copies = [groups.apply(network, groups.random(seed)) for seed in range(3)]
    found = wb.match_many(groups, copies)
    for model, copy in enumerate(copies):
        for name, tensor in found.apply(copy, model).items():
            assert torch.equal(tensor, copies[0][name])


def barrier_oracle() -> None:
    """w⁴ − 2w² has a barrier of 1 between its minima −1 and 1; a tilted line has none."""
    line, data = nn.Linear(1, 1, bias=False), [(torch.ones(1, 1), torch.zeros(1, 1))]
    ends = [{"weight": torch.tensor([[w]])} for w in (-1.0, 1.0)]
    double_well = wb.evaluator(line, data, lambda outputs, _: (outputs**4 - 2 * outputs**2).mean(), device="cpu")
    assert wb.barrier(double_well, *ends, batch_norm=None).barrier == pytest.approx(1, rel=1e-6)
    tilted = wb.evaluator(line, data, lambda outputs, _: outputs.mean(), device="cpu")
    assert wb.barrier(tilted, *ends, batch_norm=None).barrier == pytest.approx(0, abs=1e-6)


def repair_oracle() -> None:
    """Plain torch measures the first layer's outputs of the three networks: means and spreads lie between the ends'."""
    a, b, images = _network(0), _network(1), _images()
    evaluator = wb.evaluator(_network(2), [(images, torch.zeros(5, dtype=torch.int64))], "cross_entropy", device="cpu")
    middle = _network(3)
    middle.load_state_dict(dict(wb.repair(evaluator, a, b, t=0.25)))
    outputs = [network[0](images).movedim(1, 0).flatten(1) for network in (a, b, middle)]
    for moment in (torch.mean, lambda x, dim: torch.std(x, dim, correction=0)):
        first, second, between = (moment(output, dim=1) for output in outputs)
        torch.testing.assert_close(between, 0.75 * first + 0.25 * second, rtol=1e-5, atol=1e-5)


def surface_oracle() -> None:
    """The loss ‖w‖² on the plane through three points is the squared distance of a point from the origin, by hand."""
    module = nn.Linear(2, 1, bias=False).double()
    data = [(torch.eye(2, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64))]
    squared = wb.evaluator(module, data, lambda outputs, _: outputs.square().sum(), device="cpu")
    points = [{"weight": torch.tensor([point], dtype=torch.float64)} for point in ((0.0, 0.0), (3.0, 0.0), (1.0, 2.0))]
    grid = wb.surface(squared, *points, points=5, batch_norm=None).frame()
    assert ((grid["x"] ** 2 + grid["y"] ** 2 - grid["loss"]).abs() < 1e-12).all() and len(grid) == 25

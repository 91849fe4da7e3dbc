"""Oracles of the primitives of degeneracy: numpy's covariances, diagonal networks by hand, planted blocks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb

SCALES = (3.0, 2.0, 1.0)


def _diagonal() -> tuple[nn.Module, list[Tensor]]:
    """Diag(3, 2, 1)·x over the corners of a cube, whose covariance is 1."""
    net = nn.Sequential(nn.Identity(), nn.Linear(3, 3, bias=False, dtype=torch.float64))
    net[1].weight.data = torch.diag(torch.tensor(SCALES, dtype=torch.float64))
    corner = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    return net, [torch.cartesian_prod(corner, corner, corner)]


def activations_oracle() -> None:
    """Numpy's covariance and its eigenvalues."""
    net = nn.Sequential(nn.Linear(4, 3, dtype=torch.float64), nn.Tanh())
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = wb.activations(net, [x[:20], x[20:]])
    expected = np.cov(net(x).detach().numpy().T, bias=True)
    np.testing.assert_allclose(found.covariances["1"], expected, rtol=1e-10)
    np.testing.assert_allclose(found.eigenvalues["1"], np.linalg.eigvalsh(expected)[::-1], rtol=1e-10)


def degeneracy_oracle() -> None:
    """Golden test 2: sixteen features read through four: rank 16 of what is there, 4 of what is felt."""
    random = torch.Generator().manual_seed(0)
    first, second = (nn.Linear(*shape, bias=False, dtype=torch.float64) for shape in ((16, 4), (4, 20)))
    for part in (first, second):
        part.weight.data = torch.randn(part.weight.shape, generator=random, dtype=torch.float64)
    x = torch.randn(200, 16, generator=random, dtype=torch.float64)
    row = wb.degeneracy(nn.Sequential(nn.Identity(), first, second, nn.ReLU()), [x], ["0"]).row("0")
    assert (row["activation_rank"], row["gradient_rank"]) == (16, 4)


def interaction_basis_oracle() -> None:
    """By hand: with a covariance of 1 the weights are the squared scales, and the directions the axes."""
    net, data = _diagonal()
    basis = wb.interaction_basis(net, data, "0")
    assert basis.weights("0").tolist() == pytest.approx([9, 4, 1], rel=1e-12)
    torch.testing.assert_close(basis.bases["0"], net[1].weight.data, rtol=1e-12, atol=1e-12)


def interaction_graph_oracle() -> None:
    """By hand: each direction moves its own output alone, by its weight."""
    net, data = _diagonal()
    edges = wb.interaction_graph(net, data, wb.interaction_basis(net, data, "0")).edges["0"]
    expected = torch.block_diag(torch.zeros(1, 1), torch.diag(torch.tensor(SCALES) ** 2)).double()
    torch.testing.assert_close(edges, expected, rtol=1e-12, atol=1e-12)


def interaction_modules_oracle() -> None:
    """Three directions that move one output each: three modules, Q = 1 − Σ (share of the edges)²."""
    net, data = _diagonal()
    graph = wb.interaction_graph(net, data, wb.interaction_basis(net, data, "0"))
    found = wb.interaction_modules(graph, norm="id", nulls=2)
    assert found.frame("modules")["size"].tolist() == [2, 2, 2]
    shares = np.array(SCALES) ** 2 / 14
    assert found.modularity == pytest.approx(1 - (shares**2).sum(), rel=1e-12)


def ablated_oracle() -> None:
    """Without its last directions the network misses their share of the targets: the mean of the dropped squares."""
    net, (x,) = _diagonal()
    evaluator = wb.evaluator(net, [(x, net(x).detach())], "mse", device="cpu")
    basis = wb.interaction_basis(net, [x], "0")
    losses = [wb.ablated(evaluator, basis, "0", kept)["loss"] for kept in range(5)]
    assert losses == pytest.approx([14 / 3, 14 / 3, 5 / 3, 1 / 3, 0], rel=1e-12, abs=1e-15)


def ablation_oracle() -> None:
    """The same by the whole curve, and the smallest number within tolerance."""
    net, (x,) = _diagonal()
    evaluator = wb.evaluator(net, [(x, net(x).detach())], "mse", device="cpu")
    found = wb.ablation(evaluator, wb.interaction_basis(net, [x], "0"), "0", tolerance=0.5)
    points = dict(zip(found.tables["points"]["kept"], found.tables["points"]["loss"], strict=True))
    assert [points[kept] for kept in range(5)] == pytest.approx([14 / 3, 14 / 3, 5 / 3, 1 / 3, 0], abs=1e-15)
    assert found.needed == 3 and found.mask.tolist() == [True, True, True, False]

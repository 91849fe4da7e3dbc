"""Alignment of singular vectors, against its sum written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from workbench.connectivity import match, permutation_groups, singular_alignment


def matrix(rows: int, cols: int, seed: int, rank: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if rank is None:
        return rng.normal(size=(rows, cols))
    return rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, cols))


def direct(a: np.ndarray, b: np.ndarray, gamma: float) -> tuple[float, float]:
    """Σ_i Σ_j (u_i·u'_j)(v_i·v'_j) over the singular vectors with σ ≥ γσmax, and √(n·n')."""
    kept = []
    for one in (a, b):
        u, s, vt = np.linalg.svd(one, full_matrices=False)
        zero = len(s) * 0 + max(one.shape) * np.finfo(float).eps
        many = [k for k in range(len(s)) if s[0] > 0 and s[k] >= max(gamma, zero) * s[0]]
        kept.append((u, vt, many))
    (u, vt, first), (w, xt, second) = kept
    total = 0.0
    for i in first:
        for j in second:
            total += float(u[:, i] @ w[:, j]) * float(vt[i] @ xt[j])
    return total, (len(first) * len(second)) ** 0.5


SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7))
GAMMAS = [0.0, 0.1, 0.3, 0.7, 1.0]


@given(SHAPES, st.integers(0, 2**32))
def test_it_is_the_double_sum(shape: tuple[int, int], seed: int) -> None:
    a, b = matrix(*shape, seed), matrix(*shape, seed + 1)
    found = singular_alignment(torch.from_numpy(a), torch.from_numpy(b), GAMMAS)
    for gamma, pair in zip(GAMMAS, found, strict=True):
        assert pair == pytest.approx(direct(a, b, gamma), abs=1e-9)


@given(SHAPES, st.integers(0, 2**32), st.sampled_from(GAMMAS), st.sampled_from([1.0, -1.0, 2.5, 1e-200, 1e150]))
def test_it_lies_between_minus_1_and_1_and_knows_no_scale(
    shape: tuple[int, int], seed: int, gamma: float, scale: float
) -> None:
    a, b = torch.from_numpy(matrix(*shape, seed)), torch.from_numpy(matrix(*shape, seed + 1))
    ((overlap, count),) = singular_alignment(a, b, [gamma])
    assert abs(overlap) <= count * (1 + 1e-12)
    ((own, vectors),) = singular_alignment(a, scale * a, [gamma])
    assert own == pytest.approx(np.sign(scale) * vectors, rel=1e-9)
    assert vectors == int((torch.linalg.svdvals(a) >= gamma * torch.linalg.svdvals(a)[0] * (1 - 1e-12)).sum())


@given(SHAPES, st.integers(0, 2**32))
def test_permuting_both_matrices_alike_changes_neither_it_nor_singular_values(
    shape: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = (rng.permutation(size) for size in shape)
    a, b = matrix(*shape, seed), matrix(*shape, seed + 1)
    before, after = (
        singular_alignment(torch.from_numpy(x), torch.from_numpy(y), GAMMAS)
        for x, y in ((a, b), (a[rows][:, cols].copy(), b[rows][:, cols].copy()))
    )
    assert np.allclose(before, after, atol=1e-9)
    assert np.allclose(np.linalg.svd(a)[1], np.linalg.svd(a[rows][:, cols])[1])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_is_zero_to_rounding_is_left_out_at_gamma_0(rank: int) -> None:
    a, b = (torch.from_numpy(matrix(9, 6, seed, rank)) for seed in (0, 1))
    ((overlap, count),) = singular_alignment(a, b, [0.0])
    assert count == rank
    projected = torch.linalg.pinv(a, hermitian=False)
    u, s, vh = torch.linalg.svd(b, full_matrices=False)
    polar = u[:, :rank] @ vh[:rank]
    left, _, right = torch.linalg.svd(projected.T, full_matrices=False)
    assert overlap == pytest.approx(float((left[:, :rank] @ right[:rank] * polar).sum()), abs=1e-9)
    assert [int(n**2 + 0.5) for _, n in singular_alignment(a, torch.zeros(9, 6), [0.0, 1.0])] == [0, 0]


def test_orthogonal_matrices_by_hand() -> None:
    """U Vᵀ of a rotation is itself, so that the overlap is the trace of their product."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    ((overlap, count),) = singular_alignment(torch.eye(2), turn, [0.0])
    assert (overlap, count) == (pytest.approx(1.2), 2.0)
    assert singular_alignment(torch.zeros(2, 2), torch.zeros(2, 2), [0.0, 0.5]) == [(0.0, 0.0)] * 2
    assert singular_alignment(torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2), [0.6]) == [(1.0, 2**0.5)]
    assert singular_alignment(torch.eye(2), torch.eye(2), []) == []


def test_the_share_of_all_layers_is_the_sum_over_them() -> None:
    """R = Σ overlap / Σ √(n_A·n_B); a convolution is a matrix of its filters."""
    module = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3))
    groups = permutation_groups(module, torch.zeros(1, 2, 4, 4))
    draw = torch.Generator().manual_seed(0)
    a, b = ({n: torch.randn(t.shape, generator=draw) for n, t in module.state_dict().items()} for _ in range(2))
    found = match(groups, a, b, gammas=(0.0, 0.4, 1.0))
    moved = found.apply(b)
    for gamma in (0.0, 0.4, 1.0):
        totals = np.zeros((2, 2))
        for name in ("0.weight", "3.weight", "5.weight"):
            mine, before, after = (flat(weights[name]) for weights in (a, b, moved))
            totals += [direct(mine, other, gamma) for other in (before, after)]
        assert found.alignment(gamma, before=True) == pytest.approx(totals[0, 0] / totals[0, 1], abs=1e-9)
        assert found.alignment(gamma) == pytest.approx(totals[1, 0] / totals[1, 1], abs=1e-9)
    assert np.isnan(found.alignment(0.2))
    assert found.frame("alignment").depth.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert match(groups, a, b, gammas=()).frame("alignment").empty
    assert match(groups, a, a).alignment(0.0) == pytest.approx(1, abs=1e-12)


def flat(tensor: Tensor) -> np.ndarray:
    return tensor.double().flatten(1).numpy()

"""Leading singular vectors and where they lie: spikes, Hadamard matrices, random vectors, and numpy's SVD."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard
from torch import Tensor

from workbench.errors import ArgumentError, LayerError
from workbench.spectra.vectors import leading_vectors, localisation

EULER = 0.5772156649015329


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (30, 30), (1, 4), (4, 1), (1, 1), (2000, 300)])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_values_and_vectors_are_numpys(shape: tuple[int, int], count: int) -> None:
    matrix = normal(*shape)
    found = leading_vectors(matrix, count)
    left, values, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    many = min(count, *shape)
    assert found.left_vectors.shape == (many, shape[0]) and found.right_vectors.shape == (many, shape[1])
    np.testing.assert_allclose(found.singular_values, values[:many], rtol=1e-10)
    assert not found.degenerate.any()
    for ours, theirs in ((found.left_vectors.numpy(), left.T), (found.right_vectors.numpy(), right)):
        np.testing.assert_allclose(np.abs((ours * theirs[:many]).sum(1)), 1, atol=1e-10)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-12)
    product = matrix @ found.right_vectors.T
    np.testing.assert_allclose(product, (found.left_vectors.T * found.singular_values), atol=1e-8)
    mass = left.T[:many] ** 2
    np.testing.assert_allclose(found.left.participation_ratio, 1 / (mass**2).sum(1), rtol=1e-6)
    largest = np.sort(mass, axis=1)[:, -math.ceil(shape[0] / 100) :].sum(1)
    np.testing.assert_allclose(found.left.largest_share, largest, rtol=1e-6)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_a_spike_is_on_one_coordinate_and_a_hadamard_vector_on_all(size: int) -> None:
    spread = torch.from_numpy(hadamard(size).astype(float)) / math.sqrt(size)
    values = torch.arange(size, 0, -1, dtype=torch.float64)
    found = leading_vectors(spread * values, size)  # left vectors are Hadamard's, right vectors the coordinates
    np.testing.assert_allclose(found.left.participation_ratio, size, rtol=1e-9)
    np.testing.assert_allclose(found.left.inverse_participation_ratio, 1 / size, rtol=1e-9)
    np.testing.assert_allclose(found.left.entropy, 1, rtol=1e-9)
    np.testing.assert_allclose(found.left.largest_share, math.ceil(size / 100) / size, rtol=1e-9)
    np.testing.assert_allclose(found.right.participation_ratio, 1, rtol=1e-9)
    np.testing.assert_allclose(found.right.entropy, 0, atol=1e-9)
    np.testing.assert_allclose(found.right.largest_share, 1, rtol=1e-9)
    transposed = leading_vectors((spread * values).T, size)
    np.testing.assert_allclose(transposed.right.participation_ratio, size, rtol=1e-9)


def test_random_vectors_lie_on_a_third_of_the_coordinates() -> None:
    """For normal elements E v⁴ = 3/n² and E(−v² ln v²) = (ln n − (2 − γ − ln 2))/n."""
    size, vectors = 3000, 200
    mass = torch.nn.functional.normalize(normal(vectors, size), dim=1) ** 2
    found = localisation(mass)
    assert found.participation_ratio.mean() == pytest.approx(
        size / 3, rel=4 * math.sqrt(96 / 9 / size / vectors) + 0.003
    )
    assert found.entropy.mean() == pytest.approx(1 - (2 - EULER - math.log(2)) / math.log(size), abs=1e-3)
    bulk = leading_vectors(normal(400, 300), 20)
    assert bulk.left.participation_ratio.mean() == pytest.approx(400 / 3, rel=0.1)
    assert bulk.right.participation_ratio.mean() == pytest.approx(100, rel=0.1)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any))
def test_localisation_by_hand(numbers: list[int]) -> None:
    total = sum(numbers)
    mass = torch.tensor([[number / total for number in numbers]], dtype=torch.float64)
    found = localisation(mass)
    assert float(found.participation_ratio) == pytest.approx(total**2 / sum(n * n for n in numbers))
    assert float(found.largest_share) == pytest.approx(max(numbers) / total)
    if len(numbers) == 1:
        assert math.isnan(float(found.entropy))
    else:
        nats = -sum(n / total * math.log(n / total) for n in numbers if n)
        assert float(found.entropy) == pytest.approx(nats / math.log(len(numbers)), abs=1e-12)
        assert -1e-12 <= float(found.entropy) <= 1 + 1e-12


# Degenerate singular values


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equal_singular_values_have_a_subspace_and_no_vectors(count: int, dtype: torch.dtype) -> None:
    """σ = 5, 3, 3, 3, 1 in a random basis: three of equal value; the mass is the mean over all three."""
    values = np.array([5.0, 3.0, 3.0, 3.0, 1.0])
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 5)))[0] for size in (12, 9))
    found = leading_vectors(torch.from_numpy((left * values) @ right.T).to(dtype), count)
    assert found.degenerate.tolist() == [False, True, True, True, False][:count]
    exact = 1e-9 if dtype == torch.float64 else 1e-4
    for own, basis in ((found.left, left), (found.right, right)):
        mean = (basis[:, 1:4] ** 2).mean(1)
        expected = [1 / (basis[:, 0] ** 4).sum(), *[1 / (mean**2).sum()] * 3, 1 / (basis[:, 4] ** 4).sum()]
        np.testing.assert_allclose(own.participation_ratio, expected[:count], rtol=exact)


@pytest.mark.parametrize("count", [1, 10, 64])
def test_the_identity_is_one_subspace_over_all_coordinates(count: int) -> None:
    found = leading_vectors(torch.eye(64), count)
    assert found.degenerate.all() and len(found.degenerate) == count
    np.testing.assert_allclose(found.left.participation_ratio, 64, rtol=1e-12)


def test_what_rounding_in_storage_mixes_is_degenerate_there_only() -> None:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 20)))[0] for size in (40, 30))
    values = np.concatenate([[2.0, 2.0 - 1e-5], np.linspace(1, 0.1, 18)])
    matrix = torch.from_numpy((left * values) @ right.T)
    assert leading_vectors(matrix, 3).degenerate.tolist() == [False, False, False]
    assert leading_vectors(matrix.bfloat16(), 3).degenerate.tolist()[:2] == [True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_vectors_that_the_storage_turns_are_flagged(dtype: torch.dtype) -> None:
    """Down to which gap the stored matrix has the exact one's first vector: beyond 2 % of a turn it is flagged."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 20)))[0] for size in (40, 30))
    turned, flagged = [], []
    for gap in 10.0 ** np.arange(-9, 0.1, 0.5):
        values = np.concatenate([[2.0 + gap, 2.0], np.linspace(1, 0.1, 18)])
        found = leading_vectors(torch.from_numpy((left * values) @ right.T).to(dtype), 1)
        overlap = float(abs(found.right_vectors[0].numpy() @ right[:, 0]))
        turned.append(math.sqrt(max(0.0, 1 - overlap**2)))
        flagged.append(bool(found.degenerate[0]))
    assert all(flag for flag, turn in zip(flagged, turned, strict=True) if turn > 0.02)
    assert not flagged[-1] and turned[-1] < 0.02
    assert min(turn for flag, turn in zip(flagged, turned, strict=True) if flag) > 1e-4, "no flag without need"


# Edges


def test_there_are_no_more_vectors_than_the_rank() -> None:
    rank_two = torch.outer(normal(8), normal(6, seed=1)) + torch.outer(normal(8, seed=2), normal(6, seed=3))
    found = leading_vectors(rank_two, 5)
    assert len(found.singular_values) == len(found.left_vectors) == len(found.degenerate) == 2
    assert len(found.right.entropy) == 2


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (1, 1)])
def test_a_matrix_of_zeros_has_none(shape: tuple[int, int]) -> None:
    found = leading_vectors(torch.zeros(shape), 2)
    assert len(found.singular_values) == len(found.left.entropy) == len(found.right.largest_share) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_matrix_that_is_not_finite_is_refused(value: float) -> None:
    matrix = normal(4, 5)
    matrix[1, 2] = value
    with pytest.raises(LayerError, match="1 of 20 elements are NaN or infinite"):
        leading_vectors(matrix)


@pytest.mark.parametrize("count", [0, -1, True])
def test_a_count_below_one_is_refused(count: int) -> None:
    with pytest.raises(ArgumentError, match=f"count={count}: expected a number of vectors, an int ≥ 1"):
        leading_vectors(torch.eye(3), count)

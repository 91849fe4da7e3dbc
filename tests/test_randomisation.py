"""Oracles: scipy's Jensen–Shannon distance, the multiset of elements, the spectra of noise and of large elements."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from torch import Tensor

import workbench as wb
from workbench.linalg import gram_eigenvalues
from workbench.spectra.randomisation import (
    Randomisation,
    jensen_shannon_distance,
    randomisation,
    shuffled_elements,
)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomised(matrices: Tensor, seed: int = 0, layer: str = "fc") -> Randomisation:
    eigenvalues = gram_eigenvalues(matrices).flatten().sort().values
    return randomisation(matrices, eigenvalues, seed=seed, layer=layer)


VECTORS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*(2 * [arrays(np.float64, n, elements=st.just(0.0) | st.floats(1e-6, 1e6))]))
)


@given(VECTORS)
def test_the_distance_is_scipys(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    ours = jensen_shannon_distance(*map(torch.from_numpy, vectors))
    if min(vector.sum() for vector in vectors) == 0:
        assert math.isnan(ours)
        return
    # near 0 the divergence is a difference of roundings, of which the distance is the root
    assert ours == pytest.approx(np.nan_to_num(jensenshannon(*vectors)), abs=1e-7)
    assert 0 <= ours <= math.sqrt(math.log(2)) + 1e-15
    assert ours == jensen_shannon_distance(*map(torch.from_numpy, vectors[::-1]))


def test_the_distance_by_hand() -> None:
    """With p = (½, ½) and r = (1, 0), m = (¾, ¼), in natural logarithms."""
    first, second = torch.tensor([2.0, 2.0], dtype=torch.float64), torch.tensor([5.0, 0.0], dtype=torch.float64)
    divergence = (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25) + math.log(1 / 0.75)) / 2
    assert jensen_shannon_distance(first, second) == pytest.approx(math.sqrt(divergence), rel=1e-14)
    disjoint = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert jensen_shannon_distance(second, disjoint) == pytest.approx(math.sqrt(math.log(2)), rel=1e-15)


@pytest.mark.parametrize("shape", [(1, 30, 40), (9, 8, 5), (3, 1, 7), (1, 1, 1)])
def test_shuffling_keeps_the_elements_of_every_matrix_and_moves_them(shape: tuple[int, ...]) -> None:
    matrices = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    shuffled = shuffled_elements(matrices, seed=0, layer="fc")
    assert shuffled.shape == matrices.shape
    assert torch.equal(shuffled.flatten(1).sort(1).values, matrices.flatten(1))
    if shape[1] * shape[2] > 5:
        assert not torch.equal(shuffled, matrices)
    if shape[0] > 1:  # each in an order of its own
        assert not torch.equal(shuffled[1] - shuffled[1].min(), shuffled[0])


def test_the_order_depends_on_seed_and_layer_and_on_nothing_else() -> None:
    matrices = gaussian(2, 30, 40)
    state = torch.get_rng_state()
    first, again = randomised(matrices), randomised(matrices)
    assert torch.equal(first.eigenvalues, again.eigenvalues)
    assert torch.equal(state, torch.get_rng_state())
    for other in (randomised(matrices, seed=1), randomised(matrices, layer="other")):
        assert not torch.equal(first.eigenvalues, other.eigenvalues)
    half = randomised(matrices.half())
    assert half.eigenvalues.dtype == torch.float64
    assert torch.allclose(half.eigenvalues, first.eigenvalues, rtol=0.01, atol=0.05)


@pytest.mark.parametrize("shape", [(1, 200, 200), (1, 100, 400), (9, 32, 32)])
def test_shuffled_noise_is_noise(shape: tuple[int, int, int]) -> None:
    """Independent entries stay so: two draws of stiff spectra, which differ by about a spacing."""
    result = randomised(gaussian(*shape))
    small, large = sorted(shape[1:])
    assert result.num_traps == 0
    assert result.rand_distance < 0.05
    assert result.max_rand_eval == pytest.approx((math.sqrt(large) + math.sqrt(small)) ** 2, rel=0.15)
    assert result.fit.sigma == pytest.approx(1, rel=0.05)
    assert result.eigenvalues.sum() == pytest.approx(float(gaussian(*shape).double().square().sum()))


def test_correlations_are_shuffled_away() -> None:
    """Rank one plus noise: after shuffling, noise of the same variance and none of its spike."""
    signal = torch.outer(gaussian(200, seed=1).sign(), gaussian(100, seed=2).sign())
    result = randomised((gaussian(200, 100) + signal)[None])
    assert result.num_traps == 0
    assert result.rand_distance > 0.3
    assert result.fit.sigma == pytest.approx(math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("traps", [1, 3])
def test_an_element_that_is_a_direction_by_itself_is_a_trap_in_any_order(traps: int) -> None:
    weight = gaussian(200, 100)
    weight.view(-1)[: 777 * traps : 777] = 100.0
    result = randomised(weight[None])
    assert result.num_traps == traps
    assert result.max_rand_eval == pytest.approx(1e4, rel=0.1)


@pytest.mark.parametrize("matrices", [torch.zeros(1, 20, 30), torch.ones(1, 1, 30), torch.ones(1, 30, 30)])
def test_degenerate_layers_have_numbers_or_nan(matrices: Tensor) -> None:
    result = randomised(matrices)
    assert math.isnan(result.rand_distance) if not matrices.any() else result.rand_distance < 1e-6
    assert result.num_traps == 0
    assert len(result.eigenvalues) == min(matrices.shape[1:])


def test_nan_is_named_and_foreign_eigenvalues_are_refused() -> None:
    bad = gaussian(1, 20, 30)
    bad[0, 3, 4] = math.nan
    with pytest.raises(wb.LayerError, match="1 of 600 elements are NaN or infinite"):
        randomisation(bad, torch.ones(20, dtype=torch.float64), seed=0, layer="fc")
    with pytest.raises(
        wb.ArgumentError, match="19 eigenvalues for 1 matrices of 20×30: expected all 20, zeros included"
    ):
        randomisation(gaussian(1, 20, 30), torch.ones(19, dtype=torch.float64), seed=0, layer="fc")

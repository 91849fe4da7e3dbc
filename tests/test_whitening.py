"""The first rotation: numpy's eigenvectors, unit variances, and what is rounding."""

import numpy as np
import pytest
import torch
from torch import Tensor

from workbench.degeneracy.numerical_rank import noise_floor, rounding_floor
from workbench.degeneracy.whitening import falling, whitening
from workbench.linalg import Moments

EPS = 2.0**-52


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(rows: Tensor) -> Moments:
    found = Moments(rows.shape[1])
    found.update(rows)
    return found


@pytest.mark.parametrize("center", [True, False])
def test_coordinates_have_unit_variance(center: bool) -> None:
    rows = normal(200, 4) @ normal(4, 6, seed=1) + 3
    white = whitening(moments(rows), center=center)
    inner = rows - white.mean
    np.testing.assert_allclose(white.mean, rows.mean(0) if center else np.zeros(6), atol=1e-12)
    gram = (inner.T @ inner / 200).numpy()
    values, vectors = np.linalg.eigh(gram)
    rank = 4 if center else 5  # the mean is one more direction
    np.testing.assert_allclose(white.eigenvalues, values[::-1][:rank], rtol=1e-9)
    np.testing.assert_allclose((white.vectors @ white.vectors.T), vectors[:, -rank:] @ vectors[:, -rank:].T, atol=1e-9)
    hat = inner @ white.rotation
    np.testing.assert_allclose(hat.T @ hat / 200, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(white.inverse @ white.rotation, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose(hat @ white.inverse, inner, atol=1e-9)
    assert white.samples == 200 and white.floor == pytest.approx(200**0.5 * EPS * values[-1], rel=1e-9, abs=0)


def test_signs_and_order_are_no_accident() -> None:
    symmetric = normal(5, 5) + normal(5, 5).T
    values, vectors = falling(symmetric)
    assert values.tolist() == sorted(values.tolist(), reverse=True)
    np.testing.assert_allclose(symmetric @ vectors, vectors * values, atol=1e-12)
    assert bool((vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all())


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1.0, 1e8])
def test_ranks_have_no_unit(scale: float) -> None:
    rows = scale * (normal(50, 3) @ normal(3, 7, seed=1) + 5)
    assert len(whitening(moments(rows), center=True).eigenvalues) == 3


def test_a_threshold_is_a_share_of_the_largest() -> None:
    rows = torch.tensor([[10.0, 1.0, 0.1], [-10.0, 1.0, -0.1], [10.0, -1.0, 0.1], [-10.0, -1.0, -0.1]]).double()
    for threshold, rank in ((0.0, 2), (0.009, 2), (0.011, 1), (0.999, 1)):
        assert len(whitening(moments(rows), center=True, threshold=threshold).eigenvalues) >= rank
    assert len(whitening(moments(rows), center=True, threshold=0.011).eigenvalues) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rounding_of_values_is_no_variance(dtype: torch.dtype) -> None:
    """Constants that are rounded at random in the last bit have no direction, however large; what moves has."""
    eps = torch.finfo(dtype).eps
    constant = 1000 * (1 + eps * (torch.rand(300, 5, generator=torch.Generator().manual_seed(0)).double() - 0.5))
    assert not len(whitening(moments(constant), center=True, dtype=dtype).eigenvalues)
    moving = constant + 1000 * 100 * eps * normal(300, 5)
    assert len(whitening(moments(moving), center=True, dtype=dtype).eigenvalues) == 5
    assert not len(whitening(moments(torch.full((9, 5), 0.1).double()), center=True, dtype=dtype).eigenvalues)


def test_floors_by_hand() -> None:
    assert noise_floor(3.0, 10, 50, None, 0.0) == 30 * EPS and noise_floor(3.0, 10, 400, None, 0.0) == 60 * EPS
    assert noise_floor(3.0, 10, 50, None, 1e-3) == 1e-3 and noise_floor(3.0, 10, 50, 0.5, 1e3) == 1.5
    gram = moments(torch.tensor([[3.0, 0.0], [5.0, 0.0]]).double()).gram  # E[f²] = 17
    assert rounding_floor(gram, torch.float16) == pytest.approx((2.0**-20 + 2 * 2.0**-46) * 17, abs=0)
    assert rounding_floor(gram, torch.float32) == pytest.approx(3 * 2.0**-46 * 17, abs=0)
    assert rounding_floor(gram, None) == rounding_floor(gram, torch.float64) == pytest.approx(3 * 2.0**-104 * 17, abs=0)

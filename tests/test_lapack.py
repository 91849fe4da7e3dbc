"""LAPACK without Python's lock, against closed forms and numpy's own LAPACK."""

import numpy as np
import pytest
import torch

from workbench.linalg.gram import symmetric_eigenvalues
from workbench.linalg.lapack import SMALL, lapack_eigenvalues

EPS = np.finfo(np.float64).eps


def noise(size: int, count: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(size).standard_normal((count, size, size))
    return drawn + drawn.transpose(0, 2, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 33, 200, SMALL - 1, SMALL])
def test_the_second_difference_has_the_eigenvalues_of_the_textbook(size: int) -> None:
    matrix = 2 * np.eye(size) - np.eye(size, k=1) - np.eye(size, k=-1)
    expected = 2 - 2 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))
    np.testing.assert_allclose(lapack_eigenvalues([matrix])[0], expected, rtol=0, atol=4 * EPS * size)


@pytest.mark.parametrize("size", [1, 2, 7, 31, 100, SMALL + 5])
def test_full_matrices_agree_with_numpy(size: int) -> None:
    matrices = noise(size, 3)
    expected = np.linalg.eigvalsh(matrices)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(lapack_eigenvalues(list(matrices)), expected, rtol=0, atol=4 * EPS * size * scale)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_the_ends_of_float64_are_reached(scale: float) -> None:
    """A power of two times the matrix is that times its eigenvalues; LAPACK's `syev` scales for the same reason."""
    factor, matrix = 2.0 ** round(np.log2(scale)), noise(40)[0]
    plain, scaled = lapack_eigenvalues([matrix])[0], lapack_eigenvalues([matrix * factor])[0]
    np.testing.assert_allclose(scaled / factor, plain, rtol=0, atol=40 * EPS * np.abs(plain).max())


@pytest.mark.parametrize("size", [0, 1, 5])
def test_equal_and_zero_matrices(size: int) -> None:
    assert lapack_eigenvalues([np.zeros((size, size)), 3 * np.eye(size)]).tolist() == [[0.0] * size, [3.0] * size]


def test_blocks_of_a_larger_matrix_are_read_where_they_lie_and_left_alone() -> None:
    whole = noise(60)[0]
    before = whole.copy()
    blocks = [whole[start : start + 20, start : start + 20] for start in (0, 13, 40)]
    for overwrite in (False, True):  # a block is not contiguous, so that it is copied all the same
        found = lapack_eigenvalues(blocks, overwrite=overwrite)
        expected = [np.linalg.eigvalsh(before[start : start + 20, start : start + 20]) for start in (0, 13, 40)]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(whole, before)


def test_only_input_that_may_be_overwritten_is() -> None:
    matrix = noise(12)[0]
    before = matrix.copy()
    kept = lapack_eigenvalues([matrix])
    np.testing.assert_array_equal(matrix, before)
    np.testing.assert_array_equal(lapack_eigenvalues([matrix], overwrite=True), kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees() -> None:
    batch = torch.from_numpy(noise(50, 4))
    found = symmetric_eigenvalues(list(batch.cuda())).cpu()
    torch.testing.assert_close(found, symmetric_eigenvalues(list(batch)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [6, 200])
def test_nan_ends_and_is_not_hidden(size: int) -> None:
    matrix = noise(size)[0]
    matrix[size // 2, size // 2] = np.nan
    try:
        assert np.isnan(lapack_eigenvalues([matrix])).any()
    except RuntimeError as error:
        assert "did not converge" in str(error)

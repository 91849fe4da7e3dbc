"""Streaming moments: numpy of all samples at once, extended precision, and numbers by hand."""

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from workbench.linalg import Moments, gram
from workbench.linalg.gram import BLOCK_ELEMENTS

EPS = float(np.finfo(np.float64).eps)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(*parts: Tensor, width: int | None = None) -> Moments:
    moments = Moments(width or parts[0].shape[1])
    for part in parts:
        moments.update(part)
    return moments


def assert_are(moments: Moments, samples: np.ndarray, scale: float | None = None) -> None:
    """The moments are those of all samples at once, by a two-pass calculation in extended precision."""
    exact = samples.astype(np.longdouble)
    mean = exact.mean(0)
    centred = exact - mean
    covariance = centred.T @ centred / len(exact)
    spread = float(np.abs(covariance).max()) if scale is None else scale
    tolerance = 20 * EPS * math.sqrt(len(samples))  # a random walk of roundings
    assert moments.count == len(samples)
    np.testing.assert_allclose(moments.mean, mean.astype(float), rtol=8 * EPS, atol=tolerance * math.sqrt(spread))
    np.testing.assert_allclose(moments.covariance, covariance.astype(float), rtol=0, atol=tolerance * spread)
    np.testing.assert_allclose(moments.variance, covariance.diagonal().astype(float), rtol=0, atol=tolerance * spread)
    size = float((exact**2).mean(0).max())
    np.testing.assert_allclose(
        moments.gram, (exact.T @ exact / len(exact)).astype(float), rtol=0, atol=tolerance * size
    )


@pytest.mark.parametrize(
    ("count", "width"),
    [(1, 1), (1, 5), (2, 3), (7, 40), (1000, 1), (300, 17), (BLOCK_ELEMENTS + 3, 1), (BLOCK_ELEMENTS // 4 + 3, 9)],
)
def test_the_moments_are_those_of_all_samples_at_once(count: int, width: int) -> None:
    samples = gaussian(count, width) @ gaussian(width, width, seed=1) + 3
    assert_are(moments_of(samples), samples.numpy())


def test_numpy_says_the_same() -> None:
    samples = gaussian(500, 6) @ gaussian(6, 6, seed=1) + 3
    moments = moments_of(*samples.split(37))
    np.testing.assert_allclose(moments.covariance, np.cov(samples.T.numpy(), bias=True), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(moments.gram, gram(samples) / 500, rtol=1e-12, atol=1e-12)
    assert torch.equal(moments.covariance, moments.covariance.T)


def test_by_hand() -> None:
    moments = moments_of(torch.tensor([[1.0, 10.0]]), torch.tensor([[2.0, 10.0], [6.0, 40.0]]))
    assert moments.mean.tolist() == [3.0, 20.0]
    torch.testing.assert_close(
        moments.covariance, torch.tensor([[14 / 3, 30.0], [30.0, 200.0]], dtype=torch.float64), rtol=4 * EPS, atol=0
    )
    torch.testing.assert_close(
        moments.gram, torch.tensor([[41 / 3, 90.0], [90.0, 600.0]], dtype=torch.float64), rtol=4 * EPS, atol=0
    )


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 2**32), st.booleans())
def test_neither_batches_nor_merging_nor_order_matter(sizes: list[int], width: int, seed: int, merged: bool) -> None:
    sizes = [*sizes, 3]
    parts = list((gaussian(sum(sizes), width, seed=seed) * 3 - 1).split(sizes))
    if merged:
        moments = Moments(width)
        for part in reversed(parts):
            moments.merge(moments_of(part))
    else:
        moments = moments_of(*parts)
    assert_are(moments, torch.cat(parts).numpy())


@pytest.mark.parametrize("offset", [1e6, -1e6, 1e12])
@pytest.mark.parametrize("merged", [False, True])
def test_nothing_cancels_where_the_mean_dwarfs_the_spread(offset: float, merged: bool) -> None:
    """E[x²] − μ² would lose 2·log10(offset) digits, all of them at 1e12: the covariance keeps those of the samples."""
    samples = (gaussian(4000, 3) @ gaussian(3, 3, seed=1) + offset).numpy()
    parts = [torch.from_numpy(part) for part in np.split(samples, 8)]
    moments = moments_of(parts[0])
    for part in parts[1:]:
        if merged:
            moments.merge(moments_of(part))
        else:
            moments.update(part)
    exact = samples.astype(np.longdouble) - samples.astype(np.longdouble).mean(0)
    covariance = (exact.T @ exact / len(exact)).astype(float)
    # a mean stored with an error of ε·offset shifts Σ(x−μ)² by its square and by its product with sums near zero
    rounding = 1e-13 + EPS * abs(offset) * len(parts) / math.sqrt(len(samples))
    np.testing.assert_allclose(moments.covariance, covariance, rtol=0, atol=rounding * covariance.max())
    uncentred = samples.astype(np.longdouble).T @ samples.astype(np.longdouble) / len(samples)
    np.testing.assert_allclose(moments.gram, uncentred.astype(float), rtol=8 * EPS, atol=0)


def test_a_first_sample_far_from_the_rest_costs_no_digits() -> None:
    """As the first token of a language model: the block is centred on its own mean after all."""
    samples = gaussian(1000, 2)
    samples[0] = 1e5
    assert_are(moments_of(*samples.split(300)), samples.numpy())
    late = moments_of(*samples.split(300))
    late.update(samples[1:])
    assert_are(late, torch.cat([samples, samples[1:]]).numpy())


@pytest.mark.parametrize("value", [0.1, -1e30, 0.0, 1e-300])
def test_a_constant_feature_has_a_variance_of_exactly_zero(value: float) -> None:
    samples = gaussian(5000, 3)
    samples[:, 1] = value
    moments = moments_of(*samples.split(700))
    moments.merge(moments_of(samples))
    assert moments.mean[1] == value
    assert not moments.covariance[1].any() and not moments.covariance[:, 1].any() and moments.variance[1] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 5, 1999])
def test_what_is_not_finite_stays_so_and_spoils_no_other_feature(bad: float, where: int) -> None:
    samples = gaussian(2000, 3)
    samples[where, 1] = bad
    moments = moments_of(*samples.split(300))
    assert not math.isfinite(moments.mean[1])
    assert moments.covariance[1].isnan().all() and moments.gram[:, 1].isnan().all() and moments.variance[1].isnan()
    kept = Moments(2)
    kept.update(samples[:, ::2])
    torch.testing.assert_close(moments.covariance[::2, ::2], kept.covariance, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(moments.mean[::2], kept.mean, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_every_floating_dtype_is_upcast_before_anything_is_summed(dtype: torch.dtype) -> None:
    samples = (60 * gaussian(900, 4) + 200).to(dtype)
    assert_are(moments_of(*samples.split(130)), samples.double().numpy())


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T.contiguous().T,
        lambda x: x.repeat_interleave(2, 1)[:, ::2],
        lambda x: x.flip(0).flip(0),
        lambda x: x.clone().requires_grad_(),
        lambda x: x[:1].expand(200, -1),
    ],
)
def test_samples_of_any_layout_are_read_and_not_changed(view: Callable[[Tensor], Tensor]) -> None:
    samples = view(gaussian(200, 5))
    before = samples.detach().clone()
    moments = moments_of(samples)
    assert_are(moments, before.numpy(), 1.0)
    assert torch.equal(samples.detach(), before) and not moments.covariance.requires_grad


def test_what_is_handed_out_and_what_was_handed_in_are_apart() -> None:
    samples = gaussian(50, 3)
    moments, expected = moments_of(samples), moments_of(samples)
    given_out = [moments.mean, moments.covariance, moments.gram, moments.variance]
    for tensor in given_out:
        tensor.zero_()
    samples.zero_()
    assert torch.equal(moments.mean, expected.mean) and torch.equal(moments.gram, expected.gram)
    other = moments_of(gaussian(4, 3, seed=1))
    before = other.gram
    moments.merge(other)
    moments.update(gaussian(4, 3, seed=2))
    assert torch.equal(other.gram, before) and other.count == 4
    with pytest.raises(AttributeError):
        moments.mean = torch.zeros(3)  # type: ignore[misc]


def test_merging_with_nothing_and_with_itself() -> None:
    moments, empty = moments_of(gaussian(9, 2)), Moments(2)
    before = moments.covariance
    moments.merge(empty)
    assert torch.equal(moments.covariance, before)
    empty.merge(moments)
    assert torch.equal(empty.covariance, before) and torch.equal(empty.mean, moments.mean)
    moments.merge(moments)
    assert moments.count == 18 and torch.equal(moments.covariance, before)


@pytest.mark.parametrize("moment", ["mean", "variance", "covariance", "gram"])
def test_no_samples_have_no_moments(moment: str) -> None:
    moments = Moments(2)
    moments.update(torch.empty(0, 2))
    with pytest.raises(wb.LayerError, match=r"no samples yet.*call update\(samples\) first"):
        getattr(moments, moment)
    assert "0 samples of 2 features on cpu" in repr(moments)


def test_the_float64_copy_is_bounded_whatever_the_batch() -> None:
    """Held are the sums and a block; 64 MB of float32 samples would be 128 MB in float64."""

    class Counting(torch.overrides.TorchFunctionMode):
        largest = 0

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dtype == torch.float64:
                self.largest = max(self.largest, out.numel())
            return out

    samples = torch.ones(1 << 20, 16)
    tracemalloc.start()
    with Counting() as counting:
        moments_of(samples)
    peak = tracemalloc.get_traced_memory()[1]  # numpy's; torch's are counted above
    tracemalloc.stop()
    assert counting.largest == BLOCK_ELEMENTS and peak < 1 << 20


SCRIPT = """
import json, torch
from workbench.linalg import Moments
two, raised = Moments(2), []
for code in [
    "two.update(torch.ones(3))", "two.update(torch.ones(3, 4))", "two.update(torch.ones(3, 2, dtype=torch.int64))",
    "two.update(torch.ones(3, 2, dtype=torch.complex64))", "two.merge(Moments(3))", "Moments(0)", "Moments(2.0)",
    "Moments(True)", "Moments(2, 'tpu')",
]:
    try:
        raised.append(repr(eval(code)))
    except Exception as error:
        raised.append(f"{type(error).__name__}: {error}")
print(json.dumps(raised))
"""


def test_arguments_that_are_refused(unchecked: Callable[..., Any]) -> None:
    parts = [
        "samples have the shape [3]: expected [samples, 2].",
        "samples have the shape [3, 4]: expected [samples, 2].",
        "samples are torch.int64: expected real floating numbers",
        "samples are torch.complex64: expected real floating numbers",
        "the other moments have 3 features: expected 2.",
        "width=0: expected the number of features, at least 1.",
        "width=2.0: expected",
        "width=True: expected",
        "device='tpu': expected",
    ]
    for part, message in zip(parts, unchecked(SCRIPT), strict=True):
        assert message.startswith("ArgumentError: ") and part in message, message


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_says_the_same_and_takes_samples_from_the_cpu() -> None:
    samples = gaussian(3000, 7) + 1e6
    moments, expected = Moments(7, "cuda"), moments_of(samples)
    moments.update(samples[:1000])
    moments.update(samples[1000:].cuda())
    assert moments.covariance.is_cuda
    torch.testing.assert_close(moments.covariance.cpu(), expected.covariance, rtol=1e-9, atol=1e-11)
    expected.merge(moments)
    assert expected.count == 6000 and not expected.covariance.is_cuda

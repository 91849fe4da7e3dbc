"""Count, mean and covariance of samples that are walked once."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ArgumentError, LayerError
from workbench.linalg.device import resolved_device
from workbench.linalg.gram import add_gram, row_blocks


class Moments:
    """Count n, mean μ = Σx/n and scatter S = Σ(x−μ)(x−μ)ᵀ of samples x, in float64, in one walk over them.

    Blocks of b samples with mean μ + δ are centred before they are multiplied, and n·b/(n+b)·δδᵀ joins two scatters;
    so nothing cancels where the mean dwarfs the spread, and a constant feature has a variance of exactly zero. Every
    property is a new tensor: writing into it changes nothing here, and later samples do not change it.

    Args:
        width: number of features, at least 1.
        device: where it accumulates: "cpu", "cuda" or "auto".

    Attributes:
        width: number of features.
        device: where it accumulates; samples from elsewhere are moved block by block.
        count: number n of samples so far.

    Raises:
        ArgumentError: the width is no positive integer, or the device is not there.

    Cost: n·width² flops (twice that on CUDA). Memory: width² in float64, as much again while a block is added on the
    CPU, and one block of max(8 MB, width²) whatever the number of samples. Elements of a tensor through a (n, 1) view
    pass at the speed of memory.

    Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (1983), the pairwise update. Ours:
    each block is centred on the mean so far before its own mean is taken.

    Misreads: the population covariance, S/n and not S/(n−1). A feature that was NaN or infinite anywhere is not finite
    in the mean and NaN in its row and column of the covariance; the other features keep their numbers.

    Example:
        >>> moments = Moments(2)
        >>> moments.update(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        >>> moments.count, moments.mean.tolist(), moments.covariance.tolist(), moments.gram.tolist()
        (2, [2.0, 2.0], [[1.0, 2.0], [2.0, 4.0]], [[5.0, 6.0], [6.0, 8.0]])
    """

    def __init__(self, width: int, device: str | torch.device = "cpu") -> None:
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise ArgumentError(f"width={width!r}: expected the number of features, at least 1.")
        self.width, self.device, self.count = width, resolved_device(str(device)), 0
        self._mean = torch.zeros(width, dtype=torch.float64, device=self.device)
        self._scatter = torch.zeros(width, width, dtype=torch.float64, device=self.device)

    def update(self, samples: Float[Tensor, "samples width"]) -> None:
        """Adds samples, which are read at once and neither kept nor changed.

        Args:
            samples: one sample a row, of any real floating dtype, on any device; none is allowed.

        Raises:
            ArgumentError: not a matrix of `width` columns, or not real floating numbers.
        """
        if samples.ndim != 2 or samples.shape[1] != self.width:
            raise ArgumentError(f"samples have the shape {list(samples.shape)}: expected [samples, {self.width}].")
        if not samples.is_floating_point():
            raise ArgumentError(f"samples are {samples.dtype}: expected real floating numbers; convert them first.")
        for part in row_blocks(samples.detach()):
            block = part.to(self.device, torch.float64, copy=True)
            if not self.count:
                self._mean = block[0].clone()
            block -= self._mean
            step = block.mean(0)
            block -= step
            add_gram(self._scatter, block)
            self._join(len(block), step)

    def merge(self, other: "Moments") -> None:
        """Adds what `other` has seen, as if its samples had been added here; `other` stays as it is.

        Raises:
            ArgumentError: it has another width.
        """
        if other.width != self.width:
            raise ArgumentError(f"the other moments have {other.width} features: expected {self.width}.")
        if not other.count:
            return
        step = other._mean.to(self.device) - self._mean
        self._scatter += other._scatter.to(self.device)
        self._join(other.count, step)

    def _join(self, count: int, step: Tensor) -> None:
        """Makes room for `count` samples whose mean is `step` away and whose scatter is in the sum already."""
        total = self.count + count
        self._scatter.add_(torch.outer(step, step), alpha=self.count * count / total)  # addr_ would not be symmetric
        self._mean += step * (count / total)
        self.count = total

    @property
    def mean(self) -> Float[Tensor, " width"]:
        """Σx/n.

        Raises:
            LayerError: there are no samples yet, as for every moment.
        """
        return self._seen()._mean.clone()

    @property
    def variance(self) -> Float[Tensor, " width"]:
        """Σ(x−μ)²/n of each feature, the diagonal of the covariance."""
        return self._seen()._scatter.diagonal() / self.count

    @property
    def covariance(self) -> Float[Tensor, "width width"]:
        """S/n, the population covariance."""
        return self._seen()._scatter / self.count

    @property
    def gram(self) -> Float[Tensor, "width width"]:
        """E[xxᵀ] = S/n + μμᵀ, uncentred."""
        return self.covariance.addr_(self._mean, self._mean)

    def _seen(self) -> "Moments":
        if not self.count:
            raise LayerError("there are no samples yet, so there are no moments: call update(samples) first.")
        return self

    def __repr__(self) -> str:
        return f"Moments of {self.count} samples of {self.width} features on {self.device}"

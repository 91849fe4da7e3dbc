"""Directions in weight space: random ones in proportion to the filters, and the plane through three checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from workbench.errors import ArgumentError
from workbench.seeds import generator
from workbench.weights.tensors import Tensors

ROUNDING = 8.0  # below so many of it three checkpoints on one line are no plane but the rounding of their numbers
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def filter_normalised(weight: Float[Tensor, "filters ..."], seed: int, name: str) -> Float[Tensor, "filters ..."]:
    """A Gaussian direction with the norm of every filter: d_f ← d_f·‖w_f‖/‖d_f‖, filters along the first axis.

    Args:
        weight: a tensor of at least two axes.
        seed: of the draw, which is made on the CPU.
        name: what else the draw depends on.

    Returns:
        The direction in float64, on the weight's device; zero where a filter is zero.

    Source: Li et al. 2018, "Visualizing the loss landscape of neural nets" (arXiv 1712.09913), section 4.

    Example:
        >>> direction = filter_normalised(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 0, "fc.weight")
        >>> [round(norm, 12) for norm in direction.norm(dim=1).tolist()]
        [5.0, 0.0]
    """
    drawn = torch.randn(weight.shape, generator=generator(seed, name)).to(weight.device, torch.float64)
    rows, filters = drawn.flatten(1), weight.detach().double().flatten(1)
    norms = rows.norm(dim=1, keepdim=True)
    direction: Tensor = rows * (filters.norm(dim=1, keepdim=True) / norms.clamp_min(torch.finfo(norms.dtype).tiny))
    return direction.view_as(drawn)


def random_direction(module: nn.Module, tensors: Tensors, seed: int, axis: str) -> dict[str, Tensor]:
    """Filter-normalised directions of all weights by name, in the dtypes of `tensors`; what is zero is not in it.

    Biases, other vectors, buffers and all parameters of norm layers are zero.
    """
    weights: dict[int, str] = {}
    still: set[int] = set()
    for path, part in module.named_modules(remove_duplicate=False):
        for key, parameter in part._parameters.items():
            name = f"{path}.{key}" if path else key
            if parameter is None or name not in tensors:
                continue
            tensor = tensors[name]
            if tensor.ndim < 2 or isinstance(part, NORMS) or not tensor.is_floating_point():
                still.add(id(tensor))
            weights.setdefault(id(tensor), name)
    found = {
        identity: filter_normalised(tensors[name], seed, f"{name}/{axis}").to(tensors[name].dtype)
        for identity, name in weights.items()
        if identity not in still
    }
    return {name: found[id(tensor)] for name, tensor in tensors.items() if id(tensor) in found}


@dataclass(frozen=True)
class Plane:
    """The plane through three checkpoints: A at the origin, B on the x axis, C where `c` says; one unit is L2 distance.

    Attributes:
        b: x of B, ‖B−A‖.
        c: x and y of C: ⟨C−A, B−A⟩/‖B−A‖ and the length of what is left.
    """

    b: float
    c: tuple[float, float]

    @classmethod
    def through(cls, module: nn.Module, a: Tensors, b: Tensors, c: Tensors) -> Plane:
        """From the parameters of three checkpoints; those tied count once, buffers do not.

        Raises:
            ArgumentError: they are not finite, or lie on one line, but for the rounding of their dtype.
        """
        names = [name for name, _ in module.named_parameters() if name in a and a[name].is_floating_point()]
        uu = uv = vv = 0.0
        for name in names:
            u, v = (end[name].double() - a[name].double() for end in (b, c))
            uu, uv, vv = uu + float((u * u).sum()), uv + float((u * v).sum()), vv + float((v * v).sum())
        if not math.isfinite(uu + uv + vv):
            raise ArgumentError("a, b and c have no plane: some of their parameters are NaN or infinite.")
        height = sum(_height(a[name], b[name], c[name], uv / uu) for name in names) if uu else 0.0
        if not uu or height <= max(1e-24 * max(uu, vv), ROUNDING**2 * _rounding(a, b, c, names)):
            raise ArgumentError(
                f"a, b and c lie on one line (‖b−a‖ = {uu**0.5:.3g}, ‖c−a‖ = {vv**0.5:.3g}): a plane needs three "
                "different checkpoints; between two see wb.barrier."
            )
        return cls(uu**0.5, (uv / uu**0.5, height**0.5))

    def shares(self, x: float, y: float) -> tuple[float, float, float]:
        """The shares of A, B and C at (x, y); exactly 1, 0 and 0 at each of the three."""
        share_c = y / self.c[1]
        share_b = (x - share_c * self.c[0]) / self.b
        return 1 - share_b - share_c, share_b, share_c


def _rounding(a: Tensors, b: Tensors, c: Tensors, names: Sequence[str]) -> float:
    """Σ (ε·‖w‖)² of the largest of the three: what storing a point of a line may move it by, squared."""
    ends = [
        sum(float(end[name].double().square().sum()) * torch.finfo(end[name].dtype).eps ** 2 for name in names)
        for end in (a, b, c)
    ]
    return max(ends)


def _height(a: Tensor, b: Tensor, c: Tensor, along: float) -> float:
    """‖(C−A) − along·(B−A)‖²: no difference of large numbers, as ‖C−A‖² − ⟨…⟩² would be."""
    return float((c.double() - a.double() - along * (b.double() - a.double())).square().sum())

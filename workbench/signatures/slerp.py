"""Spherical interpolation between the base and one model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import LayerError
from workbench.linalg.pieces import flat_pieces
from workbench.signatures.family import PIECE, Aligned, Family
from workbench.signatures.merge_method import MergeMethod, Rule, Told, parameter

ANTIPARALLEL = 1e-4  # radians from π within which the plane of the arc is rounding


@dataclass(frozen=True, kw_only=True)
class Slerp(MergeMethod):
    """[sin((1−t)Ω)·a + sin(tΩ)·b] / sin Ω, tensor by tensor."""

    NAME: ClassVar[str] = "slerp"
    FORMULA: ClassVar[str] = "[sin((1−t)Ω)·θ₀ + sin(tΩ)·θ₁] / sin Ω, Ω the angle between θ₀ and θ₁, tensor by tensor"
    SOURCE: ClassVar[str] = "Shoemake 1985, 'Animating rotation with quaternion curves'"
    MODELS: ClassVar[tuple[int, float]] = (1, 1)

    t: float = parameter(0.5, "0 for the base and 1 for the model", 0.0, 1.0)

    def rule(self, family: Family, told: Told) -> Rule:
        """Nothing needs to be known before."""

        def merged(name: str, tensors: Aligned, found: Tensor) -> None:
            first, second = self._shares(name, tensors)
            for place, base, (model,) in tensors.values():
                torch.mul(base, first, out=found[place]).add_(model, alpha=second)

        return merged

    def averaged(self, tensors: Aligned) -> Tensor:
        """On the straight line: a variance has no angle."""
        base, model = (one.to("cpu", tensors.precision) for one in (tensors.base, tensors.models[0]))
        return torch.lerp(base, model, self.t)

    def _shares(self, name: str, tensors: Aligned) -> tuple[float, float]:
        """Factors of both ends; those of the straight line where there is no angle: of 0, and of one element."""
        angle = None if self.t in (0, 1) else _angle(tensors)  # the ends need no arc
        if angle is None:
            return 1 - self.t, self.t
        if angle > math.pi - ANTIPARALLEL:
            raise LayerError(
                f"{name}: base and model are antiparallel ({math.pi - angle:.1e} rad from π), so that no arc between "
                "them is the shortest; merge it by another method, or at t=0 or t=1 only."
            )
        whole = _sinc(angle)
        return (1 - self.t) * _sinc((1 - self.t) * angle) / whole, self.t * _sinc(self.t * angle) / whole


def _angle(tensors: Aligned) -> float | None:
    """Ω = 2·atan2(‖a/‖a‖ − b/‖b‖‖, ‖a/‖a‖ + b/‖b‖‖), which is exact near 0 and near π; None where there is none."""
    lengths = [_norm(one) for one in (tensors.base, tensors.models[0])]
    if len(tensors.base) < 2 or not all(lengths):
        return None
    apart = together = 0.0
    for _, base, (model,) in tensors.values():
        first, second = base.double() / lengths[0], model.double() / lengths[1]
        apart += float((first - second).square().sum())
        together += float((first + second).square().sum())
    return 2 * math.atan2(math.sqrt(apart), math.sqrt(together))


def _norm(tensor: Tensor) -> float:
    return math.sqrt(math.fsum(float(piece.square().sum()) for (piece,) in flat_pieces(tensor, size=PIECE)))


def _sinc(x: float) -> float:
    return math.sin(x) / x if x else 1.0

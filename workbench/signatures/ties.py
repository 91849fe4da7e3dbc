"""TIES merging: trim, elect signs, mean of those that agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.signatures.family import Aligned, Family
from workbench.signatures.magnitudes import Largest, Walk, largest, passes
from workbench.signatures.merge_method import MergeMethod, Rule, Told, parameter


@dataclass(frozen=True, kw_only=True)
class Ties(MergeMethod):
    """θ₀ + λ·mean{τ̂_i : sgn τ̂_i = γ}, γ = sgn Σ τ̂_i, τ̂_i the largest |τ_i| of the whole model."""

    NAME: ClassVar[str] = "ties"
    FORMULA: ClassVar[str] = "θ₀ + λ·mean{τ̂_i : sgn τ̂_i = sgn Σ τ̂_j ≠ 0}, τ̂_i the round(k·n) largest |τ_i| of all n"
    SOURCE: ClassVar[str] = "Yadav et al. 2023, arXiv 2306.01708"

    density: float = parameter(0.2, "the share k of each model's changes that is kept", 0.0, 1.0, open_low=True)
    scale: float = parameter(1.0, "λ of the merged change", -math.inf, math.inf)

    def walks(self, family: Family) -> int:
        """Two for each model in float32, four in float64; one more where many changes are equal."""
        return passes(family.precision) * len(family.models)

    def rule(self, family: Family, told: Told) -> Rule:
        """Finds each model's k largest changes first: two passes over everything, three where many are equal."""
        trims = [Trim.of(family, model, self.density, told) for model in range(len(family.models))]

        def merged(name: str, tensors: Aligned, found: Tensor) -> None:
            met = [0] * len(trims)
            for place, base, changes in tensors.pieces():
                for model, (trim, change) in enumerate(zip(trims, changes, strict=True)):
                    met[model] = trim.applied(change, name, met[model])
                torch.add(base, _elected(changes), alpha=float(self.scale), out=found[place])

        return merged


def _elected(changes: list[Tensor]) -> Tensor:
    """The mean, element by element, of the changes that have the sign of their sum; 0 where that is 0."""
    sign = changes[0].clone()
    for change in changes[1:]:
        sign += change
    sign.sign_()
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for change in changes:
        agrees = (change * sign).gt_(0)
        count += agrees
        total += change.mul_(agrees)
    return total.div_(count.clamp_min_(1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Trim:
    """Which changes of one model are kept: those above a size, and of those that have it exactly the first few.

    Attributes:
        threshold: the size.
        quota: tensor → how many of its changes of exactly that size are kept; None for all of every tensor.
    """

    threshold: float
    quota: dict[str, int] | None

    @classmethod
    def of(cls, family: Family, model: int, density: float, told: Told) -> Trim:
        """The round(k·n) largest of all n changes of a model."""
        one = family.only(model)

        def walk() -> Iterator[tuple[str, Tensor]]:
            for name in one.merged:
                told(name)
                for _, _, (change,) in one.aligned(name).pieces():
                    yield name, change

        found = largest(walk, round(density * one.elements), one.precision)
        all_of_them = found.kept == found.equal or not found.value
        return cls(threshold=found.value, quota=None if all_of_them else _quota(walk, found))

    def applied(self, change: Tensor, name: str, met: int) -> int:
        """Zeroes in place what is not kept.

        Args:
            change: the next changes of a tensor.
            name: of the tensor.
            met: how many of the threshold's size were met in it before.

        Returns:
            How many were with these.
        """
        size = change.abs()
        if self.quota is None:
            change.mul_(size >= self.threshold)
            return 0
        equal = size == self.threshold
        places = equal.cumsum(0) + met
        change.mul_((size > self.threshold) | (equal & (places <= self.quota.get(name, 0))))
        return int(places[-1]) if len(places) else met


def _quota(walk: Walk, found: Largest) -> dict[str, int]:
    """Tensor → how many of its changes of exactly the threshold's size are among the k, in the order of tensors."""
    equal: dict[str, int] = {}
    for name, change in walk():
        equal[name] = equal.get(name, 0) + int((change.abs() == found.value).sum())
    left, quota = found.kept, {}
    for name, count in equal.items():
        quota[name] = min(count, left)
        left -= quota[name]
    return quota

"""Task arithmetic: the sum of what each model has learned beyond the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.results import many
from workbench.signatures.family import Aligned, Family
from workbench.signatures.merge_method import MergeMethod, Rule, Told, parameter, scales


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic(MergeMethod):
    """θ₀ + Σ λ_i·τ_i."""

    NAME: ClassVar[str] = "task_arithmetic"
    FORMULA: ClassVar[str] = "θ₀ + Σ_i λ_i·τ_i, τ_i = θ_i − θ₀"
    SOURCE: ClassVar[str] = "Ilharco et al. 2023, arXiv 2212.04089"

    scale: float | Sequence[float] = parameter(
        0.4, "λ of every model, or a list with one for each", -math.inf, math.inf, several=True
    )

    def check(self, models: int) -> None:
        """As of every method; as many scales as models."""
        super().check(models)
        if not isinstance(self.scale, Real) and len(scales(self.scale, models)) != models:
            raise ArgumentError(
                f"scale has {many(len(scales(self.scale, models)), 'number')} for {many(models, 'model')}: give one "
                "for each, or one."
            )

    def rule(self, family: Family, told: Told) -> Rule:
        """Nothing needs to be known before."""
        own = scales(self.scale, len(family.models))

        def merged(_: str, tensors: Aligned, found: Tensor) -> None:
            for place, base, changes in tensors.pieces():
                torch.add(base, changes[0], alpha=own[0], out=found[place])
                for change, scale in zip(changes[1:], own[1:], strict=True):
                    found[place].add_(change, alpha=scale)

        return merged

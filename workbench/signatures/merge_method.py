"""What every way to merge is: typed parameters, and a rule that makes one tensor of several."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.signatures.family import Aligned, Family

Rule: TypeAlias = Callable[[str, Aligned], Tensor]  # (name, tensors) → the merged one, flat
Told: TypeAlias = Callable[[str], None]  # the name of a tensor that is about to be read


@dataclass(frozen=True, kw_only=True)
class MergeMethod(ABC):
    """One way to merge; its fields are its parameters, each with its meaning and range in `metadata`.

    Attributes:
        NAME: as in `method=`.
        FORMULA: what it computes.
        SOURCE: the paper.
        MODELS: the fewest and the most models that it takes.
    """

    NAME: ClassVar[str]
    FORMULA: ClassVar[str]
    SOURCE: ClassVar[str]
    MODELS: ClassVar[tuple[int, float]] = (1, math.inf)

    def check(self, models: int) -> None:
        """Refuses a number of models, and what depends on it.

        Raises:
            ArgumentError: the method takes more or fewer.
        """
        fewest, most = self.MODELS
        if not fewest <= models <= most:
            span = f"{fewest}" if fewest == most else f"at least {fewest}"
            raise ArgumentError(f"models={models} of them: {self.NAME} takes {span} beside the base.")

    def walks(self, family: Family) -> int:
        """How often `rule` goes through all tensors before the first is merged, as a rule."""
        return 0

    @abstractmethod
    def rule(self, family: Family, told: Told) -> Rule:
        """What merges one tensor, after whatever must be known of all of them first."""

    def averaged(self, tensors: Aligned) -> Tensor:
        """Running statistics of the merged network, until they are estimated anew: the models' mean."""
        return torch.stack([one.to(tensors.precision) for one in tensors.models]).mean(0)

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={getattr(self, name)}" for name in self.parameters())
        return f"{self.NAME}({chosen})"

    @classmethod
    def parameters(cls) -> list[str]:
        """Names of the parameters."""
        return [field.name for field in fields(cls)]


def number(name: str, value: Any, low: float, high: float, meaning: str, *, open_low: bool = False) -> None:
    """Refuses what is no number of a range.

    Raises:
        ArgumentError: it is none.
    """
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high or (open_low and value == low):
        span = "a finite number" if math.isinf(low) else f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
        raise ArgumentError(f"{name}={value!r}: expected {span}, {meaning}.")


def scales(scale: float | Sequence[float], models: int) -> list[float]:
    """A factor for each model."""
    return [float(one) for one in scale] if isinstance(scale, Sequence) else [float(scale)] * models

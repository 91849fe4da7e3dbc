"""What every way to merge is: typed parameters, and a rule that makes one tensor of several."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.signatures.family import Aligned, Family

Rule: TypeAlias = Callable[[str, Aligned, Tensor], None]  # (name, tensors, where the merged one is put, flat)
Told: TypeAlias = Callable[[str], None]  # the name of a tensor that is about to be read


@dataclass(frozen=True, kw_only=True)
class MergeMethod(ABC):
    """One way to merge; its fields are its parameters, made by `parameter`, which says their meaning and range.

    A field's `metadata` has them for a form: `meaning`, `low`, `high`, `open_low` and `several`.

    Attributes:
        NAME: as in `method=`.
        FORMULA: what it computes.
        SOURCE: the paper.
        MODELS: the fewest and the most models that it takes.

    Raises:
        ArgumentError: a parameter is no number of its range.
    """

    NAME: ClassVar[str]
    FORMULA: ClassVar[str]
    SOURCE: ClassVar[str]
    MODELS: ClassVar[tuple[int, float]] = (1, math.inf)

    def __post_init__(self) -> None:
        for own in fields(self):
            _check(own.name, getattr(self, own.name), **own.metadata)

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
        return torch.stack([one.to("cpu", tensors.precision) for one in tensors.models]).mean(0)

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={getattr(self, name)}" for name in self.parameters())
        return f"{self.NAME}({chosen})"

    @classmethod
    def parameters(cls) -> list[str]:
        """Names of the parameters."""
        return [field.name for field in fields(cls)]


def parameter(
    default: float, meaning: str, low: float, high: float, *, open_low: bool = False, several: bool = False
) -> Any:
    """A field of a way to merge: one finite number, or one for each model.

    Args:
        default: its value where none is given.
        meaning: what it is, in words that end a sentence "expected a number in [low, high], …".
        low: its smallest value; −∞ for none.
        high: its largest value; ∞ for none.
        open_low: whether `low` itself is refused.
        several: whether it may be a list with a number for each model.
    """
    told = {"meaning": meaning, "low": low, "high": high, "open_low": open_low, "several": several}
    return field(default=default, metadata=told)


def _check(name: str, value: Any, *, meaning: str, low: float, high: float, open_low: bool, several: bool) -> None:
    for one in value if several and isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        fits = isinstance(one, Real) and not isinstance(one, bool) and math.isfinite(one)
        if not fits or not low <= one <= high or (open_low and one == low):
            span = "a finite number" if math.isinf(low) else f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
            raise ArgumentError(f"{name}={one!r}: expected {span}, {meaning}.")


def scales(scale: float | Sequence[float], models: int) -> list[float]:
    """A factor for each model."""
    return [float(one) for one in scale] if isinstance(scale, Sequence) else [float(scale)] * models

"""What networks are run in, and the numbers that come of it: what all explorers share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

import workbench as wb
from workbench_widgets.call import Call, Given, Part
from workbench_widgets.style import status_html

UNCHOSEN = "choose …"  # of a control whose choice decides the numbers


@dataclass(frozen=True)
class Network:
    """What is run: an evaluator, or the arguments of one, or less.

    Attributes:
        evaluator: made by `wb.evaluator`, or None.
        module: the network, where there is no evaluator; else the evaluator's own.
        data: batches; None for the evaluator's.
        loss: with `module` and `data`, to make an evaluator of.
        example_inputs: with a `module` and no data, what it takes.
    """

    evaluator: Any = None
    module: Any = None
    data: Any = None
    loss: Any = "cross_entropy"
    example_inputs: Any = None

    def __post_init__(self) -> None:
        if self.evaluator is not None and not isinstance(self.evaluator, wb.Evaluator):
            raise wb.ArgumentError(
                f"evaluator is {type(self.evaluator).__name__}: expected wb.evaluator(module, data, loss)."
            )
        if self.module is not None and not isinstance(self.module, nn.Module):
            raise wb.ArgumentError(
                f"module is {type(self.module).__name__}: expected a torch module, with its weights loaded."
            )
        if self.evaluator is not None and self.module not in (None, self.evaluator.module):
            raise wb.ArgumentError("evaluator is of another module: make it of the one that is looked at.")

    @property
    def runs(self) -> bool:
        """Whether losses can be told."""
        return self.evaluator is not None or (self.module is not None and self.data is not None)

    @property
    def network(self) -> Any:
        """The module, also an evaluator's; None where there is none."""
        return self.module if self.module is not None or self.evaluator is None else self.evaluator.module

    @property
    def batches(self) -> Any:
        """The data, also an evaluator's; None where there are none."""
        return self.data if self.data is not None or self.evaluator is None else self.evaluator.data

    @property
    def normalised(self) -> bool:
        """Whether the module has running statistics."""
        parts = self.network.modules() if self.network is not None else ()
        return any(getattr(part, "running_mean", None) is not None for part in parts)

    def given(self) -> tuple[Given | Part, Given | Part]:
        """Module and data, as arguments: those that were given, else the evaluator's own.

        Raises:
            wb.ArgumentError: there are none.
        """
        for name, value in (("module", self.network), ("data", self.batches)):
            if value is None:
                raise wb.ArgumentError(
                    f"no {name} yet: pass module and data, or evaluator=wb.evaluator(module, data, loss)."
                )
        evaluator = Given("evaluator", self.evaluator)
        return (
            Given("module", self.module)
            if self.module is not None
            else Part(evaluator, ".module", lambda one: one.module),
            Given("data", self.data) if self.data is not None else Part(evaluator, ".data", lambda one: one.data),
        )

    def evaluated(self) -> Given | Call:
        """The evaluator.

        Raises:
            wb.ArgumentError: there is none.
        """
        if self.evaluator is not None:
            return Given("evaluator", self.evaluator)
        if not self.runs:
            missing = "module= and data=" if self.module is None else "data="
            raise wb.ArgumentError(
                f"a loss needs the network and its data: give the explorer {missing}, or evaluator=wb.evaluator(module,"
                " data, loss)."
            )
        loss = self.loss if isinstance(self.loss, str) else Given("loss", self.loss)
        return Call(wb.evaluator, (*self.given(), loss))


class Numbers:
    """Loss and metrics by what they are of, as lines of text; errors in their place."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def keep(self, what: str, value: Any) -> None:
        """What was evaluated, or the error."""
        self._found[what] = value

    def drop(self, what: str) -> None:
        """Forgets numbers that hold no more."""
        self._found.pop(what, None)

    def same(self, what: str, other: str) -> bool:
        """Whether the numbers of both are known and the same to the last digit."""
        return what in self._found and self._found[what] == self._found.get(other)

    def html(self, order: Mapping[str, str]) -> str:
        """The lines of these by what they are called, as far as they are known."""
        return "".join(numbers_html(name, self._found[what]) for what, name in order.items() if what in self._found)


def numbers_html(what: str, found: Mapping[str, float] | Exception) -> str:
    """A line with loss and metrics and what they are of, or the error in their place."""
    if isinstance(found, Exception):
        return status_html(str(found), error=True)
    told = " · ".join(f"{name} {number:.5g}" for name, number in found.items() if not math.isnan(number))
    return status_html(f"{what}: {told}")

"""A call of a public function, to run and to show as code."""

import pprint
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import workbench as wb


@dataclass(frozen=True)
class Call:
    """A call of a public function: what Run does and what Code shows.

    Attributes:
        function: the public function.
        model: its first argument.
        arguments: the keyword arguments that differ from their defaults.
    """

    function: Callable[..., wb.Result]
    model: Any
    arguments: Mapping[str, Any]

    def run(self, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """The result of the call."""
        return self.function(self.model, **self.arguments, progress=progress)

    def code(self) -> str:
        """The call as a line of Python that assigns the result to the function's name."""
        name = self.function.__name__
        if isinstance(self.model, str):
            model, remark = repr(self.model), ""
        else:
            found = _variable(self.model)
            model = found or "model"
            remark = "" if found else f"# model: the {type(self.model).__name__} that the explorer was given\n"
        parts = [model, *(f"{key}={pprint.pformat(value, width=100)}" for key, value in self.arguments.items())]
        line = f"{name} = wb.{name}({', '.join(parts)})"
        if len(line) > 100:
            inner = textwrap.indent(",\n".join(parts) + ",", "    ")
            line = f"{name} = wb.{name}(\n{inner}\n)"
        return remark + line


def _variable(value: Any) -> str | None:
    """The name under which the notebook knows an object."""
    from IPython import get_ipython

    shell = get_ipython()
    names = shell.user_ns.items() if shell else ()
    return next((name for name, known in names if known is value and not name.startswith("_")), None)

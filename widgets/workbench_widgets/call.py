"""A call of a public function, to run and to show as code."""

import pprint
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import workbench as wb


@dataclass(frozen=True)
class Call:
    """A call of a public function: what Run does and what Code shows.

    Attributes:
        function: the public function.
        positional: its positional arguments; one may be a Call itself, which is run and shown before.
        keywords: the keyword arguments that differ from their defaults.
        name: the variable that holds what it returns; by default the function's name.
    """

    function: Callable[..., Any]
    positional: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def variable(self) -> str:
        """The variable that holds what it returns."""
        return self.name or self.function.__name__

    def run(self, progress: Callable[[wb.Progress], None] | None = None) -> Any:
        """What the call returns; the calls among its arguments are run without progress."""
        arguments = (one.run() if isinstance(one, Call) else one for one in self.positional)
        reports = {} if progress is None else {"progress": progress}
        return self.function(*arguments, **self.keywords, **reports)

    def code(self) -> str:
        """The call as Python that assigns what it returns to its variable."""
        lines = [one.code() for one in self.positional if isinstance(one, Call)]
        parts = []
        for name, value in [*(("", one) for one in self.positional), *self.keywords.items()]:
            text, remark = _told(value, name or "model")
            parts.append(f"{name}={text}" if name else text)
            lines += remark
        head = f"{self.variable} = wb.{self.function.__name__}"
        line = f"{head}({', '.join(parts)})"
        if len(line) > 100:
            inner = textwrap.indent(",\n".join(parts) + ",", "    ")
            line = f"{head}(\n{inner}\n)"
        return "\n".join([*lines, line])


def script(call: Call, remark: str, figures: Iterable[str]) -> str:
    """Python that makes a call, its frame and figures; a remark stands before it."""
    frame = f"frame = {call.variable}.frame()"
    return "\n".join([*([f"# {remark}"] if remark else []), "import workbench as wb", "", call.code(), frame, *figures])


def _told(value: Any, name: str) -> tuple[str, list[str]]:
    """How an argument is written, and what must be said of it; an object that is not at hand is called `name`."""
    if isinstance(value, Call):
        return value.variable, []
    if value is None or isinstance(value, str | int | float):
        return pprint.pformat(value, width=100), []
    if isinstance(value, list | tuple) and not all(isinstance(one, str | int | float) for one in value):
        parts = [_told(one, f"{name}_{place}") for place, one in enumerate(value)]
        return f"[{', '.join(text for text, _ in parts)}]", [line for _, remark in parts for line in remark]
    if isinstance(value, list | tuple):
        return pprint.pformat(value, width=100), []
    if found := _variable(value):
        return found, []
    return name, [f"# {name}: the {type(value).__name__} that the explorer was given"]


def _variable(value: Any) -> str | None:
    """The name under which the notebook knows an object."""
    from IPython import get_ipython

    shell = get_ipython()
    names = list(shell.user_ns.items()) if shell else []  # a cell may assign meanwhile
    return next((name for name, known in names if known is value and not name.startswith("_")), None)

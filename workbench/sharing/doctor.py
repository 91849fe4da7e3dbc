"""A report of this machine: what the workbench finds here, and what to do where something is missing."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING

from workbench.sharing.checks import Check
from workbench.sharing.front_end import front_end_checks
from workbench.sharing.installed import package_checks
from workbench.sharing.machine import machine_checks

if TYPE_CHECKING:
    import pandas

GROUPS: dict[str, Callable[[], Iterable[Check]]] = {
    "packages": package_checks,
    "machine": machine_checks,
    "front end": front_end_checks,
}


@dataclass(frozen=True, repr=False)
class Doctor:
    """What was found, a check each.

    Attributes:
        checks: in the order of the report.
    """

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> str:
        """The worst of all: `ok`, `warn` or `fail`."""
        found = {check.verdict for check in self.checks}
        return next((word for word in ("fail", "warn") if word in found), "ok")

    def frame(self) -> "pandas.DataFrame":
        """A row per check: `item value verdict advice`."""
        import pandas

        columns = [field.name for field in fields(Check)]
        return pandas.DataFrame([[getattr(check, name) for name in columns] for check in self.checks], columns=columns)

    def facts(self) -> str:
        """How many checks have each verdict."""
        counts = Counter(check.verdict for check in self.checks)
        return "Doctor: " + ", ".join(f"{counts[word]} {word}" for word in ("ok", "warn", "fail"))

    def __repr__(self) -> str:
        width = max((len(check.item) for check in self.checks), default=0)
        lines = [self.facts()]
        for check in self.checks:
            mark = "    " if check.verdict == "ok" else check.verdict
            advice = f"\n{'':>{width + 7}}→ {check.advice}" if check.advice else ""
            lines.append(f"{mark} {check.item:<{width}}  {check.value}{advice}")
        return "\n".join([*lines, "next: .frame()"])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(check.verdict)}</td><td>{escape(check.item)}</td><td>{escape(check.value)}</td>"
            f"<td>{escape(check.advice)}</td></tr>"
            for check in self.checks
        )
        head = "".join(f"<th>{name}</th>" for name in ("verdict", "item", "value", "what to do"))
        table = f'<table border="0"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        return f"<p>{escape(self.facts())}</p>{table}<p>next: <code>.frame()</code></p>"


def doctor() -> Doctor:
    """A report of this machine = a row of item, value, verdict and advice for each package, device and front end.

    It looks at versions, at CUDA, at memory, processors and threads, at the folder of downloads, at where the code runs
    (JupyterLab, VS Code, Colab, a terminal) and at what explorers need there. No network, and nothing is changed. No
    folder above the home folder is named: the report may be pasted into an issue.

    Args:
        No arguments.

    Returns:
        A Doctor: its repr is the report, `.frame()` the table, `.verdict` the worst of all.

    Raises:
        Nothing: a check that fails to run is a row with its reason.

    Cost: below a second, and about one more where there is CUDA.

    Source: ours; the variables by which front ends are known are theirs: `JPY_SESSION_NAME` of jupyter_server,
    `__vsc_ipynb_file__` of VS Code's Jupyter extension.

    Misreads: the kernel cannot see the browser. JupyterLab may run from another environment than the kernel, and its
    extensions are looked for in this one only; JupyterLab and Notebook look the same from here.

    Example:
        >>> report = doctor()
        >>> list(report.frame().columns), report.checks[0].item
        (['item', 'value', 'verdict', 'advice'], 'python')
    """
    found: list[Check] = []
    for name, checks in GROUPS.items():
        try:
            found += checks()
        except Exception as error:  # a report must not fail where it is needed most
            advice = "please report this, with the lines above"
            found.append(Check(name, f"not checked: {type(error).__name__}: {error}", "warn", advice))
    return Doctor(tuple(found))

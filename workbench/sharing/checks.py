"""One line of a report."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do.

    Attributes:
        item: what was looked at.
        value: what was found.
        verdict: `ok`, `warn` (something does not work or is slow) or `fail` (nothing works).
        advice: what to do; empty if nothing is to be done.
    """

    item: str
    value: str
    verdict: Verdict = "ok"
    advice: str = ""

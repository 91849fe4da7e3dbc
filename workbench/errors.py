"""Errors that say what was got, what was expected and what to do.

Every class has the builtin a caller would guess as its second base, so `except FileNotFoundError`
and `except wb.CheckpointError` both work.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class WorkbenchError(Exception):
    """Base of every error that the workbench raises on purpose."""


class ArgumentError(WorkbenchError, ValueError):
    """An argument has a value that the function cannot use."""


class SourceTypeError(WorkbenchError, TypeError):
    """Something was handed over as a model that is none."""


class CheckpointError(WorkbenchError, ValueError):
    """A checkpoint cannot be read.

    Attributes:
        path: the file or directory, as text.
        key: the tensor that is affected, or None if it is the file as a whole.
        reason: what is wrong, in one sentence.
    """

    def __init__(self, path: str, key: str | None, reason: str) -> None:
        super().__init__(f"{path}{f' [{key}]' if key else ''}: {reason}")
        self.path, self.key, self.reason = path, key, reason

    def __reduce__(self) -> tuple[type[CheckpointError], tuple[str, str | None, str]]:
        return type(self), (self.path, self.key, self.reason)


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no checkpoint at the path that was given."""

    __str__ = Exception.__str__


class LayerNotFoundError(WorkbenchError, KeyError):
    """A selection of layers matches nothing."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class LayerError(WorkbenchError, ArithmeticError):
    """One layer cannot be analysed; in a run over many it becomes that layer's row and reason."""


class ResultError(WorkbenchError, ValueError):
    """A result breaks its own contract: a column is missing, out of range or of unequal length."""


class FigureError(WorkbenchError, ValueError):
    """A figure was asked for that this result does not have."""


class Cancelled(BaseException):  # noqa: N818 - a request, not an error: `except Exception` must not swallow it
    """Raised by a progress callback to stop a run, which passes it on and leaves everything as it was before.

    `.partial` is the Result of what was done. A cut one has `cancelled` in its `.meta` and CANCELLED in its repr. A
    cancel in the last call, after all is done, stops nothing any more and is passed on all the same: `.partial` is then
    the whole result, as the function would have returned it, and not called cancelled. So it is with every function
    that takes `progress`; of those that give weights (`wb.repair`, `wb.merge`, `wb.signature`) there is nothing before
    the last call, and `.partial` is None.

    Attributes:
        partial: the Result of what was done before the stop; None until the running analysis fills it in.
    """

    def __init__(self, message: str = "cancelled", partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


def nearest(word: object, known: Iterable[str], *, count: int = 3) -> str:
    """A hint of the known words nearest to `word`: `" Did you mean 'a' or 'b'?"`, or the empty string."""
    close = difflib.get_close_matches(str(word), list(known), n=count, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def listing(known: Iterable[str], *, most: int = 10) -> str:
    """The first of the known words, and how many there are if that is not all: `'a', 'b', … (12 in all)`."""
    words = list(known)
    more = f", … ({len(words)} in all)" if len(words) > most else ""
    return ", ".join(map(repr, words[:most])) + more if words else "none"


def known_names(argument: str, given: object, known: Sequence[str]) -> tuple[str, ...]:
    """The names that an argument lists, one as text or several, in the order of those that are known.

    Raises:
        ArgumentError: one is not known; the nearest are offered.
    """
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for name in names:
        if name not in known:
            listed = ", ".join(map(repr, known))
            raise ArgumentError(f"{argument}={name!r}: expected {listed}, or several of them.{nearest(name, known)}")
    return tuple(name for name in known if name in names)

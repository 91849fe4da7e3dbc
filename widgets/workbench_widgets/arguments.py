"""Refusing what an explorer's control does not offer, and saying so."""

from typing import Any

import workbench as wb


def one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    """Refuses a value of an explorer's argument that its control does not offer."""
    if value not in known:
        raise wb.ArgumentError(f"{name}={value!r}: expected one of {', '.join(map(repr, known))}.")


def whole(name: str, value: Any, low: int, high: int) -> None:
    """Refuses a number that its field would change."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wb.ArgumentError(f"{name}={value!r}: expected a whole number from {low} to {high}.")


def error_text(error: BaseException) -> str:
    """An error as a line of status; one that nobody foresaw with its kind."""
    return str(error) if isinstance(error, wb.WorkbenchError) else f"{type(error).__name__}: {error}"

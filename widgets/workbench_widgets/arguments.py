"""Refusing what an explorer's control does not offer."""

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

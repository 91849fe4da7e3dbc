"""Refusing what an explorer's control does not offer, and what is said of arguments and errors."""

import typing
from collections.abc import Callable
from typing import Any

import workbench as wb


def choices(function: Callable[..., Any], name: str) -> tuple[Any, ...]:
    """What a public function offers for an argument: its control then offers the same, in the same order.

    Example:
        >>> choices(wb.merge, "mismatch")
        ('error', 'base', 'overlap')
    """
    hint = typing.get_type_hints(function)[name]
    kinds = [one for one in (hint, *typing.get_args(hint)) if typing.get_origin(one) is typing.Literal]
    return tuple(value for kind in kinds for value in typing.get_args(kind))


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


def say_of_hub(source: Any, say: Callable[[str], None]) -> None:
    """Says that the hub is asked, which can take long, where a model is one of its ids."""
    if isinstance(source, str) and source.strip().startswith("hf://"):
        say(f"asking the hub for {source}")

"""Variables for calls that stand in one script, so that none takes the place of another."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from workbench_widgets.call import Call, Given, Part

TAKEN = ("wb", "frame", "atlas")  # what the script itself assigns
MODEL = "model"  # what an object is called that has no name


def apart(calls: Sequence[Call | Given]) -> list[Call | Given]:
    """The same calls, and what was given, with a variable of its own for each that is different.

    Calls that two of them need stay one. What was shown beside a call is left out.

    Example:
        >>> import workbench as wb
        >>> [one.code() for one in apart([Call(wb.layers, ("a.pt",)), Call(wb.layers, ("b.pt",))])]
        ["layers = wb.layers('a.pt')", "layers_2 = wb.layers('b.pt')"]
    """
    every = list(_found(calls))
    names = _Names()
    for one in sorted(every, key=lambda one: not _is_fixed(one)):  # names of the notebook first: they stay
        names.of(one)
    return [_renamed(one, names) for one in calls]


class _Names:
    """Variables by what they hold."""

    def __init__(self) -> None:
        self._known: list[tuple[Call | Given, str]] = []
        self._taken = set(TAKEN)

    def of(self, one: Call | Given) -> str:
        """The variable of a call or of what was given; a new one if it has none."""
        if (found := next((name for known, name in self._known if known == one), None)) is not None:
            return found
        first = name = one.variable
        number = 2
        while name in self._taken:
            name, number = f"{first}_{number}", number + 1
        self._taken.add(name)
        self._known.append((one, name))
        return name


def _found(values: Sequence[Any]) -> Iterator[Call | Given]:
    """All calls and what they were given, those that others need first."""
    for one in values:
        if isinstance(one, Call):
            yield from _found([*one.positional, *one.keywords.values()])
            yield one
        elif isinstance(one, Part):
            yield from _found([one.call])
        elif isinstance(one, Given):
            yield one
        elif isinstance(one, list | tuple):
            yield from _found(one)
        elif isinstance(one, dict) and not _is_object(one):
            yield from _found(list(one.values()))
        elif _is_object(one):
            yield Given(MODEL, one)


def _renamed(one: Any, names: _Names) -> Any:
    if isinstance(one, Call):
        positional = tuple(_renamed(part, names) for part in one.positional)
        keywords = {name: _renamed(part, names) for name, part in one.keywords.items()}
        return replace(one, positional=positional, keywords=keywords, name=names.of(one), beside=())
    if isinstance(one, Part):
        return replace(one, call=_renamed(one.call, names))
    if isinstance(one, Given):
        return replace(one, name=names.of(one))
    if isinstance(one, list | tuple):
        return type(one)(_renamed(part, names) for part in one)
    if isinstance(one, dict) and not _is_object(one):
        return {name: _renamed(part, names) for name, part in one.items()}
    return _renamed(Given(MODEL, one), names) if _is_object(one) else one


def _is_fixed(one: Call | Given) -> bool:
    """Whether the notebook has a name for it."""
    return isinstance(one, Given) and not isinstance(one.value, str) and one.variable != one.name


def _is_object(one: Any) -> bool:
    """Whether it cannot be written in code, as a mapping of tensors."""
    if isinstance(one, dict):
        return any(_is_object(part) for part in one.values())
    if isinstance(one, list | tuple):
        return any(_is_object(part) for part in one)
    return not (one is None or isinstance(one, str | int | float | Call | Given | Part))

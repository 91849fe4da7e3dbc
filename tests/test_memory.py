"""What explorers remember of calls: a run keeps what it made, whatever is forgotten or kept beside it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from workbench_widgets.call import MISSING, Call, Memory


def one() -> int:
    return 1


def nothing(given: Any) -> None:
    assert given == 1


def both(first: Any, second: Any) -> tuple[Any, Any]:
    return first, second


FIRST = Call(one, ())


def in_two_threads(action: Callable[[int], None], rounds: int) -> None:
    threads = [threading.Thread(target=lambda own=own: [action(own + 2 * n) for n in range(rounds)]) for own in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_run_does_not_miss_what_is_forgotten_meanwhile() -> None:
    memory = Memory()

    def forgetful(given: int) -> int:
        memory.forget()
        return given + 1

    middle = Call(forgetful, (FIRST,))
    last = Call(both, (FIRST, middle))
    assert last.run(memory=memory) == (1, 2)
    assert [memory.find(call, "gone") for call in last.parts] == ["gone"] * 3, "it is of before"
    later = Call(both, (FIRST, FIRST))
    assert later.run(memory=memory) == (1, 1) and memory.find(later) == (1, 1)


def test_none_is_a_value() -> None:
    made: list[str] = []

    def told() -> None:
        made.append("told")

    memory, silent = Memory(), Call(told, ())
    assert Call(both, (silent, silent)).run(memory=memory) == (None, None)
    assert Call(both, (FIRST, silent)).run(memory=memory) == (1, None)
    assert made == ["told"] and memory.find(silent, MISSING) is None


def test_what_was_not_made_is_no_argument() -> None:
    with pytest.raises(LookupError, match="one was not made before the call that takes it"):
        Call(nothing, (FIRST,))._returned([], None, named=False)


def test_nothing_is_lost_between_threads() -> None:
    memory = Memory()
    calls = [Call(one, (), {"number": number}) for number in range(400)]
    generation = memory.recalled()[1]

    def keep_and_drop(number: int) -> None:
        memory.keep(calls[number], number, generation)
        memory.drop([calls[number]] if number % 4 > 1 else [])

    in_two_threads(keep_and_drop, 200)
    assert [memory.find(call) for call in calls] == [n if n % 4 < 2 else None for n in range(400)]

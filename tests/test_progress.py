"""Running over many units, and the random numbers of one unit."""

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from workbench import Cancelled
from workbench.progress import Progress, map_units
from workbench.seeds import generator


def reciprocal(unit: int) -> float:
    return 1 / unit


def test_a_failing_unit_is_an_outcome_and_the_others_are_as_without_it() -> None:
    outcomes = map_units(reciprocal, [2, 0, 4], name=str)
    assert [(one.unit, one.value) for one in outcomes] == [(2, 0.5), (0, None), (4, 0.25)]
    assert [type(one.error) for one in outcomes] == [type(None), ZeroDivisionError, type(None)]


def test_progress_names_each_unit_before_it_starts_and_counts_failures_as_done() -> None:
    events: list[Any] = []

    def unit(number: int) -> float:
        events.append(number)
        return reciprocal(number)

    map_units(unit, [2, 0, 4], name=lambda one: f"unit {one}", progress=events.append)
    reports = [event for event in events if isinstance(event, Progress)]
    assert [(one.done, one.total, one.item) for one in reports] == [
        (0, 3, "unit 2"),
        (1, 3, "unit 0"),
        (2, 3, "unit 4"),
        (3, 3, ""),
    ]
    assert [event for event in events if isinstance(event, int)] == [2, 0, 4]
    assert [isinstance(event, Progress) for event in events] == [True, False] * 3 + [True]
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(reports))


def test_no_units_still_report_that_all_is_done() -> None:
    reports: list[Progress] = []
    assert map_units(reciprocal, [], name=str, progress=reports.append) == []
    assert [(one.done, one.total, one.item) for one in reports] == [(0, 0, "")]


@pytest.mark.parametrize("stop_at", range(4))
def test_cancelling_keeps_the_outcomes_so_far_and_starts_nothing_more(stop_at: int) -> None:
    started = []

    def progress(report: Progress) -> None:
        if report.done == stop_at:
            raise Cancelled(f"stopping at {report.done}")

    with pytest.raises(Cancelled, match=f"stopping at {stop_at}") as stop:
        map_units(lambda one: started.append(one), [7, 8, 9], name=str, progress=progress)
    assert [one.unit for one in stop.value.partial] == [7, 8, 9][:stop_at] == started


def test_except_exception_does_not_swallow_a_cancel() -> None:
    assert not issubclass(Cancelled, Exception)

    def work(_: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled, match="cancelled"):
        map_units(work, [1], name=str)


@pytest.mark.parametrize("error", [KeyError("callback"), KeyboardInterrupt()])
def test_an_error_of_the_callback_is_not_taken_for_a_failed_unit(error: BaseException) -> None:
    def progress(_: Progress) -> None:
        raise error

    with pytest.raises(type(error)):
        map_units(reciprocal, [1], name=str, progress=progress)


def test_an_interrupt_inside_a_unit_ends_the_run() -> None:
    def unit(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_units(unit, [1, 2], name=str)


@pytest.mark.parametrize(
    ("seed", "name", "bits"),
    [
        (0, "fc1", [29879, 36281, 27259, 39996]),
        (1, "fc1", [16679, 19044, 49533, 18082]),
        (-3, "ünï.weight", [8895, 9866, 46623, 24958]),
    ],
)
def test_streams_are_the_same_on_every_machine_and_in_every_version(seed: int, name: str, bits: list[int]) -> None:
    """Pinned: a change here changes every published number that was drawn."""
    drawn = torch.randint(0, 1 << 16, (4,), generator=generator(seed, name))
    assert drawn.tolist() == bits


def test_streams_of_all_seeds_and_names_are_distinct() -> None:
    names = ["", "a", "b", "1", "1/a", "a/1", "A", "fc.1", "fc.11", "é", "e\u0301"]
    pairs = list(itertools.product([-11, -1, 0, 1, 11, 2**40], names))
    first = {tuple(torch.randint(0, 2**62, (2,), generator=generator(*pair)).tolist()) for pair in pairs}
    assert len(first) == len(pairs)


def test_neighbouring_seeds_and_names_draw_uncorrelated_numbers() -> None:
    count, draws = 20, 4000
    streams = torch.stack([torch.randn(draws, generator=generator(n % 5, f"layer.{n // 5}")) for n in range(count)])
    correlation = np.corrcoef(streams.numpy())[np.triu_indices(count, 1)]
    assert np.abs(correlation).max() < 5 / math.sqrt(draws)  # 190 pairs of normal deviates; 5σ is 1 in 10⁴
    assert abs(np.std(correlation) * math.sqrt(draws) - 1) < 0.2


def test_the_global_generators_are_not_touched() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    torch.rand(5, generator=generator(0, "a"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002

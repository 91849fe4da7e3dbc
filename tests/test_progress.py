"""Running over many units, and the random numbers of one unit."""

import contextlib
import itertools
import math
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

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


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("stop_at", range(4))
def test_cancelling_keeps_every_unit_that_was_announced_and_starts_no_other(stop_at: int, workers: int) -> None:
    started: list[int] = []
    announced: list[str] = []

    def progress(report: Progress) -> None:
        if len(announced) == stop_at:
            raise Cancelled(f"stopping before {report.item!r}")
        announced.append(report.item)

    with pytest.raises(Cancelled, match="stopping before") as stop:
        map_units(lambda one: started.append(one) or one, [7, 8, 9], name=str, progress=progress, workers=workers)
    assert [one.unit for one in stop.value.partial] == [7, 8, 9][:stop_at] == sorted(started)
    assert [one.value for one in stop.value.partial] == [7, 8, 9][:stop_at]


def test_except_exception_does_not_swallow_a_cancel() -> None:
    assert not issubclass(Cancelled, Exception)

    def work(_: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled, match="cancelled"):
        map_units(work, [1], name=str)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", [KeyError("callback"), KeyboardInterrupt()], ids=["KeyError", "KeyboardInterrupt"])
def test_an_error_of_the_callback_is_not_taken_for_a_failed_unit(error: BaseException, workers: int) -> None:
    def progress(_: Progress) -> None:
        raise error

    with pytest.raises(type(error)):
        map_units(reciprocal, [1], name=str, progress=progress, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_inside_a_unit_ends_the_run(workers: int) -> None:
    def unit(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_units(unit, [1, 2], name=str, workers=workers)


# Several workers


def test_outcomes_are_in_order_though_units_end_in_another() -> None:
    second_done = threading.Event()

    def unit(number: int) -> float:
        if number == 0:
            assert second_done.wait(30)
        else:
            second_done.set()
        return reciprocal(number)

    outcomes = map_units(unit, [0, 1, 2], name=str, workers=2)
    assert [(one.unit, one.value) for one in outcomes] == [(0, None), (1, 1.0), (2, 0.5)]
    assert isinstance(outcomes[0].error, ZeroDivisionError)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_as_many_units_run_at_a_time_as_there_are_workers(workers: int) -> None:
    together = threading.Barrier(workers, timeout=30)  # breaks unless so many wait in it at once
    lock, running, most = threading.Lock(), [], []

    def unit(number: int) -> None:
        with lock:
            running.append(number)
            most.append(len(running))
        together.wait()
        with lock:
            running.remove(number)

    outcomes = map_units(unit, range(6), name=str, workers=workers)
    assert [one.error for one in outcomes] == [None] * 6
    assert max(most) == workers


def test_the_callback_is_called_in_the_callers_thread_with_counts_that_never_fall() -> None:
    reports, threads = [], set()

    def progress(report: Progress) -> None:
        reports.append(report)
        threads.add(threading.get_ident())

    map_units(reciprocal, range(9), name=str, progress=progress, workers=3)
    assert threads == {threading.get_ident()}
    assert [report.item for report in reports] == [*map(str, range(9)), ""]
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert all(index - 3 < count <= index for index, count in enumerate(done[:-1]))
    assert done[-1] == 9


def blas_threads() -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def in_a_thread_that_ends(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Of threads that set OpenBLAS' limit threadpoolctl heeds the first alone, as long as that lives."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments, **options).result()


@pytest.fixture
def two_blas_threads() -> Iterator[None]:
    limits = in_a_thread_that_ends(threadpool_limits, 2, user_api="blas")
    yield
    in_a_thread_that_ends(limits.restore_original_limits)


@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize("end", [None, Cancelled, KeyError])
@pytest.mark.parametrize("workers", [1, 2])
def test_thread_counts_of_torch_and_blas_are_as_before(end: type[BaseException] | None, workers: int) -> None:
    before, seen = torch.get_num_threads(), []

    def progress(report: Progress) -> None:
        if end and report.done:
            raise end

    def unit(_: int) -> None:
        seen.append((torch.get_num_threads(), *set(blas_threads())))

    with contextlib.suppress(Cancelled, KeyError):
        map_units(unit, range(8), name=str, progress=progress, workers=workers)
    assert set(seen) == ({(1, 1)} if workers > 1 else {(before, 2)})
    assert (torch.get_num_threads(), *set(blas_threads())) == (before, 2)


@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize("first_out", ["a", "b"])
def test_of_two_runs_at_once_the_last_to_end_restores_the_thread_counts(first_out: str) -> None:
    """As two explorers have it, each in a thread of its own."""
    entered, leave = ({name: threading.Event() for name in "ab"} for _ in range(2))

    def unit(name: str) -> None:
        entered[name].set()
        assert leave[name].wait(30)

    runs = {
        name: threading.Thread(target=map_units, args=(unit, [name]), kwargs={"name": str, "workers": 2})
        for name in "ab"
    }
    for name in "ab":
        runs[name].start()
        assert entered[name].wait(30)
    both = blas_threads()
    leave[first_out].set()
    runs[first_out].join()
    one = blas_threads()
    for name in "ab":
        leave[name].set()
        runs[name].join()
    assert (set(both), set(one), set(blas_threads())) == ({1}, {1}, {2})


# Random numbers


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

"""One way to run over many layers: progress, cancelling, and failures as outcomes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from workbench.errors import ArgumentError, Cancelled

U = TypeVar("U")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: `done` of `total` units are finished and `item` comes next.

    Attributes:
        done: units finished.
        total: units in all.
        item: name of the unit about to start; empty once all are done.
        seconds: wall time since the run began.
        partial: makes the Result of what is done so far, where a run can in passing; to be called in the callback.
    """

    done: int
    total: int
    item: str
    seconds: float
    partial: Callable[[], Any] | None = field(default=None, repr=False, compare=False)


ProgressCallback = Callable[[Progress], None]


def check_progress(progress: object) -> None:
    """Refuses what cannot be told of progress, before anything is computed.

    Raises:
        ArgumentError: it is neither a function nor None.
    """
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress={progress!r}: expected a function of a Progress, or None.")


def reporter(progress: ProgressCallback | None, kind: type[Progress] = Progress, **same: Any) -> Callable[..., None]:
    """`report(item, done, total, …)`, which tells `progress` where a run stands and its seconds since now.

    Args:
        progress: what is told; None for nothing.
        kind: what it is told.
        same: fields that are the same in every report, such as `partial`.
    """
    begin = time.perf_counter()

    def report(item: str, done: int, total: int, **more: Any) -> None:
        if progress is not None:
            seconds = time.perf_counter() - begin
            progress(kind(done=done, total=total, item=item, seconds=seconds, **same, **more))

    return report


def told_whole(whole: R, report: Callable[[], object]) -> R:
    """What is finished, after the last report.

    Raises:
        Cancelled: passed on from the report, with the whole.
    """
    try:
        report()
    except Cancelled as stop:
        stop.partial = whole
        raise
    return whole


@dataclass(frozen=True)
class Outcome(Generic[U, R]):
    """What became of one unit: a value, or the error that stopped it."""

    unit: U
    value: R | None
    error: Exception | None


def map_units(
    function: Callable[[U], R],
    units: Sequence[U],
    *,
    name: Callable[[U], str],
    progress: ProgressCallback | None = None,
    workers: int = 1,
) -> list[Outcome[U, R]]:
    """`function` over `units`, each failure kept as its unit's outcome.

    Several workers are threads of one mathematical thread each, which pays where the units are small. Until the last
    of such runs ends, all of the process computes on one thread each; then the numbers of threads are as before.

    Args:
        function: a plain function of one unit.
        units: what to run over; they are started in order.
        name: the unit's name, for the progress report.
        progress: called in the caller's thread before each unit and once at the end; it may raise `Cancelled`.
        workers: units that run at a time.

    Returns:
        One outcome per unit, in order.

    Raises:
        Cancelled: passed on from `progress`; its `partial` are the outcomes of the units that were started.
    """
    report = reporter(progress)
    outcomes: dict[int, Outcome[U, R]] = {}
    running: dict[Future[R], int] = {}

    def collect(*, below: int) -> None:
        """Waits until fewer than `below` units are running."""
        while running and len(running) >= below:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index = running.pop(future)
                error = future.exception()
                if isinstance(error, Exception):  # one layer must not lose the run: the caller turns this into a row
                    outcomes[index] = Outcome(units[index], None, error)
                else:
                    outcomes[index] = Outcome(units[index], future.result(), None)

    with _pool(workers) as pool:
        try:
            for index, unit in enumerate(units):
                collect(below=workers)
                report(name(unit), len(outcomes), len(units))
                running[pool.submit(function, unit)] = index
            collect(below=1)
            report("", len(outcomes), len(units))
        except Cancelled as stop:
            collect(below=1)
            stop.partial = [outcomes[index] for index in sorted(outcomes)]
            raise
    return [outcomes[index] for index in sorted(outcomes)]


@contextmanager
def _pool(workers: int) -> Iterator[Executor]:
    """Threads whose mathematics does not multiply threads again; one worker is the caller's thread itself."""
    if workers == 1:
        yield _Inline()
        return
    initialise = torch.set_num_threads  # libgomp counts per thread, so each worker says it for itself
    with _ONE_THREAD_EACH, ThreadPoolExecutor(workers, initializer=initialise, initargs=(1,)) as pool:
        yield pool


class _OneThreadEach:
    """Holds BLAS and torch at one thread while any pool is open; the first in remembers, the last out restores.

    The numbers of threads are the process's: other computations run slower meanwhile, and not differently.
    """

    def __init__(self) -> None:
        self._lock, self._open = threading.Lock(), 0

    def __enter__(self) -> None:
        import scipy.linalg  # noqa: F401 - its BLAS must be there before its threads can be limited
        from threadpoolctl import threadpool_limits

        with self._lock:
            if self._open == 0:
                self._torch = torch.get_num_threads()
                _take_control_of_openblas()
                self._blas = threadpool_limits(1, user_api="blas")
            self._open += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                _take_control_of_openblas()
                self._blas.__exit__(None, None, None)
                torch.set_num_threads(self._torch)


def _take_control_of_openblas() -> None:
    """Lets this thread set OpenBLAS' limit: in newer threadpoolctl the first thread to set it is the only one heard."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


_ONE_THREAD_EACH = _OneThreadEach()


class _Inline(Executor):
    """An executor that computes at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

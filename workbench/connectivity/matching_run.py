"""What every matching does around its search: checks, readers, progress, cancelling, alignment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

from workbench.connectivity.alignment import alignments
from workbench.connectivity.groups import PermutationGroups
from workbench.connectivity.matching import Matching
from workbench.connectivity.structure import Structure
from workbench.connectivity.weight_matching import (
    MatchingProgress,
    Reader,
    check_finite,
    check_tied,
)
from workbench.errors import ArgumentError, Cancelled, nearest
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.runtime.evaluator import check_evaluator
from workbench.weights import Weights

METHODS = ("weights", "activations", "correlation")


def checked_gammas(
    groups: object, method: str, evaluator: object, restarts: object, gammas: object, seed: object, progress: object
) -> list[float]:
    """Refuses arguments out of their range; gives the γ as numbers."""
    if not isinstance(groups, PermutationGroups):
        raise ArgumentError(
            f"groups is {type(groups).__name__}: expected wb.permutation_groups(module, example_inputs)."
        )
    if method not in METHODS:
        raise ArgumentError(f"method={method!r}: expected one of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    if not isinstance(restarts, int) or isinstance(restarts, bool) or restarts < 0:
        raise ArgumentError(f"restarts={restarts!r}: expected the number of further starts, 0 or more.")
    if evaluator is not None:
        check_evaluator(evaluator)
    elif method != "weights":
        raise ArgumentError(f"method={method!r} needs evaluator=wb.evaluator(module, data, loss), for its data.")
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise ArgumentError(f"seed={seed!r}: expected a whole number.")
    check_progress(progress)
    if isinstance(gammas, str) or not isinstance(gammas, Iterable):
        raise ArgumentError(f"gammas={gammas!r}: expected several thresholds, such as (0.0, 0.3), or () for none.")
    shares = list(gammas)
    if wrong := [gamma for gamma in shares if not (isinstance(gamma, Real) and 0 <= float(gamma) <= 1)]:
        raise ArgumentError(f"gammas has {wrong[0]!r}: expected shares of the largest singular value, 0 to 1.")
    return list(dict.fromkeys(map(float, shares)))


def readers_of(structure: Structure, networks: Sequence[Weights]) -> list[Reader]:
    """The networks under the structure's names.

    Raises:
        ArgumentError: one is of another architecture, has NaN, or tied tensors that differ.
    """
    readers = [Reader(structure, network) for network in networks]
    for reader in readers:
        check_finite(reader, structure.parameters())
        check_tied(reader, structure.tied)
    return readers


def telling(progress: ProgressCallback | None, found: Callable[[], Matching]) -> ProgressCallback | None:
    """Reports that can also make the Matching of what was found so far."""
    if progress is None:
        return None
    return lambda report: progress(report if report.partial else dataclasses.replace(report, partial=found))


@contextmanager
def cancellable(found: Callable[[], Matching]) -> Iterator[None]:
    """A cancelled run leaves the Matching of what was found: orders are valid at any time."""
    try:
        yield
    except Cancelled as stop:
        partial = found()
        stop.partial = dataclasses.replace(partial, meta={**partial.meta, "cancelled": True})
        raise


def told_last(result: Matching, progress: ProgressCallback | None) -> Matching:
    """The finished result, after the last report.

    Raises:
        Cancelled: passed on with the result, which is whole.
    """
    if progress is None:
        return result
    groups = len(result.tables["groups"]["group"])
    told = MatchingProgress(
        done=groups,
        total=groups,
        item="",
        seconds=result.meta["seconds"],
        partial=lambda: result,
        sweep=result.tables["sweeps"]["sweep"][-1],
        objective=result.objective,
    )
    return told_whole(result, lambda: progress(told))


def alignment_rows(
    result: Matching,
    readers: Sequence[Reader],
    gammas: Sequence[float],
    progress: ProgressCallback | None,
    model: int = 1,
) -> list[dict[str, Any]]:
    """The table `alignment` of one network with the first."""
    sweep = result.tables["sweeps"]["sweep"][-1]
    tell = reporter(progress, MatchingProgress, sweep=sweep, objective=result.objective)

    def report(layer: str, done: int, total: int) -> None:
        tell(f"singular vectors of {layer}", done, total)

    a, b = (reader.weights for reader in readers)
    names = {own: readers[1].names[name] for name, own in readers[0].names.items()}
    return [{"model": model, **row} for row in alignments(a, b, result.apply(b, model), gammas, names, report)]

"""`wb.spectrum` against weightwatcher 0.7.7 and against its own bare mathematics, taking turns, on equal threads."""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dialogue import Worker
from peers import peers_python
from rows import Bound, Measurement, Row

REPETITIONS = 3
TURNS = 7  # of a ratio near 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What both sides gave, ours first.

    Attributes:
        seconds: of each repetition of the whole call.
        layers: matrices that were analysed.
        alpha_gap: largest |Δα|, ours in compatibility mode.
        peaks: peak resident set in bytes: interpreter, libraries, matrices and work.
    """

    seconds: tuple[tuple[float, ...], tuple[float, ...]]
    layers: int
    alpha_gap: float
    peaks: tuple[float, float]


@cache
def compared(threads: int) -> Comparison:
    """Both sides in their own warm processes: one warm-up, then turn by turn.

    Raises:
        RuntimeError: the two did not analyse the same layers, or one of them ended.
    """
    ours_python = Path(sys.executable)
    with (
        Worker(ours_python, "ours_spectrum.py", threads=threads) as ours,
        Worker(peers_python(), "peer_weightwatcher.py", threads=threads) as theirs,
    ):
        sides = (ours, theirs)
        runs = [tuple(side.ask("run") for side in sides) for _ in range(REPETITIONS + 1)][1:]
        peaks = tuple(side.ask("memory")["bytes"] for side in sides)
        our_alpha, their_alpha = (side.ask("alpha") for side in sides)
    if our_alpha.keys() != their_alpha.keys():
        raise RuntimeError(f"only one side analysed {sorted(our_alpha.keys() ^ their_alpha.keys())}")
    return Comparison(
        seconds=(tuple(run[0]["seconds"] for run in runs), tuple(run[1]["seconds"] for run in runs)),
        layers=runs[0][0]["layers"],
        alpha_gap=max(abs(our_alpha[layer] - their_alpha[layer]) for layer in our_alpha),
        peaks=(peaks[0], peaks[1]),
    )


def seconds(threads: int) -> Callable[[], Measurement]:
    """Seconds of the whole call, on so many threads."""

    def measure() -> Measurement:
        comparison = compared(threads)
        ours, theirs = comparison.seconds
        note = f"weightwatcher 0.7.7's analyze(), {comparison.layers} matrices of MiniLM, {REPETITIONS} turns"
        return Measurement(ours=ours, baseline=theirs, note=note)

    return measure


def alpha_gap() -> Measurement:
    """Largest |Δα| of one layer, in compatibility mode."""
    return Measurement(ours=(compared(1).alpha_gap,), unit="|Δα|", note="largest of all layers, compat='weightwatcher'")


def memory() -> Measurement:
    """Peak resident set of the two processes."""
    ours, theirs = (peak / 1e6 for peak in compared(1).peaks)
    return Measurement(ours=(ours,), baseline=(theirs,), unit="MB", note="peak of the whole process, imports included")


def over_bare() -> Measurement:
    """The whole call against loading, Gram matrices and eigenvalues alone, in one warm process on one thread."""
    with Worker(Path(sys.executable), "ours_spectrum.py", threads=1) as worker:
        turns = [(worker.ask("whole"), worker.ask("bare")) for _ in range(TURNS + 1)][1:]
    if turns[0][0]["layers"] != turns[0][1]["layers"]:
        raise RuntimeError(f"the whole call analysed {turns[0][0]['layers']}, bare {turns[0][1]['layers']} matrices")
    whole, bare = (tuple(turn[side]["cpu_seconds"] for turn in turns) for side in (0, 1))
    wall = statistics.median(one["seconds"] / other["seconds"] for one, other in turns)
    times = statistics.median(ours / theirs for ours, theirs in zip(whole, bare, strict=True))
    note = (
        f"{times:.2f} times loading + Gram + eigenvalues of MiniLM's file by the same functions on one thread "
        f"({wall:.2f} in wall time), {TURNS} turns"
    )
    return Measurement(ours=whole, baseline=bare, unit="CPU s", note=note)


def details() -> Measurement:
    """Everything that weightwatcher's mp_fit, randomize and detX compute, on a ResNet-20 of random weights."""
    with Worker(Path(sys.executable), "ours_spectrum.py", threads=1) as ours:
        mine = [ours.ask("details") for _ in range(REPETITIONS + 1)][1:]
    with Worker(peers_python(), "peer_weightwatcher.py", threads=1) as theirs:
        peer = theirs.ask("details")
    if peer["layers"] != mine[0]["layers"]:
        raise RuntimeError(f"weightwatcher analysed {peer['layers']} layers, we {mine[0]['layers']}")
    median = statistics.median(one["cpu_seconds"] for one in mine)
    note = (
        f"weightwatcher's analyze(mp_fit, randomize, detX), once; noise, randomised, det_x and compat columns of "
        f"{peer['layers']} layers, median of {REPETITIONS}; one thread; "
        f"{median:.3g} against {peer['cpu_seconds']:.3g} CPU s"
    )
    return Measurement(
        ours=(statistics.median(one["seconds"] for one in mine),), baseline=(peer["seconds"],), note=note
    )


def tempbalance() -> Measurement:
    """One estimate of a TempBalanceScheduler against the epoch that it follows, in CPU seconds on one thread."""
    with Worker(Path(sys.executable), "tempbalance_worker.py", threads=1) as worker:
        turns = [[worker.ask(what)["cpu_seconds"] for what in ("step", "epoch", "balanced")] for _ in range(TURNS + 1)]
    steps, plain, balanced = (tuple(each) for each in zip(*turns[1:], strict=True))
    groups = statistics.median(one / other for one, other in zip(balanced, plain, strict=True))
    note = (
        f"an epoch of the digits MLP 64-512-512-10, 1437 images in batches of 64, Adam; {TURNS} turns; with a group "
        f"for each layer the epoch itself takes {groups:.2f} times as long"
    )
    return Measurement(ours=steps, baseline=plain, unit="CPU s", note=note)


ROWS = [
    Row(
        "spectrum-1-thread", Bound(judged="ratio", at_least=2.5), seconds(1)
    ),  # 2.6 to 3.1 on the machine it was made on
    Row("spectrum-2-threads", Bound(judged="ratio", at_least=3), seconds(2)),
    Row("spectrum-alpha", Bound(judged="ours", at_most=1e-6), alpha_gap),
    Row("spectrum-memory", Bound(judged="ratio", at_least=1 / 0.6), memory),
    Row("spectrum-over-bare", Bound(judged="ratio", at_least=1 / 1.3), over_bare),
    Row("spectrum-details", Bound(judged="ratio", at_least=100), details),
    Row("tempbalance-step", Bound(judged="ratio", at_least=1), tempbalance),
]

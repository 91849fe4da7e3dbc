"""Where a run over batches stands, also between the backward passes of one batch."""

from __future__ import annotations

import time
from collections.abc import Callable

from workbench.runtime.chain import Batch

SECONDS = 0.1  # between two reports inside a batch, at least


class Passes:
    """Tells `report` of a layer's batches, and of the backward passes that each of them takes.

    Args:
        report: is told an item, `layer, batch 2 of 5, pass 128 of 1024`; it may raise `Cancelled`.
        layer: the layer's id.
        batches: their number, 0 where it is unknown.
    """

    def __init__(self, report: Callable[[str], None], layer: str, batches: int) -> None:
        self._report, self._layer, self._batches = report, layer, batches
        self._batch, self._done = "", 0
        self._told = time.monotonic()

    def __call__(self, batch: Batch) -> None:
        """Tells that a batch begins."""
        self._batch = f"{self._layer}, batch {counted(batch.number + 1, self._batches)}"
        self._done = 0
        self._tell(self._batch)

    def passed(self, passes: int) -> None:
        """Counts a pass that is done, one of `passes`, and tells of it where the last report is some time ago."""
        self._done += 1
        if time.monotonic() - self._told >= SECONDS:
            self._tell(f"{self._batch}, pass {counted(self._done, passes)}")

    def _tell(self, item: str) -> None:
        self._report(item)
        self._told = time.monotonic()


def counted(number: int, total: int) -> str:
    """`2 of 5`; without the total where it is unknown, or no longer true."""
    return f"{number} of {total}" if number <= total else str(number)

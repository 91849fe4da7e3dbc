"""A file that is written beside the computation of what comes next."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

BUFFER = 1 << 25  # bytes of each of the two buffers: together a matrix of 4096 × 4096 in float32


class WrittenBehind:
    """Takes bytes at once and writes them in a thread of its own; an error of the disk is raised by a later call.

    Args:
        file: open for writing, without a buffer of its own.
        size: how many bytes will come, if that is known: the buffers need not be larger.
    """

    def __init__(self, file: FileIO, size: int = BUFFER) -> None:
        self._file = file
        self._spare, self._filling = (bytearray(min(BUFFER, max(size, 1))) for _ in range(2))
        self._filled = 0
        self._thread = ThreadPoolExecutor(1, "wb-writer")
        self._pending: Future[None] | None = None

    def write(self, data: memoryview | bytes) -> None:
        """Takes bytes; they may be changed afterwards.

        Raises:
            OSError: of what was written before.
        """
        data = memoryview(data)
        while len(data):
            taken = min(len(data), len(self._filling) - self._filled)
            memoryview(self._filling)[self._filled : self._filled + taken] = data[:taken]
            self._filled, data = self._filled + taken, data[taken:]
            if self._filled == len(self._filling):
                self._hand_over()

    def finish(self) -> None:
        """Waits until everything is on the disk.

        Raises:
            OSError: the disk is full or refuses.
        """
        self._hand_over()
        self._written()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the thread, whatever has come of what it writes."""
        self._thread.shutdown(wait=True)

    def _hand_over(self) -> None:
        self._written()
        full = memoryview(self._filling)[: self._filled]
        self._pending = self._thread.submit(self._put, full)
        self._spare, self._filling, self._filled = self._filling, self._spare, 0

    def _written(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def _put(self, data: memoryview) -> None:
        size = len(data)
        while len(data):
            data = data[self._file.write(data) :]
        if hasattr(os, "posix_fadvise"):  # Linux then begins to write it to the disk, and not only at the end
            os.posix_fadvise(self._file.fileno(), self._file.tell() - size, size, os.POSIX_FADV_DONTNEED)


@contextmanager
def written_behind(path: Path, size: int) -> Iterator[WrittenBehind]:
    """A new file of so many bytes, which are on the disk when this ends.

    Raises:
        OSError: the disk is full or refuses.
    """
    with path.open("wb", buffering=0) as file:
        writer = WrittenBehind(file, size)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()

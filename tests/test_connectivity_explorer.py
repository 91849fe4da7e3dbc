"""The connectivity explorer without a screen: what is clicked, shown and said equals what the library computes."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as ipw
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import workbench as wb
from page import clicked
from workbench_widgets.call import Call, Given, Memory
from workbench_widgets.surface_view import GIVEN, RANDOM
from workbench_widgets.view_explorer import FIRST, SECOND

Explorer = wb.ui.ConnectivityExplorer
MODULE = """
import torch
from torch import nn
layers = [nn.Linear(5, 12), nn.{norm}, nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)]
module = nn.Sequential(*layers)
random = torch.Generator().manual_seed(7)
data = [(torch.randn(40, 5, generator=random), torch.randint(0, 3, (40,), generator=random))]
evaluator = wb.evaluator(module, data, 'cross_entropy')
"""
PLAIN, NORMALISED = MODULE.replace("{norm}", "Identity()"), MODULE.replace("{norm}", "BatchNorm1d(12)")


def made(code: str) -> dict[str, Any]:
    """What the notebook of a user would hold."""
    found: dict[str, Any] = {"wb": wb}
    exec(code, found)
    return found


def checkpoint(module: nn.Module, seed: int, folder: Path) -> str:
    """A file of random weights."""
    random = torch.Generator().manual_seed(seed)
    state = {
        name: torch.rand(one.shape, generator=random) + 0.5
        if "running" in name
        else torch.randn(one.shape, generator=random)
        for name, one in module.state_dict().items()
        if one.is_floating_point()
    }
    counted = {name: one for name, one in module.state_dict().items() if not one.is_floating_point()}
    path = folder / f"net{seed}.safetensors"
    save_file(state | counted, path)
    return str(path)


@pytest.fixture(params=[PLAIN], ids=["plain"])
def given(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.chdir(tmp_path)
    found = made(request.param)
    paths = [checkpoint(found["module"], seed, tmp_path) for seed in range(3)]
    return SimpleNamespace(code=request.param, paths=paths, **found)


@pytest.fixture
def normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.chdir(tmp_path)
    found = made(NORMALISED)
    return SimpleNamespace(paths=[checkpoint(found["module"], seed, tmp_path) for seed in range(2)], **found)


@pytest.fixture
def explorer(given: SimpleNamespace) -> Iterator[wb.ui.ConnectivityExplorer]:
    made = Explorer(*given.paths[:2], given.evaluator, points=5, resolution=3)
    yield made
    made.close()


def listed(explorer: wb.ui.ConnectivityExplorer) -> pd.DataFrame:
    return explorer.rows._table.df


def expected(given: SimpleNamespace, **keywords: Any) -> SimpleNamespace:
    """The library's own results."""
    groups = wb.permutation_groups(given.evaluator)
    matching = wb.match(groups, *given.paths[:2], evaluator=given.evaluator, **keywords)
    ends = given.paths[0], matching.apply(given.paths[1])
    return SimpleNamespace(groups=groups, matching=matching, ends=ends)


def test_layers_are_listed_before_any_run(explorer: wb.ui.ConnectivityExplorer) -> None:
    assert set(listed(explorer)["layer"]) == {"0", "3", "5"}
    assert explorer.result is None and "3 of 6 tensors" in explorer.status


def test_every_view_gives_the_librarys_result(explorer: wb.ui.ConnectivityExplorer, given: SimpleNamespace) -> None:
    own = expected(given)
    barriers = {
        "before matching": wb.barrier(given.evaluator, *given.paths[:2], points=5, batch_norm=None),
        "after matching": wb.barrier(given.evaluator, *own.ends, points=5, batch_norm=None),
    }
    surface = wb.surface(given.evaluator, *given.paths[:2], own.ends[1], points=3, batch_norm=None)
    results = {"groups": own.groups, "matching": own.matching, "alignment": own.matching}
    results |= {"barrier": barriers["after matching"], "surface": surface}
    for view, result in results.items():
        explorer.view.value = view
        shown = explorer.run()
        for table in result.TABLES:
            columns = [name for name in result.frame(table) if name != "seconds"]
            pd.testing.assert_frame_equal(shown.frame(table)[columns], result.frame(table)[columns])
        assert explorer.result is shown and explorer.error is None and explorer.status == shown.facts()
        assert list(explorer.table.options) == [name for name in result.TABLES if len(result.frame(name))]
    explorer.view.value = "barrier"
    assert explorer.plots[FIRST].spec.csv() == wb.figure(barriers).csv()
    explorer.view.value = "surface"
    assert explorer.plots[FIRST].spec.csv() == wb.figure(surface).csv()


def test_a_view_that_was_run_is_there_again(explorer: wb.ui.ConnectivityExplorer) -> None:
    explorer.view.value = "matching"
    matching = explorer.run()
    explorer.view.value = "groups"
    assert isinstance(explorer.result, wb.PermutationGroups)  # the matching needed them
    explorer.view.value = "surface"
    assert explorer.result is None and explorer.plots[FIRST].spec is None and "layer" in listed(explorer)
    explorer.view.value = "alignment"
    assert explorer.result is matching and explorer.table.value == "alignment"
    explorer.inputs.seed.value = 3
    assert explorer.result is matching and explorer.code().startswith("# the settings have changed")
    explorer.inputs.seed.value = 0
    assert not explorer.code().startswith("#")


def test_other_settings_come_back_from_memory(explorer: wb.ui.ConnectivityExplorer) -> None:
    explorer.view.value = "matching"
    first = explorer.run()
    explorer.inputs.restarts.value = 2
    second = explorer.run()
    assert max(second.tables["sweeps"]["start"]) == 2 and second is not first
    explorer.inputs.restarts.value = 0
    assert explorer.result is first


MOVED: dict[str, dict[str, Any]] = {
    "groups": {},
    "matching": {"restarts": 1, "seed": 4, "gammas": "0, 0.5"},
    "matching without vectors": {"gammas": ""},
    "alignment": {"method": "activations"},
    "barrier": {"method": "correlation", "points": 3},
    "path": {"t": 0.3, "matched": False},
    "surface": {"resolution": 3, "plane": RANDOM, "seed": 2},
    "surface matched": {"resolution": 2, "cache": "kept"},
}


@pytest.mark.parametrize(
    ("view", "holds"), [*((view, "evaluator") for view in MOVED), ("groups", "module"), ("path", "module")]
)
def test_code_recomputes_the_frame_in_a_fresh_interpreter(
    given: SimpleNamespace, view: str, holds: str, tmp_path: Path, interpreter: Callable[..., str]
) -> None:
    network = {"evaluator": given.evaluator} if holds == "evaluator" else {"module": given.module, "data": given.data}
    explorer = Explorer(*given.paths[:2], **network, view=view.split()[0])
    for control, value in MOVED[view].items():
        owner = next(one for one in (explorer.views[view.split()[0]], explorer.inputs) if hasattr(one, control))
        getattr(owner, control).value = value
        explorer.wait(30)
    frame = explorer.run().frame()
    assert explorer.code_box.value == explorer.code() and not explorer.code().startswith("#")
    names = ["evaluator"] if holds == "evaluator" else ["module", "data"]
    for name in names:
        kind = type(network[name]).__name__
        assert f"# {name}: the {kind} that the explorer was given" in explorer.code()
    head, _, body = explorer.code().partition("\n")
    drawn = [f"{plot.spec.kind}_figure.save('{n}.csv')" for n, plot in enumerate(explorer.plots.values()) if plot.spec]
    code = "\n".join([head, given.code, body, "frame.to_pickle('frame.pkl')", *drawn])
    interpreter(code, tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame.pkl"), frame)
    for number, plot in enumerate(explorer.plots.values()):
        assert plot.spec is None or (tmp_path / f"{number}.csv").read_text() == plot.spec.csv()
    explorer.close()


def test_the_objective_is_told_while_it_rises_and_a_cancel_keeps_valid_permutations(
    given: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = Explorer(*given.paths[:2], given.evaluator, view="matching")
    explorer.inputs.restarts.value = 10**6
    told: list[str] = []
    explorer.observe(lambda change: told.append(change.new), "status")
    explorer.controls.run.click()
    end = time.monotonic() + 30
    while time.monotonic() < end and sum("objective" in line for line in told) < 3:
        time.sleep(0.01)
    begin = time.perf_counter()
    explorer.controls.cancel.click()
    assert time.perf_counter() - begin < 0.5 and explorer.status.startswith("stopping")
    assert explorer.wait(30)
    partial = explorer.result
    assert isinstance(explorer.error, wb.Cancelled) and explorer.error.partial is partial
    assert "CANCELLED" in explorer.status and isinstance(partial, wb.Matching)
    numbers = [float(line.split("objective ")[1].split(":")[0]) for line in told if "objective " in line]
    assert len(numbers) >= 3
    best = max(partial.tables["sweeps"]["objective"])
    assert partial.objective == best > min(partial.tables["sweeps"]["objective"])
    loss = given.evaluator(wb.load(given.paths[1]))["loss"]
    assert given.evaluator(partial.apply(given.paths[1]))["loss"] == pytest.approx(loss, rel=1e-5)
    explorer.inputs.restarts.value = 0
    assert explorer.run().meta.get("cancelled") is None and explorer.error is None
    explorer.close()


def test_a_cancel_while_a_step_before_is_under_way_shows_no_other_kind(
    given: SimpleNamespace,
) -> None:
    explorer = Explorer(*given.paths[:2], given.evaluator, view="surface", restarts=10**6)
    explorer.start()
    end = time.monotonic() + 30
    while time.monotonic() < end and "matching" not in explorer.status:
        time.sleep(0.01)
    explorer.cancel()
    assert explorer.wait(30) and isinstance(explorer.error, wb.Cancelled)
    assert explorer.result is None and explorer.status == "cancelled"
    explorer.view.value = "groups"
    assert isinstance(explorer.result, wb.PermutationGroups)  # what was done before is kept
    explorer.close()


def test_the_surface_fills_and_a_cancelled_one_goes_on(given: SimpleNamespace) -> None:
    go, reached = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        time.sleep(0 if go.is_set() else 0.03)  # a drawing is made meanwhile
        if len(seen) == 60:
            reached.set()
            go.wait(30)
        return nn.functional.cross_entropy(outputs, targets)

    counted = wb.evaluator(given.module, given.data, slow, metrics={})
    explorer = Explorer(given.paths[0], given.paths[1], counted, view="surface", resolution=9)
    explorer.views["surface"].plane.value = RANDOM
    drawn: list[Any] = []
    show = explorer.plots[FIRST].show
    explorer.plots[FIRST].show = lambda spec: (drawn.append(spec), show(spec))[1]  # type: ignore[method-assign]
    explorer.start()
    assert reached.wait(30)
    explorer.cancel()
    go.set()
    assert explorer.wait(30)
    partial, evaluated = explorer.result, len(seen)
    assert "CANCELLED after" in explorer.status and 0 < partial.values().isfinite().sum() < 81
    assert "81 points, the others as the nearest" in explorer.plots[FIRST].spec.panels[0].title
    assert len(drawn) >= 2
    full = explorer.run()
    again = wb.surface(counted, given.paths[0], points=9, batch_norm=None)
    pd.testing.assert_frame_equal(full.frame("grid"), again.frame("grid"))
    assert len(seen) - evaluated - 81 < 81 - partial.values().isfinite().sum() + 10  # the rest, and again all
    explorer.close()


def test_the_slider_says_what_the_evaluator_says_and_remembers(
    explorer: wb.ui.ConnectivityExplorer, given: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = expected(given)
    a, b = wb.load(own.ends[0]), own.ends[1]
    explorer.view.value = "path"
    path = explorer.views["path"]
    for t in (0.25, 0.0, 1.0):
        path.t.value = t
        assert explorer.wait(30)
        explorer.wait(30)
        found = given.evaluator({name: torch.lerp(a[name], b[name], t) for name in a})
        assert explorer.result.tables["path"]["t"] == (t,)
        assert explorer.result.tables["path"]["loss"][0] == pytest.approx(found["loss"], rel=1e-6)
        assert path.told.value == f"loss {found['loss']:.5g} · accuracy {found['accuracy']:.5g}"
    first = next(call for call, _ in explorer._memory._kept if call.keywords.get("points") == [0.25])
    monkeypatch.setattr(explorer, "start", lambda: 1 / 0)  # nothing is computed again
    path.t.value = 0.25
    assert explorer.error is None and explorer.result is explorer._memory.find(first)
    assert explorer.plots[FIRST].spec.title == "Loss at t = 0.25"


def test_the_slider_moves_over_the_lines_that_were_computed(explorer: wb.ui.ConnectivityExplorer) -> None:
    explorer.view.value = "barrier"
    after = explorer.run()
    explorer.view.value = "path"
    explorer.run()
    path, spec = explorer.result.tables["path"], explorer.plots[FIRST].spec
    labels = [mark.label for mark in spec.panels[0].marks if getattr(mark, "label", "")]
    assert labels[-1] == "t = 0.5" and sum("matching: barrier" in label for label in labels) == 2
    middle = after.tables["path"]["t"].index(0.5)
    assert path["loss"][0] == after.tables["path"]["loss"][middle]


def test_the_slider_that_moved_during_a_run_is_followed(explorer: wb.ui.ConnectivityExplorer) -> None:
    explorer.view.value = "path"
    explorer.views["path"].t.value = 0.2  # starts a run, with groups and matching before
    explorer.views["path"].t.value = 0.9
    end = time.monotonic() + 30
    while time.monotonic() < end and (explorer.result is None or explorer.result.tables["path"]["t"] != (0.9,)):
        time.sleep(0.01)
    explorer.wait(30)
    assert explorer.result.tables["path"]["t"] == (0.9,) and not explorer.running


def test_batch_norm_must_be_chosen(normalised: SimpleNamespace) -> None:
    explorer = Explorer(*normalised.paths, normalised.evaluator, view="barrier", points=3)
    assert not explorer.inputs.batch_norm.disabled and explorer.inputs.batch_norm.layout.display is None
    explorer.controls.run.click()
    assert "choose what becomes of batch norm" in explorer.status and 'role="alert"' in explorer.controls.line.value
    assert explorer.code_box.value.startswith("# choose what becomes of batch norm")
    explorer.inputs.batch_norm.value = "reset"
    own = expected(normalised)
    result = wb.barrier(normalised.evaluator, *own.ends, points=3, batch_norm="reset")
    pd.testing.assert_frame_equal(explorer.run().frame(), result.frame())
    assert "batch_norm='reset'" in explorer.code() and explorer.error is None
    explorer.view.value = "path"
    explorer.run()
    assert explorer.result.tables["path"]["loss"][0] == result.tables["path"]["loss"][1]
    explorer.close()


def test_batch_norm_is_no_question_without_it(explorer: wb.ui.ConnectivityExplorer) -> None:
    assert explorer.inputs.batch_norm.disabled and explorer.inputs.batch_norm.value == "not in this module"


def test_only_the_controls_of_the_view_are_there(explorer: wb.ui.ConnectivityExplorer) -> None:
    def there(control: ipw.Widget) -> bool:
        return control.layout.display is None

    assert not there(explorer.inputs.method) and there(explorer.view) and there(explorer.inputs.b)
    explorer.view.value = "matching"
    assert there(explorer.inputs.method) and there(explorer.inputs.gammas) and not there(explorer.inputs.batch_norm)
    assert there(explorer.plots[SECOND])
    explorer.view.value = "path"
    assert there(explorer.views["path"].t) and not there(explorer.inputs.gammas) and not there(explorer.plots[SECOND])


def test_one_selection_in_all_views(explorer: wb.ui.ConnectivityExplorer) -> None:
    explorer.run()
    explorer.rows._table.selected_rows = [0]
    assert explorer.selection == ("0", "0.bias", "3")
    explorer.table.value = "frozen"
    assert all(layer in explorer.selection for layer in explorer.rows._layers[explorer.rows._rows()[0]])
    explorer.view.value = "matching"
    explorer.run()
    assert explorer.selection == ("0", "0.bias", "3")
    assert [listed(explorer)["layer"][row] for row in explorer.rows._table.selected_rows] == ["0", "0.bias", "3"]
    explorer.selection = ("5",)
    explorer.view.value = "groups"
    assert explorer.selection == ("5",)
    explorer._picked("3.bias")  # a point of the graph
    assert explorer.selection == ("3.bias",)
    explorer.view.value = "alignment"
    assert {row["layer"] for _, row in listed(explorer).iterrows()} == {"0", "3", "5"}
    clicked(explorer.plots[FIRST], x=0.3, y=1.0)
    assert explorer.selection == ("3",) and "layer='3'" in explorer.code()
    explorer.view.value = "groups"
    assert "layer='3'" in explorer.code() and explorer.selection == ("3",)
    explorer.selection = ()
    explorer._picked("3")  # a group's name
    assert explorer.selection == ("3", "3.bias", "5")


def test_three_checkpoints_are_matched_together(given: SimpleNamespace) -> None:
    explorer = Explorer(*given.paths[:2], given.evaluator, others=given.paths[2], view="matching", points=3)
    groups = wb.permutation_groups(given.evaluator)
    many = wb.match_many(groups, given.paths, evaluator=given.evaluator)
    pd.testing.assert_frame_equal(explorer.run().frame("layers"), many.frame("layers"))
    assert explorer.inputs.method.disabled and "wb.match_many(groups, [a, b, c]" in explorer.code()
    explorer.view.value = "barrier"
    assert [label for label, _ in explorer.inputs.pair.options] == ["A and B", "A and C", "B and C"]
    explorer.inputs.pair.value = (1, 2)
    ends = [many.apply(given.paths[model], model=model) for model in (1, 2)]
    result = wb.barrier(given.evaluator, *ends, points=3, batch_norm=None)
    pd.testing.assert_frame_equal(explorer.run().frame(), result.frame())
    assert "c_matched = matching.apply(c, model=2)" in explorer.code()
    explorer.view.value = "surface"
    explorer.views["surface"].plane.value, explorer.views["surface"].resolution.value = GIVEN, 2
    surface = wb.surface(given.evaluator, *given.paths, points=2, batch_norm=None)
    pd.testing.assert_frame_equal(explorer.run().frame(), surface.frame())
    explorer.inputs.others.value = ""
    assert explorer.inputs.pair.value == (0, 1) and not explorer.inputs.method.disabled
    assert GIVEN not in explorer.views["surface"].plane.options
    explorer.inputs.others.value = given.paths[2]
    explorer.close()


def test_without_data_there_are_groups_and_matching_and_a_word_on_losses(given: SimpleNamespace) -> None:
    explorer = Explorer(*given.paths[:2], module=given.module, example_inputs=torch.zeros(1, 5), view="matching")
    own = wb.match(wb.permutation_groups(given.module, torch.zeros(1, 5)), *given.paths[:2])
    pd.testing.assert_frame_equal(explorer.run().frame(), own.frame())
    for view in ("barrier", "path", "surface"):
        explorer.view.value = view
        explorer.controls.run.click()
        assert "a loss needs the network and its data: give the explorer data=" in explorer.status
    explorer.close()


class Branching(nn.Module):
    """Its control flow depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if x.sum() > 0 else -self.fc(x)


def test_errors_are_shown_where_they_happen_and_pass(given: SimpleNamespace, tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Linear(5, 13), nn.Identity(), nn.ReLU(), nn.Linear(13, 8), nn.ReLU(), nn.Linear(8, 3))
    (tmp_path / "other").mkdir()
    other = checkpoint(wide, 9, tmp_path / "other")
    explorer = Explorer(given.paths[0], given.evaluator and other, given.evaluator, view="matching")
    explorer.controls.run.click()
    explorer.wait(30)
    assert "of the shape [13, 5], the groups expect [12, 5]" in explorer.status
    assert 'role="alert"' in explorer.controls.line.value and isinstance(explorer.error, wb.ArgumentError)
    explorer.inputs.b.value = given.paths[1] + ".txt"
    assert "no such file" in explorer.status and len(listed(explorer)) == 0
    explorer.inputs.b.value = ""
    explorer.controls.run.click()
    assert "no checkpoint B yet" in explorer.status
    explorer.inputs.b.value = given.paths[1]
    assert explorer.run() is explorer.result and explorer.error is None
    explorer.inputs.gammas.value = "a third"
    explorer.controls.run.click()
    assert "expected numbers from 0 to 1" in explorer.status
    explorer.close()

    branching = Explorer(given.paths[0], module=Branching(), example_inputs=torch.zeros(1, 5))
    branching.controls.run.click()
    branching.wait(60)
    assert isinstance(branching.error, wb.ArgumentError) and "torch.export" in branching.status
    branching.close()
    nothing = Explorer()
    nothing.controls.run.click()
    assert "no checkpoint yet" in nothing.status
    nothing.close()


def test_arguments_set_the_controls_and_bad_ones_are_refused(given: SimpleNamespace) -> None:
    explorer = Explorer(*given.paths[:2], given.evaluator, view="barrier", method="correlation", seed=3, points=7)
    assert (explorer.inputs.method.value, explorer.inputs.seed.value, explorer.call().keywords["points"]) == (
        "correlation",
        3,
        7,
    )
    explorer.close()
    wrong: list[dict[str, Any]] = [{"view": "graph"}, {"method": "weight"}, {"restarts": -1}, {"seed": 0.5}]
    wrong += [{"batch_norm": "mix"}, {"theme": "blue"}, {"module": given.module}, {"points": 1}, {"resolution": 1}]
    for bad in wrong:
        with pytest.raises(wb.ArgumentError):
            Explorer(*given.paths[:2], given.evaluator, **bad)
    with pytest.raises(wb.ArgumentError, match="expected wb.evaluator"):
        Explorer(*given.paths[:2], given.module)


def test_a_given_result_opens_its_view(given: SimpleNamespace, tmp_path: Path) -> None:
    own = expected(given)
    wb.barrier(given.evaluator, *own.ends, points=3, batch_norm=None).save(tmp_path / "saved")
    explorer = Explorer()
    explorer.result = wb.open_result(tmp_path / "saved")
    assert explorer.view.value == "barrier" and explorer.plots[FIRST].spec.csv() == wb.figure(explorer.result).csv()
    explorer.result = own.matching
    assert explorer.view.value == "matching" and explorer.table.value == "layers"
    with pytest.raises(wb.ArgumentError, match="ConnectivityExplorer shows PermutationGroups or Matching or"):
        explorer.result = wb.layers(given.paths[0])
    explorer.close()


def test_export_writes_what_is_shown(explorer: wb.ui.ConnectivityExplorer, tmp_path: Path) -> None:
    explorer.view.value = "barrier"
    explorer.run()
    panel = explorer.export_panel
    panel.figure.value, panel.name.value = FIRST, "line"
    for kind in ("pdf", "svg", "png", "csv"):
        panel.format.value = kind
        panel.button.click()
        assert f"saved line.{kind}" in panel.message.value, panel.message.value
    assert (tmp_path / "line.csv").read_text() == explorer.plots[FIRST].spec.csv()


def test_closing_lets_go_of_models_data_and_widgets(given: SimpleNamespace, open_widgets: Callable[[], int]) -> None:
    gc.collect()
    before = open_widgets()
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    explorer = Explorer(module, module, module=module, data=given.data, view="barrier", points=3)
    held = [weakref.ref(module), weakref.ref(explorer.run()), weakref.ref(explorer)]
    explorer._prepare()
    explorer.close()
    del module, explorer
    gc.collect()
    assert [reference() for reference in held] == [None] * 3
    assert open_widgets() == before


def test_every_control_has_a_name(
    explorer: wb.ui.ConnectivityExplorer, controls: Callable[[ipw.Widget], list[ipw.Widget]]
) -> None:
    assert len(controls(explorer)) >= 20 and all(one.description for one in controls(explorer))


MADE: list[str] = []


def first(x: Any) -> str:
    MADE.append("first")
    return f"first({x})"


def second(one: str, other: str) -> str:
    MADE.append("second")
    return f"second({one}, {other})"


def test_calls_are_made_once_and_shown_once() -> None:
    MADE.clear()
    path = Given("a", "net.safetensors")
    inner = Call(first, (path,))
    outer = Call(second, (inner, inner), beside=(Call(first, (Given("a", "net.safetensors"),)),))
    memory = Memory()
    assert outer.run(memory=memory) == "second(first(net.safetensors), first(net.safetensors))"
    assert MADE == ["first", "second"] and outer.run(memory=memory) and MADE[2:] == ["second"]
    assert outer.code() == "a = 'net.safetensors'\nfirst = wb.first(a)\nsecond = wb.second(first, first)"
    memory.forget()
    assert memory.find(inner) is None
    assert Given("a", path) != Given("a", "net.safetensors") and Given("a", MADE) == Given("a", MADE)

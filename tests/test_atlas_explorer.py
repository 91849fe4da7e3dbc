"""The explorer that joins results: what it shows is wb.atlas of them, and its code makes the same in a fresh kernel."""

import gc
import inspect
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.figures import Heat, Points
from workbench_widgets.call import Call, Given
from workbench_widgets.naming import apart
from workbench_widgets.plot import Plot

Explorer = wb.ui.AtlasExplorer
SIZES = {"fc1": 3, "fc2": 1, "fc3": 4, "fc4": 1.5, "fc5": 9, "fc6": 2.6}


def made(seed: int = 0, layers: dict[str, float] = SIZES) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    found = {f"{name}.weight": size * torch.randn(24, 18, generator=random) for name, size in layers.items()}
    return found | {"fc1.bias": torch.randn(24, generator=random)}


def tuned(model: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is large changes most, so that rms and relative_norm have the same order of layers."""
    return {name: tensor * (1 + 0.01 * SIZES[name.partition(".")[0]]) for name, tensor in model.items()}


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    models = {"base": made(), "tuned": tuned(made()), "other": made(1), "wide": {"0.weight": torch.ones(4, 3)}}
    return {name: str(wb.save(model, tmp_path / f"{name}.safetensors")) for name, model in models.items()}


@pytest.fixture
def results(paths: dict[str, str]) -> dict[str, Any]:
    return {"contents": wb.contents(paths["base"]), "diff": wb.diff(paths["base"], paths["tuned"])}


@pytest.fixture
def explorer(results: dict[str, Any]) -> Iterator[Any]:
    found = Explorer(*results.values())
    yield found
    found.close()


def marked(spec: wb.FigureSpec, layer: str) -> list[bool]:
    """Whether each panel has the layer's point a second time, as a ring around it."""
    found = []
    for panel in spec.panels:
        points = [mark for mark in panel.marks if isinstance(mark, Points)]
        rings = [mark for mark in points if mark.role == "accent" and set(mark.ids) == {layer}]
        below = {(x, y) for mark in points for x, y, one in zip(mark.x, mark.y, mark.ids, strict=True) if one == layer}
        found.append(len(rings) == 1 and {*zip(rings[0].x, rings[0].y, strict=True)} == below)
    return found


def test_what_is_shown_is_the_atlas_of_the_results(explorer: Any, results: dict[str, Any]) -> None:
    assert explorer.run() is explorer.result
    expected = wb.atlas(*results.values())
    pd.testing.assert_frame_equal(explorer.result.frame(), expected.frame())
    pd.testing.assert_frame_equal(explorer.result.frame("correlations"), expected.frame("correlations"))
    assert explorer.result.pair("contents.rms", "diff.relative_norm")["verdict"] == "positive"
    listed = explorer.pairs._table._df
    assert list(listed["first"]) == list(expected.tables["correlations"]["first"])
    assert {"rho_low", "rho_high", "p", "p_holm", "verdict", "partial", "partial_verdict"} <= set(listed)
    assert [plot.spec.kind for plot in explorer.plots.values()] == ["pairs", "scatter", "correlations"]
    assert explorer.status == expected.facts() and explorer.error is None


def test_a_click_on_a_point_marks_the_layer_in_every_panel_and_in_the_table(explorer: Any) -> None:
    explorer.inputs.columns.value = "contents.rms, contents.std, diff.relative_norm, depth"
    explorer.run()
    explorer.inputs.shown.value = tuple(explorer.result.compared)
    explorer.plots["scatter matrix"]._on_pick("fc5")
    assert explorer.selection == ("fc5",)
    assert marked(explorer.plots["scatter matrix"].spec, "fc5") == [True] * 6
    assert marked(explorer.plots["two columns"].spec, "fc5") == [True]
    (row,) = explorer.rows._table.selected_rows
    assert explorer.rows._table._df["layer"].iloc[row] == "fc5"
    explorer.rows.selection = ("fc2",)
    assert explorer.selection == ("fc2",) and all(marked(explorer.plots["scatter matrix"].spec, "fc2"))


def test_a_pair_that_is_chosen_is_on_the_axes(explorer: Any) -> None:
    explorer.inputs.columns.value = "contents.rms, diff.relative_norm, depth"
    explorer.run()
    row = explorer.pairs._layers.index(("contents.rms", "depth"))
    explorer.pairs._table.selected_rows = [row]
    assert (explorer.inputs.x.value, explorer.inputs.y.value) == ("contents.rms", "depth")
    assert explorer.plots["two columns"].spec.panels[0].x.label == "contents.rms"
    heat = explorer.plots["map of correlations"].spec
    names = [name for _, name in heat.panels[0].x.ticks]
    explorer.plots["map of correlations"]._on_cell(2.0, 1.0)
    assert (explorer.inputs.x.value, explorer.inputs.y.value) == (names[2], names[1])
    explorer.plots["map of correlations"]._on_cell(1.0, 1.0)  # a column against itself is no pair
    assert explorer.inputs.x.value == names[2] and explorer.error is None


MOVED: dict[str, Any] = {
    "Compared": "*.rms, contents.mean, depth",
    "Held fixed": "depth",
    "Rows": "modules",
    "Unread": "kept",
    "Orders": 500,
    "Seed": 7,
    "Models": "across",
    "Correlation": "tau",
}
KEYWORDS = {"columns": ["*.rms", "contents.mean", "depth"], "controls": ["depth"], "rows": "modules", "unread": "kept"}
KEYWORDS |= {"permutations": 500, "seed": 7, "across": True}


def test_every_control_is_an_argument_of_the_call(
    explorer: Any, results: dict[str, Any], interpreter: Callable[..., str], paths: dict[str, str], tmp_path: Path
) -> None:
    offered = {name for name in inspect.signature(wb.atlas).parameters} - {"results", "named", "progress", "models"}
    assert set(KEYWORDS) == offered, "whatever wb.atlas takes has a control"
    assert explorer.restore(MOVED) == [] and explorer.call().keywords == KEYWORDS
    explorer.run()
    explorer.selection = ("fc3",)
    explorer.inputs.x.value, explorer.inputs.y.value = "depth", "contents.rms"
    explorer.inputs.shown.value = ("contents.rms", "depth")
    pd.testing.assert_frame_equal(
        explorer.result.frame("correlations"), wb.atlas(*results.values(), **KEYWORDS).frame("correlations")
    )
    given = f"import workbench as wb\ncontents, diff = wb.contents({paths['base']!r}), "
    given += f"wb.diff({paths['base']!r}, {paths['tuned']!r})\n"
    keep = "\nframe.to_pickle('frame')\nopen('csv', 'w').write(scatter_figure.csv() + pairs_figure.csv())"
    interpreter(given + explorer.code() + keep, tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame"), explorer.result.frame())
    shown = [explorer.plots[name].spec.csv() for name in ("two columns", "scatter matrix")]
    assert (tmp_path / "csv").read_text() == "".join(shown)
    assert explorer.shown_code() == explorer.code()
    explorer.inputs.seed.value = 8
    assert "the settings have changed" in explorer.code()


def test_settings_come_back_in_another_explorer(explorer: Any, results: dict[str, Any]) -> None:
    explorer.restore(MOVED)
    explorer.source.value = ("contents",)
    explorer.run()
    explorer.inputs.y.value = "contents.mean"
    again = Explorer(*results.values())
    again.restore(explorer.settings())
    again.run()
    assert again.restore(explorer.settings()) == [] and again.settings() == explorer.settings()
    assert again.call() == Call(wb.atlas, (Given("contents", results["contents"]),), KEYWORDS)
    pd.testing.assert_frame_equal(again.result.frame(), wb.atlas(results["contents"], **KEYWORDS).frame())
    again.close()


def test_without_a_result_it_says_what_to_do() -> None:
    found = Explorer()
    assert "compute spectra" in found.status and "compute spectra" in found.code_box.value
    with pytest.raises(wb.ArgumentError, match="compute spectra, changes or a degeneracy first"):
        found.run()
    found.controls.run.click()
    assert isinstance(found.error, wb.ArgumentError) and 'role="alert"' in found.controls.line.value
    found.close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (lambda results: Explorer(3), "got int"),
        (lambda results: Explorer(results["diff"], rows="row"), "rows='row'"),
        (lambda results: Explorer(results["diff"], method="pearson"), "method='pearson'"),
        (lambda results: Explorer(results["diff"], unread="dropped"), "unread='dropped'"),
        (lambda results: Explorer(results["diff"], permutations=5), "permutations=5"),
        (lambda results: Explorer(results["diff"], seed=-1), "seed=-1"),
        (lambda results: Explorer(results["diff"], columns=["a,b"]), "without commas"),
        (lambda results: Explorer(results["diff"], models={"a": results["diff"]}), "got models= beside"),
        (lambda results: Explorer(results["diff"], theme="blue"), "theme='blue'"),
    ],
)
def test_wrong_arguments_say_what_is_expected(code: Any, message: str, results: dict[str, Any]) -> None:
    with pytest.raises(wb.ArgumentError, match=message):
        code(results)


def test_results_of_two_models_are_refused_with_what_to_choose(paths: dict[str, str]) -> None:
    one, other, wide = (wb.contents(paths[name]) for name in ("base", "other", "wide"))
    found = Explorer({"one": one}, {"other": other, "wide": wide})
    with pytest.raises(wb.ArgumentError, match=r"different models.*under Models what becomes of several"):
        found.run()
    assert found.result is None and "under Results" in found.status
    found.inputs.models.value = "across"
    joined = found.run()
    assert joined.row("0")["verdict"] == "alone" and joined.row("fc1")["verdict"] == "joined"
    assert joined.row("fc3")["one.rms"] != joined.row("fc3")["other.rms"]
    found.inputs.models.value = "pooled"
    with pytest.raises(wb.ArgumentError, match=r"of which model is not known.*models="):
        found.run()
    found.inputs.models.value, found.inputs.columns.value = "across", "nothing.*"
    with pytest.raises(wb.ArgumentError, match="columns: no column 'nothing") as error:
        found.run()
    assert "under Models" not in str(error.value), "that is no question of models"
    found.close()


def test_models_are_pooled(paths: dict[str, str]) -> None:
    own = {name: [wb.contents(paths[name])] for name in ("base", "other")}
    own["base"].append(wb.diff(paths["base"], paths["tuned"]))
    own["other"].append(wb.diff(paths["other"], paths["base"]))
    found = Explorer(models=own)
    pd.testing.assert_frame_equal(found.run().frame(), wb.atlas(models=own).frame())
    assert "models={'base': [contents, diff], 'other': [contents_2, diff_2]}" in found.code()
    assert "model" in found.rows._table._df
    found.selection = ("fc4",)
    assert len(found.rows._table.selected_rows) == 2, "a layer is selected in both"
    found.close()


def test_two_of_a_kind_get_labels_and_ablations_one_column(results: dict[str, Any], paths: dict[str, str]) -> None:
    again = wb.contents(paths["base"], layers=["fc1", "fc2"])
    found = Explorer(results["contents"], again, {"change": results["diff"]})
    call = found.call()
    assert call.positional[0] == Given("contents", results["contents"])
    assert {name: one.value for name, one in call.positional[1].items()} == {
        "change": results["diff"],
        "contents_2": again,
    }
    assert {"contents.rms", "contents_2.rms", "change.relative_norm"} <= set(found.run().frame())
    found.close()


def test_a_cancel_keeps_the_pairs_that_are_done(explorer: Any, monkeypatch: Any) -> None:
    explorer.inputs.columns.value = "contents.*"
    reached, go = threading.Event(), threading.Event()
    told = explorer._job._progress

    def slow(progress: wb.Progress) -> None:
        if progress.done == 3:
            reached.set()
            assert go.wait(20)
        told(progress)

    monkeypatch.setattr(explorer._job, "_progress", slow)
    explorer.start()
    assert reached.wait(20)
    explorer.cancel()
    assert "stopping" in explorer.status
    go.set()
    assert explorer.wait(20) and isinstance(explorer.error, wb.Cancelled)
    assert explorer.result.meta["cancelled"]["done"] == 3 and "CANCELLED after 3 of" in explorer.status
    assert len(explorer.result.frame("correlations")) == 3


def test_too_many_columns_are_refused_and_the_next_choice_passes(explorer: Any) -> None:
    explorer.inputs.columns.value = "contents.*"
    explorer.run()
    explorer.inputs.shown.value = tuple(explorer.result.compared[:5])
    assert isinstance(explorer.error, wb.ArgumentError) and "two to 4 columns" in explorer.status
    explorer.inputs.shown.value = tuple(explorer.result.compared[:2])
    assert explorer.error is None and explorer.status == explorer.result.facts()


def test_tau_is_shown_in_place_of_rho(explorer: Any) -> None:
    explorer.inputs.columns.value = "contents.rms, contents.mean, diff.relative_norm"
    explorer.run()
    explorer.inputs.method.value = "tau"
    row = explorer.result.pair("contents.rms", "contents.mean")
    (heat,) = (mark for mark in explorer.plots["map of correlations"].spec.panels[0].marks if isinstance(mark, Heat))
    assert heat.values[0][1] == row["tau"] != row["rho"] and "tau" in explorer.pairs._table._df
    assert "method='tau'" in explorer.code()


def test_what_is_sent_to_the_page_is_json(explorer: Any) -> None:
    explorer.run()
    traces = explorer.plots["map of correlations"].prepare().traces
    assert json.loads(json.dumps(traces, allow_nan=False)) == traces
    sent = [trace["z"] for trace in traces if trace["type"] == "heatmap"]
    assert sent[0][0][0] is None and sent[0][0][1] == explorer.result.tables["correlations"]["rho"][0]


def test_export_writes_what_is_shown(explorer: Any, tmp_path: Path) -> None:
    explorer.run()
    explorer.export_panel.figure.value, explorer.export_panel.format.value = "scatter matrix", "csv"
    explorer.export_panel.name.value = str(tmp_path / "matrix")
    assert explorer.export_panel.export().read_text() == explorer.plots["scatter matrix"].spec.csv()


def test_closing_lets_go_of_the_results() -> None:
    given = wb.contents(made())
    found = Explorer(given)
    held = [weakref.ref(given), weakref.ref(found.run()), weakref.ref(found)]
    found.close()
    del given, found
    gc.collect()
    assert [one() for one in held] == [None] * 3


# in a workbench


@pytest.fixture
def bench(paths: dict[str, str]) -> Iterator[Any]:
    found = wb.ui.Workbench({name: paths[name] for name in ("base", "tuned", "other")}, tab="browser")
    yield found
    found.close()


def computed(bench: Any) -> dict[str, wb.Result]:
    """A spectrum of the first model, and the changes to the second."""
    bench.explorer("signatures").inputs.models.value = "tuned"
    return {tab: bench.explorer(tab).run() for tab in ("spectra", "signatures")}


def test_its_results_are_those_of_the_history_and_the_code_computes_them(
    bench: Any, interpreter: Callable[..., str], tmp_path: Path
) -> None:
    explorer = bench.explorer("atlas")
    assert explorer.status == explorer.NOTHING
    found = computed(bench)
    assert explorer.status == "2 results: press Run"
    bench.tabs.value = "atlas"
    pd.testing.assert_frame_equal(explorer.run().frame(), wb.atlas(*found.values()).frame())
    code = explorer.code()
    assert code.index("wb.spectrum(") < code.index("wb.diff(") < code.index("atlas = wb.atlas(spectrum, changes)")
    interpreter(code + "\nframe.to_pickle('frame')", tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame"), explorer.result.frame())
    interpreter(bench.code() + "\nframe.to_pickle('frame')", tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame"), explorer.result.frame())
    assert len(bench.history.entries) == 3, "the atlas is one too, and joins no atlas"
    assert bench.code().count("wb.spectrum(") == 1


def test_a_layer_that_is_clicked_is_selected_in_every_tab(bench: Any) -> None:
    computed(bench)
    bench.tabs.value = "atlas"
    explorer = bench.explorer("atlas")
    explorer.inputs.columns.value = "spectrum.stable_rank, diff.relative_norm"
    explorer.run()
    explorer.plots["scatter matrix"]._on_pick("fc4")
    assert bench.selection == ("fc4",)
    bench.tabs.value = "spectra"
    assert bench.explorer("spectra").selection == ("fc4",)
    bench.explorer("spectra").selection = ("fc2",)
    bench.tabs.value = "atlas"
    assert all(marked(explorer.plots["scatter matrix"].spec, "fc2"))


def test_nothing_is_computed_again(bench: Any, monkeypatch: Any) -> None:
    computed(bench)
    calls = list[Any]()
    made = Call._returned
    monkeypatch.setattr(
        Call, "_returned", lambda self, *rest, **more: (calls.append(self.function), made(self, *rest, **more))[1]
    )
    bench.explorer("atlas").run()
    assert calls == [wb.atlas]


def test_a_result_that_is_released_is_not_joined_any_more_and_is_freed(bench: Any) -> None:
    computed(bench)
    explorer = bench.explorer("atlas")
    explorer.run()
    explorer.source.value = ("base/diff",)
    gone = next(one for one in bench.history.entries if one.tab == "spectra")
    held = weakref.ref(gone.result)
    bench.history.release([gone])
    assert list(explorer.source.items) == ["base/diff"] and explorer.source.value == ("base/diff",)
    assert explorer.result is not None and "settings have changed" in explorer.code()
    assert "wb.spectrum(" in explorer.shown_code(), "what is shown has it"
    del gone
    gc.collect()
    assert held() is None
    bench.release("base")
    assert explorer.result is None and not explorer.source.items and "no result to join" in explorer.code_box.value


def test_two_results_of_one_call_name_stay_apart_in_the_code(
    bench: Any, interpreter: Callable[..., str], tmp_path: Path
) -> None:
    spectra = bench.explorer("spectra")
    spectra.run()
    spectra.source.value = "other"
    spectra.run()
    explorer = bench.explorer("atlas")
    assert list(explorer.source.items) == ["base/spectrum", "other/spectrum"]
    with pytest.raises(wb.ArgumentError, match="different models"):
        explorer.run()
    explorer.inputs.models.value = "pooled"
    result = explorer.run()
    assert set(result.frame()["model"]) == {"base", "other"}
    assert "models={'base': [spectrum], 'other': [spectrum_2]}" in explorer.code()
    interpreter(explorer.code() + "\nframe.to_pickle('frame')", tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame"), result.frame())


def test_what_has_no_table_by_layer_is_said(bench: Any, paths: dict[str, str]) -> None:
    from workbench_widgets.history import Entry

    module = torch.nn.Linear(3, 2)
    evaluator = wb.evaluator(module, [(torch.ones(2, 3), torch.tensor([0, 1]))], "cross_entropy")
    barrier = wb.barrier(evaluator, module, torch.nn.Linear(3, 2), points=3, batch_norm=None)
    bench.explorer("atlas")
    bench.history.keep(Entry("connectivity", Call(wb.barrier, ("a", "b")), barrier))
    computed(bench)
    assert "no table by layer: Barrier" in bench.explorer("atlas").inputs.note.value


def test_a_restored_session_runs_the_atlas_after_what_it_joins(bench: Any, tmp_path: Path) -> None:
    bench.explorer("atlas")  # opened first
    found = computed(bench)
    bench.explorer("atlas").run()
    again = wb.ui.Workbench.restored(bench.save(tmp_path / "session.json"))
    again.files.run_button.click()
    for _ in range(3):
        assert again.wait(60)
    assert again.error is None
    pd.testing.assert_frame_equal(again.explorer("atlas").result.frame(), wb.atlas(*found.values()).frame())
    again.close()


def test_models_of_tensors_are_two_and_not_compared_element_by_element() -> None:
    bench = wb.ui.Workbench({"one": made(0), "two": made(1)}, tab="spectra")
    spectra = bench.explorer("spectra")
    spectra.run()
    spectra.source.value = "two"
    spectra.run()
    assert spectra.error is None and bench.error is None and len(bench.history.entries) == 2
    bench.close()


def test_variables_are_apart_and_what_is_shared_is_one() -> None:
    base, path = Given("base", "a.pt"), "b.pt"
    calls = [
        Call(wb.diff, (base, path), {}, "changes"),
        Call(wb.diff, (Given("base", "c.pt"), path), {}, "changes"),
        Call(wb.similarity, ({"x": Call(wb.signature, (), {"ancestor": base, "clean": path}, "x_signature")},)),
    ]
    lines = "\n".join(dict.fromkeys(line for one in apart(calls) for line in one.code().splitlines()))
    assert lines == (
        "base = 'a.pt'\nchanges = wb.diff(base, 'b.pt')\nbase_2 = 'c.pt'\nchanges_2 = wb.diff(base_2, 'b.pt')\n"
        "x_signature = wb.signature(ancestor=base, clean='b.pt')\nsimilarity = wb.similarity({'x': x_signature})"
    )


def test_an_explorer_painted_before_it_has_results_has_its_panel_of_figures_and_leaves_the_page_in_peace(
    results: dict[str, Any], painted: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[Any] = []
    monkeypatch.setattr(Plot, "prepare", lambda plot: ready.append(plot))
    explorer = Explorer()
    painted(explorer)
    assert explorer._export.children == (explorer.export_panel,) and not ready
    explorer.close()

    explorer = Explorer(*results.values())
    painted(explorer)
    assert explorer._export.children == (explorer.export_panel,) and ready == list(explorer.plots.values())
    explorer.close()

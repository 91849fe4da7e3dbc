"""Explorers without a screen: what is clicked, shown and said equals what the library computes."""

import gc
import json
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
import traitlets
from safetensors.torch import save_file

import workbench as wb
from page import clicked
from workbench_widgets.plot import Plot
from workbench_widgets.spectrum import ALPHA, ESD

Explorer = wb.ui.SpectrumExplorer


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    random = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (24, 6, 3, 3), "fc1.weight": (60, 40), "fc1.bias": (60,), "fc2.weight": (40, 60)}
    save_file(
        {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}, tmp_path / "net.safetensors"
    )
    return str(tmp_path / "net.safetensors")


@pytest.fixture
def explorer(checkpoint: str) -> Iterator[wb.ui.SpectrumExplorer]:
    made = Explorer(checkpoint)
    yield made
    made.close()


def shown_frame(explorer: wb.ui.SpectrumExplorer) -> pd.DataFrame:
    return explorer.rows._table.df


def test_layers_are_listed_before_any_run(explorer: wb.ui.SpectrumExplorer, checkpoint: str) -> None:
    assert list(shown_frame(explorer)["layer"]) == ["conv", "fc1", "fc2"]
    assert explorer.result is None and "3 of 4 tensors" in explorer.status
    assert "press Run" in explorer.plots[ALPHA]._caption.value


def test_run_gives_the_librarys_result(explorer: wb.ui.SpectrumExplorer, checkpoint: str) -> None:
    result = explorer.run()
    expected = wb.spectrum(checkpoint)
    pd.testing.assert_frame_equal(result.frame(), expected.frame())
    pd.testing.assert_frame_equal(shown_frame(explorer)[["layer", "alpha"]], expected.frame()[["layer", "alpha"]])
    assert explorer.status == expected.facts() and explorer.error is None
    smallest = expected.frame().sort_values("alpha")["layer"].iloc[0]
    assert explorer.selection == (smallest,)
    assert explorer.plots[ESD].spec.csv() == wb.figure(expected, "esd", layer=smallest).csv()


MOVED = {
    "windows": {"analysis": "farms", "window": 12, "aspect_ratio": 0.5},
    "windows at the peak": {"analysis": "farms", "xmin": "peak", "conv": "flatten", "layers": "fc*"},
    "overlays": {"overlays": True, "xmin": "peak"},
    "rules": {"xmin": "median", "layers": "fc*, conv"},
    "number": {"xmin": "number", "xmin_number": 30.0, "conv": "flatten"},
    "compat": {"xmin": "median", "compat": True, "layers": "conv"},
    "back to defaults": {"xmin": "median", "conv": "flatten", "compat": True}
    | {"compat": False, "conv": "slices", "xmin": "search"},
}


@pytest.mark.parametrize("moves", MOVED.values(), ids=MOVED)
def test_code_recomputes_the_frame_in_a_fresh_kernel(
    explorer: wb.ui.SpectrumExplorer, moves: dict[str, Any], tmp_path: Path, interpreter: Callable[..., str]
) -> None:
    for control, value in moves.items():
        getattr(explorer.inputs, control).value = value
    frame = explorer.run().frame()
    assert explorer.code_box.value == explorer.code()
    assert not explorer.code().startswith("#")
    code = explorer.code() + "\nframe.to_pickle('frame.pkl')\noverview.save('alpha.csv')\none.save('esd.csv')"
    interpreter(code, tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame.pkl"), frame)
    assert (tmp_path / "esd.csv").read_text() == explorer.plots[ESD].spec.csv()


def test_code_says_when_the_result_is_of_other_settings(explorer: wb.ui.SpectrumExplorer) -> None:
    explorer.run()
    explorer.inputs.xmin.value = "median"
    assert explorer.code_box.value.startswith("# the settings have changed since the result shown")
    explorer.run()
    assert not explorer.code_box.value.startswith("#")


def test_code_names_a_model_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Linear(30, 30)
    explorer = Explorer(net)
    assert (
        "wb.spectrum(model)" in explorer.code() and "# model: the Linear that the explorer was given" in explorer.code()
    )
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(user_ns={"_": net, "my_net": net}))
    assert "wb.spectrum(my_net)" in explorer.code()
    pd.testing.assert_frame_equal(explorer.run().frame(), wb.spectrum(net).frame())


def test_cancel_in_mid_run_keeps_what_is_done_and_runs_again(minilm: Path) -> None:
    explorer = Explorer(str(minilm))
    explorer.controls.run.click()
    while explorer.running and explorer.controls.bar.value < 3:
        time.sleep(0.001)
    begin = time.perf_counter()
    explorer.controls.cancel.click()
    assert time.perf_counter() - begin < 0.5 and explorer.status.startswith("stopping after ")
    assert explorer.wait(30)
    assert isinstance(explorer.error, wb.Cancelled) and explorer.error.partial is explorer.result
    partial = explorer.result.frame()
    assert 3 <= len(partial) < 40 and f"CANCELLED after {len(partial)} of 40 layers" in explorer.status
    assert list(shown_frame(explorer)["layer"]) == list(partial["layer"])
    assert not explorer.controls.run.disabled and explorer.controls.cancel.disabled
    full = explorer.run().frame()
    assert len(full) == 40 and explorer.error is None
    pd.testing.assert_frame_equal(full.head(len(partial)), partial)
    explorer.close()


def test_errors_are_shown_where_they_happen_and_pass(explorer: wb.ui.SpectrumExplorer, checkpoint: str) -> None:
    explorer.inputs.layers.value = "fc9"
    explorer.controls.run.click()
    explorer.wait()
    assert "fc9" in explorer.status and "Did you mean" in explorer.status
    assert 'role="alert"' in explorer.controls.line.value and isinstance(explorer.error, wb.LayerNotFoundError)
    with pytest.raises(KeyError):
        explorer.run()
    explorer.inputs.layers.value = ""
    explorer.run()
    assert explorer.error is None and 'role="alert"' not in explorer.controls.line.value

    explorer.source.value = checkpoint + ".txt"
    assert "no such file" in explorer.status and "Did you mean 'net.safetensors'" in explorer.status
    assert explorer.result is None and len(shown_frame(explorer)) == 0 and explorer.plots[ALPHA].spec is None
    explorer.source.value = ""
    explorer.controls.run.click()
    assert "no checkpoint yet" in explorer.status
    explorer.source.value = checkpoint
    assert len(shown_frame(explorer)) == 3


def test_an_unexpected_error_in_the_worker_is_not_lost(
    explorer: wb.ui.SpectrumExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer, "show_result", lambda _: 1 / 0)
    explorer.start()
    assert explorer.wait(30)
    assert explorer.status.startswith("ZeroDivisionError") and not explorer.controls.run.disabled


def test_one_selection_everywhere(explorer: wb.ui.SpectrumExplorer) -> None:
    result = explorer.run()

    def consistent(layer: str) -> None:
        assert explorer.selection == (layer,) == explorer.rows.selection
        assert explorer.layer.value == layer
        assert explorer.rows._table.selected_rows == [list(result.frame()["layer"]).index(layer)]
        assert explorer.plots[ESD].spec.csv() == wb.figure(result, "esd", layer=layer).csv()
        assert explorer.plots[ALPHA].spec.csv() == wb.figure(result, "alpha", layer=layer).csv()
        assert f"layer={layer!r}" in explorer.code_box.value

    explorer.rows._table.selected_rows = [1]
    consistent("fc1")
    explorer.layer.value = "fc2"
    consistent("fc2")
    explorer.selection = ("conv",)
    consistent("conv")
    clicked(explorer.plots[ALPHA], id="fc1")
    consistent("fc1")


def test_a_plot_shows_the_last_figure_and_nothing_of_those_before(explorer: wb.ui.SpectrumExplorer) -> None:
    result = explorer.run()
    plot = Plot("a plot")
    model = plot.prepare()
    for kind, layer in [("alpha", None), ("esd", "fc1"), ("alpha", "fc2"), ("esd", "conv")]:
        spec = wb.figure(result, kind, layer=layer)
        plot.show(spec)
        drawn = [{name: value for name, value in trace.items() if name != "uid"} for trace in model.traces]
        assert plot.prepare() is model and drawn == json.loads(json.dumps(spec.to_plotly_json()["data"]))
    plot.clear("nothing")
    assert not model.traces and plot.spec is None


def test_a_zoom_stays_while_the_axes_are_the_same(explorer: wb.ui.SpectrumExplorer) -> None:
    result, plot = explorer.run(), Plot("a plot")

    def told(kind: str, layer: str) -> str:
        """What plotly compares: as long as that is the same it keeps what somebody zoomed into."""
        plot.show(wb.figure(result, kind, layer=layer))
        return str(plot.prepare()._widget_layout["uirevision"])

    assert told("alpha", "fc1") == told("alpha", "fc2")
    assert told("esd", "fc1") != told("esd", "fc2") != told("alpha", "fc2")


def test_what_is_hidden_is_known_again_when_a_mark_comes_before_it(explorer: wb.ui.SpectrumExplorer) -> None:
    """Plotly hides a trace by its uid, and without one by its place, in which another may be now."""
    result, plot = explorer.run(), Plot("a plot")

    def hidden(layer: str | None) -> dict[str, str]:
        whole = wb.figure(result, "alpha", layer=layer).beside(wb.figure(result, "alpha"))
        plot.show(whole)
        return {trace["uid"]: trace["name"] for trace in plot.prepare().traces}

    plain, marked = hidden(None), hidden("fc1")
    assert len(plain) + 1 == len(marked) == len(plot.prepare().traces), "each has its own"
    assert plain.items() <= marked.items() and all(uid.isalnum() for uid in marked), "plotly makes a class of it"


def test_export_writes_the_shown_figure(
    explorer: wb.ui.SpectrumExplorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    panel = explorer.export_panel
    panel.button.click()
    assert "is not drawn: press Run" in panel.message.value and 'role="alert"' in panel.message.value
    explorer.run()
    panel.figure.value, panel.format.value, panel.name.value = ESD, "csv", "my figure.csv"
    panel.button.click()
    assert (tmp_path / "my figure.csv").read_text() == explorer.plots[ESD].spec.csv()
    assert "saved my figure.csv" in panel.message.value and "data:text/csv;base64," in panel.message.value
    panel.name.value = "no folder/figure"
    panel.button.click()
    assert "not a folder" in panel.message.value


def test_export_offers_the_venues_and_the_widths_they_have(
    explorer: wb.ui.SpectrumExplorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    explorer.run()
    panel = explorer.export_panel
    assert set(panel.venue.options) == set(wb.FigureSpec.VENUES) >= {"icml", "neurips", "iclr", "jmlr", "nature"}
    assert panel.format.options == ("pdf", "eps", "svg", "png", "csv")
    panel.figure.value, panel.width.value = ESD, "page"
    for venue, widths in wb.FigureSpec.VENUES.items():
        panel.venue.value = venue
        assert [name for _, name in panel.width.options] == list(widths) and panel.width.value == "page"
    assert [text for text, _ in panel.width.options] == ["column (89 mm)", "page (183 mm)"]
    panel.venue.value, panel.format.value = "jmlr", "eps"
    saved = panel.export()
    assert saved.read_bytes() == explorer.plots[ESD].spec.save(tmp_path / "own.eps", style="jmlr").read_bytes()
    panel.venue.value = "nature"
    panel.width.value = "column"
    panel.venue.value = "iclr"
    assert panel.width.value == "page"


def test_a_saved_result_can_be_looked_at(explorer: wb.ui.SpectrumExplorer, checkpoint: str, tmp_path: Path) -> None:
    wb.spectrum(checkpoint, xmin="median").save(tmp_path / "saved")
    viewer = Explorer()
    viewer.result = wb.open_result(tmp_path / "saved")
    assert list(shown_frame(viewer)["verdict"].unique()) == ["no tail"]
    assert viewer.plots[ESD].spec is not None


def test_closing_lets_go_of_model_result_and_widgets(open_widgets: Callable[[], int]) -> None:
    gc.collect()
    before = open_widgets()
    model = torch.nn.Linear(30, 30)
    explorer = Explorer(model)
    held = [weakref.ref(model), weakref.ref(explorer.run())]
    assert open_widgets() > before + 50
    explorer.close()
    del model, explorer
    gc.collect()
    assert [reference() for reference in held] == [None, None]
    assert open_widgets() == before


def test_what_is_made_late_is_not_made_for_a_closed_explorer(checkpoint: str, open_widgets: Callable[[], int]) -> None:
    before, inside, closing = open_widgets(), threading.Event(), threading.Event()
    explorer = Explorer(checkpoint)
    first = next(iter(explorer.plots.values()))
    ready = first.prepare

    def slowly() -> None:
        inside.set()
        closing.wait(10)
        time.sleep(0.2)  # for the one that closes to reach what it must wait for
        ready()

    first.prepare = slowly  # type: ignore[method-assign]
    page = threading.Thread(target=explorer._guarded(explorer._prepare))
    page.start()
    assert inside.wait(10)
    closing.set()
    explorer.close()
    page.join()
    assert open_widgets() == before
    for use in (explorer.run, explorer.start, lambda: explorer.export_panel):
        with pytest.raises(wb.ArgumentError, match="this SpectrumExplorer is closed: make a new one"):
            use()
    assert not explorer.running
    assert open_widgets() == before and repr(explorer) == "SpectrumExplorer: closed"


def test_widgets_of_one_explorer_share_looks_that_refuse_to_be_changed(checkpoint: str) -> None:
    one, other = Explorer(checkpoint), Explorer(checkpoint)
    assert one.controls.line.layout is one.plots[ESD]._caption.layout and one.source.style is one.verdict.style
    assert {one.controls.line.layout, one.source.style}.isdisjoint({other.controls.line.layout, other.source.style})
    one.close()
    assert other.controls.line.layout.comm is not None and other.source.style.comm is not None
    with pytest.raises(traitlets.TraitError, match="give the widget a layout of its own"):
        other.controls.line.layout.display = "none"
    with pytest.raises(traitlets.TraitError, match="give the widget a style of its own"):
        other.source.style.description_width = "200px"
    other.controls.line.layout = ipw.Layout(display="none")
    assert other.plots[ESD]._caption.layout.display is None
    other.close()


def test_what_is_made_late_refers_to_nothing_that_was_made_before(
    checkpoint: str, looking_back: Callable[[Callable[[], Any]], list[str]]
) -> None:
    explorer = Explorer(checkpoint)
    assert looking_back(explorer._prepare) == []
    with pytest.raises(AssertionError, match="nothing was made"):
        looking_back(explorer._prepare)
    assert looking_back(lambda: ipw.HBox([explorer.controls.run])) == ["HBox"], "it would be seen"
    explorer.close()


def test_an_explorer_can_be_made_when_all_widgets_were_closed(checkpoint: str) -> None:
    ipw.Widget.close_all()
    explorer = Explorer(checkpoint)
    explorer._prepare()
    explorer.run()
    opened = [explorer.controls.line.layout, explorer.source.style, explorer.export_panel.button.style]
    assert all(one.comm is not None for one in opened)
    explorer.close()


def test_the_status_says_that_the_hub_is_asked(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer, said = Explorer(checkpoint), list[str]()

    def load(source: str) -> None:
        said.append(explorer.status)
        raise wb.CheckpointNotFoundError(source, None, "the hub cannot be reached")

    monkeypatch.setattr(wb, "load", load)
    explorer.source.value = "hf://org/name"
    assert said == ["asking the hub for hf://org/name"] and "cannot be reached" in explorer.status
    explorer.source.value = "other.safetensors"
    assert "asking" not in said[1]
    explorer.close()


def test_exports_are_there_when_their_panel_is_opened(checkpoint: str) -> None:
    explorer = Explorer(checkpoint)
    folds = explorer.children[-1]
    (shown,) = explorer._export.children
    assert "come when the kernel has time" in shown.value  # no page has painted it
    folds.selected_index = folds.titles.index("Export")
    assert explorer._export.children == (explorer.export_panel,)
    explorer.close()


def _widgets() -> dict[str, ipw.Widget]:
    return ipw.widgets.widget._instances


def test_a_run_that_ends_after_closing_is_dropped(minilm: Path) -> None:
    explorer = Explorer(str(minilm))
    explorer.start()
    explorer.close()
    assert explorer.wait(30) and explorer.result is None


def test_a_second_run_is_refused_while_one_is_under_way(minilm: Path) -> None:
    explorer = Explorer(str(minilm))
    explorer.start()
    explorer.inputs.xmin.value = "median"
    with pytest.raises(wb.ArgumentError, match="a run is under way"):
        explorer.run()
    assert explorer.source.disabled
    explorer.wait()
    assert explorer.result.meta["parameters"]["xmin"] == "search" and not explorer.source.disabled
    assert explorer.run().meta["parameters"]["xmin"] == "median"
    explorer.close()


def test_a_run_can_be_started_from_what_watches_the_last(explorer: wb.ui.SpectrumExplorer) -> None:
    explorer.observe(
        lambda change: explorer.start() if not change.new and explorer.inputs.xmin.value == "search" else None,
        "running",
    )
    explorer.observe(lambda _: setattr(explorer.inputs.xmin, "value", "median"), "result")
    explorer.start()
    explorer.wait(30)
    explorer.wait(30)
    assert explorer.error is None and not explorer.running


def test_code_never_claims_what_is_not_shown(explorer: wb.ui.SpectrumExplorer, checkpoint: str) -> None:
    explorer.run()
    explorer.inputs.layers.value = "nope"
    with pytest.raises(wb.LayerNotFoundError):
        explorer.run()
    assert explorer.code().startswith("# the settings have changed") and "esd" not in explorer.code()
    explorer.result = wb.spectrum(checkpoint, xmin="median")
    assert explorer.code_box.value.startswith("# the result shown was given to the explorer: Spectrum of")


def test_code_of_a_model_without_a_tail_runs(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.ones(1, 40)}, tmp_path / "one.safetensors")
    explorer = Explorer(tmp_path / "one.safetensors")
    explorer.run()
    assert "wb.figure" not in explorer.code()
    exec(explorer.code(), {})
    explorer.close()


def test_names_from_a_strangers_file_are_text_and_not_markup(tmp_path: Path) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    save_file(
        {f"{evil}.weight": torch.randn(30, 40, generator=torch.Generator().manual_seed(0))}, tmp_path / "m.safetensors"
    )
    explorer = Explorer(str(tmp_path / "m.safetensors"))
    explorer.run()
    html = [widget.value for widget in _widgets().values() if isinstance(widget, ipw.HTML)]
    assert not any("<img" in value for value in html) and any("&lt;img" in value for value in html)
    assert "<img" not in explorer.result._repr_html_()
    explorer.close()


def test_every_control_has_a_name_and_status_is_text(
    explorer: wb.ui.SpectrumExplorer, controls: Callable[[ipw.Widget], list[ipw.Widget]]
) -> None:
    assert len(controls(explorer)) >= 12 and all(one.description for one in controls(explorer))
    assert 'role="status"' in explorer.controls.line.value
    assert all("aria-label" in plot._caption.value or "role" in plot._caption.value for plot in explorer.plots.values())


def test_arguments_set_the_controls_and_bad_ones_are_refused(checkpoint: str) -> None:
    explorer = Explorer(checkpoint, layers=["fc1", "fc2"], xmin=25.0, conv="flatten", theme="dark")
    assert Explorer(checkpoint, xmin=1e-15).call().keywords["xmin"] == 1e-15
    assert dict(explorer.call().keywords) == {"layers": ["fc1", "fc2"], "xmin": 25.0, "conv": "flatten"}
    assert "wb-dark" in explorer._dom_classes
    with pytest.raises(wb.ArgumentError, match="auto.*light.*dark"):
        Explorer(checkpoint, theme="blue")
    wrong_layers: list[dict[str, Any]] = [{"layers": []}, {"layers": 5}, {"layers": [3]}, {"layers": ["a,b"]}]
    wrong_rules: list[dict[str, Any]] = [{"xmin": wrong} for wrong in ("edge", -1.0, True, [1], float("inf"))]
    others = [{"conv": "slice"}, {"compat": "weightwacher"}, {"xmin": "median", "compat": "weightwatcher"}]
    others += [{"analysis": "farm"}, {"window": 5}, {"window": True}, {"aspect_ratio": 9.0}, {"overlays": 1}]
    others += [{"analysis": "farms", "compat": "weightwatcher"}]
    for bad in [*wrong_layers, *wrong_rules, *others]:
        with pytest.raises(wb.ArgumentError):
            Explorer(checkpoint, **bad)


def test_a_comma_in_a_name_is_refused_with_what_to_write_instead() -> None:
    model = {"a,b.weight": torch.eye(30), "c.weight": torch.eye(30)}
    with pytest.raises(wb.ArgumentError, match=r"layers='a,b': the field separates names by commas.*glob with \?"):
        Explorer(model, layers=["c", "a,b"])
    explorer = Explorer(model, layers=["a?b"])
    assert list(explorer.run().frame()["layer"]) == ["a,b"]
    explorer.close()
    assert Explorer(model, layers="a,b").call().keywords["layers"] == ["a", "b"]  # as if it were typed


@pytest.mark.parametrize("kind", [wb.ui.SpectrumExplorer, wb.ui.CheckpointBrowser])
def test_plotly_that_does_not_load_is_an_error_that_is_seen(
    kind: type[wb.ui.Explorer], checkpoint: str, monkeypatch: pytest.MonkeyPatch, painted: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(Plot, "prepare", lambda _: 1 / 0)
    explorer = kind(checkpoint)
    explorer._repr_mimebundle_()
    assert explorer.error is None  # nothing is loaded before a page has painted it
    painted(explorer)
    assert isinstance(explorer.error, ZeroDivisionError) and explorer.status.startswith("ZeroDivisionError")
    assert 'role="alert"' in explorer.controls.line.value
    explorer.close()


def test_plotly_is_not_loaded_for_an_explorer_that_was_closed(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, painted: Callable[[Any], None]
) -> None:
    loaded: list[Plot] = []
    monkeypatch.setattr(Plot, "prepare", lambda plot: loaded.append(plot))
    explorer = Explorer(checkpoint)
    explorer.close()
    painted(explorer)
    assert not loaded


@pytest.mark.parametrize("kind", [wb.ui.SpectrumExplorer, wb.ui.CheckpointBrowser])
def test_a_closed_explorer_is_freed(
    kind: type[wb.ui.Explorer], checkpoint: str, painted: Callable[[Any], None]
) -> None:
    explorer = kind(checkpoint)
    explorer.run()
    explorer.selection = ("fc1",)
    painted(explorer)
    explorer.close()
    gone = weakref.ref(explorer)
    del explorer
    gc.collect()
    assert gone() is None


def test_windows_stand_beside_full_matrices(checkpoint: str) -> None:
    explorer = Explorer(checkpoint, analysis="farms", window=20)
    result = explorer.run()
    expected = wb.farms(checkpoint, window=20)
    pd.testing.assert_frame_equal(result.frame(), expected.frame())
    assert {"alpha", "alpha_full", "windows"} <= set(shown_frame(explorer).columns)
    assert explorer.plots[ALPHA].spec.csv() == wb.figure(expected, "alpha", layer=explorer.selection[0]).csv()
    assert explorer.plots[ESD].spec.csv() == wb.figure(expected, "esd", layer=explorer.selection[0]).csv()
    assert explorer.inputs.compat.disabled and not explorer.inputs.window.disabled
    explorer.inputs.analysis.value = "spectrum"
    assert explorer.inputs.xmin.value == "search" and explorer.inputs.window.disabled
    explorer.close()


@pytest.mark.parametrize(
    ("moved", "said"), [(1 + 2**-52, {}), (1.5 + 2**-52, {"aspect_ratio": 1.5}), (1.1, {"aspect_ratio": 1.1})]
)
def test_rounding_in_the_page_is_not_an_aspect_ratio(
    explorer: wb.ui.SpectrumExplorer, moved: float, said: dict[str, float]
) -> None:
    explorer.inputs.analysis.value = "farms"
    explorer.inputs.aspect_ratio.value = moved
    assert dict(explorer.call().keywords) == said


def test_noise_and_shuffled_elements_are_drawn_on_request(explorer: wb.ui.SpectrumExplorer) -> None:
    explorer.inputs.overlays.value = True
    explorer.run()
    labels = {mark.label for mark in explorer.plots[ESD].spec.panels[0].marks}
    assert {"noise (Marchenko–Pastur)", "shuffled elements"} <= labels


def test_the_slider_fits_the_tail_anew_at_once(explorer: wb.ui.SpectrumExplorer) -> None:
    result = explorer.run()
    layer = explorer.selection[0]
    values = result.eigenvalues[layer]
    assert explorer.refit_at.disabled and 10**explorer.refit_at.min == pytest.approx(float(values[values > 0][0]))
    explorer.refit.value = True
    assert explorer.refit_at.value == pytest.approx(result.row(layer)["xmin"], rel=0.03)
    middle = float(values[len(values) // 2])
    explorer.refit_at.value = middle
    assert explorer.plots[ESD].spec.csv() == wb.figure(result, "esd", layer=layer, xmin=middle).csv()
    assert f"xmin={middle!r}" in explorer.code() and explorer.result is result
    explorer.refit.value = False
    assert explorer.plots[ESD].spec.csv() == wb.figure(result, "esd", layer=layer).csv()


@pytest.mark.parametrize("analysis", ["spectrum", "farms"])
def test_the_slider_ends_where_zeros_begin(analysis: str) -> None:
    random, rank = torch.Generator().manual_seed(0), 5
    factors = [torch.randint(-4, 5, shape, generator=random) for shape in ((200, rank), (rank, 200))]
    weight = (factors[0] @ factors[1]).float()  # whole numbers: the rank is exact, and zeros are rounding of λ alone
    explorer = Explorer({"fc.weight": weight}, analysis=analysis)
    result = explorer.run()
    count = rank * (result.row("fc")["windows"] if analysis == "farms" else 1)
    values = result.eigenvalues["fc"]
    assert float(values[-count - 1]) < 1e-9 < float(values[-count])
    assert 10**explorer.refit_at.min == pytest.approx(float(values[-count]))
    assert 10**explorer.refit_at.max == pytest.approx(float(values[-2]))
    explorer.close()


def test_rows_of_one_verdict(explorer: wb.ui.SpectrumExplorer) -> None:
    frame = explorer.run().frame()
    word = frame["verdict"][0]
    explorer.verdict.value = word
    assert list(shown_frame(explorer)["layer"]) == list(frame.loc[frame["verdict"] == word, "layer"])
    explorer.verdict.value = explorer.verdict.options[0]
    assert len(shown_frame(explorer)) == len(frame)


def test_rows_of_one_verdict_select_no_other_layer(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    narrow, wide = torch.randn(4, 60, generator=random), torch.randn(80, 60, generator=random)
    save_file({"a.weight": narrow, "b.weight": wide, "c.weight": wide.t() ** 3 @ wide}, tmp_path / "m.safetensors")
    explorer = Explorer(tmp_path / "m.safetensors")
    frame = explorer.run().frame()
    assert frame["verdict"].nunique() > 1
    explorer.selection = ("c",)
    for word in explorer.verdict.options:
        explorer.verdict.value = word
        listed = frame.loc[frame["verdict"].isin([word]) | (word == explorer.verdict.options[0]), "layer"]
        assert list(shown_frame(explorer)["layer"]) == list(explorer.layer.options) == list(listed)
        assert explorer.selection == ("c",) and explorer.layer.value == ("c" if "c" in set(listed) else None)
        assert explorer.plots[ESD].spec.title == "c"
    explorer.inputs.layers.value = "b, c"  # and neither do fewer rows
    explorer.run()
    assert explorer.selection == ("c",) == (explorer.layer.value,)
    explorer.close()


def test_checkpoints_are_compared_and_walked_through(checkpoint: str, tmp_path: Path) -> None:
    others = []
    for scale in (2.0, 3.0):
        path = tmp_path / f"x{scale:g}.safetensors"
        save_file(
            {
                name: one * scale + torch.eye(*one.shape) if one.ndim == 2 else one
                for name, one in wb.load(checkpoint).items()
            },
            path,
        )
        others.append(str(path))
    explorer = Explorer(checkpoint, compare=others[0])
    result = explorer.run()
    expected = wb.comparison([checkpoint, others[0]])
    pd.testing.assert_frame_equal(result.frame(), expected.frame())
    layer = explorer.selection[0]
    assert abs(result.row(layer)["change"]) == result.frame()["change"].abs().max()
    assert explorer.plots[ALPHA].spec.csv() == wb.figure(expected, "change", layer=layer).csv()
    assert explorer.plots[ESD].spec.csv() == wb.figure(expected, "trajectory", layer=layer).csv()
    found: dict[str, Any] = {}
    exec(explorer.code(), found)
    pd.testing.assert_frame_equal(found["frame"], result.frame())

    explorer.inputs.compare.value = ", ".join(others)
    explorer.inputs.analysis.value = "farms"
    explorer.inputs.window.value = 20
    result = explorer.run()
    expected = wb.comparison([checkpoint, *others], analysis="farms", window=20)
    pd.testing.assert_frame_equal(result.frame(), expected.frame())
    assert explorer.plots[ALPHA].spec.csv() == wb.figure(expected, "trajectory").csv()
    assert explorer.refit.disabled and "analysis='farms'" in explorer.code()
    explorer.close()


def test_models_in_memory_are_compared(checkpoint: str) -> None:
    other = {name: tensor * 2 for name, tensor in wb.load(checkpoint).items()}
    explorer = Explorer(checkpoint, compare=[other])
    assert len(explorer.run().frame()) == 3 and "# model_1: the dict that the explorer was given" in explorer.code()
    explorer.close()

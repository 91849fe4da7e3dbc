"""The degeneracy explorer without a screen: what is clicked, shown and said equals what the library computes."""

import gc
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import workbench as wb
from workbench_widgets.degeneracy_inputs import ANY_LAYER
from workbench_widgets.degeneracy_view import counts
from workbench_widgets.samples import as_image, sample_html, samples, token_name
from workbench_widgets.view_explorer import FIRST, SECOND

Explorer = wb.ui.DegeneracyExplorer
MLP = """
import torch
from torch import nn
torch.manual_seed(0)
module = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
random = torch.Generator().manual_seed(7)
inputs = torch.randn(60, 16, generator=random)
data = [(part, part[:, :3].argmax(1)) for part in inputs.split(25)]
evaluator = wb.evaluator(module, data, 'cross_entropy')
"""
ADDITION = """
import torch
from torch import nn

class Addition(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.hidden = nn.Embedding(8, 6), nn.Linear(12, 10)
        self.act, self.out = nn.ReLU(), nn.Linear(10, 7)

    def forward(self, tokens):
        return self.out(self.act(self.hidden(self.embedding(tokens).flatten(1))))

torch.manual_seed(0)
module = Addition()
tokens = torch.cartesian_prod(torch.arange(7), torch.arange(7))
data = [(tokens, tokens.sum(1) % 7)]
"""
MOVED: dict[str, dict[str, Any]] = {
    "spectra": {"threshold": 1e-4, "layer": "3"},
    "basis": {"kind": "pca", "layer": "3", "layers": "1, 3"},
    "graph": {"edges": "functional", "layer": "3", "nodes": 3, "kept_edges": 5},
    "graph coloured": {},
    "modules": {"norm": "sqrt", "nulls": 2, "names": "0: first"},
    "ablation": {"what": "edges", "schedule": "linear", "tolerance": 0.01},
    "ablation of a layer": {"schedule": "bisect", "layer": "3", "kind": "neuron"},
    "datapoints": {"direction": 2, "count": 3},
}


def made(code: str) -> SimpleNamespace:
    """What the notebook of a user would hold."""
    found: dict[str, Any] = {"wb": wb}
    with torch.random.fork_rng(devices=[]):
        exec(code, found)
    return SimpleNamespace(**found)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.chdir(tmp_path)
    return made(MLP)


@pytest.fixture
def explorer(given: SimpleNamespace) -> Iterator[wb.ui.DegeneracyExplorer]:
    made = Explorer(given.module, given.data, given.evaluator, nulls=2)
    yield made
    made.close()


def listed(explorer: wb.ui.DegeneracyExplorer) -> pd.DataFrame:
    return explorer.rows._table.df


def text(widget: ipw.HTML) -> str:
    return re.sub(r"<[^>]+>", "", widget.value)


def set_controls(explorer: wb.ui.DegeneracyExplorer, view: str, moved: dict[str, Any]) -> None:
    for name, value in moved.items():
        owners = (getattr(one, name, None) for one in (explorer.views[view], explorer.inputs))
        next(one for one in owners if isinstance(one, ipw.ValueWidget)).value = value


def test_layers_are_listed_before_any_run(explorer: wb.ui.DegeneracyExplorer) -> None:
    assert set(listed(explorer)["layer"]) == {"0", "2", "4"} and explorer.result is None
    assert explorer.source.disabled and explorer.source.placeholder == "Sequential in memory"


def test_every_view_gives_the_librarys_result(explorer: wb.ui.DegeneracyExplorer, given: SimpleNamespace) -> None:
    basis = wb.interaction_basis(given.module, given.data)
    graph = wb.interaction_graph(given.module, given.data, basis)
    results = {
        "spectra": wb.degeneracy(given.module, given.data),
        "basis": basis,
        "graph": graph,
        "modules": wb.interaction_modules(graph, nulls=2),
        "ablation": wb.ablation(given.evaluator, basis, basis.layers[0]),
        "datapoints": basis,
    }
    for view, result in results.items():
        explorer.view.value = view
        shown = explorer.run()
        for table in result.TABLES:
            columns = [name for name in result.frame(table) if name != "seconds"]
            pd.testing.assert_frame_equal(shown.frame(table)[columns], result.frame(table)[columns])
        assert explorer.result is shown and explorer.error is None and explorer.status == shown.facts()
        assert list(explorer.table.options) == [name for name in result.TABLES if len(result.frame(name))]
    explorer.view.value = "ablation"
    assert explorer.plots[FIRST].spec.csv() == wb.figure(results["ablation"]).csv()
    explorer.view.value = "modules"
    assert explorer.plots[SECOND].spec.csv() == wb.figure(results["modules"], "modularity").csv()


def test_what_a_view_needs_is_computed_once(explorer: wb.ui.DegeneracyExplorer, given: SimpleNamespace) -> None:
    explorer.view.value = "modules"
    explorer.run()
    explorer.view.value = "graph"
    assert isinstance(explorer.result, wb.InteractionGraph)
    explorer.view.value = "basis"
    basis = explorer.result
    explorer.inputs.kind.value = "pca"
    assert explorer.result is basis and explorer.code().startswith("# the settings have changed")
    other = explorer.run()
    explorer.inputs.kind.value = "local"
    assert explorer.result is basis and other is not basis


def test_the_threshold_moves_the_ranks_as_the_library_does(
    explorer: wb.ui.DegeneracyExplorer, given: SimpleNamespace
) -> None:
    explorer.run()
    view, explorer.selection = explorer.views["spectra"], ("1",)
    for threshold in (1e-12, 1e-3, 0.1):
        view.threshold.value = threshold
        assert explorer.wait(30)
        row = wb.degeneracy(given.module, given.data, threshold=threshold).row("1")
        assert f"r_G {row['activation_rank']:g} of 12" in text(view.told)
        assert f"r_M′ {row['gradient_rank']:g} of 12" in text(view.told)
        spec = wb.figure(explorer.result, "spectra", layer="1", threshold=threshold)
        assert explorer.plots[FIRST].spec.csv() == spec.csv()


def test_budgets_say_what_ablated_says(explorer: wb.ui.DegeneracyExplorer, given: SimpleNamespace) -> None:
    explorer.view.value = "graph"
    graph = explorer.run()
    basis, view = wb.interaction_basis(given.module, given.data), explorer.views["graph"]
    assert view.nodes.value == basis.predicted_nodes("1") and view.nodes.options[-1] == basis.nodes("1")
    assert view.kept_edges.value == graph.edges["1"][1:, 1:].numel() == view.kept_edges.options[-1]
    whole = given.evaluator()
    for kept in (view.nodes.value, 0, 1, 4, view.nodes.options[-1]):
        view.nodes.value = kept
        assert explorer.wait(30)
        found = wb.ablated(given.evaluator, basis, "1", kept)
        told = text(view.nodes_told)
        assert told.startswith(f"layer 1, {kept} of {view.nodes.options[-1]} nodes")
        assert f"loss {found['loss']:.5g} · " in told
        assert f"accuracy {found['accuracy']:.5g}" in told
    assert found == whole  # at the full budget to the last bit
    assert f"loss {whole['loss']:.5g}" in text(view.edges_told)
    for kept in view.kept_edges.options[:-1:6]:
        view.kept_edges.value = kept
        assert explorer.wait(30)
        found = wb.ablated(given.evaluator, basis, "1", kept, graph=graph)
        assert f"{kept} of" in text(view.edges_told) and f"loss {found['loss']:.5g} · " in text(view.edges_told)
    assert f"with_edges = wb.ablated(evaluator, basis, '1', {kept}, graph=graph)" in explorer.code()
    explorer.inputs.layer.value = "3"
    assert explorer.wait(30) and explorer.selection == ("3",)
    assert view.nodes.value == basis.predicted_nodes("3") and text(view.nodes_told).startswith("layer 3, ")
    explorer.selection = ("4",)
    assert view.nodes.disabled and "the output itself" in text(view.nodes_told) and explorer.wait(30)


def test_a_slider_that_moves_on_is_followed_to_where_it_rests(
    explorer: wb.ui.DegeneracyExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer.view.value = "graph"
    explorer.run()
    view, evaluated, own = explorer.views["graph"], [], wb.ablated

    def slow(*arguments: Any, **named: Any) -> dict[str, float]:
        if not named:
            evaluated.append(arguments[3])
        time.sleep(0.1)
        return own(*arguments, **named)

    slow.__qualname__ = slow.__name__ = "ablated"
    monkeypatch.setattr(wb, "ablated", slow)
    begin = time.perf_counter()
    for kept in range(view.nodes.options[-1]):
        view.nodes.value = kept
    assert time.perf_counter() - begin < 5 and explorer.wait(60)
    assert evaluated[-1] == view.nodes.options[-1] - 1 and len(evaluated) < view.nodes.options[-1]
    assert text(view.nodes_told).startswith(f"layer 1, {view.nodes.options[-1] - 1} of")


def test_a_loss_that_cannot_be_told_says_why_under_the_slider(given: SimpleNamespace) -> None:
    explorer = Explorer(given.module, [part for part, _ in given.data], view="graph")
    assert isinstance(explorer.run(), wb.InteractionGraph) and explorer.error is None
    assert "expected a pair (inputs, targets)" in text(explorer.views["graph"].nodes_told)
    explorer.close()


def test_modules_colour_the_graph_and_keep_their_names(explorer: wb.ui.DegeneracyExplorer) -> None:
    explorer.view.value = "modules"
    modules = explorer.run()
    explorer.inputs.names.value = "1: carry"
    assert explorer.wait(30)
    assert list(listed(explorer)["name"])[:2] == ["", "carry"]
    assert explorer.plots[FIRST].spec.csv() == wb.figure(modules, "graph", names={1: "carry"}).csv()
    explorer.view.value = "graph"
    assert explorer.wait(30)
    layer = explorer.views["graph"].layer(explorer.result)
    nodes = explorer.views["graph"].nodes.value - 1
    spec = wb.figure(explorer.result, "graph", modules=modules, names={1: "carry"}, nodes={layer: nodes})
    assert explorer.plots[FIRST].spec.csv() == spec.csv() and "1 carry (" in spec.csv()
    assert "modules = wb.interaction_modules(graph, nulls=2)" in explorer.code()
    explorer.inputs.names.value = "carry"
    assert explorer.wait(30) and "expected a module's number and its name" in explorer.status
    explorer.inputs.names.value = "99: carry"
    assert explorer.wait(30) and "expected numbers of the" in explorer.status
    explorer.inputs.names.value = ""
    assert explorer.wait(30) and explorer.plots[FIRST].spec is not None


@pytest.mark.parametrize(
    ("view", "holds"), [*((view, "evaluator") for view in MOVED), ("graph", "module"), ("ablation", "module")]
)
def test_code_recomputes_frame_and_figures_in_a_fresh_interpreter(
    given: SimpleNamespace, view: str, holds: str, tmp_path: Path, interpreter: Callable[..., str]
) -> None:
    evaluator = (given.evaluator,) if holds == "evaluator" else ()
    name = view.split()[0]
    explorer = Explorer(given.module, given.data, *evaluator, view=name, nulls=3)
    if view == "graph coloured":
        explorer.view.value = "modules"
        explorer.run()
        explorer.view.value = name
    explorer.run()
    set_controls(explorer, name, MOVED[view])
    frame = explorer.run().frame()
    assert explorer.code_box.value == explorer.code() and not explorer.code().startswith("#")
    head, _, body = explorer.code().partition("\n")
    drawn = [one.code().partition(" = ")[0] for one in explorer._drawings()]
    saved = [f"{figure}.save('{number}.csv')" for number, figure in enumerate(drawn)]
    told = {"graph": "print(with_nodes['loss'], with_edges['loss'])"}.get(name, "")
    kept = ["datapoints.to_pickle('datapoints.pkl')"] if name == "datapoints" else []
    setup = MLP if holds == "evaluator" else "\n".join(MLP.splitlines()[:-1])
    code = "\n".join([head, setup, body, "frame.to_pickle('frame.pkl')", *saved, *kept, told])
    printed = interpreter(code, tmp_path)
    if name == "graph":
        lines = explorer.views[name].nodes_told, explorer.views[name].edges_told
        shown = [float(re.search(r"loss ([-\d.e]+)", text(line))[1]) for line in lines]  # type: ignore[index]
        assert [float(one) for one in printed.split()] == pytest.approx(shown, rel=1e-4)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame.pkl"), frame, rtol=1e-9)
    for number, plot in enumerate(explorer.plots.values()):
        if plot.spec is not None:
            left, right = (tmp_path / f"{number}.csv").read_text().splitlines(), plot.spec.csv().splitlines()
            assert [line.split(",")[:4] for line in left] == [line.split(",")[:4] for line in right]
    if name == "datapoints":
        basis = wb.interaction_basis(given.module, given.data)
        again = basis.datapoints(given.module, given.data, "1", 2, count=3)
        pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "datapoints.pkl"), again, rtol=1e-9)
    explorer.close()


def test_datapoints_are_those_of_the_library(explorer: wb.ui.DegeneracyExplorer, given: SimpleNamespace) -> None:
    explorer.view.value = "datapoints"
    basis, view = explorer.run(), explorer.views["datapoints"]
    view.direction.value, view.count.value = 3, 2
    assert explorer.wait(30)
    frame = basis.datapoints(given.module, given.data, "1", 3, count=2)
    panel = view.panel.value
    order = [*range(2), *reversed(range(2, 4))]
    places = [f"batch {frame['batch'][row]} · sample {frame['sample'][row]}" for row in order]
    assert re.findall(r"<small>([^<]*)", panel) == places
    assert re.findall(r'coordinate">([-\d.e]+) ', panel) == [f"{frame['coordinate'][row]:.4g}" for row in order]
    labels = [str(int(given.data[frame["batch"][row]][1][frame["sample"][row]])) for row in order]
    assert re.findall(r"label (\d)", panel) == labels and panel.count("<img") == 4  # 16 numbers are 4 × 4 pixels
    assert explorer.plots[FIRST].spec.csv() == wb.figure(basis, layer="1", direction=3).csv()
    explorer._picked("3[2]")
    assert explorer.wait(30) and explorer.selection == ("3",) and "layer 3, direction 2" in view.panel.value


def test_tokens_are_words() -> None:
    given = made(ADDITION)
    explorer = Explorer(given.module, given.data, view="datapoints", tokens={3: "three"}, count=3)
    basis = explorer.run()
    layer = basis.layers[0]
    frame = basis.datapoints(given.module, given.data, layer, 1, count=3)
    first = given.data[0][0][frame["sample"][0]].tolist()
    words = ["three" if one == 3 else str(one) for one in first]
    shown = re.findall(r'wb-tokens">(.*?)</span>', explorer.views["datapoints"].panel.value)
    assert re.sub("<[^>]+>", "", shown[0]) == " ".join(words) and len(shown) == 6
    explorer.close()


def test_samples_are_shown_as_what_they_are() -> None:
    assert as_image(torch.zeros(1, 4, 6)).shape == (4, 6) and as_image(torch.zeros(3, 4, 6)).shape == (4, 6, 3)
    assert as_image(torch.zeros(64)).shape == (8, 8) and as_image(torch.zeros(60)) is None
    assert as_image(torch.zeros(9)) is None  # nine numbers are a row
    bars = sample_html(torch.tensor([1.0, -2.0]), 0, 1, None, (0.0, 1.0))
    assert bars.count("<rect") == 2 and "1: -2" in bars
    marked = sample_html(torch.zeros(1, 8, 8), 5, 16, None, (0.0, 1.0))
    assert "left:25.00%;top:25.00%;width:25.00%;height:25.00%" in marked  # the second of the second row of 4 × 4
    assert "top:37.50%;width:100.00%" in sample_html(torch.zeros(8, 8), 3, 8, None, (0.0, 1.0))  # a row of it
    assert "<i " not in sample_html(torch.zeros(1, 8, 8), 0, 7, None, (0.0, 1.0))
    text = sample_html(torch.tensor([5, 6, 7]), 1, 3, ["a", "b", "c", "d", "e", "f", "<g>", "h"], (0.0, 1.0))
    assert ">f <mark>&lt;g&gt;</mark> h<" in text
    assert token_name(4, lambda number: f"#{number}") == "#4" and token_name(9, ["a"]) == "9"
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda ids: [f"t{ids[0]}"])
    assert token_name(2, tokenizer) == "t2" and token_name(2, SimpleNamespace(decode=lambda ids: "two")) == "two"
    found = samples([{"input_ids": torch.tensor([[1, 2], [3, 4]]), "labels": torch.tensor([0, 1])}], [(0, 1)])
    assert found[0, 1][0].tolist() == [3, 4] and found[0, 1][1] == "1"


def test_images_are_the_samples_pixels() -> None:
    import base64
    import io

    from PIL import Image

    html = sample_html(torch.tensor([[0.0, 1.0], [0.5, 0.0]]), 0, 1, None, (0.0, 1.0))
    data = base64.b64decode(html.split("base64,")[1].split('"')[0])
    pixels = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert pixels.shape == (2, 2, 3) and (pixels[0, 0] == pixels[1, 1]).all()
    assert pixels[0, 0].sum() < pixels[1, 0].sum() < pixels[0, 1].sum()  # cividis grows lighter


def test_shuffled_batches_are_warned_of(given: SimpleNamespace) -> None:
    inputs, labels = (torch.cat(parts) for parts in zip(*given.data, strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), 20, shuffle=True)
    explorer = Explorer(given.module, loader, view="datapoints")
    explorer.run()
    assert "another order each time" in explorer.views["datapoints"].panel.value
    explorer.close()


def test_a_cancel_in_mid_run_keeps_what_is_done(given: SimpleNamespace) -> None:
    go, reached = threading.Event(), threading.Event()
    seen: list[int] = []

    class Slow(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            for batch in super().__iter__():
                seen.append(1)
                if len(seen) == 5:
                    reached.set()
                    go.wait(30)
                yield batch

    data = Slow(given.data)
    before = {name: tensor.clone() for name, tensor in given.module.state_dict().items()}
    explorer = Explorer(given.module, data, view="ablation")
    explorer.start()
    assert reached.wait(30)
    begin = time.perf_counter()
    explorer.controls.cancel.click()
    assert time.perf_counter() - begin < 0.5 and explorer.status.startswith("stopping")
    go.set()
    assert explorer.wait(60) and isinstance(explorer.error, wb.Cancelled)
    assert not any(part._forward_hooks for part in given.module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.module.state_dict().items())
    assert isinstance(explorer.run(), wb.Ablation) and explorer.error is None
    explorer.close()


def test_a_cancelled_graph_is_not_built_upon(given: SimpleNamespace) -> None:
    explorer = Explorer(given.module, given.data, given.evaluator, view="graph")
    basis = explorer.inputs.basis().run(None, explorer._memory)
    graph = wb.interaction_graph(given.module, given.data, basis)

    def stop(progress: wb.Progress) -> None:
        if progress.item.startswith("3,"):
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as caught:
        wb.interaction_graph(given.module, given.data, basis, progress=stop)
    explorer._started = explorer.call()
    explorer._started_for = explorer._opened
    explorer._take(caught.value.partial, caught.value)
    assert explorer.wait(30) and explorer.result is caught.value.partial and not explorer._lives()
    assert len(explorer.result.edges) < len(graph.edges) and explorer.plots[FIRST].spec is not None
    explorer.close()


class InPlace(nn.Module):
    """Its ReLU changes the tensor that a hook was given, and its output does not depend on it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.rand(())


def test_errors_are_shown_where_they_happen_and_pass(given: SimpleNamespace) -> None:
    explorer = Explorer(given.module, given.data)
    explorer.inputs.layers.value = "0, nowhere"
    explorer.controls.run.click()
    assert explorer.wait(30) and isinstance(explorer.error, wb.LayerNotFoundError)
    assert "nowhere" in explorer.status and 'role="alert"' in explorer.controls.line.value
    explorer.inputs.layers.value = ""
    assert explorer.run() is explorer.result and explorer.error is None
    explorer.view.value, explorer.inputs.layer.value = "ablation", "4"
    explorer.controls.run.click()
    assert explorer.wait(30) and "is the last" in explorer.status
    explorer.close()
    random = Explorer(InPlace(), given.data)
    random.controls.run.click()
    assert random.wait(30) and isinstance(random.error, wb.ArgumentError)
    random.close()
    nothing = Explorer()
    nothing.controls.run.click()
    assert "no module yet" in nothing.status
    nothing.close()


def test_arguments_set_the_controls_and_bad_ones_are_refused(given: SimpleNamespace) -> None:
    explorer = Explorer(
        evaluator=given.evaluator, view="ablation", kind="pca", ablate="edges", schedule="bisect", layers="1"
    )
    call = explorer.call()
    assert (call.keywords["schedule"], call.positional[1].keywords) == ("bisect", {"layers": ["1"], "kind": "pca"})
    assert call.keywords["graph"].function is wb.interaction_graph
    explorer.close()
    wrong: list[dict[str, Any]] = [{"view": "surface"}, {"kind": "lib"}, {"estimator": "guess"}, {"edges": "cubic"}]
    wrong += [{"norm": "log2"}, {"nulls": -1}, {"threshold": 2}, {"threshold": "small"}, {"ablate": "heads"}]
    wrong += [{"schedule": "random"}, {"count": 0}, {"layers": "1,3"}, {"theme": "blue"}]
    for bad in wrong:
        with pytest.raises(wb.ArgumentError):
            Explorer(given.module, given.data, **bad)
    for arguments, message in (
        (("net.safetensors", given.data), "module is str: expected a torch module"),
        ((given.module, given.data, given.module), "expected wb.evaluator"),
        ((nn.Linear(2, 2), given.data, given.evaluator), "evaluator is of another module"),
    ):
        with pytest.raises(wb.ArgumentError, match=message):
            Explorer(*arguments)


def test_a_given_result_opens_its_view(given: SimpleNamespace, tmp_path: Path) -> None:
    basis = wb.interaction_basis(given.module, given.data)
    wb.ablation(given.evaluator, basis, "1", schedule="bisect").save(tmp_path / "saved")
    explorer = Explorer()
    explorer.result = wb.open_result(tmp_path / "saved")
    assert explorer.view.value == "ablation" and "give the explorer module= and data=" in explorer.code_box.value
    explorer.result = basis
    assert explorer.view.value == "basis" and explorer.plots[FIRST].spec is not None
    with pytest.raises(wb.ArgumentError, match="DegeneracyExplorer shows Degeneracy or InteractionBasis or"):
        explorer.result = wb.layers(given.module)
    explorer.close()


def test_one_layer_in_all_views(explorer: wb.ui.DegeneracyExplorer) -> None:
    assert explorer.inputs.layer.label == ANY_LAYER
    explorer.run()
    explorer.rows._table.selected_rows = [1]
    assert explorer.selection == ("3",) and explorer.inputs.layer.value == "3"
    explorer.view.value = "basis"
    explorer.run()
    assert explorer.selection == ("3",) and "layer='3'" in explorer.code()
    explorer._picked("1[4]")
    assert explorer.inputs.layer.value == "1"
    explorer.inputs.layer.value = None
    assert explorer.selection == ()
    explorer.view.value = "graph"
    explorer.run()
    assert explorer.rows._layers == [("1", "3"), ("3", "4")]


def test_export_writes_what_is_shown(explorer: wb.ui.DegeneracyExplorer, tmp_path: Path) -> None:
    explorer.run()
    panel = explorer.export_panel
    panel.figure.value, panel.name.value = FIRST, "spectra"
    for kind in ("pdf", "svg", "png", "csv"):
        panel.format.value = kind
        panel.button.click()
        assert f"saved spectra.{kind}" in panel.message.value, panel.message.value
    assert (tmp_path / "spectra.csv").read_text() == explorer.plots[FIRST].spec.csv()


def test_closing_lets_go_of_module_data_and_widgets(given: SimpleNamespace, open_widgets: Callable[[], int]) -> None:
    gc.collect()
    before = open_widgets()
    module = made(MLP).module
    explorer = Explorer(module, given.data, view="graph")
    held = [weakref.ref(module), weakref.ref(explorer.run()), weakref.ref(explorer)]
    explorer._prepare()
    explorer.close()
    del module, explorer
    gc.collect()
    assert [reference() for reference in held] == [None] * 3
    assert open_widgets() == before


def test_every_control_has_a_name(
    explorer: wb.ui.DegeneracyExplorer, controls: Callable[[ipw.Widget], list[ipw.Widget]]
) -> None:
    assert len(controls(explorer)) >= 20 and all(one.description for one in controls(explorer))


def test_the_places_of_a_slider_hold_both_ends() -> None:
    for total in (0, 1, 20, 21, 400, 131_072):
        places = counts(total)
        assert places[0] == 0 and places[-1] == total and len(places) <= 260
        assert all(a < b for a, b in zip(places, places[1:], strict=False))


@pytest.mark.parametrize("view", [one.NAME for one in Explorer.VIEWS])
def test_a_workbench_with_an_evaluator_alone_runs_every_view_and_its_code_needs_no_more(
    view: str, given: SimpleNamespace, interpreter: Callable[..., str], tmp_path: Path
) -> None:
    setup = f"import workbench as wb\n{MLP}\ndel module, data, inputs\n"
    bench = wb.ui.Workbench(evaluator=given.evaluator, setup=setup, tab="degeneracy")
    explorer = bench.explorer("degeneracy")
    explorer.view.value = view
    result = explorer.run()
    assert explorer.wait(30) and explorer.error is None and bench.error is None
    code = explorer.shown_code()
    assert "evaluator.module, evaluator.data" in code and "# module" not in code and "# data" not in code
    interpreter(f"{setup}{code}\nframe.to_pickle('frame')", tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame"), result.frame())
    interpreter(f"{bench.code()}\nframe.to_pickle('session')", tmp_path)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "session"), result.frame())
    bench.close()


def test_module_and_data_that_were_given_are_called_so(given: SimpleNamespace) -> None:
    explorer = Explorer(given.module, given.data, given.evaluator)
    assert "wb.degeneracy(module, data)" in explorer.code()
    explorer.close()
    other = Explorer(evaluator=given.evaluator, data=given.data)
    assert "wb.degeneracy(evaluator.module, data)" in other.code()
    other.close()


def test_what_rests_on_the_evaluators_module_goes_with_it(given: SimpleNamespace) -> None:
    bench = wb.ui.Workbench({"net": given.module}, evaluator=given.evaluator, tab="degeneracy")
    bench.explorer("degeneracy").run()
    assert len(bench.history.entries) == 1
    bench.release("net")
    assert bench.history.entries == []
    bench.close()

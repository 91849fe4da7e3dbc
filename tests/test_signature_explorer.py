"""The signature explorer without a screen: what is moved, shown and saved equals what the library computes."""

import dataclasses
import gc
import json
import math
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as ipw
import pandas as pd
import pytest
import torch
from torch import nn

import workbench as wb
from workbench_widgets import changes_view, merge_view, patch_view
from workbench_widgets.call import Call, Given, stamps
from workbench_widgets.checkpoint import LabelledField
from workbench_widgets.merge_form import MergeForm
from workbench_widgets.scale_sliders import ScaleSliders
from workbench_widgets.shared import fields
from workbench_widgets.signature_inputs import variables
from workbench_widgets.signatures import THIRD
from workbench_widgets.view_explorer import FIRST, SECOND

Explorer = wb.ui.SignatureExplorer
NETWORK = """
import torch
from torch import nn
torch.manual_seed(0)
module = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
inputs = torch.randn(90, 16, generator=torch.Generator().manual_seed(7))
data = [(part, part[:, :3].argmax(1)) for part in inputs.split(30)]
evaluator = wb.evaluator(module, data, 'cross_entropy')
"""
NORMALISED = NETWORK.replace("nn.Linear(16, 24), ", "nn.Linear(16, 24), nn.BatchNorm1d(24), ")
NAMES = ("ancestor", "clean", "floor", "blur", "noise", "shot")
ROBUST = NAMES[3:]
WHAT = {"patch": patch_view.WHAT, "merge": merge_view.WHAT}
LESS = "blur=blur.safetensors, noise=noise.safetensors"
MOVED: dict[str, dict[str, Any]] = {  # view → control → where it is moved, in this order
    "changes": {"models": LESS, "floor": "", "layers": "0, 2*", "lorenz": False, "outliers": True, "spectra": True}
    | {"layer": "2", "model": "noise"},
    "cosines": {"models": LESS, "layers": "0, 2*", "layer": "2", "model": "blur"},
    "signatures": {"models": LESS, "clean": "floor.safetensors", "layer": "4"},
    "patch": {"models": LESS, "clean": "floor.safetensors", "batch_norm": "re-estimated", "groups": "0, 1, 3; 5"}
    | {"scales": (0.6, 0.0, -0.25, 1.5), "layer": "0"},
    "merge": {"method": "task_arithmetic", "models": f"grown=grown.safetensors, {LESS}", "mismatch": "overlap"}
    | {"form": {"scale": "0.5, 0.25, -0.1"}, "layer": "2"},
    "merge by ties": {"models": f"part=part.safetensors, {LESS}", "mismatch": "base", "layer": "2"}
    | {"method": "ties", "form": {"density": 0.6, "scale": 1.5}},
    "merge by slerp": {"method": "slerp", "models": "part=part.safetensors", "mismatch": "base", "layer": "2"}
    | {"form": {"t": 0.3}},
}


def made(code: str) -> SimpleNamespace:
    """What the notebook of a user would hold."""
    found: dict[str, Any] = {"wb": wb}
    with torch.random.fork_rng(devices=[]):
        exec(code, found)
    return SimpleNamespace(**found)


def moved(ancestor: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """One of the family: the ancestor and noise of its own; variances stay above 0."""
    random = torch.Generator().manual_seed(NAMES.index(name))
    size, found = 0.2 * (name != "ancestor"), {}
    for key, one in ancestor.items():
        noise = size * torch.randn(one.shape, generator=random)
        noise = noise.abs() if key.endswith("running_var") else noise
        found[key] = one + noise if one.is_floating_point() else one
    return found


def family(network: str) -> SimpleNamespace:
    """Six networks on disk, and an evaluator of theirs."""
    found = made(network)
    ancestor = {name: tensor.clone() for name, tensor in found.module.state_dict().items()}
    for name in NAMES:
        wb.save(moved(ancestor, name), f"{name}.safetensors")
    found.models = {name: f"{name}.safetensors" for name in ROBUST}
    return found


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A family without running statistics."""
    monkeypatch.chdir(tmp_path)
    return family(NETWORK)


def explorer_of(given: SimpleNamespace, **more: Any) -> wb.ui.SignatureExplorer:
    known = {"clean": "clean.safetensors", "floor": "floor.safetensors", "evaluator": given.evaluator} | more
    return Explorer("ancestor.safetensors", known.pop("models", given.models), **known)


@pytest.fixture
def explorer(given: SimpleNamespace) -> Iterator[wb.ui.SignatureExplorer]:
    found = explorer_of(given)
    yield found
    found.close()


def signatures(names: tuple[str, ...] = ROBUST) -> dict[str, wb.Signature]:
    common = {"ancestor": "ancestor.safetensors", "clean": "clean.safetensors"}
    return {name: wb.signature(**common, robust=f"{name}.safetensors") for name in names}


def told(view: Any) -> dict[str, str]:
    """The lines under the sliders: what → numbers."""
    lines = [re.sub(r"<[^>]+>", "", line) for line in view.told.value.split("</div>")]
    return dict(line.split(": ", 1) for line in lines if ": loss" in line)


def as_told(numbers: dict[str, float]) -> str:
    return " · ".join(f"{name} {number:.5g}" for name, number in numbers.items())


def assert_same(shown: wb.Result, result: wb.Result) -> None:
    for table in result.TABLES:
        if table in result.tables or table in shown.tables:
            columns = [name for name in result.frame(table) if name != "seconds"]
            pd.testing.assert_frame_equal(shown.frame(table)[columns], result.frame(table)[columns])


def test_every_view_gives_the_librarys_result_and_figures(
    explorer: wb.ui.SignatureExplorer, given: SimpleNamespace
) -> None:
    assert explorer.result is None and explorer.error is None
    explorer.views["changes"].details["lorenz"].value = True
    changes = wb.diff("ancestor.safetensors", given.models, detail=["lorenz"], floor="floor.safetensors")
    assert_same(explorer.run(), changes)
    assert explorer.table.value == "manifest" and len(explorer.rows._table.df) == 18
    assert explorer.plots[FIRST].spec.csv() == wb.figure(changes, "norms").csv()
    assert explorer.plots[SECOND].spec.csv() == wb.figure(changes, "lorenz", layer="0").csv()
    assert explorer.plots[THIRD].spec is None and explorer.plots[THIRD].layout.display == "none", "not asked for"
    explorer.rows._table.selected_rows = [4]
    assert explorer.selection and explorer.inputs.layer.value == explorer.selection[0]

    explorer.view.value = "cosines"
    cosines = wb.diff("ancestor.safetensors", given.models, detail=["lorenz", "spectra"])
    assert_same(explorer.run(), cosines)
    explorer.inputs.layer.value = "2"
    for plot, kind in zip(explorer.plots.values(), ("cosines", "lorenz", "overlap"), strict=True):
        assert plot.spec.csv() == wb.figure(cosines, kind, layer="2").csv()
    explorer.inputs.model.value = "noise"
    assert explorer.wait(30)
    assert explorer.plots[SECOND].spec.csv() == wb.figure(cosines, "lorenz", layer="2", model="noise").csv()

    explorer.view.value = "signatures"
    alike = wb.similarity(signatures())
    assert_same(explorer.run(), alike)
    assert explorer.plots[FIRST].spec.csv() == wb.figure(alike, layer="2").csv()
    panel = explorer.views["signatures"].panel.value
    assert all(name in panel for name in ROBUST) and "norm" in panel

    explorer.view.value = "merge"
    assert_same(
        explorer.run(), wb.diff("ancestor.safetensors", {"merged": wb.merge("ancestor.safetensors", paths(given))})
    )


def paths(given: SimpleNamespace) -> list[str]:
    return list(given.models.values())


def test_sliders_say_what_the_evaluator_says(explorer: wb.ui.SignatureExplorer, given: SimpleNamespace) -> None:
    explorer.view.value = "patch"
    view, own = explorer.views["patch"], signatures()
    assert [slider.description for slider in view.scales.children] == list(ROBUST)
    assert view.scales.value == (0.35,) * 3  # a third, to a step
    explorer.run()
    assert explorer.wait(30)
    clean = wb.load("clean.safetensors")
    weights = clean
    for name in ROBUST:
        weights = own[name].apply(weights, scale=0.35)
    assert told(view)["with the signatures"] == as_told(given.evaluator(weights))
    for slider in view.scales.children[1:]:
        slider.value = 0.0
    for scale in (1.0, 0.5, -0.25, 0.0):
        view.scales.children[0].value = scale
        assert explorer.wait(30)
        patched = own["blur"].apply(clean, scale=scale)
        assert told(view)["with the signatures"] == as_told(given.evaluator(patched))
        assert_same(explorer.result, wb.diff("clean.safetensors", {"patched": patched}))
        assert explorer.plots[FIRST].spec is None or "patched" in explorer.plots[FIRST].spec.title
    base = as_told(given.evaluator(clean))
    assert told(view)["clean"] == told(view)["taken off again, the same"] == base == told(view)["with the signatures"]
    assert explorer.error is None and explorer.code_box.value == explorer.code()


def test_numbers_never_stand_beside_places_that_they_are_not_of(
    given: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = explorer_of(given, models={"blur": "blur.safetensors"}, view="patch", scale=0.0)
    explorer.run()
    assert explorer.wait(30)
    view, own, clean = explorer.views["patch"], signatures(("blur",))["blur"], wb.load("clean.safetensors")
    seen: list[tuple[str, str]] = []
    view.told.observe(
        lambda change: seen.append((re.sub("<[^>]+>", " ", change.new).strip(), told(view)["with the signatures"])),
        "value",
    )
    for scale in (0.5, 1.0, 0.5):
        view.scales.children[0].value = scale
        assert explorer.wait(30)
    known = {scale: as_told(given.evaluator(own.apply(clean, scale=scale))) for scale in (0.0, 0.5, 1.0)}
    for text, numbers in seen:
        place = re.match(r"([\d.]+) × blur", text)
        assert numbers == known[float(place[1]) if place else 0.0], text
    assert {numbers for _, numbers in seen} >= {known[0.5], known[1.0]}


def test_groups_of_layers_have_sliders_of_their_own(given: SimpleNamespace) -> None:
    models = {name: given.models[name] for name in ("blur", "noise")}
    explorer = explorer_of(given, models=models, view="patch", groups=["0, 2", "4"], scale=1.0)
    view, own, clean = explorer.views["patch"], signatures(), wb.load("clean.safetensors")
    assert [slider.description for slider in view.scales.children] == [
        "blur: 0, 2", "blur: 4", "noise: 0, 2", "noise: 4",
    ]  # fmt: skip
    explorer.run()
    for slider, scale in zip(view.scales.children, (0.5, 0.0, 0.0, 1.5), strict=True):
        slider.value = scale
    assert explorer.wait(30)
    weights = own["blur"].apply(clean, scale=0.5, layers=["0", "2"])
    weights = own["noise"].apply(weights, scale=1.5, layers=["4"])
    assert told(view)["with the signatures"] == as_told(given.evaluator(weights))
    assert "patched_1 = blur_signature.apply(clean, scale=0.5, layers=['0', '2'])" in explorer.code()
    assert "patched = noise_signature.apply(patched_1, scale=1.5, layers=['4'])" in explorer.code()
    kept = [call for call, _ in explorer._memory._kept if call.function is wb.Signature.apply]
    assert len(kept) == 2  # those of places where the sliders were before are let go
    explorer.close()


def test_an_unknown_group_is_said_and_passes(given: SimpleNamespace) -> None:
    explorer = explorer_of(given, view="patch", groups="nowhere")
    explorer.controls.run.click()
    assert explorer.wait(30) and isinstance(explorer.error, wb.LayerNotFoundError)
    assert "nowhere" in explorer.status and 'role="alert"' in explorer.controls.line.value
    explorer.inputs.groups.value = ""
    assert explorer.run() is explorer.result and explorer.error is None
    explorer.inputs.groups.value = "; ".join(str(number) for number in range(60))
    with pytest.raises(wb.ArgumentError, match="48 sliders at most"):
        explorer.run()
    explorer.close()


def test_a_slider_that_moves_on_is_followed_to_where_it_rests(
    given: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = explorer_of(given, models={"blur": "blur.safetensors"}, view="patch", scale=0.0)
    explorer.run()
    assert explorer.wait(30)
    view, evaluated, own = explorer.views["patch"], [], wb.Evaluator.__call__
    reached, go = threading.Event(), threading.Event()

    def held(self: Any, weights: Any = None) -> dict[str, float]:
        if isinstance(weights, wb.Patched):
            evaluated.append(weights.record["scale"])
            reached.set()
            assert go.wait(30)
        return own(self, weights)

    held.__qualname__, held.__name__ = own.__qualname__, own.__name__
    monkeypatch.setattr(wb.Evaluator, "__call__", held)
    view.scales.children[0].value = 0.05
    assert reached.wait(30)
    for step in range(1, 31):  # while the first place is held: nothing that a slider does waits for it
        view.scales.children[0].value = step / 20
    assert evaluated == [0.05]
    go.set()
    assert explorer.wait(60) and evaluated == [0.05, 1.5] and "1.5 × blur" in view.told.value
    explorer.close()


def test_what_a_run_makes_is_not_dropped_with_places_that_the_sliders_left(
    given: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = explorer_of(given, models={"blur": "blur.safetensors"}, view="patch", scale=1.0)
    explorer.run()
    assert explorer.wait(30)
    view, own = explorer.views["patch"], wb.Evaluator.__call__
    reached, go = threading.Event(), threading.Event()

    def held(self: Any, weights: Any = None) -> dict[str, float]:
        reached.set()
        assert go.wait(30)
        return own(self, weights)

    held.__qualname__, held.__name__ = own.__qualname__, own.__name__
    monkeypatch.setattr(wb.Evaluator, "__call__", held)
    view.scales.children[0].value = 0.5
    assert reached.wait(30)
    explorer.inputs.models.value = LESS
    explorer.start()  # it waits for the evaluator
    go.set()
    assert explorer.wait(60) and explorer.error is None
    weights = wb.load("clean.safetensors")
    for one in signatures(("blur", "noise")).values():
        weights = one.apply(weights)
    assert told(view)["with the signatures"] == as_told(own(given.evaluator, weights))
    explorer.close()


def move(explorer: wb.ui.SignatureExplorer, name: str, value: Any) -> ipw.DOMWidget:
    """Moves a control, and those inside it; gives the one that the view has."""
    view, inputs = explorer.views[explorer.view.value], explorer.inputs
    if name == "form":
        assert list(value) == list(view.form.fields)
        for field, one in value.items():
            assert view.form.fields[field].value != one
            view.form.fields[field].value = one
        return view.form
    if name == "scales":
        for slider, one in zip(view.scales.children, value, strict=True):
            assert slider.value != one
            slider.value = one
        return view.scales
    owners = (getattr(view, "details", {}).get(name), getattr(view, name, None), getattr(inputs, name, None))
    control = next(one for one in owners if isinstance(one, ipw.ValueWidget))
    assert name == "method" or control.value != value
    control.value = value
    return control


@pytest.mark.parametrize("moves", MOVED)
def test_code_recomputes_frame_and_figures_after_every_control_was_moved(
    moves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    view = moves.split()[0]
    network = NORMALISED if view == "patch" else NETWORK
    given = family(network)
    state = dict(wb.load("shot.safetensors"))
    wb.save({name: one for name, one in state.items() if name != "2.bias"}, "part.safetensors")
    last = list(state)[-2]
    wb.save(state | {last: torch.cat([state[last]] * 2)}, "grown.safetensors")
    explorer = explorer_of(given, view=view, detail=["lorenz"], batch_norm="untouched")
    explorer.run()
    controls = [move(explorer, name, value) for name, value in MOVED[moves].items()]
    unmoved = [one for one in explorer.views[view].widgets if one not in controls and not isinstance(one, ipw.HTML)]
    assert not unmoved, f"MOVED lacks {[one.description for one in unmoved]}"
    frame = explorer.run().frame()
    assert explorer.wait(30) and explorer.error is None
    assert explorer.code_box.value == explorer.code() and not explorer.code().startswith("#")
    head, _, body = explorer.code().partition("\n")
    drawn = [one.code().partition(" = ")[0] for one in explorer._drawings()]
    saved = [f"{name}.save('{number}.csv')" for number, name in enumerate(drawn) if f"{name} = " in body]
    printed = "print(json.dumps({name: one for name, one in vars().items() if name.endswith('numbers')}))"
    code = "\n".join([head, "import json", network, body, "frame.to_pickle('frame.pkl')", *saved, printed])
    numbers = json.loads(interpreter(code, tmp_path))
    columns = [name for name in frame if name != "seconds"]
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame.pkl")[columns], frame[columns], rtol=1e-9)
    assert saved
    for number, plot in enumerate(explorer.plots.values()):
        if plot.spec is not None:
            assert (tmp_path / f"{number}.csv").read_text() == plot.spec.csv()
    if view in ("patch", "merge"):
        shown = {what.removesuffix(", the same"): one for what, one in told(explorer.views[view]).items()}
        assert shown == {WHAT[view][name]: as_told(one) for name, one in numbers.items()}
    explorer.close()


def test_signatures_are_saved_packed_and_opened_again(given: SimpleNamespace, tmp_path: Path) -> None:
    explorer = explorer_of(given, view="patch", scale=1.0)
    explorer.run()
    view, own = explorer.views["patch"], signatures()
    assert list(view.what.options) == [*ROBUST, "the patched network"]
    view.what.value, view.bits.value, view.saving.path.value = "noise", 4, "four.safetensors"
    view.saving.button.click()
    assert view.saving.wait(30)
    own["noise"].save("expected.safetensors", bits=4)
    assert (tmp_path / "four.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()
    assert "noise_signature.save(&#x27;four.safetensors&#x27;, bits=4)" in view.saving.message.value
    view.what.value, view.saving.path.value = "the patched network", "patched.safetensors"
    assert view.bits.disabled
    view.saving.button.click()
    assert view.saving.wait(30)
    assert as_told(given.evaluator(wb.load("patched.safetensors"))) == told(view)["with the signatures"]
    for bad, message in (("", "no path"), ("nowhere/x.safetensors", "nowhere"), ("x.bin", "safetensors")):
        view.what.value, view.saving.path.value = "noise", bad
        view.saving.button.click()
        assert view.saving.wait(30) and 'role="alert"' in view.saving.message.value, bad
        assert message in view.saving.message.value and not view.saving.button.disabled
    explorer.close()
    again = explorer_of(given, models=None, signatures={"noise, packed": "four.safetensors", "whole": own["noise"]})
    again.view.value = "patch"
    again.views["patch"].scales.children[0].value = 0.0
    again.run()
    assert again.wait(30) and "whole_signature.apply(clean, scale=0.5)" in again.code_box.value
    patched = wb.Signature.load("four.safetensors").apply("clean.safetensors", scale=0.5)
    again.views["patch"].scales.children[0].value, again.views["patch"].scales.children[1].value = 0.5, 0.0
    assert again.wait(30)
    assert told(again.views["patch"])["with the signatures"] == as_told(given.evaluator(patched))
    assert "wb.Signature.load('four.safetensors')" in again.code_box.value
    again.close()


def test_a_file_that_is_written_says_so_and_can_be_stopped(
    explorer: wb.ui.SignatureExplorer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    explorer.view.value = "merge"
    explorer.run()
    saving, reached, go = explorer.views["merge"].saving, threading.Event(), threading.Event()
    real = wb.save

    def slow(weights: Any, path: str, *, progress: Any = None) -> Path:
        for done, item in enumerate(("0.weight", "2.weight")):
            progress(wb.Progress(done=done, total=2, item=item, seconds=0.0))
            reached.set()
            assert go.wait(30)
        return real(weights, path)

    monkeypatch.setattr(wb, "save", slow)
    saving.button.click()
    assert reached.wait(30)
    assert "saving merged.safetensors: 0 of 2 done, at 0.weight" in saving.message.value
    assert saving.button.disabled and explorer.controls.run.disabled and not saving.stop.disabled
    assert all(panel.button.disabled for panel in explorer.panels.values() if hasattr(panel, "button"))
    with pytest.raises(wb.ArgumentError, match="a file is being written"):
        explorer.run()
    saving.stop.click()
    assert "stopping" in saving.message.value and saving.stop.disabled
    go.set()
    assert saving.wait(30) and "was stopped" in saving.message.value and not (tmp_path / "merged.safetensors").exists()
    assert not saving.button.disabled and not explorer.controls.run.disabled and not saving.busy
    saving.button.click()
    assert saving.wait(30) and "saved merged.safetensors" in saving.message.value and saving.stop.disabled


def test_no_file_is_written_while_a_run_is_under_way(
    explorer: wb.ui.SignatureExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go, real = threading.Event(), threading.Event(), wb.merge

    def held(*arguments: Any, **named: Any) -> wb.Weights:
        reached.set()
        assert go.wait(30)
        return real(*arguments, **named)

    held.__qualname__ = held.__name__ = "merge"
    monkeypatch.setattr(wb, "merge", held)
    explorer.view.value = "merge"
    explorer.start()
    assert reached.wait(30)
    save_buttons = [explorer.views[name].saving.button for name in ("merge", "patch")]
    assert all(button.disabled for button in save_buttons)
    go.set()
    assert explorer.wait(30) and explorer.error is None and not any(button.disabled for button in save_buttons)


def test_the_form_and_the_details_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Told:
        """A method whose fields say what they take."""

        share: float = dataclasses.field(
            default=0.5, metadata={"meaning": "", "low": 0.0, "high": 1.0, "open_low": True, "several": False}
        )
        place: float = dataclasses.field(default=0.5, metadata={"meaning": "", "low": 0.0, "high": 1.0})
        factors: Any = dataclasses.field(
            default=1.0, metadata={"meaning": "", "low": -math.inf, "high": math.inf, "several": True}
        )

    form = MergeForm(fields(""))
    form.arrange("ties", {})
    assert form.fields["density"].min == 0.01, "0 keeps nothing, and wb.merge refuses it"
    form.arrange("task_arithmetic", {})
    assert isinstance(form.fields["scale"], ipw.Text)
    monkeypatch.setattr(wb, "MERGE_METHODS", {"told": Told})
    form.arrange("told", {})
    assert (form.fields["share"].min, form.fields["place"].min) == (0.01, 0.0)
    assert isinstance(form.fields["factors"], ipw.Text) and form.keywords() == {}
    assert {*changes_view.DETAILS, "activations"} == set(wb.Diff.OPTIONAL)


def test_a_policy_is_offered_where_the_library_asks_for_one() -> None:
    plain, own = {"fc.weight": torch.ones(2, 2)}, {"fc.weight": torch.eye(2)}
    for name in ("bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "bn.weight"):
        models = [one | {name: torch.ones(2)} for one in (plain, own, own)]
        explorer = Explorer(models[0], {"robust": models[2]}, clean=models[1], view="patch")
        signature = wb.signature(ancestor=models[0], clean=models[1], robust=models[2])
        try:
            signature.apply(models[1])
        except wb.ArgumentError:
            assert not explorer.inputs.batch_norm.disabled, name
        else:
            assert explorer.inputs.batch_norm.disabled, name
        explorer.close()


def test_a_row_of_a_fused_tensor_selects_its_parts() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "norm": nn.LayerNorm(8)})
    other = {name: one + 0.1 * torch.randn(one.shape) for name, one in module.state_dict().items()}
    explorer = Explorer(module, {"other": other})
    explorer.run()
    table = explorer.rows._table
    parts = wb.layers(module).frame().groupby("tensor")["layer"].agg(tuple)
    assert parts["attention.in_proj_weight"] == tuple(f"attention.in_proj_weight.{part}" for part in "qkv")
    for tensor, layers in parts.items():
        table.selected_rows = [list(table.df["tensor"]).index(tensor)]
        assert explorer.selection == layers and explorer.inputs.layer.value == layers[0]
    explorer.close()


def test_the_form_of_a_merge_is_the_methods(explorer: wb.ui.SignatureExplorer, given: SimpleNamespace) -> None:
    explorer.view.value = "merge"
    view = explorer.views["merge"]
    assert list(view.method.options) == list(wb.MERGE_METHODS)
    for method, names in (("ties", ["density", "scale"]), ("task_arithmetic", ["scale"]), ("slerp", ["t"])):
        view.method.value = method
        assert list(view.form.fields) == names == wb.MERGE_METHODS[method].parameters()
        assert wb.MERGE_METHODS[method].SOURCE in view.formula.value.replace("&#x27;", "'")
    explorer.controls.run.click()
    assert explorer.wait(30) and "slerp takes 1 beside the base" in explorer.status
    view.method.value = "ties"
    view.form.fields["density"].value, view.form.fields["scale"].value = 0.5, 1.5
    explorer.run()
    assert explorer.wait(30) and explorer.error is None
    merged = wb.merge("ancestor.safetensors", paths(given), density=0.5, scale=1.5)
    assert told(view)["merged"] == as_told(given.evaluator(merged))
    assert told(view)["base"] == as_told(given.evaluator(wb.load("ancestor.safetensors")))
    view.saving.button.click()
    assert view.saving.wait(30) and "saved merged.safetensors" in view.saving.message.value
    found = wb.load("merged.safetensors")
    assert all(torch.equal(found[name], merged[name]) for name in merged)
    view.method.value = "task_arithmetic"
    view.form.fields["scale"].value = "much"
    explorer.controls.run.click()
    assert explorer.wait(30) and "expected a number" in explorer.status
    assert "expected a number" in explorer.code_box.value


@pytest.fixture
def normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two robust networks with running statistics of their own, their ancestor, and an evaluator."""
    monkeypatch.chdir(tmp_path)
    found = made(NORMALISED)
    ancestor = {name: tensor.clone() for name, tensor in found.module.state_dict().items()}
    return SimpleNamespace(evaluator=found.evaluator, **{name: moved(ancestor, name) for name in NAMES})


def explorer_of_normalised(given: SimpleNamespace, **more: Any) -> wb.ui.SignatureExplorer:
    models = {name: getattr(given, name) for name in ("noise", "blur")}
    return Explorer(
        given.ancestor, models, clean=given.clean, evaluator=given.evaluator, view="patch", scale=0.0, **more
    )


def with_statistics_of(weights: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return weights | {
        name: one for name, one in other.items() if name.rpartition(".")[2].startswith(("running", "num"))
    }


def robust_by_hand(given: SimpleNamespace, name: str, scale: float) -> dict[str, torch.Tensor]:
    """θ + α·(t − c·⟨c,t⟩/⟨c,c⟩) of every parameter, in numpy's float64."""
    found = dict(given.clean)
    for key, theta in given.clean.items():
        if theta.is_floating_point() and "running" not in key:
            start, clean, robust = (
                getattr(given, one)[key].numpy().astype("float64") for one in ("ancestor", "clean", name)
            )
            c, t = clean - start, robust - start
            found[key] = torch.from_numpy(clean + scale * (t - c * (c * t).sum() / (c * c).sum())).float()
    return found


def test_batch_norm_is_asked_for_and_has_its_control(normalised: SimpleNamespace) -> None:
    explorer, evaluator = explorer_of_normalised(normalised), normalised.evaluator
    explorer.controls.run.click()
    assert "choose what becomes of running statistics" in explorer.status
    own = wb.signature(ancestor=normalised.ancestor, clean=normalised.clean, robust=normalised.noise)
    view = explorer.views["patch"]
    view.scales.children[0].value = 1.0
    for policy, more in (
        ("untouched", {}),
        ("copied", {}),
        ("re-estimated", {"data": evaluator.data, "module": evaluator.module}),
    ):
        explorer.inputs.batch_norm.value = policy
        explorer.run()
        assert explorer.wait(30) and explorer.error is None
        patched, control = (own.apply(normalised.clean, scale=scale, batch_norm=policy, **more) for scale in (1.0, 0.0))
        assert told(view)["with the signatures"] == as_told(evaluator(patched))
        if policy != "untouched":
            assert told(view)["batch norm alone, α = 0"] == as_told(evaluator(control))
        assert told(view)["taken off again, the same"] == as_told(evaluator(normalised.clean))
    assert "data=evaluator.data" in explorer.code() and "module=evaluator.module" in explorer.code()
    explorer.close()


@pytest.mark.parametrize("on", [0, 1], ids=["the first", "the last"])
def test_copied_statistics_and_their_control_are_those_of_the_one_that_is_on(
    normalised: SimpleNamespace, on: int
) -> None:
    explorer, name = explorer_of_normalised(normalised, batch_norm="copied"), ("noise", "blur")[on]
    view, evaluator = explorer.views["patch"], normalised.evaluator
    view.scales.children[on].value = 0.5
    explorer.run()
    assert explorer.wait(30)
    control = with_statistics_of(normalised.clean, getattr(normalised, name))
    patched = with_statistics_of(robust_by_hand(normalised, name, 0.5), getattr(normalised, name))
    told_now = told(view)
    assert told_now["batch norm alone, α = 0"] == as_told(evaluator(control))
    assert told_now["with the signatures"] == as_told(evaluator(patched))
    given = {"wb": wb, "evaluator": evaluator, "base": normalised.ancestor, "clean": normalised.clean}
    given |= {f"{one}_model": getattr(normalised, one) for one in ("noise", "blur")}
    exec(explorer.code(), given)
    assert as_told(given["control_numbers"]) == told_now["batch norm alone, α = 0"]
    explorer.close()


def test_statistics_are_not_copied_of_two_networks_at_once(normalised: SimpleNamespace) -> None:
    explorer = explorer_of_normalised(normalised, batch_norm="copied")
    view = explorer.views["patch"]
    for slider in view.scales.children:
        slider.value = 0.5
    explorer.controls.run.click()
    assert explorer.wait(30) and isinstance(explorer.error, wb.ArgumentError) and explorer.result is None
    assert "noise and blur on: of which robust network?" in explorer.status
    view.scales.children[0].value = 0.0
    explorer.run()
    assert explorer.wait(30) and explorer.error is None and "0.5 × blur" in view.told.value
    before = view.told.value
    view.scales.children[0].value = 0.25
    assert explorer.wait(30) and "of which robust network?" in explorer.status and view.told.value == before
    view.scales.children[0].value = 0.0
    assert explorer.wait(30) and explorer.error is None and "of which" not in explorer.status
    assert view.told.value == before
    view.scales.children[0].value = 0.25
    explorer.inputs.batch_norm.value = "re-estimated"
    explorer.run()
    assert explorer.wait(30) and explorer.error is None and "0.25 × noise + 0.5 × blur" in view.told.value
    explorer.close()


def test_without_an_evaluator_a_patch_says_so(given: SimpleNamespace) -> None:
    explorer = explorer_of(given, evaluator=None, view="patch")
    explorer.run()
    assert explorer.wait(30) and "give the explorer evaluator=" in explorer.views["patch"].told.value
    explorer.views["patch"].scales.children[0].value = 1.0
    assert explorer.wait(30) and "blur_signature.apply(clean)" in explorer.code()
    assert not explorer.code().startswith("#") and "give the explorer" in explorer.views["patch"].told.value
    explorer.close()


def test_errors_are_shown_where_they_happen_and_pass(explorer: wb.ui.SignatureExplorer) -> None:
    explorer.inputs.models.value = "blur=blur.safetensors, noise=nowhere.safetensors"
    assert isinstance(explorer.error, wb.CheckpointNotFoundError) and "nowhere" in explorer.status
    explorer.inputs.models.value = "one=blur.safetensors, one=noise.safetensors"
    assert "the label 'one' stands for two models" in explorer.status
    explorer.inputs.models.value = "one=blur.safetensors"
    assert explorer.error is None and explorer.run() is explorer.result
    explorer.view.value = "cosines"
    explorer.controls.run.click()
    assert "two models or more" in explorer.status
    explorer.view.value = "signatures"
    explorer.inputs.clean.value = ""
    explorer.controls.run.click()
    assert "no clean network yet" in explorer.status
    explorer.inputs.clean.value = "clean.safetensors"
    assert isinstance(explorer.run(), wb.Similarity) and explorer.error is None
    wb.save({"other.weight": torch.ones(2, 2)}, "other.safetensors")
    explorer.inputs.models.value = "other.safetensors"
    explorer.controls.run.click()
    assert explorer.wait(30) and "expected checkpoints of one architecture" in explorer.status


def test_a_cancel_in_mid_run_keeps_what_is_done(
    explorer: wb.ui.SignatureExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, reached, made = threading.Event(), threading.Event(), []
    real = wb.signature

    def slow(*, progress: Any = None, **named: Any) -> wb.Signature:
        made.append(named["robust"])
        if "noise" in named["robust"] and not go.is_set():
            reached.set()
            go.wait(30)
        return real(progress=progress, **named)

    slow.__qualname__ = slow.__name__ = "signature"
    monkeypatch.setattr(wb, "signature", slow)
    explorer.view.value = "patch"
    explorer.start()
    assert reached.wait(30)
    explorer.controls.cancel.click()
    assert explorer.status.startswith("stopping") and explorer.running, "said before the layer at hand is done"
    go.set()
    assert explorer.wait(60) and isinstance(explorer.error, wb.Cancelled) and explorer.result is None
    assert made == ["shot.safetensors", "noise.safetensors"]
    assert isinstance(explorer.run(), wb.Diff) and explorer.error is None
    assert made[2:] == ["noise.safetensors", "blur.safetensors"], "what was done before the cancel is not done again"


def test_arguments_set_the_controls_and_bad_ones_are_refused(given: SimpleNamespace) -> None:
    explorer = explorer_of(given, view="merge", method="slerp", models="blur.safetensors", layers="0", groups="0;2,4")
    assert explorer.inputs.labels == ["blur.safetensors"] and explorer.call().positional[1]["merged"].keywords == {
        "method": "slerp"
    }
    assert explorer.inputs.layer_groups() == [("0",), ("2", "4")] and explorer.inputs.layers.value == "0"
    explorer.close()
    nothing = Explorer()
    nothing.controls.run.click()
    assert "no checkpoint yet" in nothing.status
    nothing.close()
    wrong: list[dict[str, Any]] = [{"view": "surface"}, {"method": "best"}, {"detail": ["all"]}, {"scale": 3}]
    wrong += [{"batch_norm": "frozen"}, {"evaluator": given.module}, {"layers": ["0,2"]}, {"theme": "blue"}]
    wrong += [{"groups": [["0;2"]]}, {"scale": "big"}]
    for bad in wrong:
        with pytest.raises(wb.ArgumentError):
            explorer_of(given, **bad)


def test_labels_of_models_and_names_of_variables() -> None:
    style = fields("")
    field = LabelledField({"x": {"w": torch.ones(2)}, "y": "y.pt"}, "Models", style, "")
    assert list(field.labelled) == ["x", "y"] and field.placeholder == "2 given models"
    field.value = "first=z.pt, w.pt"
    assert field.labelled == {"first": "z.pt", "w.pt": "w.pt"}
    assert LabelledField({"a": Path("a.pt")}, "Models", style, "").value == "a=a.pt"
    assert LabelledField({"a.pt": "a.pt", "b.pt": "b/b.pt"}, "Models", style, "").value == "a.pt, b/b.pt"
    for odd in ({"a": "x,y.pt"}, {"a=b": "x.pt"}, {"": "x.pt"}, {" a": "x.pt"}):  # nothing to type stands for these
        field = LabelledField(odd, "Models", style, "")
        assert field.value == "" and field.labelled == odd
    assert LabelledField("lr=0.1.pt", "Models", style, "").labelled == {"lr=0.1.pt": "lr=0.1.pt"}
    assert variables(["a b", "a-b", "3"], "model") == {"a b": "a_b_model", "a-b": "a_b_model_2", "3": "model_3"}
    sliders = ScaleSliders(style, None)
    sliders.arrange(["x"], [(), ("fc*",)])
    assert sliders.value == (1.0, 1.0) and sliders.steps()[1] == ("x", ("fc*",), 1.0)


def given_in_every_way(folder: Path) -> dict[str, Any]:
    """Models as a user may have them."""
    state = dict(wb.load("blur.safetensors"))
    for name in "abcd":
        (folder / name).mkdir()
        wb.save(state, folder / name / ("net.safetensors" if name in "ab" else "model.safetensors"))
    return {
        "a path": "blur.safetensors",
        "paths": ["blur.safetensors", Path("noise.safetensors")],
        "one name in two folders": ["a/net.safetensors", "b/net.safetensors"],
        "two folders": ["c", Path("d")],
        "one path twice": ["blur.safetensors"] * 2,
        "labels": {"x": "blur.safetensors", "y": state},
        "a mapping": state,
        "a checkpoint of a training script": {"state_dict": state, "epoch": 3},
        "the same, and another": [{"state_dict": state, "epoch": 3}, state],
        "an opened one": wb.load("blur.safetensors"),
        "a module": made(NETWORK).module,
    }


def test_labels_are_those_of_the_difference(given: SimpleNamespace, tmp_path: Path) -> None:
    for what, models in given_in_every_way(tmp_path).items():
        labels = wb.diff("ancestor.safetensors", models).labels
        field = LabelledField(models, "Models", {}, "")
        assert tuple(field.labelled) == labels, what
        assert field.value == "" or tuple(LabelledField(field.value.split(", "), "", {}, "").labelled) == labels, what
    explorer = explorer_of(given, models=["blur.safetensors", "noise.safetensors"])
    assert explorer.run().labels == ("blur.safetensors", "noise.safetensors")
    explorer.inputs.model.value = "noise.safetensors"
    assert explorer.wait(30)
    drawn = wb.figure(wb.diff("ancestor.safetensors", ["blur.safetensors", "noise.safetensors"],
                              floor="floor.safetensors"), "norms", model="noise.safetensors")  # fmt: skip
    assert explorer.plots[FIRST].spec.csv() == drawn.csv()
    explorer.close()


def test_a_given_result_opens_its_view(given: SimpleNamespace, tmp_path: Path) -> None:
    wb.similarity(signatures()).save(tmp_path / "saved")
    explorer = Explorer()
    explorer.result = wb.open_result(tmp_path / "saved")
    assert explorer.view.value == "signatures" and explorer.plots[FIRST].spec is not None
    explorer.result = wb.diff("clean.safetensors", "blur.safetensors")
    assert explorer.view.value == "changes" and explorer.plots[FIRST].spec is not None
    with pytest.raises(wb.ArgumentError, match="SignatureExplorer shows Diff or Similarity"):
        explorer.result = wb.layers("clean.safetensors")
    explorer.close()


def test_closing_lets_go_of_models_and_widgets(given: SimpleNamespace, open_widgets: Callable[[], int]) -> None:
    gc.collect()
    before = open_widgets()
    module = made(NETWORK).module
    explorer = Explorer(module, given.models, clean="clean.safetensors", evaluator=given.evaluator, view="patch")
    held = [weakref.ref(module), weakref.ref(explorer.run()), weakref.ref(explorer)]
    assert explorer.wait(30)
    explorer._prepare()
    explorer.close()
    del module, explorer
    gc.collect()
    assert [reference() for reference in held] == [None] * 3
    assert open_widgets() == before


def test_controls_that_come_and_go_leave_nothing_and_refer_to_nothing_before_them(
    explorer: wb.ui.SignatureExplorer, open_widgets: Callable[[], int], looking_back: Callable[..., list[str]]
) -> None:
    form, scales = explorer.views["merge"].form, explorer.views["patch"].scales
    for arrange in (
        lambda turn: form.arrange(("ties", "slerp")[turn % 2], {}),
        lambda turn: scales.arrange("abc", [("0",), ("2",)][: 1 + turn % 2]),
    ):
        counts = []
        for turn in range(6):
            assert looking_back(lambda turn=turn, arrange=arrange: arrange(turn)) == []
            counts.append(open_widgets())
        assert counts[2:4] == counts[4:]


def test_a_view_that_comes_again_offers_no_figure_of_another(explorer: wb.ui.SignatureExplorer) -> None:
    explorer.view.value = "merge"
    explorer.run()
    explorer.view.value = "changes"
    explorer.views["changes"].details["lorenz"].value = True
    explorer.run()
    second = explorer.plots[SECOND]
    for _ in range(2):
        explorer.view.value = "changes"
        assert explorer.wait(30) and second.spec is not None and not second.why
        explorer.view.value = "merge"
        assert explorer.wait(30) and second.spec is None and second.why == "none in this view"
    explorer.export_panel.figure.value = SECOND
    with pytest.raises(wb.FigureError, match="second figure is not drawn: none in this view.$"):
        explorer.export_panel.export()


def test_every_control_has_a_name(
    explorer: wb.ui.SignatureExplorer, controls: Callable[[ipw.Widget], list[ipw.Widget]]
) -> None:
    assert len(controls(explorer)) >= 20 and all(one.description for one in controls(explorer))


@pytest.mark.parametrize("view", ["signatures", "merge"])
def test_a_file_that_was_written_anew_is_read_anew(
    view: str, explorer: wb.ui.SignatureExplorer, given: SimpleNamespace
) -> None:
    explorer.view.value = view
    explorer.run()
    wb.save({name: one * 1.5 for name, one in wb.load("blur.safetensors").items()}, "blur.safetensors")
    wanted = {
        "signatures": lambda: wb.similarity(signatures()),
        "merge": lambda: wb.diff("ancestor.safetensors", {"merged": wb.merge("ancestor.safetensors", paths(given))}),
    }
    assert_same(explorer.run(), wanted[view]())


@pytest.mark.parametrize(
    "signatures",
    [["blur.safetensors"], "blur.safetensors", {"blur": {"w": torch.ones(2)}}, {"blur": wb.load({"w": torch.ones(2)})}],
)
def test_signatures_that_are_none_are_refused(signatures: Any, given: SimpleNamespace) -> None:
    with pytest.raises(wb.ArgumentError, match="expected label → Signature, or the path of its file"):
        explorer_of(given, signatures=signatures)


def test_labels_of_any_letters_are_variables_of_the_code(given: SimpleNamespace) -> None:
    labels = ["blur²", "größer (3)", "²", "4-bit"]
    explorer = explorer_of(given, models=dict(zip(labels, [*paths(given), "clean.safetensors"], strict=True)))
    changes = explorer.run()
    assert changes.labels == tuple(labels)
    namespace: dict[str, Any] = {}
    exec(explorer.code(), namespace)
    assert namespace["changes"].labels == tuple(labels)
    explorer.close()


def test_a_merge_says_what_it_treats_otherwise_and_another_method_takes_its_numbers_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    explorer = explorer_of(family(NORMALISED), view="merge", batch_norm="untouched")
    view = explorer.views["merge"]
    explorer.run()
    assert explorer.wait(60) and "running statistics are averages over the models" in view.notes.value
    assert "merged" in view.told.value
    view.method.value = "task_arithmetic"
    assert view.told.value == "" and view.notes.value == ""
    explorer.close()


def test_files_are_those_of_paths_and_of_nothing_else(tmp_path: Path) -> None:
    """Among a call's texts are names longer than a file's, nobody's home, a zero byte, and folders in folders."""
    (tmp_path / "net" / "runs").mkdir(parents=True)
    file = wb.save({"w": torch.ones(2)}, tmp_path / "net" / "model.safetensors")
    (tmp_path / "net" / "runs" / "log").write_text("not of the checkpoint")
    texts = ["", "x" * 300 + "*", "~nobody-of-that-name/w", "\0", str(tmp_path / "gone")]
    found = stamps(Call(wb.diff, (Given("base", str(tmp_path / "net")), {"tuned": str(file)}), {"layers": texts}))
    told = (str(file), file.stat().st_mtime_ns, file.stat().st_size)
    assert found == (told, told)

"""The degeneracy explorer as a user meets it: what the page shows equals what the library computes."""

import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Locator, expect

import workbench as wb
from browser.pages import DATA, assert_soon_drawn, choose, press, recipe_and_digits, rows, slider

pytestmark = pytest.mark.browser

CHECKPOINT = "data/checkpoints/digits-{name}-seed0.safetensors"
SETUP = """import sys
sys.path.insert(0, "data")
import build, workbench as wb
recipe = build.RECIPES["digits-{name}"]
digits = build.digits(recipe.input_shape)
module = recipe.module()
module.load_state_dict(dict(wb.load("{path}")))
data = list(zip(digits.test_x.split({size}), digits.test_y.split({size})))
"""
SHOW = "explorer = wb.ui.DegeneracyExplorer(module, data{})\nexplorer"


def setup(name: str, size: int = 360) -> str:
    return SETUP.format(name=name, path=CHECKPOINT.format(name=name), size=size)


def shown(lab: Any, name: str, more: str = "", size: int = 360) -> Locator:
    """A notebook with the explorer on a shipped checkpoint, the data in batches of a size."""
    lab.write("degenerate.ipynb", setup(name, size), SHOW.format(more))
    lab.open("degenerate.ipynb")
    lab.run_all()
    explorer = lab.page.locator(".wb-explorer")
    expect(rows(explorer).first).to_be_visible()
    return explorer


@cache
def own(name: str) -> SimpleNamespace:
    """The library's own module, data and results."""
    recipe, digits = recipe_and_digits(name)
    module = recipe.module()
    module.load_state_dict(dict(wb.load(DATA.parent / CHECKPOINT.format(name=name))))
    data = [(digits.test_x, digits.test_y)]
    evaluator, basis = wb.evaluator(module, data, "cross_entropy"), wb.interaction_basis(module, data)
    graph = wb.interaction_graph(module, data, basis)
    return SimpleNamespace(module=module, data=data, evaluator=evaluator, basis=basis, graph=graph)


def status(explorer: Locator) -> Locator:
    """The line under the buttons."""
    return explorer.locator(".widget-vbox > .widget-html .wb-status, .wb-error").last


def loss_of(line: Locator) -> float:
    return float(re.search(r"loss ([\d.e-]+)", line.text_content() or "")[1])  # type: ignore[index]


def test_spectra_basis_graph_ablation_datapoints_and_code(lab: Any, fresh_kernel: Callable[[str, Path], str]) -> None:
    page, explorer, known = lab.page, shown(lab, "mlp512"), own("mlp512")
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="Hessian rank at most")).to_be_visible(timeout=40_000)
    audit = wb.degeneracy(known.module, known.data)
    assert_soon_drawn(page, 0, wb.figure(audit, "spectra", layer="1", threshold=1e-9))
    assert_soon_drawn(page, 1, wb.figure(audit, "ranks", layer="1"))
    handle = slider(explorer, "Threshold")
    handle.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    row = wb.degeneracy(known.module, known.data, threshold=1e-7).row("1")
    told = explorer.locator(".wb-status", has_text="r_G")
    expect(told).to_contain_text(f"r_G {row['activation_rank']:g} of 512")
    expect(told).to_contain_text(f"r_M′ {row['gradient_rank']:g} of 512")
    assert_soon_drawn(page, 0, wb.figure(audit, "spectra", layer="1", threshold=1e-7))
    lab.shot("degeneracy-1-spectra")

    choose(explorer, "View", "basis")
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="local basis; nodes")).to_be_visible(timeout=40_000)
    assert_soon_drawn(page, 0, wb.figure(known.basis, layer="1"))
    assert_soon_drawn(page, 1, wb.figure(known.basis))
    lab.shot("degeneracy-2-basis")

    choose(explorer, "View", "graph")
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="squared edges")).to_be_visible(timeout=40_000)
    predicted = known.basis.predicted_nodes("1")
    line = explorer.locator(".wb-status", has_text="nodes (Λ predicts")
    expect(line).to_contain_text(f"1, {predicted} of {known.basis.nodes('1')} nodes (Λ predicts {predicted})")
    assert_soon_drawn(page, 0, wb.figure(known.graph, nodes={"1": predicted - 1}))
    lab.shot("degeneracy-3-graph")
    handle = slider(explorer, "Nodes")
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    kept = predicted - 5
    expect(line).to_contain_text(f"1, {kept} of")
    found = wb.ablated(known.evaluator, known.basis, "1", kept)
    assert loss_of(line) == pytest.approx(found["loss"], rel=1e-4)
    expect(line).to_contain_text(f"accuracy {found['accuracy']:.5g}")
    handle = slider(explorer, "Kept edges")
    handle.focus()
    page.keyboard.press("Home")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    line = explorer.locator(".wb-status", has_text="edges: loss")
    expect(line).to_contain_text("1, 12 of")
    found = wb.ablated(known.evaluator, known.basis, "1", 12, graph=known.graph)
    assert loss_of(line) == pytest.approx(found["loss"], rel=1e-4)
    assert_soon_drawn(page, 0, wb.figure(known.graph, nodes={"1": kept - 1}, edges={"1": 12}))
    lab.shot("degeneracy-4-graph-cut")
    explorer.get_by_text("Code", exact=True).first.click()
    code = explorer.locator(".wb-code textarea")
    expect(code).to_be_visible()
    assert f"with_nodes = wb.ablated(evaluator, basis, '1', {kept})" in code.input_value()
    told_losses = "\nprint(frame.to_json(double_precision=15)); print(with_nodes['loss'], with_edges['loss'])"
    printed = fresh_kernel(setup("mlp512") + code.input_value() + told_losses, lab.folder).splitlines()
    again = pd.read_json(io.StringIO(printed[0]), dtype={"source": str, "target": str})
    pd.testing.assert_frame_equal(again, known.graph.frame(), check_dtype=False, rtol=1e-9)
    nodes = wb.ablated(known.evaluator, known.basis, "1", kept)["loss"]
    assert list(map(float, printed[1].split())) == pytest.approx([nodes, found["loss"]], rel=1e-9)

    choose(explorer, "View", "ablation")
    choose(explorer, "Layer", "3")
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="keep the accuracy within")).to_be_visible(timeout=40_000)
    assert_soon_drawn(page, 0, wb.figure(wb.ablation(known.evaluator, known.basis, "3")))
    lab.shot("degeneracy-5-ablation")

    choose(explorer, "View", "datapoints")
    expect(explorer.locator(".wb-datapoints img")).to_have_count(10)
    frame = known.basis.datapoints(known.module, known.data, "3", 1, count=5)
    expect(explorer.locator(".wb-datapoints li small").first).to_have_text(f"batch 0 · sample {frame['sample'][0]}")
    assert_soon_drawn(page, 0, wb.figure(known.basis, layer="3", direction=1))
    lab.shot("degeneracy-6-datapoints")
    assert not lab.problems


def test_modules_have_names_and_an_error_passes_in_the_dark(lab: Any) -> None:
    page = lab.page
    explorer = shown(lab, "mlp512", ', view="modules", theme="dark"')
    field = explorer.get_by_role("textbox", name="Layers")
    field.fill("nowhere")
    field.press("Enter")
    press(explorer)
    expect(explorer.get_by_role("alert")).to_contain_text("nowhere")
    field.fill("")
    field.press("Enter")
    nulls = explorer.get_by_role("spinbutton", name="Null graphs")
    nulls.fill("3")
    nulls.press("Enter")
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="modules")).to_be_visible(timeout=40_000)
    expect(explorer.get_by_role("alert")).to_have_count(0)
    names = explorer.get_by_role("textbox", name="Names")
    names.fill("0: straight")
    names.press("Enter")
    known = own("mlp512")
    modules = wb.interaction_modules(known.graph, nulls=3)
    assert_soon_drawn(page, 0, wb.figure(modules, "graph", names={0: "straight"}))
    assert_soon_drawn(page, 1, wb.figure(modules, "modularity", names={0: "straight"}))
    lab.shot("degeneracy-8-modules-dark")
    choose(explorer, "View", "graph")
    expect(explorer.locator(".wb-status", has_text="nodes (Λ predicts")).to_be_visible()
    nodes = known.basis.predicted_nodes("1") - 1
    assert_soon_drawn(page, 0, wb.figure(known.graph, modules=modules, names={0: "straight"}, nodes={"1": nodes}))
    lab.shot("degeneracy-9-graph-dark")
    assert not lab.problems


def test_a_run_stops_in_the_middle_and_pixels_are_marked(lab: Any) -> None:
    page = lab.page
    explorer = shown(lab, "cnn32", ', view="graph", estimator="Hutchinson", count=6', size=4)
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="0 of 3 done, at conv1")).to_be_visible(timeout=40_000)
    press(explorer, "Cancel")
    expect(explorer.locator(".wb-status", has_text="CANCELLED after 0 of 3 segments")).to_be_visible()
    expect(explorer.get_by_role("button", name="Run")).to_be_enabled()
    lab.shot("degeneracy-7-cancelled")
    choose(explorer, "View", "datapoints")  # the basis was done
    expect(explorer.locator(".wb-datapoints img")).to_have_count(12)
    expect(explorer.locator(".wb-datapoints i")).to_have_count(12)  # conv1 has a position for each pixel
    handle = slider(explorer, "Direction")
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(explorer.locator(".wb-datapoints h4").first).to_have_text("layer conv1, direction 2: largest coordinates")
    page.wait_for_timeout(400)
    lab.shot("degeneracy-10-pixels")
    assert not lab.problems

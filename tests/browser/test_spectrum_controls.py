"""The spectrum explorer from the keyboard: what a control says is what is computed, and JupyterLab keeps still."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import expect

import workbench as wb
from browser.pages import assert_soon_drawn, drawn, rows, slider

pytestmark = pytest.mark.browser

DIGITS = "data/checkpoints/digits-mlp512-seed0.safetensors"
NOTEBOOK = """() => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  return [notebook.activeCellIndex, notebook.mode, document.activeElement.className,
          Array.from(document.querySelectorAll('.jp-Cell'), cell => cell.offsetHeight > 0)];
}"""


@pytest.fixture
def shown(lab: Any) -> Any:
    """An explorer under a heading, which JupyterLab's arrow keys would fold or leave."""
    cell = f"explorer = wb.ui.SpectrumExplorer({DIGITS!r})\nexplorer"
    lab.write("keys.ipynb", "# Before", "import workbench as wb", cell, "# After")
    lab.open("keys.ipynb")
    lab.run_all()
    return lab


def test_window_and_aspect_ratio_by_keyboard(shown: Any, fresh_kernel: Callable[[str, Path], str]) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    explorer.get_by_label("Analyse").select_option("windows (FARMS)")
    explorer.get_by_text("Code", exact=True).first.click()
    code = explorer.locator(".wb-code textarea")
    for name, key, times in (("Window", "ArrowLeft", 20), ("Aspect ratio", "ArrowRight", 2)):
        slider(explorer, name).focus()
        for _ in range(times):
            page.keyboard.press(key)
    expect(code).to_have_value(re.compile(r"window=80, aspect_ratio=1\.5"))  # the kernel has heard the last key
    readouts = explorer.locator(".widget-hslider .widget-readout").all_text_contents()
    assert readouts[:2] == ["80", "1.50"]
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("windows of 80 rows at aspect ratio 1.5 (cover)")
    explorer.get_by_label("Look at").select_option("2")
    expect(explorer.locator(".gtitle", has_text="2").last).to_be_visible()
    expected = wb.farms(shown.folder / DIGITS, window=80, aspect_ratio=1.5)
    assert (expected.row("2")["window_rows"], expected.row("2")["window_cols"]) == (80, 120)
    assert_soon_drawn(page, 0, wb.figure(expected, "alpha", layer="2"))
    assert_soon_drawn(page, 1, wb.figure(expected, "esd", layer="2"))
    expect(rows(explorer)).to_have_count(3)

    assert not code.input_value().startswith("#")
    printed = fresh_kernel(code.input_value() + "\nprint(frame.to_json(double_precision=15))", shown.folder)
    again = pd.read_json(io.StringIO(printed), dtype=False)
    pd.testing.assert_frame_equal(again, expected.frame().astype({"layer": str}), check_dtype=False, rtol=1e-12)
    assert not shown.problems


def test_keys_stay_with_the_control_that_has_the_focus(shown: Any) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    explorer.get_by_label("Analyse").select_option("windows (FARMS)")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("3 layers (")
    explorer.get_by_role("button", name="Run").focus()
    before = page.evaluate(NOTEBOOK)
    assert before[0] == 2 and before[1] == "command" and all(before[3])
    look, tail = explorer.get_by_label("Look at"), explorer.get_by_label("Tail begins")
    disabled = explorer.locator(".widget-hslider", has_text="λ").locator(".noUi-target[disabled] .noUi-handle")
    box = explorer.locator("label", has_text="fit the tail anew").locator("input")
    for control in (slider(explorer, "Window"), disabled, box, look, tail, explorer.get_by_role("button", name="Run")):
        control.evaluate("element => element.focus()")
        held = page.evaluate(NOTEBOOK)
        for key in ("ArrowLeft", "ArrowDown", "j", "Shift+ArrowDown", "Home"):
            page.keyboard.press(key)
            assert page.evaluate(NOTEBOOK) == held, f"{key} at {control}"
        assert held[0] == 2 and held[3] == before[3]
    look.select_option("0")
    look.focus()
    page.keyboard.press("ArrowDown")  # which walks through the layers
    expect(explorer.locator("tr.selected td").first).to_have_text("2")

    page.keyboard.press("Control+Shift+ArrowLeft")  # keys that no control has are JupyterLab's: fold all sections
    page.wait_for_function(f"() => !({NOTEBOOK})()[3][2]")
    assert not shown.problems


def test_rows_and_points_of_one_verdict(shown: Any, minilm: Path) -> None:
    (shown.folder / "minilm").symlink_to(minilm)
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    source = explorer.get_by_role("combobox", name="Checkpoint")
    source.fill("minilm")
    source.press("Enter")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("40 layers (")
    expected = wb.spectrum(minilm)
    frame, first = expected.frame(), expected.frame().sort_values("alpha")["layer"].iloc[0]
    for word, count in frame["verdict"].value_counts().items():
        explorer.get_by_label("Show").select_option(word)
        expect(rows(explorer)).to_have_count(count)
        chosen = frame.loc[frame["verdict"] == word, "layer"]
        assert rows(explorer).locator("td:first-child").all_text_contents() == list(chosen)
        assert explorer.get_by_label("Look at").locator("option").all_text_contents() == list(chosen)
    # the plot names every verdict itself: all points stay, each layer once, and the ring stays where it was
    assert_soon_drawn(page, 0, wb.figure(expected, "alpha", layer=first))
    points = [trace for trace in drawn(page, 0)["traces"] if trace["name"] in set(frame["verdict"])]
    assert {trace["name"]: len(trace["ids"]) for trace in points} == frame["verdict"].value_counts().to_dict()
    explorer.get_by_label("Show").select_option("all verdicts")
    expect(rows(explorer)).to_have_count(40)
    assert not shown.problems


EDGES = """element => [...element.querySelectorAll('thead th, tbody tr:first-child td')]
  .map(cell => cell.getBoundingClientRect()).map(box => [Math.round(box.left), Math.round(box.right)])"""
SPILLS = """() => [...document.querySelectorAll('.wb-plot')].flatMap(plot =>
  [...plot.querySelectorAll('.gtitle, .gtitle-subtitle, .xtitle, .legendtext')]
    .filter(text => text.getBoundingClientRect().right > plot.getBoundingClientRect().right + 1)
    .map(text => text.textContent))"""


def test_columns_stand_under_their_heads_and_no_text_is_cut(shown: Any) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    table, plots = explorer.locator(".wb-table table"), explorer.locator(".wb-plot")

    def in_line() -> None:
        edges = table.evaluate(EDGES)
        assert len(edges) >= 18 and edges[: len(edges) // 2] == edges[len(edges) // 2 :]

    in_line()  # before the first run, when the table was made before the page showed it
    explorer.get_by_label("Analyse").select_option("windows (FARMS)")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("3 layers (")
    expect(explorer.locator(".gtitle-subtitle").last).to_contain_text("heavier than noise")
    bar = explorer.locator(".progress-bar").bounding_box()
    assert bar and bar["height"] >= 6 and bar["width"] > 200
    page.wait_for_timeout(300)
    in_line()
    assert page.evaluate(SPILLS) == []
    one, other = (plots.nth(number).bounding_box() for number in (0, 1))
    assert one and other and one["x"] == other["x"] and one["y"] < other["y"]
    page.set_viewport_size({"width": 2200, "height": 1250})
    page.wait_for_timeout(500)
    one, other = (plots.nth(number).bounding_box() for number in (0, 1))
    assert one and other and one["x"] < other["x"] and one["y"] == other["y"], "where there is room: side by side"
    assert page.evaluate(SPILLS) == [] and all(drawn(page, number)["fits"] for number in (0, 1))
    assert not shown.problems

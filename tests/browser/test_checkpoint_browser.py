"""The checkpoint browser as a user meets it: what the page shows equals what the library computes."""

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from playwright.sync_api import Locator, expect

import workbench as wb
from browser.pages import assert_soon_drawn, rows

pytestmark = pytest.mark.browser

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}

PAINTED = """() => new Promise(done => {
  const begin = performance.now();
  const watch = new MutationObserver(() => {
    if (document.querySelectorAll('.wb-explorer')[1]?.querySelector('[data-path="layers.299"]')) {
      watch.disconnect();
      requestAnimationFrame(() => done(performance.now() - begin));
    }
  });
  watch.observe(document.body, { childList: true, subtree: true });
  window.jupyterapp.commands.execute('notebook:run-cell-and-select-next');
})"""


@pytest.fixture
def model(minilm: Path, tmp_path: Path) -> Path:
    """MiniLM as a training script left it: wrapped, and with three broken numbers."""
    state = {f"module.{name}": tensor for name, tensor in wb.load(minilm).items()}
    state["module.encoder.layer.1.output.dense.weight"][5, 7:10] = torch.tensor([float("nan"), float("inf"), 0.0])
    path = tmp_path / "trained.pt"
    torch.save({"state_dict": state, "epoch": 3}, path)
    return path


@pytest.fixture
def shown(lab: Any, model: Path) -> Any:
    """A notebook of one cell with the browser on that checkpoint."""
    (lab.folder / "trained.pt").symlink_to(model)
    cell = 'import workbench as wb\nbrowser = wb.ui.CheckpointBrowser("trained.pt")\nbrowser'
    lab.write("browse.ipynb", cell)
    lab.open("browse.ipynb")
    lab.run_all()
    expect(lab.page.get_by_role("treeitem").first).to_be_visible()
    return lab


def item(explorer: Locator, path: str) -> Locator:
    return explorer.locator(f'[role="treeitem"][data-path="{path}"]')


def unfold(explorer: Locator, path: str) -> None:
    parts = path.split(".")
    for end in range(1, len(parts)):
        node = item(explorer, ".".join(parts[:end]))
        if node.get_attribute("aria-expanded") == "false":
            node.locator(".wb-tree-fold").click()


def test_tree_click_and_statistics(shown: Any, model: Path) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    weights, table = wb.load(model), wb.layers(model).frame()
    root = explorer.get_by_role("treeitem").first
    expect(root).to_contain_text(f"{len(weights)} tensors")
    assert [node.get_attribute("data-path") for node in explorer.get_by_role("treeitem").all()] == [
        "",
        *dict.fromkeys(name.split(".")[0] for name in weights),
    ]
    about = explorer.locator(".wb-about")
    for note in weights.notes:
        expect(about).to_contain_text(note)
    assert any("prefix 'module.' removed" in note for note in weights.notes)
    expect(about).to_contain_text("module.encoder.layer.0.attention.output.dense.weight")

    name = "encoder.layer.1.output.dense.weight"
    unfold(explorer, name)
    row = table.set_index("tensor").loc[name]
    expect(item(explorer, name)).to_contain_text(f"{row['shape']} {row['dtype']}")
    expect(item(explorer, name)).to_contain_text("2.36 MB")
    item(explorer, name).click()
    expect(explorer.locator(".wb-status")).to_contain_text("1 tensor (1 not finite), 1 NaN and 1 infinite of 589,824")
    expect(item(explorer, name).locator(".wb-tree-mark")).to_have_text("NaN ∞")
    expected = wb.contents(model, layers=name)
    cells = rows(explorer).first.locator("td").all_text_contents()
    heads = explorer.locator(".wb-table thead th").all_text_contents()
    said = dict(zip(heads, cells, strict=True))
    for column in ("zeros", "nan", "infinite", "elements"):
        assert int(said[column]) == expected.row("encoder.layer.1.output.dense")[column]
    for column in ("mean", "std", "rms", "minimum", "maximum"):
        assert said[column] == f"{expected.row('encoder.layer.1.output.dense')[column]:.4g}"
    expect(explorer.locator(".gtitle")).to_have_count(2)
    layer = "encoder.layer.1.output.dense"
    assert_soon_drawn(page, 0, wb.figure(expected, "histogram", layer=layer))
    assert_soon_drawn(page, 1, wb.figure(expected, "heatmap", layer=layer))
    shown.shot("browser-1-tensor")
    assert not shown.problems


def test_module_from_the_keyboard_and_code(shown: Any, model: Path, fresh_kernel: Callable[[str, Path], str]) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    item(explorer, "").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(item(explorer, "encoder")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(item(explorer, "encoder.layer.0")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(item(explorer, "encoder.layer.1")).to_have_attribute("aria-selected", "true")
    expect(explorer.get_by_text("16 tensors, 7.1 MB: press Run to look into them").first).to_be_visible()
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("16 tensors (15 finite, 1 not finite)")
    expect(rows(explorer)).to_have_count(16)
    expected = wb.contents(model, layers="encoder.layer.1.*")
    assert_soon_drawn(page, 0, wb.figure(expected, "rms"))
    shown.shot("browser-2-module")

    explorer.get_by_text("Code", exact=True).first.click()
    code = explorer.locator(".wb-code textarea")
    expect(code).to_be_visible()
    printed = fresh_kernel(code.input_value() + "\nprint(frame.to_json(double_precision=15))", shown.folder)
    again = pd.read_json(io.StringIO(printed), dtype=False)
    pd.testing.assert_frame_equal(again, expected.frame(), check_dtype=False, rtol=1e-12)

    rows(explorer).nth(2).click()  # a row selects its tensor in the tree and draws it without a new run
    layer = expected.frame()["layer"][2]
    expect(explorer.locator(".gtitle", has_text=layer).first).to_be_visible()
    expect(explorer.locator('[role="treeitem"][aria-selected="true"]')).to_have_count(1)
    expect(code).to_have_value(re.compile(re.escape(f"layer={layer!r}")))
    assert "layers=['encoder.layer.1.*']" in code.input_value()
    assert not shown.problems


def test_a_mark_leaves_the_focus_where_it_is(shown: Any) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    name = "encoder.layer.1.output.dense.weight"
    unfold(explorer, name)
    item(explorer, name).focus()
    page.keyboard.press("Enter")  # the tensor is looked into, and the tree drawn anew with its mark
    expect(item(explorer, name).locator(".wb-tree-mark")).to_have_text("NaN ∞")
    expect(item(explorer, name)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(item(explorer, "encoder.layer.1.output.dense.bias")).to_be_focused()
    page.keyboard.press("ArrowLeft")  # and the notebook's sections stay as they are
    expect(item(explorer, "encoder.layer.1.output.dense")).to_be_focused()
    assert not shown.problems


def test_a_mark_takes_no_focus_from_elsewhere(shown: Any) -> None:
    explorer = shown.page.locator(".wb-explorer")
    name = "encoder.layer.1.output.dense.weight"
    unfold(explorer, name)
    item(explorer, name).click()
    explorer.get_by_label("Filter tensors by name").focus()
    expect(item(explorer, name).locator(".wb-tree-mark")).to_have_text("NaN ∞")
    expect(explorer.get_by_label("Filter tensors by name")).to_be_focused()
    assert not shown.problems


def test_filter_and_an_error(shown: Any) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    explorer.get_by_label("Filter tensors by name").fill("1.attention.self.QUERY")
    expect(explorer.get_by_role("treeitem")).to_have_count(2)
    item(explorer, "encoder.layer.1.attention.self.query.bias").click()
    expect(explorer.locator(".gtitle", has_text="query.bias").first).to_be_visible()
    shown.shot("browser-3-filter")
    source = explorer.get_by_role("combobox", name="Checkpoint")
    source.fill("traind.pt")
    source.press("Enter")
    expect(explorer.get_by_role("alert")).to_contain_text("no such file or directory. Did you mean 'trained.pt'?")
    expect(explorer.get_by_role("treeitem")).to_have_count(0)
    shown.shot("browser-4-error")
    source.fill("trained.pt")
    source.press("Enter")
    expect(explorer.get_by_role("alert")).to_have_count(0)
    expect(explorer.get_by_role("treeitem").first).to_be_visible()
    page.wait_for_timeout(200)
    assert not shown.problems


def test_a_thousand_children_are_reached_by_the_keyboard(lab: Any) -> None:
    cell = (
        "import torch, workbench as wb\n"
        'browser = wb.ui.CheckpointBrowser({f"layers.{n}.bias": torch.ones(3) for n in range(1000)})\nbrowser'
    )
    lab.write("many.ipynb", cell, 'browser.selection = ("layers.950.bias",)')
    lab.open("many.ipynb")
    page = lab.page
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
    explorer = page.locator(".wb-explorer")
    item(explorer, "layers").focus()
    page.keyboard.press("End")
    expect(explorer.get_by_text("show 400 of 600 more")).to_be_focused()
    page.keyboard.press("Enter")
    expect(item(explorer, "layers.400")).to_be_focused()
    expect(item(explorer, "layers.400")).to_have_attribute("aria-posinset", "401")
    expect(item(explorer, "layers.400")).to_have_attribute("aria-setsize", "1000")
    page.keyboard.press("ArrowUp")
    expect(item(explorer, "layers.399")).to_be_focused()

    # a tensor that is selected elsewhere is unfolded and in view
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    expect(item(page.locator(".wb-explorer"), "layers.950.bias")).to_be_visible()
    expect(item(page.locator(".wb-explorer"), "layers.950.bias")).to_have_attribute("aria-selected", "true")
    assert not lab.problems


def test_ten_gigabytes_are_painted_from_the_header(lab: Any) -> None:
    """From the run of the cell to the tree in the page; `make bench` asks for the milliseconds through a file."""
    size, entry = 4096 * 4096 * 2, {"dtype": "BF16", "shape": [4096, 4096]}
    header = {f"layers.{n}.weight": entry | {"data_offsets": [n * size, (n + 1) * size]} for n in range(300)}
    text = json.dumps(header).encode()
    with (lab.folder / "ten.safetensors").open("wb") as file:  # with holes: it takes no room on the disk
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 300 * size)
    codes = ["import workbench as wb\nwb.ui.CheckpointBrowser({})", 'wb.ui.CheckpointBrowser("ten.safetensors")']
    lab.write("ten.ipynb", *codes)
    lab.open("ten.ipynb")
    page = lab.page
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
    expect(page.locator(".wb-explorer .js-plotly-plot")).to_have_count(2)  # imports and plotly are behind us
    page.wait_for_timeout(2000)
    milliseconds = page.evaluate(PAINTED)
    expect(page.locator(".wb-explorer").nth(1).get_by_role("treeitem").first).to_contain_text("10.1 GB")
    if told := os.environ.get("WORKBENCH_PAINT"):
        Path(told).write_text(str(milliseconds))
    assert not lab.problems

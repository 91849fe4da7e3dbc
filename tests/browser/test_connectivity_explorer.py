"""The connectivity explorer as a user meets it: what the page shows equals what the library computes."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from playwright.sync_api import Locator, expect

import workbench as wb
from browser.pages import CHECKPOINTS, assert_soon_drawn, choose, drawn, own, press, rows, slider, soon

pytestmark = pytest.mark.browser

SETUP = """import sys
sys.path.insert(0, "data")
import build, workbench as wb
recipe = build.RECIPES["digits-{name}"]
digits = build.digits(recipe.input_shape)
module, data = recipe.module(), [(digits.train_x, digits.train_y)]
"""
SHOW = 'explorer = wb.ui.ConnectivityExplorer("{}", "{}", module=module, data=data{})\nexplorer'


def shown(lab: Any, name: str, more: str = "") -> Locator:
    """A notebook with the explorer on two shipped checkpoints."""
    paths = [path.format(name) for path in CHECKPOINTS]
    lab.write("connect.ipynb", SETUP.format(name=name), SHOW.format(*paths, more))
    lab.open("connect.ipynb")
    lab.run_all()
    explorer = lab.page.locator(".wb-explorer")
    expect(rows(explorer).first).to_be_visible()
    return explorer


def status(explorer: Locator) -> Locator:
    return explorer.locator(".wb-status")


def test_groups_matching_barrier_path_and_code(lab: Any, fresh_kernel: Callable[[str, Path], str]) -> None:
    page, explorer, known = lab.page, shown(lab, "mlp512"), own("mlp512")
    press(explorer)
    expect(status(explorer)).to_contain_text("2 groups of 1,024 units")
    expect(rows(explorer)).to_have_count(2)
    expect(explorer.locator(".gtitle").first).to_be_visible()
    assert_soon_drawn(page, 0, wb.figure(known.groups, "graph"))
    lab.shot("connectivity-1-groups")
    rows(explorer).first.click()
    choose(explorer, "Table", "frozen")
    expect(rows(explorer)).to_have_count(len(known.groups.frame("frozen")))

    choose(explorer, "View", "matching")
    press(explorer)
    expect(status(explorer)).to_contain_text("the outputs were seen unchanged")
    matching = wb.match(known.groups, *known.paths, evaluator=known.evaluator)
    expect(status(explorer)).to_contain_text(f"‖A − π(B)‖ is {matching.reduction():.1%} below ‖A − B‖")
    assert_soon_drawn(page, 0, wb.figure(matching, "objective"))
    assert_soon_drawn(page, 1, wb.figure(matching, "reduction", layer="0"))
    lab.shot("connectivity-2-matching")
    choose(explorer, "View", "alignment")
    assert_soon_drawn(page, 0, wb.figure(matching, "alignment", layer="0"))
    lab.shot("connectivity-3-alignment")

    choose(explorer, "View", "barrier")
    press(explorer)
    expect(status(explorer)).to_contain_text("25 points")
    ends = known.paths[0], matching.apply(known.paths[1])
    before = wb.barrier(known.evaluator, *known.paths, batch_norm=None)
    after = wb.barrier(known.evaluator, *ends, batch_norm=None)
    assert_soon_drawn(page, 0, wb.figure({"before matching": before, "after matching": after}))
    expect(explorer.locator(".annotation-text:visible")).to_have_count(0)  # none of the figure before
    lab.shot("connectivity-4-barrier")
    explorer.get_by_text("Code", exact=True).first.click()
    code = explorer.locator(".wb-code textarea")
    expect(code).to_be_visible()
    assert "# module: the Sequential that the explorer was given" in code.input_value()
    printed = fresh_kernel(
        SETUP.format(name="mlp512") + code.input_value() + "\nprint(frame.to_json(double_precision=15))", lab.folder
    )
    again = pd.read_json(io.StringIO(printed))
    pd.testing.assert_frame_equal(again[["t", "loss", "accuracy"]], after.frame()[["t", "loss", "accuracy"]], rtol=1e-9)

    choose(explorer, "View", "path")
    press(explorer)
    expect(status(explorer)).to_contain_text("at t = 0.5 loss")
    handle = slider(explorer, "t")
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(status(explorer)).to_contain_text("at t = 0.53 loss")
    a, b = wb.load(ends[0]), ends[1]
    found = known.evaluator({name: torch.lerp(a[name], b[name], 0.53) for name in a})
    told = explorer.locator(".widget-html", has_text="· accuracy")
    expect(told).to_contain_text(re.compile(r"loss [\d.]+ · accuracy [\d.]+"))
    loss = float(re.search(r"loss ([\d.e-]+)", told.text_content() or "")[1])  # type: ignore[index]
    assert loss == pytest.approx(found["loss"], rel=1e-4)

    def marked() -> None:
        (mark,) = (trace for trace in drawn(page, 0)["traces"] if trace["name"] == "t = 0.53")
        assert mark["x"] == [0.53] and mark["y"][0] == pytest.approx(found["loss"], rel=1e-6)

    soon(page, marked)
    lab.shot("connectivity-5-path")
    assert not lab.problems


def test_a_run_is_live_stops_in_the_middle_and_a_wrong_checkpoint_passes(lab: Any) -> None:
    page, explorer = lab.page, shown(lab, "mlp512", ', view="matching", restarts=5000')
    press(explorer)
    expect(status(explorer)).to_contain_text(re.compile(r"sweep \d+, objective [\d.]+"))
    first = status(explorer).text_content()
    expect(status(explorer)).not_to_have_text(first or "")
    expect(explorer.locator(".gtitle").first).to_be_visible()
    lab.shot("connectivity-6-live")
    press(explorer, "Cancel")
    expect(status(explorer)).to_contain_text("CANCELLED, not settled")
    expect(rows(explorer)).to_have_count(6)
    lab.shot("connectivity-7-cancelled")
    field = explorer.get_by_role("combobox", name="Checkpoint B")
    field.fill("data/checkpoints/digits-cnn32-seed1.safetensors")
    field.press("Enter")
    press(explorer)
    expect(explorer.get_by_role("alert")).to_contain_text("it is of another architecture")
    lab.shot("connectivity-8-error")
    field.fill("data/checkpoints/digits-mlp512-seed2.safetensors")
    field.press("Enter")
    expect(explorer.get_by_role("alert")).to_contain_text("no such file")
    field.fill(CHECKPOINTS[1].format("mlp512"))
    field.press("Enter")
    expect(explorer.get_by_role("alert")).to_have_count(0)
    expect(rows(explorer)).to_have_count(3)
    choose(explorer, "View", "groups")
    press(explorer)
    expect(status(explorer)).to_contain_text("2 groups of 1,024 units")
    page.wait_for_timeout(200)
    assert not lab.problems


def test_batch_norm_is_asked_for_and_the_surface_fills_in_the_dark(lab: Any) -> None:
    page = lab.page
    explorer = shown(lab, "resnet48", ', view="surface", resolution=5, theme="dark"')
    press(explorer)
    expect(explorer.get_by_role("alert")).to_contain_text("choose what becomes of batch norm")
    choose(explorer, "Batch norm", "reset")
    choose(explorer, "Plane", "random directions at A")
    press(explorer)
    expect(status(explorer)).to_contain_text(re.compile(r"\d+ of 25 done, at x = "))
    expect(explorer.locator(".gtitle").first).to_be_visible()
    lab.shot("connectivity-9-fills")
    press(explorer, "Cancel")
    expect(status(explorer)).to_contain_text("CANCELLED after")
    press(explorer)
    expect(status(explorer)).to_contain_text("on 5 × 5 points; ", timeout=60_000)
    expect(status(explorer)).not_to_contain_text("CANCELLED")
    known = own("resnet48")
    surface = wb.surface(known.evaluator, known.paths[0], points=5, batch_norm="reset")
    assert_soon_drawn(page, 0, wb.figure(surface))
    lab.shot("connectivity-10-surface-dark")
    assert not lab.problems

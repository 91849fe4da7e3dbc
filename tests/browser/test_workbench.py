"""The workbench as a user meets it: models, tabs, one selection, one queue, history, session and code."""

from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PATHS = [f"data/checkpoints/digits-mlp512-seed{seed}.safetensors" for seed in (0, 1)]
SETUP = """import sys
sys.path.insert(0, "data")
import build, workbench as wb
recipe = build.RECIPES["digits-mlp512"]
digits = build.digits(recipe.input_shape)
module = recipe.module()
module.load_state_dict(dict(wb.load("data/checkpoints/digits-mlp512-seed0.safetensors")))
data = [(digits.test_x, digits.test_y)]
evaluator = wb.evaluator(module, data, "cross_entropy")
"""


def shown(lab: Any) -> Any:
    cell = f"bench = wb.ui.Workbench({{'a': {PATHS[0]!r}}}, evaluator=evaluator)\nbench"
    lab.write("bench.ipynb", SETUP, cell)
    lab.open("bench.ipynb")
    lab.run_all()
    lab.page.locator(".wb-workbench").evaluate("element => element.scrollIntoView({ block: 'start' })")
    return lab.page.locator(".wb-workbench")


def test_one_selection_over_tabs_and_a_model_that_comes_and_goes(lab: Any) -> None:
    bench, page = shown(lab), lab.page
    page.wait_for_timeout(1500)
    lab.shot("workbench-browser")
    bench.get_by_role("button", name="spectra").click()
    explorer = bench.locator(".wb-explorer").filter(visible=True)
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status").filter(visible=True).first).to_contain_text("3 layers")
    page.wait_for_timeout(1500)
    lab.shot("workbench-spectra")
    bench.get_by_label("Add a model").fill(PATHS[1])
    bench.get_by_label("Add a model").press("Enter")
    page.wait_for_timeout(1500)
    bench.get_by_role("button", name="connectivity").click()
    page.wait_for_timeout(1500)
    lab.shot("workbench-connectivity")
    bench.get_by_role("button", name="signatures").click()
    page.wait_for_timeout(1500)
    lab.shot("workbench-signatures")

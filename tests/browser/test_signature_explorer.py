"""The signature explorer as a user meets it: what the page shows equals what the library computes."""

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, expect

import workbench as wb
from browser.pages import assert_soon_drawn, choose, press, rows, slider

pytestmark = pytest.mark.browser

DATA = Path(__file__).parents[2] / "data"
STEM = "data/checkpoints/digits-corruptions-"
NAMES = ("gauss_noise", "shot", "blur")
SETUP = f"""import sys
sys.path.insert(0, "data")
import workbench as wb
from architectures import SmallCNN
from splits import corrupted
digits = corrupted("gauss_noise")
evaluator = wb.evaluator(SmallCNN().eval(), [(digits.test_x, digits.test_y)], "cross_entropy", device="cpu")
def path(name, seed=0):
    return f"{STEM}{{name}}-seed{{seed}}.safetensors"
models = {{name: path(name) for name in {NAMES}}}
explorer = wb.ui.SignatureExplorer(
    path("ancestor"), models, clean=path("clean"), evaluator=evaluator,
    floor=path("clean", 1), detail=["lorenz"], scale=0,
)
explorer"""


def shown(lab: Any) -> Locator:
    """A notebook with the explorer on the shipped family."""
    lab.write("signatures_here.ipynb", SETUP)
    lab.open("signatures_here.ipynb")
    lab.run_all()
    explorer = lab.page.locator(".wb-explorer")
    expect(rows(explorer).first).to_be_visible()
    return explorer


def path(name: str, seed: int = 0) -> str:
    return str(DATA.parent / f"{STEM}{name}-seed{seed}.safetensors")


@cache
def own() -> SimpleNamespace:
    """The library's own evaluator, models and signatures."""
    sys.path.insert(0, str(DATA))
    try:
        from architectures import SmallCNN
        from splits import corrupted
    finally:
        sys.path.remove(str(DATA))
    digits = corrupted("gauss_noise")
    evaluator = wb.evaluator(SmallCNN().eval(), [(digits.test_x, digits.test_y)], "cross_entropy", device="cpu")
    common = {"ancestor": path("ancestor"), "clean": path("clean")}
    signatures = {name: wb.signature(**common, robust=path(name)) for name in NAMES}
    return SimpleNamespace(
        evaluator=evaluator, models={name: path(name) for name in NAMES}, signatures=signatures, clean=path("clean")
    )


def fill(explorer: Locator, label: str, text: str) -> None:
    field = explorer.get_by_role("textbox", name=label, exact=True)
    field.fill(text)
    field.press("Enter")


def numbers_of(explorer: Locator, what: str) -> tuple[float, float]:
    """Loss and accuracy in a line under the sliders."""
    text = explorer.locator(".wb-status:visible", has_text=re.compile(f"^{what}.*: loss")).text_content() or ""
    return tuple(float(one) for one in re.findall(r"(?:loss|accuracy) ([\d.e-]+)", text))  # type: ignore[return-value]


def as_numbers(found: dict[str, float]) -> Any:
    return pytest.approx((found["loss"], found["accuracy"]), rel=1e-4)


def test_changes_cosines_and_signatures_are_the_librarys(lab: Any) -> None:
    page, explorer, known = lab.page, shown(lab), own()
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="bit-identical")).to_be_visible(timeout=40_000)
    changes = wb.diff(path("ancestor"), known.models, detail=["lorenz"], floor=path("clean", 1))
    assert_soon_drawn(page, 0, wb.figure(changes, "norms"))
    assert_soon_drawn(page, 1, wb.figure(changes, "lorenz", layer="conv1"))
    expect(rows(explorer)).to_have_count(len(changes.frame("manifest")))
    lab.shot("signatures-1-changes")

    choose(explorer, "View", "cosines")
    press(explorer)
    cosines = wb.diff(path("ancestor"), known.models, detail=["lorenz", "spectra"])
    assert_soon_drawn(page, 0, wb.figure(cosines, "cosines"))
    layers = list(cosines.frame()["layer"])
    slider(explorer, "Layer").focus()
    page.keyboard.press("ArrowRight")
    assert_soon_drawn(page, 0, wb.figure(cosines, "cosines", layer=layers[0]))
    assert_soon_drawn(page, 1, wb.figure(cosines, "lorenz", layer=layers[0]))
    assert_soon_drawn(page, 2, wb.figure(cosines, "overlap"))  # a bias has no directions to ring
    lab.shot("signatures-2-cosines")

    choose(explorer, "View", "signatures")
    press(explorer)
    alike = wb.similarity(known.signatures)
    assert_soon_drawn(page, 0, wb.figure(alike, layer=layers[0]))
    expect(explorer.locator(".wb-about", has_text="Signature of")).to_be_visible()
    lab.shot("signatures-3-signatures")
    assert not lab.problems


def test_a_slider_moves_the_accuracy_and_files_are_written(lab: Any, fresh_kernel: Callable[[str, Path], str]) -> None:
    page, explorer, known = lab.page, shown(lab), own()
    choose(explorer, "View", "patch")
    press(explorer)
    expect(explorer.locator(".wb-status", has_text="taken off again, the same")).to_be_visible(timeout=40_000)
    clean = known.evaluator(wb.load(known.clean))
    assert numbers_of(explorer, "with the signatures") == numbers_of(explorer, "clean") == as_numbers(clean)
    slider(explorer, "gauss_noise").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(explorer.locator(".wb-status:visible", has_text="0.2 × gauss_noise")).to_be_visible()
    patched = known.signatures["gauss_noise"].apply(known.clean, scale=0.2)
    assert_soon_drawn(page, 0, wb.figure(wb.diff(known.clean, {"patched": patched}), "norms"))
    assert numbers_of(explorer, "with the signatures") == as_numbers(known.evaluator(patched))
    assert numbers_of(explorer, "taken off again") == as_numbers(clean)
    lab.shot("signatures-4-patch")

    code = explorer.locator(".wb-code textarea")
    explorer.get_by_text("Code", exact=True).first.click()
    expect(code).to_have_value(re.compile(r"gauss_noise_signature\.apply\(clean, scale=0\.2\)"))
    head, body = SETUP.rpartition("\nexplorer = ")[0], code.input_value()
    printed = "print(numbers['accuracy'], off_numbers['accuracy'])"
    found = fresh_kernel("\n".join([head, body, printed]), lab.folder).split()
    assert [float(one) for one in found] == [known.evaluator(patched)["accuracy"], clean["accuracy"]]

    choose(explorer, "Of", "gauss_noise")
    choose(explorer, "Elements", "4 bits")
    fill(explorer, "Save as", "nowhere/four.safetensors")
    press(explorer, "Save")
    expect(explorer.get_by_role("alert")).to_contain_text("nowhere")
    fill(explorer, "Save as", "four.safetensors")
    press(explorer, "Save")
    expect(explorer.locator(".wb-status", has_text="saved four.safetensors")).to_be_visible()
    expect(explorer.get_by_role("alert")).to_have_count(0)
    stored = wb.Signature.load(lab.folder / "four.safetensors")
    known.signatures["gauss_noise"].save(lab.folder / "expected.safetensors", bits=4)
    expected = wb.Signature.load(lab.folder / "expected.safetensors")
    assert all(torch.equal(stored[name], expected[name]) for name in expected)
    assert not lab.problems


def test_a_merge_has_its_methods_form_and_an_error_passes(lab: Any) -> None:
    page, explorer, known = lab.page, shown(lab), own()
    choose(explorer, "View", "merge")
    choose(explorer, "Method", "slerp")
    press(explorer)
    expect(explorer.get_by_role("alert")).to_contain_text("slerp takes 1 beside the base")
    choose(explorer, "Method", "task_arithmetic")
    fill(explorer, "Scale", "0.5, 0.25, 0.1")
    press(explorer)
    expect(explorer.locator(".wb-status:visible", has_text=re.compile("^merged: loss"))).to_be_visible(timeout=40_000)
    expect(explorer.get_by_role("alert")).to_have_count(0)
    merged = wb.merge(path("ancestor"), list(known.models.values()), method="task_arithmetic", scale=[0.5, 0.25, 0.1])
    assert_soon_drawn(page, 0, wb.figure(wb.diff(path("ancestor"), {"merged": merged}), "norms"))
    assert numbers_of(explorer, "merged") == as_numbers(known.evaluator(merged))
    fill(explorer, "Save as", "merged.safetensors")
    press(explorer, "Save")
    expect(explorer.locator(".wb-status", has_text="saved merged.safetensors")).to_be_visible()
    found = wb.load(lab.folder / "merged.safetensors")
    assert all(torch.equal(found[name], merged[name]) for name in merged)
    lab.shot("signatures-5-merge")
    fill(explorer, "Models", "blur=nowhere.safetensors")
    expect(explorer.get_by_role("alert")).to_contain_text("nowhere.safetensors")
    fill(explorer, "Models", f"blur={STEM}blur-seed0.safetensors")
    expect(explorer.get_by_role("alert")).to_have_count(0)
    press(explorer)
    expect(explorer.locator(".wb-status:visible", has_text=re.compile("^merged: loss"))).to_be_visible()
    assert not lab.problems

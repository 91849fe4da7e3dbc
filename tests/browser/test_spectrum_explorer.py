"""The notebook and its explorer as a user meets them: what the page shows equals what the library computes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from playwright.sync_api import expect
from pypdf import PdfReader

import workbench as wb
from browser.pages import assert_soon_drawn, drawn, rows, slider

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def spectrum(minilm: Path) -> wb.Spectrum:
    return wb.spectrum(minilm)


@pytest.fixture
def tour(lab: Any) -> Any:
    """The start notebook, all cells run, its explorer in view."""
    lab.open("notebooks/start.ipynb")
    lab.run_all()
    lab.page.locator(".wb-explorer").evaluate("element => element.scrollIntoView({ block: 'start' })")
    return lab


@pytest.fixture
def shown(lab: Any, minilm: Path) -> Any:
    """The explorer of the start notebook without the rest of it, run as there."""
    cell = f"import workbench as wb\nexplorer = wb.ui.SpectrumExplorer({str(minilm)!r})\nexplorer"
    lab.write("notebooks/explore.ipynb", cell, "explorer.run()")
    lab.open("notebooks/explore.ipynb")
    lab.run_all()
    expect(lab.page.locator(".wb-explorer .wb-status")).to_contain_text("40 layers (")
    return lab


def test_tour_sort_click_and_read(tour: Any, spectrum: wb.Spectrum) -> None:
    page, explorer = tour.page, tour.page.locator(".wb-explorer")
    frame = spectrum.frame()
    expect(rows(explorer)).to_have_count(40)
    tour.shot("1-after-run-all")

    explorer.locator(".wb-table thead th", has_text="alpha").first.click()
    by_alpha = frame.sort_values("alpha")["layer"]
    expect(rows(explorer).first.locator("td").first).to_have_text(by_alpha.iloc[0])
    explorer.locator(".wb-table thead th", has_text="alpha").first.click()
    expect(rows(explorer).first.locator("td").first).to_have_text(by_alpha.iloc[-1])

    steepest = by_alpha.iloc[-1]
    rows(explorer).first.click()
    expect(explorer.locator(".gtitle", has_text=steepest)).to_be_visible()
    assert_soon_drawn(page, 0, wb.figure(spectrum, "alpha", layer=steepest))
    assert_soon_drawn(page, 1, wb.figure(spectrum, "esd", layer=steepest))
    assert f"α = {spectrum.row(steepest)['alpha']:.3f}" in drawn(page, 1)["subtitle"]
    tour.shot("2-sorted-and-clicked")

    # the other way round: a click on a point of α over depth selects its row
    points = explorer.locator(".js-plotly-plot").first.locator("g.trace.scatter", has=page.locator("path.point"))
    marks = wb.figure(spectrum, "alpha").panels[0].marks
    chosen = next(mark for mark in marks if getattr(mark, "label", "") == "typical")
    points.first.locator("path.point").nth(6).click(force=True)
    expect(explorer.locator(".gtitle", has_text=chosen.ids[6])).to_be_visible()
    expect(explorer.locator("tr.selected td").first).to_have_text(chosen.ids[6])

    # and the keyboard: the drop-down walks through the layers
    explorer.get_by_label("Look at").select_option("pooler.dense")
    expect(explorer.locator(".gtitle", has_text="pooler.dense")).to_be_visible()
    assert not tour.problems


def test_run_cancel_and_run_again(shown: Any, spectrum: wb.Spectrum) -> None:
    explorer = shown.page.locator(".wb-explorer")
    status, run = explorer.locator(".wb-status"), explorer.get_by_role("button", name="Run")
    cancel, layers = explorer.get_by_role("button", name="Cancel"), explorer.get_by_role("textbox", name="Layers")
    explorer.get_by_label("Analyse").select_option("windows (FARMS)")
    slider(explorer, "Window").focus()
    shown.page.keyboard.press("Home")  # the smallest windows: each of the layers takes a second
    layers.fill("encoder.*")
    layers.press("Enter")
    run.click()
    cancel.click()  # waits until it can be clicked: the run is under way
    expect(status).to_contain_text("CANCELLED after")
    done = int(status.inner_text().split("CANCELLED after ")[1].split()[0])
    assert done < 36
    expect(rows(explorer)).to_have_count(done or 40)  # a run stopped before its first layer leaves what was shown
    shown.shot("3-cancelled")
    explorer.get_by_label("Analyse").select_option("full matrices")
    layers.fill("")
    layers.press("Enter")
    run.click()
    expect(status).to_contain_text("40 layers (")
    expect(status).not_to_contain_text("CANCELLED")
    expect(rows(explorer)).to_have_count(40)
    assert not shown.problems


def test_an_error_is_shown_and_recovered_from(shown: Any) -> None:
    explorer = shown.page.locator(".wb-explorer")
    layers = explorer.get_by_role("textbox", name="Layers")
    layers.fill("encodr.*")
    layers.press("Enter")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.get_by_role("alert")).to_contain_text("Did you mean 'encoder.*'")
    shown.shot("4-error")
    alert = explorer.get_by_role("alert")
    assert alert.evaluate("element => element.scrollWidth <= element.clientWidth"), "the message is cut off"
    inputs = explorer.get_by_role("button", name="Run").locator("xpath=../..").bounding_box()
    box = alert.bounding_box()
    assert box and inputs and box["x"] + box["width"] <= inputs["x"] + inputs["width"] + 1
    layers.fill("encoder.layer.0.*")
    layers.press("Enter")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("6 layers")
    expect(explorer.get_by_role("alert")).to_have_count(0)
    assert not shown.problems


def test_code_and_export(shown: Any, fresh_kernel: Callable[[str, Path], str], minilm: Path) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    explorer.get_by_label("Tail begins").select_option("at the median")
    explorer.get_by_role("textbox", name="Layers").fill("encoder.layer.1.*")
    explorer.get_by_role("textbox", name="Layers").press("Enter")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("6 layers (6 heavier than noise)")

    explorer.get_by_role("button", name="Code", exact=True).or_(explorer.get_by_text("Code", exact=True)).first.click()
    code = explorer.locator(".wb-code textarea")
    expect(code).to_be_visible()
    shown.shot("5-code")
    printed = fresh_kernel(
        code.input_value() + "\nprint(frame.to_json(double_precision=15))", shown.folder / "notebooks"
    )
    expected = wb.spectrum(minilm, xmin="median", layers="encoder.layer.1.*").frame()
    again = pd.read_json(io.StringIO(printed), dtype=False)
    pd.testing.assert_frame_equal(again, expected, check_dtype=False, rtol=1e-12)

    explorer.get_by_text("Export", exact=True).first.click()
    explorer.get_by_label("Figure").select_option("eigenvalue density")
    explorer.get_by_label("File name").fill("esd")
    explorer.get_by_label("File name").press("Tab")
    explorer.locator("button", has_text="Export").click()
    expect(explorer.get_by_text("saved esd.pdf")).to_be_visible()
    shown.shot("6-export")
    selected = explorer.locator("tr.selected td").first.inner_text()
    reader = PdfReader(shown.folder / "notebooks" / "esd.pdf")
    assert reader.metadata.title == selected and "xmin='median'" in reader.metadata.subject
    assert float(reader.pages[0].mediabox.width) == pytest.approx(3.25 * 72, abs=0.5)
    with page.expect_download() as download:
        explorer.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes() == (shown.folder / "notebooks" / "esd.pdf").read_bytes()
    assert not shown.problems


def test_dark_theme_follows_the_page(shown: Any) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    title = explorer.locator(".js-plotly-plot .gtitle").first
    ink = "element => getComputedStyle(element).fill"
    light = title.evaluate(ink)
    page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    page.wait_for_function(f"before => ({ink})(document.querySelector('.wb-explorer .gtitle')) !== before", arg=light)
    page.wait_for_timeout(500)
    shown.shot("7-dark")
    channels = [
        int(part) for part in title.evaluate(ink).removeprefix("rgba(").removeprefix("rgb(").rstrip(")").split(",")[:3]
    ]
    assert min(channels) > 150, channels
    assert not shown.problems


def test_live_refit_noise_and_windows(shown: Any, minilm: Path) -> None:
    page, explorer = shown.page, shown.page.locator(".wb-explorer")
    layers = explorer.get_by_role("textbox", name="Layers")
    layers.fill("encoder.layer.0.*")
    layers.press("Enter")
    explorer.locator("label", has_text="noise and shuffled elements too").locator("input").check()
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("6 layers (")
    expected = wb.spectrum(minilm, layers="encoder.layer.0.*", detail=["noise", "randomised"])
    explorer.get_by_label("Look at").select_option("encoder.layer.0.output.dense")
    expect(explorer.locator(".gtitle", has_text="encoder.layer.0.output.dense")).to_be_visible()
    assert_soon_drawn(page, 1, wb.figure(expected, "esd", layer="encoder.layer.0.output.dense"))

    explorer.locator("label", has_text="fit the tail anew").locator("input").check()
    slider(explorer, "λ").focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    expect(explorer.locator(".g-gtitle")).to_have_count(2)
    expect(explorer.locator(".js-plotly-plot").nth(1)).to_contain_text("refit at λ")
    page.wait_for_timeout(1000)
    shown.shot("8-refit")
    subtitle = drawn(page, 1)["subtitle"]
    xmin = float(subtitle.split("refit at λ = ")[1])
    values = expected.eigenvalues["encoder.layer.0.output.dense"]
    above = values[values >= xmin * (1 - 1e-4)]
    assert abs(int(subtitle.split("n = ")[1].split()[0]) - len(above)) <= 1

    explorer.get_by_label("Analyse").select_option("windows (FARMS)")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("windows of 100 rows at aspect ratio 1 (cover)")
    windows = wb.farms(minilm, layers="encoder.layer.0.*")
    assert_soon_drawn(page, 0, wb.figure(windows, "alpha", layer="encoder.layer.0.output.dense"))
    shown.shot("9-farms")
    assert not shown.problems


def test_two_checkpoints_and_a_trajectory(lab: Any) -> None:
    checkpoints = [f"data/checkpoints/digits-mlp512-seed{seed}.safetensors" for seed in (0, 1)]
    cell = f"import workbench as wb\nwb.ui.SpectrumExplorer({checkpoints[0]!r})"
    lab.write("compare.ipynb", cell)
    lab.open("compare.ipynb")
    lab.run_all()
    page, explorer = lab.page, lab.page.locator(".wb-explorer")
    others = explorer.get_by_role("textbox", name="Compare with")
    others.fill(checkpoints[1])
    others.press("Enter")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status")).to_contain_text("Comparison of")
    expect(rows(explorer)).to_have_count(3)
    expect(explorer.locator(".gtitle", has_text="over 2 models, 4")).to_be_visible()  # chosen by itself
    explorer.get_by_label("Look at").select_option("2")
    expect(explorer.locator(".gtitle", has_text="over 2 models, 2")).to_be_visible()
    expected = wb.comparison([lab.folder / one for one in checkpoints])
    for number, kind in enumerate(("change", "trajectory")):
        assert_soon_drawn(page, number, wb.figure(expected, kind, layer="2"))
    lab.shot("10-comparison")
    others.fill(f"{checkpoints[1]}, {checkpoints[0]}")
    others.press("Enter")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".gtitle", has_text="over 3 models").first).to_be_visible()
    lab.shot("11-trajectory")
    assert not lab.problems


RUN = ("uses", "farms")  # the cells of the others take a minute each, and nbval runs them all (decision 0011)


@pytest.mark.parametrize("name", ["farms", "spectra", "uses", "connectivity", "degeneracy"])
def test_a_notebook_of_figures_shows_them(lab: Any, name: str) -> None:
    stored = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    outputs = [output for cell in stored.cells for output in cell.get("outputs", [])]
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert figures
    lab.open(f"notebooks/{name}.ipynb")
    if name in RUN:
        lab.run_all(240)
    pictures = lab.page.locator(".jp-OutputArea-output img")
    expect(pictures).to_have_count(figures)
    widths = pictures.evaluate_all("images => images.map(image => image.complete && image.naturalWidth)")
    assert all(width and width > 300 for width in widths)
    lab.shot(f"notebook-{name}")
    assert not lab.problems

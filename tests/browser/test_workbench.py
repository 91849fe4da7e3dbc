"""The workbench as a user meets it: models, tabs, one selection, one queue, history, session and code."""

import io
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Locator, expect

import workbench as wb
from browser.jupyter import VIEWPORT
from browser.pages import assert_soon_drawn, contrasts, own, rows

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
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
SHOW = "bench = wb.ui.Workbench({{'a': {!r}}}, evaluator=evaluator{})\nbench"
# what no callback of the kernel may raise: it is logged, and nobody sees it
WATCH = """
import logging, sys, threading
uncaught = []
class Kept(logging.Handler):
    def emit(self, record):
        ours = "Unable to signal" not in record.msg  # ipykernel's own, where a callback runs beside the main thread
        if ours and (record.exc_info or record.levelno >= logging.ERROR):
            uncaught.append(self.format(record))
logging.getLogger().addHandler(Kept())
get_ipython().kernel.log.addHandler(Kept())
threading.excepthook = lambda raised: uncaught.append(repr(raised))
"""
READABLE = 4.5  # WCAG 2.2, 1.4.3: the least contrast of text with what is under it
SECONDS = int(os.environ.get("WORKBENCH_CLICKS", "60"))  # of clicks
CLICKABLE = "button, select, input[type=checkbox], [role=treeitem], .noUi-handle, .dt-layout-table tbody tr"


def shown(lab: Any, more: str = "", *, before: str = "") -> Locator:
    """A notebook with the workbench on one shipped checkpoint."""
    lab.write("bench.ipynb", before + SETUP, SHOW.format(PATHS[0], more))
    lab.open("bench.ipynb")
    lab.run_all()
    bench: Locator = lab.page.locator(".wb-workbench")
    expect(bench.get_by_label("Models", exact=True)).to_be_visible()
    bench.evaluate("element => element.scrollIntoView({ block: 'start' })")
    return bench


def tab(bench: Locator, name: str) -> Locator:
    """Opens a tab, and gives its explorer."""
    bench.get_by_role("button", name=name, exact=True).click()
    return seen(bench, name)


def seen(bench: Locator, name: str) -> Locator:
    """The explorer of a tab that is open; waits for it, as the one before is there until the kernel has heard."""
    explorer = bench.locator(f".wb-tab-{name}")
    expect(explorer).to_be_visible()
    return explorer


def spectra_run(bench: Locator) -> wb.Spectrum:
    """Runs the tab of spectra, and gives what it shows as the library computes it."""
    spectra = tab(bench, "spectra")
    spectra.get_by_role("button", name="Run").click()
    expect(status(spectra)).to_contain_text("3 layers (2 typical, 1 no tail)")
    return wb.spectrum(str(ROOT / PATHS[0]))


def status(explorer: Locator) -> Locator:
    return explorer.locator(".wb-status").filter(visible=True).first


def add(bench: Locator, path: str) -> None:
    field = bench.get_by_label("Add a model")
    field.fill(path)
    field.press("Enter")


def tabbed_to(page: Any, name: str) -> None:
    """Presses Tab until what has that text has the focus."""
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.textContent.trim()"))
        if reached[-1] == name:
            return
    raise AssertionError(f"Tab reaches {reached} and not {name}")


def test_one_selection_over_tabs_history_and_code(lab: Any, fresh_kernel: Any) -> None:
    bench, page = shown(lab), lab.page
    browser = seen(bench, "browser")
    browser.locator("[data-path='0'] .wb-tree-fold").click()
    browser.locator("[data-path='0.weight']").click()
    contents = wb.contents(str(ROOT / PATHS[0]), layers="0.weight")
    assert_soon_drawn(page, 0, wb.figure(contents, "histogram", layer="0"))
    page.wait_for_timeout(500)
    lab.shot("workbench-1-browser")
    spectrum, spectra = spectra_run(bench), seen(bench, "spectra")
    expect(spectra.get_by_label("Look at")).to_have_value("0")  # as in the tree
    rows(spectra).nth(1).click()
    assert_soon_drawn(page, 1, wb.figure(spectrum, "esd", layer="2"))
    lab.shot("workbench-2-spectra")
    add(bench, PATHS[1])
    expect(bench.get_by_label("Models", exact=True).locator("option")).to_have_text(["a", "digits-mlp512-seed1"])
    signatures = tab(bench, "signatures")
    expect(signatures.get_by_label("Models")).to_have_value("digits-mlp512-seed1")
    signatures.get_by_role("button", name="Run").click()
    expect(status(signatures)).to_contain_text("6 layers (6 changed)")
    changes = wb.diff(str(ROOT / PATHS[0]), {"digits-mlp512-seed1": str(ROOT / PATHS[1])})
    expect(signatures.locator(".widget-hslider", has_text="Layer").locator(".widget-readout")).to_have_text("2")
    assert_soon_drawn(page, 0, wb.figure(changes, "norms", layer="2"))
    page.wait_for_timeout(500)
    lab.shot("workbench-3-signatures")
    connectivity = tab(bench, "connectivity")
    expect(connectivity.get_by_label("Checkpoint B")).to_have_value("digits-mlp512-seed1")
    connectivity.get_by_role("combobox", name="View").select_option("matching")
    expect(connectivity.get_by_label("Restarts")).to_be_visible()  # the button is where it stays
    connectivity.get_by_role("button", name="Run").click()
    expect(status(connectivity)).to_contain_text("the outputs were seen unchanged")
    known = own("mlp512")
    matching = wb.match(known.groups, *known.paths)
    assert_soon_drawn(page, 1, wb.figure(matching, "reduction", layer="2"))
    lab.shot("workbench-4-connectivity")
    degeneracy = tab(bench, "degeneracy")
    degeneracy.get_by_role("button", name="Run").click()
    expect(status(degeneracy)).to_contain_text("r_G 360 of 512")
    expect(degeneracy.locator(".gtitle").filter(visible=True).first).to_be_visible()
    lab.shot("workbench-5-degeneracy")

    history = bench.get_by_label("Results", exact=True)
    history.select_option(index=3)
    bench.get_by_role("button", name="Show", exact=False).first.click()
    assert_soon_drawn(page, 1, wb.figure(spectrum, "esd", layer="2"))

    bench.get_by_text("Code of the session").click()
    code = bench.locator(".wb-code textarea").filter(visible=True).last
    expect(code).to_have_value(re.compile("# %% degeneracy"))
    titles = [part.partition(":")[0] for part in code.input_value().split("# %% ") if "frame = " in part]
    assert titles == ["browser", "spectra", "signatures", "connectivity", "degeneracy"]
    script = SETUP + code.input_value().replace(
        "frame = spectrum.frame()", "frame = spectrum.frame()\nprint(frame.to_json(double_precision=15))"
    )
    again = pd.read_json(io.StringIO(fresh_kernel(script, lab.folder)), dtype=False)
    pd.testing.assert_frame_equal(again, spectrum.frame().astype({"layer": str}), check_dtype=False, rtol=1e-12)
    assert not lab.problems


def test_a_tab_that_is_left_and_opened_again_draws_what_comes(lab: Any) -> None:
    bench, page = shown(lab), lab.page
    spectrum = spectra_run(bench)
    for layer, row in (("4", 2), ("0", 0), ("4", 2)):  # the first has no fit: traces go and come
        bench.get_by_role("button", name="signatures", exact=True).click()
        bench.get_by_role("button", name="spectra", exact=True).click()  # at once: signatures were hardly there
        rows(seen(bench, "spectra")).nth(row).click()
        assert_soon_drawn(page, 0, wb.figure(spectrum, layer=layer))
        assert_soon_drawn(page, 1, wb.figure(spectrum, "esd", layer=layer))
    add(bench, PATHS[1])
    signatures = tab(bench, "signatures")
    signatures.get_by_role("button", name="Run").click()
    expect(status(signatures)).to_contain_text("6 layers (6 changed)")
    changes = wb.diff(str(ROOT / PATHS[0]), {"digits-mlp512-seed1": str(ROOT / PATHS[1])})
    assert_soon_drawn(page, 0, wb.figure(changes, "norms", layer="4"))
    loaded = page.evaluate("() => [...globalThis.workbenchCode.keys()]")
    assert sorted(name.split()[0] for name in loaded) == ["itables", "plotly"], "each was loaded once"
    expect(page.locator(".modebar-btn[data-title^='Download']").first).to_be_attached()
    expect(page.locator(".modebar-btn[data-title^='Share']")).to_have_count(0)
    expect(rows(signatures).nth(5)).to_be_visible()
    page.wait_for_function("() => $.fn.dataTableSettings.length === document.querySelectorAll('.dataTable').length")
    assert not lab.problems


def test_a_page_that_does_not_know_the_kernels_plotly_says_so(lab: Any) -> None:
    lost = "import traitlets\nfrom workbench_widgets.plotly_figure import PlotlyFigure\nclass Lost(PlotlyFigure):\n"
    lost += "    _library = traitlets.Unicode('IPY_MODEL_gone').tag(sync=True)\nLost()"
    lab.write("gone.ipynb", lost, "PlotlyFigure()")
    lab.open("gone.ipynb")
    lab.run_all()
    outputs = lab.page.locator(".jp-OutputArea-output")
    expect(outputs.filter(has_text="is not on this page")).to_have_count(1)
    expect(outputs.last.locator(".main-svg").first).to_be_attached()  # another one is drawn


SAVED = """async () => {
  const turn = () => window.jupyterapp.commands.execute('@jupyter-widgets/jupyterlab-manager:saveWidgetState');
  await turn();  // on
  await window.jupyterapp.shell.currentWidget.context.save();
  await turn();
}"""
WIDTHS = """() => [...document.querySelectorAll('.wb-workbench .js-plotly-plot')].filter(one => one.offsetParent)
  .map(one => one.getBoundingClientRect().width)"""


def test_a_narrow_page_has_its_plots_below_and_what_is_saved_is_what_is_shown(lab: Any) -> None:
    bench, page = shown(lab), lab.page
    spectrum = spectra_run(bench)
    for width in (1000, 700):
        page.set_viewport_size({"width": width, "height": 1250})
        page.wait_for_timeout(1000)
        assert min(page.evaluate(WIDTHS)) > 380
        assert_soon_drawn(page, 1, wb.figure(spectrum, "esd", layer="2"))
    lab.shot("workbench-narrow")
    page.set_viewport_size(VIEWPORT)
    bench.get_by_role("button", name="signatures", exact=True).click()  # its table has no floats yet
    tab(bench, "spectra")
    page.evaluate(SAVED)
    states = json.loads((lab.folder / "bench.ipynb").read_text())["metadata"]["widgets"].popitem()[1]["state"]
    plots = [one["state"] for one in states.values() if one["state"].get("_widget_data")]
    saved = [one["_widget_layout"]["title"]["text"] for one in plots]
    assert sorted(saved) == ["2", "Power-law exponent α, 3 layers"]
    assert not lab.problems


def test_a_page_opened_anew_while_the_kernel_is_busy_shows_the_workbench(lab: Any) -> None:
    go, page = lab.folder / "go", lab.page
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists():\n    time.sleep(0.05)"
    lab.write("busy.ipynb", SETUP + SHOW.format(PATHS[0], ", tab='spectra'"), wait)
    lab.open("busy.ipynb")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    spectra = page.locator(".wb-tab-spectra")
    expect(spectra.get_by_role("button", name="Run")).to_be_visible()
    page.wait_for_timeout(2500)  # the page has told that it rests, which the kernel does not hear yet
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget")
    lab.open("busy.ipynb", busy=True)
    # ipywidgets waits 4 seconds for the kernel; if that comes free in between (1.5 s), a page of their plain boxes
    # finds no model either, in 11 of 96 openings
    page.wait_for_timeout(6000)
    kernel_status = page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status")
    assert kernel_status in ("busy", "unknown"), "it does not answer yet"
    go.touch()
    expect(spectra.get_by_role("button", name="Run")).to_be_visible()
    spectra.get_by_role("button", name="Run").click()
    expect(status(spectra)).to_contain_text("3 layers (2 typical, 1 no tail)")
    assert_soon_drawn(page, 0, wb.figure(wb.spectrum(str(ROOT / PATHS[0])), layer="2"))
    spectra.get_by_text("Export", exact=True).first.click()
    expect(spectra.get_by_label("File name")).to_be_visible()
    assert not lab.problems


def test_by_keyboard_alone(lab: Any) -> None:
    bench, page = shown(lab), lab.page
    bench.get_by_label("Add a model").focus()
    page.keyboard.type(PATHS[1])
    page.keyboard.press("Enter")
    expect(bench.get_by_label("Models", exact=True).locator("option")).to_have_count(2)
    tabbed_to(page, "spectra")
    page.keyboard.press("Enter")
    spectra = seen(bench, "spectra")
    expect(spectra.get_by_label("Analyse")).to_be_visible()
    tabbed_to(page, "Run")
    page.keyboard.press("Space")
    expect(status(spectra)).to_contain_text("3 layers (2 typical, 1 no tail)")
    assert_soon_drawn(page, 0, wb.figure(wb.spectrum(str(ROOT / PATHS[0])), layer="2"))
    lab.shot("workbench-keyboard")
    for title, key, field in (("Code", "Space", "Code"), ("Export", "Enter", "File name")):
        tabbed_to(page, title)
        fold = spectra.get_by_role("button", expanded=False).filter(has_text=title)
        expect(fold).to_be_visible()
        page.keyboard.press(key)
        expect(fold).to_have_count(0)
        expect(spectra.get_by_label(field, exact=True)).to_be_visible()
    assert not lab.problems


def test_dark_theme_cancel_an_error_and_its_recovery(lab: Any) -> None:
    bench, page = shown(lab, ", theme='dark'"), lab.page
    paper = bench.evaluate("element => getComputedStyle(element).backgroundColor")
    assert paper == "rgb(22, 22, 22)"
    add(bench, "nowhere.safetensors")
    expect(bench.get_by_role("alert").filter(visible=True).first).to_contain_text("nowhere.safetensors")
    lab.shot("workbench-6-error-dark")
    add(bench, PATHS[1])
    expect(bench.get_by_role("alert").filter(visible=True)).to_have_count(0)
    connectivity = tab(bench, "connectivity")
    connectivity.get_by_role("combobox", name="View").select_option("matching")
    restarts = connectivity.get_by_label("Restarts")
    restarts.fill("5000")
    restarts.press("Enter")
    connectivity.get_by_role("button", name="Run").click()
    expect(bench.get_by_role("button", name="Cancel all")).to_be_enabled()
    spectra = tab(bench, "spectra")
    spectra.get_by_role("button", name="Run").click()
    expect(status(spectra)).to_contain_text("waiting for its turn")
    lab.shot("workbench-7-queue-dark")
    bench.get_by_role("button", name="Cancel all").click()
    expect(bench.get_by_role("button", name="Cancel all")).to_be_disabled()
    expect(status(spectra)).to_contain_text("cancelled")
    spectra.get_by_role("button", name="Run").click()
    expect(status(spectra)).to_contain_text("3 layers (2 typical, 1 no tail)")
    page.wait_for_timeout(300)
    lab.shot("workbench-8-dark")
    assert not lab.problems


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_every_text_can_be_read_whatever_the_page_wears(lab: Any, theme: str) -> None:
    bench, page = shown(lab, f", theme={theme!r}"), lab.page
    add(bench, "nowhere.safetensors")
    expect(bench.get_by_role("alert").filter(visible=True).first).to_contain_text("nowhere.safetensors")
    spectra_run(bench)
    for title in ("Code", "Export"):
        seen(bench, "spectra").get_by_role("button", expanded=False).filter(has_text=title).first.click()
    expect(seen(bench, "spectra").locator("tbody tr.selected")).to_be_visible()
    hard = []
    for name in ("spectra", "browser", "signatures", "connectivity", "degeneracy", "atlas"):
        tab(bench, name)
        for wears in ("JupyterLab Light", "JupyterLab Dark"):
            page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", wears)
            page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=wears)
            page.wait_for_timeout(700)  # colours fade over
            read = contrasts(bench)
            assert len(read) > 40, "it has seen the texts"
            if name == "spectra":
                lab.shot(f"contrast-{theme}-in-{wears.split()[1].lower()}")
            hard += [(wears, name, round(ratio, 1), text) for ratio, text in read if ratio < READABLE]
    assert not hard, f"theme {theme}:\n" + "\n".join(map(str, hard))
    assert not lab.problems


def test_the_kernel_restarts_and_the_session_comes_back(lab: Any) -> None:
    bench, page = shown(lab), lab.page
    add(bench, PATHS[1])
    spectra = tab(bench, "spectra")
    spectra.get_by_label("Layers").fill("2")
    spectra.get_by_label("Layers").press("Enter")
    spectra.get_by_role("button", name="Run").click()
    expect(status(spectra)).to_contain_text("1 layer (1 typical)")
    bench.get_by_role("button", name="Save", exact=False).first.click()
    expect(bench.locator(".wb-status", has_text="saved session.json")).to_be_visible()
    session = lab.folder / "session.json"
    assert session.stat().st_size < 20_000

    page.evaluate("""() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()""")
    lab.write("again.ipynb", SETUP, "bench = wb.ui.Workbench.restored('session.json')\nbench")
    lab.open("again.ipynb")
    lab.run_all()
    again = page.locator(".wb-workbench").filter(visible=True)
    spectra = seen(again, "spectra")
    expect(spectra.get_by_label("Layers")).to_have_value("2")
    expect(again.get_by_label("Models", exact=True).locator("option")).to_have_text(["a", "digits-mlp512-seed1"])
    again.get_by_role("button", name="Run shown").click()
    expect(status(spectra)).to_contain_text("1 layer (1 typical)")
    expected = wb.spectrum(str(ROOT / PATHS[0]), layers=["2"])
    assert_soon_drawn(page, 1, wb.figure(expected, "esd", layer="2"))
    lab.shot("workbench-9-restored")
    assert not lab.problems


def test_a_minute_of_random_clicks_leaves_no_error_that_nobody_sees(lab: Any) -> None:
    bench, page = shown(lab, before=WATCH), lab.page
    add(bench, PATHS[1])
    draw, clicks, deadline = random.Random(0), 0, page.evaluate("() => Date.now()") + 1000 * SECONDS
    while page.evaluate("() => Date.now()") < deadline:
        choices = bench.locator(CLICKABLE).filter(visible=True)
        one = choices.nth(draw.randrange(max(1, choices.count())))
        try:
            kind = one.evaluate("element => element.tagName", timeout=1000)
            if kind == "SELECT":
                options = one.locator("option")
                one.select_option(index=draw.randrange(max(1, options.count())), timeout=1000)
            else:
                one.click(timeout=1000)
                if draw.random() < 0.3:
                    page.keyboard.press(draw.choice(["ArrowLeft", "ArrowRight", "Home", "End", "Enter"]))
            clicks += 1
        except PlaywrightError:  # it has gone or is disabled meanwhile
            continue
    assert clicks > 20
    lab.write("check.ipynb", "1")
    found = page.evaluate(
        """async () => {
          const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          let text = '';
          const future = kernel.requestExecute({ code: "bench.cancel(); bench.wait(60); print(uncaught)" });
          future.onIOPub = message => { text += message.content.text || message.content.evalue || ''; };
          await future.done;
          return text;
        }"""
    )
    assert found.strip() == "[]", found[:3000]
    assert not lab.problems

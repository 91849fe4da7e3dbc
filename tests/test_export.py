"""A page of a notebook holds every figure and asks for nothing."""

import base64
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import workbench as wb
from pages_of_notebooks import Loads, cell, full, plot, plotly_html, plotly_json, png, result, scripts, written

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_every_kind_of_output_is_inside(tmp_path: Path) -> None:
    html = wb.export(full(tmp_path)).read_text()
    page = Loads(html)
    assert page.outside == []
    assert sum("plotly.js v" in script[:200] for script in scripts(html)) == 1, "its library once for four figures"
    assert sum("Plotly.newPlot(" in script[:2000] for script in scripts(html)) == 4
    pictures = [own["src"] for tag, own in page.tags if tag == "img"]
    assert len(pictures) == 4 and {f"data:image/png;base64,{png(value)}" for value in (7, 30, 128)} < set(pictures)
    named = [own["alt"] for tag, own in page.tags if tag == "img"]
    assert named == ["beside", "FigureSpec esd: a picture", "<Figure>", "<Figure>"]
    assert "<td>0.25</td>" in html
    assert [tag for tag, _ in page.tags].count("math") == 3 and "\\alpha" not in html
    assert html.count("A widget stood here.") == 2 and "DegeneracyExplorer: 3 layers" in html


def test_numbers_of_a_saved_widget_are_its_own(tmp_path: Path) -> None:
    html = wb.export(full(tmp_path)).read_text()
    (call,) = [script for script in scripts(html) if '"saved"' in script[:4000]]
    figure = json.loads(call.partition(", ")[2].rpartition(")")[0])
    y = figure["data"][0]["y"]
    assert (y["dtype"], y["shape"]) == ("f8", "2")
    assert np.frombuffer(base64.b64decode(y["bdata"])).tolist() == [1.0, 5.0]


WIDGETS = """
import numpy as np
import ipywidgets as ipw
from plotly.graph_objects import FigureWidget
figure = FigureWidget()
figure.add_scatter(y=np.array([1.0, 6.0]))
ipw.VBox([ipw.Label("above"), FigureWidget({"data": [{"type": "scatter", "y": np.array([1.0, 7.0])}]})])
"""


def test_state_that_nbclient_saved_is_drawn(tmp_path: Path) -> None:
    notebook = written(tmp_path / "n.ipynb", cell(source=WIDGETS, count=None), cell(source="figure", count=None))
    run = nbformat.read(notebook, 4)
    NotebookClient(run, timeout=120, kernel_name="python3").execute()
    assert "widgets" in run.metadata
    nbformat.write(run, notebook)
    calls = [script for script in scripts(wb.export(notebook).read_text()) if "Plotly.newPlot(" in script[:100]]
    drawn = [json.loads(call.partition(", ")[2].rpartition(")")[0])["data"][0]["y"] for call in calls]
    assert [np.frombuffer(base64.b64decode(y["bdata"]), y["dtype"]).tolist() for y in drawn] == [[1.0, 7.0], [1.0, 6.0]]


def test_the_library_comes_only_with_a_figure(tmp_path: Path) -> None:
    page = wb.export(written(tmp_path / "small.ipynb", cell(result({"text/html": "<b>1</b>"}))))
    assert page == tmp_path / "small.html" and page.stat().st_size < 1_000_000
    assert "plotly.js v" not in page.read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_export_whole(path: Path, tmp_path: Path) -> None:
    html = wb.export(path, tmp_path / "page.html").read_text()
    page = Loads(html)
    assert page.outside == []
    pictures = {own["src"] for tag, own in page.tags if tag == "img"}
    outputs = [one for cell in nbformat.read(path, 4).cells for one in cell.get("outputs", ())]
    stored = {one.data["image/png"].strip() for one in outputs if "image/png" in one.get("data", {})}
    assert stored == {picture.partition("base64,")[2].strip() for picture in pictures}
    assert 'class="wb-formula"' not in html, "a formula that could not be drawn"


HOSTILE = """
<base href="https://far.example/"><meta http-equiv="refresh" content="0;url=https://far.example">
<link rel="stylesheet" href="//far.example/a.css"><style>@import url(https://far.example/b.css); p {color: red}</style>
<p style="background: url('https://far.example/c.png')">kept</p><img src="https://far.example/d.png" alt="a cat">
<img srcset="https://far.example/e.png 2x" src="data:image/png;base64,AA=="><script src="https://far.example/f.js"></script>
<iframe src="https://far.example/g"></iframe><video poster="https://far.example/h.png"></video>
<svg><image xlink:href="https://far.example/i.png"/></svg><a href="https://far.example/j">a link</a>
<img src="../outside.png"><img src="absent.png">
"""


def test_what_is_outside_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(base64.b64decode(png()))
    (tmp_path / "folder").mkdir()
    notebook = written(
        tmp_path / "folder" / "n.ipynb", "![dog](https://far.example/k.png)", cell(result({"text/html": HOSTILE}))
    )
    with pytest.warns(
        UserWarning, match=r"^n\.ipynb: not in the page, because it is outside the notebook: .* and \d+ more"
    ):
        html = wb.export(notebook).read_text()
    page = Loads(html)
    assert page.outside == [] and "@import" not in html and "url('https" not in html
    assert not [own for tag, own in page.tags if tag == "base" or own.get("content", "").startswith("0;url")]
    assert "a cat (not in this file: https://far.example/d.png)" in html and "dog (not in this file" in html
    assert '<a href="https://far.example/j">' in html and "kept" in html


def test_a_figure_cannot_end_its_script(tmp_path: Path) -> None:
    figure = plot(1.0, 2.0).update_layout(title_text="</script><script>bad()</script>")
    html = wb.export(written(tmp_path / "n.ipynb", cell(result(plotly_json(figure))))).read_text()
    assert not [script for script in scripts(html) if script.startswith("bad()")]


def test_cells_that_were_not_run_are_told(tmp_path: Path) -> None:
    notebook = written(tmp_path / "n.ipynb", cell(count=None), cell(), cell(source=" ", count=None))
    with pytest.warns(UserWarning, match=r"1 of 2 code cells not run.*run all cells, save"):
        page = wb.export(notebook)
    assert "1 of 2 code cells not run" in page.read_text()


def test_cells_that_failed_are_told(tmp_path: Path) -> None:
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    with pytest.warns(UserWarning, match="1 of 1 code cells ended in an error"):
        page = wb.export(written(tmp_path / "n.ipynb", cell(error)))
    assert "ValueError: no" in page.read_text()


@pytest.mark.parametrize(
    "markdown, metadata, title",
    [
        ("text\n\n## The *first* `heading` of [two](x) ##\n# second", {}, "The first heading of two"),
        ("# heading", {"title": "its own & more"}, "its own &amp; more"),
        ("```\n# a comment\n```", {}, "n"),
    ],
)
def test_title(markdown: str, metadata: dict[str, str], title: str, tmp_path: Path) -> None:
    html = wb.export(written(tmp_path / "n.ipynb", markdown, **metadata)).read_text()
    assert f"<title>{title}</title>" in html


def test_the_page_names_no_folder_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    target = tmp_path / "shared.html"
    target.write_text("old")
    assert wb.export(full(tmp_path), target) == target
    assert str(tmp_path) not in target.read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["beside.png", "full.ipynb", "shared.html"]


def test_an_interrupted_write_leaves_the_earlier_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "n.html"
    target.write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        wb.export(written(tmp_path / "n.ipynb", "# text"))
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_formulas_without_a_converter_stay_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    html = wb.export(written(tmp_path / "n.ipynb", r"$\alpha < 1$")).read_text()
    assert r"$\alpha &lt; 1$" in html


def test_older_outputs_of_plotly_find_the_library(tmp_path: Path) -> None:
    wrapped = {"text/html": '<script>require(["plotly"], function(Plotly) { Plotly.newPlot("a", []) })</script>'}
    html = wb.export(
        written(tmp_path / "n.ipynb", cell(result(wrapped)), cell(result(plotly_html(plot(1.0)))))
    ).read_text()
    assert sum("plotly.js v" in script[:200] for script in scripts(html)) == 1
    assert any("window.require" in script[:60] for script in scripts(html))


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(wb.ArgumentError, match="is not there: expected the path of a notebook, an .ipynb file"):
        wb.export(tmp_path / "none.ipynb")
    with pytest.raises(wb.ArgumentError, match="is a folder: expected the path of a notebook"):
        wb.export(tmp_path)
    notebook = written(tmp_path / "n.ipynb", "# text")
    with pytest.raises(wb.ArgumentError, match=r"'n.pdf': expected a name that ends in .html"):
        wb.export(notebook, tmp_path / "n.pdf")
    with pytest.raises(wb.ArgumentError, match="is not a folder; make it first, or export elsewhere"):
        wb.export(notebook, tmp_path / "none" / "n.html")
    for content in ("{", "[]", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}'):
        (tmp_path / "bad.ipynb").write_text(content)
        with pytest.raises(wb.ArgumentError, match="bad.ipynb is not a notebook: expected an .ipynb file as Jupyter"):
            wb.export(tmp_path / "bad.ipynb")
    monkeypatch.delitem(sys.modules, "workbench.sharing.notebook_page", raising=False)
    monkeypatch.delattr("workbench.sharing.notebook_page", raising=False)
    monkeypatch.setitem(sys.modules, "nbconvert.exporters.html", None)
    with pytest.raises(ModuleNotFoundError, match=r"wb.export needs nbconvert.*pip install 'weight-workbench\[lab\]'"):
        wb.export(notebook)


def test_what_is_no_path_says_so(raised: Callable[[Iterable[str]], dict[str, list[str]]]) -> None:
    calls = ["wb.export(3)", "wb.ui.Workbench.restored(3)", "wb.ui.Workbench().save(3)"]
    for code, (kind, message) in raised(calls).items():
        assert kind == "ArgumentError" and message.startswith("3 is int: expected the path of a "), (code, message)

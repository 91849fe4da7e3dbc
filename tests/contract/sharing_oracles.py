"""Oracles of what leaves the notebook."""

import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

import workbench as wb
from pages_of_notebooks import Loads, cell, full, plot, plotly_html, result, scripts, written


def export_oracle() -> None:
    """Python's own HTML parser finds every figure, one library, and nothing that would be loaded."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = wb.export(full(Path(folder))).read_text()
        html = wb.export(written(Path(folder, "n.ipynb"), cell(result(plotly_html(plot(1.0, 2.0)))))).read_text()
    assert Loads(html).outside == Loads(whole).outside == []
    assert sum("plotly.js v" in script[:200] for script in scripts(whole)) == 1
    assert [tag for tag, _ in Loads(whole).tags].count("img") == 4


def cite_oracle() -> None:
    """FARMS is cited for its windows only, and the fit of Clauset, Shalizi and Newman for a searched tail only."""
    model = {"fc.weight": torch.eye(60)}
    searched, given, windows = wb.spectrum(model), wb.spectrum(model, xmin=1.0), wb.farms(model, window=20)
    named = [("2506.06280" in text, "Clauset" in text) for text in map(wb.cite, (searched, given, windows))]
    assert named == [(False, True), (False, False), (True, False)]


def doctor_oracle() -> None:
    """The packages' own words are its versions; an older one than pyproject asks for is told, and what to do."""
    own = {"torch": torch.__version__, "numpy": np.__version__, "pandas": pd.__version__}
    values = wb.doctor().frame().set_index("item")["value"]
    assert {name: values[name] for name in own} == own
    with mock.patch("importlib.metadata.distribution") as found:
        found.return_value.version = "8.0.7"
        rows = wb.doctor().frame().set_index("item")
    assert (
        rows.loc["ipywidgets", "verdict"] == "warn" and "pip install -U ipywidgets" in rows.loc["ipywidgets", "advice"]
    )

"""The site: the reference from docstrings, the executed notebooks, the decisions. `make docs` builds it, offline."""

import importlib.resources
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import nbformat  # noqa: E402
import pages  # noqa: E402 - it lies beside this file

from workbench.sharing.formulas import mathml  # noqa: E402
from workbench.sharing.outputs import PLOTLY, Figures  # noqa: E402
from workbench.version import __version__  # noqa: E402

project, author = "weight-workbench", "The weight-workbench maintainers"
version = release = __version__
extensions = ["myst_nb"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "weight-workbench"
html_show_copyright = False  # LICENSE says it
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # they are committed executed, and tested
nb_ipywidgets_js: dict[str, Any] = {}  # explorers need a kernel; nothing is loaded from elsewhere
nb_merge_streams = True
html_static_path = [str(importlib.resources.files("plotly") / "package_data" / "plotly.min.js")]
LIBRARY = '<script src="../_static/plotly.min.js"></script>'  # as seen from the page of a notebook


def copied(folder: str) -> None:
    """Notebooks stand beside their checkpoints, and Sphinx reads below this folder only; it draws no plotly figures."""
    (HERE / folder).mkdir(exist_ok=True)
    for file in (HERE.parent / folder).glob("*.ipynb"):
        notebook, figures = nbformat.read(file, 4), Figures({})
        for data in (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())):
            if PLOTLY in data:
                data["text/html"] = ("" if figures.count else LIBRARY) + figures.html(data.pop(PLOTLY))
        nbformat.write(notebook, HERE / folder / file.name)


def inline(self: Any, node: Any) -> None:
    """A formula in a line."""
    self.body.append(mathml(node.astext()))
    raise _skip()


def block(self: Any, node: Any) -> None:
    """A formula by itself."""
    self.body.append(f"<div>{mathml(node.astext(), display=True)}</div>")
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app: Any) -> None:
    """Writes the generated pages before Sphinx looks for them."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    pages.write(HERE / "reference")
    copied("notebooks")

"""Executes the notebooks in place, and leaves out what only a running kernel can show.

    python notebooks/execute.py [NAME.ipynb ...]

Widget state is megabytes, and a stored widget view is an error message to whoever opens the notebook: both are removed.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

VIEW = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> None:
    """Runs one notebook from its own folder and writes it back without widget state."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VIEW, None)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    here = Path(__file__).parent
    for path in [here / name for name in sys.argv[1:]] or sorted(here.glob("*.ipynb")):
        execute(path)

"""Committed notebooks are executed, small, free of widget state, and name no machine."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MACHINE = re.compile(r"/(home|root|tmp|work|usr|opt|Users|mnt)/|site-packages|[A-Z]:\\\\")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_travels(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, 4)
    assert "widgets" not in notebook.metadata
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("assert " in cell.source for cell in cells) >= len(cells) / 2
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", output
            data = output.get("data", {"text/plain": output.get("text", "")})
            assert "application/vnd.jupyter.widget-view+json" not in data
            for kind, content in data.items():
                if kind.startswith("text/"):
                    assert not MACHINE.search(content), f"{path.name}: {MACHINE.search(content)}"

"""The gallery shows every figure that `wb.figure` knows, printed and on screen, as it was executed."""

from pathlib import Path

import nbformat
import pytest

from workbench.figures import KINDS

NOTEBOOK = nbformat.read(Path(__file__).parents[1] / "notebooks" / "gallery.ipynb", 4)
SCREEN = "application/vnd.plotly.v1+json"


def shown() -> dict[str, list[dict[str, object]]]:
    """What follows each printed name."""
    found: dict[str, list[dict[str, object]]] = {}
    for cell in NOTEBOOK.cells:
        name = ""
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                name = output.text.strip().splitlines()[-1]
            elif output.output_type == "display_data" and name:
                found.setdefault(name, []).append(output.data)
    return found


@pytest.mark.parametrize("name", [f"{result.__name__}: {kind}" for result, kinds in KINDS.items() for kind in kinds])
def test_every_kind_is_shown_by_both_renderers(name: str) -> None:
    paper, screen = shown()[name]
    assert "image/png" in paper and f"FigureSpec {name.split(': ')[1]}: " in paper["text/plain"]
    assert screen[SCREEN]["data"] and screen[SCREEN]["layout"]["title"]["text"] in paper["text/plain"]


def test_it_shows_nothing_that_is_no_kind() -> None:
    kinds = {f"{result.__name__}: {kind}" for result, kinds in KINDS.items() for kind in kinds}
    assert set(shown()) == kinds

"""The house stays in shape: who may import whom, what an import costs, how long a file may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workbench"
FILES = sorted(PACKAGE.rglob("*.py"))
WIDGETS = sorted((ROOT / "widgets").rglob("*.py"))

ROWS = [  # DESIGN: each row imports only rows above it; the subjects never import each other
    {"errors", "progress", "seeds", "results", "stored", "cache", "version"},
    {"weights"},
    {"layers"},
    {"linalg"},
    {"runtime"},
    {"spectra", "degeneracy", "connectivity", "signatures"},
    {"atlas"},
    {"figures"},
    {"sharing"},
]
SUBJECTS = ROWS[5]
LAZY = {"pandas", "scipy", "plotly", "matplotlib", "ipywidgets", "anywidget", "sklearn", "networkx", "nbconvert", "bs4"}
DRAWING = {"plotly", "matplotlib"}
SCREEN = {"ipywidgets", "anywidget", "itables", "IPython", "traitlets"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Modules that a file imports at run time; what stands under TYPE_CHECKING does not count."""
    tree = parsed(path)
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def row_of(module: str) -> int:
    return next(index for index, row in enumerate(ROWS) if module in row)


@pytest.mark.parametrize("path", [file for file in FILES if file.parent != PACKAGE or file.stem != "__init__"], ids=str)
def test_imports_point_upwards(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        if not module.startswith("workbench."):
            continue
        other = module.split(".")[1]
        allowed = other == own or row_of(other) < row_of(own) or (row_of(other) == row_of(own) == 0)
        assert allowed, f"{path.relative_to(ROOT)} imports workbench.{other}, which does not stand above {own}"


def test_the_arrow_test_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("from workbench.figures import figure\nif TYPE_CHECKING:\n    import pandas\n")
    assert list(imports(file)) == ["workbench.figures"]
    assert row_of("figures") > row_of("layers")


def test_drawing_and_screen_libraries_have_one_home() -> None:
    for path in FILES:
        heads = {module.split(".")[0] for module in imports(path)}
        assert not heads & SCREEN, f"{path} imports {heads & SCREEN}"
        if heads & DRAWING:
            assert path.parent.name == "figures" and path.stem.endswith("_renderer"), path


def test_widgets_stand_on_public_names() -> None:
    for path in WIDGETS:
        inner = [module for module in imports(path) if module.startswith("workbench.")]
        assert not inner, f"{path} reaches into {inner}"


def test_import_is_light() -> None:
    code = "import sys, workbench; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not LAZY & set(loaded.stdout.split())


@pytest.mark.parametrize("path", [*FILES, *WIDGETS], ids=lambda path: path.name)
def test_files_stay_short_and_named(path: Path) -> None:
    tree = parsed(path)
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines -= {number for number, line in enumerate(path.read_text().splitlines(), start=1) if not line.strip()}
    assert len(lines) <= 250, f"{path.name}: {len(lines)} lines of code"
    assert path.stem not in {"utils", "helpers", "misc", "common"}


def test_no_assert_on_user_input() -> None:
    for path in FILES:
        asserts = [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, ast.Assert)]
        assert not asserts, f"{path}: assert in lines {asserts}"

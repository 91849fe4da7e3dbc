"""The site has a page for every public name, made of its docstring."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import workbench as wb

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_a_page(pages: ModuleType, tmp_path: Path) -> None:
    pages.write(tmp_path)
    index = (tmp_path / "index.md").read_text()
    listed = dict(re.findall(r"^wb\.(\S+) <(\S+)>$", index, re.MULTILINE))
    assert set(listed) == set(wb.__all__) | {f"ui.{name}" for name in wb.ui.__all__}
    files = {file.name for file in tmp_path.iterdir()} - {"index.md"}
    assert files == {f"{file}.md" for file in listed.values()}
    assert len({file.lower() for file in files}) == len(files), "spectrum and Spectrum on a disk that ignores case"
    for name, file in listed.items():
        assert (tmp_path / f"{file}.md").read_text().startswith(f"# wb.{name}\n")


def test_pages_of_names_that_are_gone_go(pages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("# gone")
    pages.write(tmp_path)
    assert not (tmp_path / "gone.md").exists()


def test_a_page_has_formula_source_misreads_and_example(pages: ModuleType) -> None:
    for name in ("spectrum", "farms", "match", "merge", "interaction_basis"):
        text = pages.page(name)
        for heading in ("Arguments", "Returns", "Raises", "Cost", "Source", "What the number does not tell", "Example"):
            assert text.count(f"\n## {heading}\n") == 1, f"{name}: {heading}"
        assert "## Figures" in text or name == "merge"
        assert f"wb.{name}(" in text and "## In notebooks" in text
    farms = pages.page("farms")
    assert "α = 1 + n/Σ ln(λ/xmin)" in farms and "arXiv 2506.06280" in farms and ">>> result = farms(" in farms
    assert "- `window`: rows of a window. 100 is the paper's setting" in farms
    assert "(../notebooks/farms.ipynb)" in farms


def test_columns_and_methods_of_results_are_told(pages: ModuleType) -> None:
    text = pages.page("Spectrum")
    for name in wb.Spectrum.COLUMNS["layers"]:
        assert f"| `{name}` |" in text
    assert "## `.figure" not in text
    assert "## `.apply(" in pages.page("Signature") and "## `.bits" not in pages.page("Spectrum")


def test_marks_in_prose_stay_prose(pages: ModuleType) -> None:
    assert pages._escaped("a*b_c `d*e` |x| <1>") == r"a\*b\_c `d*e` \|x\| \<1\>"


def test_notebooks_of_the_site_are_all_there(pages: ModuleType) -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert set(re.findall(r"^notebooks/(\w+)$", index, re.MULTILINE)) == {
        path.stem for path in (ROOT / "notebooks").glob("*.ipynb")
    }


def test_pictures_are_those_that_pages_show() -> None:
    page, folder = (ROOT / "docs" / "pictures.md").read_text(), ROOT / "docs" / "pictures"
    assert set(re.findall(r"\(pictures/(\S+\.png)\)", page)) == {file.name for file in folder.iterdir()}
    for shown in re.findall(r"\]\((docs/\S+|[A-Z]\S+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / shown).is_file(), f"README shows {shown}"


def test_the_readme_names_what_there_is() -> None:
    for page in ("README.md", "docs/calls.md", "docs/sharing.md", "docs/caveats.md"):
        for name in set(re.findall(r"\bwb\.((?:ui\.)?[A-Za-z_]\w*)", (ROOT / page).read_text())):
            assert name == "ui" or name in wb.__all__ or name.removeprefix("ui.") in wb.ui.__all__, f"{page}: wb.{name}"
    noted = re.findall(r"notebooks/(\w+)\.ipynb", "".join(file.read_text() for file in (ROOT / "docs").glob("*.md")))
    table = re.findall(r"\| (`\w+`(?:, `\w+`)*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(table) == 7
    for name in [*noted, *re.findall(r"`(\w+)`", " ".join(table))]:
        assert (ROOT / "notebooks" / f"{name}.ipynb").is_file(), name

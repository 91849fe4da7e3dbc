"""Code of a session without repeats, as a script or a notebook, and its JSON."""

import ast
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workbench as wb

FORMAT = 1
MARK = "# %% "  # how editors know cells of a script


def without_repeats(sections: Sequence[str]) -> list[str]:
    r"""Sections of straight code that run one after another, without statements whose outcome is there already.

    A statement is left out if the same one ran before, on the same values of the same names, and what it assigned has
    not been assigned since. The code makes new objects and changes none, as that of explorers does.

    Example:
        >>> without_repeats(["a = 1\nb = f(a)", "a = 1\nb = f(a)\nc = g(b)", "a = 2\nb = f(a)"])
        ['a = 1\nb = f(a)', 'c = g(b)', 'a = 2\nb = f(a)']
    """
    made: dict[str, object] = {}  # name → what it holds: the statement, and what that read
    kept = []
    for section in sections:
        lines, begin, own = section.splitlines(), 0, list[str]()
        for statement in ast.parse(section).body:
            nodes = list(ast.walk(statement))
            names = [node for node in nodes if isinstance(node, ast.Name)]
            reads = {one.id: made.get(one.id) for one in names if isinstance(one.ctx, ast.Load)}
            value: object = (ast.dump(statement), tuple(sorted((name, id(known)) for name, known in reads.items())))
            writes = {one.id: value for one in names if isinstance(one.ctx, ast.Store)}
            writes |= {one.asname or one.name: ast.dump(one) for one in nodes if isinstance(one, ast.alias)}
            if not writes or any(made.get(name) != value for name, value in writes.items()):
                own += lines[begin : statement.end_lineno]
                made |= {name: value for name, value in writes.items() if made.get(name) != value}
            begin = statement.end_lineno or begin
        kept.append("\n".join(own).strip("\n"))
    return kept


def as_script(cells: Sequence[tuple[str, str]]) -> str:
    """Cells as one script, each under its title."""
    return "\n\n".join(f"{MARK}{title}\n{code}" for title, code in cells) + "\n"


def as_notebook(cells: Sequence[tuple[str, str]], path: str | os.PathLike[str]) -> Path:
    """Cells as a notebook, each under its title.

    Raises:
        wb.ArgumentError: the path does not end in .ipynb, or its folder is not there.
    """
    import nbformat

    target = _target(path, ".ipynb")
    made = [nbformat.v4.new_markdown_cell("# Session of the workbench")]
    for title, code in cells:
        made += [nbformat.v4.new_markdown_cell(f"## {title}"), nbformat.v4.new_code_cell(code)]
    for place, cell in enumerate(made):
        cell["id"] = f"cell-{place}"
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), target)
    return target


def written(session: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """A session as JSON; what stood there is replaced whole.

    Raises:
        wb.ArgumentError: the path does not end in .json, or its folder is not there.
    """
    target = _target(path, ".json")
    text = json.dumps({"format": FORMAT, "version": wb.__version__, **session}, indent=1, ensure_ascii=False)
    scratch = target.with_name(f".{target.name}.writing")
    scratch.write_text(text + "\n", encoding="utf-8")
    scratch.replace(target)
    return target


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A session that was written.

    Raises:
        wb.ArgumentError: it is none, or of a later format.
    """
    target = _path(path)
    try:
        found = json.loads(target.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise wb.ArgumentError(f"{target} is not there: expected a session that a workbench saved.") from None
    except (OSError, ValueError) as error:
        raise wb.ArgumentError(f"{target} is no session of a workbench: {error}.") from None
    if isinstance(found, dict) and found.get("format", FORMAT) != FORMAT:
        raise wb.ArgumentError(
            f"{target} has format {found['format']!r}, and this workbench reads {FORMAT}: save it anew, or take "
            f"the version that wrote it ({found.get('version')})."
        )
    if not _is_session(found):
        expected = "models, explorers, selection and tab, as it was saved"
        raise wb.ArgumentError(f"{target} is no session of a workbench: expected {expected}.")
    return found


def _is_session(found: Any) -> bool:
    """Whether everything that is read of it later is there and has its kind."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return False
    models, explorers = found.get("models"), found.get("explorers")
    if not (isinstance(models, list) and isinstance(explorers, dict) and isinstance(found.get("selection"), list)):
        return False
    if not all(isinstance(one, dict) for one in [*models, *explorers.values()]):
        return False
    texts = [found.get("tab"), found.get("evaluator") or "", found.get("setup", "")]
    texts += [text for one in models for text in (one.get("name"), one.get("source", one.get("variable")))]
    settings = [one.get("settings") for one in explorers.values()]
    return all(isinstance(one, str) for one in texts) and all(isinstance(one, dict) for one in settings)


def _path(given: str | os.PathLike[str]) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise wb.ArgumentError(f"{given!r} is {type(given).__name__}: expected the path of a file.")
    return Path(given).expanduser()


def _target(path: str | os.PathLike[str], ending: str) -> Path:
    target = _path(path)
    if target.suffix != ending:
        raise wb.ArgumentError(f"{target}: expected a name that ends in {ending}.")
    if not target.parent.is_dir():
        raise wb.ArgumentError(f"{target}: there is no folder {target.parent}; make it first, or name another.")
    return target

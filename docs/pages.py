"""The pages of the reference, made of docstrings: one for every public name, so that none can be forgotten."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import workbench as wb
from workbench.figures import KINDS

ROOT = Path(__file__).parents[1]
HEADINGS = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Raises": "Raises",
    "Cost": "Cost",
    "Source": "Source",
    "Misreads": "What the number does not tell",
    "Example": "Example",
}
SECTION = re.compile(rf"^({'|'.join(HEADINGS)}):[ \n]", re.MULTILINE)
ITEM = re.compile(r"^ {4}(\*{0,2}\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)", re.MULTILINE)
SPECIAL = re.compile(r"([\\*_<>\[\]|#$~^{}])")
GROUPS = ("Analyses", "Results and tools", "Errors", "Explorers")


def names() -> dict[str, str]:
    """Every page's name and its group: all of `workbench.__all__`, and the explorers of `wb.ui`."""
    own = {name: _group(getattr(wb, name)) for name in wb.__all__}
    return own | {f"ui.{name}": "Explorers" for name in wb.ui.__all__}


def _group(thing: Any) -> str:
    if inspect.isfunction(thing):
        return "Analyses"
    return "Errors" if inspect.isclass(thing) and issubclass(thing, BaseException) else "Results and tools"


def page_name(name: str) -> str:
    """A page's file, without its ending: `Spectrum` and `spectrum` stay apart on every disk."""
    return f"{name}-class" if name[:1].isupper() else name.replace("ui.", "ui-")


def page(name: str) -> str:
    """The page of a public name, as MyST Markdown."""
    thing = getattr(wb.ui, name.removeprefix("ui.")) if name.startswith("ui.") else getattr(wb, name)
    lines = [f"# wb.{name}", ""]
    if inspect.isfunction(thing) or inspect.isclass(thing):
        lines += [
            "```python",
            f"wb.{name}{_signature(thing)}",
            "```",
            "",
            _docstring(inspect.getdoc(thing) or "", "##"),
        ]
    else:
        lines += [*_constant(name, thing), ""]
    if inspect.isclass(thing):
        lines += list(_members(thing))
    if inspect.isfunction(thing):
        lines += list(_around(name, thing))
    return "\n".join(lines) + "\n"


def index() -> str:
    """The list of all pages, by group."""
    parts = ["# Reference", "", "Every public name of `import workbench as wb`, by kind.", ""]
    for group in GROUPS:
        own = sorted((name for name, kind in names().items() if kind == group), key=str.lower)
        parts += [f"## {group}", "", "```{toctree}", ":maxdepth: 1", ""]
        parts += [f"wb.{name} <{page_name(name)}>" for name in own] + ["```", ""]
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Writes all pages anew; a page whose text is the same is left alone, so that it is not built again."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {f"{page_name(name)}.md": page(name) for name in names()} | {"index.md": index()}
    for file in folder.glob("*.md"):
        if file.name not in made:
            file.unlink()
    for file, text in made.items():
        if not (folder / file).is_file() or (folder / file).read_text(encoding="utf-8") != text:
            (folder / file).write_text(text, encoding="utf-8")


def _signature(thing: Callable[..., Any]) -> str:
    """A call's arguments, a line each if they are many, without annotations that a reader does not need."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return "(...)"
    told, starred = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not starred:
            starred = True
            told.append("*")
        starred |= one.kind is one.VAR_POSITIONAL
        mark = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        told.append(f"{mark}{one.name}" + ("" if one.default is one.empty else f"={_default(one.default)}"))
    told = [one for place, one in enumerate(told) if one != "*" or place + 1 < len(told)]
    line = ", ".join(told)
    return f"({line})" if len(line) < 80 else "(\n    " + ",\n    ".join(told) + ",\n)"


def _default(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool | tuple | type(None)) else "..."


def _docstring(text: str, level: str) -> str:
    """A docstring of the house as Markdown: its first sentence, then a heading for each section."""
    pieces = SECTION.split(text)
    parts = [_prose(pieces[0])]
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        parts += [f"{level} {HEADINGS[name]}", _section(name, body)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(name: str, body: str) -> str:
    if name == "Example":
        return f"```pycon\n{inspect.cleandoc(body)}\n```"
    items = ITEM.findall("    " + body.lstrip() if not body.startswith(" ") else body)
    if name in ("Args", "Attributes", "Raises") and items:
        return "\n".join(f"- `{item}`: {_escaped(' '.join(said.split()))}" for item, said in items)
    return _prose(inspect.cleandoc(body))


def _prose(text: str) -> str:
    """Paragraphs and lists, with what Markdown would read as marks escaped."""
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        start = re.match(r"\s*(?:- |\d+\. )?", line)
        head = start[0] if start else ""
        lines.append(head + _escaped(line[len(head) :]))
    return "\n".join(lines)


def _escaped(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") and part.endswith("`") else SPECIAL.sub(r"\\\1", part) for part in parts
    )


def _members(kind: type) -> Iterator[str]:
    """Columns of a result, and the public methods and properties that a class adds."""
    if issubclass(kind, wb.Result) and kind.COLUMNS:
        for table, columns in kind.COLUMNS.items():
            yield from (f"## Table `{table}`", "", "| column | meaning | unit |", "|---|---|---|")
            yield from (
                f"| `{name}` | {_escaped(' '.join(column.meaning.split()))} | {_escaped(column.unit)} |"
                for name, column in columns.items()
            )
            yield ""
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function) or not inspect.getdoc(function):
            continue
        call = "" if isinstance(member, property) else _signature(getattr(kind, name)).replace("(self, ", "(")
        call = " ".join(call.replace("(self)", "()").split()).replace("( ", "(").replace(", )", ")")
        yield from (f"## `.{name}{call}`", "", _docstring(inspect.getdoc(function) or "", "###"))


def _constant(name: str, thing: Any) -> Iterator[str]:
    if name == "MERGE_METHODS":
        yield from ("The ways of `wb.merge`.", "", "| method | formula | source |", "|---|---|---|")
        yield from (f"| `{key}` | {_escaped(one.FORMULA)} | {_escaped(one.SOURCE)} |" for key, one in thing.items())
    else:
        yield f"What functions take where they ask for a model: {_escaped(str(thing)).replace('typing.', '')}."


def _around(name: str, function: Callable[..., Any]) -> Iterator[str]:
    """Figures of what a function returns, and notebooks that call it."""
    kinds = KINDS.get(inspect.signature(function, eval_str=True).return_annotation, {})
    if kinds:
        yield from ("## Figures", "", ", ".join(f"`wb.figure(result, {kind!r})`" for kind in kinds), "")
    books = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if f"wb.{name}(" in _code(path)]
    if books:
        yield from ("## In notebooks", "", ", ".join(f"[{book}](../notebooks/{book}.ipynb)" for book in books), "")


def _code(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")

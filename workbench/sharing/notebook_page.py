"""Notebook → HTML through nbconvert; imported only when a page is asked for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from workbench.errors import ArgumentError
from workbench.sharing.formulas import mathml
from workbench.sharing.outputs import Figures, shown
from workbench.sharing.remote import Inside

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; style-src 'unsafe-inline' data:; "
    "img-src data: blob:; font-src data:; media-src data: blob:; worker-src blob: data:"
)
LIBRARY = "<!-- plotly.js -->"
TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}<meta http-equiv="Content-Security-Policy" content="{{ resources.policy }}">
<!-- plotly.js -->{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block extra_css -%}<style>
.wb-note { border-left: 4px solid #b26a00; padding: 0.4em 0.8em; margin: 0.6em 0; }
.wb-plotly { width: 100%; }
main img { max-width: 100%; }
</style>{%- endblock -%}
{%- block body_header -%}{{ super() }}
{%- for note in resources.notes -%}<p class="wb-note" role="note">{{ note | e }}</p>{%- endfor -%}
{%- endblock -%}
{%- block data_png scoped -%}{{ super() | replace('<img ', '<img alt="' ~ (output | picture_name | e) ~ '" ') }}
{%- endblock -%}
{%- block data_svg scoped -%}{{ super() | replace('<img ', '<img alt="' ~ (output | picture_name | e) ~ '" ') }}
{%- endblock -%}
{%- block data_jpg scoped -%}{{ super() | replace('<img ', '<img alt="' ~ (output | picture_name | e) ~ '" ') }}
{%- endblock -%}
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, and what whoever made it should know.

    Attributes:
        html: the whole file.
        notes: what is missing on it, a sentence each.
    """

    html: str
    notes: tuple[str, ...]


def page(source: Path) -> Page:
    """The page of a notebook.

    Raises:
        ArgumentError: the file is no notebook.
    """
    try:
        notebook = nbformat.read(source, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # JSON, schema and encoding each raise their own
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArgumentError(
            f"{source.name} is not a notebook: expected an .ipynb file as Jupyter saves it ({said})"
        ) from error
    inside, figures = Inside(source.parent), Figures(_states(notebook))
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            shown(output, inside, figures)
    notebook.metadata["title"] = notebook.metadata.get("title") or _heading(notebook) or source.stem
    notebook.metadata.pop("widgets", None)
    exporter = _exporter(inside)
    unrun = list(_unrun(notebook))
    resources = {"metadata": {"name": source.stem}, "policy": POLICY, "notes": unrun}
    html, _ = exporter.from_notebook_node(notebook, resources)
    # after the conversion, which parses the page: megabytes of JavaScript need not go through it
    html = html.replace(LIBRARY, figures.library(), 1)
    return Page(html=html, notes=(*unrun, *inside.notes()))


def _exporter(inside: Inside) -> HTMLExporter:
    class Renderer(IPythonRenderer):
        """Formulas as MathML; the rest as nbconvert has it."""

        def block_math(self, body: str) -> str:
            return mathml(body, display=True)

        def inline_math(self, body: str) -> str:
            return mathml(body)

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    @pass_context
    def markdown(context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(escape=False, attachments=attachments, anchor_link_text="¶")
        return inside.cleaned(MarkdownWithMath(renderer=renderer).render(source))

    def picture_name(output: Any) -> str:
        """What a picture is called for people who do not see it: the first line of its text."""
        return (str(output.data.get("text/plain", "")).splitlines() or ["figure"])[0]

    exporter = HTMLExporter(raw_template=TEMPLATE)
    exporter.register_filter("markdown2html", markdown)
    exporter.register_filter("picture_name", picture_name)
    return exporter


def _states(notebook: Any) -> dict[str, Any]:
    """The saved states of widgets, by model id."""
    saved = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    return dict(saved.get("state", {}))


def _heading(notebook: Any) -> str:
    """The first heading, as plain text."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            fenced = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            if found := re.search(r"^#{1,6}\s+(.+?)\s*#*\s*$", fenced, flags=re.MULTILINE):
                return re.sub(r"[*_`]|\[([^\]]*)\]\([^)]*\)", r"\1", found[1])
    return ""


def _unrun(notebook: Any) -> Iterator[str]:
    """A sentence on cells that have not been run."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    unrun = [cell for cell in cells if cell.get("execution_count") is None]
    if unrun:
        yield (
            f"{len(unrun)} of {len(cells)} code cells not run, whose figures are missing here: "
            "run all cells, save the notebook and export it again."
        )
    failed = sum(output.output_type == "error" for cell in cells for output in cell.outputs)
    if failed:
        yield f"{failed} of {len(cells)} code cells ended in an error, which is shown in their place."

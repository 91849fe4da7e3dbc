"""A notebook as one HTML file that needs nothing else."""

import os
import warnings
from pathlib import Path

from workbench.errors import ArgumentError
from workbench.weights.save import replacing


def export(notebook: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """An executed notebook as one HTML file = code + text + every figure, shown without a network or a kernel.

    Pictures are inside the file, plotly's figures stay interactive (its library is embedded once, and only if there is
    one), formulas become MathML, tables stay tables. Where a widget stood is what it showed: its text, and the plots of
    its saved state if the notebook has one. The page forbids itself the network (a content security policy), so that
    nothing of it can be missing elsewhere; what is outside it is named on the page.

    Args:
        notebook: path of an `.ipynb` file, run and saved.
        path: the file to write, ending in `.html`; beside the notebook and under its name if None. An earlier one is
            replaced whole.

    Returns:
        The path of the page.

    Raises:
        ArgumentError: there is no notebook at the path, it is damaged, `path` does not end in .html, or its folder does
            not exist.
        ModuleNotFoundError: nbconvert is missing; the extra `lab` has it.

    Cost: a second or two. 0.4 MB for the page's style, the pictures as they are in the notebook, and 4.8 MB if a figure
    is of plotly.

    Source: ours, on nbconvert's JupyterLab template.

    Misreads: the page shows what was saved, which may be older than the code above it. A notebook that was not run has
    no figures: a warning and the page's first line say how many cells have not. Widgets do not answer.

    Example:
        >>> export("nothing.ipynb")
        Traceback (most recent call last):
        workbench.errors.ArgumentError: 'nothing.ipynb' is not there: expected the path of a notebook, an .ipynb file.
    """
    for given, kind in ((notebook, "notebook, an .ipynb file"), (path or "", "page, an .html file")):
        if not isinstance(given, str | os.PathLike):
            raise ArgumentError(f"{given!r} is {type(given).__name__}: expected the path of a {kind}.")
    source = Path(notebook).expanduser()
    if not source.is_file():
        why = "is a folder" if source.is_dir() else "is not there"
        raise ArgumentError(f"{str(notebook)!r} {why}: expected the path of a notebook, an .ipynb file.")
    target = source.with_suffix(".html") if path is None else Path(path).expanduser()
    if target.suffix not in (".html", ".htm"):
        raise ArgumentError(f"{target.name!r}: expected a name that ends in .html.")
    if not target.parent.is_dir():
        raise ArgumentError(f"{target.parent} is not a folder; make it first, or export elsewhere.")
    try:
        from workbench.sharing import notebook_page
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"wb.export needs {error.name}: pip install 'weight-workbench[lab]'", name=error.name
        ) from error
    page = notebook_page.page(source)
    with replacing(target) as scratch:
        scratch.write_text(page.html, encoding="utf-8")
    for note in page.notes:
        warnings.warn(f"{source.name}: {note}", stacklevel=2)
    return target

"""The figure of a LayerTable: where the elements are."""

from workbench.figures.spec import Axis, FigureSpec, Panel, Points, limits
from workbench.layers import LayerTable
from workbench.results import short_source

KIND_ROLES = {
    "linear": "first",
    "embedding": "second",
    "conv2d": "third",
    "conv1d": "fourth",
    "conv3d": "fifth",
    "": "muted",
}


def sizes(table: LayerTable) -> FigureSpec:
    """Elements of every tensor over depth, a symbol per kind."""
    cells = table.tables["layers"]
    marks = []
    for kind, role in KIND_ROLES.items():
        rows = [row for row, found in enumerate(cells["kind"]) if found == kind and cells["elements"][row] > 0]
        if rows:
            marks.append(
                Points(
                    x=tuple(float(cells["depth"][row]) for row in rows),
                    y=tuple(float(cells["elements"][row]) for row in rows),
                    ids=tuple(cells["layer"][row] for row in rows),
                    role=role,
                    label=kind or "excluded",
                )
            )
    panel = Panel(
        x=Axis(label="depth", unit="matrix layers", limits=limits(cells["depth"])),
        y=Axis(label="elements", scale="log", limits=limits(cells["elements"], "log")),
        marks=tuple(marks),
    )
    story = {"source": short_source(table.meta["source"]), "fingerprint": table.meta["fingerprint"]}
    return FigureSpec(kind="sizes", title="Elements per tensor", panels=(panel,), provenance=story)

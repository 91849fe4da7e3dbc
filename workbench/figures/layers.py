"""The figure of a LayerTable: where the elements are."""

from workbench.figures.provenance import depth_label, story
from workbench.figures.spec import OTHER_ROLE, Axis, FigureSpec, Mark, Panel, Points, limits, ordered
from workbench.layers import LayerTable

KIND_ROLES = {
    "linear": "first",
    "embedding": "second",
    "conv2d": "third",
    "conv1d": "fourth",
    "conv3d": "fifth",
    "": "muted",
}


def sizes(table: LayerTable, layer: str | None) -> FigureSpec:
    """Elements of every tensor over depth, a symbol per kind; `layer` is ringed."""
    cells = table.tables["layers"]
    marks: list[Mark] = []
    for kind in ordered(cells["kind"], KIND_ROLES):
        rows = [row for row, found in enumerate(cells["kind"]) if found == kind and cells["elements"][row] > 0]
        if rows:
            marks.append(
                Points(
                    x=tuple(float(cells["depth"][row]) for row in rows),
                    y=tuple(float(cells["elements"][row]) for row in rows),
                    ids=tuple(cells["layer"][row] for row in rows),
                    role=KIND_ROLES.get(kind, OTHER_ROLE),
                    label=kind or "excluded",
                )
            )
    if layer is not None and (row := table.row(layer))["elements"] > 0:
        marks.append(Points(x=(float(row["depth"]),), y=(float(row["elements"]),), ids=(layer,), role="accent"))
    panel = Panel(
        x=Axis(label=depth_label(table), unit="matrix layers", limits=limits(cells["depth"])),
        y=Axis(label="elements", scale="log", limits=limits(cells["elements"], "log")),
        marks=tuple(marks),
    )
    return FigureSpec(kind="sizes", title="Elements per tensor", panels=(panel,), provenance=story(table))

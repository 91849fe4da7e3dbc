"""The figures of what α is used for: learning rates and sparsities over depth."""

import math

from workbench.errors import FigureError
from workbench.figures.provenance import depth_label, story
from workbench.figures.spec import Axis, FigureSpec, Mark, Panel, Points, Rule, limits
from workbench.results import LayerResult, many
from workbench.spectra import AlphaPruning, TempBalance


def learning_rate_over_depth(balance: TempBalance, layer: str | None) -> FigureSpec:
    """Each layer's learning rate over depth, those without α apart, and the base rate; `layer` is ringed."""
    table, base = balance.tables["layers"], balance.meta["parameters"]["learning_rate"]
    scaled = [math.isfinite(alpha) for alpha in table["alpha"]]
    marks: list[Mark] = [] if base is None else [Rule(axis="y", value=base, label="base rate")]
    marks += split_points(balance, "learning_rate", scaled, ("from α", "without α"), layer)
    panel = Panel(
        x=Axis(label=depth_label(balance), unit="matrix layers", limits=limits(table["depth"])),
        y=Axis(label="learning rate", limits=limits([*table["learning_rate"], *([] if base is None else [base])])),
        marks=tuple(marks),
    )
    title = f"TempBalance ({balance.meta['parameters']['assignment']}), {many(len(scaled), 'layer')}"
    return FigureSpec(kind="learning_rate", title=title, panels=(panel,), provenance=story(balance))


def sparsity_over_depth(pruning: AlphaPruning, layer: str | None) -> FigureSpec:
    """Each layer's sparsity over depth, layers left whole apart, and the sparsity of all; `layer` is ringed."""
    table, total = pruning.tables["layers"], 1 - pruning.meta["parameters"]["density"]
    counted = [ratio > 0 for ratio in table["ratio"]]
    points = split_points(pruning, "sparsity", counted, ("pruned", "left whole"), layer)
    panel = Panel(
        x=Axis(label=depth_label(pruning), unit="matrix layers", limits=limits(table["depth"])),
        y=Axis(label="sparsity", limits=limits([*table["sparsity"], total])),
        marks=(Rule(axis="y", value=total, label="all layers"), *points),
    )
    title = f"AlphaPruning to a density of {1 - total:.3g}, {many(sum(counted), 'layer')}"
    return FigureSpec(kind="sparsity", title=title, panels=(panel,), provenance=story(pruning))


def split_points(
    result: LayerResult, column: str, first: list[bool], labels: tuple[str, str], layer: str | None
) -> list[Mark]:
    """A column over depth: the layers that `first` marks, the others, and a ring about `layer`."""
    table = result.tables[result.TABLES[0]]
    if not table["layer"]:
        raise FigureError(f"this {type(result).__name__} has no layers to draw.")
    marks: list[Mark] = []
    for wanted, role, label in ((True, "first", labels[0]), (False, "muted", labels[1])):
        rows = [row for row, is_first in enumerate(first) if is_first is wanted]
        if rows:
            marks.append(
                Points(
                    x=tuple(float(table["depth"][row]) for row in rows),
                    y=tuple(table[column][row] for row in rows),
                    ids=tuple(table["layer"][row] for row in rows),
                    role=role,
                    label=label,
                )
            )
    if layer is not None:
        ringed = result.row(layer)
        marks.append(Points(x=(float(ringed["depth"]),), y=(ringed[column],), ids=(layer,), role="accent"))
    return marks

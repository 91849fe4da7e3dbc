"""The figures of a Diff's spectra: what a LoRA would hold, σ after over σ before, and the directions that changed."""

import math
from typing import Any

from workbench.errors import FigureError
from workbench.figures.diff import LOOKS, check_detail, chosen_models, left_out, of_layer
from workbench.figures.provenance import depth_label, one_layer, story
from workbench.figures.spec import Axis, FigureSpec, Line, Mark, Panel, Points, Rule, Scale, limits
from workbench.results import many, table_rows
from workbench.signatures import Diff


def extraction(diff: Diff, layer: str | None, *, model: str | None = None) -> FigureSpec:
    """What share of Στ² a LoRA of rank r holds, over the rank and over its bytes beside those of τ itself."""
    name, rows, shown = _spectral(diff, "extraction", layer, model)
    by_rank, by_bytes = list[Mark](), list[Mark]()
    size, least = 0, math.inf
    for role, label in zip(LOOKS, shown, strict=False):
        row = rows[label]
        values = diff.singular_change[name][list(rows).index(label)]
        curve = tuple((values.square().cumsum(0) / values.square().sum()).tolist())
        ranks = tuple(float(rank) for rank in range(1, len(curve) + 1))
        each = row["bytes_90"] / row["rank_90"]
        size, least = row["bytes_full"], min(least, each)
        by_rank.append(Line(x=ranks, y=curve, role=role, label=f"{label}: 90 % by rank {row['rank_90']}"))
        by_bytes.append(Line(x=tuple(rank * each for rank in ranks), y=curve, role=role))
    by_bytes.append(Rule(axis="x", value=float(size), label="τ itself"))
    y = Axis(label="share of Στ² held", limits=(0.0, 1.0))
    longest = max(len(mark.x) for mark in by_rank if isinstance(mark, Line))
    scale: Scale = "log" if max(size, longest * least) > 30 * least else "linear"
    ends = limits([least, size, longest * least], scale)
    panels = (
        Panel(
            x=Axis(label="rank r", limits=(0.0, longest + 1.0)), y=y, marks=tuple(by_rank), title=left_out(diff, model)
        ),
        Panel(
            x=Axis(label="bytes of a LoRA of rank r", unit="B", scale=scale, limits=ends), y=y, marks=tuple(by_bytes)
        ),
    )
    return of_layer(diff, "extraction", f"What a LoRA of the change in {name} would hold", panels, name)


def singular(diff: Diff, layer: str | None, *, model: str | None = None) -> FigureSpec:
    """σ(W′) over σ(W), rank by rank, on logarithmic axes; on the diagonal nothing changed."""
    name, rows, shown = _spectral(diff, "singular", layer, model)
    before = diff.singular_before[name].tolist()
    marks: list[Mark] = []
    drawn: list[float] = []
    zeros = 0
    for role, label in zip(LOOKS, shown, strict=False):
        after = diff.singular_after[name][list(rows).index(label)].tolist()
        pairs = [(x, y) for x, y in zip(before, after, strict=True) if x > 0 and y > 0]
        zeros += len(before) - len(pairs)
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            marks.append(Points(x=xs, y=ys, role=role, label=label))
            drawn += [*xs, *ys]
    if not drawn:
        raise FigureError(f"{name} has no singular value that is not zero on both sides.")
    ends = limits(drawn, "log")
    marks.insert(0, Line(x=ends, y=ends, role="reference", label="unchanged"))
    panel = Panel(
        x=Axis(label="σ(W)", scale="log", limits=ends),
        y=Axis(label="σ(W′)", scale="log", limits=ends),
        marks=tuple(marks),
        title="; ".join(filter(None, [f"{zeros} of zero not drawn" if zeros else "", left_out(diff, model)])),
    )
    return of_layer(diff, "singular", f"Singular values of {name} before and after", (panel,), name)


def overlaps(diff: Diff, layer: str | None, *, model: str | None = None) -> FigureSpec:
    """Overlap of τ's leading directions with W's over depth, left and right, beside chance; `layer` is ringed."""
    check_detail(diff, "spectra")
    depths = dict(zip(diff.tables["layers"]["layer"], diff.tables["layers"]["depth"], strict=True))
    rows = [row for row in table_rows(diff.tables["spectra"]) if math.isfinite(row["overlap"])]
    shown = [label for label in chosen_models(diff, model) if any(row["label"] == label for row in rows)]
    if not shown:
        raise FigureError("no layer has directions to compare; see .frame('spectra').")
    if layer is not None:
        diff.row(layer)
    panels = list[Panel]()
    for side, suffix in (("left (outputs)", ""), ("right (inputs)", "_right")):
        marks: list[Mark] = []
        for role, label in zip(LOOKS, shown, strict=False):
            own = [row for row in rows if row["label"] == label]
            marks.append(
                Points(
                    x=tuple(float(depths[row["layer"]]) for row in own),
                    y=tuple(row[f"overlap{suffix}"] for row in own),
                    ids=tuple(row["layer"] for row in own),
                    role=role,
                    label=label,
                )
            )
        chance = {row["layer"]: row[f"chance{suffix}"] for row in rows if row["label"] in shown}
        marks.append(
            Points(
                x=tuple(float(depths[name]) for name in chance), y=tuple(chance.values()), role="muted", label="chance"
            )
        )
        ringed = [row for row in rows if row["layer"] == layer and row["label"] in shown]
        if ringed:
            marks.append(
                Points(
                    x=tuple(float(depths[row["layer"]]) for row in ringed),
                    y=tuple(row[f"overlap{suffix}"] for row in ringed),
                    ids=tuple(row["layer"] for row in ringed),
                    role="accent",
                )
            )
        x = Axis(label=depth_label(diff), unit="matrix layers", limits=limits(depths.values()))
        y = Axis(label=f"overlap, {side}", limits=(0.0, 1.02))
        panels.append(Panel(x=x, y=y, marks=tuple(marks), title=left_out(diff, model) if not panels else ""))
    title = f"Where the change lies: leading directions of τ and W, {many(len(depths), 'layer')}"
    return FigureSpec(kind="overlap", title=title, panels=tuple(panels), provenance=story(diff))


def _spectral(
    diff: Diff, kind: str, layer: str | None, model: str | None
) -> tuple[str, dict[str, dict[str, Any]], list[str]]:
    """The layer, its rows of spectra by model in the order of its tensors, and the models that are drawn."""
    check_detail(diff, "spectra")
    name = one_layer(diff, kind, layer)
    diff.row(name)
    rows = {row["label"]: row for row in table_rows(diff.tables["spectra"]) if row["layer"] == name}
    shown = [label for label in chosen_models(diff, model) if label in rows and rows[label]["rank_90"] > 0]
    if not shown:
        raise FigureError(f"{name} has no spectrum of a change: it is no matrix, or it did not change.")
    return name, rows, shown

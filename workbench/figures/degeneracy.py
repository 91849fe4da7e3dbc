"""The figures of Activations, of an InteractionBasis and of a Degeneracy: spectra, ranks, and weights of directions."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from workbench.degeneracy.activations import Activations
from workbench.degeneracy.audit import Degeneracy
from workbench.degeneracy.basis import PREDICTING, InteractionBasis
from workbench.errors import ArgumentError, FigureError, LayerNotFoundError, nearest
from workbench.figures.provenance import one_layer, story
from workbench.figures.spec import (
    OTHER_ROLE,
    Axis,
    FigureSpec,
    Heat,
    Line,
    Mark,
    Panel,
    Points,
    Rule,
    limits,
    named_ticks,
)
from workbench.results import LayerResult, Result, many, table_rows

LOOKS = ("first", "second", "third", "fourth", "fifth")  # one for each of several layers
FAR = 1e-4  # of the noise floor: rounding below that is off the axis, else it would take most of it
DECADES = 8  # of a heat map's colours: smaller weights have the last one


def activation_spectrum(activations: Activations, layer: str | None) -> FigureSpec:
    """Eigenvalues of one layer's covariance with the noise floor; without a layer, its rank over depth."""
    if layer is None and len(activations.eigenvalues) != 1:
        columns = (("rank", "rank", "first"), ("effective_rank", "effective rank", "second"), ("width", "width", ""))
        return _over_depth(activations, "spectrum", None, columns, "Rank of the covariance of activations")
    name = next(iter(activations.eigenvalues)) if layer is None else layer
    row = activations.row(name)
    if name not in activations.eigenvalues:
        raise FigureError(f"{name!r} has no spectrum: {row['reason']}")
    panel = _spectrum("Σ = E[(f−μ)(f−μ)ᵀ]", activations.eigenvalues[name].tolist(), row["noise_floor"], None)
    title = f"Eigenvalues of the covariance of activations, layer {name}"
    return FigureSpec(kind="spectrum", title=title, panels=(panel,), provenance=story(activations))


def ranks(degeneracy: Degeneracy, layer: str | None) -> FigureSpec:
    """Ranks of G and M′ and the width of every layer over depth; `layer` is ringed."""
    columns = (
        ("activation_rank", "r_G of activations", "first"),
        ("gradient_rank", "r_M′ of gradients", "second"),
        ("width", "width d", ""),
    )
    return _over_depth(degeneracy, "ranks", layer, columns, "Ranks of activations and gradients")


def spectra(degeneracy: Degeneracy, layer: str | None, *, threshold: float | None = None) -> FigureSpec:
    """Eigenvalues of G and M′ of one layer with their noise floors; a share of the largest as a second threshold."""
    name = one_layer(degeneracy, "spectra", layer)
    row = degeneracy.row(name)
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1
    ):
        raise ArgumentError(f"threshold={threshold!r}: expected a share of the largest eigenvalue, above 0, at most 1.")
    parts = (
        ("G = E[ffᵀ]", degeneracy.activation_eigenvalues, row["activation_floor"]),
        ("M′ = E[JᵀJ]", degeneracy.gradient_eigenvalues, row["gradient_floor"]),
    )
    panels = tuple(
        _spectrum(what, values[name].tolist(), floor, threshold) for what, values, floor in parts if name in values
    )
    if not panels:
        raise FigureError(f"{name!r} has no spectra: {row['reason'] or row['verdict']}")
    title = f"Spectra of activations and gradients, layer {name}"
    return FigureSpec(kind="spectra", title=title, panels=panels, provenance=story(degeneracy))


def weights(basis: InteractionBasis, layer: str | None, *, direction: int | None = None) -> FigureSpec:
    """Λ of one layer by direction with the number of nodes predicted; without a layer, of all layers, each by its Λmax.

    `direction` of the layer is ringed.
    """
    if not basis.layers:
        raise FigureError("the basis has no layer: the run was cancelled before the first.")
    if layer is None:
        if direction is not None:
            raise ArgumentError(f"direction={direction!r} is of one layer: say which, as in layer={basis.layers[0]!r}.")
        return _all_weights(basis)
    found = basis.weights(layer).tolist()
    if not any(weight > 0 for weight in found):
        raise FigureError(f"{layer!r} has no direction with a weight above 0: {_reason(basis, layer)}")
    if direction is not None and (not isinstance(direction, int) or not 1 <= direction <= len(found)):
        raise ArgumentError(f"direction={direction!r}: expected 1 to {len(found)}; {layer!r} has no other.")
    predicted = basis.predicted_nodes(layer)
    cut = PREDICTING * max(found)
    above = [(float(n), w) for n, w in enumerate(found, start=1) if w > cut]
    below = [(float(n), w) for n, w in enumerate(found, start=1) if 0 < w <= cut]
    marks: list[Mark] = [
        *_dots(above, "first", f"Λ > {PREDICTING:g}·Λmax: likely needed", layer),
        *_dots(below, "muted", "smaller", layer),
        Rule(
            axis="x",
            value=predicted - 0.5,
            role="fit",
            label=f"{many(predicted, 'node')} predicted, the constant with them",
        ),
    ]
    if direction is not None and found[direction - 1] > 0:
        ring = (float(direction), found[direction - 1])
        marks.append(Points(x=ring[:1], y=ring[1:], ids=(f"{layer}[{direction}]",), role="accent"))
    panel = Panel(
        x=Axis(label="direction", limits=limits([1.0, float(len(found)), predicted - 0.5])),
        y=Axis(label="Λ", scale="log", limits=limits(found, "log")),
        marks=tuple(marks),
        title=_undrawn(found),
    )
    title = f"Weights Λ of {many(len(found), 'direction')}, layer {layer}, {_kind(basis)} basis"
    return FigureSpec(kind="weights", title=title, panels=(panel,), provenance=story(basis))


def _all_weights(basis: InteractionBasis) -> FigureSpec:
    shares: dict[str, list[float]] = {}
    for layer in basis.layers:
        found = basis.weights(layer).tolist()
        if any(weight > 0 for weight in found):
            shares[layer] = [weight / max(found) for weight in found]
    if not shares:
        raise FigureError("no layer has a direction with a weight above 0; see .frame('layers').reason.")
    longest = max(map(len, shares.values()))
    title = f"Weights Λ of {many(len(shares), 'layer')}, {_kind(basis)} basis"
    if len(shares) > len(LOOKS):
        panel = _weights_map(shares, longest)
    else:
        marks: list[Mark] = [Rule(axis="y", value=PREDICTING)]
        for role, (layer, own) in zip(LOOKS, shares.items(), strict=False):
            drawn = [(float(n), share) for n, share in enumerate(own, start=1) if share > 0]
            x, y = zip(*drawn, strict=True)
            label = f"{layer}: {basis.predicted_nodes(layer)} of {len(own) + 1} nodes predicted"
            marks += [Line(x=x, y=y, role=role), Points(x=x, y=y, ids=(layer,) * len(x), role=role, label=label)]
        panel = Panel(
            x=Axis(label="direction", scale="log", limits=limits([1.0, float(longest)], "log")),
            y=Axis(label="Λ / Λmax", scale="log", limits=limits([s for own in shares.values() for s in own], "log")),
            marks=tuple(marks),
            title=_undrawn([share for own in shares.values() for share in own]),
        )
    return FigureSpec(kind="weights", title=title, panels=(panel,), provenance=story(basis))


def _weights_map(shares: dict[str, list[float]], longest: int) -> Panel:
    """Layers by direction: more lines than looks would be told apart by nothing."""
    rows = tuple(
        tuple(max(math.log10(s), -DECADES) if s > 0 else math.nan for s in own) + (math.nan,) * (longest - len(own))
        for own in shares.values()
    )
    x = tuple(n + 0.5 for n in range(longest + 1))
    y = tuple(n - 0.5 for n in range(len(shares) + 1))
    heat = Heat(x=x, y=y, values=rows, limits=(-float(DECADES), 0.0), label="log₁₀ Λ/Λmax")
    return Panel(
        x=Axis(label="direction", limits=(x[0], x[-1])),
        y=Axis(label="", limits=(y[0], y[-1]), descending=True, ticks=named_ticks(list(shares), 16)),
        marks=(heat,),
    )


def _spectrum(what: str, values: Sequence[float], floor: float, threshold: float | None) -> Panel:
    """Eigenvalues by their number, those under the floor apart."""
    places = [(float(n), value) for n, value in enumerate(values, start=1) if value > 0]
    rank = sum(value > floor for value in values)
    largest = max(values, default=0.0)
    told = [f"rank {rank} of {len(values)}"]
    lines = [floor] if math.isfinite(floor) and floor > 0 else []
    marks: list[Mark] = [
        *_dots([place for place in places if place[1] > floor], "first", "above the noise floor"),
        *_dots([place for place in places if place[1] <= floor], "muted", "rounding"),
        *(Rule(axis="y", value=value, label="noise floor") for value in lines),
    ]
    if threshold is not None and largest > 0:
        lines.append(threshold * largest)
        marks.append(Rule(axis="y", value=lines[-1], role="fit", label=f"{threshold:.3g} of the largest"))
        told.append(f"{sum(value > lines[-1] for value in values)} above {threshold:.3g}")
    seen = [value for _, value in places if not lines or value > FAR * lines[0]]
    return Panel(
        x=Axis(label="number", limits=limits([1.0, float(len(values))])),
        y=Axis(label=f"eigenvalue of {what}", scale="log", limits=limits([*seen, *lines], "log")),
        marks=tuple(marks),
        title="; ".join(told),
    )


def _over_depth(
    result: LayerResult, kind: str, layer: str | None, columns: Iterable[tuple[str, str, str]], title: str
) -> FigureSpec:
    rows = [row for row in table_rows(result.tables["layers"]) if row["width"]]
    names = [row["layer"] for row in rows]
    if not rows:
        raise FigureError("no layer was measured; see .frame().reason.")
    if layer is not None and layer not in names:
        raise LayerNotFoundError(f"the figure has no layer {layer!r}.{nearest(layer, names)}")
    marks: list[Mark] = []
    drawn: list[float] = []
    for column, label, role in columns:
        found = [(float(place), float(row[column])) for place, row in enumerate(rows) if math.isfinite(row[column])]
        if found:
            x, y = zip(*found, strict=True)
            look, ids = role or OTHER_ROLE, tuple(names[int(place)] for place in x)
            marks += [Line(x=x, y=y, role=look), Points(x=x, y=y, ids=ids, role=look, label=label)]
            drawn += y
            if layer is not None and layer in ids and role == "first":
                ring = ids.index(layer)
                marks.append(Points(x=(x[ring],), y=(y[ring],), ids=(layer,), role="accent"))
    panel = Panel(
        x=Axis(label="layer", limits=limits(range(len(rows))), ticks=named_ticks(names, 10, 16)),
        y=Axis(label="directions", limits=limits([0.0, *drawn])),
        marks=tuple(marks),
    )
    title = f"{title}, {many(len(rows), 'layer')}"
    return FigureSpec(kind=kind, title=title, panels=(panel,), provenance=story(result))


def _dots(places: Sequence[tuple[float, float]], role: str, label: str, layer: str = "") -> list[Points]:
    if not places:
        return []
    x, y = zip(*places, strict=True)
    ids = tuple(f"{layer}[{int(number)}]" for number in x) if layer else ()
    return [Points(x=x, y=y, ids=ids, role=role, label=label)]


def _undrawn(found: Sequence[float]) -> str:
    missing = sum(weight <= 0 for weight in found)
    return f"not drawn: {missing} with Λ = 0" if missing else ""


def _reason(basis: InteractionBasis, layer: str) -> str:
    table: Any = basis.tables["layers"]
    return str(table["reason"][table["layer"].index(layer)]) or "it has none"


def _kind(basis: Result) -> str:
    return str(basis.meta["parameters"]["kind"])

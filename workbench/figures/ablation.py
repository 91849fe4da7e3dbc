"""The figure of an Ablation: loss and accuracy by the number of nodes or edges that are kept."""

import math
from collections.abc import Mapping, Sequence

from workbench.degeneracy.ablation import Ablation
from workbench.errors import FigureError
from workbench.figures.provenance import no_layer, story
from workbench.figures.spec import Axis, FigureSpec, Line, Mark, Panel, Points, Rule, Scale, limits
from workbench.results import many

CURVES = ("first", "second", "third", "fourth", "fifth")  # one for each of several ablations
WIDE = 200  # from this many nodes or edges on the axis is logarithmic: what is needed is few of many


def curve(ablation: Ablation | Mapping[str, Ablation], layer: str | None) -> FigureSpec:
    """Loss and accuracy by what is kept, beside the network's own; what is needed is ringed, what Λ predicts a rule.

    Several by label, as of two bases of one layer.
    """
    no_layer("ablation", layer)
    named = {"": ablation} if isinstance(ablation, Ablation) else dict(ablation)
    if len(named) > len(CURVES):
        raise FigureError(
            f"{len(named)} ablations in one figure: it shows {len(CURVES)} at most; draw several figures."
        )
    first, *others = named.values()
    if any(one.meta["unit"] != first.meta["unit"] for one in others):
        raise FigureError("nodes and edges in one figure: they are not counted alike; draw two figures.")
    panels = []
    some = any(kept > 0 for one in named.values() for kept in one.tables["points"]["kept"])
    scale: Scale = "log" if some and max(one.total for one in named.values()) > WIDE else "linear"
    for column in ("loss", "accuracy"):
        if marks := _marks(named, column, scale):
            panels.append(_panel(named, column, marks, scale))
    if not panels:
        raise FigureError("no loss of this ablation is a finite number; see .frame().reason.")
    parts = [story(one) for one in named.values()]
    provenance = {key: "; ".join(dict.fromkeys(part[key] for part in parts)) for key in parts[0]}
    return FigureSpec(kind="ablation", title=_headline(named), panels=tuple(panels), provenance=provenance)


def _headline(named: Mapping[str, Ablation]) -> str:
    one = next(iter(named.values()))
    unit, layers = one.meta["unit"], dict.fromkeys(each.meta["layer"] for each in named.values())
    of = f"{unit} of {' and '.join(layers)}"
    return f"{one.needed} of {one.total} {of} needed" if len(named) == 1 else f"{of.capitalize()} that are kept"


def _marks(named: Mapping[str, Ablation], column: str, scale: Scale) -> list[Mark]:
    """The curves of one panel; none where no number is finite."""
    marks: list[Mark] = []
    rules: dict[float, Mark] = {}
    for role, (label, one) in zip(CURVES, named.items(), strict=False):
        table = one.tables["points"]
        shown = [
            (float(kept), value)
            for kept, value in zip(table["kept"], table[column], strict=True)
            if math.isfinite(value) and (kept > 0 or scale == "linear")
        ]
        if not shown:
            continue
        x, y = (tuple(place) for place in zip(*shown, strict=True))
        name = f"{label}: {one.needed} needed" if label else "ablated"  # one entry for the curves of both panels
        marks.append(Line(x=x, y=y, role=role, label=name))
        ids = tuple(many(int(kept), one.meta["unit"].removesuffix("s")) for kept in x)
        marks.append(Points(x=x, y=y, role=role, ids=ids))
        if column == one.meta["parameters"]["metric"] and float(one.needed) in x:
            at = (float(one.needed),), (y[x.index(one.needed)],)
            marks.append(Points(x=at[0], y=at[1], role="accent", label="" if label else f"{one.needed} needed"))
        own = one.unablated.get(column, math.nan)
        if math.isfinite(own):
            rules.setdefault(own, Rule(axis="y", value=own, label="" if rules else "unablated"))
        predicted = one.meta["predicted"]
        if predicted is not None and not label:
            marks.append(Rule(axis="x", value=float(predicted), role="fit", label=f"{predicted} predicted by Λ"))
    return [*rules.values(), *marks] if marks else []


def _panel(named: Mapping[str, Ablation], column: str, marks: Sequence[Mark], scale: Scale) -> Panel:
    points = [mark for mark in marks if isinstance(mark, Points)]
    level = [mark.value for mark in marks if isinstance(mark, Rule) and mark.axis == "y"]
    across = [mark.value for mark in marks if isinstance(mark, Rule) and mark.axis == "x"]
    return Panel(
        x=Axis(
            label=f"{next(iter(named.values())).meta['unit']} kept",
            scale=scale,
            limits=limits([*across, *(x for mark in points for x in mark.x)], scale),
        ),
        y=Axis(label=column, limits=_across([*level, *(y for mark in points for y in mark.y)], column)),
        marks=tuple(marks),
        title=_with_none(named, column) if scale == "log" else "",
    )


def _with_none(named: Mapping[str, Ablation], column: str) -> str:
    """What a logarithmic axis has no place for: the numbers where nothing is kept, and where that is enough."""
    told = []
    for label, one in named.items():
        value = dict(zip(one.tables["points"]["kept"], one.tables["points"][column], strict=True)).get(0)
        if value is not None:
            enough = ", which is enough" if one.needed == 0 and column == one.meta["parameters"]["metric"] else ""
            told.append((f"{label}: " if label else "") + f"{column} {value:.3g} with none{enough}")
    return "; ".join(told)


def _across(values: Sequence[float], column: str) -> tuple[float, float]:
    """Limits that hold the values, and do not make a difference of what is none; an accuracy is not beyond 0 and 1."""
    low, high = limits(values)
    share = column == "accuracy"
    least = 0.02 if share else 1e-3 * max(map(abs, values)) or 1.0
    if max(values) - min(values) < least:
        middle = (max(values) + min(values)) / 2
        low, high = middle - 0.6 * least, middle + 0.6 * least
        if share and 0 <= middle <= 1:
            shift = max(-0.1 * least - low, 0.0) - max(high - 1 - 0.1 * least, 0.0)
            low, high = low + shift, high + shift
    return low, high

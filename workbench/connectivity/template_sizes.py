"""The sizes of a template's groups, solved from a checkpoint's shapes, and the groups with their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from workbench.connectivity.layout import Concatenation, Leaf, Node, groups_of, joined, multiplied, parsed
from workbench.connectivity.resolution import Group, Resolved
from workbench.connectivity.template_tables import FROZEN, KEPT, WITHIN, WORD
from workbench.errors import ArgumentError


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text of an axis with other names for its groups."""
    return WORD.sub(lambda found: names.get(found[0], found[0]), text)


def _solved(
    axes: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], source: str
) -> dict[str, int]:
    """Group → number of units: every axis is an equation, solved once all but one of its groups are known."""
    waiting = []
    units = dict(sizes)
    for tensor, texts in axes.items():
        if len(texts) != len(shapes[tensor]):
            raise ArgumentError(
                f"{source} has {tensor!r} of the shape {list(shapes[tensor])}; the template expects {len(texts)} axes."
            )
        for axis, (text, size) in enumerate(zip(texts, shapes[tensor], strict=True)):
            if text not in KEPT:
                waiting.append((tensor, axis, text, size))
                units |= {word: sizes[_role(word)] for word in WORD.findall(text) if _role(word) in sizes}
    while waiting:
        left = []
        for tensor, axis, text, size in waiting:
            unknown = {word for word in WORD.findall(text) if word not in units}
            if len(unknown) > 1:
                left.append((tensor, axis, text, size))
                continue
            here = {word: units.get(word, 0) for word in WORD.findall(text)}
            base = parsed(text, here).size
            rest = size - base
            for word in unknown:
                units[word], rest = divmod(rest, parsed(text, here | {word: 1}).size - base)
            if rest or any(units[word] < 1 for word in unknown):
                told = ", ".join(f"{_role(word)} = {here[word]}" for word in here if word not in unknown)
                raise ArgumentError(
                    f"{source} has {tensor!r} of the shape {list(shapes[tensor])}; the template reads axis {axis} as "
                    f"{renamed(text, {word: _role(word) for word in here})}{' with ' if told else ''}{told}, which "
                    "does not fit: it is of another architecture, or the number of heads is another."
                )
        if len(left) == len(waiting):
            raise ArgumentError(f"{source}: the groups of {left[0][0]!r} cannot be told, because tensors are missing.")
        waiting = left
    for role in WITHIN.keys() | FROZEN.keys():
        if len({size for word, size in units.items() if _role(word) == role}) > 1:
            raise ArgumentError(f"{source}: heads have other sizes in other layers; pass the module instead.")
    return units


def _role(word: str) -> str:
    return word.partition("@")[0]


def resolved_axes(
    axes: Mapping[str, tuple[str, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    frozen: Mapping[str, str],
    places: Mapping[str, int],
    source: str,
) -> Resolved:
    """Groups and layouts of a checkpoint.

    Args:
        axes: tensor → text of each axis.
        shapes: tensor → shape.
        sizes: group, or its word in the template → number of units, where it is known.
        frozen: group → why it keeps its order.
        places: tensor → place of its row in the template, by which groups are named.
        source: for messages.
    """
    units = _solved(axes, shapes, sizes, source)
    frozen = {word: FROZEN[_role(word)] for word in units if _role(word) in FROZEN} | dict(frozen)
    free = {word for word, size in units.items() if size > 1 and word not in frozen}
    names = _names(axes, free, places)
    layouts, reasons = {}, {}
    for tensor, texts in axes.items():
        nodes, why = [], []
        for text, size in zip(texts, shapes[tensor], strict=True):
            words = [word for word in dict.fromkeys(WORD.findall(text)) if units.get(word, size) > 1]
            nodes.append(Leaf(size) if text in KEPT else _settled(parsed(text, units), names))
            told = dict.fromkeys(KEPT.get(word) or frozen.get(word, "") for word in words)
            why.append("; ".join(reason for reason in told if reason))
        layouts[tensor], reasons[tensor] = tuple(nodes), tuple(why)
    origin = {name: word for word, name in names.items()}
    groups = {}
    for name in dict.fromkeys(name for layout in layouts.values() for name in groups_of(layout)):
        role, at, layer = origin[name].partition("@")
        outer = names.get(WITHIN.get(role, "") + at + layer, "")
        groups[name] = Group(name=name, size=units[origin[name]], within=outer)
    return Resolved(groups=groups, layouts=layouts, reasons=reasons)


def _names(axes: Mapping[str, tuple[str, ...]], free: set[str], places: Mapping[str, int]) -> dict[str, str]:
    """Names as from a trace: after the first module that has the group, with its role where there are several."""
    homes: dict[str, str] = {}
    for tensor in sorted(places, key=lambda one: places[one]):
        for word in (word for text in axes[tensor] for word in WORD.findall(text) if word in free):
            homes.setdefault(word, tensor.rpartition(".")[0])
    several = Counter(homes.values())
    return {
        word: f"{home}:{_role(word)}" if several[home] > 1 or _role(word) in WITHIN else home
        for word, home in homes.items()
    }


def _settled(node: Node, names: Mapping[str, str]) -> Node:
    """A node with the names of groups; what keeps its order has none, and factors of one unit are left out."""
    if isinstance(node, Leaf):
        return Leaf(node.size, names.get(node.group or ""))
    parts = [_settled(part, names) for part in node.parts]
    if isinstance(node, Concatenation):
        return joined(parts)
    return multiplied([part for part in parts if part.size > 1] or [Leaf(1)])

"""Which row of a template every tensor of a checkpoint has, and which tensors are one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from workbench.connectivity.template_tables import KEPT, WORD, Template
from workbench.errors import ArgumentError, nearest
from workbench.weights import Weights

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the table says of one tensor: pattern and text, its place, the layer's number, whether it is a head's."""

    pattern: str
    text: str
    place: int
    layer: str = ""
    head: bool = False


class Book:
    """A template's rows, looked up by the tensors' names."""

    def __init__(self, table: Template, prefix: str) -> None:
        self.table, self.prefix = table, prefix
        upper, dot, _ = prefix[:-1].rpartition(".")
        self.above = upper + dot  # where heads are
        self.rows: dict[str, Row] = {}
        for start, rows, head in (
            (prefix, table.rows, False),
            (self.above, table.head_rows, True),
            (prefix, table.head_rows, True),
        ):
            for pattern, text in rows.items():
                for name in _alternatives(pattern):
                    self.rows.setdefault(
                        start + name, Row(pattern=start + name, text=text, place=len(self.rows), head=head)
                    )
        everywhere = [text for pattern, text in {**table.rows, **table.head_rows}.items() if "*" not in pattern]
        self.shared = {word for text in everywhere for word in WORD.findall(text)}

    def row(self, tensor: str, source: str) -> Row:
        """The row of a tensor; refused by name if there is none."""
        if tensor in self.rows:
            return self.rows[tensor]
        inner = tensor.removeprefix(self.prefix)
        number = NUMBER.search(inner)
        pattern = self.prefix + NUMBER.sub("*", inner, count=1)
        if number is None or not tensor.startswith(self.prefix) or pattern not in self.rows:
            raise ArgumentError(
                f"{source} has the tensor {tensor!r}, which the template does not know, so its groups could be wrong: "
                f"pass the module, or a mapping without it if it is no part of the network."
                f"{nearest(pattern, self.rows)}"
            )
        return replace(self.rows[pattern], layer=number[0])

    def full(self, name: str) -> str:
        """A name of the table with its prefix."""
        one = self.rows.get(self.prefix + name)
        return (self.prefix if one is not None and not one.head else self.above) + name

    def texts(self, row: Row) -> list[str]:
        """The axes of a row, groups of a layer told apart by its number."""

        def word(found: re.Match[str]) -> str:
            own = found[0] not in self.shared and found[0] not in KEPT
            return f"{found[0]}@{row.layer}" if own else found[0]

        return [WORD.sub(word, text.strip()) for text in row.text.split(",")]


def _alternatives(pattern: str) -> Iterator[str]:
    """A pattern without (a|b): every choice, in order."""
    found = re.search(r"\(([^()]*)\)", pattern)
    if found is None:
        yield pattern
        return
    for choice in found[1].split("|"):
        yield from _alternatives(pattern[: found.start()] + choice + pattern[found.end() :])


def check_layers(rows: Mapping[str, Row], source: str) -> None:
    """Every layer must have what any layer has: else a group would be permuted on one side only."""
    layers = dict.fromkeys(row.layer for row in rows.values() if row.layer)
    held = defaultdict(set)
    for row in rows.values():
        if row.layer:
            held[row.pattern].add(row.layer)
    for pattern, present in held.items():
        if lacking := next((layer for layer in layers if layer not in present), None):
            raise ArgumentError(
                f"{source} lacks {pattern.replace('*', lacking)!r}, which other layers have: it is not whole."
            )


def ties(
    book: Book,
    weights: Weights,
    axes: dict[str, tuple[str, ...]],
    shapes: dict[str, tuple[int, ...]],
    frozen: dict[str, str],
    tied_head: bool,
) -> tuple[dict[str, str], dict[str, str]]:
    """Further name → first name, and group → the group that it is by a tie; tied names left out are added."""
    pairs = {info.name: info.tied_to for info in weights.infos.values() if info.tied_to}
    for short, target in book.table.ties.items():
        further, first = book.full(short), book.full(target)
        if further in axes and first in axes:
            own = axes[further], axes[first]
            if further not in pairs and _differ(*own) and torch.equal(weights[further], weights[first]):
                pairs[further] = first
        elif further in axes or first in axes:
            owner = short.rpartition(".")[0].rpartition(".")[0]
            if tied_head or (owner and any(name.startswith(f"{book.above}{owner}.") for name in axes)):
                here, gone = (further, first) if further in axes else (first, further)
                axes[gone], shapes[gone] = tuple(book.texts(book.rows[gone])), shapes[here]
                pairs[further] = first
    aliases: dict[str, str] = {}
    for further, first in pairs.items():
        for one, other in zip(axes[further], axes[first], strict=True):
            if one == other or {one, other} <= KEPT.keys():
                continue
            if WORD.fullmatch(one) and WORD.fullmatch(other) and not {one, other} & KEPT.keys():
                aliases[one] = other
                if one in frozen:
                    frozen.setdefault(other, frozen[one])
            else:
                frozen |= {word: f"{further} is {first}, read in two ways" for word in WORD.findall(f"{one}*{other}")}
        axes[further] = axes[first]
    return pairs, aliases


def _differ(one: Sequence[str], other: Sequence[str]) -> bool:
    return any(a != b and not {a, b} <= KEPT.keys() for a, b in zip(one, other, strict=True))

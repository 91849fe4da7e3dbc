"""Permutation groups of a checkpoint without code, from what is known of its architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.connectivity.resolution import Resolved
from workbench.connectivity.template_rows import Book, Row, check_layers, ties
from workbench.connectivity.template_sizes import renamed, resolved_axes
from workbench.connectivity.template_tables import BUFFER, TEMPLATES, WORD, Template
from workbench.connectivity.tracing import Trace
from workbench.errors import ArgumentError, CheckpointError, nearest
from workbench.weights import Weights
from workbench.weights.files import weight_file
from workbench.weights.hub import HUB


@dataclass(frozen=True, kw_only=True)
class FromTemplate:
    """What a template says of one checkpoint.

    Attributes:
        name: of the template.
        found: groups and layouts, as from a trace.
        trace: ties and buffers, as from a trace.
        shapes: of every tensor that has a layout; tied ones that the checkpoint leaves out are among them.
        heads: the number of heads that was used; None if the architecture has none.
        notes: what was taken for granted.
    """

    name: str
    found: Resolved
    trace: Trace
    shapes: Mapping[str, tuple[int, ...]]
    heads: int | None
    notes: tuple[str, ...]


def from_template(
    weights: Weights, template: str | None = None, outputs: Sequence[str | int] | None = None, heads: int | None = None
) -> FromTemplate:
    """The groups that a template gives; see `permutation_groups` for the arguments.

    Raises:
        ArgumentError: no template fits, or several; a tensor is not in it, or has another shape; the number of heads
            is needed or does not fit; the checkpoint lacks a layer's tensor; there is no such output.
        CheckpointError: the config.json beside the checkpoint is damaged.
    """
    name, prefix = _told(weights, template)
    shapes = {info.name: info.shape for info in weights.infos.values()}
    table = TEMPLATES[name]
    if table.fitted:
        inner = {one.removeprefix(prefix): shape for one, shape in shapes.items() if one.startswith(prefix)}
        table = table.fitted(table, inner)
    config = config_beside(weights)
    count = _number_of_heads(table, config, heads, weights.source)
    sizes = dict(table.sizes)
    if count:
        shared = sizes.get("queries", 1)
        if count % shared:
            raise ArgumentError(f"heads={count}: {shared} queries share a key and value here; expected a multiple.")
        sizes["heads"] = count // shared
    book = Book(table, prefix)
    rows = {tensor: book.row(tensor, weights.source) for tensor in shapes}
    check_layers(rows, weights.source)
    headed, tied_head = _head(table, rows, prefix, config, outputs)
    axes = _axes(book, rows, shapes, config)
    frozen = _held(table, axes, outputs, headed)
    tied, aliases = ties(book, weights, axes, shapes, frozen, tied_head)
    places = {tensor: row.place for tensor, row in rows.items()}
    axes = {tensor: tuple(renamed(text, aliases) for text in texts) for tensor, texts in axes.items()}
    found = resolved_axes(axes, shapes, sizes, frozen, places, weights.source)
    buffers = {tensor for tensor, row in rows.items() if row.text == BUFFER or ".running_" in tensor}
    notes = [*table.notes]
    if table.tied_head and not any(row.head for row in rows.values()):
        notes.append(
            f"no head is stored: taken as tied to {prefix}{next(iter(table.ties.values()))}"
            if tied_head
            else "no head is stored, so the last hidden state keeps its order; outputs='logits' if a head is tied"
        )
    return FromTemplate(
        name=name,
        found=found,
        trace=Trace(tied=tied, buffers=buffers),
        shapes=shapes,
        heads=count,
        notes=tuple(notes),
    )


def _told(weights: Weights, template: str | None) -> tuple[str, str]:
    """Which template fits, and the prefix of the names."""
    known = ", ".join(f"{name!r} (it has {table.signs[0]})" for name, table in TEMPLATES.items())
    if template is not None and template not in TEMPLATES:
        raise ArgumentError(f"template={template!r}: the templates are {known}.{nearest(template, TEMPLATES)}")
    fitting = [
        (name, prefix)
        for name, table in TEMPLATES.items()
        if template in (None, name)
        for prefix in (one.removesuffix(table.signs[0]) for one in weights if one.endswith(table.signs[0]))
        if (not prefix or prefix.endswith(".")) and all(prefix + sign in weights for sign in table.signs)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        listed = ", ".join(f"{name!r} at {prefix or 'the top'}" for name, prefix in fitting)
        raise ArgumentError(
            f"{weights.source} fits several templates or one several times ({listed}): pass its module, or a mapping "
            "of the tensors of one of the networks."
        )
    wanted = "no template" if template is None else f"template={template!r} does not"
    raise ArgumentError(
        f"{weights.source}: {wanted} fit{'s' if template is None else ''} its names ({', '.join(list(weights)[:3])}, "
        f"…). The templates are {known}; for any other architecture pass the module and example_inputs."
    )


def config_beside(weights: Weights) -> Mapping[str, Any]:
    """The config.json in the folder of a checkpoint; empty where there is none."""
    file = weight_file(weights.source) if weights.source.startswith(HUB) else Path(weights.source)
    config = file.with_name("config.json")
    if not file.is_file() or not config.is_file():
        return {}
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(str(config), None, f"cannot be read: {error}") from error
    return found if isinstance(found, Mapping) else {}


def _number_of_heads(table: Template, config: Mapping[str, Any], heads: int | None, source: str) -> int | None:
    if not table.heads:
        if heads is not None:
            raise ArgumentError(f"heads={heads!r}: this architecture has no attention heads; leave it out.")
        return None
    stated = config.get(table.heads)
    if heads is not None and stated is not None and heads != stated:
        raise ArgumentError(f"heads={heads!r}, but the config.json of {source} has {table.heads}={stated!r}.")
    if config.get("pruned_heads"):
        raise ArgumentError(f"{source} has pruned heads, which differ from layer to layer: pass the module instead.")
    count = stated if heads is None else heads
    if count is None:
        raise ArgumentError(
            f"{source}: the number of attention heads cannot be told from shapes: pass heads=, the number of query "
            f"heads of a layer ({table.heads!r} in the model's config.json; 12 in the base sizes)."
        )
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError(f"heads={count!r}: expected a positive integer.")
    return count


def _head(
    table: Template,
    rows: Mapping[str, Row],
    prefix: str,
    config: Mapping[str, Any],
    outputs: Sequence[str | int] | None,
) -> tuple[bool, bool]:
    """Whether a head reads the stream, and whether it is one that is tied and not stored."""
    if any(row.head for row in rows.values()):
        return True, False
    if not table.tied_head:
        return False, False
    if classes := config.get("architectures"):
        named = any(one.endswith(("LMHeadModel", "ForCausalLM")) for one in classes)
    else:
        named = f".{prefix}".endswith(f".{table.tied_head}")
    asked = outputs is not None and "logits" in outputs
    tied = asked or (named and config.get("tie_word_embeddings") is not False)
    return tied, tied


def _axes(
    book: Book, rows: Mapping[str, Row], shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Tensor → text of each axis; `a|b` is settled."""
    present = {word for row in rows.values() if "|" not in row.text for word in WORD.findall(row.text)}
    if any(one.endswith("ForTokenClassification") for one in config.get("architectures") or ()):
        present.discard("pooled")  # older checkpoints hold a pooler that this head does not read
    found = {}
    for tensor, row in rows.items():
        texts = len(shapes[tensor]) * [BUFFER] if row.text == BUFFER else book.texts(row)
        found[tensor] = tuple(
            next((word for word in text.split("|")[:-1] if word in present), text.split("|")[-1]) for text in texts
        )
    return found


def _held(
    table: Template, axes: Mapping[str, tuple[str, ...]], outputs: Sequence[str | int] | None, headed: bool
) -> dict[str, str]:
    """Group → the output for which it keeps its order."""
    words = {word for texts in axes.values() for text in texts for word in WORD.findall(text)}
    given = {name: text for name, text in table.outputs.items() if words.issuperset(WORD.findall(text))}
    known = [*(["logits"] if headed else []), *given]
    wanted = (known[:1] if headed else known) if outputs is None else list(map(str, outputs))
    if unknown := next((name for name in wanted if name not in known), None):
        raise ArgumentError(f"outputs has {unknown!r}: the template gives {', '.join(map(repr, known))}.")
    return {word: f"output {name}" for name in wanted if name in given for word in WORD.findall(given[name])}

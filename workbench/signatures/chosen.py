"""Which whole tensors a choice of layers means: a layer's bias and gain go with its weight."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from workbench.errors import ArgumentError, LayerNotFoundError, nearest
from workbench.layers import Selection, layer_views
from workbench.weights import Weights


def chosen(weights: Weights, layers: Selection) -> list[str]:
    """The tensors that a choice means, in order; one that is tied to a chosen one is chosen with it.

    Args:
        weights: what is chosen from.
        layers: None for all; names or globs of modules (all tensors of `conv1`), of layer ids or of tensors; or a
            predicate of a Layer or Exclusion, as in `wb.layers`.

    Raises:
        LayerNotFoundError: a name, a glob or the predicate matches nothing.
        ArgumentError: it is none of these, or chooses a part of a tensor only.
    """
    if layers is None:
        return list(weights)
    views = layer_views(weights)
    ids: dict[str, set[str]] = {}  # tensor → the ids of its layer, or of its parts
    for view in views:
        ids.setdefault(view.tensor, set()).add(view.layer)
    if callable(layers):
        taken = {view.layer for view in views if layers(view)}
        if not taken:
            raise LayerNotFoundError(f"the predicate holds for none of the {len(ids)} tensors of {weights.source}.")
        return _whole(weights, {name: own & taken for name, own in ids.items() if own & taken}, ids)
    patterns = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, Iterable) else [layers]
    if wrong := [pattern for pattern in patterns if not isinstance(pattern, str)]:
        raise ArgumentError(f"layers={wrong[0]!r}: expected a name, a glob, a list of them, a predicate or None.")
    if not patterns:
        raise LayerNotFoundError("an empty list of layers selects nothing; use layers=None for all.")
    found: dict[str, set[str]] = {}
    for pattern in patterns:
        matched = {name: parts for name, own in ids.items() if (parts := _matched(name, own, pattern))}
        if not matched:
            known = {one for name, own in ids.items() for one in (name, name.rpartition(".")[0], *own)}
            raise LayerNotFoundError(
                f"no tensor of {weights.source} matches {pattern!r}." + nearest(pattern, sorted(known))
            )
        for name, own in matched.items():
            found.setdefault(name, set()).update(own)
    return _whole(weights, found, ids)


def _matched(name: str, parts: set[str], pattern: str) -> set[str]:
    """All parts of a tensor where the pattern is of it or its module, else those that it is of."""
    if any(fnmatchcase(one, pattern) for one in (name, name.rpartition(".")[0])):
        return parts
    return {part for part in parts if fnmatchcase(part, pattern)}


def _whole(weights: Weights, found: dict[str, set[str]], ids: dict[str, set[str]]) -> list[str]:
    for name, own in found.items():
        if left := sorted(ids[name] - own):
            raise ArgumentError(f"{left[0]!r} is another part of {name!r}: whole tensors are chosen; choose {name!r}.")
    first = {name: info.tied_to or name for name, info in weights.infos.items()}
    taken = {first[name] for name in found}
    return [name for name in weights if first[name] in taken]

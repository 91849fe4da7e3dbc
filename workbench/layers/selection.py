"""Choosing layers by name, glob or predicate, with an answer to every typo."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from typing import Any, TypeAlias, TypeVar

from workbench.errors import ArgumentError, LayerNotFoundError, nearest
from workbench.layers.views import Exclusion, Layer, layer_list

Selection: TypeAlias = str | Sequence[str] | Callable[[Any], bool] | None
View = TypeVar("View", Layer, Layer | Exclusion)


def selected(views: Sequence[Layer | Exclusion], layers: Selection, source: str) -> list[Layer]:
    """The layers that a selection means, in order of depth.

    Args:
        views: what `layer_views` gave.
        layers: None for all; a name or glob, or several (`"encoder.layer.0.*"`), of layer ids or tensors' names;
            or a predicate of a Layer.
        source: the model's name, for messages.

    Raises:
        LayerNotFoundError: a name or glob, or the predicate, matches no layer; nearest names are offered, and a
            tensor that is there but excluded is named with its reason.
    """
    known = layer_list(views)
    if layers is None and not known:
        raise LayerNotFoundError(f"{source} has no weight matrices; wb.layers(model) lists every tensor's reason.")
    return _matching(known, views, layers, source)


def selected_views(views: Sequence[Layer | Exclusion], layers: Selection, source: str) -> list[Layer | Exclusion]:
    """The same among all tensors, biases and buffers too; a predicate is given Layers and Exclusions.

    Raises:
        LayerNotFoundError: a name or glob, or the predicate, matches nothing; nearest names are offered.
    """
    return _matching(views, views, layers, source)


def _matching(known: Sequence[View], views: Sequence[Layer | Exclusion], layers: Selection, source: str) -> list[View]:
    if layers is None:
        return list(known)
    if callable(layers):
        chosen = [layer for layer in known if layers(layer)]
        if not chosen:
            raise LayerNotFoundError(f"the predicate holds for none of the {len(known)} layers of {source}.")
        return chosen
    patterns = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, Iterable) else [layers]
    if wrong := [pattern for pattern in patterns if not isinstance(pattern, str)]:
        raise ArgumentError(
            f"layers={wrong[0]!r}: expected a name, a glob, a list of them, a predicate of a Layer or None."
        )
    if not patterns:
        raise LayerNotFoundError("an empty list of layers selects nothing; use layers=None for all.")
    exact: dict[str, set[str]] = {}
    for view in known:
        for name in (view.layer, view.tensor):
            exact.setdefault(name, set()).add(view.layer)
    names: set[str] = set()
    for pattern in patterns:
        matching = exact.get(pattern) or _globbed(pattern, exact)
        if not matching:
            raise LayerNotFoundError(_why_not(pattern, known, views, source))
        names |= matching
    return [view for view in known if view.layer in names]


def _globbed(pattern: str, exact: Mapping[str, set[str]]) -> set[str]:
    fits = re.compile(translate(pattern)).match
    return set().union(*(layers for name, layers in exact.items() if fits(name)))


def _why_not(pattern: str, known: Sequence[Layer | Exclusion], views: Sequence[Layer | Exclusion], source: str) -> str:
    for view in views:
        if isinstance(view, Exclusion) and any(
            fnmatchcase(name, pattern) for name in (view.tensor, view.tensor.removesuffix(".weight"))
        ):
            return f"{view.tensor} is in {source} but excluded: {view.reason}."
    names = [view.layer for view in known]
    if any(sign in pattern for sign in "*?["):
        parts = [name.split(".") for name in names]
        names = sorted({".".join(part[:end]) + ".*" for part in parts for end in range(1, len(part))})
    return f"no layer of {source} matches {pattern!r}." + nearest(pattern, names)

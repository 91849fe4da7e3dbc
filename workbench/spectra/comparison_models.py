"""The models of a comparison before anything is computed: labels, headers, and the layers chosen in each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from workbench.errors import ArgumentError, LayerNotFoundError, SourceTypeError
from workbench.layers import Selection, layer_views, selected
from workbench.results import short_source
from workbench.weights import ModelLike, load
from workbench.weights.several import is_one_model, source_labels

Models: TypeAlias = Mapping[Any, ModelLike] | Sequence[ModelLike]
EXAMPLES = 3  # models that a message names


@dataclass(frozen=True)
class Planned:
    """A model before it is analysed.

    Attributes:
        label: what it is called in the comparison.
        model: what was handed over; it is opened again when its turn comes, so that one is open at a time.
        about: what its header tells, as `Weights.provenance` has it.
        depths: layer id → depth of the layers chosen in it, in order.
    """

    label: str
    model: ModelLike
    about: Mapping[str, Any]
    depths: Mapping[str, int]


def planned_models(models: Models, layers: Selection) -> list[Planned]:
    """Every model's header read and its layers chosen.

    Args:
        models: label → model, or a sequence.
        layers: names, globs or a predicate; None for all. A name matches in one model at least.

    Raises:
        ArgumentError: fewer than two models, or a label that is empty or there twice.
        CheckpointError: a model cannot be opened.
        SourceTypeError: one of the models is none.
        LayerNotFoundError: a name matches nowhere, or no layer is in two models.
    """
    given = _given(models)
    patterns = [layers] if layers is None or isinstance(layers, str) or callable(layers) else _several(layers)
    abouts, depths = list[dict[str, Any]](), list[dict[str, int]]()
    unmatched: dict[int, LayerNotFoundError] = {}
    matched: set[int] = set()
    for key, model in given:
        try:
            weights = load(model)
        except SourceTypeError as error:
            raise SourceTypeError(f"models[{key!r}]: {error}") from error
        views, found = layer_views(weights), dict[str, int]()
        for number, pattern in enumerate(patterns):
            try:
                found |= {one.layer: one.depth for one in selected(views, pattern, short_source(weights.source))}
                matched.add(number)
            except LayerNotFoundError as error:
                unmatched.setdefault(number, error)
        abouts.append(weights.provenance("wb.comparison"))
        depths.append(found)
    if nowhere := [missing for number, missing in unmatched.items() if number not in matched]:
        raise nowhere[0]
    own = isinstance(models, Mapping)
    labels = [str(key) for key, _ in given] if own else source_labels([about["source"] for about in abouts])
    if twice := [label for place, label in enumerate(labels) if not label or label in labels[:place]]:
        raise ArgumentError(f"the label {twice[0]!r} is empty or stands for two models; give each a name of its own.")
    plan = [
        Planned(label, model, about, found)
        for label, (_, model), about, found in zip(labels, given, abouts, depths, strict=True)
    ]
    if not any(sum(layer in one.depths for one in plan) > 1 for layer in union(plan)):
        examples = "; ".join(f"{one.label} has {list(one.depths)[:2]}" for one in plan[:EXAMPLES])
        raise LayerNotFoundError(f"no layer is in two of the {len(plan)} models, so nothing compares: {examples}.")
    return plan


def _given(models: Models) -> list[tuple[Any, ModelLike]]:
    several = isinstance(models, Mapping | Sequence) and not isinstance(models, str | bytes)
    if not several or (isinstance(models, Mapping) and is_one_model(models)):
        raise ArgumentError(
            f"models is one {type(models).__name__}: expected several, as in {{'before': model, 'after': model}} or "
            "[model, model]."
        )
    given = list(models.items() if isinstance(models, Mapping) else enumerate(models))
    if len(given) < 2:
        raise ArgumentError(f"models has {len(given)}: expected two or more to compare; one alone is for wb.spectrum.")
    return given


def _several(layers: Any) -> list[Any]:
    """Patterns one by one; what is no list, or an empty one, is refused by `selected` itself."""
    return (list(layers) if isinstance(layers, Iterable) else []) or [layers]


def union(plan: Sequence[Planned]) -> dict[str, int]:
    """Every layer with its depth in the first model that has it, in order of depth."""
    depths: dict[str, int] = {}
    for planned in plan:
        for layer, depth in planned.depths.items():
            depths.setdefault(layer, depth)
    return dict(sorted(depths.items(), key=lambda item: item[1]))

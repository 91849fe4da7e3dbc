"""Several models in one argument: a mapping of labels, or a sequence; and what each of them is called."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError
from workbench.results import short_source
from workbench.weights.files import weight_file
from workbench.weights.hub import HUB
from workbench.weights.load import load
from workbench.weights.naming import holds_tensors
from workbench.weights.weights import Weights


def labelled(models: Any) -> dict[str, Any]:
    """One model or several by the labels that results call them by: a mapping's own, or the names of their sources.

    Args:
        models: a model, a list of models, or a mapping of labels to models, as `wb.diff` takes them; None for none.

    Returns:
        Label → model, in their order. Files are not opened, so that a path that leads nowhere has a label too.

    Raises:
        SourceTypeError: one is no model.

    Example:
        >>> list(labelled(["a/blur.pt", "a/noise.pt"])), list(labelled({"blur": "a/blur.pt"}))
        (['blur.pt', 'noise.pt'], ['blur'])
    """
    if models is None:
        return {}
    if not is_several(models):
        models = [models]
    if isinstance(models, Mapping):
        return {str(label): model for label, model in models.items()}
    return dict(zip(source_labels([_source(model) for model in models]), models, strict=True))


def _source(model: Any) -> str:
    """What `load(model).source` is; of a file without opening it."""
    if not isinstance(model, str | os.PathLike):
        return load(model).source
    text = os.fspath(model)
    try:
        return text if text.startswith(HUB) else str(weight_file(text))
    except CheckpointError:  # said when it is opened
        return text


def is_several(models: object) -> bool:
    """Whether it is a mapping of labels to models or a sequence of models, and no single model.

    A mapping with a tensor in it, or nested as checkpoints are, is one model.

    Example:
        >>> import torch
        >>> one = {"fc.weight": torch.ones(2, 3)}
        >>> is_several(one), is_several({"state_dict": one}), is_several({"tuned": one}), is_several([one])
        (False, False, True, True)
    """
    if isinstance(models, Mapping):
        return not is_one_model(models)
    return isinstance(models, Sequence) and not isinstance(models, str | bytes)


def is_one_model(models: Mapping[Any, Any]) -> bool:
    """Whether a mapping holds tensors, and not models."""
    return isinstance(models, Weights) or holds_tensors(models)


def source_labels(sources: Sequence[str]) -> list[str]:
    """File names; with their folders where these tell more apart; numbered where nothing does.

    Example:
        >>> source_labels(["/a/net.pt", "/b/net.pt"]), source_labels(["a mapping in memory"] * 2)
        (['a/net.pt', 'b/net.pt'], ['a mapping in memory', 'a mapping in memory (2)'])
    """
    names, longer = [Path(source).name for source in sources], [short_source(source) for source in sources]
    labels: list[str] = []
    for label in longer if len(set(longer)) > len(set(names)) else names:
        number = 2
        unique = label
        while unique in labels:
            unique, number = f"{label} ({number})", number + 1
        labels.append(unique)
    return labels

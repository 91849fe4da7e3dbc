"""The fields that say which models an explorer looks at."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
from torch import Tensor

import workbench as wb

LABEL = r"[\w.+ -]+"


class CheckpointField(ipw.Text):
    """A path to type, or an object that was given; what is typed comes first.

    Args:
        source: a path, or a model: anything `wb.load` takes; None for an empty field.
        description: the label.
        style: the label's style.
        empty: what an empty field says.
    """

    def __init__(
        self,
        source: Any,
        description: str,
        style: Mapping[str, str],
        empty: str = "path of a file or folder",
    ) -> None:
        source = os.fspath(source) if isinstance(source, os.PathLike) else source
        self._given = None if source is None or isinstance(source, str) else source
        super().__init__(
            source if isinstance(source, str) else "",
            description=description,
            placeholder=empty if self._given is None else f"{type(source).__name__} in memory",
            continuous_update=False,
            style=style,
        )

    @property
    def filled(self) -> bool:
        """Whether there is a model."""
        return bool(self.value.strip()) or self._given is not None

    @property
    def model(self) -> Any:
        """The path that was typed, or the object that was given.

        Raises:
            wb.ArgumentError: there is neither.
        """
        if not self.filled:
            raise wb.ArgumentError("no checkpoint yet: type the path of a file or folder, or pass a model.")
        return self.value.strip() or self._given

    def release(self) -> None:
        """Lets go of the object that was given."""
        self._given = None


class CheckpointsField(ipw.Text):
    """Paths to type, separated by commas, or models that were given; what is typed comes first.

    Args:
        models: paths or models.
        description: the label.
        style: the label's style.
        tooltip: what they are for.
    """

    def __init__(self, models: Sequence[Any], description: str, style: Mapping[str, str], tooltip: str) -> None:
        typed = all(isinstance(one, str) and "," not in one for one in models)
        self._given = [] if typed else list(models)
        super().__init__(
            ", ".join(models) if typed else "",
            description=description,
            placeholder="paths, comma-separated" if typed else f"{len(models)} models that were given",
            tooltip=tooltip,
            continuous_update=False,
            style=style,
        )

    @property
    def models(self) -> list[Any]:
        """The paths that were typed, or the models that were given."""
        return [part.strip() for part in self.value.split(",") if part.strip()] or self._given

    def release(self) -> None:
        """Lets go of the models that were given."""
        self._given = []


class LabelledField(CheckpointsField):
    """Several models by their labels: typed as `label=path`, or given as a mapping; a path's own name is its label.

    Args:
        models: a mapping of labels to models, a list of models, or one model.
        description: the label of the field.
        style: the label's style.
        tooltip: what they are for.
    """

    def __init__(self, models: Any, description: str, style: Mapping[str, str], tooltip: str) -> None:
        several = isinstance(models, Mapping) and not _is_one_model(models)
        listed = list(models) if isinstance(models, list | tuple) else [] if models is None else [models]
        given = dict(models) if several else _labels(listed)
        given = {str(label): os.fspath(one) if isinstance(one, os.PathLike) else one for label, one in given.items()}
        typed = all(
            isinstance(one, str) and "," not in one and re.fullmatch(LABEL, label) for label, one in given.items()
        )
        shown = [one if _label(one, 0) == label else f"{label}={one}" for label, one in given.items()] if typed else []
        super().__init__(shown if typed else list(given.values()), description, style, tooltip)
        self.placeholder = "label=path, label=path" if typed else f"{len(given)} models that were given"
        self._labelled = {} if typed else given

    @property
    def labelled(self) -> dict[str, Any]:
        """Label → model, in their order.

        Raises:
            wb.ArgumentError: a label stands for two.
        """
        found: dict[str, Any] = {}
        for place, part in enumerate(part.strip() for part in self.value.split(",") if part.strip()):
            label, sign, path = (one.strip() for one in part.partition("="))
            if not (sign and path and re.fullmatch(LABEL, label)):
                label, path = _label(part, place), part
            if label in found:
                raise wb.ArgumentError(
                    f"the label {label!r} stands for two models: expected another for each, as in first={path}."
                )
            found[label] = path
        return found or dict(self._labelled)

    @property
    def models(self) -> list[Any]:
        """The models, without their labels."""
        return list(self.labelled.values())

    def release(self) -> None:
        """Lets go of the models that were given."""
        super().release()
        self._labelled = {}


def _is_one_model(models: Mapping[Any, Any]) -> bool:
    return isinstance(models, wb.Weights | wb.Signature) or any(isinstance(one, Tensor) for one in models.values())


def _labels(models: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place, model in enumerate(models):
        label, number = _label(model, place), 2
        while label in found:
            label, number = f"{_label(model, place)}-{number}", number + 1
        found[label] = model
    return found


def _label(model: Any, place: int) -> str:
    """A file's name without its ending, or a folder's; of an object its place."""
    if not isinstance(model, str | os.PathLike):
        return f"model{place + 1}"
    name = Path(os.fspath(model)).name
    return name.removesuffix(".safetensors").removesuffix(".pt") or f"model{place + 1}"

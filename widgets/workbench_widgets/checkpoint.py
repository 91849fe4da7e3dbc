"""The fields that say which models an explorer looks at."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw

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
    """Several models by their labels: typed as `label=path`, or given; those without are called as `wb.diff` does.

    Args:
        models: a mapping of labels to models, a list of models, or one model.
        description: the label of the field.
        style: the label's style.
        tooltip: what they are for.
    """

    def __init__(self, models: Any, description: str, style: Mapping[str, str], tooltip: str) -> None:
        given = {
            label: os.fspath(one) if isinstance(one, os.PathLike) else one for label, one in wb.labelled(models).items()
        }
        shown = _typed(given)
        super().__init__(shown or [], description, style, tooltip)
        self.placeholder = f"{len(given)} models that were given" if shown is None else "label=path, label=path"
        self._labelled = given if shown is None else {}

    @property
    def labelled(self) -> dict[str, Any]:
        """Label → model, in their order.

        Raises:
            wb.ArgumentError: a label stands for two.
        """
        return _labelled(self.value) or dict(self._labelled)

    @property
    def models(self) -> list[Any]:
        """The models, without their labels."""
        return list(self.labelled.values())

    def release(self) -> None:
        """Lets go of the models that were given."""
        super().release()
        self._labelled = {}


def _typed(models: Mapping[str, Any]) -> list[str] | None:
    """Models as they are typed, with labels where these are not the paths' own; None if they cannot be."""
    if not all(isinstance(one, str) for one in models.values()):
        return None
    for parts in (list(models.values()), [f"{label}={path}" for label, path in models.items()]):
        try:
            if list(_labelled(", ".join(parts)).items()) == list(models.items()):
                return parts
        except wb.ArgumentError:  # read so, two have one label
            continue
    return None


def _labelled(text: str) -> dict[str, str]:
    """Label → path of what was typed.

    Raises:
        wb.ArgumentError: a label stands for two.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    cut = [[one.strip() for one in part.partition("=")] for part in parts]
    own = [bool(sign and path and re.fullmatch(LABEL, label)) for label, sign, path in cut]
    names = iter(wb.labelled([part for part, is_own in zip(parts, own, strict=True) if not is_own]))
    found: dict[str, str] = {}
    for part, (label, _, path), is_own in zip(parts, cut, own, strict=True):
        label, path = (label, path) if is_own else (next(names), part)
        if label in found:
            raise wb.ArgumentError(
                f"the label {label!r} stands for two models: expected another for each, as in first={path}."
            )
        found[label] = path
    return found

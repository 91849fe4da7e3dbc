"""The fields that say which models an explorer looks at."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.amounts import count_text
from workbench_widgets.shared import FieldStyle
from workbench_widgets.shelf import Shelf

LABEL = r"[\w.+ -]+"


class CheckpointField(ipw.Combobox):
    """A path to type, or a model's name on the shelf, or an object that was given; what is typed comes first.

    Args:
        source: a path, or a model: anything `wb.load` takes; None for an empty field.
        description: the label.
        style: the label's style.
        empty: what an empty field says.
        tooltip: what it is for.
    """

    def __init__(
        self,
        source: Any,
        description: str,
        style: FieldStyle,
        empty: str = "path of a file or folder",
        tooltip: str = "path of a file or folder, hf://org/name, or the name of a model in the list",
    ) -> None:
        self.shelf: Shelf | None = None
        source = os.fspath(source) if isinstance(source, os.PathLike) else source
        self._given = None if source is None or isinstance(source, str) else source
        super().__init__(
            source if isinstance(source, str) else "",
            description=description,
            placeholder=empty if self._given is None else f"{type(source).__name__} in memory",
            tooltip=tooltip,
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
        typed = self.value.strip()
        return (self.shelf.find(typed) if self.shelf else typed) if typed else self._given

    def lend(self, shelf: Shelf) -> None:
        """Offers the models of a shelf."""
        self.shelf = shelf
        shelf.listen(lambda: setattr(self, "options", shelf.names))
        self.options = shelf.names

    def withdraw(self, name: str) -> None:
        """Empties the field if it names that model."""
        self.value = "" if self.value.strip() == name else self.value

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

    def __init__(self, models: Sequence[Any], description: str, style: FieldStyle, tooltip: str) -> None:
        typed = all(isinstance(one, str) and "," not in one for one in models)
        self.shelf: Shelf | None = None
        self._given = [] if typed else list(models)
        super().__init__(
            ", ".join(models) if typed else "",
            description=description,
            placeholder="paths, comma-separated" if typed else count_text(len(models), "given model"),
            tooltip=tooltip,
            continuous_update=False,
            style=style,
        )

    @property
    def models(self) -> list[Any]:
        """The paths that were typed or the models of those names, or the models that were given."""
        typed = [part.strip() for part in self.value.split(",") if part.strip()]
        return [self.shelf.find(one) if self.shelf else one for one in typed] or self._given

    def lend(self, shelf: Shelf) -> None:
        """Takes the names of a shelf's models too."""
        self.shelf = shelf

    def withdraw(self, name: str) -> None:
        """Takes that model's name out."""
        parts = [part.strip() for part in self.value.split(",")]
        self.value = ", ".join(part for part in parts if part.rpartition("=")[2].strip() != name)

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

    def __init__(self, models: Any, description: str, style: FieldStyle, tooltip: str) -> None:
        given = {
            label: os.fspath(one) if isinstance(one, os.PathLike) else one for label, one in wb.labelled(models).items()
        }
        shown = _typed(given)
        super().__init__(shown or [], description, style, tooltip)
        self.placeholder = count_text(len(given), "given model") if shown is None else "label=path, label=path"
        self._labelled = given if shown is None else {}

    @property
    def labelled(self) -> dict[str, Any]:
        """Label → model, in their order.

        Raises:
            wb.ArgumentError: a label stands for two.
        """
        names = self.shelf.names if self.shelf else []
        found = _labelled(self.value, names)
        return {label: self.shelf.find(one) if self.shelf else one for label, one in found.items()} or dict(
            self._labelled
        )

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


def _labelled(text: str, known: Sequence[str] = ()) -> dict[str, str]:
    """Label → path of what was typed; a name among those known is its own label.

    Raises:
        wb.ArgumentError: a label stands for two.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    cut = [[part, "=", part] if part in known else [one.strip() for one in part.partition("=")] for part in parts]
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

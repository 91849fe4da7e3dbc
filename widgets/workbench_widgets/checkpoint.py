"""The fields that say which models an explorer looks at."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw

import workbench as wb


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

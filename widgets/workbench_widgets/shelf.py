"""Models by name, for all fields of a workbench that take one."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import workbench as wb

NAME = r"[\w.-]+"


class Shelf:
    """Paths, hub ids and objects under the names by which fields know them."""

    def __init__(self) -> None:
        self._sources: dict[str, Any] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def names(self) -> list[str]:
        """The names, in the order in which models came."""
        return list(self._sources)

    @property
    def sources(self) -> Mapping[str, Any]:
        """Name → path, hub id or object."""
        return dict(self._sources)

    def put(self, source: Any, name: str | None = None) -> str:
        """Takes in a model that opens.

        Args:
            source: anything `wb.load` takes.
            name: letters, digits, `_`, `.` and `-`; None for one made of the path or the kind of object.

        Returns:
            Its name.

        Raises:
            wb.ArgumentError: the name is taken, or has other characters.
            wb.CheckpointError: it does not open.
        """
        source = os.fspath(source) if isinstance(source, os.PathLike) else source
        if name is not None and not (isinstance(name, str) and re.fullmatch(NAME, name)):
            raise wb.ArgumentError(f"name={name!r}: expected letters, digits, '_', '.' and '-'.")
        if name in self._sources:
            raise wb.ArgumentError(f"name={name!r} is taken: release that model, or choose another name.")
        wb.load(source)
        name = name or self._unused(source)
        self._sources[name] = source
        self._tell()
        return name

    def take(self, name: str) -> Any:
        """Lets go of a model.

        Raises:
            wb.ArgumentError: there is none of that name.
        """
        if name not in self._sources:
            raise wb.ArgumentError(
                f"no model is called {name!r}: expected one of {', '.join(self._sources) or 'none'}."
            )
        source = self._sources.pop(name)
        self._tell()
        return source

    def forget(self) -> None:
        """Lets go of all models, and of who listens."""
        self._sources, self._listeners = {}, []

    def find(self, text: str) -> Any:
        """What a field means that says `text`: a model of that name, else a path."""
        return self._sources.get(text, text)

    def listen(self, heard: Callable[[], None]) -> None:
        """Calls `heard` whenever a model has come or gone."""
        self._listeners.append(heard)

    def _tell(self) -> None:
        for heard in self._listeners:
            heard()

    def _unused(self, source: Any) -> str:
        word = Path(source).name.removesuffix(".safetensors") if isinstance(source, str) else type(source).__name__
        first = name = re.sub(r"[^\w.-]+", "-", word).strip("-") or "model"
        number = 2
        while name in self._sources:
            name, number = f"{first}-{number}", number + 1
        return name

"""What a figure says of where its numbers come from."""

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from workbench.errors import FigureError
from workbench.results import LayerResult, Result, short_source

# the folders of an absolute path or of a home, all but the last; hf://org/name is none
FOLDERS = re.compile(
    r"(?<![\w:/\\.])(?:~|[A-Za-z]:)?[/\\](?:[^/\\\'\"]+[/\\])*?(?=[^/\\\'\"]+[/\\][^/\\\'\"]*(?:$|[\'\"]))"
)


def story(result: Result) -> dict[str, str]:
    """Models, call, fingerprints and version of a result, for the metadata of saved files; no folders of a machine.

    `fingerprint` is of the first model's header: names, shapes and types. `contents` is of every tensor that was read,
    of all models: SHA-256 of their fingerprints, where the result has them.
    """
    meta = result.meta
    # groups of a module have no fingerprint, because they do not depend on its numbers
    known = {"fingerprint": str(meta["fingerprint"])} if "fingerprint" in meta else {}
    parameters = ", ".join(
        f"{name}={_travelling(value)!r}" for name, value in meta["parameters"].items() if value is not None
    )
    others = "; ".join(_models(meta))
    return {
        "source": short_source(_travelling(meta["source"])),
        **({"models": others} if others else {}),
        "call": f"{meta['function']}(…{', ' if parameters else ''}{parameters})",
        **known,
        **_contents(meta),
        "workbench": meta["versions"]["workbench"],
    }


def _models(meta: Mapping[str, Any]) -> Iterator[str]:
    """The further models of a result, by their labels."""
    for label, source in meta.get("sources", {}).items():
        yield f"{_travelling(label)}: {short_source(_travelling(source))}"
    if floor := meta.get("floor"):
        yield f"floor: {short_source(_travelling(floor['source']))}"


def _contents(meta: Mapping[str, Any]) -> dict[str, str]:
    read = {name: meta[name] for name in ("fingerprints", "other_fingerprints") if meta.get(name)}
    text = json.dumps(read, sort_keys=True, default=dict)
    return {"contents": sha256(text.encode()).hexdigest()[:32]} if read else {}


def _travelling(value: Any) -> Any:
    """A value without the folders of the machine that it was made on."""
    if isinstance(value, str):
        return FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {_travelling(key): _travelling(one) for key, one in value.items()}
    return [_travelling(one) for one in value] if isinstance(value, list | tuple) else value


def depth_label(result: Result) -> str:
    """What the axis of depth is called: an order guessed from names says so."""
    return "depth" if result.meta["ordered"] else "depth (natural order of names)"


def no_layer(kind: str, layer: str | None) -> None:
    """Refuses a layer for a figure that shows none.

    Raises:
        FigureError: one was named.
    """
    if layer is not None:
        raise FigureError(f"layer={layer!r}: the figure {kind!r} is of all weights together; leave it out.")


def one_layer(result: LayerResult, kind: str, layer: str | None) -> str:
    """The layer that a figure of one layer shows: the one that was named, or the only one there is.

    Raises:
        FigureError: none was named, and there are several, or none.
    """
    names = result.tables[result.TABLES[0]]["layer"]
    if layer is not None or len(names) == 1:
        return names[0] if layer is None else layer
    if not names:
        raise FigureError(f"this {type(result).__name__} has no layers: the run was cancelled before the first.")
    raise FigureError(f"the figure {kind!r} shows one layer: say which, as in layer={names[0]!r} (also {names[1:3]}).")

"""What a figure says of where its numbers come from."""

from workbench.errors import FigureError
from workbench.results import LayerResult, Result, short_source


def story(result: Result) -> dict[str, str]:
    """Source, call, fingerprint and version of a result, for the metadata of saved files."""
    meta = result.meta
    # groups of a module have no fingerprint, because they do not depend on its numbers
    known = {"fingerprint": meta["fingerprint"]} if "fingerprint" in meta else {}
    parameters = ", ".join(f"{name}={value!r}" for name, value in meta["parameters"].items() if value is not None)
    return {
        "source": short_source(meta["source"]),
        "call": f"{meta['function']}(…{', ' if parameters else ''}{parameters})",
        **known,
        "workbench": meta["versions"]["workbench"],
    }


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

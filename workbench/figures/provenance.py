"""What a figure says of where its numbers come from."""

from workbench.results import Result, short_source


def story(result: Result) -> dict[str, str]:
    """Source, call, fingerprint and version of a result, for the metadata of saved files."""
    meta = result.meta
    parameters = ", ".join(f"{name}={value!r}" for name, value in meta["parameters"].items() if value is not None)
    return {
        "source": short_source(meta["source"]),
        "call": f"{meta['function']}(…{', ' if parameters else ''}{parameters})",
        "fingerprint": meta["fingerprint"],
        "workbench": meta["versions"]["workbench"],
    }


def depth_label(result: Result) -> str:
    """What the axis of depth is called: an order guessed from names says so."""
    return "depth" if result.meta["ordered"] else "depth (natural order of names)"

"""The figure of a Similarity: cosines of all pairs, types side by side."""

from collections.abc import Mapping

from workbench.figures.provenance import story
from workbench.figures.spec import Axis, FigureSpec, Heat, Panel, named_ticks
from workbench.results import many
from workbench.signatures.similarity import Similarity


def similarity_map(similarity: Similarity, layer: str | None) -> FigureSpec:
    """The cosines of every two signatures, over all tensors or of one layer; labels of one type are neighbours.

    Raises:
        LayerNotFoundError: the layer was not compared.
    """
    table = similarity.tables["pairs" if layer is None else "layer_pairs"]
    own = [True] * len(table["one"]) if layer is None else [one == similarity.compared(layer) for one in table["layer"]]
    cells = {
        (one, other): cosine
        for one, other, cosine, wanted in zip(table["one"], table["other"], table["cosine"], own, strict=True)
        if wanted
    }
    rows, cols = (
        _by_type(similarity.meta["types"][side], {pair[place] for pair in cells})
        for place, side in enumerate(("one", "other"))
    )
    axes = [
        Axis(label=label, limits=(-0.5, len(names) - 0.5), ticks=named_ticks(names), descending=label == "signature")
        for label, names in (("other" if similarity.meta["others"] else "the same", cols), ("signature", rows))
    ]
    heat = Heat(
        x=tuple(place - 0.5 for place in range(len(cols) + 1)),
        y=tuple(place - 0.5 for place in range(len(rows) + 1)),
        values=tuple(tuple(cells[row, col] for col in cols) for row in rows),
        limits=(-1.0, 1.0),
        label="cosine",
    )
    panel = Panel(x=axes[0], y=axes[1], marks=(heat,), title="all tensors" if layer is None else layer)
    judged = {"same type", "other type"} & {*similarity.tables["nearest"]["verdict"]}
    plain = f"Cosines of {many(len(rows), 'signature')}"
    plain += f" with {many(len(cols), 'other')}" if similarity.meta["others"] else ""
    title = similarity.facts().partition(": ")[2] if judged else plain
    provenance = story(similarity) | ({} if layer is None else {"layer": layer})
    return FigureSpec(kind="cosine", title=title, panels=(panel,), provenance=provenance)


def _by_type(types: Mapping[str, str], labels: set[str]) -> list[str]:
    """Labels in order, those of one type beside the first of it."""
    order = list(dict.fromkeys(types.values()))
    return sorted((label for label in types if label in labels), key=lambda label: order.index(types[label]))

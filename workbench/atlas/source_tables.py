"""The tables of an Atlas beside that of its correlations: the layers, the columns, the results and every number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.atlas.correlations import column_values
from workbench.atlas.joining import CONTROLS, Grid
from workbench.atlas.sources import Source


def source_tables(
    given: Sequence[Source], found: Grid, chosen: Sequence[str], family: Mapping[str, str], told: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The tables `layers`, `columns`, `sources` and `cells`."""
    meanings = {f"{one.label}.{name}": column for one in given for name, column in one.reading.columns.items()}
    meanings |= CONTROLS
    columns = []
    for name in [*found.cells, *CONTROLS]:
        values = [value for value in column_values(found, name).values() if not math.isnan(value)]
        own = [] if name in CONTROLS else [cell for cell in found.cells[name].values() if not math.isnan(cell.value)]
        columns.append(
            {
                "column": name,
                "meaning": meanings[name].meaning,
                "unit": meanings[name].unit,
                "source": "" if name in CONTROLS else name.partition(".")[0],
                "numbers": len(values) if name in CONTROLS else len(own),
                "used": len(values),
                "unread": sum(not cell.used for cell in own),
                "distinct": len(set(values)),
                "compared": name in chosen,
            }
        )
    return {
        "layers": [
            {
                "layer": place.layer,
                "model": place.model,
                "depth": found.depths[place],
                "size": found.sizes[place],
                "results": len(found.holders[place]),
                "verdict": "joined" if len(found.holders[place]) > 1 else "alone",
                "reason": ", ".join(found.holders[place]),
            }
            for place in found.places
        ],
        "columns": columns,
        "sources": [
            {
                "label": source.label,
                "model": source.model,
                "kind": type(source.result).__name__,
                "source": source.origin,
                "agreement": word,
                "architecture": family[source.model],
                **_counts(source, found),
                "cancelled": source.cancelled,
            }
            for source, word in zip(given, told, strict=True)
        ],
        "cells": [
            {"layer": place.layer, "model": place.model, "column": name, **vars(cell)}
            for name, own in found.cells.items()
            for place, cell in own.items()
        ],
    }


def _counts(source: Source, found: Grid) -> dict[str, int]:
    """Rows of a result, and those that it shares."""
    held = [labels for place, labels in found.holders.items() if place.model == source.model and source.label in labels]
    return {"rows": len(held), "joined": sum(len(labels) > 1 for labels in held)}

"""How alike signatures are, and which is the nearest to each: retrieval by type."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import ArgumentError, Cancelled, LayerNotFoundError, nearest
from workbench.layers import Selection
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.results import Column, Result, versions
from workbench.signatures.common_ancestor import check_common
from workbench.signatures.signature import Signature
from workbench.signatures.similarity_rows import COLUMNS, Products, layer_rows, nearest_rows, pair_rows, products
from workbench.signatures.stored_signature import is_signature
from workbench.weights import ModelLike, Weights, load

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Similarity(Result):
    """Cosines of signatures, over all tensors and per layer, and the nearest to each."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = COLUMNS
    NEXT: ClassVar[str] = ".within, .between, .matrix(), .frame('layers'), wb.figure(similarity)"

    def facts(self) -> str:
        """How many are retrieved, and the means within and between types."""
        words = list(self.tables["nearest"]["verdict"])
        same, other = words.count("same type"), words.count("other type")
        judged = f"{same} of {same + other} nearest are of the same type" if same + other else "no types to judge by"
        means = f"; mean cosine {self.within:.3f} within types, {self.between:.3f} between" if same + other else ""
        return f"{self.title}: {judged}{means}{self.stopped('tensors')}"

    @property
    def within(self) -> float:
        """Mean cosine of different signatures of one type, over all tensors; NaN where there are none."""
        return self._mean(same=True)

    @property
    def between(self) -> float:
        """Mean cosine of signatures of different types, over all tensors; NaN where there are none."""
        return self._mean(same=False)

    def matrix(self, layer: str | None = None) -> pandas.DataFrame:
        """The cosines over all tensors, or of one layer, as a square or rectangle of labels.

        Raises:
            LayerNotFoundError: there is no such layer.
        """
        rows = self.frame("pairs" if layer is None else "layer_pairs")
        if layer is not None:
            rows = rows[rows["layer"] == self.compared(layer)]
        wide = rows.pivot(index="one", columns="other", values="cosine")
        return wide.loc[list(dict.fromkeys(rows["one"])), list(dict.fromkeys(rows["other"]))]

    def compared(self, layer: str) -> str:
        """The layer itself, if it was compared.

        Raises:
            LayerNotFoundError: it was not, for a reason that is told, or is none.
        """
        known = dict.fromkeys(self.tables["layer_pairs"]["layer"])
        if layer in known:
            return layer
        own = self.tables["layers"]
        if layer in own["layer"]:
            raise LayerNotFoundError(f"{layer!r} was not compared: {own['reason'][own['layer'].index(layer)]}.")
        raise LayerNotFoundError(f"this Similarity has no layer {layer!r}.{nearest(layer, known)}")

    def _mean(self, *, same: bool) -> float:
        types, table = self.meta["types"], self.tables["pairs"]
        found = [
            cosine
            for one, other, cosine in zip(table["one"], table["other"], table["cosine"], strict=True)
            if (self.meta["others"] or one != other)
            and (types["one"][one] == types["other"][other]) is same
            and types["one"][one]
            and not math.isnan(cosine)
        ]
        return fmean(found) if found else math.nan


def similarity(
    signatures: Mapping[str, ModelLike | Signature],
    others: Mapping[str, ModelLike | Signature] | None = None,
    *,
    types: Mapping[str, str] | None = None,
    layers: Selection = None,
    progress: ProgressCallback | None = None,
) -> Similarity:
    """The cosine ⟨a,b⟩/(‖a‖·‖b‖) of every two signatures, per layer and over all tensors, and each one's nearest.

    Args:
        signatures: label → Signature, a file of `Signature.save`, or any weights that are differences.
        others: among these the nearest are looked for, as the same corruptions from another seed; None for the
            signatures themselves, each but itself.
        types: label → type, of both; None: with `others` a label is its own type, without there are none.
        layers: names or globs of modules, layer ids or tensors, or a predicate; None for all.
        progress: called before each layer with a Progress, and once at the end; it may raise `wb.Cancelled`, whose
            `partial` is of the tensors that were done.

    Returns:
        Similarity: `nearest` (a row per signature), `pairs` and `layer_pairs` (a row per pair, over all tensors and per
        layer, in both orders) and `layers` (a row per tensor: compared, or why not). A tensor with NaN or infinity in a
        signature is left out of that signature's pairs, which say so.

    Raises:
        ArgumentError: there are none, they are of different architectures or no real numbers, or a label has no type.
        LayerNotFoundError: layers match nothing, or nothing but statistics and integers.
        Cancelled: the callback asked for it.

    Cost: a pass over the bytes; K²·n products for K signatures of n elements, in float64.

    Source: the RWS paper's figure of cosines between corruptions. Nearest neighbours by type are ours.

    Misreads: independent directions of n elements have cosines with a spread of 1/√n, but signatures share an ancestor
    and a clean network: compare within types with between, not with zero. `verdict` counts neighbours, not how far
    off the second nearest is.

    Example:
        >>> import torch
        >>> found = similarity(
        ...     {"a": {"w": torch.tensor([1.0, 0.0])}, "b": {"w": torch.tensor([3.0, 4.0])}}, types={"a": "x", "b": "x"}
        ... )
        >>> found.within, found.frame()["verdict"].tolist()
        (0.6, ['same type', 'same type'])
    """
    check_progress(progress)
    if (
        not isinstance(signatures, Mapping)
        or not signatures
        or (others is not None and not isinstance(others, Mapping))
    ):
        raise ArgumentError("expected a mapping of labels to signatures, as in {'blur': signature}.")
    ours = {label: _weights(model) for label, model in signatures.items()}
    theirs = ours if others is None else {label: _weights(model) for label, model in others.items()}
    models = {f"signature {label!r}": model for label, model in ours.items()}
    models |= {} if others is None else {f"other {label!r}": model for label, model in theirs.items()}
    check_common(models)
    known = {"one": _types(ours, types, others), "other": _types(theirs, types, others)}
    rows = {row["tensor"]: row for row in layer_rows(models, layers)}
    names = [name for name, row in rows.items() if row["verdict"] == "compared"]
    if not names:
        reasons = "; ".join(f"{name}: {row['reason']}" for name, row in list(rows.items())[:3])
        raise LayerNotFoundError(f"there are no weights to compare ({reasons}): choose other layers.")
    found: dict[str, Products] = {}
    meta = {
        "function": "wb.similarity",
        "source": ", ".join(ours),
        "sources": {label: model.source for label, model in models.items()},
        "fingerprint": next(iter(ours.values())).fingerprint,
        "types": known,
        "others": others is not None,
        "parameters": {"layers": None if layers is None else names},
        "versions": versions(),
    }

    def built() -> Similarity:
        done, square, own_rows = len(found), others is None, dict(rows)  # a run that goes on is told of in passing
        for name in names:
            told = "; ".join(filter(None, found[name].broken)) if name in found else "the run was stopped before it"
            verdict = {"verdict": "not finite" if name in found else "not read", "reason": told} if told else {}
            own_rows[name] = rows[name] | verdict
        pairs = list(pair_rows(list(found.values()), list(ours), list(theirs), square=square))
        inside = [
            {"layer": rows[name]["layer"], **row}
            for name, one in found.items()
            for row in pair_rows([one], list(ours), list(theirs), square=square)
        ]
        nearest = nearest_rows(pairs, known, square=square)
        tables = {"nearest": nearest, "pairs": pairs, "layer_pairs": inside, "layers": own_rows.values()}
        cut = {"cancelled": {"done": done, "total": len(names)}} if done < len(names) else {}
        return Similarity(
            tables={name: Similarity.columns(name, own) for name, own in tables.items()},
            meta=meta | cut,
        )

    report = reporter(progress, partial=built)
    try:
        for done, name in enumerate(names):
            report(rows[name]["layer"], done, len(names))
            found[name] = products(name, models)
    except Cancelled as stop:
        stop.partial = built()
        raise
    return told_whole(built(), lambda: report("", len(names), len(names)))


def _weights(one: ModelLike | Signature) -> Weights:
    if isinstance(one, str | os.PathLike) and is_signature(Path(one)):
        one = Signature.load(one)
    return one.weights if isinstance(one, Signature) else load(one)


def _types(
    models: Mapping[str, Weights], types: Mapping[str, str] | None, others: Mapping[str, Any] | None
) -> dict[str, str]:
    if types is None:
        return {label: label if others is not None else "" for label in models}
    if missing := next((label for label in models if label not in types), None):
        raise ArgumentError(f"types has no {missing!r}: expected the type of every label.{nearest(missing, types)}")
    return {label: str(types[label]) for label in models}

"""Rows of a Similarity from the inner products of every tensor."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.layers import Selection, layer_views
from workbench.linalg.pieces import flat_pieces
from workbench.results import LAYER_COLUMNS, Column
from workbench.signatures.chosen import chosen
from workbench.signatures.common_ancestor import arithmetic, common_tie, is_statistic
from workbench.signatures.elements import not_finite_text
from workbench.signatures.rows import cosine
from workbench.weights import Weights
from workbench.weights.differences import not_weights

Row = dict[str, Any]

PAIR: Mapping[str, Column] = {
    "one": Column("label of one", str, ""),
    "other": Column("label of the other", str, ""),
    "elements": Column("elements that were compared: of tensors that are finite in both", int, low=0),
    "cosine": Column("⟨a, b⟩/(‖a‖·‖b‖); NaN where there is none", low=-1, high=1),
    "verdict": Column("compared, in part (a tensor is left out), zero (one of both is), or not finite", str, ""),
    "reason": Column("which is zero, or NaN or infinite, and what is left out for it", str, ""),
}
COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "nearest": {
        "signature": Column("its label", str, ""),
        "type": Column("its type; empty where none was told", str, ""),
        "nearest": Column("label of the one with the largest cosine; empty where there is no other", str, ""),
        "nearest_type": Column("the type of that one", str, ""),
        "cosine": Column("cosine of both over all tensors", low=-1, high=1),
        "verdict": Column("same type, other type, or not judged", str, ""),
        "reason": Column("why it is not judged, and what has no cosine with it or one in part", str, ""),
    },
    "pairs": PAIR,
    "layer_pairs": {"layer": Column("the layer's id", str, ""), **PAIR},
    "layers": {**LAYER_COLUMNS, "elements": Column("its elements", int, low=0)},
}


@dataclass(frozen=True)
class Products:
    """One tensor in all signatures.

    Attributes:
        tensor: its name.
        elements: how many it has.
        gram: ⟨aᵢ, aⱼ⟩; anything where one of both is broken.
        broken: of each signature, why it has no products; empty where it has.
    """

    tensor: str
    elements: int
    gram: Float[Tensor, "models models"]
    broken: tuple[str, ...]


def products(name: str, models: Mapping[str, Weights]) -> Products:
    """The inner products of one tensor, and where it is NaN or infinite."""
    tensors = [weights.borrowed(name) for weights in models.values()]
    gram = _gram(tensors)
    broken = ["" if finite else "?" for finite in gram.diagonal().isfinite().tolist()]
    for place, (label, tensor) in enumerate(zip(models, tensors, strict=True)):
        if broken[place]:
            broken[place] = not_finite_text(label, tensor) or f"squares overflow in {label}"
    return Products(name, tensors[0].numel(), gram, tuple(broken))


def _gram(tensors: Sequence[Tensor]) -> Float[Tensor, "models models"]:
    total = torch.zeros(len(tensors), len(tensors), dtype=torch.float64)
    for pieces in flat_pieces(*tensors):
        stacked = torch.stack(pieces)
        total += stacked @ stacked.T
    return total


def layer_rows(models: Mapping[str, Weights], layers: Selection) -> list[Row]:
    """A row per tensor of a choice, with its name: `compared`, or why it cannot be.

    Raises:
        ArgumentError: a tensor is complex, 8-bit or not dense.
        LayerNotFoundError: layers match nothing.
    """
    arithmetic(models)
    leading, *others = models.values()
    depths = {view.tensor: view.depth for view in reversed(layer_views(leading))}  # of its first part
    ids = {view.tensor: view.layer if view.part is None else view.tensor for view in layer_views(leading)}
    rows = []
    for name in chosen(leading, layers):
        info = leading.infos[name]
        verdict, reason = "compared", ""
        if tied := common_tie(name, [leading, *others]):
            verdict, reason = "tied", f"tied to {tied}, compared there"
        elif is_statistic(name):
            verdict, reason = "no weights", "a running statistic"
        elif told := not_weights(info):
            verdict, reason = "no weights", told
        elif 0 in info.shape:
            verdict, reason = "empty", "no elements"
        row: Row = {"layer": ids[name], "depth": depths[name], "verdict": verdict, "reason": reason}
        rows.append(row | {"elements": 0 if tied else math.prod(info.shape), "tensor": name})
    return rows


def pair_rows(found: Sequence[Products], ours: Sequence[str], theirs: Sequence[str], *, square: bool) -> Iterator[Row]:
    """A row per pair of signatures over several tensors, each pair over those that are finite in both.

    Args:
        found: the tensors.
        ours: labels of the first signatures of their products.
        theirs: those of the signatures that they are compared with: the same if `square`, else the others.
        square: whether signatures are compared with each other.
    """
    size = len(ours) + (0 if square else len(theirs))
    product, squares = (torch.zeros(size, size, dtype=torch.float64) for _ in range(2))
    elements = torch.zeros(size, size, dtype=torch.int64)
    for one in found:
        finite = torch.tensor([not reason for reason in one.broken])
        both = finite[:, None] & finite
        product += one.gram.where(both, 0.0)
        squares += one.gram.diagonal()[:, None].where(both, 0.0)  # of i, in what it has in common with j
        elements += one.elements * both
    numbers = [table.tolist() for table in (product, squares, squares.T, elements)]
    broken = [one for one in found if any(one.broken)]
    for i, label in enumerate(ours):
        for j, other in enumerate(theirs, start=0 if square else len(ours)):
            inner, own, its, count = (table[i][j] for table in numbers)
            reasons = [f"{name} is zero" for name, norm in ((label, own), (other, its)) if count and not norm]
            verdict = "zero" if reasons else "compared" if count == sum(one.elements for one in found) else "in part"
            reasons += _left_out(broken, i, j, whole=not count)
            yield {
                "one": label,
                "other": other,
                "elements": count,
                "cosine": cosine(inner, own, its),
                "verdict": verdict if count else "not finite",
                "reason": "; ".join(dict.fromkeys(reasons)),
            }


def _left_out(broken: Sequence[Products], i: int, j: int, *, whole: bool) -> Iterator[str]:
    for one in broken:
        if told := "; ".join(dict.fromkeys(filter(None, (one.broken[i], one.broken[j])))):
            yield f"{one.tensor}: {told}" if whole else f"without {one.tensor}: {told}"


def nearest_rows(
    pairs: Sequence[Mapping[str, Any]], types: Mapping[str, Mapping[str, str]], *, square: bool
) -> Iterator[Row]:
    """A row per signature: the one with the largest cosine, and whether it is of the same type."""
    for label, kind in types["one"].items():
        rows = [row for row in pairs if row["one"] == label and not (square and row["other"] == label)]
        own = [row for row in rows if not math.isnan(row["cosine"])]
        nothing: Mapping[str, Any] = {"other": "", "cosine": math.nan}
        best = max(own, key=lambda row: float(row["cosine"]), default=nothing)
        found = types["other"].get(best["other"], "")
        reasons = [row["reason"] for row in rows if row["reason"]]
        if kind and any(types["other"][row["other"]] == kind for row in own):
            verdict = "same type" if found == kind else "other type"
        else:
            verdict = "not judged"
            why = "no other" if not rows else "no types were told" if not kind else "no other of its type"
            reasons = [why if own or not rows else "no cosine with any other", *reasons]
        yield {
            "signature": label,
            "type": kind,
            "nearest": best["other"],
            "nearest_type": found,
            "cosine": best["cosine"],
            "verdict": verdict,
            "reason": "; ".join(dict.fromkeys(reasons)),
        }

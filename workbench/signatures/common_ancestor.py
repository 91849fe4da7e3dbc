"""Checkpoints with a common ancestor, tensor by tensor: that they fit, and which of their tensors are arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.errors import ArgumentError, nearest
from workbench.weights import TensorInfo, Weights
from workbench.weights.differences import differences, numbers, refused

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch and instance norm


def is_statistic(name: str) -> bool:
    """Whether a tensor is a running statistic, which no arithmetic makes right."""
    return name.rpartition(".")[2] in STATISTICS


def check_common(models: Mapping[str, Weights]) -> None:
    """Refuses checkpoints that are not of one architecture.

    Raises:
        ArgumentError: a name or a shape differs; the first difference is named, with both labels.
    """
    (label, first), *others = models.items()
    for other, weights in others:
        for found in differences(first, weights, (label, other)):
            if found.kind != "tie":  # tied or not, a tensor is the same numbers
                near = {"missing": weights, "added": first}.get(found.kind, ())
                raise ArgumentError(
                    f"{found.text}: expected checkpoints of one architecture.{nearest(found.name, near)}"
                )


def without_lost_ties(models: Mapping[str, Weights]) -> dict[str, Weights]:
    """The checkpoints without second names of tied tensors that some do not store, as files of tied networks do not.

    A name goes only where all that have it tie it, to a name that all have.
    """
    found = dict(models)
    for name in dict.fromkeys(name for weights in models.values() for name in weights):
        having = [weights for weights in models.values() if name in weights]
        heads = {weights.infos[name].tied_to for weights in having}
        head = heads.pop() if len(heads) == 1 else None
        if len(having) < len(models) and head is not None and all(head in weights for weights in models.values()):
            for label, weights in found.items():
                if name in weights:
                    found[label] = weights.only([own for own in weights if own != name])
    return found


def arithmetic(models: Mapping[str, Weights]) -> tuple[list[TensorInfo], list[str]]:
    """The tensors that can be subtracted, as the first checkpoint has them, and those that are no real numbers.

    Running statistics are in neither. A name that is tied in all checkpoints is tied in what is found; one that only
    some tie is a tensor of its own.

    Raises:
        ArgumentError: a tensor has numbers that differences mean nothing of: complex, 8-bit floats, or no dense layout.
    """
    found, left_out = [], []
    for info in next(iter(models.values())).infos.values():
        for label, one in ((label, weights.infos[info.name]) for label, weights in models.items()):
            if reason := refused(one, label):
                raise ArgumentError(reason)
        if is_statistic(info.name):
            continue
        if numbers(info) == "real":
            found.append(info)
        else:
            left_out.append(info.name)
    return found, left_out


def common_tie(name: str, models: Sequence[Weights]) -> str | None:
    """The first name of a tensor that has one and the same in all checkpoints."""
    ties = {weights.infos[name].tied_to for weights in models}
    return ties.pop() if len(ties) == 1 else None

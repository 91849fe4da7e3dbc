"""A module, data and a loss as one function of the weights."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError, nearest
from workbench.linalg import resolved_device
from workbench.runtime.batches import arguments, check_data, first_tensor, iter_batches, naming, size_of, targets_of
from workbench.runtime.borrowing import check_module, lent, name_of
from workbench.runtime.passing import Call

BatchMean: TypeAlias = Callable[[Tensor, Tensor], Tensor | float]

IGNORED = -100  # torch's default label that cross_entropy skips


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of −log softmax(outputs)[target] over samples and positions, in nats, at least in float32."""
    _check_no_ignored(targets)
    outputs = _classes_second("cross_entropy", outputs, targets)
    return nn.functional.cross_entropy(_upcast(outputs), targets if targets.is_floating_point() else targets.long())


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of (outputs − targets)² over every element of the batch, at least in float32."""
    if outputs.shape != targets.shape:
        raise ArgumentError(
            f"mse needs outputs and targets of one shape; got {list(outputs.shape)} and {list(targets.shape)}: "
            "reshape the targets."
        )
    return nn.functional.mse_loss(_upcast(outputs), _upcast(targets))


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples and positions whose largest output is the target: top-1, in 0…1."""
    _check_no_ignored(targets)
    outputs = _classes_second("accuracy", outputs, targets)
    return (outputs.argmax(1) == (targets.argmax(1) if _probabilities(outputs, targets) else targets)).double().mean()


def _classes_second(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs with their classes on axis 1, where torch wants them.

    Raises:
        ArgumentError: the shapes do not fit, or leave open which axis is that of the classes.
    """
    shape, wanted = list(outputs.shape), list(targets.shape)
    if _probabilities(outputs, targets):
        return outputs
    second, last = shape[:1] + shape[2:] == wanted, shape[:-1] == wanted
    if targets.is_floating_point() or len(shape) < 2 or not (second or last):
        raise ArgumentError(
            f"{name} needs outputs (samples, classes, …) or (samples, …, classes), with whole numbers (samples, …) or "
            f"probabilities in the outputs' shape as targets; got {shape} and {wanted} of {targets.dtype}: reshape the "
            "targets, or pass a function of your own."
        )
    if second and last and len(shape) > 2:
        raise ArgumentError(
            f"{name} of outputs {shape} with targets {wanted}: axis 1 and the last could both be the classes, with "
            "another mean each; give batches of another length, or pass a function of your own, such as lambda o, t: "
            "F.cross_entropy(o.flatten(0, -2), t.flatten()) where they are the last."
        )
    return outputs if second else outputs.movedim(-1, 1)


def _probabilities(outputs: Tensor, targets: Tensor) -> bool:
    return targets.is_floating_point() and targets.shape == outputs.shape


LOSSES: Mapping[str, BatchMean] = MappingProxyType({"cross_entropy": cross_entropy, "mse": mse})
METRICS: Mapping[str, BatchMean] = MappingProxyType({"accuracy": accuracy})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evaluator:
    """Loss and metrics of a module over data, as a function of its weights; made by `evaluator`.

    Attributes:
        module: the module; it is as before after every call.
        data: the batches.
        device: where it is evaluated.
        loss: (outputs, targets) → mean loss of a batch.
        metrics: name → (outputs, targets) → mean of a batch.
    """

    module: nn.Module
    data: Iterable[Any]
    device: torch.device
    loss: BatchMean
    metrics: Mapping[str, BatchMean]

    def __call__(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Loss and metrics with the module's own weights, or with others in their place.

        Args:
            weights: names as in the module's state dict, every one of them (one of several tied names is enough);
                None for the module's own. Tensors are cast to the module's dtype and the evaluator's device for this
                call; they are not changed.

        Returns:
            `{"loss": …, …}`: Σ size·mean / Σ size over the batches, summed in float64. NaN stays NaN.

        Raises:
            ArgumentError: a name is missing or unexpected, or a tensor has another shape or kind; said before any
                forward pass. Or the data gave no batch.
            EvaluationError: a batch failed; it has the batch's number and shapes.

        Cost: a forward pass over the data, and a copy of each batch and of the buffers. A state dict's parameters are
        copied only where dtype or device differ; Weights hand out one copy, held for this call.
        """
        return self.through(lambda call: self.module(*call[0], **call[1]), weights)

    def through(self, passing: Callable[[Call], Any], weights: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Loss and metrics of what `passing` makes of each batch, in place of the module's own pass.

        Args:
            passing: (positional, named) arguments → outputs as the module gives them; the module is lent meanwhile.
            weights: as in a call.

        Raises:
            ArgumentError: as in a call.
            EvaluationError: as in a call; what `passing` raises is its cause.
        """
        parts = {"loss": self.loss, **self.metrics}
        totals, samples = dict.fromkeys(parts, 0.0), 0
        with lent(self.module, weights, self.device):
            for number, batch in iter_batches(self.data):
                with naming(number, batch):
                    call = arguments(batch, self.device)
                    targets, size = targets_of(batch, self.device), size_of(batch)
                    outputs = first_tensor(passing(call))
                    for name, part in parts.items():
                        totals[name] += size * _scalar(name, part(outputs, targets))
                    samples += size
        return {name: total / samples for name, total in totals.items()}

    def __repr__(self) -> str:
        names = ", ".join(["loss", *self.metrics])
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        return (
            f"Evaluator of {name_of(self.module)} on {self.device}: {names} ({loss})\n"
            "next: evaluator(), evaluator(weights)"
        )


def check_evaluator(evaluator: object) -> None:
    """Refuses what cannot evaluate.

    Raises:
        ArgumentError: it is no Evaluator.
    """
    if not isinstance(evaluator, Evaluator):
        raise ArgumentError(f"evaluator is {type(evaluator).__name__}: expected wb.evaluator(module, data, loss).")


def evaluator(
    module: nn.Module,
    data: Iterable[Any],
    loss: str | BatchMean,
    metrics: str | Mapping[str, str | BatchMean] | None = None,
    *,
    device: str = "auto",
) -> Evaluator:
    """Loss and metrics as a function of the weights: L(w) = Σ_b n_b·ℓ_b(w) / Σ_b n_b over batches b of n_b samples.

    Args:
        module: the network; it is lent for each call and as before afterwards: mode, parameters, buffers (running
            statistics too), attributes, gradients, hooks and the global random states.
        data: a re-iterable of batches, each a pair (inputs, targets) of tensors or a dict of tensors; a dict's items
            but `labels` are the module's named arguments, and `labels` are the targets.
        loss: "cross_entropy" (nats), "mse", or a function (outputs, targets) → the batch's mean as a scalar. Outputs
            are the module's tensor, the first of a tuple, or `.logits`. Targets of "cross_entropy" and "accuracy" are
            labels, whole numbers (samples, …), to outputs (samples, classes, …) as in torch or (samples, …, classes)
            as language models give them, averaged over all positions; where both fit they are refused. Or they are
            probabilities in the shape of the outputs, with the classes on axis 1.
        metrics: name → function as for `loss`; "accuracy" for top-1. None is accuracy with "cross_entropy", else
            nothing; {} is nothing.
        device: "auto" takes CUDA when there is one. The module stays where it is: tensors elsewhere are copied for
            the length of a call.

    Returns:
        An Evaluator: `evaluator()` or `evaluator(weights)` gives `{"loss": …, "accuracy": …}`.

    Raises:
        ArgumentError: data that can be walked only once (a generator) or that are no batches, an unknown name of a
            loss or metric, a module that cannot be lent.

    Cost: nothing here; a forward pass over the data for each call.

    Source: the mean over samples, as in every training script; no paper. In place of `torch.func.functional_call`
    references are exchanged directly: that function leaves modules with a shared submodule changed (torch 2.13).

    Misreads: the weight of a batch is its number of samples. Losses that average over something else (tokens, labels
    that are not ignored) are averaged unevenly unless every batch has as many of them per sample: "cross_entropy" and
    "accuracy" therefore refuse the label −100. Labels are taken as they are, a position each: shift those of a
    language model before, as Hugging Face's models do inside. Modules in evaluation mode: no dropout, running
    statistics. Tensors that are neither parameters nor buffers are not exchanged and not moved.

    Example:
        >>> module = torch.nn.Linear(1, 1, bias=False)
        >>> data = [(torch.ones(3, 1), torch.zeros(3, 1)), (torch.ones(1, 1), torch.full((1, 1), 4.0))]
        >>> error = evaluator(module, data, "mse", device="cpu")
        >>> error({"weight": torch.tensor([[2.0]])})
        {'loss': 4.0}
    """
    check_module(module)
    check_data(data)
    if metrics is None:
        metrics = "accuracy" if loss == "cross_entropy" else {}
    chosen = {metrics: metrics} if isinstance(metrics, str) else metrics
    if not isinstance(chosen, Mapping):
        raise ArgumentError(f"metrics are {type(metrics).__name__}: expected a mapping of names to functions.")
    if "loss" in chosen:
        raise ArgumentError("metrics has the name 'loss', which is the loss itself: give it another name.")
    return Evaluator(
        module=module,
        data=data,
        device=resolved_device(device),
        loss=_function("loss", loss, LOSSES),
        metrics=MappingProxyType({name: _function(f"metrics {name!r}", m, METRICS) for name, m in chosen.items()}),
    )


def _function(argument: str, value: str | BatchMean, known: Mapping[str, BatchMean]) -> BatchMean:
    if isinstance(value, str) and value in known:
        return known[value]
    if callable(value):
        return value
    hint = nearest(value, known) if isinstance(value, str) else ""
    raise ArgumentError(
        f"{argument} is {value!r}: expected {' or '.join(map(repr, known))}, or a function (outputs, targets).{hint}"
    )


def _scalar(name: str, value: Tensor | float) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ArgumentError(f"{name} gave {list(value.shape)}: expected one number, the mean of the batch.")
    return float(value)


def _upcast(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_no_ignored(targets: Tensor) -> None:
    if not targets.is_floating_point() and bool((targets == IGNORED).any()):
        raise ArgumentError(
            f"targets have the label {IGNORED}, which torch ignores: the mean over batches would weigh labels "
            "unevenly; leave those samples out, or pass functions of your own as loss and metrics."
        )

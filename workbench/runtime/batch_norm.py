"""Running statistics of batch normalisation, computed anew."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from workbench.linalg import resolved_device
from workbench.runtime.batches import arguments, check_data, iter_batches, naming
from workbench.runtime.borrowing import check_module, lent


def normalised(module: nn.Module) -> dict[str, _BatchNorm]:
    """The batch-norm layers that keep running statistics, by path; one that is shared comes under each."""
    return {
        path: layer
        for path, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def reset_statistics(
    module: nn.Module,
    data: Iterable[Any],
    *,
    weights: Mapping[str, Tensor] | None = None,
    device: str = "auto",
    before: Callable[[int], object] | None = None,
) -> dict[str, Tensor]:
    """New running statistics of every batch-norm layer: the plain mean over B batches, μ = Σ_b μ_b/B, σ² = Σ_b s²_b/B.

    μ_b and s²_b are a batch's mean and unbiased variance per channel (torch's `momentum=None`). Only batch-norm layers
    are in training mode meanwhile; the module is as before afterwards: buffers, mode, attributes, random states.

    Args:
        module: the network.
        data: a re-iterable of batches, each a tensor, a tuple whose first element is the input, or a dict of named
            arguments (`labels` are left out).
        weights: used in place of the module's own, as in `evaluator`; an interpolated model's, for instance.
        device: "auto" takes CUDA when there is one.
        before: called with the number of each batch before it runs; what it raises is passed on.

    Returns:
        State-dict name → `running_mean`, `running_var` and `num_batches_tracked`, on the CPU, so that
        `{**weights, **statistics}` is complete. Layers that keep no statistics, or that no batch reached, are not in
        it; without batch-norm layers it is empty, and the data are not read.

    Raises:
        ArgumentError: the data can be walked only once or give no batch; the weights are not the module's.
        EvaluationError: a batch failed, as one with a single value per channel does.

    Cost: a forward pass over the data.

    Source: torch's BatchNorm documentation and `torch.optim.swa_utils.update_bn` (Izmailov et al. 2018, arXiv
    1803.05407, section 3.2), which changes the module; this does not.

    Misreads: not the statistics of the data as one batch: batches count alike whatever their size (drop an uneven last
    one), and a mean of variances lacks the variance between the batches' means.

    Example:
        >>> data = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [8.0]])]
        >>> statistics = reset_statistics(nn.BatchNorm1d(1), data, device="cpu")
        >>> statistics["running_mean"].item(), statistics["running_var"].item()
        (3.5, 5.0)
    """
    check_module(module)
    check_data(data)
    where = resolved_device(device)
    layers = normalised(module)
    if not layers:
        return {}
    statistics: dict[str, Tensor] = {}
    with lent(module, weights, where):
        for layer in layers.values():
            layer.reset_running_stats()  # of the copies that stand in for the buffers
            layer.training, layer.momentum = True, None
        for number, batch in iter_batches(data):
            if before is not None:
                before(number)
            with naming(number, batch):
                positional, named = arguments(batch, where)
                module(*positional, **named)
        for path, layer in layers.items():
            if layer.num_batches_tracked:
                for name, buffer in layer._buffers.items():
                    if name in ("running_mean", "running_var", "num_batches_tracked") and buffer is not None:
                        statistics[f"{path}.{name}" if path else name] = buffer.to(torch.device("cpu"), copy=True)
    return statistics

"""Whether a network's function stays under permutations of its groups, seen by running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.connectivity.exporting import as_arguments, device_of, held_outputs, on_meta
from workbench.errors import ArgumentError
from workbench.runtime.borrowing import lent, name_of, uncompiled
from workbench.seeds import generator

PROVED = "its function was seen unchanged under random permutations"


def function_check(
    module: nn.Module,
    inputs: Any,
    outputs: Sequence[str | int] | None,
    permuted: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    epsilon: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether a network with permuted weights computes what it computed before.

    Values that would hide a mistake are replaced by random ones: vectors (biases, norms, running statistics) and
    whatever is constant, inputs too. Outputs of the same network under two random states tell whether it is random.

    Args:
        module: lent in evaluation mode; as before afterwards.
        inputs: as `permutation_groups` takes them.
        outputs: the outputs that must stay; None for all of them.
        permuted: weights → permuted weights.
        epsilon: ε of the coarsest precision that the computation goes through.
        seed: of the random values.

    Returns:
        verified: whether the relative change is at most √ε.
        function_error: the largest relative change of an output, ‖after − before‖ / ‖before‖; NaN if not measured.
        proof: the same in words.

    Raises:
        ArgumentError: the module fails on the inputs.
    """
    unproved = {"verified": False, "function_error": float("nan")}
    if on_meta(module):
        return unproved | {"proof": "it is on the meta device: without values its function could not be checked"}
    inputs = _varied(as_arguments(inputs), seed)
    stored = module.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in stored.items():
        first.setdefault(id(tensor), name)  # names of one tied tensor draw the same numbers
    weights = {name: _random_if_blind(first[id(tensor)], tensor, seed) for name, tensor in stored.items()}
    before, again = (_outputs(module, inputs, outputs, weights, run) for run in (0, 1))
    if not any(bool(x.isfinite().any()) for x in before):
        return unproved | {"proof": "its outputs are empty or not finite: its function could not be checked"}
    bound = epsilon**0.5
    if max(map(relative_change, before, again)) > bound:
        return unproved | {"proof": "it is random even in evaluation mode: its function could not be checked"}
    error = max(map(relative_change, before, _outputs(module, inputs, outputs, permuted(weights), 0)))
    if not error <= bound:
        proof = f"ITS FUNCTION CHANGED by {error:.1g} under a random permutation: do not use these groups"
        return {"verified": False, "function_error": error, "proof": proof}
    return {"verified": True, "function_error": error, "proof": f"{PROVED} (relative change {error:.0e})"}


def relative_change(before: Tensor, after: Tensor) -> float:
    """‖after − before‖ / ‖before‖ over what is finite; infinite if what is not finite was another before."""
    before, after = (torch.view_as_real(x) if x.is_complex() else x for x in (before, after))
    before, after = before.double(), after.double()
    finite = before.isfinite() & after.isfinite()
    if not bool((finite | (before == after) | (before.isnan() & after.isnan())).all()):
        return float("inf")
    scale = before[finite].norm().item()
    return float((before[finite] - after[finite]).norm().item() / (scale or 1.0))


def _constant(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())


def _varied(inputs: Any, seed: int) -> Any:
    """Arguments whose constant tensors are random: zeros would not show which position is which."""
    import torch.utils._pytree as pytree

    draws = generator(seed, "example_inputs")

    def varied(value: Any) -> Any:
        if not isinstance(value, Tensor) or not _constant(value):
            return value
        return torch.rand(value.shape, generator=draws, dtype=torch.float64).to(value.device, value.dtype)

    return pytree.tree_map(varied, inputs)


def _random_if_blind(name: str, tensor: Tensor, seed: int) -> Tensor:
    if not (tensor.is_floating_point() and tensor.ndim == 1 or _constant(tensor)):
        return tensor.detach()
    drawn = torch.rand(tensor.shape, generator=generator(seed, name), dtype=torch.float64) + 0.5  # a variance too
    return (drawn if tensor.ndim == 1 else drawn / tensor.shape[-1]).to(tensor.device, tensor.dtype)


def _outputs(
    module: nn.Module, inputs: Any, outputs: Sequence[str | int] | None, weights: Mapping[str, Tensor], run: int
) -> list[Tensor]:
    positional, named = inputs
    with lent(module, weights, device_of(positional, named, module)), uncompiled():
        torch.manual_seed(run)  # the global state is put back when the module is
        try:
            result = module(*positional, **named)
        except Exception as error:
            raise ArgumentError(
                f"{name_of(module)} fails on example_inputs: {type(error).__name__}: {error}. Their shapes can be "
                "traced, their values cannot be computed with: pass inputs as in training."
            ) from error
        return [tensor for _, tensor in held_outputs(result, outputs)]

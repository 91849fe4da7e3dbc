"""Outputs of submodules, caught while they pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from workbench.errors import LayerNotFoundError, nearest
from workbench.runtime.batches import first_tensor


@contextmanager
def captured(module: nn.Module, names: str | Iterable[str], *, copy: bool = True) -> Iterator[dict[str, Tensor]]:
    """A dict that after each forward pass holds the outputs of the named submodules.

    Args:
        module: the network; its own hooks stay, and the ones added here go, also after an error.
        names: paths as in `module.named_modules()`; the empty path is the module itself.
        copy: keep a copy, because a later operation in place (ReLU(inplace=True)) would change what was caught.
            False keeps the tensor itself, to differentiate by it.

    Yields:
        Name → output, in the order in which they ran: of a tuple the first tensor, of Hugging Face's outputs `.logits`.
        Empty before the first pass; a submodule that did not run is not in it; of several calls the last one stays.

    Raises:
        LayerNotFoundError: a name is unknown; said before any hook is added.

    Cost: the memory of the outputs. Gradients flow through copies unless they are off.

    Source: torch's forward hooks.

    Misreads: a submodule that runs several times in one pass shows its last output only. Functions
    (torch.relu, an addition) are no submodules. A network of attention may skip submodules on its fast path.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> with captured(net, ["0", "1"]) as outputs:
        ...     _ = net(torch.tensor([-1.0, 2.0]))
        >>> outputs["0"].tolist(), outputs["1"].tolist()
        ([-1.0, 2.0], [0.0, 2.0])
    """
    known = dict(module.named_modules(remove_duplicate=False))
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise LayerNotFoundError(
                f"{type(module).__name__} has no submodule {name!r}: expected a path of named_modules()."
                + nearest(name, known)
            )
    outputs: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            tensor = first_tensor(output)
            outputs[name] = tensor.clone() if copy else tensor

        return keep

    handles = []
    try:
        for name in wanted:
            handles.append(known[name].register_forward_hook(keeper(name)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()

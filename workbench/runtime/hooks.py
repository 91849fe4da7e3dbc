"""Outputs of submodules, caught while they pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from workbench.errors import ArgumentError, LayerNotFoundError, listing, nearest
from workbench.runtime.batches import first_tensor
from workbench.runtime.borrowing import unfused


@contextmanager
def captured(module: nn.Module, names: str | Iterable[str], *, copy: bool = True) -> Iterator[dict[str, Tensor]]:
    """A dict that after each forward pass holds the outputs of the named submodules.

    Args:
        module: the network; its own hooks stay, and the ones added here go, also after an error.
        names: paths as in `module.named_modules()`, or globs of them; the empty path is the module itself.
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
    (torch.relu, an addition) are no submodules. torch's fast path of attention, which skips submodules, is off
    meanwhile; `nn.MultiheadAttention` still never runs its own `out_proj`.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> with captured(net, ["0", "1"]) as outputs:
        ...     _ = net(torch.tensor([-1.0, 2.0]))
        >>> outputs["0"].tolist(), outputs["1"].tolist()
        ([-1.0, 2.0], [0.0, 2.0])
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        outputs[name] = tensor.clone() if copy else tensor

    with hooked(submodules(module, names), keep):
        yield outputs


def submodules(module: nn.Module, names: str | Iterable[str]) -> dict[str, nn.Module]:
    """Path → submodule of all that paths and globs name, in the order of `module.named_modules()`.

    A module under several paths is found by each of them.

    Raises:
        ArgumentError: a name is no text.
        LayerNotFoundError: a name is unknown or a glob matches nothing, or there are no names.
    """
    known = dict(module.named_modules(remove_duplicate=False))
    chosen: set[str] = set()
    for name in listed(names):
        if not isinstance(name, str):
            raise ArgumentError(f"a submodule is named {name!r}: expected a path or a glob, as text.")
        matching = [name] if name in known else [path for path in known if fnmatchcase(path, name)]
        if not matching:
            raise LayerNotFoundError(
                f"{type(module).__name__} has no submodule {name!r}: expected a path of named_modules(), or a glob of "
                f"them: {listing(path for path in known if path)}.{nearest(name, known)}"
            )
        chosen.update(matching)
    if not chosen:
        raise LayerNotFoundError("an empty list of names selects no submodule.")
    return {path: part for path, part in known.items() if path in chosen}


def listed(names: str | Iterable[str]) -> list[str]:
    """One name or several as a list.

    Raises:
        ArgumentError: neither.
    """
    if isinstance(names, str):
        return [names]
    if not isinstance(names, Iterable):
        raise ArgumentError(f"layers={names!r}: expected a path or a glob of submodules, as text, or a list of them.")
    return list(names)


@contextmanager
def hooked(parts: Mapping[str, nn.Module], heard: Callable[[str, Any], None]) -> Iterator[None]:
    """Calls `heard(name, output)` right after each call of each part, before anything can change the output in place.

    torch's fast path of attention is off meanwhile, as it runs no submodules, and so is code made by torch.compile,
    which knows nothing of hooks that come later. The hooks go also after an error.
    """

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hear(_: nn.Module, __: Any, output: Any) -> None:
            heard(name, output)

        return hear

    handles = []
    try:
        for name, part in parts.items():
            handles.append(part.register_forward_hook(hook(name)))
        with unfused():
            yield
    finally:
        for handle in handles:
            handle.remove()

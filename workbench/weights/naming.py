"""Names of tensors: wrapper prefixes, nestings, and the order of depth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

PREFIXES = ("module.", "_orig_mod.")  # torch's DataParallel/DistributedDataParallel, torch.compile
COMPILED = "._orig_mod."  # torch.compile of a submodule
INNER = re.compile(re.escape(COMPILED))
NESTINGS = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights
AVERAGES = ("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema")  # and their moving average
LIGHTNING, LIGHTNING_PREFIX = "pytorch-lightning_version", "model."


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which `layer.2` comes before `layer.10`.

    Example:
        >>> sorted(["10.weight", "0.weight", "2.weight"], key=natural_key)
        ['0.weight', '2.weight', '10.weight']
    """
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part)


def without_prefixes(names: Iterable[str], more: Iterable[str] = ()) -> dict[str, str]:
    """Names without the wrapper prefixes that all of them share, mapped to the names as stored.

    Only a prefix that every name carries is a wrapper's; a submodule that happens to be called `module` stays.
    `more` are prefixes that count as wrappers' in this source, such as Lightning's `model.`.

    Example:
        >>> without_prefixes(["module.fc.weight", "module.fc.bias"])
        {'fc.weight': 'module.fc.weight', 'fc.bias': 'module.fc.bias'}
    """
    stored = {name: name for name in names}
    while stored:
        shared = next(
            (prefix for prefix in (*PREFIXES, *more) if all(name.startswith(prefix) for name in stored)), None
        )
        if shared is None:
            break
        stored = {name.removeprefix(shared): original for name, original in stored.items()}
    partly = _partly_compiled(stored)
    shorter = {name: name if partly & _owners(name) else name.replace(COMPILED, ".") for name in stored}
    return {printable(shorter[name]): original for name, original in stored.items()}


def _owners(name: str) -> set[str]:
    """The paths in front of each inner `_orig_mod.` of a name."""
    return {name[: found.start()] for found in INNER.finditer(name)}


def _partly_compiled(names: Iterable[str]) -> set[str]:
    """Those paths beside whose `_orig_mod.` lies something else: there it is no wrapper's, but a submodule's name."""
    owners = {owner for name in names for owner in _owners(name)}
    return {
        name[: dot.start()]
        for name in (names if owners else ())
        for dot in re.finditer(r"\.", name)
        if not name.startswith(COMPILED, dot.start()) and name[: dot.start()] in owners
    }


def printable(name: str) -> str:
    r"""A name that can be written and shown: half a surrogate pair, which is no text, as its escape.

    Example:
        >>> printable("fc.weight"), printable("fc\ud800")
        ('fc.weight', 'fc\\ud800')
    """
    return name.encode(errors="backslashreplace").decode()


def unnested(content: Mapping[Any, Any], *, ema: bool = False) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors of a checkpoint dictionary, looking into `state_dict` and its like.

    Returns:
        The tensors by name, the path of keys that led to them, and the entries that were left out.

    Raises:
        KeyError: two keys read the same as text, as 0 and "0" do.
    """
    path: list[str] = []
    skipped: list[str] = []
    entered = frozenset({id(content)})
    nestings = (*AVERAGES, *NESTINGS) if ema else NESTINGS
    while nested := next((key for key in nestings if holds_tensors(content.get(key), entered)), None):
        skipped += [".".join([*path, str(key)]) for key in content if key != nested]
        path.append(nested)
        content = content[nested]
        entered |= {id(content)}
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            skipped.append(".".join([*path, str(key)]))
        elif str(key) in tensors:
            raise KeyError(str(key))
        else:
            tensors[str(key)] = value
    return tensors, path, skipped


def holds_tensors(value: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether a mapping has a tensor in it, or in what is nested in it; a mapping inside itself ends the search."""
    if not isinstance(value, Mapping) or id(value) in seen:
        return False
    deeper = seen | {id(value)}
    return any(isinstance(one, Tensor) for one in value.values()) or any(
        holds_tensors(value.get(key), deeper) for key in NESTINGS
    )

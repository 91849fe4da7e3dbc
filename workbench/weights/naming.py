"""Names of tensors: wrapper prefixes, nestings, and the order of depth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

PREFIXES = ("module.", "_orig_mod.")  # torch's DataParallel/DistributedDataParallel, torch.compile
NESTINGS = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which `layer.2` comes before `layer.10`.

    Example:
        >>> sorted(["10.weight", "0.weight", "2.weight"], key=natural_key)
        ['0.weight', '2.weight', '10.weight']
    """
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part)


def without_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Names without the wrapper prefixes that all of them share, mapped to the names as stored.

    Only a prefix that every name carries is a wrapper's; a submodule that happens to be called `module` stays.

    Example:
        >>> without_prefixes(["module.fc.weight", "module.fc.bias"])
        {'fc.weight': 'module.fc.weight', 'fc.bias': 'module.fc.bias'}
    """
    stored = {name: name for name in names}
    while stored:
        shared = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in stored)), None)
        if shared is None:
            break
        stored = {name.removeprefix(shared): original for name, original in stored.items()}
    return stored


def unnested(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors of a checkpoint dictionary, looking into `state_dict` and its like.

    Returns:
        The tensors by name, the path of keys that led to them, and the entries that were left out.
    """
    path: list[str] = []
    skipped: list[str] = []
    while nested := next((key for key in NESTINGS if isinstance(content.get(key), Mapping)), None):
        skipped += [".".join([*path, str(key)]) for key in content if key != nested]
        path.append(nested)
        content = content[nested]
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    skipped += [".".join([*path, str(key)]) for key in content if str(key) not in tensors]
    return tensors, path, skipped

"""Whether results are of one model, by the fingerprints that they carry."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

SAME, SHAPES, DIFFERENT, UNKNOWN = "same tensors", "same names and shapes", "another model", "not known"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a result knows of the model that it is of.

    Attributes:
        contents: tensor → content fingerprint, for each of the models that the result is of (a Diff has several).
        module: the fingerprint of a module's names and contents; empty where there is none.
        header: the fingerprint of names, shapes and dtypes; empty where there is none.
    """

    contents: Sequence[Mapping[str, str]] = field(default_factory=tuple)
    module: str = ""
    header: str = ""


def tensor_identity(meta: Mapping[str, Any]) -> Identity:
    """The identity of a run over tensors, with the other models of a Diff."""
    others = meta.get("other_fingerprints", {}).values()
    known = tuple(dict(one) for one in (meta.get("fingerprints", {}), *others) if one)
    return Identity(contents=known, header=str(meta.get("fingerprint", "")))


def agreement(one: Identity, other: Identity) -> str:
    """`same tensors`, `same names and shapes`, `another model`, or `not known` where the fingerprints do not meet."""
    shared = [(a, b) for a in one.contents for b in other.contents if a.keys() & b.keys()]
    if shared:
        equal = any(all(a[name] == b[name] for name in a.keys() & b.keys()) for a, b in shared)
        return SAME if equal else DIFFERENT
    if one.module and other.module:
        return SAME if one.module == other.module else DIFFERENT
    for module, contents in ((one.module, other.contents), (other.module, one.contents)):
        if module and any(_module_of(known) == module for known in contents):
            return SAME
    if one.header and other.header:
        return SHAPES if one.header == other.header else DIFFERENT
    return UNKNOWN


def _module_of(contents: Mapping[str, str]) -> str:
    """The fingerprint that a module with these tensors alone would have."""
    rows = "\n".join(f"{name} {contents[name]}" for name in sorted(contents))
    return hashlib.blake2b(rows.encode(), digest_size=16).hexdigest()


def components(identities: Sequence[Identity]) -> list[int]:
    """The number of the model that each is of: one more for every set that shares no tensors with the others'."""
    numbers = list(range(len(identities)))
    for i, j in combinations(range(len(identities)), 2):
        if agreement(identities[i], identities[j]) == SAME:
            old, new = numbers[j], numbers[i]
            numbers = [new if number == old else number for number in numbers]
    return numbers


def strangers(identities: Sequence[Identity]) -> list[tuple[int, int]]:
    """Pairs that are of different models, and that no result of both connects."""
    numbers = components(identities)
    return [
        (i, j)
        for i, j in combinations(range(len(identities)), 2)
        if numbers[i] != numbers[j] and agreement(identities[i], identities[j]) == DIFFERENT
    ]

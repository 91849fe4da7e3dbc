"""Where numbers come from that were found by running a module over data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.results import versions
from workbench.runtime.borrowing import name_of
from workbench.runtime.chain import Chain
from workbench.weights.tensors import module_fingerprint


def chain_meta(function: str, chain: Chain, parameters: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """What `Result.meta` says of a module over data."""
    dtypes = {str(t.dtype).removeprefix("torch.") for t in chain.module.parameters() if t.is_floating_point()}
    own = ", ".join(sorted(dtypes)) or "float64"
    return {
        "function": function,
        "source": name_of(chain.module),
        "fingerprint": module_fingerprint(chain.module),
        "parameters": dict(parameters),
        "cuts": {cut.layer: {"path": cut.path, "axis": cut.axis, "width": cut.width} for cut in chain.cuts},
        "skipped": dict(chain.skipped),
        "seed": seed,
        "dtype": own if chain.dtype is None else str(chain.dtype).removeprefix("torch."),
        "device": str(chain.device),
        "versions": versions(),
    }


def other_weights(fingerprint: str, basis: Mapping[str, Any]) -> list[str]:
    """What `Result.notes` say where weights are not those of a basis, of which this is the meta; [] where they are."""
    same = basis.get("fingerprint", fingerprint) == fingerprint
    return [] if same else ["the module's weights are not those that the basis is of"]

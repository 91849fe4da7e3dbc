"""Oracles of the primitives of signatures: least squares and cosines by numpy, a merge by hand."""

import numpy as np
import torch
from torch import Tensor

import workbench as wb


def _checkpoints() -> list[dict[str, Tensor]]:
    """Three of one architecture, in float64."""
    shapes = {"conv.weight": (4, 2, 3, 3), "conv.bias": (4,), "fc.weight": (3, 8)}
    random = torch.Generator().manual_seed(0)
    return [
        {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
        for _ in range(3)
    ]


def signature_oracle() -> None:
    """What numpy's least squares leaves of t when c is fitted to it; taken off a patched network, the network."""
    ancestor, clean, robust = _checkpoints()
    found = wb.signature(ancestor=ancestor, clean=clean, robust=robust)
    for name, start in ancestor.items():
        c, t = ((one[name] - start).numpy().reshape(-1, 1) for one in (clean, robust))
        residual = t - c @ np.linalg.lstsq(c, t, rcond=None)[0]
        np.testing.assert_allclose(found[name].numpy().reshape(-1, 1), residual, atol=1e-13)
    patched = found.apply(clean, scale=0.5)
    assert torch.equal(patched["fc.weight"], clean["fc.weight"] + 0.5 * found["fc.weight"])
    assert all(torch.equal(wb.Signature.remove(patched)[name], tensor) for name, tensor in clean.items())


def similarity_oracle() -> None:
    """Numpy's cosines of the flattened tensors, each with its sign."""
    models = dict(zip("abc", _checkpoints(), strict=True))
    found = wb.similarity(models)
    for layer, names in (("fc", ["fc.weight"]), (None, list(models["a"]))):
        rows = np.stack([np.concatenate([one[name].numpy().ravel() for name in names]) for one in models.values()])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(found.matrix(layer).to_numpy(), rows @ rows.T, atol=1e-12)


def merge_oracle() -> None:
    """Yadav et al.'s rule by hand: the three largest changes of each, and the mean of those of the elected sign."""
    changes = torch.tensor(
        [[0.9, -0.1, 0.5, 0.0, -0.6, 0.2], [-0.4, 0.8, 0.3, 0.1, -0.5, -0.2], [0.3, 0.7, -0.9, 0.2, 0.1, 0.4]]
    ).double()
    base = torch.arange(6).double()
    found = wb.merge({"fc.weight": base}, [{"fc.weight": base + change} for change in changes], density=0.5)
    np.testing.assert_allclose(found["fc.weight"] - base, [0.9, 0.75, -0.9, 0.0, -0.55, 0.4], atol=1e-12)

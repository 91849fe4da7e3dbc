"""The oracle of wb.diff: numpy's norms and cosines of all elements, and a sign conflict by hand."""

import numpy as np
import pytest
import torch

import workbench as wb


def diff_oracle() -> None:
    """Numpy's norms, and the cosine and the conflicts of two changes over many pieces."""
    random = torch.Generator().manual_seed(0)
    base, *others = (torch.randn(400, 300, generator=random) for _ in range(3))
    found = wb.diff({"w.weight": base}, {str(n): {"w.weight": own} for n, own in enumerate(others)})
    w, x, y = (own.double().numpy().ravel() for own in (base, *others))
    norms = [np.linalg.norm(own - w) / np.linalg.norm(w) for own in (x, y)]
    np.testing.assert_allclose(found.tables["values"]["relative_norm"], norms, rtol=1e-6)
    pairs = {name: cells[0] for name, cells in found.tables["pairs"].items()}
    expected = (x - w) @ (y - w) / np.linalg.norm(x - w) / np.linalg.norm(y - w)
    assert pairs["cosine"] == pytest.approx(expected, rel=1e-6)
    assert pairs["sign_conflict"] == np.mean(np.sign(x - w) != np.sign(y - w))

"""The oracle of wb.atlas: scipy's ρ and τ, every order of five layers, and depth held fixed by a fit of numpy."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr

import workbench as wb


def atlas_oracle() -> None:
    """Scipy's numbers; p by trying all 120 orders; depth held fixed by ranks that were regressed on it by numpy."""
    random = np.random.default_rng(3)
    base = {f"{n}.weight": torch.from_numpy(random.normal(size=(30, 30))) for n in range(5)}
    sizes = (0.1, 0.5, 0.2, 0.4, 0.3)
    tuned = {name: weight * (1 + size) for size, (name, weight) in zip(sizes, base.items(), strict=True)}
    contents, diff = wb.contents(base), wb.diff(base, tuned)
    found = wb.atlas(contents, diff, columns=["contents.rms", "diff.relative_norm"], controls=["depth"])
    frame = found.frame()
    x, y = frame["contents.rms"].to_numpy(), frame["diff.relative_norm"].to_numpy()
    assert y == pytest.approx(sizes) and frame["contents.rms"].tolist() == contents.frame()["rms"].tolist()
    row = found.pair("contents.rms", "diff.relative_norm")
    assert row["rho"] == pytest.approx(spearmanr(x, y).statistic, rel=1e-12)
    assert row["tau"] == pytest.approx(kendalltau(x, y).statistic, rel=1e-12)
    every = [abs(spearmanr(x, y[list(order)]).statistic) for order in permutations(range(5))]
    assert row["p"] == pytest.approx(np.mean([one >= abs(row["rho"]) - 1e-9 for one in every]), rel=1e-12)
    assert row["verdict"] == ("not distinguishable from 0" if row["p"] > 0.05 else "negative")
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    left = [rank - np.polyval(np.polyfit(np.arange(5), rank, 1), np.arange(5)) for rank in ranks]
    assert row["partial"] == pytest.approx(np.corrcoef(*left)[0, 1], rel=1e-9)

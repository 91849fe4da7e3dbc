"""Pure noise says `no tail` under every rule, through the public functions; what is not noise does not."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb

RULES = ["search", "median", "peak"]
KINDS = {
    "gaussian": lambda random, shape: random.standard_normal(shape),
    "uniform": lambda random, shape: random.uniform(-1, 1, shape),
    "signs": lambda random, shape: random.choice([-1.0, 1.0], shape),
}


def model(kind: str, seed: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    shapes = [(64, 64), (256, 64), (300, 300), (40, 640), (128, 100)]
    return {f"{rows}x{cols}.weight": torch.from_numpy(KINDS[kind](random, (rows, cols))) for rows, cols in shapes}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_no_tail_in_full_matrices(kind: str, rule: Any) -> None:
    for seed in range(3):
        table = wb.spectrum(model(kind, seed), xmin=rule).frame()
        assert set(table["verdict"]) == {"no tail"}, table[["layer", "verdict", "reason"]].to_string()
        assert table["alpha"].notna().all(), "α stays in its column whatever the verdict"


@pytest.mark.parametrize("rule", RULES)
def test_noise_has_no_tail_in_windows(rule: Any) -> None:
    for kind in KINDS:
        table = wb.farms(model(kind, 0), xmin=rule, window=50, resamples=0).frame()
        assert set(table["verdict"]) == {"no tail"}, table[["layer", "verdict", "reason"]].to_string()


def test_untrained_layers_have_no_tail() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 1), nn.Linear(200, 100))
    nn.init.xavier_normal_(net[3].weight)
    for rule in ("search", "median"):
        assert set(wb.spectrum(net, xmin=rule).frame()["verdict"]) == {"no tail"}


def test_a_number_is_judged_against_noise_too() -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 200)))
    assert wb.spectrum({"fc.weight": matrix}, xmin=300.0).row("fc")["verdict"] == "no tail"


@pytest.mark.parametrize("rule", RULES)
def test_entries_of_infinite_variance_are_not_noise(rule: Any) -> None:
    cauchy = torch.from_numpy(np.random.default_rng(0).standard_cauchy((200, 100)))
    for result in (
        wb.spectrum({"fc.weight": cauchy}, xmin=rule),
        wb.farms({"fc.weight": cauchy}, xmin=rule, window=50),
    ):
        row = result.row("fc")
        assert row["verdict"] in ("heavy", "heavier than noise") and 1 < row["alpha"] < 2.5


def test_a_spike_is_not_noise() -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal((400, 100)) / 20
    left, right = random.standard_normal(400), random.standard_normal(100)
    spiked = noise + 3 * np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
    for rule in ("search", "median"):
        assert wb.spectrum({"fc.weight": torch.from_numpy(noise)}, xmin=rule).row("fc")["verdict"] == "no tail"
        assert wb.spectrum({"fc.weight": torch.from_numpy(spiked)}, xmin=rule).row("fc")["verdict"] != "no tail"


def test_thirty_thousand_rows_of_an_embedding() -> None:
    table = torch.randn(30_522, 64, generator=torch.Generator().manual_seed(0))
    full = wb.spectrum({"embeddings.weight": table}).row("embeddings")
    assert full["verdict"] == "no tail" and full["num_eigenvalues"] == 64
    windows = wb.farms({"embeddings.weight": table}, window=64, resamples=10).row("embeddings")
    assert windows["verdict"] == "no tail" and windows["coverage"] == 1


@pytest.mark.parametrize(
    "matrix",
    [
        torch.ones(60, 60),
        torch.outer(torch.arange(1.0, 61), torch.arange(1.0, 41)),
        torch.eye(60),
        torch.ones(50, 1),
        torch.randn(10, 60, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["all equal", "rank one", "orthogonal", "one column", "ten rows"],
)
@pytest.mark.parametrize("rule", RULES)
def test_what_has_too_little_for_a_tail_says_so(matrix: torch.Tensor, rule: Any) -> None:
    row = wb.spectrum({"fc.weight": matrix}, xmin=rule).row("fc")
    assert row["verdict"] == "no tail" and row["reason"]


@pytest.mark.parametrize("rule", RULES)
def test_kernel_positions_of_unequal_variance_are_noise_still(rule: Any) -> None:
    weight = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[:, :, 1, 1] *= 2
    weight[:, :, 0, 0] = 0  # a masked tap
    row = wb.spectrum({"conv.weight": weight}, xmin=rule).row("conv")
    assert row["verdict"] == "no tail" and "a variance of its own in each of 8 matrices" in row["reason"]


@pytest.mark.parametrize("rule", RULES)
def test_dead_rows_and_columns_are_no_part_of_the_shape(rule: Any) -> None:
    random = torch.Generator().manual_seed(0)
    for noise in (torch.randn(400, 200, generator=random), torch.randn(2500, 64, generator=random)):
        dead = torch.zeros(len(noise), noise.shape[1])
        for weight in (torch.cat([noise, dead]), torch.cat([noise, dead], 1), torch.cat([noise, dead], 1).T):
            assert wb.spectrum({"fc.weight": weight}, xmin=rule).row("fc")["verdict"] == "no tail"


def test_trained_convolutions_keep_their_tails() -> None:
    random = np.random.default_rng(0)
    heavy = torch.from_numpy(random.standard_t(2, (48, 48, 3, 3)))
    assert wb.spectrum({"conv.weight": heavy}).row("conv")["verdict"] in ("heavy", "typical")

"""The study behind the notebook: independent pairs, every method on the same, and a pair measured again."""

import sys
from pathlib import Path
from typing import Any

import pytest

import workbench as wb

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def module() -> Any:
    sys.path.insert(0, str(DATA))
    try:
        import connectivity_study
    finally:
        sys.path.remove(str(DATA))
    return connectivity_study


@pytest.fixture(scope="module")
def study(module: Any) -> wb.Result:
    return wb.open_result(DATA / "results" / "connectivity-digits")


def test_no_network_is_in_two_pairs_and_every_method_has_all_pairs(study: wb.Result) -> None:
    pairs = study.frame()
    for _, rows in pairs.groupby(["network", "method"]):
        seeds = [*rows["seed_a"], *rows["seed_b"]]
        assert sorted(seeds) == list(range(100, 110))
    assert pairs.groupby("network")["method"].nunique().eq(3).all() and pairs["network"].nunique() == 6


def test_distances_and_reductions_are_one_story(study: wb.Result) -> None:
    wide = study.frame().pivot(index=["network", "seed_a"], columns="method", values=["distance", "reduction"])
    for method in ("weights", "activations"):
        reduced = 1 - wide["distance"][method] / wide["distance"]["none"]
        assert (reduced - wide["reduction"][method]).abs().max() < 1e-9
    losses = study.frame().groupby(["network", "seed_a"])["loss_b"]
    assert ((losses.max() - losses.min()) < 1e-6).all(), "a permutation changed the function"


def test_a_pair_trained_and_measured_again_is_like_the_saved_one(module: Any, study: wb.Result) -> None:
    """Other processors round otherwise, so that the networks differ; what is claimed of them does not."""
    trained = {
        seed: module.build.train(
            module.build.Recipe(name="mlp32", architecture="", module=module.NETWORKS["mlp32"][0]), seed
        ).state_dict()
        for seed in (100, 101)
    }
    rows, aligned = module.pair(module.Bench("mlp32"), "mlp32", (100, 101), trained[100], trained[101])
    saved = study.frame().query("network == 'mlp32'")
    for row in rows:
        others = saved[saved["method"] == row["method"]]
        for column in ("barrier", "reduction", "middle"):
            mean, spread = others[column].mean(), others[column].std()
            assert abs(row[column] - mean) <= 6 * spread + 1e-9, (row["method"], column)
    r = {(row["method"], row["gamma"]): row["after"] for row in aligned}
    assert r["weights", 0.5] > r["weights", 0.0] > 0.15

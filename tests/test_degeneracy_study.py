"""The study behind the notebook: every basis on the same networks, and one counted again."""

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
        import degeneracy_study
    finally:
        sys.path.remove(str(DATA))
    return degeneracy_study


@pytest.fixture(scope="module")
def study(module: Any) -> wb.Result:
    return wb.open_result(DATA / "results" / "degeneracy")


def test_every_network_has_every_basis(module: Any, study: wb.Result) -> None:
    nodes = study.frame()
    for name in module.LAYERS:
        rows = nodes[nodes["network"] == name]
        assert set(rows["seed"]) == set(module.build.RECIPES[name].seeds)
        assert (rows.groupby(["seed", "layer"])["kind"].nunique() == len(module.KINDS)).all()
    assert (nodes["smallest"] <= nodes["needed"]).all() and (nodes["needed"] <= nodes["nodes"]).all()
    edges = study.frame("edges")
    assert set(edges["kind"]) == set(module.EDGES) and (edges["needed"] < edges["edges"]).all()


def test_published_counts_are_the_spec_s(study: wb.Result) -> None:
    """Means over the five networks, edges: 86.6, 74.0, 634 in the local basis and 117.4, 85.2, 663 in PCA."""
    means = study.frame("published").groupby(["kind", "layer"])["edges"].mean()
    assert means["local"].tolist() == pytest.approx([74.0, 634.2, 86.6])  # resid_mid, resid_post, resid_pre
    assert means["pca"].tolist() == pytest.approx([85.2, 662.6, 117.4])


def test_a_layer_counted_again_is_as_saved(module: Any, study: wb.Result) -> None:
    """The last layer's nodes of the perceptron; other processors round otherwise, so that one more or less may do."""
    name = "digits-mlp512"
    recipe = module.build.RECIPES[name]
    split, network = recipe.split(recipe.input_shape), recipe.module()
    network.load_state_dict(dict(wb.load(DATA / "checkpoints" / f"{name}-seed0.safetensors")))
    evaluator = wb.evaluator(network, [(split.test_x, split.test_y)], "cross_entropy", device="cpu")
    saved = study.frame().query("network == @name and seed == 0 and layer == '3'").set_index("kind")
    for kind in ("local", "pca"):
        basis = wb.interaction_basis(network, [split.train_x], "3", kind=kind)
        found = wb.ablation(evaluator, basis, "3", counts=range(min(25, basis.nodes("3"))))
        assert abs(module.smallest(found) - saved.loc[kind, "smallest"]) <= 1
        assert abs(basis.predicted_nodes("3") - saved.loc[kind, "predicted"]) <= 1

"""Permutation groups."""

import pytest

import zoo_attention
import zoo_images
import zoo_more
import zoo_order
from workbench.connectivity import permutation_groups
from zoo import ZOO, change, described, function, in_double, one_axis_less, random_weights, turned

assert zoo_attention and zoo_images and zoo_more and zoo_order  # they fill the zoo


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str) -> None:
    case = ZOO[name]
    module, inputs = in_double(case.build)
    groups = permutation_groups(module, inputs)
    assert described(groups) == sorted(case.groups)
    assert sorted(groups.tables["unknown"]["operation"]) == sorted(case.unknown)
    assert groups.verified and groups.meta["function_error"] <= 1e-10
    weights = random_weights(module)
    outputs = function(module, inputs)
    before = outputs(weights)
    for permutations in (groups.random(1), groups.random(2), turned(groups.structure)):
        assert change(before, outputs(groups.apply(weights, permutations))) <= 1e-10
    permutations = turned(groups.structure)
    unfelt = [
        axis
        for axis, less in one_axis_less(groups.structure)
        if change(before, outputs(less.applied(weights, permutations))) <= 1e-8
    ]
    assert unfelt == list(case.dead)

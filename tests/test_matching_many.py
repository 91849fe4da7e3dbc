"""Matching of many networks with each other (merge-many)."""

from itertools import combinations, permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.connectivity import Matching, MatchingProgress, match, match_many, permutation_groups
from workbench.progress import Progress


def networks(count: int, *widths: int, seed: int = 0) -> tuple[nn.Sequential, list[dict[str, Tensor]]]:
    parts: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    module = nn.Sequential(*parts[:-1])
    draw = torch.Generator().manual_seed(seed)
    return module, [
        {name: torch.randn(t.shape, generator=draw, dtype=torch.float64) for name, t in module.state_dict().items()}
        for _ in range(count)
    ]


def inner(a: wb.Weights | dict[str, Tensor], b: wb.Weights | dict[str, Tensor]) -> float:
    return sum(float((a[name] * b[name]).sum()) for name in a)


def pairwise(models: list[wb.Weights]) -> float:
    return sum(inner(a, b) for a, b in combinations(models, 2))


def applied(found: Matching, models: list[dict[str, Tensor]]) -> list[wb.Weights]:
    return [found.apply(weights, model=number) for number, weights in enumerate(models)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_sum_over_pairs_never_falls_and_is_what_the_table_says(count: int, seed: int) -> None:
    module, models = networks(count, 3, 7, 6, 2, seed=seed)
    found = match_many(permutation_groups(module, torch.zeros(1, 3)), models, gammas=(), seed=seed)
    rounds = found.frame("sweeps").query("model == 0")
    objectives = rounds.objective.tolist()
    assert all(later >= earlier - 1e-9 for earlier, later in zip(objectives, objectives[1:], strict=False))
    assert rounds.sweep.tolist() == list(range(len(rounds)))
    assert rounds.changed.tolist()[-1] == 0
    moved = applied(found, models)
    assert all(torch.equal(moved[0][name], models[0][name]) for name in models[0])
    assert objectives[-1] == pytest.approx(pairwise(moved), rel=1e-12)
    squares = sum(sum(float((a[n] - b[n]).square().sum()) for n in a) for a, b in combinations(moved, 2))
    assert rounds.distance.tolist()[-1] == pytest.approx(squares**0.5, rel=1e-9)
    assert found.objective == pytest.approx(sum(inner(moved[0], other) for other in moved[1:]), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_no_network_alone_can_be_nearer_to_the_mean_of_the_others(seed: int) -> None:
    """Every permutation of one hidden layer is tried for every network."""
    module, models = networks(3, 2, 5, 2, seed=seed)
    found = match_many(permutation_groups(module, torch.zeros(1, 2)), models, gammas=())
    moved = [dict(weights) for weights in applied(found, models)]
    for number, weights in enumerate(moved):
        others = [other for k, other in enumerate(moved) if k != number]
        here = sum(inner(weights, other) for other in others)
        for order in map(list, permutations(range(5))):
            turned = {"0.weight": weights["0.weight"][order], "0.bias": weights["0.bias"][order]}
            turned |= {"2.weight": weights["2.weight"][:, order], "2.bias": weights["2.bias"]}
            assert sum(inner(turned, other) for other in others) <= here + 1e-9


def test_three_permuted_copies_come_back_to_distance_0() -> None:
    module, (weights,) = networks(1, 4, 8, 7, 3)
    groups = permutation_groups(module, torch.zeros(1, 4))
    models = [dict(groups.apply(weights, groups.random(seed))) for seed in (1, 2, 3)]
    found = match_many(groups, models)
    assert found.reduction() == 1.0
    for moved in applied(found, models):
        assert all(torch.equal(moved[name], models[0][name]) for name in moved)
    assert found.alignment(0.3) == pytest.approx(1, abs=1e-9)
    assert found.models == [1, 2]


def test_two_networks_are_a_fixed_point_of_match() -> None:
    module, models = networks(2, 3, 8, 8, 2)
    groups = permutation_groups(module, torch.zeros(1, 3))
    many, one = match_many(groups, models, gammas=()), match(groups, *models, gammas=())
    assert many.objective >= one.objective - 1e-9
    again = match(groups, models[0], many.apply(models[1], model=1), gammas=())
    sweeps = again.frame("sweeps")
    assert sweeps.objective.tolist()[0] == pytest.approx(many.objective, rel=1e-12)
    assert again.objective >= many.objective - 1e-9


@pytest.mark.parametrize("same", [False, True])
def test_equal_and_dead_units_come_to_an_end(same: bool) -> None:
    """Units that are equal but for rounding could change places for ever."""
    module, models = networks(3, 3, 12, 12, 2)
    for weights in models:
        weights["0.weight"][4:] = weights["0.weight"][:1]
        weights["0.bias"][4:] = weights["0.bias"][:1]
        weights["2.weight"][:, 4:] = weights["2.weight"][:, :1]
        weights["2.weight"][6:], weights["2.bias"][6:], weights["4.weight"][:, 6:] = 0, 0, 0
    if same:
        models = [models[0]] * 3
    found = match_many(permutation_groups(module, torch.zeros(1, 3)), models, gammas=())
    assert len(found.frame("sweeps").query("model == 0")) < 10
    assert (found.permutations_of(1).is_identity and found.permutations_of(2).is_identity) or not same


def test_heads_in_three_networks() -> None:
    module = nn.TransformerEncoderLayer(6, 3, 5, batch_first=True).eval()
    groups = permutation_groups(module, torch.zeros(1, 2, 6))
    draw = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(t.shape, generator=draw) for name, t in module.state_dict().items()}
    models = [dict(groups.apply(weights, groups.random(seed))) for seed in (1, 2, 3)]
    found = match_many(groups, models, gammas=())
    assert found.reduction() == 1.0
    evaluator = wb.evaluator(module, [(torch.randn(2, 3, 6), torch.zeros(2, 3, 6))], "mse", device="cpu")
    checked = match_many(groups, models, gammas=(), evaluator=evaluator)
    assert [check["unchanged"] for check in checked.meta["checks"]] == [True, True]
    assert checked.verified


def test_another_architecture_is_refused_by_its_first_difference() -> None:
    module, models = networks(2, 3, 7, 6, 2)
    wider = networks(1, 3, 9, 6, 2)[1]
    groups = permutation_groups(module, torch.zeros(1, 3))
    with pytest.raises(wb.WorkbenchError, match=r"has '0.weight' of the shape \[9, 3\], the groups expect \[7, 3\]"):
        match_many(groups, [*models, *wider])
    for few in ([], models[:1]):
        with pytest.raises(wb.WorkbenchError, match=f"models has {len(few)} networks: expected two or more"):
            match_many(groups, few)


def test_it_is_reproducible_saved_and_asks_for_a_number(tmp_path: Path) -> None:
    module, models = networks(3, 3, 7, 6, 2)
    groups = permutation_groups(module, torch.zeros(1, 3))
    first, again = (match_many(groups, models, seed=4) for _ in range(2))
    opened = wb.open_result(first.save(tmp_path / "many"))
    assert isinstance(opened, Matching)
    for other in (again, opened):
        for number in (1, 2):
            order = first.permutations_of(number)
            assert all(torch.equal(order[group], other.permutations_of(number)[group]) for group in order)
    with pytest.raises(wb.WorkbenchError, match=r"networks \[1, 2\] are permuted: take permutations_of\(model\)"):
        first.apply(models[1])
    assert sum(first.frame("layers").model == 1) == sum(first.frame("layers").model == 2) == len(models[0])


@pytest.mark.parametrize("when", [1, 3, 8, 20])
def test_a_cancel_leaves_orders_that_can_be_applied(when: int) -> None:
    module, models = networks(3, 3, 7, 6, 2)
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        told.append(progress)
        if len(told) == when:
            raise wb.Cancelled

    groups = permutation_groups(module, torch.zeros(1, 3))
    with pytest.raises(wb.Cancelled) as caught:
        match_many(groups, models, progress=stop)
    partial = caught.value.partial
    assert isinstance(partial, Matching)
    assert all(isinstance(report, MatchingProgress) for report in told)
    moved = applied(partial, models)
    x = torch.randn(4, 3, dtype=torch.float64)
    for before, after in zip(models, moved, strict=True):
        module.double().load_state_dict(before)
        expected = module(x)
        module.load_state_dict(dict(after))
        assert torch.allclose(module(x), expected, atol=1e-12)
    assert pairwise(moved) >= pairwise([wb.load(weights) for weights in models]) - 1e-9
    assert partial.objective == pytest.approx(sum(inner(moved[0], other) for other in moved[1:]), rel=1e-12)

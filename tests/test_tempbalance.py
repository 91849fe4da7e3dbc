"""`wb.tempbalance` and its scheduler: rates by hand, every parameter once, and no quarrel with another schedule."""

import copy
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW, lr_scheduler

import workbench as wb
from workbench.figures import Points, Rule
from workbench.spectra.tempbalance import assigned
from workbench.weights import load

RATE = 0.1


def tail(alpha: float, size: int = 200) -> Tensor:
    """A diagonal matrix whose λ are Pareto quantiles."""
    return torch.diag((torch.arange(1, size + 1, dtype=torch.float64) / (size + 0.5)) ** (-0.5 / (alpha - 1)))


def net(*alphas: float) -> nn.Sequential:
    """Linear layers of 200 with the given exponents, biases and a norm."""
    layers: list[nn.Module] = []
    for alpha in alphas:
        layers.append(nn.Linear(200, 200))
        layers[-1].weight.data = tail(alpha).float()
    return nn.Sequential(*layers, nn.LayerNorm(200))


def balance(model: Any, **options: Any) -> wb.TempBalance:
    return wb.tempbalance(model, learning_rate=RATE, **({"estimator": "spectrum", "xmin": 1.0} | options))


# The rates


def test_the_linear_rates_are_the_papers_formula() -> None:
    model = {f"{n}.weight": tail(alpha) for n, alpha in enumerate((2.0, 5.0, 3.0, 3.5))}
    alphas = wb.spectrum(model, xmin=1.0).frame()["alpha"].tolist()
    low, high = min(alphas), max(alphas)
    table = balance(model, scale=(0.25, 2.0)).tables["layers"]
    assert table["alpha"] == tuple(alphas)
    assert table["learning_rate"] == pytest.approx([RATE * (0.25 + (a - low) / (high - low) * 1.75) for a in alphas])
    assert table["factor"] == pytest.approx([rate / RATE for rate in table["learning_rate"]])
    assert (table["factor"][0], table["factor"][1]) == (0.25, 2.0)
    assert table["tensor"] == tuple(model) and set(table["shape"]) == {"200×200"}


@pytest.mark.parametrize(
    ("assignment", "alphas", "expected"),
    [
        ("linear", (2, 3, 6), (0.5, 0.75, 1.5)),
        ("linear", (6, 2, 3), (1.5, 0.5, 0.75)),
        ("linear", (3, 3, 3), (1, 1, 1)),
        ("linear", (3, 3 + 1e-12), (1, 1)),
        ("sqrt", (1, 4, 9), (0.5, 1, 1.5)),
        ("sqrt", (5, 5), (1, 1)),
        ("log2", (2, 8), (0.5, 1.5)),
        ("log2", (4, 4), (1, 1)),
        ("log2", (1, 1), (1, 1)),
        ("step", (9, 2, 3), (1.5, 0.5, 1)),
        ("step", (2, 3, 3, 4), (0.5, 1, 1, 1.5)),
        ("step", (2, 2), (1, 1)),
    ],
)
def test_factors_by_hand(assignment: Any, alphas: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = assigned([float(alpha) for alpha in alphas], assignment, (0.5, 1.5))
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(1.01, 40), min_size=2, max_size=12), st.sampled_from(["linear", "sqrt", "log2", "step"]))
def test_a_larger_alpha_never_learns_slower(alphas: list[float], assignment: Any) -> None:
    factors = assigned(alphas, assignment, (0.5, 1.5))
    by_alpha = [factor for _, factor in sorted(zip(alphas, factors, strict=True))]
    assert all(b - a >= -1e-12 for a, b in zip(by_alpha, by_alpha[1:], strict=False))
    if assignment in ("sqrt", "log2"):
        assert math.fsum(factors) == pytest.approx(len(factors))
    else:
        assert min(factors) >= 0.5 and max(factors) <= 1.5


def test_equal_alphas_are_midway_of_the_range() -> None:
    model = {f"{n}.weight": tail(3.0) for n in range(3)}
    assert balance(model, scale=(0.5, 2.5)).tables["layers"]["factor"] == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("estimator", ["farms", "spectrum"])
def test_alpha_is_the_estimators_own(estimator: str) -> None:
    model = {f"{n}.weight": torch.randn(90, 60, generator=torch.Generator().manual_seed(n)) for n in range(3)}
    found = balance(model, estimator=estimator, xmin="peak", **({"window": 40} if estimator == "farms" else {}))
    own = wb.farms(model, xmin="peak", window=40) if estimator == "farms" else wb.spectrum(model, xmin="peak")
    assert found.tables["layers"]["alpha"] == own.tables["layers"]["alpha"]
    assert found.tables["layers"]["verdict"] == own.tables["layers"]["verdict"]
    assert found.meta["fingerprints"] == own.meta["fingerprints"]


def test_layers_inside_one_tensor_share_the_rate_of_their_mean_alpha() -> None:
    fused = torch.cat([tail(2.0), tail(3.0), tail(4.0)])
    model = {"a.qkv.weight": fused, "b.weight": tail(2.5), "c.weight": tail(5.0)}
    table = balance(model).frame().set_index("layer")
    q, k, v = (table["alpha"][f"a.qkv.{part}"] for part in "qkv")
    b, c = table["alpha"]["b"], table["alpha"]["c"]
    expected = 0.5 + ((q + k + v) / 3 - b) / (c - b)
    assert [table["factor"][f"a.qkv.{part}"] for part in "qkv"] == pytest.approx([expected] * 3)


def test_a_layer_without_alpha_keeps_the_base_rate_and_says_why() -> None:
    bad = tail(3.0)
    bad[0, 0] = math.nan
    model = {"a.weight": tail(2.0), "bad.weight": bad, "eye.weight": torch.eye(50), "b.weight": tail(4.0)}
    table = balance(model, xmin="median").frame().set_index("layer")
    assert table["factor"].to_dict() == {"a": 0.5, "bad": 1.0, "eye": 1.0, "b": 1.5}
    assert table["verdict"]["bad"] == "failed" and table["reason"]["bad"].startswith("base rate: 1 of 40000")
    assert table["reason"]["eye"] == "base rate: the eigenvalues are all equal: the tail has no spread"
    one = balance({"a.weight": tail(2.0), "eye.weight": torch.eye(50)}, xmin="median").frame()
    assert one["factor"].tolist() == [1, 1] and one["reason"][0] == "base rate: no other tensor has an α"


def test_a_part_without_alpha_follows_the_others_of_its_tensor() -> None:
    fused = torch.cat([tail(2.0), torch.eye(200, dtype=torch.float64), tail(2.0)])
    table = balance({"qkv.weight": fused, "b.weight": tail(4.0)}, xmin="median").frame().set_index("layer")
    assert table["factor"].to_dict() == {"qkv.q": 0.5, "qkv.k": 0.5, "qkv.v": 0.5, "b": 1.5}
    assert table["reason"]["qkv.k"].startswith("rate of the tensor's other layers: the eigenvalues are all equal")


# Parameter groups


def test_every_parameter_is_in_one_group_under_its_name() -> None:
    module = net(2.0, 4.0)
    groups = balance(module).parameter_groups(module)
    assert [group["name"] for group in groups] == ["0.weight", "1.weight", "base"]
    assert [group["lr"] for group in groups] == pytest.approx([0.05, 0.15, 0.1])
    named = {
        name: parameter
        for group in groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    assert all(named[name] is parameter for name, parameter in module.named_parameters())
    optimizer = SGD(groups, lr=7.0)
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in groups]


class Tied(nn.Module):
    """An embedding and a head that are one tensor, beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.middle, self.head = nn.Embedding(80, 40), nn.Linear(40, 40), nn.Linear(40, 80, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("wrap", [nn.Sequential, nn.DataParallel, compiled])
def test_tied_parameters_are_there_once_also_inside_wrappers(wrap: Callable[[nn.Module], nn.Module]) -> None:
    module = wrap(Tied())
    groups = wb.tempbalance(module, learning_rate=RATE).parameter_groups(module)
    prefix = "0." if isinstance(module, nn.Sequential) else ""
    assert [group["name"] for group in groups] == [f"{prefix}embed.weight", f"{prefix}middle.weight", "base"]
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in module.parameters())
    names = [name for group in groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, _ in module.named_parameters())


def test_groups_from_a_file_fit_the_module_that_was_saved(tmp_path: Path) -> None:
    module = net(2.0, 4.0)
    from_file = balance(wb.save(module, tmp_path / "net.safetensors")).parameter_groups(module)
    assert [group["lr"] for group in from_file] == [group["lr"] for group in balance(module).parameter_groups(module)]


def test_what_is_not_chosen_stays_at_the_base_rate() -> None:
    module = net(2.0, 3.0, 4.0, 9.0)
    groups = balance(module, layers=["1", "2"]).parameter_groups(module)
    assert {group["name"]: group["lr"] for group in groups} == pytest.approx(
        {"1.weight": 0.05, "2.weight": 0.15, "base": RATE}
    )
    assert "0.weight" in groups[-1]["param_names"] and "3.weight" in groups[-1]["param_names"]


def test_groups_refuse_another_module() -> None:
    found = balance(net(2.0, 4.0))
    with pytest.raises(wb.ArgumentError, match=r"Sequential has no parameter '1.weight': pass the analysed module"):
        found.parameter_groups(nn.Sequential(nn.Linear(200, 200)))
    with pytest.raises(wb.ArgumentError, match="'0.weight' is 10×200 in Sequential, 200×200 where it was analysed"):
        found.parameter_groups(nn.Sequential(nn.Linear(200, 10), nn.Linear(10, 200)))
    tied = net(2.0, 4.0)
    tied[1].weight = tied[0].weight
    with pytest.raises(wb.ArgumentError, match="'0.weight' and '1.weight' are one parameter of Sequential"):
        found.parameter_groups(tied)


# The scheduler


def small(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Linear(30, 24), nn.Tanh(), nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 24))


def push(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A step with gradients of one, so that plain SGD moves every element by its rate."""
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def moved(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    before = copy.deepcopy(module.state_dict())
    push(module, optimizer)
    return {name: float((before[name] - new).double().mean()) for name, new in module.state_dict().items()}


SCHEDULES = {
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 6, eta_min=0.01),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.5),
    "cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=20, cycle_momentum=False),
    "warm": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 0.7)],
        [3],
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_the_rate_used_is_the_schedules_own_times_the_factor(schedule: str) -> None:
    module, alone = small(), nn.Linear(1, 1)
    optimizer, plain = SGD(module.parameters(), lr=0.2), SGD(alone.parameters(), lr=0.2)
    balance = wb.TempBalanceScheduler(optimizer, module)
    ours, theirs = SCHEDULES[schedule](optimizer), SCHEDULES[schedule](plain)
    for _ in range(8):
        base = plain.param_groups[0]["lr"]
        assert {group["lr"] for group in optimizer.param_groups} == {base}
        expected, used = balance.result.factors(), moved(module, optimizer)
        assert set(expected) == {"0.weight", "2.weight", "4.weight"}
        assert balance.learning_rates() == pytest.approx({name: base * f for name, f in expected.items()})
        for name, distance in used.items():
            assert distance == pytest.approx(base * expected.get(name, 1.0), rel=1e-5)
        push(alone, plain)
        for each in (ours, theirs):
            each.step()
        balance.step()
    assert min(expected.values()) == 0.5 and max(expected.values()) == 1.5


def test_plateau_sees_the_base_rate() -> None:
    module = small()
    optimizer = SGD(module.parameters(), lr=0.2)
    balance = wb.TempBalanceScheduler(optimizer, module)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    for loss in (1.0, 1.0, 1.0):
        push(module, optimizer)
        plateau.step(loss)
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}
    expected = {tensor: 0.05 * factor for tensor, factor in balance.result.factors().items()}
    assert balance.learning_rates() == pytest.approx(expected)


def test_factors_follow_the_weights_at_every_kth_call() -> None:
    module = net(2.0, 3.0, 4.0)
    options = {"estimator": "spectrum", "xmin": 1.0}
    scheduler = wb.TempBalanceScheduler(SGD(module.parameters(), lr=1.0), module, every=3, **options)
    first = scheduler.result.factors()
    assert first == pytest.approx(balance(module).factors())
    module[0].weight.data, module[2].weight.data = tail(4.0).float(), tail(2.0).float()
    assert [scheduler.step().factors() == first for _ in range(3)] == [True, True, False]
    assert scheduler.result.factors() == pytest.approx(balance(module).factors())
    assert scheduler.result.factors()["0.weight"] == 1.5 and scheduler.steps == 3


def test_groups_are_split_with_their_settings_and_the_rest_stays_together() -> None:
    module = small()
    decay, none = [module[0].weight, module[2].weight, module[0].bias], [module[2].bias, *module[4].parameters()]
    optimizer = AdamW(
        [{"params": decay, "weight_decay": 0.3}, {"params": none, "lr": 0.5, "betas": (0.5, 0.6)}], lr=0.2
    )
    wb.TempBalanceScheduler(optimizer, module)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = [([names[id(p)] for p in g["params"]], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [
        (["0.bias"], 0.2, 0.3),
        (["0.weight"], 0.2, 0.3),
        (["2.weight"], 0.2, 0.3),
        (["2.bias", "4.bias"], 0.5, 0.01),
        (["4.weight"], 0.5, 0.01),
    ]
    assert optimizer.param_groups[4]["betas"] == (0.5, 0.6) and optimizer.param_groups[4]["name"] == "4.weight"
    named = SGD(module.named_parameters(), lr=0.1)
    wb.TempBalanceScheduler(named, module)
    assert [group["param_names"] for group in named.param_groups][:2] == [["0.bias", "2.bias", "4.bias"], ["0.weight"]]


def trained(module: nn.Module, steps: int, *, resume: Any = None) -> tuple[Any, ...]:
    optimizer = AdamW(module.parameters(), lr=0.01)
    scheduler = wb.TempBalanceScheduler(optimizer, module, every=2)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 10)
    parts = (module, optimizer, scheduler, cosine)
    for part, state in zip(parts, resume or (), strict=False):
        part.load_state_dict(state)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.ones(3, 30)).square().mean().backward()
        optimizer.step()
        cosine.step()
        scheduler.step()
    return parts


def test_a_resumed_run_is_the_run(tmp_path: Path) -> None:
    whole = trained(small(), 5)
    states = [part.state_dict() for part in trained(small(), 3)]
    torch.save(states, tmp_path / "states.pt")
    again = trained(small(seed=1), 2, resume=torch.load(tmp_path / "states.pt", weights_only=True))
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, again[0].state_dict()[name])
    assert again[2].steps == 5 and again[2].result.factors() == whole[2].result.factors()
    assert json.loads(json.dumps(whole[2].state_dict())) == whole[2].state_dict()


def test_a_state_of_other_layers_is_refused() -> None:
    module = small()
    scheduler = wb.TempBalanceScheduler(SGD(module.parameters(), lr=0.1), module)
    other = wb.TempBalanceScheduler(SGD(module.parameters(), lr=0.1), module, layers=["0", "2"])
    for state in (other.state_dict(), {"steps": 1, "every": 1, "layers": {"layer": []}}):
        with pytest.raises(wb.ArgumentError, match="load the state of a scheduler of the same module and layers"):
            scheduler.load_state_dict(state)
    with pytest.raises(wb.ArgumentError, match="the state is of the layers None"):
        scheduler.load_state_dict({})


def test_a_removed_scheduler_leaves_the_base_rate() -> None:
    module = small()
    optimizer = SGD(module.parameters(), lr=0.25)
    wb.TempBalanceScheduler(optimizer, module).remove()
    assert list(moved(module, optimizer).values()) == pytest.approx([0.25] * 6, rel=1e-5)
    wb.TempBalanceScheduler(optimizer, module)  # and another may be made


def test_a_step_that_raises_does_not_scale_twice() -> None:
    module = small()
    optimizer = SGD(module.parameters(), lr=0.25)
    scheduler = wb.TempBalanceScheduler(optimizer, module)

    def closure() -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)
    used = moved(module, optimizer)
    assert {name: used[name] for name in scheduler.result.factors()} == pytest.approx(
        {name: 0.25 * f for name, f in scheduler.result.factors().items()}, rel=1e-5
    )
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}


def test_a_layer_that_turns_nan_does_not_stop_training() -> None:
    module = net(2.0, 3.0, 4.0)
    options = {"estimator": "spectrum", "xmin": 1.0}
    scheduler = wb.TempBalanceScheduler(SGD(module.parameters(), lr=1.0), module, **options)
    with torch.no_grad():
        module[1].weight[0, 0] = math.nan
    assert scheduler.step().factors() == pytest.approx({"0.weight": 0.5, "1.weight": 1.0, "2.weight": 1.5})
    assert scheduler.result.row("1")["reason"].startswith("base rate: ")


def test_the_scheduler_leaves_module_and_global_generator_as_they_were() -> None:
    module = small()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    scheduler = wb.TempBalanceScheduler(SGD(module.parameters(), lr=1.0), module)
    scheduler.step()
    assert module.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    with pytest.raises(wb.ArgumentError, match="is a scheduler's"):
        scheduler.result.parameter_groups(module)


def test_the_scheduler_refuses_what_would_go_wrong() -> None:
    module = small()

    def refused(optimizer: Any, message: str, **options: Any) -> None:
        groups = [dict(group) for group in optimizer.param_groups]
        with pytest.raises(wb.ArgumentError, match=message):
            wb.TempBalanceScheduler(optimizer, module, **options)
        assert [dict(group) for group in optimizer.param_groups] == groups

    plain = SGD(module.parameters(), lr=0.1)
    refused(plain, "every=0: expected a whole number of calls", every=0)
    refused(plain, "scale=", scale=(1.5, 0.5))
    refused(plain, "all chosen layers are in '0.weight'", layers="0")
    refused(plain, "window=1: expected", window=1)
    refused(SGD(module[0].parameters(), lr=0.1), "the optimizer does not have '2.weight' of Sequential")
    refused(SGD(small().parameters(), lr=0.1), "the optimizer does not have '0.weight' of Sequential")
    scaled = wb.tempbalance(module, learning_rate=0.1).parameter_groups(module)
    refused(SGD(scaled), "carry the factors of a TempBalance's parameter_groups, which would be applied twice")
    scheduled = SGD(module.parameters(), lr=0.1)
    lr_scheduler.StepLR(scheduled, 3)
    refused(scheduled, "make the TempBalanceScheduler before the schedule")
    single = SGD([{"params": [parameter]} for parameter in module.parameters()], lr=0.1)
    lr_scheduler.StepLR(single, 3)
    wb.TempBalanceScheduler(single, module)  # nothing to split
    twice = SGD(module.parameters(), lr=0.1)
    wb.TempBalanceScheduler(twice, module)
    refused(twice, "has a TempBalanceScheduler already")


def test_a_copy_of_a_run_is_a_run_of_its_own() -> None:
    whole = trained(small(), 5)
    parts = trained(small(), 3)
    module, optimizer, scheduler = copy.deepcopy(parts[:3])
    assert scheduler.optimizer is optimizer and scheduler.module is module
    assert scheduler.learning_rates() == parts[2].learning_rates()
    used, expected = moved(module, optimizer), scheduler.learning_rates()
    ours = moved(*parts[:2])
    assert ours == used, "the same step, and the copy's moved nothing of the original"
    assert scheduler.step().factors() != {} and (scheduler.steps, parts[2].steps) == (4, 3)
    scheduler.remove()
    assert parts[2].learning_rates() == expected
    assert copy.deepcopy(scheduler)._hooks == [], "a copy of one that was removed scales nothing"
    again = pickle.loads(pickle.dumps(parts[:3]))
    assert moved(*again[:2]) == moved(*parts[:2]) and whole[2].steps == 5


def test_a_copy_of_the_optimizer_alone_is_at_base_rates_and_takes_another_schedulers_state() -> None:
    module = small()
    optimizer = SGD(module.parameters(), lr=0.25)
    scheduler = wb.TempBalanceScheduler(optimizer, module, every=2)
    scheduler.step()
    other, plain = copy.deepcopy((module, optimizer))
    assert list(moved(other, plain).values()) == pytest.approx([0.25] * 6, rel=1e-5)
    assert len(plain.param_groups) == len(optimizer.param_groups)
    again = wb.TempBalanceScheduler(plain, other, every=2)
    again.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    assert (again.steps, again.learning_rates()) == (1, scheduler.learning_rates())
    assert moved(other, plain) == pytest.approx(moved(module, optimizer), rel=1e-5)
    assert again.state_dict() == scheduler.state_dict()


def test_a_frozen_layer_is_compared_and_does_not_move() -> None:
    module = net(2.0, 3.0, 4.0)
    module[0].weight.requires_grad = False
    options: dict[str, Any] = {"estimator": "spectrum", "xmin": 1.0}
    optimizer = SGD(module.parameters(), lr=0.5)
    scheduler = wb.TempBalanceScheduler(optimizer, module, **options)
    before = copy.deepcopy(module.state_dict())
    for _ in range(2):
        module(torch.ones(1, 200)).sum().backward()
        optimizer.step()
        assert scheduler.step().factors() == pytest.approx({"0.weight": 0.5, "1.weight": 1.0, "2.weight": 1.5}, abs=0.2)
    assert torch.equal(module[0].weight, before["0.weight"]) and not torch.equal(module[1].weight, before["1.weight"])
    others = SGD([parameter for parameter in module.parameters() if parameter.requires_grad], lr=0.5)
    with pytest.raises(wb.ArgumentError, match=r"not have '0.weight' of Sequential.* it has: layers=\['1', '2'\]\."):
        wb.TempBalanceScheduler(others, module, **options)
    chosen = wb.TempBalanceScheduler(others, module, layers=["1", "2"], **options)
    assert sorted(chosen.learning_rates().values()) == pytest.approx([0.25, 0.75])


def test_an_optimizer_of_the_chosen_weights_alone_will_do_and_of_one_will_not() -> None:
    module = small()
    optimizer = SGD([module[0].weight, module[2].weight], lr=0.5)
    scheduler = wb.TempBalanceScheduler(optimizer, module, layers=["0", "2"])
    used = moved(module, optimizer)
    assert {name: distance for name, distance in used.items() if distance} == pytest.approx(
        scheduler.learning_rates(), rel=1e-5
    )
    with pytest.raises(wb.ArgumentError, match="'2.weight' of Sequential: pass .* or choose layers that it has, two"):
        wb.TempBalanceScheduler(SGD(module[0].parameters(), lr=0.5), module)


class Shared(nn.Module):
    """One weight as the embedding and the head, and one layer that is run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(40, 30), nn.Linear(30, 40)
        self.head.weight = self.embedding.weight
        self.first = self.second = nn.Linear(30, 30)


def test_a_shared_parameter_has_one_group_and_one_factor() -> None:
    module = Shared()
    optimizer = SGD(module.parameters(), lr=0.5)
    scheduler = wb.TempBalanceScheduler(optimizer, module)
    groups = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    assert sorted(sum(groups, [])) == sorted(map(id, module.parameters()))
    rates = scheduler.learning_rates()
    assert len(rates) == 2 and sorted(rates.values()) == pytest.approx([0.25, 0.75])
    used = moved(module, optimizer)
    for tensor, rate in rates.items():
        assert used[tensor] == pytest.approx(rate, rel=1e-5)
    assert used["embedding.weight"] == used["head.weight"] and used["first.weight"] == used["second.weight"]
    other, again, copied = copy.deepcopy((module, optimizer, scheduler))
    assert other.head.weight is other.embedding.weight and copied.learning_rates() == rates
    assert moved(other, again) == moved(module, optimizer)


def test_lbfgs_is_refused_and_told_what_will_do() -> None:
    module = small()
    optimizer = torch.optim.LBFGS(module.parameters())
    with pytest.raises(wb.ArgumentError, match="LBFGS takes one step for all parameters.* Train with SGD, AdamW or"):
        wb.TempBalanceScheduler(optimizer, module)
    assert len(optimizer.param_groups) == 1


def test_no_full_matrix_is_paid_for_and_a_cache_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = {"a.weight": torch.randn(150, 120), "b.weight": torch.randn(130, 140)}
    plain = balance(model, estimator="farms", window=50)
    first, second = (balance(model, estimator="farms", window=50, cache=tmp_path) for _ in range(2))
    assert plain.tables == first.tables == second.tables and "cache" not in plain.meta
    assert (first.meta["cache"]["computed"], second.meta["cache"]["found"]) == (2, 2)
    farms = wb.farms(model, xmin=1.0, window=50, resamples=0)
    assert plain.tables["layers"]["alpha"] == farms.tables["layers"]["alpha"]
    balance(model, cache=tmp_path)
    assert balance(model, cache=tmp_path).meta["cache"]["found"] == 2


# Arguments, and what a result says of itself

ARGUMENTS = {
    "learning_rate=0": "learning_rate=0: expected a positive number, the base rate.",
    "learning_rate=-0.1": "learning_rate=-0.1: expected a positive number",
    "learning_rate=math.inf": "learning_rate=inf: expected a positive number",
    "learning_rate='0.1'": "learning_rate='0.1': expected a positive number",
    "learning_rate=1, scale=(1.5, 0.5)": "scale=(1.5, 0.5): expected two factors (s1, s2) with 0 <= s1 <= s2.",
    "learning_rate=1, scale=(-1, 1)": "scale=(-1, 1): expected two factors",
    "learning_rate=1, scale=2": "scale=2: expected two factors",
    "learning_rate=1, scale=(1, 2, 3)": "scale=(1, 2, 3): expected two factors",
    "learning_rate=1, scale=(0, math.inf)": "scale=(0, inf): expected two factors",
    "learning_rate=1, scale=(1, 2), assignment='sqrt'": "scale=(1, 2) goes with 'linear' and 'step'",
    "learning_rate=1, assignment='lineal'": "Did you mean 'linear'?",
    "learning_rate=1, estimator='farm'": "estimator='farm': expected 'farms' or 'spectrum'. Did you mean 'farms'?",
    "learning_rate=1, estimator='spectrum', window=9": "go with estimator='farms'; full matrices have no windows.",
    "learning_rate=1, estimator='spectrum', stride=9": "go with estimator='farms'; full matrices have no windows.",
    "learning_rate=1, stride=0": "stride=0: expected a whole number",
    "learning_rate=1, xmin='peek'": "Did you mean 'peak'?",
    "learning_rate=1, layers='a'": "all chosen layers are in 'a.weight': α is compared between tensors",
}


@pytest.fixture(scope="module")
def refusals(raised: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    model = "{'a.weight': torch.eye(30), 'b.weight': torch.eye(30)}"
    found = raised([f"wb.tempbalance({model}, {arguments})" for arguments in ARGUMENTS])
    return dict(zip(ARGUMENTS, found.values(), strict=True))


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_an_argument_out_of_range_says_what_is_expected(arguments: str, refusals: dict[str, list[str]]) -> None:
    name, message = refusals[arguments]
    assert name == "ArgumentError" and ARGUMENTS[arguments] in message


def test_what_is_no_module_or_optimizer_is_refused(unchecked: Callable[..., Any]) -> None:
    script = """
import json, torch, workbench as wb
module = torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Linear(9, 9))
optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
said = []
for call in (
    lambda: wb.TempBalanceScheduler([1], module),
    lambda: wb.TempBalanceScheduler(optimizer, [1]),
    lambda: wb.tempbalance(module, learning_rate=1).parameter_groups([1]),
):
    try:
        call()
    except wb.ArgumentError as error:
        said.append(str(error))
print(json.dumps(said))
"""
    assert unchecked(script) == [
        "optimizer is list: expected a torch.optim.Optimizer.",
        "module is list: expected the nn.Module that is trained.",
        "module is list: expected the nn.Module that is trained.",
    ]


def test_a_result_tells_its_parameters_and_reads_back(tmp_path: Path) -> None:
    module = net(2.0, 4.0)
    found = balance(module, layers=["0", "1"], assignment="step")
    assert found.meta["parameters"] == {
        "learning_rate": RATE,
        "scale": [0.5, 1.5],
        "assignment": "step",
        "estimator": "spectrum",
        "xmin": 1.0,
        "window": None,
        "stride": None,
        "layers": ["0", "1"],
    }
    again = wb.open_result(found.save(tmp_path / "balance"))
    assert isinstance(again, wb.TempBalance) and again.tables == found.tables
    assert [group["lr"] for group in again.parameter_groups(module)] == pytest.approx([0.05, 0.15, 0.1])
    assert "2 layers, factors 0.5 to 1.5 (step), 0 layers without α" in repr(found)


def test_a_cancelled_run_carries_the_estimate() -> None:
    def stop(progress: wb.Progress) -> None:
        if progress.done == 1:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as caught:
        balance(net(2.0, 3.0, 4.0), progress=stop)
    assert isinstance(caught.value.partial, wb.Spectrum) and len(caught.value.partial.frame()) >= 1


def test_the_figure_shows_every_rate_and_the_base() -> None:
    found = balance({"a.weight": tail(2.0), "eye.weight": torch.eye(50), "b.weight": tail(4.0)}, xmin="median")
    (panel,) = wb.figure(found, layer="b").panels
    rule, scaled, base, ring = panel.marks
    assert isinstance(rule, Rule) and (rule.axis, rule.value) == ("y", RATE)
    assert all(isinstance(mark, Points) for mark in (scaled, base, ring))
    assert (scaled.ids, base.ids, ring.ids) == (("a", "b"), ("eye",), ("b",))
    assert scaled.y == tuple(found.row(name)["learning_rate"] for name in ("a", "b")) and base.y == (RATE,)
    assert load(net(2.0, 3.0)).elements  # a scheduler's result has no single base rate, and is drawn without one
    module = small()
    (panel,) = wb.figure(wb.TempBalanceScheduler(SGD(module.parameters(), lr=1.0), module).result).panels
    assert [type(mark) for mark in panel.marks] == [Points]

"""Matching by weights: planted permutations, brute force, and the architectures that break peers."""

import pickle
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import workbench as wb
from workbench.connectivity import Matching, MatchingProgress, PermutationGroups, match, permutation_groups
from workbench.connectivity.kept_gains import KeptGains
from workbench.connectivity.nested_assignment import NO_GAIN
from workbench.connectivity.weight_matching import Descent, WeightMatching
from workbench.progress import Progress


def mlp(*widths: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Grouped(nn.Module):
    """Two grouped convolutions in a row, depthwise ones between, a flatten, batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.b = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.c = nn.Conv2d(12, 8, 1, groups=2)
        self.fc = nn.Linear(8 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(F.relu(self.bn(self.a(x))))
        return self.fc(F.relu(self.c(F.relu(self.b(x)))).flatten(1))


class Recurrent(nn.Module):
    """An LSTM, whose hidden units are on both axes of W_hh."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class Autoencoder(nn.Module):
    """relu(W₂ relu(W₁x)), and back through the same matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)
        self.back = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        code = F.relu(self.second(F.relu(self.first(x))))
        return F.relu(code @ self.second.weight) @ self.first.weight + self.back


class TiedHead(nn.Module):
    """A language model whose embedding is its output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.norm = nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(self.norm(x + self.down(F.gelu(self.up(x)))))


class GroupedQueries(nn.Module):
    """Attention in which several queries share a key and a value, about a residual stream."""

    def __init__(self, width: int = 6, heads: int = 2, queries: int = 2, units: int = 3) -> None:
        super().__init__()
        self.sizes = heads, queries, units
        self.embed = nn.Linear(4, width)
        self.q = nn.Linear(width, heads * queries * units)
        self.k, self.v = nn.Linear(width, heads * units), nn.Linear(width, heads * units)
        self.o, self.out = nn.Linear(heads * queries * units, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        heads, queries, units = self.sizes
        x = self.embed(x)
        samples, steps, _ = x.shape
        q = self.q(x).view(samples, steps, heads * queries, units).transpose(1, 2)
        k, v = (part(x).view(samples, steps, heads, units).transpose(1, 2) for part in (self.k, self.v))
        k, v = (t[:, :, None].expand(-1, -1, queries, -1, -1).flatten(1, 2) for t in (k, v))
        return self.out(x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=12, n_head=3, n_layer=2, vocab_size=11, n_positions=8)
    return transformers.GPT2LMHeadModel(config)


Case = tuple[Callable[[], nn.Module], Callable[[], Any]]
CASES: dict[str, Case] = {
    "mlp": (lambda: mlp(4, 6, 5, 3), lambda: torch.randn(2, 4)),
    "width 1": (lambda: mlp(4, 1, 1, 3), lambda: torch.randn(2, 4)),
    "grouped": (Grouped, lambda: torch.randn(2, 2, 2, 2)),
    "lstm": (Recurrent, lambda: torch.randn(2, 4, 3)),
    "autoencoder": (Autoencoder, lambda: torch.randn(2, 6)),
    "tied head": (TiedHead, lambda: torch.randint(0, 7, (2, 5))),
    "grouped queries": (GroupedQueries, lambda: torch.randn(2, 3, 4)),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 7, batch_first=True), lambda: torch.randn(2, 3, 6)),
    "gpt2": (gpt2, lambda: {"input_ids": torch.randint(0, 11, (2, 5))}),
}
LOCAL = {"lstm"}  # quadratic: a local optimum may stay below the planted one at high noise
FOUND: dict[str, tuple[nn.Module, Any, PermutationGroups]] = {}


def case(name: str) -> tuple[nn.Module, Any, PermutationGroups]:
    """A module in evaluation mode with random vectors, its inputs and its groups."""
    if name not in FOUND:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module, inputs = CASES[name][0]().eval(), CASES[name][1]()
            with torch.no_grad():
                for key, tensor in module.state_dict().items():
                    if tensor.ndim == 1 and tensor.is_floating_point():
                        tensor.copy_(torch.rand(tensor.shape) + 0.5 if "var" in key else torch.randn(tensor.shape))
        FOUND[name] = module, inputs, permutation_groups(module, inputs)
    return FOUND[name]


def noisy(weights: Mapping[str, Tensor], noise: float, seed: int = 5) -> dict[str, Tensor]:
    """With Gaussian noise of `noise` times each tensor's standard deviation; equal (tied) tensors stay equal."""
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        same = next((other for other in found if torch.equal(weights[other], tensor)), None)
        scale = noise * float(tensor.float().std(correction=0)) if tensor.is_floating_point() else 0.0
        if same is not None and tensor.ndim > 1:
            found[name] = found[same]
        else:
            found[name] = tensor + scale * torch.randn(tensor.shape, generator=draw) if scale else tensor
    return found


def inner(module: nn.Module, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Σ⟨A, B⟩ over the parameters, in plain torch; a tied one counts once."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name, _ in module.named_parameters())


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_a_planted_permutation_is_undone_or_bettered(name: str, noise: float) -> None:
    """Golden test 3. Ties and dead units make the permutations themselves no measure."""
    module, _, groups = case(name)
    planted = groups.random(seed=3)
    b = noisy(dict(groups.apply(module, planted)), noise)
    found = match(groups, module, b, restarts=5 if name in LOCAL else 0, gammas=())
    moved = found.apply(b)
    own = module.state_dict()
    best = inner(module, own, groups.apply(b, planted.inverse()))
    assert inner(module, own, moved) >= best - 1e-9 * abs(best)
    assert found.objective == pytest.approx(inner(module, own, moved), rel=1e-12)
    if not noise:  # golden test 4: running statistics too, though they are in no gain
        assert all(torch.equal(moved[key], own[key]) for key in own)
        assert found.reduction() == (0.0 if planted.is_identity else 1.0)


@pytest.mark.parametrize("name", CASES)
def test_the_objective_never_falls_over_sweeps_and_restarts(name: str) -> None:
    """Golden test 5, in exact order but for rounding of the sum."""
    module, _, groups = case(name)
    b = noisy(dict(groups.apply(module, groups.random(1))), 3.0)
    result = match(groups, module, b, restarts=4, gammas=(), seed=1)
    sweeps = result.frame("sweeps")
    finals = []
    for start, own in sweeps.groupby("start"):
        objectives = own.objective.tolist()
        slack = 1e-13 * max(map(abs, objectives))
        assert all(later >= earlier - slack for earlier, later in zip(objectives, objectives[1:], strict=False))
        assert own.sweep.tolist() == [-1, *range(0 if start == 0 else 1, int(own.sweep.max()) + 1)]
        finals.append(objectives[-1])
    assert result.objective == pytest.approx(max(finals), rel=1e-12)
    squares = sum(
        float(t.double().square().sum()) for net in (module.state_dict(), b) for t in _parameters(module, net)
    )
    expected = (squares - 2 * sweeps.objective).clip(0) ** 0.5
    assert sweeps.distance.tolist() == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-6)


def _parameters(module: nn.Module, weights: Mapping[str, Tensor]) -> list[Tensor]:
    return [weights[name] for name, _ in module.named_parameters()]


def brute_force(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The best Σ⟨A, π(B)⟩ of an MLP with one hidden layer over all its permutations."""
    best = -float("inf")
    for order in map(list, permutations(range(len(b["0.bias"])))):
        value = (a["0.weight"] * b["0.weight"][order]).sum() + (a["0.bias"] * b["0.bias"][order]).sum()
        value = value + (a["2.weight"] * b["2.weight"][:, order]).sum() + (a["2.bias"] * b["2.bias"]).sum()
        best = max(best, float(value))
    return best


def pair(*widths: int, seed: int = 0) -> tuple[nn.Sequential, dict[str, Tensor], dict[str, Tensor]]:
    """An MLP and two unrelated sets of float64 weights of like size for it."""
    draw = torch.Generator().manual_seed(seed)
    module = mlp(*widths)
    a, b = (
        {name: torch.randn(t.shape, generator=draw, dtype=torch.float64) for name, t in module.state_dict().items()}
        for _ in range(2)
    )
    return module, a, b


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("hidden", [1, 2, 4, 6])
def test_with_one_hidden_layer_it_is_the_best_of_all_permutations(hidden: int, seed: int) -> None:
    """Golden test 5."""
    module, a, b = pair(3, hidden, 2, seed=seed)
    found = match(permutation_groups(module, torch.zeros(1, 3)), a, b, gammas=())
    assert found.objective == pytest.approx(brute_force(a, b), rel=1e-12)


def _drops_a_tensor(problem: WeightMatching) -> None:
    problem.tensors = {root: names[:-1] for root, names in problem.tensors.items()}


def _ignores_biases(problem: WeightMatching) -> None:
    problem.tensors = {root: [n for n in names if "bias" not in n] for root, names in problem.tensors.items()}


class _Wrong(KeptGains):
    """Gains that are computed anew each time, from other orders or with their axes exchanged."""

    def __init__(self, problem: WeightMatching, *, transposed: bool) -> None:
        super().__init__(problem.structure, problem.a, problem.b, problem.device)
        self.transposed = transposed

    def __call__(self, root: str, inner: Any, orders: Any, names: Any) -> Any:
        if not self.transposed:
            orders = {group: torch.arange(order.shape[-1]) for group, order in orders.items()}
        found = super().__call__(root, inner, orders, names)
        if self.transposed:
            found.parts = {key: part.transpose(0, 1).contiguous() for key, part in found.parts.items()}
        return found

    def current(self, root: str, orders: Any, names: Any) -> Any:
        return self(root, (), orders, names)


def _swaps_the_networks(problem: WeightMatching) -> None:
    """Transposes every C."""
    problem.gains = _Wrong(problem, transposed=True)


def _leaves_the_inputs(problem: WeightMatching) -> None:
    """Computes C with the other groups' axes of B as they were."""
    problem.gains = _Wrong(problem, transposed=False)


@pytest.mark.parametrize("mutation", [_drops_a_tensor, _ignores_biases, _swaps_the_networks, _leaves_the_inputs])
def test_the_oracles_see_a_mutation(
    mutation: Callable[[WeightMatching], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What brute force, the fixed point below or planted recovery would tell of a wrong gain."""
    made = WeightMatching.__init__

    def mutated(self: WeightMatching, *arguments: Any) -> None:
        made(self, *arguments)
        mutation(self)

    monkeypatch.setattr(WeightMatching, "__init__", mutated)
    wrong = 0
    for seed in range(4):
        module, a, b = pair(3, 6, 2, seed=seed)
        found = match(permutation_groups(module, torch.zeros(1, 3)), a, b, gammas=())
        wrong += found.objective < brute_force(a, b) - 1e-9
        module, a, b = pair(3, 6, 5, 2, seed=seed)
        wrong += not is_fixed(a, b, match(permutation_groups(module, torch.zeros(1, 3)), a, b, gammas=()))
    assert wrong


@pytest.mark.parametrize("known", [["2.weight", "2.bias", "4.weight"], ["2.weight"], ["4.weight"]])
@pytest.mark.parametrize("moved", [1, 3, 40])
def test_gains_that_are_brought_up_to_date_equal_those_computed_anew(moved: int, known: list[str]) -> None:
    """Few units of the neighbours have moved: C + ΔC is C, tensors are added; of many it is computed anew anyway."""
    module, a, b = pair(3, 40, 30, 2, seed=0)
    structure = permutation_groups(module, torch.zeros(1, 3)).structure
    arguments = (structure, a.__getitem__, b.__getitem__, torch.device("cpu"))
    kept, names = KeptGains(*arguments), ["2.weight", "2.bias", "4.weight"]
    orders = {group: torch.arange(structure.sizes[group]) for group in structure.free}
    kept.current("2", orders, known)
    units = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:moved]
    orders["0"] = orders["0"].clone()
    orders["0"][units] = orders["0"][units.roll(1)]
    found, expected = kept.current("2", orders, names), KeptGains(*arguments)("2", (), orders, names)
    torch.testing.assert_close(found.parts[()], expected.parts[()], rtol=1e-12, atol=1e-12)
    fewer = kept.current("2", orders, ["2.bias"]), KeptGains(*arguments)("2", (), orders, ["2.bias"])
    torch.testing.assert_close(fewer[0].parts[()], fewer[1].parts[()], rtol=1e-12, atol=1e-12)


def is_fixed(a: Mapping[str, Tensor], b: Mapping[str, Tensor], found: Matching) -> bool:
    """Whether no exchange of two units of one layer brings an MLP of two hidden layers nearer."""
    moved = dict(found.apply(b))
    base = sum(float((a[name] * moved[name]).sum()) for name in a)
    for first, then in (("0", "2"), ("2", "4")):
        size = len(moved[f"{first}.bias"])
        for i in range(size):
            for j in range(i):
                order = list(range(size))
                order[i], order[j] = j, i
                other = {**moved, f"{then}.weight": moved[f"{then}.weight"][:, order]}
                other |= {f"{first}.{part}": other[f"{first}.{part}"][order] for part in ("weight", "bias")}
                if sum(float((a[name] * other[name]).sum()) for name in a) > base + 1e-9:
                    return False
    return True


@pytest.mark.parametrize("seed", range(4))
def test_no_exchange_of_two_units_is_better_in_the_end(seed: int) -> None:
    module, a, b = pair(3, 6, 5, 2, seed=seed)
    assert is_fixed(a, b, match(permutation_groups(module, torch.zeros(1, 3)), a, b, gammas=()))


@pytest.mark.parametrize("seed", range(3))
def test_a_further_run_from_the_end_finds_nothing(seed: int) -> None:
    """A group is left out of a sweep only if nothing beside it changed."""
    module, a, b = pair(3, 20, 20, 20, 20, 2, seed=seed)
    groups = permutation_groups(module, torch.zeros(1, 3))
    weights = wb.load(a), wb.load(b)
    problem = WeightMatching(groups.structure, *(w.__getitem__ for w in weights), torch.device("cpu"))
    state = Descent(orders=dict(groups.random(seed)))
    problem.run(state, settle=False)
    assert len(state.history) > 3  # else there was nothing to leave out
    objective = state.objective
    problem.run(state, settle=False)
    assert state.objective == objective  # to the bit: no order changed


@pytest.mark.parametrize("name", CASES)
def test_the_function_stays_and_the_check_says_so(name: str) -> None:
    module, inputs, groups = case(name)
    batch = inputs if isinstance(inputs, dict) else (inputs, torch.zeros(len(inputs)))
    batch = {**batch, "labels": torch.zeros(2)} if isinstance(inputs, dict) else batch
    evaluator = wb.evaluator(module, [batch], lambda outputs, targets: outputs.float().square().mean(), device="cpu")
    b = noisy(module.state_dict(), 1.0)
    b = {key: tensor.abs() if "var" in key else tensor for key, tensor in b.items()}
    found = match(groups, module, b, evaluator=evaluator, gammas=())
    check = found.meta["checks"][0]
    assert check["unchanged"] and found.verified
    assert check["loss"] == pytest.approx(evaluator(b)["loss"], rel=1e-12)
    assert check["loss_permuted"] == pytest.approx(check["loss"], rel=1e-4)
    assert "the outputs were seen unchanged" in found.facts()


def test_broken_groups_are_told_loudly() -> None:
    """Groups whose table lacks the axis of the second layer's inputs change the function."""
    module, inputs, groups = case("mlp")
    axes = {name: list(cells) for name, cells in groups.tables["axes"].items()}
    row = next(i for i, place in enumerate(zip(axes["tensor"], axes["axis"], strict=True)) if place == ("2.weight", 1))
    axes["made_of"][row] = "#6"
    broken = PermutationGroups(tables={**groups.tables, "axes": axes}, meta=groups.meta)
    evaluator = wb.evaluator(module, [(inputs, torch.zeros(2, 3))], "mse", device="cpu")
    b = dict(groups.apply(module, groups.random(2)))
    found = match(broken, module, b, evaluator=evaluator, gammas=())
    assert not found.verified
    assert "THE OUTPUTS CHANGED" in found.facts()
    assert "THE OUTPUTS CHANGED" in repr(found).split("\n")[1]
    assert not found.meta["checks"][0]["unchanged"]


class Noisy(nn.Module):
    """Dropout that never ends, on the units or on the outputs."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.first, self.last, self.where = nn.Linear(3, 6), nn.Linear(6, 2), where

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.last(F.dropout(x)) if self.where == "units" else F.dropout(self.last(x))


@pytest.mark.parametrize("where", ["units", "outputs"])
def test_a_random_function_is_no_changed_one(where: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module, inputs = Noisy(where), torch.randn(4, 3)
    groups = permutation_groups(module, inputs)
    evaluator = wb.evaluator(module, [(inputs, torch.zeros(4, 2))], "mse", device="cpu")
    found = match(groups, module, groups.apply(module, groups.random(2)), evaluator=evaluator, gammas=())
    assert "CHANGED" not in found.facts()
    assert found.verified == (where == "outputs")  # which the same random numbers meet in both
    if where == "units":
        assert "random even in evaluation mode" in found.facts()


def test_running_statistics_are_permuted_but_never_compared() -> None:
    """Other statistics of the same network must not change which units go together."""
    module, _, groups = case("grouped")
    b = noisy(dict(groups.apply(module, groups.random(3))), 1.0)
    other = dict(b)
    for name in ("bn.running_mean", "bn.running_var"):
        other[name] = torch.linspace(1, 1e6, 8)
    found, again = (match(groups, module, weights, gammas=()) for weights in (b, other))
    assert dict(found.permutations).keys() == dict(again.permutations).keys()
    assert all(torch.equal(order, again.permutations[group]) for group, order in found.permutations.items())
    assert found.objective == again.objective
    assert not any("running" in name for name in found.frame("layers").tensor)
    assert torch.equal(again.apply(other)["bn.running_mean"], other["bn.running_mean"][_channels(found, module)])


def _channels(found: Matching, module: nn.Module) -> Tensor:
    """The order of the first convolution's channels, read off a tensor that counts them."""
    counted = dict(module.state_dict()) | {"bn.bias": torch.arange(8.0)}
    return found.apply(counted)["bn.bias"].long()


def test_layers_and_groups_say_what_plain_torch_says() -> None:
    module, _, groups = case("grouped queries")
    b = noisy(dict(groups.apply(module, groups.random(1))), 0.3)
    found, a = match(groups, module, b, gammas=()), module.state_dict()
    moved = found.apply(b)
    before = after = 0.0
    for row in found.frame("layers").itertuples():
        x, y, z = (net[row.tensor].double() for net in (a, b, moved))
        assert row.layer == row.tensor.removesuffix(".weight")
        assert row.elements == x.numel()
        assert [row.norm_a, row.norm_b] == pytest.approx([float(x.norm()), float(y.norm())], rel=1e-12)
        assert row.distance_before == pytest.approx(float((x - y).norm()), rel=1e-12)
        assert row.distance_after == pytest.approx(float((x - z).norm()), rel=1e-12)
        assert row.reduction == pytest.approx(1 - float((x - z).norm() / (x - y).norm()), rel=1e-9, abs=1e-12)
        assert row.objective == pytest.approx(float((x * z).sum()), rel=1e-12)
        assert row.objective_before == pytest.approx(float((x * y).sum()), rel=1e-12)
        before, after = before + float((x - y).square().sum()), after + float((x - z).square().sum())
    assert set(found.frame("layers").tensor) == set(a)
    assert found.reduction() == pytest.approx(1 - (after / before) ** 0.5, rel=1e-12)
    table = found.frame("groups").set_index("group")
    for group, row in table.iterrows():
        order = found.permutations[group]
        assert row.moved == int((order != torch.arange(order.shape[-1])).sum())
        own = [name for name in a if f"{name}[" in groups.frame().set_index("group").loc[group, "axes"]]
        assert row.objective == pytest.approx(sum(float((a[n].double() * moved[n].double()).sum()) for n in own))
        assert row.objective_before == pytest.approx(sum(float((a[n].double() * b[n].double()).sum()) for n in own))


def test_a_network_with_nothing_to_permute() -> None:
    module = nn.Linear(3, 2)
    groups = permutation_groups(module, torch.zeros(1, 3))
    b = {name: tensor + 1 for name, tensor in module.state_dict().items()}
    found = match(groups, module, b)
    assert found.objective == pytest.approx(inner(module, module.state_dict(), b))
    assert found.reduction() == 0.0
    assert len(found.permutations) == 0 and found.permutations.is_identity
    assert all(torch.equal(found.apply(b)[name], b[name]) for name in b)
    assert "0 units moved" in repr(found)


def test_dead_and_equal_units_end_and_stay() -> None:
    """Zero rows and equal units: whatever changes places among them is worth nothing, so it stays."""
    module, a, _ = pair(4, 8, 8, 3)
    for weights in (a,):
        weights["0.weight"][:3] = 0.0
        weights["0.bias"][:3] = 0.0
        weights["2.weight"][:, :3] = 0.0
        for name in ("0.weight", "0.bias"):
            weights[name][4:6] = weights[name][3].clone()
        weights["2.weight"][:, 4:6] = weights["2.weight"][:, 3:4]
    groups = permutation_groups(module, torch.zeros(1, 4))
    same = match(groups, a, a)
    assert same.permutations.is_identity
    assert same.frame("groups").moved.tolist() == [0, 0]
    shuffled = groups.apply(a, groups.random(4))
    found = match(groups, a, shuffled)
    assert all(torch.equal(found.apply(shuffled)[name], a[name]) for name in a)
    nothing = {name: torch.zeros_like(tensor) for name, tensor in a.items()}
    assert match(groups, nothing, nothing).reduction() == 0.0
    assert match(groups, a, nothing).permutations.is_identity


def test_a_gain_within_rounding_leaves_units_where_they_are() -> None:
    """Else units that are equal but for rounding could change places for ever."""
    module, a, _ = pair(4, 5, 3)
    a["0.weight"][1], a["0.bias"][1], a["2.weight"][:, 1] = a["0.weight"][0], a["0.bias"][0], a["2.weight"][:, 0]
    a["0.weight"][1, 0] += 1e-8  # ‖A − π(B)‖² falls by 2e-16
    groups = permutation_groups(module, torch.zeros(1, 4))
    order = torch.tensor([1, 0, 2, 3, 4])
    assert match(groups, a, groups.apply(a, {"0": order}), gammas=()).permutations.is_identity
    a["0.weight"][1, 0] += 1e-3
    assert match(groups, a, groups.apply(a, {"0": order}), gammas=()).permutations["0"].tolist() == order.tolist()


def test_a_settled_start_that_is_worse_is_dropped() -> None:
    """The first layer, which decides it, says another order than the second, which counts for more."""
    module, a, _ = pair(8, 6, 6, 2)
    groups = permutation_groups(module, torch.zeros(1, 8))
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    b = {**a, "0.weight": 0.3 * a["0.weight"][order], "0.bias": 0.3 * a["0.bias"][order]}
    b["4.weight"] = torch.zeros_like(a["4.weight"])
    found = match(groups, a, b, gammas=())
    objectives = found.frame("sweeps").objective.tolist()
    assert objectives == sorted(objectives)
    assert objectives[1] == objectives[0]


def test_one_object_for_both_networks() -> None:
    module, _, groups = case("encoder")
    weights = wb.load(module)
    found = match(groups, weights, weights)
    assert found.permutations.is_identity
    assert found.alignment(0.0) == pytest.approx(1.0, abs=1e-12)
    assert found.alignment(0.3) == pytest.approx(1.0, abs=1e-12)
    assert found.frame("layers").distance_after.tolist() == [0.0] * len(found.frame("layers"))
    assert found.frame("layers").reduction.isna().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_narrow_checkpoints_are_compared_in_float64(dtype: torch.dtype) -> None:
    module, _, groups = case("mlp")
    a = {name: tensor.to(dtype) for name, tensor in module.state_dict().items()}
    b = groups.apply(a, groups.random(7))
    found = match(groups, a, b)
    moved = found.apply(b)
    assert all(moved[name].dtype == dtype and torch.equal(moved[name], a[name]) for name in a)
    wide = match(groups, {name: tensor.double() for name, tensor in a.items()}, b)
    assert found.objective == wide.objective


def test_prefixes_files_and_shards_are_the_same_network(tmp_path: Path) -> None:
    module, _, groups = case("grouped queries")
    planted = groups.apply(module, groups.random(2))
    b = noisy(dict(planted), 0.5)
    expected = match(groups, module, b)
    wrapped = {f"module.{name}": tensor for name, tensor in b.items()}
    save_file({name: tensor.contiguous() for name, tensor in wrapped.items()}, tmp_path / "b.safetensors")
    half = len(b) // 2
    names = list(b)
    (tmp_path / "shards").mkdir()
    index: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: b[name].contiguous() for name in part}, tmp_path / "shards" / file)
        index |= dict.fromkeys(part, file)
    text = '{"metadata": {}, "weight_map": {' + ", ".join(f'"{n}": "{f}"' for n, f in index.items()) + "}}"
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(text)
    torch.save(b, tmp_path / "b.pt")
    for source in (wrapped, tmp_path / "b.safetensors", tmp_path / "shards", tmp_path / "b.pt"):
        found = match(groups, module, source)
        assert found.objective == expected.objective
        assert all(torch.equal(order, expected.permutations[group]) for group, order in found.permutations.items())
        assert found.frame("alignment").equals(expected.frame("alignment"))
        assert match(groups, source, source).permutations.is_identity


def test_a_prefix_of_all_names_is_told() -> None:
    module, _, groups = case("mlp")
    longer = {f"model.net.{name}": tensor for name, tensor in module.state_dict().items()}
    with pytest.raises(
        wb.ArgumentError, match=r"its names begin with 'model\.net\.'; pass \{name.removeprefix"
    ) as told:
        match(groups, module, longer)
    assert "another architecture" not in str(told.value)
    with pytest.raises(wb.ArgumentError, match="another architecture"):
        match(groups, module, dict(list(longer.items())[:-1]))


def test_either_name_of_a_tied_tensor_is_enough() -> None:
    module, _, groups = case("tied head")
    both = noisy(dict(groups.apply(module, groups.random(2))), 0.5)
    both["head.weight"] = both["embed.weight"]
    expected = match(groups, module, both)
    for left_out in ("head.weight", "embed.weight"):
        b = {name: tensor for name, tensor in both.items() if name != left_out}
        found = match(groups, module, b)
        assert found.objective == expected.objective
        assert found.frame("alignment").overlap_after.tolist() == expected.frame("alignment").overlap_after.tolist()
        assert set(found.apply(b)) == set(b)


def test_names_of_one_tensor_that_differ_are_refused() -> None:
    module, _, groups = case("tied head")
    b = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    b["head.weight"][0, 0] += 1
    with pytest.raises(wb.WorkbenchError, match="'head.weight' and 'embed.weight' differ"):
        match(groups, module, b)


BAD: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (lambda w: w.pop("2.bias"), r"has no tensor '2.bias', which the groups have"),
    "extra": (lambda w: w.update({"9.weight": torch.zeros(2)}), r"has the tensor '9.weight', which the groups do not"),
    "misshapen": (
        lambda w: w.update({"2.weight": torch.zeros(5, 7)}),
        r"has '2.weight' of the shape \[5, 7\], the groups expect \[5, 6\]",
    ),
    "NaN": (lambda w: w["2.weight"].view(-1)[3].fill_(float("nan")), r"NaN or infinite elements in '2.weight'"),
    "infinite": (lambda w: w["0.bias"].view(-1)[0].fill_(float("inf")), r"NaN or infinite elements in '0.bias'"),
    "complex": (lambda w: w.update({"0.bias": w["0.bias"] * 1j}), r"complex numbers in '0.bias'"),
}


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("name", BAD)
def test_a_network_that_does_not_fit_is_refused_by_its_first_difference(name: str, side: str) -> None:
    module, _, groups = case("mlp")
    change, message = BAD[name]
    weights = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    change(weights)
    networks = [weights, module] if side == "a" else [module, weights]
    with pytest.raises(wb.WorkbenchError, match=message):
        match(groups, *networks)


ARGUMENTS = {
    "restarts": ({"restarts": -1}, "restarts=-1: expected the number of further starts"),
    "gammas": ({"gammas": (0.0, 1.5)}, "gammas has 1.5: expected shares of the largest singular value"),
    "NaN gamma": ({"gammas": (float("nan"),)}, "gammas has nan"),
    "device": ({"device": "gpu0"}, "gpu0"),
    "evaluator": ({"method": "correlation"}, "method='correlation' needs evaluator=wb.evaluator"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_wrong_arguments(name: str) -> None:
    module, _, groups = case("mlp")
    arguments, message = ARGUMENTS[name]
    with pytest.raises(wb.WorkbenchError, match=message):
        match(groups, module, module, **arguments)


WRONG_TYPES = """
import json, torch
import workbench as wb
from workbench.connectivity import match, match_many, permutation_groups
net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
groups = permutation_groups(net, torch.zeros(1, 2))
calls = [
    lambda: match(groups, net, net, method="wieghts"),
    lambda: match(net, net, net),
    lambda: match(groups, net, net, evaluator=net),
    lambda: match(groups, net, 3),
    lambda: match(groups, net, net, restarts=1.5),
    lambda: match(groups, net, net, progress=3),
    lambda: match_many(groups, [net]),
    lambda: match_many(groups, net),
    lambda: match(groups, net, net, restarts=True),
    lambda: match(groups, net, net, gammas=0.3),
    lambda: match(groups, net, net, gammas=("a",)),
    lambda: match(groups, net, net, seed="0"),
    lambda: match(groups, net, net, progress=3),
]
told = []
for call in calls:
    try:
        call()
    except wb.WorkbenchError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def test_wrong_types_are_told_by_the_workbench_itself(unchecked: Callable[..., Any]) -> None:
    told = unchecked(WRONG_TYPES)
    expected = [
        "method='wieghts': expected one of weights, activations, correlation. Did you mean 'weights'?",
        "groups is Sequential: expected wb.permutation_groups(module, example_inputs).",
        "evaluator is Sequential: expected wb.evaluator(module, data, loss).",
        "a model is a path, a directory, a mapping of tensors or an nn.Module; got int.",
        "restarts=1.5: expected the number of further starts, 0 or more.",
        "progress=3: expected a function of a Progress, or None.",
        "models has 1 networks: expected two or more.",
        "models is one Sequential: expected a list of two networks or more.",
        "restarts=True: expected the number of further starts, 0 or more.",
        "gammas=0.3: expected several thresholds, such as (0.0, 0.3), or () for none.",
        "gammas has 'a': expected shares of the largest singular value, 0 to 1.",
        "seed='0': expected a whole number.",
        "progress=3: expected a function of a Progress, or None.",
    ]
    assert told == expected


def test_a_network_that_was_not_matched_has_no_numbers() -> None:
    module, _, groups = case("mlp")
    found = match(groups, module, noisy(module.state_dict(), 1.0))
    for asked in (lambda: found.reduction(model=2), lambda: found.alignment(0.3, model=2)):
        with pytest.raises(wb.ArgumentError, match=r"model=2: the permuted networks have the numbers \[1\]"):
            asked()


class Barred(nn.Module):
    """A classifier one class of which cannot be: its logit is −∞."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(3, 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.body(x), (0, 1), value=-torch.inf)


def test_infinite_outputs_hide_no_change() -> None:
    """‖after − before‖ / ‖before‖ would be 0 of any network, for ‖before‖ is infinite."""
    module, inputs = Barred(), torch.randn(4, 3)
    groups = permutation_groups(module, inputs)
    axes = {name: list(cells) for name, cells in groups.tables["axes"].items()}
    place = list(zip(axes["tensor"], axes["axis"], strict=True)).index(("body.2.weight", 1))
    axes["made_of"][place] = "#6"
    broken = PermutationGroups(tables={**groups.tables, "axes": axes}, meta=groups.meta)
    evaluator = wb.evaluator(module, [(inputs, torch.zeros(4, dtype=torch.int64))], "cross_entropy", device="cpu")
    b = groups.apply(module, groups.random(2))
    assert match(groups, module, b, evaluator=evaluator, gammas=()).verified
    assert not match(broken, module, b, evaluator=evaluator, gammas=()).verified


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_a_device_that_is_not_here() -> None:
    module, _, groups = case("mlp")
    with pytest.raises(wb.WorkbenchError, match="cuda"):
        match(groups, module, module, device="cuda")
    assert match(groups, module, module, device="cpu").meta["device"] == "cpu"


def test_seeds_and_restarts_are_reproducible() -> None:
    """A restart never loses, and other seeds try other starts."""
    module, a, b = pair(3, 12, 12, 12, 2, seed=1)  # where restarts help
    groups = permutation_groups(module, torch.zeros(1, 3))
    first, again, other = (match(groups, a, b, restarts=6, seed=seed, gammas=()) for seed in (0, 0, 1))
    columns = ["start", "sweep", "objective", "distance", "changed"]
    assert first.frame("sweeps")[columns].equals(again.frame("sweeps")[columns])
    assert all(torch.equal(order, again.permutations[group]) for group, order in first.permutations.items())
    begun = [result.frame("sweeps").query("start > 0 and sweep == -1").objective.tolist() for result in (first, other)]
    assert len(set(begun[0] + begun[1])) == 12
    one = match(groups, a, b, gammas=())
    assert first.objective >= one.objective
    assert one.frame("sweeps").objective.tolist() == first.frame("sweeps").query("start == 0").objective.tolist()
    assert first.objective > one.objective  # with this seed; else the test would not show that the best is kept


def test_progress_shows_an_objective_that_rises_and_ends() -> None:
    module, _, groups = case("gpt2")
    b = noisy(dict(groups.apply(module, groups.random(2))), 1.0)
    told: list[Progress] = []
    found = match(groups, module, b, progress=told.append, gammas=())
    assert told and all(isinstance(report, MatchingProgress) for report in told)
    objectives = [report.objective for report in told if isinstance(report, MatchingProgress)]
    assert all(
        later >= earlier - NO_GAIN * abs(later) for earlier, later in zip(objectives, objectives[1:], strict=False)
    )
    assert objectives[-1] == pytest.approx(found.objective, rel=1e-12)
    assert told[-1].item == "" and told[-1].done == told[-1].total
    names = set(groups.structure.sizes)
    assert [report.item for report in told].count("") == 2  # at the end of the one start, and of all
    assert all(report.item in names and 0 <= report.done < report.total for report in told[:-2])
    assert [report.seconds for report in told] == sorted(report.seconds for report in told)


@pytest.mark.parametrize("when", [1, 2, 5, 9])
def test_a_cancel_leaves_a_matching_that_can_be_applied(when: int) -> None:
    module, inputs, groups = case("encoder")
    b = noisy(dict(groups.apply(module, groups.random(2))), 1.0)
    count = 0

    def stop(progress: Progress) -> None:
        nonlocal count
        count += 1
        if count == when:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as caught:
        match(groups, module, b, progress=stop)
    partial = caught.value.partial
    assert isinstance(partial, Matching)
    assert "CANCELLED" in partial.facts()
    moved = partial.apply(b)
    module_b = nn.TransformerEncoderLayer(6, 2, 7, batch_first=True).eval()
    outputs = []
    for weights in (b, moved):
        module_b.load_state_dict(dict(weights))
        outputs.append(module_b(inputs))
    assert torch.allclose(*outputs, atol=1e-5)
    assert partial.objective == pytest.approx(inner(module, module.state_dict(), moved), rel=1e-12)
    assert partial.objective >= inner(module, module.state_dict(), b) - 1e-9
    assert partial.objective <= match(groups, module, b, gammas=()).objective + 1e-9


@pytest.mark.parametrize("name", ["mlp", "encoder", "nothing"])
def test_a_saved_matching_is_applied_after_reopening(name: str, tmp_path: Path) -> None:
    if name == "nothing":
        module: nn.Module = nn.Linear(3, 2)
        groups = permutation_groups(module, torch.zeros(1, 3))
    else:
        module, _, groups = case(name)
    b = dict(groups.apply(module, groups.random(2)))
    found = match(groups, module, b)
    opened = wb.open_result(found.save(tmp_path / "matching"))
    copied = pickle.loads(pickle.dumps(found))
    for other in (opened, copied):
        assert isinstance(other, Matching)
        assert all(found.frame(table).equals(other.frame(table)) for table in found.TABLES)
        assert all(torch.equal(other.apply(b)[key], found.apply(b)[key]) for key in b)
        assert other.facts() == found.facts()
        assert other.permutations.is_identity == found.permutations.is_identity


def test_the_network_in_place_0_keeps_its_order() -> None:
    module, _, groups = case("encoder")
    found = match(groups, module, dict(groups.apply(module, groups.random(2))), gammas=())
    assert found.permutations_of(0).is_identity
    assert torch.equal(found.permutations["linear1"], found.permutations_of(1)["linear1"])
    with pytest.raises(wb.WorkbenchError, match=r"model=2: the permuted networks have the numbers \[1\]"):
        found.permutations_of(2)

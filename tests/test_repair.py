"""REPAIR: the targets are met, in any network, and what is left out is told."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.connectivity.repair import repair
from workbench.runtime import captured


class ConvNet(nn.Module):
    """Two convolutions that run in another order than they are named in, a flatten and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.later = nn.Conv2d(4, 6, 3)
        self.first = nn.Conv2d(1, 4, 3, groups=1)
        self.head = nn.Linear(6 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.later(self.first(x).relu()).relu().flatten(1))  # type: ignore[no-any-return]


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 4))


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 9, bias=False),
        nn.BatchNorm1d(9),
        nn.Linear(9, 4),
    )


SHAPES = {perceptron: (7,), ConvNet: (1, 8, 8), normalised: (7,)}


def ends(make: Callable[[], nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [make().to(dtype).eval() for _ in "ab"]


def batches(make: Callable[[], nn.Module], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [
        (2 * torch.randn(n, *SHAPES[make], generator=random).to(dtype) + 1, torch.zeros(n, 4)) for n in (20, 13, 30)
    ]


def spreads(module: nn.Module, data: Iterable[Any], layers: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of every unit, by numpy over all outputs at once."""
    caught: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    with torch.no_grad(), captured(module, layers) as outputs:
        for x, _ in data:
            module(x)
            for name in layers:
                caught[name].append(outputs[name].movedim(1, -1).flatten(0, -2).double().numpy())
    joined = {name: np.concatenate(parts) for name, parts in caught.items()}
    return {name: (units.mean(0), units.std(0)) for name, units in joined.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("t", [0.5, 0.2])
@pytest.mark.parametrize(("make", "layers"), [(perceptron, ["0", "2", "4"]), (ConvNet, ["first", "later", "head"])])
def test_every_unit_meets_its_target(
    make: Callable[[], nn.Module], layers: list[str], t: float, dtype: torch.dtype, tolerance: float
) -> None:
    a, b = ends(make, dtype)
    data = batches(make, dtype)
    module = copy.deepcopy(a)
    found = repair(wb.evaluator(module, data, "mse", device="cpu"), a, b, t=t)
    module.load_state_dict(dict(found))
    of_a, of_b, of_middle = (spreads(one, data, layers) for one in (a, b, module))
    for name in layers:
        for moment in (0, 1):
            target = (1 - t) * of_a[name][moment] + t * of_b[name][moment]
            np.testing.assert_allclose(of_middle[name][moment], target, atol=tolerance * np.abs(target).max())
    assert found.notes[0].startswith(f"REPAIR of {', '.join(layers)}: "), "in the order in which they run"


def test_without_repair_the_targets_are_missed() -> None:
    a, b = ends(perceptron, torch.float64)
    data, layers = batches(perceptron, torch.float64), ["0", "2", "4"]
    middle = copy.deepcopy(a)
    other = b.state_dict()
    middle.load_state_dict({name: (tensor + other[name]) / 2 for name, tensor in a.state_dict().items()})
    plain, of_a, of_b = (spreads(one, data, layers)["2"][1] for one in (middle, a, b))
    assert np.abs(plain - (of_a + of_b) / 2).max() > 0.05


def test_batch_norm_is_reset_and_layers_without_a_bias_are_named() -> None:
    a, b = ends(normalised, torch.float64)
    data = batches(normalised, torch.float64)
    module = copy.deepcopy(a)
    found = repair(wb.evaluator(module, data, "mse", device="cpu"), a, b)
    told = " | ".join(found.notes)
    assert "REPAIR of 0, 5:" in told and "estimated anew" in told
    assert "not repaired, as there is no bias to carry the mean: 3" in told
    module.load_state_dict(dict(found))
    of_a, of_b, of_middle = (spreads(one, data, ["0", "5"]) for one in (a, b, module))
    for name in ("0", "5"):
        for moment in (0, 1):
            target = (of_a[name][moment] + of_b[name][moment]) / 2
            np.testing.assert_allclose(of_middle[name][moment], target, atol=1e-11 * np.abs(target).max())
    means = np.stack([module[0](x).detach().numpy().mean(0) for x, _ in data]).mean(0)
    np.testing.assert_allclose(found["1.running_mean"], means, atol=1e-12)


def test_at_the_ends_nothing_changes() -> None:
    a, b = ends(perceptron, torch.float64)
    error = wb.evaluator(copy.deepcopy(a), batches(perceptron, torch.float64), "mse", device="cpu")
    for t, end in ((0, a), (1.0, b)):
        found = repair(error, a, b, t=t)
        assert all(torch.allclose(found[name], tensor, atol=1e-12) for name, tensor in end.state_dict().items())


def test_module_and_checkpoints_are_as_before() -> None:
    a, b = ends(perceptron, torch.float32)
    module = copy.deepcopy(a)
    before = [[(id(p), p.tolist()) for p in one.parameters()] for one in (a, b, module)]
    module.train()
    repair(wb.evaluator(module, batches(perceptron, torch.float32), "mse", device="cpu"), a, b)
    assert before == [[(id(p), p.tolist()) for p in one.parameters()] for one in (a, b, module)] and module.training


def test_other_data_and_a_choice_of_layers() -> None:
    a, b = ends(perceptron, torch.float64)
    data = batches(perceptron, torch.float64)
    module = copy.deepcopy(a)
    found = repair(wb.evaluator(module, data[:1], "mse", device="cpu"), a, b, data=data[1:], layers=["2"])
    assert torch.equal(found["0.weight"], torch.lerp(a[0].weight, b[0].weight, 0.5))
    module.load_state_dict(dict(found))
    of_a, of_b, of_middle = (spreads(one, data[1:], ["2"])["2"][1] for one in (a, b, module))
    np.testing.assert_allclose(of_middle, (of_a + of_b) / 2, rtol=1e-11)


def test_a_constant_unit_gets_its_mean() -> None:
    a, b = ends(perceptron, torch.float64)
    with torch.no_grad():
        a[0].weight[3], b[0].weight[3] = 0, 0
        a[0].bias[3], b[0].bias[3] = 1.0, 2.0
    found = repair(wb.evaluator(copy.deepcopy(a), batches(perceptron, torch.float64), "mse", device="cpu"), a, b)
    assert found["0.bias"][3] == 1.5 and not found["0.weight"][3].any()
    assert "constant units of 0 got their mean only: 1" in found.notes


class Odd(nn.Module):
    """Shares a weight, calls a layer twice, leaves one out, and transposes a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.again, self.up, self.last = nn.Linear(4, 4), nn.ConvTranspose1d(1, 1, 1), nn.Linear(4, 2)
        self.computed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.computed(self.again(self.again(self.two(self.one(x)))))
        return self.last(self.up(x[:, None])[:, 0])  # type: ignore[no-any-return]


def test_what_cannot_be_repaired_is_told() -> None:
    a, b = ends(Odd, torch.float64)
    data = [(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(9, 2))]
    found = repair(wb.evaluator(copy.deepcopy(a), data, "mse", device="cpu"), a, b)
    told = " | ".join(found.notes)
    assert "REPAIR of last:" in told
    for words in (
        "another layer shares the weight or bias: one, two",
        "there is no call in a pass: unused",
        "there are 2 calls in a pass: again",
        "transposed convolutions are not rescaled: up",
        "the weight is computed (a parametrisation): computed",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"t": 1.5}, "t=1.5"),
        ({"layers": "3"}, "layers has '3', which is GELU"),
        ({"data": iter([])}, "one-shot"),
        ({"b": {"0.weight": torch.zeros(2, 2)}}, "b does not fit"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    a, b = ends(perceptron, torch.float32)
    error = wb.evaluator(copy.deepcopy(a), batches(perceptron, torch.float32), "mse", device="cpu")
    with pytest.raises(wb.ArgumentError, match=words):
        repair(error, a, **({"b": b} | arguments))


def test_what_has_no_spread_is_refused() -> None:
    a, b = ends(perceptron, torch.float32)
    error = wb.evaluator(copy.deepcopy(a), batches(perceptron, torch.float32), "mse", device="cpu")
    with torch.no_grad():
        b[2].weight[0, 0] = torch.nan
    with pytest.raises(wb.ArgumentError, match="'2' are NaN or infinite in b"):
        repair(error, a, b)
    bare = nn.Sequential(nn.Linear(7, 4, bias=False))
    with pytest.raises(wb.ArgumentError, match="no layer that can be repaired .*no bias"):
        repair(wb.evaluator(bare, error.data, "mse", device="cpu"), bare, bare)


def test_progress_tells_each_pass() -> None:
    a, b = ends(perceptron, torch.float32)
    heard: list[wb.Progress] = []
    error = wb.evaluator(copy.deepcopy(a), batches(perceptron, torch.float32), "mse", device="cpu")
    repair(error, a, b, progress=heard.append)
    assert [one.item for one in heard] == ["a", "b", "0", "2", "4", "the repaired network", ""]
    assert [(one.done, one.total) for one in heard] == [(done, 6) for done in range(7)]

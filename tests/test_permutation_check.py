"""The check of the function, the errors, and the module as it was."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import workbench as wb
from workbench.connectivity import permutation_groups
from workbench.connectivity.proof import function_check, relative_change
from zoo import Net, change, described, function, turned, weight


def mlp(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


class Control(nn.Module):
    """Goes another way for large inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """One of two ways."""
        return self.fc(x) if x.sum() > 0 else -self.fc(x)


def test_control_flow_that_depends_on_values(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(wb.ArgumentError) as raised:
        permutation_groups(Control(), torch.ones(2, 3))
    message = str(raised.value)
    assert message.startswith("torch.export cannot follow Control: ")
    assert "data-dependent" in message.splitlines()[0]  # torch's own reason
    assert "torch.where" in message and "inner module" in message
    assert capfd.readouterr() == ("", "")


def test_inputs_that_lack_or_do_not_fit() -> None:
    with pytest.raises(wb.ArgumentError, match=r"example_inputs is needed to follow Sequential: a tensor, a tuple"):
        permutation_groups(mlp())
    with pytest.raises(wb.ArgumentError, match=r"cannot follow Sequential.*(?s:.*)example_inputs are what forward"):
        permutation_groups(mlp(), torch.zeros(2, 4))
    with pytest.raises(wb.ArgumentError, match=r"cannot follow Sequential"):
        permutation_groups(mlp(), {"y": torch.zeros(2, 3)})
    with pytest.raises(wb.ArgumentError, match=r"outputs has 'b': the module gives one tensor without a name"):
        permutation_groups(mlp(), torch.zeros(2, 3), outputs="b")


def test_nothing_to_permute() -> None:
    with pytest.raises(wb.ArgumentError, match="ReLU has no parameters or buffers"):
        permutation_groups(nn.ReLU(), torch.zeros(2))


def test_inputs_that_can_be_traced_but_not_computed_with() -> None:
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2))
    with pytest.raises(wb.ArgumentError, match=r"Sequential fails on example_inputs: IndexError: index out of range"):
        permutation_groups(net, torch.tensor([[7]]))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_inputs_are_varied(value: float) -> None:
    """With a constant image every position is like another, so that a mistake at positions could not be seen."""
    seen = []
    net = Net(lambda s, x, mask: seen.append((x, mask)) or s.fc(x * mask), fc=nn.Linear(3, 2))
    mask = torch.tensor([1, 1, 1])
    permutation_groups(net, (torch.full((2, 3), value), mask))
    computed = [pair for pair in seen if type(pair[0]) is Tensor]
    assert computed and all(len(x.unique()) == 6 and torch.equal(ints, mask) for x, ints in computed)


def test_inputs_that_vary_are_used_as_they_are() -> None:
    seen = []
    net = Net(lambda s, x: seen.append(x) or s.fc(x), fc=nn.Linear(3, 2))
    x = torch.arange(6.0).reshape(2, 3)
    permutation_groups(net, x)
    assert any(type(given) is Tensor and torch.equal(given, x) for given in seen)


def test_constant_weights_do_not_hide_a_mistake() -> None:
    """A layer of zeros gives the same output whatever is before it."""
    net = mlp().double()
    nn.init.zeros_(net[2].weight)

    def wrong(weights: Any) -> Any:
        return dict(weights) | {"0.weight": weights["0.weight"].flip(0)}

    found = function_check(net, torch.randn(4, 3).double(), None, wrong, 2e-16)
    assert not found["verified"] and found["function_error"] > 1e-3
    assert found["proof"].startswith("ITS FUNCTION CHANGED by ")
    assert function_check(net, torch.randn(4, 3).double(), None, dict, 2e-16)["verified"]


def test_a_tied_bias_is_one_random_vector() -> None:
    """As in BertForMaskedLM, whose head's bias has two names."""
    net = mlp()
    net.register_parameter("shared", net[0].bias)
    net.register_parameter("again", net[2].bias)
    assert permutation_groups(net, torch.randn(2, 3)).verified


def test_a_random_function_is_told() -> None:
    net = Net(lambda s, x: s.b(F.dropout(s.a(x), 0.5, training=True)), a=nn.Linear(3, 6), b=nn.Linear(6, 2))
    groups = permutation_groups(net, torch.randn(4, 3))
    assert described(groups) == ["6"] and not groups.verified
    assert "random even in evaluation mode" in groups.meta["proof"] and groups.meta["proof"] in groups.meta["notes"]


def test_empty_batch() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 2)).double()
    groups = permutation_groups(net, torch.zeros(0, 1, 5, 5).double())
    assert described(groups) == ["4", "7"]
    assert not groups.verified and "empty or not finite" in groups.meta["proof"]
    outputs, weights = function(net, torch.randn(3, 1, 5, 5).double()), net.state_dict()
    assert change(outputs(weights), outputs(groups.apply(weights, turned(groups.structure)))) < 1e-12


def test_outputs_that_are_not_finite() -> None:
    masked = Net(lambda s, x: s.fc(x).masked_fill(torch.eye(2, dtype=torch.bool), -torch.inf), fc=mlp())
    assert permutation_groups(masked, torch.randn(2, 3)).verified  # -inf where it was
    nowhere = Net(lambda s, x: s.fc(x) * torch.nan, fc=mlp())
    assert "empty or not finite" in permutation_groups(nowhere, torch.randn(2, 3)).meta["proof"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [3.0, 5.0], 0.2),
        ([0.0, 0.0], [0.0, 2.0], 2.0),  # nothing to compare with: absolute
        ([torch.inf, 1.0], [torch.inf, 1.0], 0.0),
        ([torch.inf, 1.0], [-torch.inf, 1.0], torch.inf),
        ([torch.nan, 1.0], [torch.nan, 1.0], 0.0),
        ([1.0, 1.0], [torch.nan, 1.0], torch.inf),
        ([torch.nan, 1.0], [0.0, 1.0], torch.inf),
        ([3.0 + 4.0j], [3.0 + 4.0j], 0.0),
        ([3, 4], [4, 4], 0.2),
        ([True, False], [False, False], 1.0),
        ([], [], 0.0),
    ],
)
def test_relative_change(before: list[Any], after: list[Any], expected: float) -> None:
    assert relative_change(torch.tensor(before), torch.tensor(after)) == pytest.approx(expected)


def test_meta_device() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    for inputs in (torch.zeros(4, 3), torch.zeros(4, 3, device="meta")):
        groups = permutation_groups(net, inputs)
        assert described(groups) == ["6"] and not groups.verified and "meta device" in groups.meta["proof"]
    assert net.training and all(tensor.is_meta for tensor in net.state_dict().values())
    real = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double()
    outputs, weights = function(real, torch.randn(4, 3).double()), real.state_dict()
    assert change(outputs(weights), outputs(groups.apply(weights, turned(groups.structure)))) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_precisions(dtype: torch.dtype) -> None:
    groups = permutation_groups(mlp(64).to(dtype), torch.randn(4, 3).to(dtype))
    assert described(groups) == ["64"] and groups.verified
    assert groups.meta["function_error"] <= torch.finfo(dtype).eps ** 0.5


def test_the_module_is_as_before() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 2))
    net[2].eval()
    calls: list[int] = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    net[0].bias.requires_grad_(False)
    net(torch.randn(4, 3)).sum().backward()
    tensors = {name: (tensor, tensor.clone()) for name, tensor in net.state_dict(keep_vars=True).items()}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}
    modes = [part.training for part in net.modules()]
    hooks = [dict(part._forward_hooks) for part in net.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    groups = permutation_groups(net, torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert described(groups) == ["6"] and groups.verified
    assert torch.equal(states[0], torch.get_rng_state())  # Python's own is drawn from by the type checks of the tests
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    after = net.state_dict(keep_vars=True)
    assert all(after[name] is tensor and torch.equal(tensor, was) for name, (tensor, was) in tensors.items())
    assert all((p.grad is None) == (grads[n] is None) for n, p in net.named_parameters())
    assert all(p.grad is None or torch.equal(p.grad, grads[n]) for n, p in net.named_parameters())
    assert modes == [part.training for part in net.modules()]
    assert hooks == [dict(part._forward_hooks) for part in net.modules()]
    assert not net[0].bias.requires_grad and net[0].weight.requires_grad


def test_unread_parameters_keep_their_order() -> None:
    net = Net(lambda s, x: s.b(F.relu(s.a(x))), a=nn.Linear(3, 6), idle=nn.Linear(4, 5), b=nn.Linear(6, 2))
    groups = permutation_groups(net, torch.randn(2, 3))
    table = groups.tables["frozen"]
    reasons = {t: why for t, why in zip(table["tensor"], table["frozen"], strict=True) if t.startswith("idle")}
    assert set(reasons.values()) == {"not read for these outputs"} and len(reasons) == 2


def test_unknown_operations_are_told() -> None:
    net = Net(
        lambda s, x: torch.linalg.qr(s.a(x).view(-1, 2, 3))[0].flatten(1) @ s.w, a=nn.Linear(3, 6), w=weight(4, 2)
    )
    groups = permutation_groups(net, torch.randn(2, 3))
    assert described(groups) == [] and groups.verified
    assert groups.frame("unknown").values.tolist() == [["linalg_qr", 1, "there is no rule for it"]]
    assert any(note.startswith("linalg_qr: there is no rule for it") for note in groups.meta["notes"])
    assert "touched by linalg_qr, which is not known" in groups.tables["frozen"]["frozen"]


def test_one_of_several_outputs() -> None:
    """Who does not need an output may permute what it shows."""
    net = Net(lambda s, x: (s.b(h := F.relu(s.a(x))), h), a=nn.Linear(3, 6), b=nn.Linear(6, 2))
    assert described(permutation_groups(net, torch.randn(2, 3))) == []
    assert described(permutation_groups(net, torch.randn(2, 3), outputs=[0])) == ["6"]
    assert described(permutation_groups(net, torch.randn(2, 3), outputs=["1"])) == []

"""M′ in closed form against the Jacobian of the segment written by hand, and segments that have no closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.degeneracy.closed_form import ClosedForm, closed_form
from workbench.degeneracy.gradients import GradientGram, gradient_gram
from workbench.degeneracy.segments import segment_of
from workbench.errors import ArgumentError, Cancelled, LayerError
from workbench.runtime.chain import Batch, Chain
from workbench.runtime.cut_test import layer_chain

Function = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """source → any function → target; both are layers without effect."""

    def __init__(self, function: Function, *parts: nn.Module) -> None:
        super().__init__()
        self.source, self.target = nn.Identity(), nn.Identity()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.target(self.function(self.source(x.clone())))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain_of(net: Net, data: list[Any], axes: tuple[int, int], dtype: torch.dtype | None = torch.float64) -> Chain:
    features = {"source": axes[0], "target": axes[1]}
    return layer_chain(net, data, ["source", "target"], features=features, device="cpu", dtype=dtype)


def found(net: Net, data: list[Any], axes: tuple[int, int] = (-1, -1), **options: Any) -> ClosedForm | None:
    chain = chain_of(net, data, axes)
    with chain.lent():
        return closed_form(chain, chain.cuts[0], chain.cuts[1], next(chain.batches()), **options)


def gram(
    net: Net, data: list[Any], metric: Tensor | None, axes: tuple[int, int] = (-1, -1), **options: Any
) -> tuple[ClosedForm, GradientGram]:
    chain = chain_of(net, data, axes, **options)
    with chain.lent():
        form = closed_form(chain, chain.cuts[0], chain.cuts[1], next(chain.batches()))
        assert form is not None
        return form, form.gram(chain, metric)


def jacobians(
    function: Function, batches: Iterable[Tensor], axes: tuple[int, int], keeps: Iterable[Tensor | None]
) -> list[Tensor]:
    """(targets, features, sources, features) by autograd for each batch, padding left out."""
    found = []
    for x, keep in zip(batches, keeps, strict=True):
        whole = torch.autograd.functional.jacobian(lambda f: function(f.clone()), x)
        out = whole.ndim - x.ndim
        whole = whole.movedim(out + axes[0] % x.ndim, -1).movedim(axes[1] % out, out - 1)
        shape = whole.shape
        whole = whole.reshape(shape[:out].numel() // shape[out - 1], shape[out - 1], -1, shape[-1])
        if keep is not None:
            kept = keep.reshape(-1).bool()
            whole = whole[:, :, kept]
            whole = whole[kept] if len(whole) == len(kept) else whole
        found.append(whole)
    return found


def oracle(jacobians: list[Tensor], metric: Tensor | None) -> Tensor:
    """1/n Σ_{t,s} J_tsᵀ P J_ts, element by element."""
    P = torch.eye(jacobians[0].shape[1]).double() if metric is None else metric
    total = torch.stack([torch.einsum("tisa,ij,tjsb->ab", one, P, one) for one in jacobians]).sum(0)
    return total / sum(one.shape[2] for one in jacobians)


def metric_of(width: int, rank: int | None = None) -> Tensor:
    C = normal(width, rank or width, seed=9)
    return C @ C.T


def check(
    function: Function,
    batches: list[Tensor],
    width: int,
    axes: tuple[int, int] = (-1, -1),
    pattern: str | None = None,
    parts: tuple[nn.Module, ...] = (),
) -> ClosedForm:
    net = Net(function, *parts)
    for part in parts:
        part.eval().double()
    found = jacobians(function, batches, axes, [None] * len(batches))
    chain = chain_of(net, list(batches), axes)
    with chain.lent():
        form = closed_form(chain, *chain.cuts, next(chain.batches()))
        assert form is not None and pattern in (None, form.pattern)
        for metric in (None, metric_of(width, 2)):
            ours, expected = form.gram(chain, metric), oracle(found, metric)
            assert (ours.matrix - expected).norm() <= 1e-12 * expected.norm(), form
            assert (ours.estimator, ours.error) == ("closed form", 0.0)
            assert ours.samples == sum(x.numel() // x.shape[axes[0]] for x in batches)
    return form


W, B = normal(5, 4, seed=1), normal(5, seed=2)
FUNCTIONS: dict[str, Function] = {
    "relu": torch.relu,
    "relu method": lambda x: x.relu(),
    "relu in place": lambda x: F.relu(x, inplace=True),
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "leaky in place": lambda x: F.leaky_relu_(x, 0.1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3], dtype=torch.float64)),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "tanh in place": lambda x: x.tanh_(),
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "softplus": F.softplus,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "relu6": F.relu6,
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp_min": lambda x: x.clamp_min(0.1),
    "threshold": lambda x: F.threshold(x, 0.2, -0.1),
    "square": lambda x: x**2,
    "shifted": lambda x: (2 * x - 0.3).sigmoid() / 3,
    "per feature": lambda x: (x * torch.arange(1.0, x.shape[-1] + 1) + 1).tanh(),
    "dropout": lambda x: F.dropout(x, 0.5, training=False).sin(),
    "chain": lambda x: (1 - x.tanh()).exp(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_on_either_side_of_a_linear_layer(name: str) -> None:
    function, batches = FUNCTIONS[name], [normal(7, 4), normal(3, 4, seed=3)]
    check(lambda x: function(F.linear(x, W, B)), batches, 5, pattern="elementwise∘linear")
    check(lambda x: F.linear(function(x), W, B), batches, 5, pattern="linear∘elementwise")
    check(function, batches, 4, pattern="elementwise")


def test_modules_and_what_the_form_says() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2)).double()
    chain = layer_chain(net, [(normal(9, 3), torch.zeros(9))], ["1", "3"], device="cpu")
    with chain.lent():
        forms = [
            closed_form(chain, a, b, next(chain.batches())) for a, b in zip(chain.cuts, chain.cuts[1:], strict=False)
        ]
        first, second = forms
        assert first is not None and second is not None
        assert (first.pattern, first.operators) == ("elementwise∘linear", ("linear", "gelu"))
        assert (second.pattern, second.operators) == ("linear", ("linear",))
        torch.testing.assert_close(second.gram(chain, None).matrix, net[4].weight.T @ net[4].weight, rtol=1e-14, atol=0)
        exact = gradient_gram(chain, chain.cuts[0], chain.cuts[1], None).matrix
        torch.testing.assert_close(first.gram(chain, None).matrix, exact, rtol=1e-12, atol=1e-14)


def test_hand_calculation() -> None:
    """ReLU of (f₁+f₂, f₁−f₂, −f₁−f₂) at two points: (2, 1) fires units 0 and 1, (−3, 1) fires unit 2."""
    net = Net(lambda x: torch.relu(x @ torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]]).double()))
    _, ours = gram(
        net, [torch.tensor([[2.0, 1.0], [-3.0, 1.0]]).double()], torch.diag(torch.tensor([1.0, 2, 4]).double())
    )
    assert ours.matrix.tolist() == [[(1 + 2 + 4) / 2, (1 - 2 + 4) / 2], [(1 - 2 + 4) / 2, (1 + 2 + 4) / 2]]
    assert ours.samples == 2


@pytest.mark.parametrize(
    "linear",
    [
        lambda x: x @ W.T + B,
        lambda x: (W @ x.transpose(-1, -2)).transpose(-1, -2),
        lambda x: torch.einsum("...i,oi->...o", x, W),
        lambda x: torch.matmul(x, W.T),
        lambda x: F.linear(x.transpose(0, -2), W, B).transpose(0, -2),
        lambda x: F.linear(F.linear(x, normal(6, 4)), normal(5, 6)),
        lambda x: torch.addmm(B, x.reshape(-1, 4), W.T, alpha=0.3, beta=2).reshape(*x.shape[:-1], 5),
        lambda x: 2 * F.linear(x / 3, W),
    ],
)
def test_ways_to_write_a_linear_map(linear: Function) -> None:
    sequences = [normal(2, 3, 4), normal(1, 2, 4, seed=5)]
    for batches in (sequences, [normal(6, 4)]):
        if batches[0].ndim == 2 and linear(batches[0]).shape != (6, 5):
            continue
        check(lambda x: torch.tanh(linear(x)), batches, 5, pattern="elementwise∘linear")
        check(lambda x: linear(torch.tanh(x)), batches, 5, pattern="linear∘elementwise")
        check(linear, batches, 5, pattern="linear")


def integers(random: torch.Generator, low: int, high: int, count: int = 1) -> list[int]:
    return torch.randint(low, high + 1, (count,), generator=random).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_convolutions_of_random_shapes(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    axes, groups = 1 + seed % 2, integers(random, 1, 3)[0]
    inputs, outputs = groups * integers(random, 1, 2)[0], groups * integers(random, 1, 2)[0]
    kernel, stride, dilation = (integers(random, 1, 3, axes) for _ in range(3))
    padding = [integers(random, 0, (k - 1) * d)[0] for k, d in zip(kernel, dilation, strict=True)]
    sizes = [
        (k - 1) * d + 1 + extra for k, d, extra in zip(kernel, dilation, integers(random, 1, 2, axes), strict=True)
    ]
    conv = (nn.Conv1d, nn.Conv2d)[axes - 1](
        inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    nn.init.normal_(conv.weight, generator=random)
    batches = [normal(2, inputs, *sizes, seed=seed), normal(1, inputs, *sizes, seed=seed + 1)]
    for function, pattern in (
        (lambda x: torch.tanh(conv(x)), "elementwise∘linear"),
        (lambda x: conv(torch.tanh(x)), "linear∘elementwise"),
        (conv, "linear"),
    ):
        check(function, batches, outputs, (1, 1), pattern, (conv,))


def test_convolution_then_batch_norm_then_relu() -> None:
    conv, norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
    norm.running_mean = normal(3)
    norm.running_var = normal(3).square() + 0.5
    nn.init.uniform_(norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
    batches, parts = [normal(2, 2, 4, 3)], (conv, norm)
    form = check(lambda x: F.relu(norm(conv(x)), inplace=True), batches, 3, (1, 1), "elementwise∘linear", parts)
    assert form.operators == ("linear", "native_batch_norm", "relu")
    check(lambda x: norm(conv(torch.relu(x))), batches, 3, (1, 1), "linear∘elementwise", parts)
    check(lambda x: norm(conv(x)), batches, 3, (1, 1), "linear", parts)


def test_convolution_of_a_sequence_with_features_last() -> None:
    conv = nn.Conv1d(4, 6, 3, padding=2, stride=2)
    check(lambda x: conv(x.transpose(1, 2)).transpose(1, 2).relu(), [normal(2, 5, 4)], 6, (-1, -1), parts=(conv,))


@pytest.mark.parametrize("channels_last", [False, True])
def test_linear_map_of_all_positions(channels_last: bool) -> None:
    weight, maps = normal(5, 3 * 4), [normal(6, 3, 2, 2), normal(2, 3, 2, 2, seed=4)]

    def flat(x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1) if channels_last else x.flatten(1)

    check(lambda x: F.gelu(F.linear(flat(x), weight)), maps, 5, (1, -1), "elementwise∘linear")
    check(lambda x: F.linear(flat(F.gelu(x)), weight), maps, 5, (1, -1), "linear∘elementwise")
    check(lambda x: F.linear(flat(x), weight), maps, 5, (1, -1), "linear")


def test_linear_map_to_all_positions() -> None:
    weight = normal(12, 5)
    check(lambda x: F.linear(x, weight).view(-1, 4, 3).tanh(), [normal(6, 5)], 3, (-1, -1), "elementwise∘linear")
    check(lambda x: F.linear(x.tanh(), weight).view(-1, 3, 4), [normal(6, 5)], 3, (-1, 1), "linear∘elementwise")


def masked(*sizes: tuple[int, int]) -> list[dict[str, Tensor]]:
    batches = []
    for seed, (samples, steps) in enumerate(sizes):
        mask = torch.ones(samples, steps, dtype=torch.int64)
        for row in range(samples):
            mask[row, steps - (row + seed) % steps :] = 0
        batches.append({"x": normal(samples, steps, 4, seed=seed), "attention_mask": mask})
    return batches


@pytest.mark.parametrize("order", ["elementwise∘linear", "linear∘elementwise", "linear"])
@pytest.mark.parametrize("kind", ["linear", "convolution", "flattened"])
def test_padding_counts_neither_as_source_nor_as_output(order: str, kind: str) -> None:
    weight, kernel, flat = normal(5, 4), normal(5, 4, 3), normal(5, 20)
    linear: Function = {
        "linear": lambda x: F.linear(x, weight),
        "convolution": lambda x: F.conv1d(x.mT, kernel, padding=1).mT,
        "flattened": lambda x: F.linear(x.flatten(1), flat),
    }[kind]
    function: Function = {
        "elementwise∘linear": lambda x: torch.tanh(linear(x)),
        "linear∘elementwise": lambda x: linear(torch.tanh(x)),
        "linear": linear,
    }[order]
    batches, metric = masked((3, 5), (4, 5)), metric_of(5)
    form, ours = gram(Net(function), batches, metric)
    keeps = [batch["attention_mask"] for batch in batches]
    expected = oracle(jacobians(function, [batch["x"] for batch in batches], (-1, -1), keeps), metric)
    torch.testing.assert_close(ours.matrix, expected, rtol=1e-12, atol=1e-13)
    assert ours.samples == sum(int(keep.sum()) for keep in keeps) and form.pattern == order


def test_factors_of_each_position_are_part_of_the_function() -> None:
    factors = normal(3, 1).abs()
    check(lambda x: F.linear(x * factors, W), [normal(2, 3, 4)], 5, pattern="linear∘elementwise")
    check(lambda x: F.linear(x, W) * factors + normal(3, 5), [normal(2, 3, 4)], 5, pattern="elementwise∘linear")
    assert found(Net(lambda x: F.linear(x * factors, W).relu()), [normal(2, 3, 4)]) is None


def test_weights_that_the_batch_size_decides() -> None:
    """Sums are closed where a batch has other weights, whose form is as right."""

    def function(x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, len(x) * W))

    check(function, [normal(2, 4), normal(3, 4, seed=1), normal(2, 4, seed=2)], 5)


def test_more_samples_than_are_looked_at() -> None:
    check(lambda x: F.gelu(F.linear(x, W)), [normal(45, 4)], 5)
    batches = masked((40, 3))
    _, ours = gram(Net(lambda x: F.linear(x.tanh(), W)), batches, None)
    expected = oracle(
        jacobians(lambda x: F.linear(x.tanh(), W), [batches[0]["x"]], (-1, -1), [batches[0]["attention_mask"]]), None
    )
    torch.testing.assert_close(ours.matrix, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", range(12))
def test_multilayer_perceptrons_of_random_shapes(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    samples, width, out, steps = integers(random, 1, 6, 4)
    first, second = normal(out, width, seed=seed), normal(out, seed=seed)
    shape = (samples + 1, steps, width) if seed % 2 else (samples + 1, width)
    x = normal(*shape, seed=seed)
    check(lambda x: F.silu(F.linear(x, first, second)), [x], out)
    check(lambda x: F.linear(F.silu(x), first, second), [x], out)


def test_single_precision() -> None:
    function: Function = lambda x: F.gelu(F.linear(x, W.to(x), B.to(x)))  # noqa: E731 - as the other functions
    x = normal(50, 4).float()
    form, ours = gram(Net(function), [x], None, dtype=None)
    expected = oracle(jacobians(function, [x.double()], (-1, -1), [None]), None)
    assert ours.matrix.dtype == torch.float64 and (ours.matrix - expected).norm() <= 1e-6 * expected.norm()
    assert found(Net(function), [x]) is not None
    chain = chain_of(Net(function), [x], (-1, -1), torch.bfloat16)
    with chain.lent():
        assert closed_form(chain, *chain.cuts, next(chain.batches())) is None


class StraightThrough(torch.autograd.Function):
    """relu forward, identity backward."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient


def written_into(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:] = x.relu()
    return F.linear(out, W)


def accumulated(x: Tensor) -> Tensor:
    return F.linear(torch.zeros_like(x).add_(x), W)


def alias_changed(x: Tensor) -> Tensor:
    x.view(-1).relu_()
    return F.linear(x, W)


NONE: dict[str, Function] = {
    "softmax": lambda x: F.linear(x, W).softmax(-1),
    "max-pool": lambda x: F.linear(F.max_pool1d(x, 2, 1), W[:, :3]),
    "mean-pool": lambda x: F.linear(F.avg_pool1d(x, 2, 1), W[:, :3]),
    "attention": lambda x: F.scaled_dot_product_attention(x[..., None], x[..., None], x[..., None])[..., 0],
    "square of itself": lambda x: F.linear(x * x, W),
    "gate": lambda x: F.linear(x, W) * F.linear(x, W).sigmoid(),
    "residual": lambda x: x + F.linear(x.relu(), W[:4]),
    "residual in place": lambda x: F.linear(x.relu(), W[:4]).add_(x),
    "both sides": lambda x: F.relu(F.linear(F.relu(x), W)),
    "two linear maps": lambda x: F.linear(F.linear(x, W).tanh(), W.T),
    "weight from the source": lambda x: (W * x.abs().mean(1)[:, None, None] @ x[..., None])[..., 0],
    "bias from the source": lambda x: F.linear(x.detach(), W, B[:1]) + B * x.mean(1, keepdim=True),
    "factor from the source": lambda x: F.linear(x, W) * x.mean(1, keepdim=True),
    "constant over the source": lambda x: F.linear(1 / (2 + x * x), W),
    "layer norm": lambda x: F.linear(F.layer_norm(x, (4,)), W),
    "statistics of the sample": lambda x: F.linear(F.instance_norm(x[:, None])[:, 0], W),
    "sum over features": lambda x: x.relu().sum(-1, keepdim=True),
    "sorted": lambda x: F.linear(x.sort(-1).values, W),
    "elements left out": lambda x: F.linear(x[:, :3], W[:, :3]),
    "elements repeated": lambda x: F.linear(x.relu(), W)[:, :, None].expand(-1, 5, 3).flatten(1),
    "a constant broadcast": lambda x: F.linear(x, W[:1]).relu() + B,
    "without a gradient": lambda x: F.linear(x.detach().relu(), W) + 0 * x.sum(),
    "detached": lambda x: F.linear(x, W).detach().relu(),
    "through numpy": lambda x: F.linear(torch.from_numpy(x.detach().numpy()), W),
    "data": lambda x: F.linear(x.data, W),
    "another gradient than the derivative": lambda x: F.linear(StraightThrough.apply(x), W),
    "written into another tensor": written_into,
    "added to another tensor": accumulated,
    "changed by another name": alias_changed,
    "in single precision": lambda x: F.linear(x.float().relu(), W.float()).double(),
    "padded": lambda x: F.linear(F.pad(x, (1, 0)), normal(5, 5)),
}


@pytest.mark.parametrize("name", NONE)
def test_no_closed_form(name: str) -> None:
    assert found(Net(NONE[name]), [normal(3, 4)]) is None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            lambda x: F.linear(x, W).softmax(-1),
            "_softmax.default is neither linear with constant weights nor a function",
        ),
        (lambda x: F.linear(F.linear(x, W).tanh(), W.T), "a second linear map, with something between"),
        (lambda x: F.relu(F.linear(F.relu(x), W)), "functions of elements both before and after the linear map"),
        (lambda x: F.linear(x * x, W), "mul.Tensor joins several tensors"),
        (lambda x: F.linear(x[:, :3], W[:, :3]), "leaves elements out or repeats them"),
        (lambda x: F.linear(x.view(-1, 2, 2).mT.flatten(1), W).view(-1, 5), ""),
        (lambda x: F.linear(x.view(-1, 2, 2), W[:, :2]).flatten(1), "mixes positions with features"),
        (alias_changed, "relu_.default changes it in place"),
    ],
)
def test_why_there_is_none(function: Function, reason: str) -> None:
    chain = chain_of(Net(function), [normal(3, 4)], (-1, -1))
    with chain.lent():
        told = segment_of(chain, *chain.cuts, next(chain.batches()))
    assert reason in told if reason else not isinstance(told, str)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.conv_transpose2d(x, normal(2, 3, 2, 2)),
        lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), normal(3, 2, 3, 3)),
        lambda x: F.conv2d(x.flatten(1).view(-1, 3, 4, 2).relu(), normal(3, 3, 2, 2)),
        lambda x: F.instance_norm(F.conv2d(x, normal(3, 2, 3, 3))),
        lambda x: F.conv2d(x, normal(3, 2, 3, 3)) * x.mean((1, 2, 3), keepdim=True),
        lambda x: F.conv2d(F.conv2d(x, normal(3, 2, 2, 2)), normal(4, 3, 2, 2)),
        lambda x: (x.transpose(1, 3) @ normal(2, 3)).transpose(1, 3)[:, :, :, :2].contiguous(),
        lambda x: F.linear(x, normal(2, 4)),  # over positions, not features
    ],
)
def test_no_closed_form_of_images(function: Function) -> None:
    assert found(Net(function), [normal(2, 2, 3, 4)], (1, 1)) is None


def test_pointwise_convolutions_in_a_row_are_one() -> None:
    first, second, third = normal(3, 2, 1, 1), normal(4, 3, 3, 3), normal(2, 4, 1, 1)
    maps = [normal(2, 2, 3, 4)]
    check(lambda x: F.conv2d(F.conv2d(x, first), second, padding=1).relu(), maps, 4, (1, 1), "elementwise∘linear")
    check(lambda x: F.conv2d(F.conv2d(x.relu(), second[:, :2]), third), maps, 2, (1, 1), "linear∘elementwise")


def test_channels_made_of_positions() -> None:
    weight = normal(3, 4, 2, 2)
    check(lambda x: F.conv2d(x.flatten(1).view(-1, 4, 3, 2).relu(), weight), [normal(2, 2, 3, 4)], 3, (1, 1))


def test_cotangents_at_the_last_position_have_no_closed_form() -> None:
    net = Net(lambda x: F.linear(x, W))
    assert found(net, [normal(2, 3, 4)], positions="all") is not None
    assert found(net, [normal(2, 3, 4)], positions="last") is None


def test_a_dead_segment_is_zero() -> None:
    form, ours = gram(Net(lambda x: F.threshold(F.linear(x, W), 9.0, 0.0)), [20 * normal(5, 4), normal(5, 4)], None)
    assert ours.matrix.any()
    chain = chain_of(Net(lambda x: F.threshold(F.linear(x, W), 9.0, 0.0)), [20 * normal(5, 4)], (-1, -1))
    dead = dataclasses.replace(chain, data=[normal(5, 4)])
    with dead.lent():
        assert closed_form(dead, *dead.cuts, next(dead.batches())) is not None
        assert not form.gram(dead, None).matrix.any()


def test_a_later_batch_without_a_closed_form_is_named() -> None:
    net = Net(lambda x: F.linear(x, W).relu() if len(x) > 2 else F.linear(x, W).softmax(-1))
    with pytest.raises(LayerError, match=r"between 'source' and 'target' batch 1 has no closed form.*softmax"):
        gram(net, [normal(3, 4), normal(2, 4)], None)


def test_a_metric_of_another_width_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"shape \[4, 4\]: expected \[5, 5\], the features of 'target'"):
        gram(Net(lambda x: F.linear(x, W)), [normal(3, 4)], metric_of(4))


def test_batches_are_told_and_a_cancel_passes() -> None:
    net, data, heard = Net(lambda x: F.linear(x, W)), [normal(3, 4), normal(2, 4)], []
    chain = chain_of(net, data, (-1, -1))

    def told(batch: Batch) -> None:
        heard.append((batch.number, batch.size))
        if len(heard) == 4:
            raise Cancelled

    net.train()
    state, hooks = torch.get_rng_state(), net.source._forward_hooks
    with chain.lent():
        form = closed_form(chain, *chain.cuts, next(chain.batches()))
        assert form is not None
        form.gram(chain, None, told)
        with pytest.raises(Cancelled):
            form.gram(chain, None, told)
    assert heard == [(0, 3), (1, 2), (0, 3), (1, 2)]
    assert net.training and not hooks and torch.equal(state, torch.get_rng_state())
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None

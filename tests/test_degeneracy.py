"""The audit: planted ranks, Jacobians by autograd, numbers by hand, and a module that is as it was."""

import math
import random
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import workbench as wb
from test_synchronised import drawn, filled, jacobian, rank
from workbench.degeneracy import audit
from workbench.degeneracy.audit import Degeneracy
from workbench.degeneracy.numerical_rank import covariance_rank, numerical_rank, second_moment_rank
from workbench.linalg import Moments
from workbench.runtime import EvaluationError

degeneracy = partial(audit.degeneracy, device="cpu")  # the oracles compute there


def block(found: Degeneracy, layer: str) -> dict[str, Any]:
    table = found.tables["blocks"]
    place = table["layer"].index(layer)
    return {name: cells[place] for name, cells in table.items()}


def mlp(*widths: int, bias: bool = True, seed: int = 0, act: type[nn.Module] | None = nn.ReLU) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        parts += [nn.Linear(before, after, bias=bias), *([act()] if act else [])]
    return filled(nn.Sequential(*(parts[:-1] if act else parts)), seed)  # type: ignore[return-value]


def in_batches(inputs: Tensor, size: int = 100) -> list[Tensor]:
    return list(inputs.split(size))


def planted_activations() -> tuple[nn.Module, Tensor]:
    """relu(X·W₁₀ₓ₆)·Mix₆ₓ₁₆."""
    return mlp(10, 6, 16, bias=False), drawn(2048, 10, seed=5)


def test_golden_planted_rank_of_activations() -> None:
    net, points = planted_activations()
    found = degeneracy(net, in_batches(points, 300))
    row, eigenvalues = found.row("2"), found.activation_eigenvalues["2"]
    assert (row["activation_rank"], row["centred_rank"], row["width"], row["samples"]) == (6, 6, 16, 2048)
    assert float(eigenvalues[6] / eigenvalues[0]) < 1e-14 < row["activation_floor"] / float(eigenvalues[0]) < 1e-12
    with torch.no_grad():
        outputs = net(points)
    expected = torch.linalg.eigvalsh(outputs.T @ outputs / 2048).flip(0)
    torch.testing.assert_close(eigenvalues[:6], expected[:6], rtol=1e-10, atol=0)


def planted_gradients() -> tuple[nn.Module, Tensor]:
    """A layer of full rank, then W₁₆ₓ₄·W₄ₓ₂₀ and ReLU."""
    net = filled(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 20, bias=False), nn.ReLU()))
    with torch.no_grad():
        net[1].weight.copy_(drawn(20, 4, seed=1) @ drawn(4, 16, seed=2))  # type: ignore[operator,union-attr]
    return net, drawn(600, 16, seed=3)


def test_golden_planted_rank_of_gradients() -> None:
    net, points = planted_gradients()
    found = degeneracy(net, in_batches(points))
    row = found.row("0")
    assert (row["activation_rank"], row["gradient_rank"], row["verdict"]) == (16, 4, "degenerate")
    after = nn.Sequential(*list(net)[1:])
    with torch.no_grad():
        hidden = net[0](points)  # type: ignore[operator]
    matrix = torch.zeros(16, 16, dtype=torch.float64)
    for one in hidden:
        slope = torch.autograd.functional.jacobian(after, one)
        matrix += slope.T @ slope / len(points)
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    torch.testing.assert_close(found.gradient_eigenvalues["0"][:4], expected[:4], rtol=1e-10, atol=0)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("make", [planted_activations, planted_gradients])
def test_scaling_a_layer_leaves_every_rank(make: Callable[[], tuple[nn.Module, Tensor]], scale: float) -> None:
    found = []
    for factor in (1.0, scale):
        net, points = make()
        with torch.no_grad():
            for parameter in net[0].parameters():  # type: ignore[operator,index,union-attr]
                parameter.mul_(factor)
        tables = degeneracy(net, [points]).tables
        names = ("activation_rank", "centred_rank", "gradient_rank", "hessian_rank", "synchronised", "dead", "verdict")
        found.append([repr(tables["layers"][name]) for name in names])
        found[-1] += [repr(tables["blocks"][name]) for name in ("input_rank", "gradient_rank", "hessian_rank")]
    assert found[0] == found[1]


def test_the_bracket_by_hand() -> None:
    """4-3-2 without biases; inputs of rank 2, second matrix of rank 1.

    First matrix: r = 2·1 of p = 12, so λ in [1, 1 + 10/4] = [1, 3.5]. Second: reads 3 features of rank 2, and its
    output is the module's, so r = 2·2 of p = 6, λ in [2, 2.5].
    """
    net = mlp(4, 3, 2, bias=False, act=None)
    with torch.no_grad():
        net[1].weight.copy_(torch.outer(drawn(2, seed=8), drawn(3, seed=9)))  # type: ignore[operator,union-attr]
    points = drawn(40, 2, seed=1) @ drawn(2, 4, seed=2)
    found = degeneracy(net, in_batches(points, 13))
    names = ("reads", "params", "input_rank", "gradient_rank", "hessian_rank", "lambda_low", "lambda_high")
    names += ("effective_low", "effective_high", "verdict")
    first, second = block(found, "0"), block(found, "1")
    assert tuple(first[name] for name in names) == ("input", 12, 2, 1, 2, 1, 3.5, 2, 7, "degenerate")
    assert tuple(second[name] for name in names) == ("0", 6, 2, 2, 4, 2, 2.5, 4, 5, "degenerate")
    assert found.row("0")["hessian_rank"] == 4
    assert repr(found.row("1")["hessian_rank"]) == "nan"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [(5, 4, 3), (3, 6, 2, 5), (4, 2, 6, 3)])
def test_linear_networks_reach_the_rank_of_the_behavioural_hessian(widths: tuple[int, ...], bias: bool) -> None:
    net, points = mlp(*widths, bias=bias, act=None), drawn(60, widths[0], seed=7)
    found = degeneracy(net, in_batches(points, 25))
    for name in map(str, range(len(net))):
        assert block(found, name)["hessian_rank"] == rank(jacobian(net, points, f"{name}."))


@pytest.mark.parametrize("seed", range(4))
def test_networks_with_relus_stay_below_it(seed: int) -> None:
    net, points = mlp(4, 6, 5, 3, seed=seed), drawn(300, 4, seed=seed + 50)
    found = degeneracy(net, in_batches(points))
    for name in ("0", "2", "4"):
        assert rank(jacobian(net, points, f"{name}.")) <= block(found, name)["hessian_rank"]
    last = block(found, "4")
    assert last["hessian_rank"] == rank(jacobian(net, points, "4."))  # its output is the module's


class Convolutions(nn.Module):
    """Strides, dilation, groups and padding of several kinds, with functions between."""

    def __init__(self, mode: str = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding="same", dilation=2, padding_mode=mode)
        self.second = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, groups=2, bias=False)
        self.last = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(inputs))))
        return self.last(hidden.mean((2, 3)))


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
def test_convolutions_read_patches(mode: str) -> None:
    net, images = filled(Convolutions(mode)), drawn(7, 2, 6, 6, seed=1)
    images[:, 1] = 2 * images[:, 0]  # half of each patch is a multiple of the other half
    found = degeneracy(net, in_batches(images, 4))
    first, second = block(found, "first"), block(found, "second")
    assert (first["input_rank"], first["gradient_rank"]) == (10, 4)  # 9 places and the bias
    assert (second["groups"], second["fan_in"], second["fan_out"]) == (2, 12, 3)
    with torch.no_grad():
        hidden = torch.tanh(net.first(images))
    patches = nn.functional.unfold(hidden, (3, 2), padding=1, stride=(2, 1)).mT.reshape(-1, 2, 12)
    expected = [int(torch.linalg.matrix_rank(patches[:, group])) for group in (0, 1)]
    assert second["input_rank"] == sum(expected) and second["gradient_rank"] == 6
    assert second["hessian_rank"] == 3 * sum(expected)
    many = drawn(40, 2, 6, 6, seed=2)
    for name in ("first", "second", "last"):
        assert rank(jacobian(net, many, f"{name}.")) <= block(degeneracy(net, [many]), name)["hessian_rank"]


@pytest.mark.parametrize(
    ("conv", "shape"),
    [(nn.Conv1d(2, 3, 3, stride=2, padding=2), (30, 2, 9)), (nn.Conv3d(1, 2, (1, 2, 2)), (30, 1, 2, 3, 3))],
)
def test_a_convolution_alone_reaches_its_rank(conv: nn.Module, shape: tuple[int, ...]) -> None:
    filled(conv)
    points = drawn(*shape, seed=4)
    found = degeneracy(conv, in_batches(points, 11), probes="exact")
    assert block(found, "weight")["hessian_rank"] == rank(jacobian(conv, points))
    assert found.tables["layers"]["layer"] == ("output",)


class Tokens(nn.Module):
    """An embedding, a mean over what is no padding, and two branches that read it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(12, 6), nn.Linear(6, 6)
        self.left, self.right, self.norm, self.last = nn.Linear(6, 5), nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.mix(self.embed(input_ids))
        mixed = torch.tanh(self.left(hidden)) * self.right(hidden)
        kept = attention_mask[..., None].to(mixed)
        return self.last(self.norm((mixed * kept).sum(1) / kept.sum(1)))


def tokens(seed: int = 0) -> dict[str, Tensor]:
    random_numbers = torch.Generator().manual_seed(seed)
    mask = (torch.arange(7) < torch.randint(3, 8, (20, 1), generator=random_numbers)).long()
    ids = torch.randint(0, 12, (20, 7), generator=random_numbers)
    return {"input_ids": ids, "attention_mask": mask}


def test_padding_and_branches_and_what_is_no_matrix() -> None:
    net, data = filled(Tokens()), [tokens(0), tokens(1)]
    found = degeneracy(net, data)
    row = found.row("mix")
    assert row["samples"] == sum(int(batch["attention_mask"].sum()) for batch in data)
    ids = torch.cat([batch["input_ids"][batch["attention_mask"] != 0] for batch in data])
    with torch.no_grad():
        hidden = net.mix(net.embed(ids))
    torch.testing.assert_close(
        found.activation_eigenvalues["mix"], torch.linalg.eigvalsh(hidden.T @ hidden / len(ids)).flip(0)
    )
    left, right, norm = block(found, "left"), block(found, "right"), block(found, "norm")
    assert left["reads"] == right["reads"] == "mix"
    assert row["hessian_rank"] == left["hessian_rank"] + right["hessian_rank"] == 7 * 5 * 2
    assert (norm["verdict"], norm["params"], norm["groups"]) == ("not analysed", 10, 0)
    assert "LayerNorm: only the matrices" in norm["reason"] and repr(norm["hessian_rank"]) == "nan"
    assert sum(found.tables["blocks"]["params"]) == sum(parameter.numel() for parameter in net.parameters())
    assert "elsewhere" in found.facts()


def test_batches_and_probes_do_not_decide_about_ranks() -> None:
    net, points = planted_gradients()
    exact = degeneracy(net, [points], probes="exact")
    for found in (degeneracy(net, in_batches(points, 37)), degeneracy(net, in_batches(points), probes=4)):
        for name in ("activation_rank", "centred_rank", "gradient_rank", "hessian_rank"):
            assert repr(found.tables["layers"][name]) == repr(exact.tables["layers"][name])
        assert found.tables["blocks"]["hessian_rank"] == exact.tables["blocks"]["hessian_rank"]
    assert set(exact.tables["layers"]["estimator"]) == {"exact"} and exact.row("0")["gradient_error"] == 0


def test_the_error_of_probes_is_that_of_many_draws() -> None:
    net, points = planted_gradients()
    exact = float(degeneracy(net, [points[:200]]).gradient_eigenvalues["0"].sum())
    runs = [degeneracy(net, [points[:200]], probes=6, seed=seed) for seed in range(30)]
    off = [float(run.gradient_eigenvalues["0"].sum()) / exact - 1 for run in runs]
    assert abs(sum(off) / 30) < 4 * (sum(x * x for x in off) / 30) ** 0.5 / 30**0.5  # unbiased
    told = (sum(run.row("0")["gradient_error"] ** 2 for run in runs) / 30) ** 0.5
    matrices = torch.stack([run.gradient_eigenvalues["0"] for run in runs])
    assert runs[0].row("0")["estimator"] == "Hutchinson" and 0 < told < 1
    spread = float(matrices.std(0).norm() / matrices.mean(0).norm())
    assert spread < 2 * told  # eigenvalues move less than the matrix does (Weyl)
    again = degeneracy(net, [points[:200]], probes=6, seed=0)
    assert torch.equal(again.gradient_eigenvalues["0"], runs[0].gradient_eigenvalues["0"])
    assert repr(degeneracy(net, [points[:200]], probes=1).row("0")["gradient_error"]) == "nan"


def test_many_outputs_are_drawn_by_default() -> None:
    found = degeneracy(filled(nn.Linear(3, 65)), [drawn(80, 3)])
    assert found.row("output")["estimator"] == "Hutchinson" and found.row("output")["gradient_rank"] == 65
    assert degeneracy(filled(nn.Linear(3, 64)), [drawn(80, 3)]).row("output")["estimator"] == "exact"


def test_memory_does_not_grow_with_the_data() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = [0]

    class Stream:
        def __iter__(self) -> Iterator[Tensor]:
            for number in range(12):
                batch = drawn(5, 4, seed=number)
                alive.append(weakref.ref(batch))
                most[0] = max(most[0], sum(one() is not None for one in alive))
                yield batch
                del batch

    found = degeneracy(mlp(4, 3, 2), Stream())
    assert most[0] <= 3 and found.row("1")["samples"] == 60  # the first, the last one and the new one


def test_thresholds_are_shares_of_the_largest_eigenvalue() -> None:
    net, points = planted_activations()
    eigenvalues = degeneracy(net, [points]).activation_eigenvalues["2"]
    between = float((eigenvalues[2] * eigenvalues[3]).sqrt() / eigenvalues[0])
    found = degeneracy(net, [points], threshold=between).row("2")
    assert found["activation_rank"] == 3
    assert found["activation_floor"] == pytest.approx(between * float(eigenvalues[0]), abs=0)
    assert degeneracy(net, [points], threshold=0).row("2")["activation_rank"] >= 6


@pytest.mark.parametrize("count", [100, 10**6])
def test_few_features_and_many_samples_do_not_make_noise_a_rank(count: int) -> None:
    moments = Moments(3)
    for part in (drawn(count, 2, seed=1) @ drawn(2, 3, seed=2) + 0.3).split(977):
        moments.update(part)
    assert covariance_rank(moments, None, None).rank == 2
    assert second_moment_rank(moments, None, None).rank == 3  # a constant is a direction of its own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rank_", "inside", "width"), [(6, 6, 16), (8, 256, 64), (20, 64, 200)])
def test_rounding_of_activations_is_no_rank(dtype: torch.dtype, rank_: int, inside: int, width: int) -> None:
    """Matrices of random numbers: rank_ directions that matter, and rounding in all others."""
    low = (drawn(3000, rank_, seed=1) @ drawn(rank_, inside, seed=2) / rank_**0.5).to(dtype).double()
    left, _, right = torch.linalg.svd(low, full_matrices=False)
    exactly = left[:, :rank_] * 50 @ right[:rank_]  # in float64: rank_, whatever rounding did above
    if inside == rank_:
        given = exactly.to(dtype) @ (drawn(inside, width, seed=3) / inside**0.5).to(dtype)
    else:
        given = (exactly @ drawn(inside, width, seed=3) / inside**0.5).to(dtype)
    moments = Moments(width)
    moments.update(given)
    assert second_moment_rank(moments, None, dtype).rank == rank_
    if dtype != torch.float32:  # whose ε² is as small as the rounding of sums in float64
        assert second_moment_rank(moments, None, None).rank == width


def test_a_float32_module_in_its_own_precision() -> None:
    net, points = planted_activations()
    net.float()
    own = degeneracy(net, [points.float()], dtype="own")
    assert own.row("2")["activation_rank"] == 6 and own.meta["dtype"] == "float32"
    assert own.row("2")["activation_floor"] > 2 * degeneracy(net, [points]).row("2")["activation_floor"]
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


def test_float16_modules_are_cast() -> None:
    net, points = planted_activations()
    found = degeneracy(net.half(), [points.half()])
    assert found.row("2")["activation_rank"] == 6 and found.meta["dtype"] == "float64"


def test_a_matrix_that_is_not_finite_has_no_rank() -> None:
    found = numerical_rank(torch.full((2, 2), torch.inf, dtype=torch.float64), 3)
    assert repr(found.rank) == repr(found.floor) == "nan" and bool(found.eigenvalues.isnan().all())
    zero = numerical_rank(torch.zeros(2, 2, dtype=torch.float64), 3)
    assert (zero.rank, zero.floor) == (0, 0)


def test_verdicts() -> None:
    net, points = mlp(3, 4, 2), drawn(50, 3)
    assert degeneracy(net, [points]).row("2")["verdict"] == "full rank"
    assert degeneracy(net, [points]).row("1")["verdict"] == "degenerate"  # two outputs
    few = degeneracy(net, [points[:3]]).row("1")
    assert few["verdict"] == "undersampled" and few["reason"].startswith("3 datapoints of 4 features")
    one = degeneracy(net, [points[:1]])
    assert one.row("1")["verdict"] == "undersampled" and one.row("1")["centred_rank"] == 0
    drawn_few = degeneracy(net, [points[:3]], probes=1, layers="output")
    assert drawn_few.row("2")["verdict"] == "full rank"
    zero = degeneracy(net, [torch.zeros(9, 3, dtype=torch.float64)])
    first = zero.tables["layers"]["layer"][0]
    assert zero.row(first)["verdict"] == "constant"
    assert zero.row(first)["reason"] == "its output is the same on all 9 datapoints"
    assert (block(zero, "0")["input_rank"], block(zero, "0")["verdict"]) == (1, "degenerate")
    with torch.no_grad():
        net[0].bias[:3] = -100.0  # type: ignore[index]
    some = degeneracy(net, [points]).row("1")
    assert some["verdict"] == "degenerate" and some["dead"] == 3 and "3 dead units" in some["reason"]


def test_a_layer_that_never_fires_is_dead_and_one_of_rank_zero_is_told() -> None:
    net = filled(nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.1), nn.Linear(4, 2)))
    with torch.no_grad():
        net[0].bias.fill_(-100.0)  # type: ignore[operator,union-attr]
    row = degeneracy(net, [drawn(50, 3)]).row("1")
    assert (row["verdict"], row["reason"], row["dead"]) == ("dead", "no unit fires on any of 50 datapoints", 4)
    with torch.no_grad():
        net[2].weight.zero_()  # type: ignore[operator,union-attr]
        net[2].weight[:, 0] = 1e-3  # type: ignore[index]
    assert degeneracy(net, [drawn(50, 3)]).row("1")["gradient_rank"] == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_a_row_with_its_reason(bad: float) -> None:
    points = drawn(20, 3)
    points[3, 1] = bad
    found = degeneracy(mlp(3, 4, 2), [points])
    row = found.row("1")
    assert row["verdict"] == "not finite" and row["reason"] == "its activations are NaN or infinite on some datapoint"
    assert repr([row[name] for name in ("activation_rank", "synchronised", "dead")]) == "[nan, nan, nan]"
    first = block(found, "0")
    assert (first["verdict"], first["reason"]) == ("not finite", "its inputs are NaN or infinite on some datapoint")
    assert found.tables["clusters"]["layer"] == ()
    gradients = ("gradient_rank", "gradient_floor", "gradient_error", "hessian_rank", "centred_rank")
    for row in (found.row(layer) for layer in found.tables["layers"]["layer"]):
        assert row["verdict"] == "not finite" and repr([row[name] for name in gradients[:3]]) == "[nan, nan, nan]"
        assert bool(found.gradient_eigenvalues[row["layer"]].isnan().all()) and math.isnan(row["centred_rank"])
    for row in (block(found, path) for path in ("0", "2")):
        assert row["verdict"] == "not finite"
        assert all(math.isnan(row[name]) for name in ("input_rank", "gradient_rank", "hessian_rank", "gradient_floor"))


def test_gradients_of_an_output_that_is_not_finite_have_no_rank_where_activations_have() -> None:
    """The slope of log is a number at −1, and that of relu is one at NaN: neither is a derivative of the output."""

    class Logarithm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.second(self.first(inputs).log())

    net = filled(Logarithm())
    with torch.no_grad():
        net.first.weight.copy_(torch.eye(2))
    points = drawn(10, 2).abs() + 1
    assert degeneracy(net, [points]).row("first")["gradient_rank"] == 2
    points[0] = -1
    found = degeneracy(net, [points])
    row = found.row("first")
    assert row["activation_rank"] == 2 and math.isnan(row["gradient_rank"]) and row["verdict"] == "not finite"
    assert row["reason"] == "the module's output is NaN or infinite on some datapoint"
    first = block(found, "first")
    assert first["input_rank"] == 2 and math.isnan(first["gradient_rank"]) and first["reason"] == row["reason"]


def test_gradients_that_are_not_finite_are_told() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.first(inputs).abs().sqrt()

    net = filled(Root())
    points = drawn(10, 2)
    points[0] = 0
    found = degeneracy(net, [points])
    assert found.row("first")["reason"] == "its gradients are NaN or infinite on some datapoint"
    assert block(found, "first")["reason"] == "the gradients at its output are NaN or infinite on some datapoint"


class Shared(nn.Module):
    """One module that runs twice, one weight in two modules, and a module that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.a, self.b, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.b.weight = self.a.weight
        self.idle = nn.Linear(5, 5)
        self.scaled = parametrizations.weight_norm(nn.Linear(3, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.twice(torch.tanh(self.twice(inputs))))
        return self.last(torch.tanh(self.scaled(torch.tanh(self.b(torch.tanh(self.a(hidden)))))))


def test_shared_submodules_and_tied_weights_are_counted_once() -> None:
    net, points = Shared(), drawn(80, 3)
    net.double()
    found = degeneracy(net, [points])
    a, b, idle = (block(found, name) for name in ("a", "b", "idle"))
    assert (a["params"], a["verdict"]) == (12, "full rank")
    assert (b["params"], b["verdict"]) == (3, "not analysed")
    assert b["reason"] == "its weight is that of 'a' and is counted there"
    assert (idle["verdict"], idle["reason"], idle["reads"]) == ("not analysed", "it did not run", "")
    scaled = block(found, "scaled")
    assert scaled["params"] == 12 and "computed from other parameters" in scaled["reason"]
    for name in ("twice", "a", "last"):
        assert rank(jacobian(net, points, f"{name}.")) <= block(found, name)["hessian_rank"]
    assert "twice" not in found.tables["layers"]["layer"] and "2 times" in found.meta["skipped"]["twice"]


def test_the_depth_is_the_number_of_matrices_before() -> None:
    found = degeneracy(mlp(3, 4, 4, 2), [drawn(50, 3)])
    layers = dict(zip(found.tables["layers"]["layer"], found.tables["layers"]["depth"], strict=True))
    assert layers == {"1": 1, "3": 2, "4": 2}
    assert found.tables["blocks"]["depth"] == (0, 1, 2)


def state(module: nn.Module) -> tuple[Any, ...]:
    """What must be as before."""
    parts = [
        (
            part.training,
            list(part._forward_hooks),
            list(part._forward_pre_hooks),
            list(part._backward_hooks),
            sorted(vars(part)),
        )
        for part in module.modules()
    ]
    tensors = [
        (id(t), t.clone(), t.requires_grad, None if t.grad is None else t.grad.clone()) for t in module.parameters()
    ]
    buffers = [(id(t), t.clone()) for t in module.buffers()]
    globals_ = torch.get_rng_state(), torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()
    return parts, tensors, buffers, globals_


@pytest.mark.parametrize("end", ["done", "cancelled", "failed"])
@pytest.mark.parametrize("probes", [None, 2])
def test_the_module_is_as_it_was(end: str, probes: int | None) -> None:
    net = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(4, 2)
    ).double()
    heard: list[int] = []
    net[0].register_forward_hook(lambda *_: heard.append(1) and None)
    net(drawn(8, 3)).sum().backward()
    net[1].eval()
    before, seeds = repr(state(net)), random.getstate()
    bad = [drawn(6, 3), torch.zeros(4, 5, dtype=torch.float64)]

    def progress(at: wb.Progress) -> None:
        if end == "cancelled" and at.done == 1:
            raise wb.Cancelled

    if end == "done":
        degeneracy(net, [drawn(6, 3), drawn(6, 3, seed=1)], probes=probes)
    elif end == "failed":
        with pytest.raises(EvaluationError, match="batch 1"):
            degeneracy(net, bad, probes=probes)
    else:
        with pytest.raises(wb.Cancelled) as stop:
            degeneracy(net, [drawn(6, 3), drawn(6, 3, seed=1)], probes=probes, progress=progress)
        partial_ = stop.value.partial
        assert partial_.row("2")["samples"] == 6 and "CANCELLED after 1 of 2 batches" in partial_.facts()
    assert repr(state(net)) == before and len(seeds) == 3 and heard


def test_a_cancel_before_the_first_batch_has_rows_that_say_so() -> None:
    told: list[Any] = []

    def progress(at: wb.Progress) -> None:
        told.append(at.partial)
        raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stop:
        degeneracy(mlp(3, 4, 2), [drawn(9, 3)], progress=progress)
    found = stop.value.partial
    assert set(found.tables["layers"]["verdict"]) == set(found.tables["blocks"]["verdict"]) == {"not finished"}
    assert found.tables["layers"]["reason"][0] == "no batch was finished" and found.meta["cancelled"]["done"] == 0


def test_progress_is_told_before_each_batch_and_at_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    data = in_batches(drawn(9, 3), 3)
    degeneracy(mlp(3, 4, 2), data, progress=lambda at: told.append((at.item, at.done, at.total)))
    assert told == [("batch 0", 0, 3), ("batch 1", 1, 3), ("batch 2", 2, 3), ("", 3, 3)]


class NoGradient(nn.Module):
    """Computes without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs))


class Detached(NoGradient):
    """Stops gradients in the middle."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).detach())


@pytest.mark.parametrize("kind", [NoGradient, Detached])
def test_layers_without_a_gradient_are_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(wb.ArgumentError, match="does not depend on 'first' by anything differentiable"):
        degeneracy(filled(kind()), [drawn(9, 3)])


def test_a_module_that_draws_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + torch.rand_like(inputs)

    with pytest.raises(wb.ArgumentError, match="not deterministic"):
        degeneracy(nn.Sequential(nn.Linear(3, 2).double(), Noisy()), [drawn(9, 3)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probes": 0}, "probes=0: expected a number of at least 1, 'exact' or None."),
        ({"probes": True}, "probes=True: expected"),
        ({"threshold": 1.0}, "threshold=1.0: expected a share of the largest eigenvalue"),
        ({"threshold": -0.1}, "threshold=-0.1: expected a share"),
        ({"dtype": "float16"}, "dtype='float16': expected"),
        ({"layers": "nothing"}, "has no submodule 'nothing'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((wb.ArgumentError, wb.LayerNotFoundError)) as error:
        degeneracy(mlp(3, 4, 2), [drawn(9, 3)], **arguments)
    assert message in str(error.value)


def test_data_that_cannot_be_walked_again_are_refused() -> None:
    with pytest.raises(wb.ArgumentError, match="data is a one-shot generator"):
        degeneracy(mlp(3, 4, 2), (drawn(9, 3) for _ in range(2)))


def test_it_is_saved_and_says_what_it_is(tmp_path: Path) -> None:
    net, points = planted_activations()
    found = degeneracy(net, [points])
    again = wb.open_result(found.save(tmp_path / "audit"))
    assert isinstance(again, Degeneracy)
    for name in Degeneracy.TABLES:
        assert repr(again.tables[name]) == repr(found.tables[name])
    assert torch.equal(again.activation_eigenvalues["2"], found.activation_eigenvalues["2"])
    assert found.facts() == (
        "Degeneracy of Sequential: 2 layers, 1 full rank, 1 degenerate; Hessian rank at most 156 of 156 parameters "
        "in 2 weight blocks; 0 synchronised pairs, 0 dead units"
    )
    assert found.meta["function"] == "wb.degeneracy" and found.meta["batches"] == 1
    assert found.meta["fingerprint"] == wb.interaction_basis(net, [points]).meta["fingerprint"]

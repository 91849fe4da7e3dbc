"""M′ against whole jacobians by torch.func.jacrev, written out here; Hutchinson's law; what is refused."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jacrev

from workbench.degeneracy.gradients import GradientGram, counted, exact_cotangents, gradient_gram, random_cotangents
from workbench.degeneracy.passes import Passes
from workbench.errors import ArgumentError, Cancelled
from workbench.runtime import EvaluationError, cut_test
from workbench.runtime.chain import Chain

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import architectures  # noqa: E402

layer_chain = partial(cut_test.layer_chain, device="cpu")
DOUBLE = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def filled(module: nn.Module, seed: int = 0) -> Any:
    """The module in float64, frozen, with weights of the seed."""
    module.double().requires_grad_(False).eval()
    for number, tensor in enumerate(module.parameters()):
        tensor.copy_(gaussian(*tensor.shape, seed=100 * seed + number) / max(1, tensor[0].numel()) ** 0.5)
    return module


def by_jacobian(
    function: Callable[[Tensor, int], Tensor],
    starts: Tensor,
    directions: Tensor | None = None,
    mask: Tensor | None = None,
    last: bool = False,
) -> Tensor:
    """1/n Σ_x Σ_{i,t,s} by the whole jacobian of each sample, of (positions, width) by (positions, width)."""
    total, count = torch.zeros(starts.shape[-1], starts.shape[-1], dtype=DOUBLE), 0
    for number, start in enumerate(starts):
        jacobian = jacrev(lambda f, n=number: function(f, n))(start)  # (T, out, S, width)
        keep = torch.ones(len(start), dtype=torch.bool) if mask is None else mask[number] != 0
        after = keep if mask is not None and len(jacobian) == len(keep) else torch.ones(len(jacobian), dtype=torch.bool)
        targets = after.nonzero().flatten()[-1:] if last else after.nonzero().flatten()
        for t in targets:
            for s in keep.nonzero().flatten():
                block = jacobian[t, :, s]
                along = block if directions is None else directions.T @ block
                total += along.T @ along
        count += int(keep.sum())
    return total / count


def gram(
    chain: Chain, source: int | str, target: int | str, directions: Tensor | None = None, **options: Any
) -> GradientGram:
    """`gradient_gram` between cuts by number or id."""
    places = {name: number for number, name in enumerate(chain.layers)}
    first, second = (chain.cuts[places.get(end, end)] for end in (source, target))  # type: ignore[call-overload]
    with chain.lent():
        return gradient_gram(chain, first, second, directions, **options)


def assert_same(found: Tensor, expected: Tensor, relative: float = 1e-12) -> None:
    assert float((found - expected).abs().max()) <= relative * float(expected.abs().max())
    assert torch.equal(found, found.T)


DIRECTIONS = [None, 5, 1, 0, "rank-deficient"]


def columns(width: int, kind: Any) -> Tensor | None:
    """Directions: none, some, none at all, or more than there are, of rank 2 with a column of zeros."""
    if kind is None:
        return None
    if kind == "rank-deficient":
        return torch.cat(
            [gaussian(width, 2, seed=4) @ gaussian(2, width + 1, seed=5), torch.zeros(width, 1).double()], 1
        )
    return gaussian(width, kind, seed=6)


# Exact


@pytest.mark.parametrize("kind", DIRECTIONS, ids=str)
def test_a_multi_layer_perceptron(kind: Any) -> None:
    module = filled(nn.Sequential(nn.Linear(7, 6), nn.GELU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)))
    x = gaussian(9, 7)
    chain = layer_chain(module, [x[:4], x[4:8], x[8:]])
    assert chain.layers == ["1", "3", "4"]
    starts = {"1": F.gelu(module[0](x)), "3": torch.tanh(module[2](F.gelu(module[0](x))))}
    for source, target, function in (
        ("1", "3", lambda f, _: torch.tanh(module[2](f))),
        ("1", "4", lambda f, _: module[4](torch.tanh(module[2](f)))),
        ("3", "4", lambda f, _: module[4](f)),
    ):
        directions = columns(5 if target == "3" else 4, kind)
        found = gram(chain, source, target, directions)
        expected = by_jacobian(function, starts[source][:, None], directions)
        assert_same(found.matrix, expected)
        assert (found.samples, found.estimator, found.error, found.matrix.dtype) == (9, "exact", 0.0, DOUBLE)
    assert_same(gram(chain, "3", "4").matrix, module[4].weight.T @ module[4].weight)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", [None, 2, "rank-deficient"], ids=str)
def test_a_convolutional_network_with_positions(kind: Any, last: bool) -> None:
    module = filled(
        nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Conv2d(3, 4, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
        )
    )
    x = gaussian(5, 2, 6, 6)
    chain = layer_chain(module, [x[:3], x[3:]])
    assert [(cut.layer, cut.axis, cut.positions) for cut in chain.cuts] == [
        ("1", 1, 25),
        ("3", 1, 4),
        ("4", -1, 1),
        ("5", -1, 1),
    ]
    starts = torch.tanh(module[0](x)).movedim(1, -1).reshape(5, 25, 3)

    def maps(f: Tensor) -> Tensor:
        return torch.tanh(module[2](f.T.reshape(1, 3, 5, 5)))

    positions = "last" if last else "all"
    directions = columns(4, kind)
    expected = by_jacobian(lambda f, _: maps(f)[0].reshape(4, 4).T, starts, directions, last=last)
    assert_same(gram(chain, "1", "3", directions, positions=positions).matrix, expected)
    logits = columns(3, kind)
    expected = by_jacobian(lambda f, _: module[5](maps(f).flatten(1)), starts, logits)
    found = gram(chain, "1", "5", logits, positions=positions)
    assert_same(found.matrix, expected)
    assert found.samples == 125


class Attending(nn.Module):
    """Embedding, attention over what is no padding with a residual way, a mean over it, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.mixed, self.head = nn.Identity(), nn.Linear(4, 3)

    def attended(self, f: Tensor, mask: Tensor) -> Tensor:
        scores = self.q(f) @ self.k(f).transpose(-1, -2) / 2
        weights = scores.masked_fill(mask[:, None] == 0, -torch.inf).softmax(-1)
        return f + torch.tanh(weights @ self.v(f))

    def pooled(self, f: Tensor, mask: Tensor) -> Tensor:
        return self.head((f * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))  # type: ignore[no-any-return]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden = self.mixed(self.attended(self.embedding(input_ids), attention_mask))
        return {"hidden": hidden, "logits": self.pooled(hidden, attention_mask)}


def sentences(side: str = "right") -> tuple[Tensor, Tensor]:
    mask = torch.ones(6, 5, dtype=torch.long)
    mask[1, 3:] = mask[2, 1:] = mask[4, 4:] = 0
    ids = torch.randint(0, 9, (6, 5), generator=torch.Generator().manual_seed(2))
    return ids, mask if side == "right" else mask.flip(1)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", [None, 2, "rank-deficient"], ids=str)
def test_attention_with_padding_that_counts_neither_as_source_nor_as_target(kind: Any, last: bool, side: str) -> None:
    module, (ids, mask) = filled(Attending()), sentences(side)
    chain = layer_chain(
        module, [{"input_ids": ids[:4], "attention_mask": mask[:4]}, {"input_ids": ids[4:], "attention_mask": mask[4:]}]
    )
    assert chain.layers == ["embedding", "mixed", "head"]
    starts = module.embedding(ids)

    def attended(f: Tensor, number: int) -> Tensor:
        return module.attended(f[None], mask[number : number + 1])[0]  # type: ignore[no-any-return]

    positions = "last" if last else "all"
    directions = columns(4, kind)
    found = gram(chain, "embedding", "mixed", directions, positions=positions)
    assert_same(found.matrix, by_jacobian(attended, starts, directions, mask, last))
    assert found.samples == int(mask.sum())
    logits = columns(3, kind)
    expected = by_jacobian(
        lambda f, n: module.pooled(attended(f, n)[None], mask[n : n + 1].double()), starts, logits, mask
    )
    assert_same(gram(chain, "embedding", "head", logits, positions=positions).matrix, expected)


def test_what_padding_holds_does_not_matter() -> None:
    module, (ids, mask) = filled(Attending()), sentences()
    other = torch.where(mask == 1, ids, (ids + 1) % 9)
    grams = [gram(layer_chain(module, [{"input_ids": i, "attention_mask": mask}]), 0, 1).matrix for i in (ids, other)]
    assert_same(grams[0], grams[1])


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [2, 7], [4, 1, 4]])
def test_the_size_of_batches_does_not_matter(sizes: list[int]) -> None:
    module, x = filled(architectures.CNN(2)), gaussian(9, 1, 8, 8)
    whole = gram(layer_chain(module, [x]), "conv2", "fc2")
    found = gram(layer_chain(module, list(x.split(sizes))), "conv2", "fc2")
    assert found.samples == whole.samples == 9 * 64
    assert_same(found.matrix, whole.matrix)


def test_an_activation_in_place_after_the_source() -> None:
    module = filled(nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)))
    x = gaussian(20, 5)
    chain = layer_chain(module, [x], ["0"])
    hidden = module[0](x)
    assert (hidden < 0).any()
    slopes = (hidden > 0).double()
    closed = (slopes.T @ slopes / 20) * (module[2].weight.T @ module[2].weight)  # Wᵀ W ∘ E[φ′φ′ᵀ]
    assert_same(gram(chain, "0", "2").matrix, closed)


def test_a_planted_rank_of_gradients() -> None:
    module = filled(
        nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4, bias=False), nn.Linear(4, 20), nn.ReLU())
    )
    chain = layer_chain(module, [gaussian(200, 12)], ["1"])
    values = torch.linalg.eigvalsh(gram(chain, "1", "4").matrix).flip(0)
    assert values[3] > 1e-3 * values[0] and values[4] < 1e-14 * values[0]


def test_coordinates_of_rotated_directions_and_a_scale() -> None:
    module = filled(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh()))
    chain = layer_chain(module, [gaussian(11, 5)])
    directions = gaussian(4, 3)
    rotation = torch.linalg.qr(gaussian(3, 3, seed=1)).Q
    plain = gram(chain, 0, 1, directions).matrix
    assert_same(gram(chain, 0, 1, directions @ rotation).matrix, plain)
    assert_same(gram(chain, 0, 1, 1e-6 * directions).matrix, 1e-12 * plain)


# Hutchinson


def drawn(probes: int, seeds: range) -> tuple[Tensor, Tensor, list[GradientGram]]:
    module, (ids, mask) = filled(Attending()), sentences()
    chain = layer_chain(
        module, [{"input_ids": ids[:4], "attention_mask": mask[:4]}, {"input_ids": ids[4:], "attention_mask": mask[4:]}]
    )
    directions = gaussian(4, 3, seed=7)
    exact = gram(chain, 0, 1, directions).matrix
    found = [gram(chain, 0, 1, directions, probes=probes, seed=seed) for seed in seeds]
    return exact, torch.stack([one.matrix for one in found]), found


def test_the_mean_of_many_draws_is_the_exact_one() -> None:
    exact, matrices, _ = drawn(40, range(25))
    standard_error = matrices.std(0) / len(matrices) ** 0.5
    assert float(((matrices.mean(0) - exact).abs() / standard_error).max()) < 4


def test_the_reported_error_is_the_spread_over_seeds() -> None:
    exact, matrices, found = drawn(16, range(40))
    spread = float((matrices - exact).square().sum((1, 2)).mean().sqrt() / exact.norm())
    reported = torch.tensor([one.error for one in found])
    assert 0.5 < float(reported.square().mean().sqrt()) / spread < 2
    assert bool(((reported > spread / 2) & (reported < 2 * spread)).double().mean() > 0.9)
    four = torch.tensor([one.error for one in drawn(64, range(6))[2]]).mean()
    assert 1.5 < float(reported.mean() / four) < 2.7, "four times the probes, half the error"


def test_the_same_seed_gives_the_same_numbers_in_any_order() -> None:
    module = filled(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)))
    chain = layer_chain(module, [gaussian(11, 5)])
    pairs = [(0, 1), (1, 2), (0, 2)]
    state = torch.get_rng_state()
    first = {pair: gram(chain, *pair, probes=3, seed=5).matrix for pair in pairs}
    torch.randn(7)
    torch.set_rng_state(state)
    second = {pair: gram(chain, *pair, probes=3, seed=5).matrix for pair in reversed(pairs)}
    assert all(torch.equal(first[pair], second[pair]) for pair in pairs)
    assert not torch.equal(first[0, 1], gram(chain, 0, 1, probes=3, seed=6).matrix)
    assert torch.equal(torch.get_rng_state(), state)


def test_estimators_and_errors_are_told() -> None:
    chain = layer_chain(filled(architectures.mlp(6)), [gaussian(8, 64)])
    one, two = gram(chain, 0, 1, probes=1), gram(chain, 0, 1, probes=2)
    assert one.estimator == two.estimator == "Hutchinson"
    assert one.error != one.error and two.error > 0, "a single draw has no spread"
    none = gram(chain, 0, 1, torch.zeros(6, 2, dtype=DOUBLE), probes=2)
    assert none.error == 0 and not none.matrix.any()


def test_without_a_direction_there_is_no_gradient() -> None:
    chain = layer_chain(filled(architectures.mlp(6)), [gaussian(8, 64)])
    for probes in (None, 2):
        for directions in (torch.zeros(6, 0, dtype=DOUBLE), torch.zeros(6, 3, dtype=DOUBLE)):
            found = gram(chain, 0, 1, directions, probes=probes)
            assert found.samples == 8 and torch.equal(found.matrix, torch.zeros(6, 6, dtype=DOUBLE))


# Positions


def test_the_last_position_that_is_no_padding() -> None:
    features, keep = torch.zeros(4, 3, 2), torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]]) != 0
    assert counted(features, keep, "all").tolist() == keep.float().tolist()
    assert counted(features, keep, "last").tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert counted(features, None, "last").tolist() == [[0, 0, 1]] * 4
    assert counted(torch.zeros(4, 2), keep, "last").tolist() == [[1]] * 4
    assert counted(torch.zeros(2, 600, 1, dtype=torch.bfloat16), None, "last").argmax(1).tolist() == [599, 599]


def test_cotangents() -> None:
    features, keep = gaussian(3, 4, 2), torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]) != 0
    found = list(exact_cotangents(features, None, keep, "all"))
    assert len(found) == 3 * 2, "the fourth position is padding everywhere"
    assert torch.equal(sum(found), keep[..., None] * torch.ones(3, 4, 2))
    ends = list(exact_cotangents(features, None, keep, "last"))
    assert len(ends) == 2, "one for each direction, as each sample has one last position"
    assert ends[0].nonzero().tolist() == [[0, 1, 0], [1, 0, 0], [2, 2, 0]]
    (random,) = random_cotangents(features, None, keep, "all", 1, torch.Generator().manual_seed(0))
    assert torch.equal(random.abs(), keep[..., None] * torch.ones(3, 4, 2).double())
    image = list(exact_cotangents(gaussian(2, 2, 3, 4), gaussian(4, 5), None, "all"))
    assert len(image) == 6 * 5 and image[7].shape == (2, 2, 3, 4)
    torch.testing.assert_close(image[7][1, 0, 1], gaussian(4, 5)[:, 2])


# What is refused, and what is left


def test_what_has_no_gradient() -> None:
    class Rounded(nn.Module):
        def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.a, self.b, self.how = nn.Linear(3, 3), nn.Linear(3, 2), how

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.how(self.a(x)))  # type: ignore[no-any-return]

    for how in (Tensor.detach, lambda y: (y > 0).double()):
        chain = layer_chain(Rounded(how), [gaussian(6, 3)])
        assert chain.layers == ["a", "b"]
        with pytest.raises(ArgumentError, match="'b' does not depend on 'a' by anything differentiable"):
            gram(chain, "a", "b")


def test_arguments() -> None:
    chain = layer_chain(filled(architectures.mlp(6)), [gaussian(8, 64)])
    for probes in (0, -1):
        with pytest.raises(ArgumentError, match=f"probes={probes}: expected at least 1 draw, or None"):
            gram(chain, 0, 1, probes=probes)


def test_positions_that_are_unknown(raised: Callable[..., dict[str, list[str]]]) -> None:
    function = "__import__('importlib').import_module('workbench.degeneracy.gradients').gradient_gram"
    code = f"{function}(*[None] * 4, positions='first')"
    assert raised([code])[code] == ["ArgumentError", "positions='first': expected one of ['all', 'last']."]


@pytest.mark.parametrize("error", [Cancelled(), ValueError("no")], ids=lambda error: type(error).__name__)
def test_a_cancel_in_the_middle_leaves_everything_as_before(error: BaseException) -> None:
    module = architectures.CNN(2)
    module(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))).sum().backward()
    gradients = {
        name: (id(p), id(p.grad), p.grad.clone(), p.dtype)
        for name, p in module.named_parameters()
        if p.grad is not None
    }
    chain = layer_chain(module, list(gaussian(6, 1, 8, 8).split(2)))
    told = []

    def tell(item: str) -> None:
        if "pass" not in item:
            told.append(item)
        if item == "conv1, batch 2 of 3":
            raise error

    state = torch.get_rng_state()
    with pytest.raises(type(error)) as caught:
        gram(chain, 0, 1, told=Passes(tell, "conv1", chain.batch_count))
    assert caught.value is error and told == ["conv1, batch 1 of 3", "conv1, batch 2 of 3"]
    assert module.training and not any(part._forward_hooks for part in module.modules())
    assert torch.is_grad_enabled() and torch.equal(torch.get_rng_state(), state)
    for name, p in module.named_parameters():
        assert p.grad is not None and p.requires_grad
        assert (id(p), id(p.grad), p.dtype) == (*gradients[name][:2], gradients[name][3])
        assert torch.equal(p.grad, gradients[name][2])


def test_a_batch_that_fails_is_named() -> None:
    chain = layer_chain(filled(architectures.mlp(6)), [gaussian(8, 64), gaussian(3, 60)])
    with pytest.raises(EvaluationError, match=r"batch 1, counted from 0 \(\[3, 60\]\): RuntimeError"):
        gram(chain, 0, 1)


def test_a_module_in_its_own_precision() -> None:
    module = architectures.mlp(6)
    x = gaussian(8, 64).float()
    exact = gram(layer_chain(module, [x]), 0, 2).matrix
    own = gram(layer_chain(module, [x], dtype=None), 0, 2).matrix
    assert own.dtype == DOUBLE
    assert_same(own, exact, 1e-5)

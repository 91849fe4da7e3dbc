"""Matching by what units do: against correlation matrices written out in numpy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import workbench as wb
from workbench.connectivity import Matching, match, permutation_groups
from workbench.progress import Progress
from workbench.runtime import Evaluator

METHODS = ["activations", "correlation"]


def drawn(module: nn.Module, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=draw).to(tensor.dtype)
        if "running_var" not in name
        else torch.rand(tensor.shape, generator=draw) + 0.5
        for name, tensor in module.state_dict().items()
    }


def evaluated(module: nn.Module, *inputs: Any) -> Evaluator:
    """An evaluator whose loss nobody looks at."""
    data = [batch if isinstance(batch, dict) else (batch, torch.zeros(len(batch))) for batch in inputs]
    return wb.evaluator(module, data, lambda outputs, targets: outputs.square().mean(), device="cpu")


def best(a: np.ndarray, b: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Gains between the columns of two activation matrices by definition, and the best order."""
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = a.T @ b if method == "activations" else np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :]
    gain = np.nan_to_num(gain)
    return linear_sum_assignment(gain, maximize=True)[1], gain


def array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().double())


@pytest.mark.parametrize("method", METHODS)
def test_an_mlp_is_matched_by_the_outputs_of_its_layers(method: str) -> None:
    module = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 2))
    groups = permutation_groups(module, torch.zeros(1, 4))
    a, b = drawn(module, 0), drawn(module, 1)
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(2))
    x[:9] += 3 * torch.randn(4, generator=torch.Generator().manual_seed(3))  # the first batch's means are not all's
    found = match(groups, a, b, method=method, evaluator=evaluated(module, x[:9], x[9:]), gammas=())

    def outputs(weights: Mapping[str, Tensor]) -> list[np.ndarray]:
        first = F.linear(x, weights["0.weight"], weights["0.bias"])
        return [array(first), array(F.linear(first.relu(), weights["2.weight"], weights["2.bias"]))]

    for group, mine, yours in zip(["0", "2"], outputs(a), outputs(b), strict=True):
        order, _ = best(mine, yours, method)
        assert found.permutations[group].tolist() == order.tolist()
    assert found.meta["notes"] == []
    assert found.meta["checks"][0]["unchanged"]
    moved = found.apply(b)
    after = sum(float((a[name].double() * moved[name].double()).sum()) for name in a)
    before = sum(float((a[name].double() * b[name].double()).sum()) for name in a)
    assert found.objective == pytest.approx(after, rel=1e-12)
    assert found.frame("sweeps").objective.tolist() == pytest.approx([before, after], rel=1e-12)


class Convolutions(nn.Module):
    """A residual sum shares its channels between two convolutions; batch norm in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 5, 3, padding=1)
        self.b = nn.Conv2d(5, 5, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.fc((x + self.bn(self.b(x))).mean((2, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_positions_of_images_are_samples_and_layers_of_one_group_add_up(method: str) -> None:
    module = Convolutions().eval()
    groups = permutation_groups(module, torch.zeros(1, 2, 4, 4))
    a, b = drawn(module, 0), drawn(module, 1)
    x = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    gain = np.zeros((5, 5))
    seen: list[list[np.ndarray]] = []
    for weights in (a, b):
        first = F.conv2d(x, weights["a.weight"], weights["a.bias"], padding=1)
        second = F.conv2d(first.relu(), weights["b.weight"], padding=1)
        parts = [weights[f"bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        third = F.batch_norm(second, *parts)
        seen.append([array(out.permute(0, 2, 3, 1).reshape(-1, 5)) for out in (first, second, third)])
    for mine, yours in zip(*seen, strict=True):
        gain += best(mine, yours, method)[1]
    found = match(groups, a, b, method=method, evaluator=evaluated(module, x), gammas=())
    (order,) = found.permutations.values()
    assert order.tolist() == linear_sum_assignment(gain, maximize=True)[1].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_any_size_are_one(method: str) -> None:
    module = Convolutions().eval()
    groups = permutation_groups(module, torch.zeros(1, 2, 4, 4))
    a, b = drawn(module, 0), drawn(module, 1)
    x = torch.randn(13, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    whole, parts = (
        match(groups, a, b, method=method, evaluator=evaluated(module, *batches), gammas=())
        for batches in ([x], x.split([1, 8, 4]))
    )
    assert all(torch.equal(order, parts.permutations[group]) for group, order in whole.permutations.items())


class Mixer(nn.Module):
    """A layer along the tokens: its samples lie along the channels, whose order differs between the networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tokens, self.back = nn.Linear(3, 6), nn.Linear(4, 5), nn.Linear(5, 4)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(self.tokens(x.mT).relu()).mT
        return self.head(x.mean(1))


class NormedHeads(nn.Module):
    """Attention whose queries and keys have one norm for all heads: its samples lie along the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in "qkvo")
        self.q_norm, self.k_norm = nn.RMSNorm(3), nn.RMSNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 3)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.o(x.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("module", [Mixer(), NormedHeads()], ids=["mixer", "heads"])
@pytest.mark.parametrize("seed", range(3))
def test_samples_that_lie_along_other_units_are_put_in_order_first(module: nn.Module, seed: int) -> None:
    """A copy of a network correlates with it by 1, unit by unit, once its other units are where they were."""
    x = torch.randn(16, 4, 6 if isinstance(module, NormedHeads) else 3, generator=torch.Generator().manual_seed(2))
    groups = permutation_groups(module, x)
    a = drawn(module, seed)
    b = groups.apply(a, groups.random(seed + 3))
    found = match(groups, a, b, method="correlation", evaluator=evaluated(module, x), gammas=())
    assert found.reduction() == 1.0
    sweeps = found.tables["sweeps"]["sweep"]
    assert list(sweeps) == list(range(-1, len(sweeps) - 1)) and len(sweeps) > 2


@pytest.mark.parametrize("method", METHODS)
def test_a_permuted_network_is_put_back(method: str) -> None:
    module = Convolutions().eval()
    groups = permutation_groups(module, torch.zeros(1, 2, 4, 4))
    a = drawn(module, 0)
    b = groups.apply(a, groups.random(3))
    x = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    found = match(groups, a, b, method=method, evaluator=evaluated(module, x))
    if method == "correlation":  # a unit may have a larger inner product with another than with itself
        assert found.reduction() == 1.0
        assert found.alignment(0.3) == pytest.approx(1, abs=1e-6)
    assert found.verified


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_constant_units_correlate_with_nothing_and_large_means_lose_nothing(offset: float) -> None:
    """A unit without weights is constant; the others vary by 1e-3 about their means."""
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    groups = permutation_groups(module, torch.zeros(1, 3, dtype=torch.float64))
    a, b = ({name: tensor.double() for name, tensor in drawn(module, seed).items()} for seed in (0, 1))
    for weights in (a, b):
        weights["0.weight"] *= 1e-3
        weights["0.bias"] += offset
    a["0.weight"][[1, 4]] = 0
    b["0.weight"][2] = 0
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = match(groups, a, b, method="correlation", evaluator=evaluated(module, x[:7], x[7:]), gammas=())
    mine, yours = ((x @ weights["0.weight"].T).numpy() for weights in (a, b))
    alive = [np.ptp(values, axis=0) > 0 for values in (mine, yours)]
    gain = np.zeros((6, 6))
    for i in np.flatnonzero(alive[0]):
        for j in np.flatnonzero(alive[1]):
            gain[i, j] = np.corrcoef(mine[:, i], yours[:, j])[0, 1]
    order = found.permutations["0"].numpy()
    assert gain[np.arange(6), order].sum() == pytest.approx(gain[linear_sum_assignment(gain, True)].sum(), rel=1e-6)


def test_units_that_are_all_constant_stay() -> None:
    """Their variance is rounding: 0.1 ten times is not 1 in float64."""
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    groups = permutation_groups(module, torch.zeros(1, 3, dtype=torch.float64))
    a = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    a["0.bias"] = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.9, 1.1], dtype=torch.float64)
    b = {**a, "0.bias": torch.tensor([0.7, 0.1, 1.3, 0.9, 0.3, 0.6], dtype=torch.float64)}
    batches = torch.randn(31, 3, dtype=torch.float64).split([10, 7, 14])
    found = match(groups, a, b, method="correlation", evaluator=evaluated(module, *batches), gammas=())
    assert found.permutations.is_identity


class Heads(nn.Module):
    """Attention by one's own projections, or by nn.MultiheadAttention's packed one."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(5, 8), nn.Linear(8, 2)
        self.packed = packed
        if packed:
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        else:
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        if self.packed:
            return self.out(x + self.attention(x, x, x, need_weights=False)[0])
        q, k, v = (part(x).unflatten(-1, (2, 4)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.out(x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


def test_packed_projections_are_matched_by_weights_and_told() -> None:
    module = Heads(packed=True).eval()
    groups = permutation_groups(module, torch.zeros(1, 3, 5))
    a = drawn(module, 0)
    b = groups.apply(a, groups.random(4))
    x = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(2))
    found = match(groups, a, b, method="correlation", evaluator=evaluated(module, x), gammas=())
    assert found.reduction() == 1.0
    assert found.meta["notes"][-1] == "matched by weights, because no submodule gives their units: attention:heads"


def test_heads_are_matched_by_the_correlations_of_their_units() -> None:
    """The best of all orders of two heads and the units of each, by brute correlations."""
    module = Heads(packed=False).eval()
    groups = permutation_groups(module, torch.zeros(1, 3, 5))
    a, b = drawn(module, 0), drawn(module, 1)
    x = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(2))
    found = match(groups, a, b, method="correlation", evaluator=evaluated(module, x), gammas=())
    seen: list[dict[str, np.ndarray]] = []
    for weights in (a, b):
        stream = F.linear(x, weights["embed.weight"], weights["embed.bias"])
        parts = {name: F.linear(stream, weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in "qkv"}
        seen.append({name: array(part.flatten(0, 1)) for name, part in parts.items()})
    gain = {name: np.corrcoef(seen[0][name].T, seen[1][name].T)[:8, 8:].reshape(2, 4, 2, 4) for name in "qkv"}
    inner = {"qk": gain["q"] + gain["k"], "v": gain["v"]}
    worth = np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            for part in inner.values():
                worth[i, j] += part[i][:, j][linear_sum_assignment(part[i][:, j], True)].sum()
    order = linear_sum_assignment(worth, True)[1]
    names = {group: found.permutations[group].numpy() for group in found.permutations}
    (heads,) = (order_ for order_ in names.values() if order_.shape == (2,))
    assert heads.tolist() == order.tolist()
    rows = [linear_sum_assignment(inner[kind][i][:, order[i]], True)[1].tolist() for kind in inner for i in range(2)]
    units = [order_.tolist() for order_ in names.values() if order_.shape == (2, 4)]
    assert sorted(row for table in units for row in table) == sorted(rows)
    assert found.meta["notes"] == []


class Tokens(nn.Module):
    """As Hugging Face's models: named arguments, padding in a mask."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(9, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.batch_first = batch_first

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.down(F.relu(self.up(x)))
        return (x if self.batch_first else x.transpose(0, 1)) * attention_mask[..., None]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_padding_is_no_sample(method: str, batch_first: bool) -> None:
    """What units do on padding is nobody's business: other tokens there change nothing."""
    module = Tokens(batch_first).eval()
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 9, (5, 4), generator=draw)
    mask = (torch.arange(4) < torch.tensor([4, 2, 1, 3, 2])[:, None]).long()
    groups = permutation_groups(module, {"input_ids": ids, "attention_mask": mask})
    a, b = drawn(module, 0), drawn(module, 1)
    found = []
    for fill in (0, 5):
        batch = {"input_ids": torch.where(mask.bool(), ids, fill), "attention_mask": mask, "labels": torch.zeros(5)}
        found.append(match(groups, a, b, method=method, evaluator=evaluated(module, batch), gammas=()))
    x = [array(weights["embed.weight"][ids[mask.bool()]]) for weights in (a, b)]
    up = [x[i] @ array(w["up.weight"]).T + array(w["up.bias"]) for i, w in enumerate((a, b))]
    for result in found:
        assert result.permutations["embed"].tolist() == best(*x, method)[0].tolist()
        assert result.permutations["up"].tolist() == best(*up, method)[0].tolist()


def test_a_mask_that_is_none_is_refused() -> None:
    module = Tokens().eval()
    batch = {"input_ids": torch.zeros(2, 4, dtype=torch.long), "attention_mask": torch.full((2, 4), 0.5)}
    groups = permutation_groups(module, batch)
    evaluator = evaluated(module, {**batch, "labels": torch.zeros(2)})
    with pytest.raises(wb.WorkbenchError, match=r"attention_mask is \[2, 4\], torch.float32: expected"):
        match(groups, module, module, method="correlation", evaluator=evaluator)


def test_a_batch_that_fails_is_named() -> None:
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    groups = permutation_groups(module, torch.zeros(1, 3))
    evaluator = evaluated(module, torch.zeros(2, 3), torch.zeros(2, 5))
    with pytest.raises(wb.WorkbenchError, match=r"batch 1, counted from 0 \(\[2, 5\]"):
        match(groups, module, module, method="activations", evaluator=evaluator)


def test_a_cancel_gives_what_there_is_and_leaves_the_module_as_it_was() -> None:
    module = Convolutions().train()
    hooks = module.a.register_forward_hook(lambda *_: None)
    groups = permutation_groups(module, torch.zeros(1, 2, 4, 4))
    a, b = drawn(module, 0), drawn(module, 1)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    identities = {name: id(tensor) for name, tensor in module.named_parameters()}
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 2:
            raise wb.Cancelled

    batches = [torch.randn(2, 2, 4, 4) for _ in range(3)]
    with pytest.raises(wb.Cancelled) as caught:
        match(groups, a, b, method="correlation", evaluator=evaluated(module, *batches), progress=stop)
    partial = caught.value.partial
    assert isinstance(partial, Matching)
    assert partial.permutations.is_identity
    assert [(report.done, report.total, report.item) for report in told] == [(0, 3, "batch 0"), (1, 3, "batch 1")]
    assert module.training and all(part.training for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert identities == {name: id(tensor) for name, tensor in module.named_parameters()}
    assert list(module.a._forward_hooks) == [hooks.id]
    assert not module.bn._forward_hooks

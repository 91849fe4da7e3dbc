"""Ablation: exact where nothing is ablated, else against variances by hand and a loop over single edges."""

import copy
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.degeneracy.ablated import Ablated, ablated, ablating
from workbench.degeneracy.ablation import Ablation, ablation
from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.interaction_basis import interaction_basis
from workbench.degeneracy.interaction_graph import InteractionGraph, interaction_graph
from workbench.degeneracy.masks import edge_mask, edge_order, groups
from workbench.degeneracy.schedules import exponential, linear, schedule_of
from workbench.progress import Progress


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def filled(net: nn.Module, seed: int = 0) -> Any:
    """The net in float64 with weights of unit gain."""
    generator = torch.Generator().manual_seed(seed)
    net.double()
    for tensor in net.parameters():
        fan = tensor[0].numel() if tensor.ndim > 1 else 4
        tensor.data = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / fan**0.5
    return net


class Convolutions(nn.Module):
    """Channels first, and a view that wants them contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 3, 3, padding=1)
        self.fc = nn.Linear(3 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.fc(maps.view(len(maps), -1))


class Sequences(nn.Module):
    """Attention with a mask; padding reaches nothing that is kept."""

    def __init__(self, width: int = 5, hidden: int = 7) -> None:
        super().__init__()
        self.embedding = nn.Linear(3, width)
        self.mixed = nn.Identity()
        self.up = nn.Linear(width, hidden)
        self.head = nn.Linear(hidden, 4)

    def forward(self, inputs: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.embedding(inputs)
        scores = tokens @ tokens.transpose(1, 2)
        scores = scores.masked_fill(attention_mask[:, None] == 0, -math.inf)
        tokens = self.mixed(tokens + scores.softmax(-1) @ tokens)
        hidden = torch.relu(self.up(tokens)) * attention_mask[..., None]
        return self.head(hidden.sum(1) / attention_mask.sum(1, keepdim=True))


class Case:
    """A net, an evaluator of it in two batches, its basis and graph."""

    def __init__(self, net: nn.Module, data: list[Any], layers: list[str], **options: Any) -> None:
        self.net, self.data, self.layers = net, data, layers
        self.evaluator = wb.evaluator(net, data, "cross_entropy", device="cpu")
        self.basis = interaction_basis(net, data, layers, device="cpu", **options)
        self.graph = interaction_graph(net, data, self.basis, quadrature="gradient", points=1)


def dense() -> Case:
    net = filled(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 4)))
    x = normal(40, 6)
    net[4].weight.data *= 4
    y = net(x).argmax(1)
    return Case(net, [(x[:25], y[:25]), (x[25:], y[25:])], ["1", "3"])


def convolutions() -> Case:
    x, y = normal(10, 1, 4, 4), torch.arange(10) % 4
    return Case(filled(Convolutions()), [(x[:6], y[:6]), (x[6:], y[6:])], ["conv1", "conv2"])


def sequences() -> Case:
    mask = (torch.arange(6)[None] < torch.tensor([[6], [3], [5], [1], [4], [6], [2], [5]])).long()
    x, y = normal(8, 6, 3), torch.arange(8) % 4
    parts = [slice(0, 5), slice(5, 8)]
    data = [{"inputs": x[part], "attention_mask": mask[part], "labels": y[part]} for part in parts]
    return Case(filled(Sequences()), data, ["mixed", "up"])


CASES: dict[str, Callable[[], Case]] = {"dense": dense, "convolution": convolutions, "sequence": sequences}


@pytest.fixture(scope="module")
def case() -> Case:
    return dense()


@pytest.fixture(scope="module", params=CASES)
def each(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def state(module: nn.Module) -> dict[str, Any]:
    """All that a run could change."""
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks), part.training) for part in module.modules()]
    attributes = [sorted(vars(part)) for part in module.modules()]
    tensors = {name: (id(tensor), tensor.sum().item()) for name, tensor in module.state_dict(keep_vars=True).items()}
    gradients = [(p.requires_grad, p.grad) for p in module.parameters()]
    return {"hooks": hooks, "attributes": attributes, "tensors": tensors, "gradients": gradients}


# nothing ablated


def test_everything_kept_is_the_evaluator_to_the_bit(each: Case) -> None:
    layer = each.layers[0]
    for graph in (None, each.graph):
        total = ablating(each.evaluator, each.basis, layer, graph, None).total
        assert ablated(each.evaluator, each.basis, layer, total, graph=graph) == each.evaluator()
        found = ablation(each.evaluator, each.basis, layer, graph=graph, counts=[total])
        assert found.tables["points"]["loss"] == (each.evaluator()["loss"],)
        assert found.unablated == each.evaluator()


def test_everything_kept_is_exact_where_the_basis_has_dropped_directions() -> None:
    net = filled(nn.Sequential(nn.Linear(2, 9), nn.Identity(), nn.Linear(9, 4)))  # 9 features of rank 2
    x, y = normal(30, 2), torch.arange(30) % 4
    error = wb.evaluator(net, [(x, y)], "cross_entropy", device="cpu")
    basis = interaction_basis(net, [x], "1", device="cpu")
    other = wb.evaluator(net, [(net[0](normal(30, 2, seed=1)).detach()[:, :2] + 5, y)], "cross_entropy", device="cpu")
    assert basis.nodes("1") == 3
    assert ablated(error, basis, "1", 3) == error() and ablated(other, basis, "1", 3) == other()


def test_all_but_the_last_direction_is_nearly_the_network_on_the_data_of_the_basis(each: Case) -> None:
    """The constant's node alone is the mean, and each further one brings the variance it has."""
    layer = each.layers[0]
    what = ablating(each.evaluator, each.basis, layer, None, None)
    at = [what.measured(kept)["loss"] for kept in range(what.total + 1)]
    assert all(map(math.isfinite, at)) and at[0] != at[1] != at[2]


# nodes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nodes_of_a_linear_net_by_hand(dtype: torch.dtype) -> None:
    """The loss is the variance of what is dropped, as the next layer sees it: Σ of Λ in float64, by PCA of the output.

    L = E‖f·Wᵀ − projection‖² = Σ_{dropped} λ of W·G·Wᵀ, divided by the number of outputs.
    """
    net = filled(nn.Sequential(nn.Identity(), nn.Linear(5, 3, bias=False))).to(dtype)
    x = normal(200, 5, dtype=dtype) @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1], dtype=dtype)) + 1
    target = net(x).detach()
    error = wb.evaluator(net, [(x, target)], "mse", device="cpu")
    basis = interaction_basis(net, [x], "0", device="cpu")
    weight, centred = net[1].weight.double().detach(), x.double() - x.double().mean(0)
    spectrum = torch.linalg.eigvalsh(weight @ (centred.T @ centred / 200) @ weight.T).flip(0)
    assert basis.nodes("0") == 4  # three outputs: rank of the next layer
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for kept in (1, 2, 3):
        expected = spectrum[kept - 1 :].sum().item() / 3
        assert ablated(error, basis, "0", kept)["loss"] == pytest.approx(expected, rel=tolerance, abs=1e-12)
    zero = net(torch.zeros_like(x)).detach()
    assert ablated(error, basis, "0", 0)["loss"] == pytest.approx((zero - target).square().mean().item(), rel=1e-6)
    assert error()["loss"] == 0.0


def test_nodes_are_what_a_pass_by_hand_gives(case: Case) -> None:
    basis, (x, y) = case.basis, (torch.cat([b[i] for b in case.data]) for i in (0, 1))
    hidden = case.net[:2](x).detach()
    for kept in range(1, basis.nodes("1")):
        columns = slice(0, kept - 1)
        coordinates = (hidden - basis.means["1"]) @ basis.bases["1"][:, columns]
        outputs = case.net[2:](basis.means["1"] + coordinates @ basis.inverses["1"][columns])
        found = ablated(case.evaluator, basis, "1", kept)
        assert found["loss"] == pytest.approx(nn.functional.cross_entropy(outputs, y).item(), rel=1e-12)
        assert found["accuracy"] == pytest.approx((outputs.argmax(1) == y).double().mean().item(), abs=1e-12)


def test_padding_stays_as_it_is() -> None:
    """Positions that are padding are neither projected nor set to zero."""
    case = sequences()
    seen: list[Tensor] = []
    handle = case.net.up.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    case.evaluator()
    plain = list(seen)
    for kept in (0, 1):
        seen.clear()
        ablated(case.evaluator, case.basis, "mixed", kept)
        for before, after, batch in zip(plain, seen, case.data, strict=True):
            padding = batch["attention_mask"] == 0
            assert torch.equal(before[padding], after[padding]) and padding.any()
            expected = case.basis.means["mixed"] if kept else torch.zeros(5, dtype=torch.float64)
            assert torch.allclose(after[~padding], expected.expand(int((~padding).sum()), 5), atol=1e-14)
    handle.remove()


# edges


def by_single_edges(case: Case, layer: str, kept: int) -> float:
    """The loss by a pass for each target node, with the edges picked one at a time."""
    chain = case.basis.chain(case.net, case.data)
    place = chain.layers.index(layer)
    source, target = chain.cuts[place : place + 2]
    edges = case.graph.edges[layer]
    inner = [(-float(edges[i, j]), i, j) for i in range(1, edges.shape[0]) for j in range(1, edges.shape[1])]
    chosen = {(i, j) for _, i, j in sorted(inner)[:kept]}
    mean, basis, inverse = (part[layer] for part in (case.basis.means, case.basis.bases, case.basis.inverses))
    to = target.layer
    loss, samples = 0.0, 0
    with chain.lent():
        for batch in chain.batches():
            output, after = chain.outputs(batch, [source, target])
            coordinates = (source.rows(output, batch.keep) - mean) @ basis
            rows = case.basis.means[to].repeat(len(target.rows(after, batch.keep)), 1)
            for i in range(1, edges.shape[0]):
                given = mean.repeat(len(coordinates), 1)
                for j in range(1, edges.shape[1]):
                    if (i, j) in chosen:
                        given = given + coordinates[:, j - 1 : j] * inverse[j - 1]
                start = source.unfolded(given, output, batch.keep).contiguous()
                (seen,) = chain.outputs(batch, [target], {layer: lambda _, start=start: start})
                coordinate = (target.rows(seen, batch.keep) - case.basis.means[to]) @ case.basis.bases[to][:, i - 1]
                rows += coordinate[:, None] * case.basis.inverses[to][i - 1]
            end = target.unfolded(rows, after, batch.keep).contiguous()
            (outputs,) = chain.outputs(batch, [chain.cuts[-1]], {to: lambda _, end=end: end})
            shown: Any = batch.shown
            labels = shown["labels"] if isinstance(shown, dict) else shown[1]
            loss += batch.size * nn.functional.cross_entropy(outputs, labels).item()
            samples += batch.size
    return loss / samples


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("batched", [True, False])
def test_edges_are_what_single_edges_give(each: Case, place: int, batched: bool) -> None:
    layer = each.layers[place]
    what = ablating(each.evaluator, each.basis, layer, each.graph, None)
    what.batched = batched  # type: ignore[attr-defined]
    for kept in (0, 1, 5, what.total // 2, what.total - 1):
        assert what.measured(kept)["loss"] == pytest.approx(by_single_edges(each, layer, kept), rel=1e-10)
    assert what.batched is batched  # type: ignore[attr-defined]


def test_a_segment_that_cannot_be_batched_runs_once_for_each_group() -> None:
    """A module that decides by values is refused by vmap; the numbers are those of the loop."""

    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) if float(x.sum()) > -1e9 else x

    case = dense()
    case.net[3] = Deciding()
    what = ablating(case.evaluator, case.basis, "1", case.graph, None)
    assert what.measured(9)["loss"] == pytest.approx(by_single_edges(case, "1", 9), rel=1e-10)
    assert what.batched is False  # type: ignore[attr-defined]


def test_groups_that_do_not_fit_at_a_time_are_run_in_parts(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ablated(case.evaluator, case.basis, "1", 9, graph=case.graph)
    held = sys.modules[
        "workbench.degeneracy.ablated"
    ]  # wb.degeneracy is the audit, so no path of attributes leads there
    monkeypatch.setattr(held, "AT_A_TIME", 2 * 25 * 8)  # two groups of the first batch
    parts = ablated(case.evaluator, case.basis, "1", 9, graph=case.graph)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-12)


def test_edges_of_equal_size_are_kept_in_order_and_exactly_as_many_as_asked() -> None:
    edges = torch.tensor([[5.0, 5, 5, 5], [5, 1, 2, 2], [5, 2, 2, -3]])
    order = edge_order(edges)
    assert order.tolist() == [5, 1, 2, 3, 4, 0]
    for kept in range(7):
        mask = edge_mask(order, 3, 4, kept)
        assert mask[:, 1:].sum() == kept and mask[:, 0].all() and not mask[0, 1:].any()
    seen = [
        (group.targets.tolist(), group.sources.nonzero()[:, 0].tolist()) for group in groups(edge_mask(order, 3, 4, 0))
    ]
    assert seen == [([0, 1], [])]
    seen = [
        (group.targets.tolist(), group.sources.nonzero()[:, 0].tolist()) for group in groups(edge_mask(order, 3, 4, 3))
    ]
    assert seen == [([0], [1, 2]), ([1], [2])]


def test_arguments_that_a_module_works_on_in_place_are_new_in_each_pass() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = filled(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.add_(1.0))

    twin, net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double(), Shifted()
    twin.load_state_dict(net.inner.state_dict())
    x, y = normal(30, 6), torch.arange(30) % 4
    basis = interaction_basis(net.inner, [x + 1], ["1"], device="cpu")
    graph = interaction_graph(net.inner, [x + 1], basis)
    cuts = {layer: cut | {"path": f"inner.{cut['path']}"} for layer, cut in basis.meta["cuts"].items()}
    inner = InteractionBasis(
        tables=basis.tables,
        meta=dict(basis.meta) | {"cuts": cuts},
        means=basis.means,
        bases=basis.bases,
        inverses=basis.inverses,
    )
    error = wb.evaluator(net, [(x, y)], "cross_entropy", device="cpu")
    other = wb.evaluator(twin, [(x + 1, y)], "cross_entropy", device="cpu")
    assert ablated(error, inner, "1", 7, graph=graph) == ablated(other, basis, "1", 7, graph=graph)


# schedules


def test_schedules() -> None:
    assert linear(4, 25) == (0, 1, 2, 3, 4) and linear(0, 25) == (0,)
    assert exponential(12, 0, 2.0) == (0, 1, 3, 7, 12) and exponential(3, 10, 1.05) == (0, 1, 2, 3)
    found = exponential(9234, 10, 1.05)
    assert found[:12] == tuple(range(12)) and found[-1] == 9234 and len(found) < 150
    steps = [b - a for a, b in zip(found, found[1:], strict=False)]
    assert steps[:-1] == sorted(steps[:-1]) or max(a - b for a, b in zip(steps, steps[1:-1], strict=False)) <= 1


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100])
def test_bisection_finds_every_threshold(total: int) -> None:
    plan = schedule_of("bisect", None, total, points=None, every=10, base=1.05)
    for threshold in range(total + 1):
        walked = list(plan.walk(lambda kept, threshold=threshold: kept >= threshold))
        passed = [kept for kept in [*walked, total] if kept >= threshold]
        assert min(passed) == threshold and len(walked) == len(set(walked)) <= plan.length


# the result


def measured_at(found: Ablation, what: Ablated) -> None:
    for kept, loss in zip(found.tables["points"]["kept"], found.tables["points"]["loss"], strict=True):
        assert what.measured(kept)["loss"] == loss


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_the_bisected_mask_passes_and_one_fewer_fails(case: Case, edges: bool, metric: str) -> None:
    graph = case.graph if edges else None
    found = ablation(
        case.evaluator, case.basis, "1", graph=graph, schedule="bisect", metric=metric, tolerance=0.03, every=3
    )
    what = ablating(case.evaluator, case.basis, "1", graph, None)
    measured_at(found, what)
    unablated, sign = case.evaluator()[metric], 1 if metric == "loss" else -1
    assert 0 < found.needed < found.total
    assert sign * (what.measured(found.needed)[metric] - unablated) <= 0.03
    assert sign * (what.measured(found.needed - 1)[metric] - unablated) > 0.03
    counted = found.mask[:, 1:] if edges else found.mask
    assert int(counted.sum()) == found.needed and torch.equal(found.mask, what.mask(found.needed))
    if edges:  # the mask itself, given to the segment by hand
        assert by_single_edges(case, "1", found.needed) == pytest.approx(what.measured(found.needed)["loss"], rel=1e-10)


def test_every_number_gives_needed_as_the_smallest_from_which_on_all_pass(case: Case) -> None:
    nodes = case.basis.nodes("1")
    found = ablation(case.evaluator, case.basis, "1", metric="loss", tolerance=0.01)
    losses = [ablated(case.evaluator, case.basis, "1", kept)["loss"] for kept in range(nodes + 1)]
    assert found.tables["points"]["kept"] == tuple(range(nodes + 1))
    assert list(found.tables["points"]["loss"]) == losses
    passing = [loss <= losses[-1] + 0.01 for loss in losses]
    assert found.needed == next(kept for kept in range(nodes + 1) if all(passing[kept:]))
    assert found.mask.tolist() == [node < found.needed for node in range(nodes)]
    assert found.meta["predicted"] == case.basis.predicted_nodes("1")


def test_needed_is_everything_where_nothing_that_was_evaluated_passes(case: Case) -> None:
    found = ablation(case.evaluator, case.basis, "1", counts=[0, 1], metric="loss")
    assert found.needed == found.total == case.basis.nodes("1") and found.mask.all()
    assert found.tables["points"]["kept"] == (0, 1)


def test_tables_and_words(case: Case, tmp_path: Path) -> None:
    found = ablation(case.evaluator, case.basis, "1", counts=range(3), tolerance=1.0)
    assert list(found.frame("metrics").columns) == ["kept", "metric", "value"]
    assert list(found.frame("metrics")["value"]) == list(found.frame()["accuracy"])
    assert found.needed == 0 and "0 of 7 nodes of '1' keep the accuracy within 1 of 1; 3 points" in found.facts()
    again = wb.open_result(found.save(tmp_path / "saved"))
    assert isinstance(again, Ablation) and again.frame().equals(found.frame())
    assert again.needed == 0 and torch.equal(again.mask, found.mask) and again.unablated == case.evaluator()
    parameters = found.meta["parameters"]
    assert parameters["counts"] == [0, 1, 2] and parameters["base"] is None and parameters["metric"] == "accuracy"


def test_weights_of_another_checkpoint(case: Case) -> None:
    other = copy.deepcopy(case.net)
    other[4].weight.data *= 2
    found = ablation(case.evaluator, case.basis, "1", counts=[3, 7], weights=other.state_dict())
    there = wb.evaluator(other, case.data, "cross_entropy", device="cpu")
    expected = (ablated(there, case.basis, "1", 3)["loss"], there()["loss"])
    assert found.tables["points"]["loss"] == expected
    assert found.meta["fingerprints"] != ablation(case.evaluator, case.basis, "1", counts=[3]).meta["fingerprints"]


def test_a_loss_that_is_none_is_a_row_with_its_reason_and_does_not_pass(case: Case) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value if value < case.evaluator()["loss"] + 0.3 else value * math.nan

    error = wb.evaluator(case.net, case.data, loss, "accuracy", device="cpu")
    found = ablation(error, case.basis, "1", metric="loss", tolerance=100.0)
    rows = found.frame()
    none = rows[rows.loss.isna()]
    assert 0 < len(none) < len(rows) and set(none.reason) == {"the loss is nan"}
    assert found.needed == max(none.kept) + 1


def test_an_evaluation_that_fails_is_a_row_and_not_the_end(case: Case) -> None:
    calls = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 5:  # two batches of the network, two of the first point
            raise RuntimeError("out of luck")
        return nn.functional.cross_entropy(outputs, targets)

    error = wb.evaluator(case.net, case.data, loss, device="cpu")
    found = ablation(error, case.basis, "1", counts=[2, 3, 4])
    reasons = found.tables["points"]["reason"]
    assert [bool(reason) for reason in reasons] == [False, True, False] and "out of luck" in reasons[1]
    calls[:] = [1] * 2
    with pytest.raises(wb.EvaluationError, match="out of luck"):
        ablation(error, case.basis, "1", counts=[2, 3, 4])


# cancelling, and what stays as it was


@pytest.mark.parametrize("schedule", ["linear", "bisect"])
@pytest.mark.parametrize("edges", [False, True])
def test_a_cancel_gives_what_is_done_and_leaves_the_module(case: Case, schedule: Any, edges: bool) -> None:
    case.net.train()
    before = state(case.net)
    told: list[Progress] = []

    def progress(now: Progress) -> None:
        told.append(now)
        if now.done == 2:
            raise wb.Cancelled

    graph = case.graph if edges else None
    with pytest.raises(wb.Cancelled) as stop:
        ablation(case.evaluator, case.basis, "1", graph=graph, schedule=schedule, progress=progress, metric="loss")
    partial = stop.value.partial
    assert isinstance(partial, Ablation) and len(partial.tables["points"]["kept"]) == 2
    assert partial.meta["cancelled"]["done"] == 2
    assert re.search(r"; CANCELLED after 2 of \d+ points at most$", partial.facts())
    assert told[0].item.endswith("edges" if edges else "nodes") and state(case.net) == before
    case.net.eval()


@pytest.mark.parametrize("edges", [False, True])
def test_a_cancel_before_the_first_point_knows_nothing(case: Case, edges: bool, tmp_path: Path) -> None:
    def progress(_: Progress) -> None:
        raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stop:
        ablation(case.evaluator, case.basis, "1", graph=case.graph if edges else None, progress=progress)
    partial = stop.value.partial
    for found in (partial, wb.open_result(partial.save(tmp_path / "ablation"))):
        told = repr(found)
        assert "CANCELLED before the first point: nothing is known of the" in told and " keep " not in told
        with pytest.raises(wb.ArgumentError, match="are needed is not known: .* cancelled before the first point"):
            _ = found.needed
        assert found.mask[1 if edges else 0 :].all() and found.meta["cancelled"]["done"] == 0


def test_a_basis_of_other_weights_is_told(case: Case, tmp_path: Path) -> None:
    tuned = {name: tensor * 1.01 for name, tensor in case.net.state_dict().items()}
    own = ablation(case.evaluator, case.basis, "1", counts=[1, 2])
    same = ablation(case.evaluator, case.basis, "1", counts=[1, 2], weights=dict(case.net.state_dict()))
    for found in (own, same):
        assert found.meta["fingerprints"]["weights"] == found.meta["fingerprints"]["basis"]
        assert found.meta["notes"] == [] and "note:" not in repr(found)
        assert "other weights" not in found.facts()
    other = copy.deepcopy(case.net)
    other.load_state_dict(tuned)
    others = [
        ablation(case.evaluator, case.basis, "1", counts=[1, 2], weights=tuned),
        ablation(wb.evaluator(other, case.data, "cross_entropy", device="cpu"), case.basis, "1", counts=[1, 2]),
    ]
    for found in (*others, wb.open_result(others[0].save(tmp_path / "other"))):
        assert found.facts().endswith("; 2 points; basis of other weights")  # what an explorer's status shows
        assert "note: the module's weights are not those that the basis is of" in repr(found)
        assert "note: the module&#x27;s weights are not those" in found._repr_html_()
        assert found.meta["fingerprints"]["weights"] != own.meta["fingerprints"]["basis"]
        assert found.meta["fingerprints"]["basis"] == own.meta["fingerprints"]["basis"]
    assert others[0].frame().equals(others[1].frame())


def test_progress_of_a_whole_run(case: Case) -> None:
    told: list[Progress] = []
    partial: list[Ablation] = []

    def progress(now: Progress) -> None:
        told.append(now)
        partial.append(now.partial())  # type: ignore[misc]

    found = ablation(case.evaluator, case.basis, "1", schedule="bisect", progress=progress)
    assert told[-1].done == told[-1].total == len(found.tables["points"]["kept"]) and told[-1].item == ""
    assert "cancelled" not in found.meta and all(one.done < one.total for one in told[:-1])
    assert partial[1].meta["cancelled"]["done"] == 1 and partial[-1].frame().equals(found.frame())


def test_an_error_leaves_the_module(case: Case) -> None:
    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        raise RuntimeError("no")

    before, random = state(case.net), torch.get_rng_state()
    error = wb.evaluator(case.net, case.data, loss, {}, device="cpu")
    for graph in (None, case.graph):
        with pytest.raises(wb.EvaluationError, match="no"):
            ablated(error, case.basis, "1", 3, graph=graph)
    assert state(case.net) == before and torch.equal(random, torch.get_rng_state())


# what is refused


def refused(message: str, *args: Any, error: type[Exception] = wb.ArgumentError, **options: Any) -> None:
    with pytest.raises(error, match=message):
        ablation(*args, **options)


def test_refusals_of_arguments(case: Case) -> None:
    given = case.evaluator, case.basis, "1"
    refused("no layer '11'.*Did you mean '1'", *given[:2], "11", error=wb.LayerNotFoundError)
    refused("is the last, the output itself.*choose one of \\['1', '3'\\]", *given[:2], "4")
    refused("points=5 goes with schedule='linear'", *given, points=5)
    refused("points=1: expected", *given, schedule="linear", points=1)
    refused("every=-1: expected", *given, every=-1)
    refused("base=1: expected the growth", *given, base=1)
    for counts in ([], [-1], [8], [True]):
        refused("counts=.*expected whole numbers from 0 to 7", *given, counts=counts)
    for tolerance in (-0.1, math.nan, math.inf):
        refused("tolerance=.*at least 0", *given, tolerance=tolerance)
    refused("metric='perplexity': expected 'accuracy' or 'loss'", *given, metric="perplexity")
    only = wb.evaluator(case.net, case.data, "cross_entropy", {}, device="cpu")
    refused("metric='accuracy', which the evaluator has not", only, *given[1:], metric="accuracy")
    assert ablation(only, *given[1:], counts=[3]).meta["parameters"]["metric"] == "loss"
    nan = wb.evaluator(case.net, case.data, lambda outputs, _: outputs.sum() * math.nan, {}, device="cpu")
    refused("the loss of the network as it is is nan", nan, *given[1:])
    for kept in (-1, 8, True):
        with pytest.raises(wb.ArgumentError, match="expected a number of nodes from 0 to 7"):
            ablated(*given, kept)
    refused("weights does not fit the evaluator's module", *given, weights=nn.Linear(2, 2))


WRONG = """
import json, torch, workbench as wb
from workbench.degeneracy.ablation import ablation
from workbench.degeneracy.interaction_basis import interaction_basis
net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
error = wb.evaluator(net, [(x, torch.zeros(9, dtype=torch.long))], "cross_entropy", device="cpu")
basis = interaction_basis(net, [x], "1", device="cpu")
told = []
for wrong in (
    {"evaluator": net},
    {"basis": net},
    {"graph": net},
    {"schedule": "bisekt"},
    {"counts": [1.5]},
    {"counts": 3},
    {"tolerance": "much"},
    {"every": 1.5},
    {"base": "2"},
    {"progress": 3},
):
    try:
        ablation(**({"evaluator": error, "basis": basis, "layer": "1"} | wrong))
    except wb.ArgumentError as problem:
        told.append(str(problem))
print(json.dumps(told))
"""


def test_refusals_of_other_types(unchecked: Callable[..., Any]) -> None:
    words = [
        "evaluator is Sequential: expected wb.evaluator",
        "basis is Sequential: expected wb.interaction_basis",
        "graph is Sequential: expected wb.interaction_graph",
        "schedule='bisekt'.*Did you mean 'bisect'",
        "counts=.1.5.: expected whole numbers",
        "counts=3: expected whole numbers",
        "tolerance='much': expected a number",
        "every=1.5: expected",
        "base='2': expected",
        "progress=3: expected",
    ]
    for message, expected in zip(unchecked(WRONG), words, strict=True):
        assert re.search(expected, message)


def test_refusals_of_another_module(case: Case) -> None:
    other = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4)).double()
    error = wb.evaluator(other, case.data, "cross_entropy", device="cpu")
    wide = r"layer '1' of Sequential gives \[25, 5\]: the basis has 8 features on its axis -1"
    refused(wide, error, case.basis, "1")
    refused(wide, error, case.basis, "1", graph=case.graph)
    named = wb.evaluator(filled(Convolutions()), case.data, "cross_entropy", device="cpu")
    refused("the basis has the layer '1' and Convolutions has not", named, case.basis, "1")

    class Around(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self[1](self[1](self[0](x)))
            return self[4](self[3](self[2](hidden)))

    twice = wb.evaluator(Around(*case.net), case.data, "cross_entropy", device="cpu")
    for graph in (None, case.graph):
        refused("layer '1' of Around runs 2 times in a pass", twice, case.basis, "1", graph=graph)

    class Past(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[4](self[3](self[2](torch.relu(self[0](x)))))

    past = wb.evaluator(Past(*case.net), case.data, "cross_entropy", device="cpu")
    refused("layer '1' of Past runs 0 times in a pass", past, case.basis, "1")
    refused("layer '1' of Past did not run", past, case.basis, "1", graph=case.graph)

    class Short(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[4](torch.relu(self[2](self[1](self[0](x)))))

    short = wb.evaluator(Short(*case.net), case.data, "cross_entropy", device="cpu")
    refused("layer '3' of Short did not run", short, case.basis, "1", graph=case.graph)


def changed(graph: InteractionGraph, **fields: Any) -> InteractionGraph:
    return InteractionGraph(**{"tables": graph.tables, "meta": graph.meta, "edges": graph.edges} | fields)


def test_refusals_of_another_graph(case: Case) -> None:
    given = case.evaluator, case.basis, "1"
    edges = case.graph.edges
    refused("no edges from '1', only from \\['3'\\]", *given, graph=changed(case.graph, edges={"3": edges["3"]}))
    refused(
        "edges from 7 nodes of '1' to 4 of the next layer; the basis has 7 and 5",
        *given,
        graph=changed(case.graph, edges={"1": edges["1"][:-1]}),
    )
    refused("have NaN", *given, graph=changed(case.graph, edges={"1": edges["1"] * math.nan}))
    pca = interaction_basis(case.net, case.data, ["1", "3"], kind="pca", device="cpu")
    graph = changed(case.graph, edges={"1": torch.ones(pca.nodes("3"), pca.nodes("1"))})
    refused("of a basis with kind='local', and this one has kind='pca'", case.evaluator, pca, "1", graph=graph)


# the evaluator's pass


def test_an_evaluator_of_any_pass(case: Case) -> None:
    assert case.evaluator.through(lambda call: case.net(*call[0], **call[1])) == case.evaluator()
    seen: list[bool] = []

    def passing(call: Any) -> Tensor:
        seen.append(case.net.training)
        return 2 * case.net(*call[0])

    case.net.train()
    found = case.evaluator.through(passing)
    x, y = (torch.cat([b[i] for b in case.data]) for i in (0, 1))
    expected = nn.functional.cross_entropy(2 * case.net(x), y).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-12) and seen == [False, False] and case.net.training
    case.net.eval()
    with pytest.raises(wb.EvaluationError, match="batch 0.*KeyError: 'gone'"):
        case.evaluator.through(lambda call: {}["gone"])


def test_a_graph_of_other_directions_of_as_many_nodes_is_refused(case: Case, tmp_path: Path) -> None:
    basis = interaction_basis(case.net, case.data[:1], case.layers, device="cpu")  # of other data
    layer = case.layers[0]
    assert basis.nodes(layer) == case.basis.nodes(layer)
    with pytest.raises(wb.ArgumentError, match="the graph is of another basis"):
        ablated(case.evaluator, basis, layer, 3, graph=case.graph)
    case.basis.save(tmp_path / "basis")
    case.graph.save(tmp_path / "graph")
    opened = [wb.open_result(tmp_path / name) for name in ("basis", "graph")]
    found = ablated(case.evaluator, opened[0], layer, 3, graph=opened[1])  # type: ignore[arg-type]
    assert found == ablated(case.evaluator, case.basis, layer, 3, graph=case.graph)

"""Loss along a line: closed forms, loops written by hand, and what happens where a loss is none."""

import copy
import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import workbench as wb
from workbench.connectivity.barrier import Barrier, barrier
from workbench.connectivity.mixing import bisected
from workbench.figures import Heat, Line, Points

DATA = Path(__file__).parents[1] / "data"
SMALL = "digits-mlp512"


class Vector(nn.Module):
    """Gives its one parameter, whatever goes in: losses are then plain functions of a vector."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w


ONE_BATCH = [(torch.zeros(1, 1), torch.zeros(1, 1))]


def of(loss: Callable[[Tensor], Any], size: int = 2, **metrics: Callable[[Tensor], Any]) -> wb.Evaluator:
    """An evaluator whose loss is a function of the vector w."""
    named = {name: lambda w, _, metric=metric: metric(w) for name, metric in metrics.items()}
    return wb.evaluator(Vector(*[0.0] * size), ONE_BATCH, lambda w, _: loss(w), named, device="cpu")


def vector(*values: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float64)}


def digits(count: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images[:count] / 16, dtype=torch.float32), torch.tensor(labels[:count], dtype=torch.int64)


def checkpoint(name: str, seed: int) -> Path:
    return DATA / "checkpoints" / f"{name}-seed{seed}.safetensors"


def resnet() -> nn.Module:
    spec = importlib.util.spec_from_file_location("barrier_architectures", DATA / "architectures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ResNet(48)  # type: ignore[no-any-return]


def mlp(width: int = 512) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


@pytest.fixture(scope="module")
def unmatched() -> Barrier:
    x, y = digits(600)
    error = wb.evaluator(mlp(), [(x[:400], y[:400]), (x[400:], y[400:])], "cross_entropy", device="cpu")
    return barrier(error, checkpoint(SMALL, 0), checkpoint(SMALL, 1), points=9, batch_norm=None)


def test_a_quadratic_loss_has_a_closed_form() -> None:
    """½wᵀHw along a line lies above its chord by −½t(1−t)·dᵀHd, d = b − a."""
    random = torch.Generator().manual_seed(0)
    hessian = torch.randn(5, 5, generator=random, dtype=torch.float64)
    hessian = hessian + hessian.T - 8 * torch.eye(5, dtype=torch.float64)
    a, b = torch.randn(2, 5, generator=random, dtype=torch.float64)
    found = barrier(of(lambda w: w @ hessian @ w / 2, 5), {"w": a}, {"w": b}, points=12, batch_norm=None)
    bend = float((b - a) @ hessian @ (b - a))
    assert bend < 0
    path = found.frame()
    np.testing.assert_allclose(path["loss"] - path["chord"], -path["t"] * (1 - path["t"]) * bend / 2, atol=1e-12)
    assert found.loss_a == pytest.approx(float(a @ hessian @ a) / 2, rel=1e-14)
    assert found.barrier == pytest.approx(-bend / 8, rel=1e-13)
    assert found.gap_at_midpoint == pytest.approx(-bend / 8, rel=1e-12)
    ts = path["t"].to_numpy()
    losses = [float((a + t * (b - a)) @ hessian @ (a + t * (b - a))) / 2 for t in ts]
    assert found.barrier_frankle == pytest.approx(max(losses) - (found.loss_a + found.loss_b) / 2, rel=1e-12)


def test_definitions_differ_where_the_ends_do() -> None:
    found = barrier(of(lambda w: w[0], 1), vector(0.0), vector(2.0), points=5, batch_norm=None)
    assert (found.barrier, found.barrier_frankle, found.gap_at_midpoint) == (0, 1, 0)
    worse = barrier(of(lambda w: w[0].square(), 1), vector(-1.0), vector(1.0), points=5, batch_norm=None)
    assert (worse.barrier, worse.gap_at_midpoint) == (0, -1)


def test_nothing_lies_between_equal_checkpoints() -> None:
    x, y = digits(50)
    error = wb.evaluator(mlp(32), [(x, y)], "cross_entropy", device="cpu")
    found = barrier(error, error.module, error.module, batch_norm=None)
    assert found.barrier == found.barrier_frankle == found.gap_at_midpoint == 0
    assert set(found.frame()["loss"]) == {error()["loss"]}


def test_it_is_symmetric() -> None:
    error = of(lambda w: (3 * w[0]).sin() + w[1] ** 3, 2, accuracy=lambda w: w[0])
    a, b = vector(0.3, -1.0), vector(2.1, 0.7)
    there, back = barrier(error, a, b, batch_norm=None), barrier(error, b, a, batch_norm=None)
    np.testing.assert_allclose(there.frame()["loss"], back.frame()["loss"][::-1], atol=1e-14)
    assert there.barrier == pytest.approx(back.barrier, abs=1e-14)


def test_digits_are_as_numpy_finds_them(unmatched: Barrier) -> None:
    a, b = (load_file(checkpoint(SMALL, seed)) for seed in (0, 1))
    x, y = (part.numpy() for part in digits(600))
    for _, row in unmatched.frame().iterrows():
        t = row["t"]
        w = {name: (1 - t) * a[name].double().numpy() + t * b[name].double().numpy() for name in a}
        hidden = np.maximum(x @ w["0.weight"].T + w["0.bias"], 0)
        hidden = np.maximum(hidden @ w["2.weight"].T + w["2.bias"], 0)
        logits = hidden @ w["4.weight"].T + w["4.bias"]
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
        assert row["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert row["accuracy"] == pytest.approx((logits.argmax(1) == y).mean(), abs=2.5 / len(y))
    assert 0.3 < unmatched.barrier < 0.6, "near the .446 of the same recipe on all training images"


def test_statistics_are_reset_or_interpolated() -> None:
    x, y = digits(256)
    batches = [(x[i : i + 128].reshape(-1, 1, 8, 8), y[i : i + 128]) for i in (0, 128)]
    error = wb.evaluator(resnet(), batches, "cross_entropy", device="cpu")
    a, b = (load_file(checkpoint("digits-resnet48", seed)) for seed in (0, 1))
    middle = resnet()
    middle.load_state_dict({n: (a[n] + b[n]) / 2 if a[n].is_floating_point() else a[n] for n in a})

    def by_hand() -> float:
        with torch.no_grad():
            parts = [nn.functional.cross_entropy(middle.eval()(x), y).item() for x, y in batches]
        return sum(parts) / 2

    kept = barrier(error, a, b, points=3, batch_norm="interpolate")
    assert kept.tables["path"]["loss"][1] == pytest.approx(by_hand(), rel=1e-5)
    assert kept.loss_a == error(a)["loss"]
    for part in middle.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
    with torch.no_grad():
        for images, _ in batches:
            middle.train()(images)
    found = barrier(error, a, b, points=3, batch_norm="reset")
    assert found.tables["path"]["loss"][1] == pytest.approx(by_hand(), rel=1e-4)
    assert found.tables["path"]["loss"][1] < kept.tables["path"]["loss"][1]
    with pytest.raises(wb.ArgumentError, match=r"'bn'.*'reset' .*estimated anew.*'interpolate' .*mixed"):
        barrier(error, a, b, batch_norm=None)


def test_counters_are_those_of_a_and_statistics_are_interpolated() -> None:
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1)
            self.seen: list[tuple[int, float]] = []

        def forward(self, x: Tensor) -> Tensor:
            assert self.norm.num_batches_tracked is not None and self.norm.running_mean is not None
            self.seen.append((int(self.norm.num_batches_tracked), float(self.norm.running_mean)))
            return self.norm(x)  # type: ignore[no-any-return]

    module, seen = Seen(), []
    error = wb.evaluator(
        module, [(torch.ones(2, 1), torch.ones(2, 1))], lambda o, _: seen.append(module.seen[-1]) or 0.0
    )
    a = copy.deepcopy(module.state_dict()) | {"norm.num_batches_tracked": torch.tensor(7)}
    b = copy.deepcopy(a) | {"norm.num_batches_tracked": torch.tensor(9), "norm.running_mean": torch.tensor([4.0])}
    barrier(error, a, b, points=3, batch_norm="interpolate")
    assert seen == [(7, 0.0), (7, 4.0), (7, 2.0)]


@pytest.mark.parametrize(("points", "expected"), [(2, 3), (3, 3), (4, 5), (25, 25)])
def test_the_grid_has_both_ends_and_the_middle(points: int, expected: int) -> None:
    found = barrier(of(lambda w: w[0], 1), vector(0.0), vector(1.0), points=points, batch_norm=None)
    ts = found.tables["path"]["t"]
    assert len(ts) == expected and {0.0, 0.5, 1.0} <= set(ts) and list(ts) == sorted(ts)
    assert set(ts) >= {i / (points - 1) for i in range(points)}


@pytest.mark.parametrize("policy", [None, "reset"])
def test_running_statistics_of_instance_norm_are_no_secret(policy: Any) -> None:
    module = nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), nn.Linear(6, 2))
    error = wb.evaluator(module, [(torch.randn(4, 2, 3), torch.zeros(4, 2))], "mse", device="cpu")
    with pytest.raises(wb.ArgumentError, match=r"has instance norm with running statistics \('0'\).*'interpolate'"):
        barrier(error, module, module, batch_norm=policy)
    assert barrier(error, module, module, points=3, batch_norm="interpolate").barrier == 0


def test_points_fill_in() -> None:
    heard: list[wb.Progress] = []
    barrier(of(lambda w: w[0], 1), vector(0.0), vector(1.0), points=9, batch_norm=None, progress=heard.append)
    order = [float(one.item.removeprefix("t = ")) for one in heard[:-1]]
    assert order == [0, 1, 0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875]
    assert [(one.done, one.total) for one in heard] == [(done, 9) for done in range(10)]
    assert heard[-1].item == ""


def test_levels_halve_the_gaps() -> None:
    assert bisected(2) == [0, 0] and bisected(3) == [0, 1, 0] and bisected(9) == [0, 3, 2, 3, 1, 3, 2, 3, 0]
    for count in range(2, 40):
        levels = np.array(bisected(count))
        for level in range(levels.max() + 1):
            gaps = np.diff(np.flatnonzero(levels <= level))
            assert gaps.max() - gaps.min() <= 1, "coarse grids are even, up to a place"


@pytest.mark.parametrize(("stop", "points"), [(0, 0), (1, 1), (4, 4)])
def test_a_cancelled_run_keeps_what_was_done(stop: int, points: int) -> None:
    def cancel(progress: wb.Progress) -> None:
        if progress.done == stop:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as caught:
        barrier(of(lambda w: -(w[0] ** 2), 1), vector(-1.0), vector(1.0), points=9, batch_norm=None, progress=cancel)
    partial = caught.value.partial
    assert isinstance(partial, Barrier) and len(partial.frame()) == points
    assert partial.meta["cancelled"] == {"done": points, "total": 9} and "CANCELLED after" in repr(partial)
    assert (partial.barrier == 1.0) if points == 4 else math.isnan(partial.barrier)


@pytest.mark.parametrize(
    ("bad", "barrier_", "reason"),
    [
        (lambda w: math.nan if 0.4 < w < 0.6 else 0.0, math.inf, "nan"),
        (lambda w: math.inf if 0.4 < w < 0.6 else 0.0, math.inf, "inf"),
        (lambda w: math.nan if w == 1 else 0.0, math.nan, "nan"),
        (lambda w: math.nan if w == 0 else 0.0, math.nan, "nan"),
    ],
    ids=["nan inside", "infinite inside", "nan at b", "nan at a"],
)
def test_a_loss_that_is_none_is_a_row_with_its_reason(
    bad: Callable[[float], float], barrier_: float, reason: str
) -> None:
    found = barrier(of(lambda w: bad(float(w[0])), 1), vector(0.0), vector(1.0), points=5, batch_norm=None)
    reasons = [row for row in found.tables["path"]["reason"] if row]
    assert reasons == [f"the loss is {reason}"]
    for value in (found.barrier, found.barrier_frankle):
        assert value == barrier_ or (math.isnan(value) and math.isnan(barrier_))
    assert len(found.frame()) == 5 and repr(found)


def test_an_evaluation_that_fails_is_a_row_unless_it_is_the_first() -> None:
    def loss(w: Tensor) -> Tensor:
        if w[0] > 0.4:
            raise ValueError("no such place")
        return w[0]

    found = barrier(of(loss, 1), vector(0.0), vector(1.0), points=3, batch_norm=None)
    assert found.tables["path"]["reason"][0] == "" and "no such place" in found.tables["path"]["reason"][1]
    with pytest.raises(wb.EvaluationError, match="no such place"):
        barrier(of(loss, 1), vector(1.0), vector(0.0), points=3, batch_norm=None)


def test_an_end_that_is_not_finite_leaves_the_other_alone() -> None:
    found = barrier(of(lambda w: w[0], 1), vector(3.0), vector(math.inf), points=3, batch_norm=None)
    assert found.loss_a == 3.0 and math.isnan(found.barrier)


def test_the_first_difference_is_named_and_whose_it_is() -> None:
    error = of(lambda w: w[0], 2)
    for bad, words in [
        (vector(1.0), r"b does not fit.*'w'.*\[1\].*\[2\]"),
        ({"v": torch.ones(2)}, r"b does not fit.*lack 'w'"),
        (vector(1.0, 2.0) | {"extra": torch.ones(2)}, r"b does not fit.*'extra'"),
    ]:
        with pytest.raises(wb.ArgumentError, match=words):
            barrier(error, vector(0.0, 0.0), bad, batch_norm=None)
        with pytest.raises(wb.ArgumentError, match=words.replace("b does", "a does")):
            barrier(error, bad, vector(0.0, 0.0), batch_norm=None)


def test_complex_numbers_are_refused() -> None:
    module = Vector(1.0)
    module.w = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    error = wb.evaluator(module, ONE_BATCH, lambda w, _: w.abs().sum(), {}, device="cpu")
    with pytest.raises(wb.ArgumentError, match="'w' is torch.complex64: expected real"):
        barrier(error, module, module, batch_norm=None)


def test_one_buffer_is_filled_again_and_again() -> None:
    """The module sees the same memory at every point, and its own weights, the ends and the data are as before."""
    module, places = nn.Linear(3, 2), set[tuple[int, int]]()
    module.register_forward_pre_hook(lambda part, _: places.add((part.weight.data_ptr(), part.bias.data_ptr())) or None)
    own = [(name, id(tensor), tensor.tolist()) for name, tensor in module.named_parameters()]
    a, b = (copy.deepcopy(nn.Linear(3, 2).state_dict()) for _ in "ab")
    before = [{name: tensor.clone() for name, tensor in end.items()} for end in (a, b)]
    data = [(torch.ones(4, 3), torch.zeros(4, 2))]
    barrier(wb.evaluator(module, data, "mse", device="cpu"), a, b, points=9, batch_norm=None)
    assert len(places) == 1
    assert own == [(name, id(tensor), tensor.tolist()) for name, tensor in module.named_parameters()]
    for end, kept in zip((a, b), before, strict=True):
        assert all(torch.equal(end[name], kept[name]) for name in end)


COUNTED = """
import json, torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
import workbench as wb
from workbench.connectivity.barrier import barrier

class Counting(TorchDispatchMode):
    made = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {one.data_ptr() for one in [*args, *(kwargs or {}).values()] if isinstance(one, Tensor)}
        if isinstance(result, Tensor) and result.shape == (40, 30) and result.data_ptr() not in given:
            self.made += 1
        return result

counts = []
for points in (3, 17):
    error = wb.evaluator(nn.Linear(30, 40), [(torch.ones(2, 30), torch.zeros(2, 40))], "mse", device="cpu")
    ends = [nn.Linear(30, 40).state_dict() for _ in "ab"]
    with Counting() as counting:
        barrier(error, *ends, points=points, batch_norm=None)
    counts.append(counting.made)
print(json.dumps(counts))
"""


def test_memory_does_not_grow_with_the_points(unchecked: Callable[..., Any]) -> None:
    """New tensors of a weight's size are counted: A, B and the buffer, however many points."""
    assert unchecked(COUNTED) == [3, 3]


def test_tied_weights_and_other_dtypes() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x: Tensor) -> Tensor:
            assert self.head.weight.data_ptr() == self.embedding.weight.data_ptr()
            return self.head(self.embedding(x))  # type: ignore[no-any-return]

    module = Tied()
    error = wb.evaluator(module, [(torch.arange(5), torch.arange(5))], "cross_entropy", device="cpu")
    a, b = ({name: t.bfloat16() for name, t in Tied().state_dict().items()} for _ in "ab")
    found = barrier(error, a, b, points=3, batch_norm=None)
    middle = (a["head.weight"].float() + b["head.weight"].float()) / 2
    assert found.tables["path"]["loss"][1] == pytest.approx(error({"head.weight": middle})["loss"], rel=1e-6)
    assert found.meta["dtype"] == "float32"


REFUSED = """
import json, torch
import workbench as wb
from workbench.connectivity.barrier import barrier
error = wb.evaluator(torch.nn.Linear(1, 1), [(torch.ones(1, 1), torch.ones(1, 1))], "mse", device="cpu")
told = []
for bad in [{"points": 1}, {"points": True}, {"batch_norm": "keep"}, {"progress": 3}, {"evaluator": error.module}]:
    good = {"evaluator": error, "a": error.module, "b": error.module, "batch_norm": None}
    try:
        barrier(**(good | bad))
    except wb.ArgumentError as problem:
        told.append(str(problem))
print(json.dumps(told))
"""


def test_wrong_arguments_are_refused(unchecked: Callable[..., Any]) -> None:
    words = [
        "points=1: .*at least 2",
        "points=True: .*at least 2",
        "'keep'.*'reset'.*'interpolate'",
        "progress=3: ",
        "evaluator is Linear: expected wb.evaluator",
    ]
    for message, expected in zip(unchecked(REFUSED), words, strict=True):
        assert re.search(expected, message)


def test_places_may_be_an_array_and_the_middle_is_told_where_it_is_a_point() -> None:
    error, ends = of(lambda w: w.square().sum()), (vector(-1.0, 0.0), vector(1.0, 0.0))
    expected = barrier(error, *ends, points=[0.0, 0.25, 0.5], batch_norm=None).tables["path"]["loss"]
    for points in (np.linspace(0, 0.5, 3), torch.linspace(0, 0.5, 3)):
        assert barrier(error, *ends, points=points, batch_norm=None).tables["path"]["loss"] == expected
    assert len(barrier(error, *ends, points=np.int64(5), batch_norm=None).tables["path"]["t"]) == 5
    assert "in the middle" in barrier(error, *ends, points=2, batch_norm=None).facts()
    assert "in the middle" not in barrier(error, *ends, points=[0, 1], batch_norm=None).facts()


def test_it_reads_back_and_says_where_it_is_from(unmatched: Barrier, tmp_path: Path) -> None:
    again = wb.open_result(unmatched.save(tmp_path / "barrier"))
    assert isinstance(again, Barrier) and again.tables == unmatched.tables and again.barrier == unmatched.barrier
    assert unmatched.meta["sources"]["b"].endswith(f"{SMALL}-seed1.safetensors")
    assert len(set(unmatched.meta["fingerprints"].values())) == 2
    metrics = unmatched.frame("metrics")
    assert list(metrics["value"]) == list(unmatched.frame()["accuracy"]) and set(metrics["metric"]) == {"accuracy"}
    for word in ("barrier", "at A", "in the middle", "at B", "9 points"):
        assert word in unmatched.facts()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_finds_the_same(unmatched: Barrier) -> None:
    error = wb.evaluator(mlp(), [digits(600)], "cross_entropy", device="cuda")
    found = barrier(error, checkpoint(SMALL, 0), checkpoint(SMALL, 1), points=9, batch_norm=None)
    np.testing.assert_allclose(found.frame()["loss"], unmatched.frame()["loss"], rtol=1e-3)


def test_the_figure_shows_loss_chord_ends_and_accuracy(unmatched: Barrier) -> None:
    spec = wb.figure(unmatched)
    left, right = spec.panels
    lines = {mark.label: mark for mark in left.marks if isinstance(mark, Line)}
    path = unmatched.tables["path"]
    assert (lines["loss"].x, lines["loss"].y) == (path["t"], path["loss"])
    assert lines["chord"].y == (unmatched.loss_a, unmatched.loss_b)
    height = lines["barrier"].y
    assert height[1] - height[0] == pytest.approx(unmatched.barrier) and f"{unmatched.barrier:.3g}" in spec.title
    (ends,) = (mark for mark in left.marks if isinstance(mark, Points))
    assert ends.ids == ("A", "B") and ends.y == (unmatched.loss_a, unmatched.loss_b)
    assert [mark.y for mark in right.marks if isinstance(mark, Line)] == [path["accuracy"]]
    assert not any(isinstance(mark, Heat) for panel in spec.panels for mark in panel.marks)
    screen, paper = spec.to_plotly(), spec.to_matplotlib()
    assert len(screen.data) == len(left.marks) + len(right.marks)
    drawn = [line.get_xydata().T.tolist() for line in paper.axes[0].lines]
    assert [list(path["t"]), list(path["loss"])] in drawn
    assert paper.axes[1].get_ylabel() == screen.layout.yaxis2.title.text == "accuracy"


def test_before_and_after_are_one_figure(unmatched: Barrier) -> None:
    flat = barrier(of(lambda w: w[0], 1), vector(0.1), vector(0.2), points=3, batch_norm=None)
    spec = wb.figure({"before": unmatched, "after": flat})
    labels = [mark.label for mark in spec.panels[0].marks if isinstance(mark, Line) and mark.label]
    assert labels == ["chord", f"before: barrier {unmatched.barrier:.3g}", f"after: barrier {flat.barrier:.3g}"]
    assert len(spec.panels) == 2 and "wb.barrier" in spec.provenance["call"]
    spec.to_plotly(), spec.to_matplotlib()


def test_what_cannot_be_drawn_is_refused(unmatched: Barrier) -> None:
    nowhere = barrier(of(lambda w: math.nan, 1), vector(0.1), vector(0.2), points=3, batch_norm=None)
    for action, words in [
        (lambda: wb.figure(nowhere), "no loss along the path"),
        (lambda: wb.figure(unmatched, layer="0"), "all weights together"),
        (lambda: wb.figure({}), "nothing"),
        (lambda: wb.figure({"a": unmatched, "b": wb.layers(nn.Linear(1, 1))}), "Barrier, LayerTable"),
        (lambda: wb.figure({str(n): unmatched for n in range(6)}), "6 barriers"),
    ]:
        with pytest.raises(wb.FigureError, match=words):
            action()


def test_places_are_evaluated_alone() -> None:
    counted: list[float] = []

    def square(w: Tensor) -> Tensor:
        counted.append(float(w[0]))
        return w.square().sum()

    found = barrier(of(square, 1), vector(-1.0), vector(1.0), points=[0.75, 0.25, 0.75], batch_norm=None)
    assert found.tables["path"]["t"] == (0.25, 0.75) and found.tables["path"]["loss"] == (0.25, 0.25)
    assert sorted(counted) == [-0.5, 0.5]
    assert math.isnan(found.barrier) and math.isnan(found.loss_a)
    assert "at t = 0.25 loss 0.25; at t = 0.75 loss 0.25" in found.facts()
    spec = wb.figure(found)
    assert spec.title == "Loss at t = 0.25, 0.75"
    (points,) = spec.panels[0].marks
    assert isinstance(points, Points) and (points.x, points.y) == ((0.25, 0.75), (0.25, 0.25))
    ends = barrier(of(square, 1), vector(-1.0), vector(1.0), points=[0, 1], batch_norm=None)
    assert ends.barrier == 0.0 and ends.loss_b == 1.0


def test_places_off_the_line_are_refused(raised: Callable[..., Any]) -> None:
    made = "wb.evaluator(torch.nn.Linear(1, 1), [(torch.ones(1, 1), torch.ones(1, 1))], 'mse')"
    wrong = {
        f"wb.barrier({made}, {{}}, {{}}, points={points!r}, batch_norm=None)": points
        for points in ([], [0.5, 1.1], [-0.1], [True], ["0.5"], 1)
    }
    for code, (kind, message) in raised(wrong).items():
        assert kind == "ArgumentError" and f"points={wrong[code]!r}: expected the number of points" in message


def test_a_run_tells_what_is_done_in_passing() -> None:
    seen: list[tuple[float, ...]] = []

    def look(progress: wb.Progress) -> None:
        assert progress.partial is not None
        seen.append(progress.partial().tables["path"]["t"])

    whole = barrier(of(lambda w: w.sum()), vector(0.0, 0.0), vector(1.0, 1.0), points=3, batch_norm=None, progress=look)
    assert seen == [(), (0.0,), (0.0, 1.0), (0.0, 0.5, 1.0)] and seen[-1] == whole.tables["path"]["t"]

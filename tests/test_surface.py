"""Loss on planes: closed forms, planes that pass through their checkpoints, and runs that go on where they stopped."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.connectivity.barrier import barrier
from workbench.connectivity.directions import Plane, filter_normalised, random_direction
from workbench.connectivity.surface import Surface, surface
from workbench.figures import Heat, Line, Points


class Net(nn.Module):
    """A convolution, batch norm, a layer norm over three axes, a tied pair and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.ln = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.LayerNorm((3, 4, 4))
        self.fc, self.tied = nn.Linear(48, 48), nn.Linear(48, 48)
        self.tied.weight = self.fc.weight
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln(self.bn(self.conv(x))).relu().flatten(1)
        return self.head(self.tied(self.fc(x).relu()))  # type: ignore[no-any-return]


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def three(make: Any) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [make().double().eval() for _ in "abc"]


def error_of(module: nn.Module, *shape: int) -> wb.Evaluator:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(12, *shape, generator=random, dtype=torch.float64)
    y = torch.arange(12) % 3
    return wb.evaluator(copy.deepcopy(module), [(x[:7], y[:7]), (x[7:], y[7:])], "cross_entropy", device="cpu")


def test_directions_have_the_filters_norms_and_biases_stay() -> None:
    module = three(Net)[0]
    tensors = dict(module.state_dict(keep_vars=True))
    found = random_direction(module, tensors, 0, "x")
    assert set(found) == {"conv.weight", "fc.weight", "tied.weight", "head.weight"}
    assert found["fc.weight"] is found["tied.weight"]
    for name, direction in found.items():
        norms = direction.flatten(1).norm(dim=1)
        np.testing.assert_allclose(norms, tensors[name].detach().flatten(1).norm(dim=1), rtol=1e-14)
    again, other = (random_direction(module, tensors, seed, "x") for seed in (0, 1))
    across = random_direction(module, tensors, 0, "y")
    for name in found:
        assert torch.equal(found[name], again[name])
        assert not torch.equal(found[name], other[name]) and not torch.equal(found[name], across[name])


def test_a_direction_is_gaussian() -> None:
    """Of both signs, and of a normal kurtosis: not the uniform draw of a peer, which is positive throughout."""
    drawn = filter_normalised(torch.ones(1, 100_000), 0, "w")[0]
    assert abs(float(drawn.mean())) < 0.02 and float((drawn**4).mean() / (drawn**2).mean() ** 2) == pytest.approx(
        3, abs=0.1
    )
    assert not filter_normalised(torch.zeros(2, 3), 0, "w").any()


def test_a_quadratic_loss_is_a_quadratic_surface() -> None:
    """L = ‖w − c‖² on A + x·d₁ + y·d₂ is ‖A − c‖² + 2⟨A − c, v⟩ + ‖v‖², v = x·d₁ + y·d₂."""
    module = nn.Linear(6, 4, bias=False).double()
    random = torch.Generator().manual_seed(0)
    a, centre = torch.randn(2, 4, 6, generator=random, dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.float64)
    error = wb.evaluator(module, [(eye, eye)], lambda outputs, _: (outputs - centre.T).square().sum(), {}, device="cpu")
    found = surface(error, {"weight": a}, points=(5, 4), span=2.0, seed=3, batch_norm=None)
    one, two = (random_direction(module, {"weight": a}, 3, axis)["weight"] for axis in "xy")
    for _, row in found.frame().iterrows():
        step = row["x"] * one + row["y"] * two
        expected = (a - centre).square().sum() + 2 * ((a - centre) * step).sum() + step.square().sum()
        assert row["loss"] == pytest.approx(float(expected), rel=1e-12)
    assert found.values().shape == (4, 5) and found.axes() == ((-2, -1, 0, 1, 2), tuple(found.frame()["y"].unique()))
    cosine = float((one * two).sum() / one.norm() / two.norm())
    assert found.meta["cosine"] == pytest.approx(cosine, rel=1e-12)


@pytest.mark.parametrize(("make", "shape", "policy"), [(perceptron, (5,), None), (Net, (1, 6, 6), "interpolate")])
def test_the_plane_passes_through_its_three_points(make: Any, shape: tuple[int, ...], policy: Any) -> None:
    ends = three(make)
    error = error_of(ends[0], *shape)
    found = surface(error, *ends, points=3, batch_norm=policy)
    anchors = found.frame("anchors")
    for loss, accuracy, end in zip(anchors["loss"], anchors["accuracy"], ends, strict=True):
        direct = error(end.state_dict())
        assert loss == pytest.approx(direct["loss"], rel=1e-12) and accuracy == direct["accuracy"]
    vectors = [torch.cat([p.detach().flatten() for p in end.parameters()]) for end in ends]
    places = anchors[["x", "y"]].to_numpy()
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(places[i] - places[j]) == pytest.approx(
            float((vectors[i] - vectors[j]).norm()), rel=1e-12
        )
    assert tuple(places[0]) == (0, 0) and places[1][1] == 0 and places[2][1] > 0


def test_on_its_edge_a_surface_is_a_barrier() -> None:
    ends = three(perceptron)
    error = error_of(ends[0], 5)
    found = surface(error, *ends, points=5, span=0.0, batch_norm=None)
    anchors = found.frame("anchors")
    assert 0 <= anchors["x"][2] <= anchors["x"][1], "so the grid's first row is the line from a to b"
    path = barrier(error, ends[0], ends[1], points=5, batch_norm=None)
    np.testing.assert_allclose(found.values()[0], path.frame()["loss"], rtol=1e-12)
    np.testing.assert_allclose(found.values("accuracy")[0], path.frame()["accuracy"], rtol=1e-12)


def test_shares_are_exact_at_the_checkpoints() -> None:
    a, b, c = ({"weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(n))} for n in range(3))
    plane = Plane.through(nn.Linear(4, 3, bias=False), a, b, c)
    assert plane.shares(0.0, 0.0) == (1, 0, 0)
    assert plane.shares(plane.b, 0.0) == (0, 1, 0)
    assert plane.shares(*plane.c) == (0, 0, 1)


def test_statistics_are_reset_at_each_point() -> None:
    ends = three(Net)
    error = error_of(ends[0], 1, 6, 6)
    found = surface(error, ends[0], points=3, span=0.5, batch_norm="reset")
    loss = found.frame("anchors")["loss"][0]
    fresh = copy.deepcopy(ends[0])
    fresh.bn.reset_running_stats()
    fresh.bn.momentum = None
    with torch.no_grad():
        for x, _ in error.data:
            fresh.train()(x)
    assert (
        loss == pytest.approx(error(fresh.state_dict())["loss"], rel=1e-12)
        and loss != error(ends[0].state_dict())["loss"]
    )
    with pytest.raises(wb.ArgumentError, match="'bn'"):
        surface(error, ends[0], batch_norm=None)


def test_coarse_grids_come_first() -> None:
    ends = three(perceptron)
    heard: list[wb.Progress] = []
    surface(error_of(ends[0], 5), ends[0], points=5, batch_norm=None, progress=heard.append)
    items = [tuple(float(part.split(" = ")[1]) for part in one.item.split(", ")) for one in heard[:-1]]
    assert items[0] == (0, 0) and len(items) == len(set(items)) == 25
    assert {*items[1:5]} == {(x, y) for x in (-1, 1) for y in (-1, 1)}
    assert {*items[:9]} == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}
    assert heard[-1].done == heard[-1].total == 25


def cancelling(after: int) -> Any:
    def cancel(progress: wb.Progress) -> None:
        if progress.done == after:
            raise wb.Cancelled

    return cancel


@pytest.mark.parametrize("after", [0, 1, 12])
def test_a_cancelled_run_is_a_coarse_picture(after: int) -> None:
    ends = three(perceptron)
    error = error_of(ends[0], 5)
    whole = surface(error, ends[0], points=5, batch_norm=None)
    with pytest.raises(wb.Cancelled) as caught:
        surface(error, ends[0], points=5, batch_norm=None, progress=cancelling(after))
    partial = caught.value.partial
    assert isinstance(partial, Surface) and partial.meta["cancelled"] == {"done": after, "total": 25}
    done = np.isfinite(partial.values().numpy())
    assert done.sum() == after and "CANCELLED" in partial.facts()
    np.testing.assert_array_equal(partial.values()[done], whole.values()[done])
    reasons = [row for row in partial.tables["grid"]["reason"] if row]
    assert len(reasons) == 25 - after and all("not evaluated" in reason for reason in reasons)
    if not after:
        with pytest.raises(wb.FigureError, match="no loss on this surface"):
            wb.figure(partial)
        return
    spec = wb.figure(partial)
    heat = next(mark for mark in spec.panels[0].marks if isinstance(mark, Heat))
    assert np.isfinite(heat.values).all() and f"{after} of 25 points" in spec.panels[0].title
    np.testing.assert_array_equal(np.array(heat.values)[done], partial.values().numpy()[done])


def counted(error: wb.Evaluator) -> list[int]:
    calls = [0]
    error.module.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    return calls


def test_a_cache_goes_on_where_a_run_stopped(tmp_path: Path) -> None:
    ends = three(perceptron)
    error = error_of(ends[0], 5)
    options: dict[str, Any] = {"points": 5, "batch_norm": None}
    whole = surface(error, ends[0], **options)
    with pytest.raises(wb.Cancelled):
        surface(error, ends[0], **options, cache=tmp_path, progress=cancelling(12))
    calls = counted(error)
    found = surface(error, ends[0], **options, cache=tmp_path)
    assert found.tables == whole.tables and found.meta["cache"]["found"] == 10
    assert calls == [2 * 15], "two batches for each point but those kept: all done but the checkpoint and one corner"
    finer = surface(error, ends[0], points=9, batch_norm=None, cache=tmp_path)
    assert finer.meta["cache"]["found"] == 23


def test_a_cache_knows_what_it_was_made_of(tmp_path: Path) -> None:
    a, b, c = three(perceptron)
    error = error_of(a, 5)
    options: dict[str, Any] = {"points": 3, "batch_norm": None, "cache": tmp_path}
    surface(error, a, **options)
    other_data = wb.evaluator(error.module, [*error.data][:1], "cross_entropy", device="cpu")
    clamped = wb.evaluator(  # alike near a, and another function further out
        error.module,
        error.data,
        lambda o, y: nn.functional.cross_entropy(o, y).clamp(max=1.5),
        error.metrics,
        device="cpu",
    )
    for changed in (
        surface(other_data, a, **options),
        surface(clamped, a, **options),
        surface(error, b, **options),
        surface(error, a, **options, seed=1),
        surface(error, a, b, c, **options),
    ):
        assert changed.meta["cache"]["found"] == 0
    assert surface(error, a, **options).meta["cache"]["found"] == 7


def test_a_failed_evaluation_is_a_point_with_its_reason_and_is_not_kept(tmp_path: Path) -> None:
    module = nn.Linear(1, 1, bias=False).double()
    failing = [True]

    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        if failing[0] and float(outputs.detach()[0, 0]) > 1.9:
            raise ValueError("out of reach")
        return outputs.square().mean() if outputs[0, 0] > 0.1 else outputs.mean() * math.nan

    one = torch.ones(1, 1, dtype=torch.float64)
    error = wb.evaluator(module, [(one, one)], loss, device="cpu")
    options: dict[str, Any] = {"points": 3, "batch_norm": None, "cache": tmp_path}
    found = surface(error, {"weight": one}, **options)
    reasons = set(found.tables["grid"]["reason"])
    assert any("out of reach" in reason for reason in reasons) and "the loss is nan" in reasons
    panel = wb.figure(found).panels[0]
    values = np.array(next(mark for mark in panel.marks if isinstance(mark, Heat)).values)
    np.testing.assert_array_equal(np.isfinite(values), np.isfinite(found.values().numpy()))
    failing[0] = False
    again = surface(error, {"weight": one}, **options)
    assert not any("out of reach" in reason for reason in again.tables["grid"]["reason"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"b": 1}, "two checkpoints.*wb.barrier"),
        ({"b": 1, "c": 1}, "one line"),
        ({"b": 0, "c": 1}, "one line"),
        ({"points": 1}, "points=1"),
        ({"points": (3, 1)}, r"points=\(3, 1\)"),
        ({"span": 0.0}, "span=0.0"),
        ({"span": math.nan}, "span=nan"),
        ({"cache": ""}, "cache=''"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    ends = three(perceptron)
    given = {key: ends[value] if key in "bc" else value for key, value in arguments.items()}
    with (
        pytest.raises((wb.ArgumentError, TypeError), match=words)
        if "batch_norm" not in arguments
        else pytest.raises(Exception, match="keep")
    ):
        surface(error_of(ends[0], 5), ends[0], **({"batch_norm": None} | given))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rounding_is_no_second_direction(dtype: torch.dtype) -> None:
    """The middle of two checkpoints as it is stored is off their line by rounding only."""
    a, b, c = (dict(end.to(dtype).state_dict()) for end in three(perceptron))
    for t in (0.5, 0.3):
        middle = {name: torch.lerp(a[name].double(), b[name].double(), t).to(dtype) for name in a}
        with pytest.raises(wb.ArgumentError, match="on one line"):
            Plane.through(perceptron(), a, b, middle)
    assert Plane.through(perceptron(), a, b, c).c[1] > 0.1


def test_the_checkpoint_that_differs_is_named() -> None:
    a, b, _ = three(perceptron)
    with pytest.raises(wb.ArgumentError, match=r"c does not fit.*\[4, 5\].*\[8, 5\]"):
        surface(error_of(a, 5), a, b, {**b.state_dict(), "0.weight": torch.zeros(4, 5)}, batch_norm=None)
    broken = {**b.state_dict(), "0.weight": torch.full((8, 5), math.nan)}
    with pytest.raises(wb.ArgumentError, match="NaN or infinite"):
        surface(error_of(a, 5), a, b, broken, batch_norm=None)


def test_it_reads_back(tmp_path: Path) -> None:
    a, b, c = three(perceptron)
    found = surface(error_of(a, 5), a, b, c, points=(4, 3), batch_norm=None)
    again = wb.open_result(found.save(tmp_path / "surface"))
    assert isinstance(again, Surface) and again.tables == found.tables and again.axes() == found.axes()
    assert len(found.frame("metrics")) == 4 * 3 + 3 and "4 × 3 points" in repr(found) and "at C" in found.facts()
    with pytest.raises(wb.ArgumentError, match="did you mean 'accuracy'|Did you mean 'accuracy'"):
        found.values("acuracy")


def test_contours_lie_where_the_loss_is_theirs() -> None:
    """On L = x² + y² + 1 they are circles; both renderers draw them."""
    module = nn.Linear(1, 2, bias=False).double()
    one = torch.ones(1, 1, dtype=torch.float64)
    error = wb.evaluator(module, [(one, one)], lambda w, _: w.square().sum() + 1, {}, device="cpu")
    corners = [{"weight": torch.tensor([[x], [y]], dtype=torch.float64)} for x, y in ((-1, -1), (1, -1), (-1, 1))]
    spec = wb.figure(surface(error, *corners, points=41, span=0.0, batch_norm=None))
    (panel,) = spec.panels
    heat = next(mark for mark in panel.marks if isinstance(mark, Heat))
    assert heat.limits == (1, 3) and heat.label == "loss", "too flat for a logarithm"
    assert panel.title == "contours at a loss of 1.2, 1.4, 1.6, …, 2.8"
    lines = [mark for mark in panel.marks if isinstance(mark, Line)]
    for level, line in zip(np.arange(1.2, 2.9, 0.2), lines, strict=True):
        radii = np.hypot(np.array(line.x) - 1, np.array(line.y) - 1)  # a lies at the origin of the plane
        np.testing.assert_allclose(radii[~np.isnan(radii)], math.sqrt(level - 1), atol=0.01)
    points = [mark for mark in panel.marks if isinstance(mark, Points) and mark.label]
    assert [(mark.ids, mark.label) for mark in points] == [((n,), f"{n}: loss 3") for n in "ABC"]
    screen, paper = spec.to_plotly(), spec.to_matplotlib()
    assert len(screen.data) == len(panel.marks)
    np.testing.assert_array_equal(screen.data[0].z, heat.values)
    np.testing.assert_array_equal(paper.axes[0].lines[0].get_xydata(), np.array([lines[0].x, lines[0].y]).T)


def test_a_wide_range_is_drawn_by_its_logarithm_and_a_flat_one_without_contours() -> None:
    module = nn.Linear(1, 1, bias=False).double()
    one = torch.ones(1, 1, dtype=torch.float64)
    steep = wb.evaluator(module, [(one, one)], lambda w, _: (3 * w).exp().sum(), {}, device="cpu")
    panel = wb.figure(surface(steep, {"weight": one}, points=9, batch_norm=None)).panels[0]
    heat = next(mark for mark in panel.marks if isinstance(mark, Heat))
    assert heat.label == "log₁₀ loss" and "loss of 0.1, 1, 10, 100, 1000" in panel.title
    flat = wb.evaluator(module, [(one, one)], lambda w, _: 2.0, {}, device="cpu")
    spec = wb.figure(surface(flat, {"weight": one}, points=2, batch_norm=None))
    assert not any(isinstance(mark, Line) for mark in spec.panels[0].marks) and spec.panels[0].title == ""
    spec.to_plotly(), spec.to_matplotlib()
    with pytest.raises(wb.FigureError, match="all weights together"):
        wb.figure(surface(flat, {"weight": one}, points=2, batch_norm=None), layer="0")

"""Comparison: models whose α is known in closed form, numpy's statistics, and every layer accounted for."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import workbench as wb
from workbench.figures import Heat, Line, Points
from workbench.progress import Progress


def pareto(alpha: float, count: int = 300) -> Tensor:
    """A matrix whose eigenvalues are the quantiles of a power law with the exponent α."""
    return torch.from_numpy(np.diag((1 - (np.arange(1, count + 1) - 0.5) / count) ** (-0.5 / (alpha - 1))))


def scaled(*factors: float) -> dict[str, Tensor]:
    """Layers 0, 1, … whose λmax is the factor squared."""
    return {f"{number}.weight": factor * torch.eye(4) for number, factor in enumerate(factors)}


def test_alpha_over_a_trajectory_is_that_of_the_laws() -> None:
    alphas = (2.5, 3.0, 4.0)
    found = wb.comparison({f"step {alpha}": {"fc.weight": pareto(alpha)} for alpha in alphas})
    row = found.row("fc")
    ends = [row["first"], row["last"], row["mean"], row["std"], row["change"]]
    expected = [2.5, 4.0, np.mean(alphas), np.std(alphas, ddof=1), 1.5]
    assert ends == pytest.approx(expected, rel=0.02)
    # (α − 1)/√n at both ends; the whole grid is the tail, give or take its first points
    assert row["change_error"] == pytest.approx(math.hypot(1.5, 3.0) / math.sqrt(300), rel=0.03)
    assert row["verdict"] == "changed" and "beyond 2 standard errors; typical at both ends" in row["reason"]
    assert found.frame("values")["value"].tolist() == pytest.approx(alphas, rel=0.02)


@pytest.mark.parametrize(
    ("first", "last", "verdict", "words"),
    [
        (pareto(2.5), pareto(4.0), "changed", "+1.5 ± 0.19: beyond"),
        (pareto(4.0), pareto(2.5), "changed", "-1.5 ± 0.19: beyond"),
        (pareto(2.5), pareto(2.6), "within error", "typical at both ends"),
        (pareto(1.8), pareto(2.5), "changed", "heavy → typical"),
        (pareto(2.5), pareto(2.5), "within error", "+0 ± 0.12: within"),
        (torch.eye(40), pareto(2.5), "incomplete", "no number in a (the eigenvalues are all equal"),
    ],
)
def test_a_change_is_judged_against_its_standard_error(first: Tensor, last: Tensor, verdict: str, words: str) -> None:
    row = wb.comparison({"a": {"fc.weight": first}, "b": {"fc.weight": last}}).row("fc")
    assert row["verdict"] == verdict and words in row["reason"]


def test_noise_that_becomes_other_noise_has_no_tail_at_either_end() -> None:
    draws = torch.Generator().manual_seed(0)
    models = [{"fc.weight": torch.randn(80, 120, generator=draws)} for _ in range(2)]
    row = wb.comparison(models, xmin="median").row("fc")
    assert (row["verdict"], row["reason"]) == ("no tail", "no tail at both ends: what changes is no exponent")
    assert math.isfinite(row["change"]), "the number stays, whatever the verdict"


def test_statistics_are_numpys_and_the_values_the_analysis_own() -> None:
    draws = torch.Generator().manual_seed(0)
    models = {
        f"seed {seed}": {f"{n}.weight": torch.randn(20 + n, 30, generator=draws) for n in range(3)} for seed in range(5)
    }
    found = wb.comparison(models, metric="entropy")
    alone = np.array([wb.spectrum(model).tables["layers"]["entropy"] for model in models.values()])
    values = found.frame("values").pivot(index="place", columns="layer", values="value")
    np.testing.assert_array_equal(values, alone)
    table = found.frame()
    for name, expected in {
        "first": alone[0],
        "last": alone[-1],
        "change": alone[-1] - alone[0],
        "mean": alone.mean(0),
        "std": alone.std(0, ddof=1),
        "smallest": alone.min(0),
        "largest": alone.max(0),
    }.items():
        np.testing.assert_allclose(table[name], expected, rtol=1e-12, atol=1e-15, err_msg=name)
    assert set(table["verdict"]) == {"not judged"} and table["change_error"].isna().all()
    of_models = found.frame("models")
    np.testing.assert_allclose(of_models["mean"], alone.mean(1), rtol=1e-14)
    np.testing.assert_array_equal(of_models["median"], np.median(alone, 1))
    assert of_models["label"].tolist() == list(models) and of_models["layers"].tolist() == [3] * 5


@pytest.mark.parametrize(("analysis", "arguments"), [("spectrum", {"xmin": "median"}), ("farms", {"window": 16})])
def test_the_analysis_and_its_arguments_are_passed_on(analysis: str, arguments: dict[str, Any]) -> None:
    draws = torch.Generator().manual_seed(0)
    models = [{"fc.weight": torch.randn(50, 40, generator=draws)} for _ in range(2)]
    found = wb.comparison(models, analysis=analysis, **arguments)
    rows = [getattr(wb, analysis)(model, **arguments).row("fc") for model in models]
    values = found.frame("values")
    assert values["value"].tolist() == [row["alpha"] for row in rows]
    assert values["error"].tolist() == [row["alpha_error"] for row in rows]
    assert values["verdict"].tolist() == [row["verdict"] for row in rows]
    row = found.row("fc")
    assert row["change_error"] == pytest.approx(np.hypot(*(row["alpha_error"] for row in rows)), rel=1e-14)
    assert found.meta["parameters"].items() >= {"analysis": analysis, "metric": "alpha", **arguments}.items()


def test_without_resamples_farms_is_not_judged() -> None:
    models = [{"fc.weight": torch.randn(50, 40, generator=torch.Generator().manual_seed(0))}] * 2
    row = wb.comparison(models, analysis="farms", window=16, resamples=0).row("fc")
    assert row["verdict"] == "not judged" and row["change"] == 0


# What some models lack


def test_every_layer_of_every_model_is_a_row() -> None:
    poisoned = scaled(2.0, 1.0)
    poisoned["1.weight"][0, 0] = math.nan
    models = {"a": scaled(1.0, 2.0), "b": poisoned, "c": scaled(3.0, 1.0, 5.0)}
    found = wb.comparison(models, metric="lambda_max")
    table = found.frame().set_index("layer")
    assert table.index.tolist() == ["0", "1", "2"]
    assert table["models"].tolist() == [3, 3, 1] and table["numbers"].tolist() == [3, 2, 1]
    assert table["verdict"].tolist() == ["not judged", "not judged", "incomplete"]
    assert table["mean"].tolist() == [14 / 3, 2.5, 25.0]
    assert table["change"].tolist()[:2] == [8.0, -3.0] and math.isnan(table["change"]["2"])
    assert math.isnan(table["std"]["2"]), "one number has no spread"
    assert "no number in b (1 of 16 elements are NaN or infinite)" in table["reason"]["1"]
    assert "no number in a (not among its analysed layers), b (not among" in table["reason"]["2"]
    values = found.frame("values")
    assert len(values) == 9 and values["verdict"].tolist().count("absent") == 2
    assert found.frame("models")["numbers"].tolist() == [2, 1, 3]


def test_counts_of_a_failed_layer_are_no_numbers() -> None:
    models = [{"fc.weight": torch.full((3, 3), math.nan)}, {"fc.weight": torch.eye(3)}]
    row = wb.comparison(models, metric="rank").row("fc")
    assert math.isnan(row["first"]) and row["last"] == 3 and row["verdict"] == "incomplete"


def test_a_long_list_of_lacking_models_is_counted() -> None:
    models = {"all": scaled(1, 1), **{f"m{number}": scaled(1) for number in range(6)}}
    assert wb.comparison(models, metric="rank").row("1")["reason"].endswith("and 3 more")


def test_a_name_that_one_model_has_is_enough() -> None:
    models = {"a": scaled(1, 2, 3), "b": scaled(1, 2)}
    found = wb.comparison(models, layers=["0", "2"], metric="lambda_max")
    assert found.frame()["layer"].tolist() == ["0", "2"] and found.row("2")["models"] == 1
    assert wb.comparison(models, layers=lambda layer: layer.depth == 1, metric="rank").frame()["layer"].tolist() == [
        "1"
    ]


# Labels


def test_labels_come_from_the_sources_and_differ(tmp_path: Path) -> None:
    for name in ("x/one.safetensors", "x/two.safetensors", "y/one.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_file({"fc.weight": torch.eye(3)}, tmp_path / name)

    def labels(models: list[Any]) -> list[str]:
        return wb.comparison(models, metric="rank").frame("models")["label"].tolist()

    x_one, x_two, y_one = (tmp_path / name for name in ("x/one.safetensors", "x/two.safetensors", "y/one.safetensors"))
    assert labels([x_one, x_two]) == ["one.safetensors", "two.safetensors"]
    assert labels([x_one, y_one]) == ["x/one.safetensors", "y/one.safetensors"]
    assert labels([x_one, x_one]) == ["one.safetensors", "one.safetensors (2)"]
    assert labels([scaled(1)] * 3) == [f"a mapping in memory{more}" for more in ("", " (2)", " (3)")]
    found = wb.comparison([x_one, y_one], metric="rank")
    assert str(tmp_path) not in repr(found) and str(tmp_path) not in str(wb.figure(found).provenance)


def test_steps_are_labels_too() -> None:
    found = wb.comparison({0: scaled(1), 100: scaled(2)}, metric="rank")
    assert found.frame("models")["label"].tolist() == ["0", "100"]


# Refusals

REFUSED = {
    "wb.comparison([model])": ("ArgumentError", ["has 1", "two or more", "wb.spectrum"]),
    "wb.comparison({})": ("ArgumentError", ["has 0", "two or more"]),
    "wb.comparison(model)": ("ArgumentError", ["one dict", "expected several"]),
    "wb.comparison(wb.load(model))": ("ArgumentError", ["one Weights", "expected several"]),
    "wb.comparison('a.safetensors')": ("ArgumentError", ["one str", "expected several"]),
    "wb.comparison(torch.nn.Sequential())": ("ArgumentError", ["one Sequential", "expected several"]),
    "wb.comparison({'a': model, 'b': 3})": ("SourceTypeError", ["models['b']", "got int"]),
    "wb.comparison([model, 'nowhere.pt'])": ("CheckpointNotFoundError", ["nowhere.pt"]),
    "wb.comparison({1: model, '1': model})": ("ArgumentError", ["label '1'", "two models"]),
    "wb.comparison({'': model, 'b': model})": ("ArgumentError", ["label ''", "empty"]),
    "wb.comparison([model, {'x.weight': torch.eye(3)}])": (
        "LayerNotFoundError",
        ["no layer is in two of the 2 models", "['fc']", "['x']"],
    ),
    "wb.comparison([model, model], layers='fd')": ("LayerNotFoundError", ["'fd'", "Did you mean 'fc'"]),
    "wb.comparison([model, model], layers=[])": ("LayerNotFoundError", ["empty list"]),
    "wb.comparison([model, model], layers=[3])": ("ArgumentError", ["layers=3"]),
    "wb.comparison([model, model], layers=3)": ("ArgumentError", ["layers=3"]),
    "wb.comparison([model, model], metric='alfa')": ("ArgumentError", ["'alfa' is no column", "Did you mean 'alpha'"]),
    "wb.comparison([model, model], metric='verdict')": ("ArgumentError", ["'verdict' is no number", "stable_rank"]),
    "wb.comparison([model, model], metric='depth')": ("ArgumentError", ["'depth'"]),
    "wb.comparison([model, model], metric='windows')": ("ArgumentError", ["'windows' is no column of a Spectrum"]),
    "wb.comparison([model, model], analysis='farm')": ("ArgumentError", ["'spectrum' or 'farms'", "mean 'farms'"]),
    "wb.comparison([model, model], xmim=1.0)": ("ArgumentError", ["xmim=1.0", "Did you mean 'xmin'"]),
    "wb.comparison([model, model], detail='noise')": ("ArgumentError", ["detail='noise'", "passes on xmin"]),
    "wb.comparison([model, model], xmin='low')": ("ArgumentError", ["xmin='low'"]),
    "wb.comparison([model, model], progress=3)": ("ArgumentError", ["progress=3"]),
    "wb.figure(wb.comparison([model, model]))": ("FigureError", ["no number of α", "reason"]),
    "wb.figure(wb.comparison([model, model]), 'change')": ("FigureError", ["a number of α", "reason"]),
    "wb.figure(wb.comparison([model, model], metric='rank'), layer='fd')": ("LayerNotFoundError", ["'fd'", "'fc'"]),
}


def test_what_cannot_be_compared_is_refused_with_help(raised: Callable[[Iterable[str]], dict[str, list[str]]]) -> None:
    found = raised(REFUSED)
    for code, (kind, words) in REFUSED.items():
        assert found[code][0] == kind, (code, found[code])
        assert all(word in found[code][1] for word in words), (code, found[code])


# Progress, cancelling, the cache


def test_progress_counts_the_layers_of_all_models() -> None:
    seen: list[Progress] = []
    wb.comparison({"a": scaled(1, 2), "b": scaled(1), "c": scaled(1, 2)}, metric="rank", progress=seen.append)
    assert [(one.done, one.item) for one in seen] == [
        *((0, "a: 0"), (1, "a: 1"), (2, "b: 0"), (3, "c: 0"), (4, "c: 1"), (5, ""))
    ]
    assert {one.total for one in seen} == {5}
    assert [one.seconds for one in seen] == sorted(one.seconds for one in seen)


@pytest.mark.parametrize("after", range(6))
def test_a_cancel_keeps_what_was_done(after: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == after:
            raise wb.Cancelled

    models = {"a": scaled(1, 2), "b": scaled(2, 3), "c": scaled(3, 4)}
    with pytest.raises(wb.Cancelled) as caught:
        wb.comparison(models, metric="lambda_max", progress=stop)
    found = caught.value.partial
    assert found.meta["cancelled"] == {"done": after, "total": 6}
    assert f"CANCELLED after {after} of 6 layers" in repr(found)
    values = found.frame("values").sort_values(["place", "layer"])
    expected = [1.0, 4, 4, 9, 9, 16][:after] + [math.nan] * (6 - after)
    np.testing.assert_array_equal(values["value"], expected)
    assert values["verdict"].tolist()[after:] == ["not done"] * (6 - after)
    assert found.frame("models")["numbers"].sum() == after


def test_a_finished_comparison_is_not_called_cancelled() -> None:
    assert "cancelled" not in wb.comparison([scaled(1), scaled(2)], metric="rank").meta


def test_the_cache_is_passed_on_and_one_layer_in_two_models_is_computed_once(tmp_path: Path) -> None:
    models = [scaled(1, 2), scaled(1, 3)]
    first = wb.comparison(models, metric="lambda_max", cache=tmp_path / "cache")
    again = wb.comparison(models, metric="entropy", cache=tmp_path / "cache")
    assert (first.meta["cache"]["found"], first.meta["cache"]["computed"]) == (1, 3)
    assert (again.meta["cache"]["found"], again.meta["cache"]["computed"]) == (4, 0)


def test_it_is_saved_and_opened_bit_by_bit(tmp_path: Path) -> None:
    found = wb.comparison([scaled(1, 2), scaled(2)], metric="lambda_max")
    again = wb.open_result(found.save(tmp_path / "comparison"))
    assert isinstance(again, wb.Comparison) and dict(again.meta) == dict(found.meta)
    for table in found.TABLES:
        assert again.frame(table).equals(found.frame(table))


def test_notes_say_which_model_they_are_of(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.eye(3)}, tmp_path / "one.safetensors")
    notes = wb.comparison({"file": tmp_path / "one.safetensors", "memory": {"fc.weight": torch.eye(3)}}).meta["notes"]
    assert notes and all(note.startswith("file: ") for note in notes)


# Figures


@pytest.fixture(scope="module")
def few() -> wb.Comparison:
    alphas = {"start": (2.5, 3.0), "middle": (3.0, 3.0), "end": (4.0, 2.5)}
    return wb.comparison(
        {label: {f"{n}.weight": pareto(a) for n, a in enumerate(own)} for label, own in alphas.items()}
    )


def test_few_layers_are_lines_with_their_errors(few: wb.Comparison) -> None:
    (panel,) = wb.figure(few).panels
    lines, points = ([m for m in panel.marks if isinstance(m, kind)] for kind in (Line, Points))
    values = few.frame("values")
    for number, (line, mark) in enumerate(zip(lines, points, strict=True)):
        own = values[values["layer"] == str(number)]
        assert line.x == mark.x == (0.0, 1.0, 2.0) and list(line.y) == list(mark.y) == own["value"].tolist()
        assert list(mark.error) == own["error"].tolist() and mark.label == str(number)
    assert panel.title == "0: start · 1: middle · 2: end"
    one = wb.figure(few, layer="1").panels[0].marks
    assert len(one) == 2 and one[1].ids == ("1",) * 3


def test_many_layers_are_a_map(few: wb.Comparison) -> None:
    models = [scaled(1, 2, 3, 4, 5, 6), scaled(2, 3, 4, 5, 6, 7), scaled(2, 3, 4, 5, 6)]
    found = wb.comparison(models, metric="lambda_max")
    (panel,) = wb.figure(found).panels
    (heat,) = panel.marks
    assert isinstance(heat, Heat) and panel.y.descending
    squares = np.arange(1.0, 7)[:, None] ** 2, np.arange(2.0, 8)[:, None] ** 2, np.arange(2.0, 8)[:, None] ** 2
    expected = np.hstack(squares)
    expected[5, 2] = math.nan
    np.testing.assert_array_equal(heat.values, expected)
    assert heat.limits == (1.0, 49.0)
    (line, points) = wb.figure(found, layer="5").panels[0].marks
    assert math.isnan(line.y[2]) and points.y == (36.0, 49.0) and points.error == ()


def test_first_and_last_stand_over_depth(few: wb.Comparison) -> None:
    first, last, ring = wb.figure(few, "change", layer="1").panels[0].marks
    table = few.frame()
    assert list(first.y) == table["first"].tolist() and list(last.y) == table["last"].tolist()
    assert (first.label, last.label, ring.ids, first.x) == ("start", "end", ("1",), (0.0, 1.0))


def test_alpha_without_a_tail_is_drawn_grey() -> None:
    draws = torch.Generator().manual_seed(0)
    found = wb.comparison([{"fc.weight": torch.randn(80, 120, generator=draws)}, {"fc.weight": pareto(3.0)}])
    words = found.frame("values")["verdict"].tolist()
    assert words == ["no tail", "typical"]
    noise = wb.comparison([{"fc.weight": torch.randn(80, 120, generator=draws)} for _ in range(2)])
    assert [mark.label for mark in wb.figure(noise).panels[0].marks] == ["fc", "no tail"], "the line keeps the name"
    points = {mark.label: mark for mark in wb.figure(found).panels[0].marks if isinstance(mark, Points)}
    assert points["no tail"].role == "muted" and points["no tail"].x == (0.0,) and points["fc"].x == (1.0,)


@pytest.mark.parametrize("kind", ["trajectory", "change"])
@pytest.mark.parametrize("metric", ["alpha", "rank"])
def test_figures_are_drawn_by_both_renderers(kind: str, metric: str, tmp_path: Path) -> None:
    models = [{f"{n}.weight": pareto(2 + n / 4 + m, 30) for n in range(7)} for m in range(8)]
    spec = wb.figure(wb.comparison(models, metric=metric), kind)
    spec.to_plotly()
    assert spec.save(tmp_path / "figure.pdf").stat().st_size > 0

"""Results joined by layer: nothing dropped, nothing read that is not to be read, no models mixed up unseen."""

import itertools
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb

ALPHA = {"fc1": 3.0, "fc2": 2.5, "fc3": 4.0, "fc4": 3.5}


def pareto(alpha: float, count: int = 60) -> torch.Tensor:
    """A matrix whose eigenvalues are the quantiles of a power law."""
    grid = (1 - (np.arange(1, count + 1) - 0.5) / count) ** (-0.5 / (alpha - 1))
    return torch.diag(torch.from_numpy(grid))


@cache
def network(seed: int = 0) -> dict[str, torch.Tensor]:
    """Four layers with tails, one of noise, and a bias."""
    random = torch.Generator().manual_seed(seed)
    layers = {f"{name}.weight": pareto(alpha + 0.01 * seed) for name, alpha in ALPHA.items()}
    layers["noise.weight"] = torch.randn(60, 60, generator=random, dtype=torch.float64)
    return layers | {"fc1.bias": torch.randn(60, generator=random, dtype=torch.float64)}


def tuned(model: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Layers with a lighter tail change more."""
    return {
        name: tensor * (1 + 0.01 * ALPHA.get(name.removesuffix(".weight"), 9.0) ** 2) for name, tensor in model.items()
    }


@cache
def spectrum() -> wb.Spectrum:
    return wb.spectrum(network())


@cache
def diff() -> wb.Diff:
    return wb.diff(network(), tuned(network()))


@cache
def joined() -> wb.Atlas:
    return wb.atlas(spectrum(), diff())


def cell(atlas: wb.Atlas, layer: str, column: str) -> dict[str, Any]:
    cells = atlas.frame("cells")
    return dict(cells[(cells["layer"] == layer) & (cells["column"] == column)].iloc[0])


def test_a_row_per_layer_with_the_numbers_of_every_result() -> None:
    frame = joined().frame().set_index("layer")
    assert sorted(frame.index) == sorted([*ALPHA, "noise", "fc1.bias"])
    for layer, row in spectrum().frame().set_index("layer").iterrows():
        assert frame.loc[layer, "spectrum.alpha"] == row["alpha"]
        assert frame.loc[layer, "spectrum.rows"] == row["rows"]
    for layer, row in diff().frame().set_index("layer").iterrows():
        assert frame.loc[layer, "diff.relative_norm"] == row["relative_norm"]
    assert frame.loc["fc1", "size"] == 3600 and frame.loc["fc3", "depth"] == 2
    row = joined().row("fc2")
    assert row["layer"] == "fc2" and row["diff.relative_norm"] == diff().row("fc2")["relative_norm"]


def test_what_only_one_result_has_is_a_row_with_its_reason() -> None:
    assert joined().alone["layer"].tolist() == ["fc1.bias"] and joined().alone["reason"].tolist() == ["diff"]
    missing = cell(joined(), "fc1.bias", "spectrum.alpha")
    assert math.isnan(missing["value"]) and not missing["used"] and missing["reason"] == "no such row in spectrum"
    sources = joined().frame("sources").set_index("label")
    assert sources.loc["diff", ["rows", "joined"]].tolist() == [6, 5]
    assert sources.loc["spectrum", ["rows", "joined"]].tolist() == [5, 5]


def test_an_alpha_of_noise_stays_in_its_column_and_enters_no_correlation() -> None:
    found = cell(joined(), "noise", "spectrum.alpha")
    assert found["value"] == spectrum().row("noise")["alpha"] and not found["used"]
    assert found["reason"].startswith("no tail: α is then no exponent")
    assert cell(joined(), "noise", "spectrum.stable_rank")["used"], "a norm is no fit"
    row = joined().pair("spectrum.alpha", "diff.relative_norm")
    assert (row["layers"], row["unread"], row["rho"]) == (4, 1, pytest.approx(1))
    kept = wb.atlas(spectrum(), diff(), unread="kept").pair("spectrum.alpha", "diff.relative_norm")
    assert (kept["layers"], kept["unread"]) == (5, 0)
    columns = joined().frame("columns").set_index("column")
    assert columns.loc["spectrum.alpha", ["numbers", "used", "unread"]].tolist() == [5, 4, 1]
    assert columns.loc["spectrum.alpha", "meaning"] == wb.Spectrum.COLUMNS["layers"]["alpha"].meaning


def test_a_planted_law_is_found_where_there_are_layers_enough_and_too_few_says_so_where_not() -> None:
    few = joined().pair("spectrum.alpha", "diff.relative_norm")
    assert few["verdict"] == "too few" and few["p"] == pytest.approx(2 / 24) == few["p_least"]
    assert few["partial_verdict"] == "too few" and "depth leave 4 layers no freedom" in few["reason"]
    assert "no order of 4 layers has a p below 0.083" in few["reason"] and few["layers_needed"] == 5
    base = {f"{n}.weight": pareto(2.2 + 0.1 * ((7 * n) % 12)) for n in range(12)}
    change = {name: w * (1.2 - 0.01 * ((7 * n) % 12)) for n, (name, w) in enumerate(base.items())}
    many = wb.atlas(wb.spectrum(base), wb.diff(base, change)).pair("diff.relative_norm", "spectrum.alpha")
    assert many["verdict"] == many["partial_verdict"] == "negative" and many["controls"] == "depth"
    assert many["rho"] == pytest.approx(-1, abs=0.03) and many["p"] == pytest.approx(1e-4)


def test_noise_beside_noise_is_not_told_from_0() -> None:
    random = torch.Generator().manual_seed(5)
    base = {f"{n}.weight": torch.randn(30, 30, generator=random) for n in range(12)}
    other = {
        name: w + torch.randn(30, 30, generator=random) * torch.rand(1, generator=random) for name, w in base.items()
    }
    row = wb.atlas(wb.contents(base), wb.diff(base, other)).pair("contents.rms", "diff.relative_norm")
    assert row["verdict"] == row["partial_verdict"] == "not distinguishable from 0"
    assert row["rho_low"] < row["rho"] < row["rho_high"] and row["layers_needed"] > 12


def test_what_is_equal_in_all_layers_is_constant_and_no_test() -> None:
    found = wb.atlas(spectrum(), diff(), columns=["spectrum.rows", "spectrum.alpha", "diff.relative_norm"])
    row = found.pair("spectrum.rows", "spectrum.alpha")
    assert row["verdict"] == "constant" and math.isnan(row["rho"]) and math.isnan(row["p_holm"])
    assert row["reason"].startswith("spectrum.rows: equal in all layers")
    assert found.pair("spectrum.alpha", "diff.relative_norm")["controls"] == "depth", "all are of one size"
    alone = wb.atlas(spectrum(), diff(), columns=["spectrum.alpha", "depth"]).pair("spectrum.alpha", "depth")
    assert alone["partial_verdict"] == "no control" and math.isnan(alone["partial"])
    tested = found.pair("spectrum.alpha", "diff.relative_norm")
    assert tested["p_holm"] == tested["p"], "one test is corrected for none"


def test_order_of_results_and_labels_of_columns_change_no_number() -> None:
    results = [spectrum(), diff(), wb.contents(network())]
    tables = []
    for order in itertools.permutations(results):
        rows = wb.atlas(*order, columns=["*.alpha", "*.relative_norm", "*.rms"]).frame("correlations")
        tables.append(rows.sort_values(["first", "second"]).reset_index(drop=True))
    assert all(table.equals(tables[0]) for table in tables)
    assert (tables[0]["first"] < tables[0]["second"]).all()


def test_several_results_of_one_kind_have_labels() -> None:
    other = wb.diff(network(), {name: tensor * 2 for name, tensor in network().items()})
    by_mapping = wb.atlas(spectrum(), {"double": other, "little": diff()})
    by_keyword = wb.atlas(spectrum(), double=other, little=diff())
    assert by_mapping.frame("columns").equals(by_keyword.frame("columns"))
    assert by_mapping.row("fc1")["double.relative_norm"] == pytest.approx(1)
    assert by_mapping.row("fc1")["little.relative_norm"] == pytest.approx(0.09)


def test_a_saved_atlas_and_an_atlas_of_reopened_results_are_the_same(tmp_path: Path) -> None:
    again = wb.open_result(joined().save(tmp_path / "atlas"))
    assert isinstance(again, wb.Atlas) and again.frame().equals(joined().frame())
    assert again.frame("correlations").equals(joined().frame("correlations")) and repr(again) == repr(joined())
    reopened = [wb.open_result(one.save(tmp_path / one.__class__.__name__)) for one in (spectrum(), diff())]
    assert wb.atlas(*reopened).frame().equals(joined().frame())


def test_a_cancelled_result_says_where_its_rows_are() -> None:
    def stop(progress: wb.Progress) -> None:
        if progress.done == 2:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stopped:
        wb.spectrum(network(), progress=stop)
    found = wb.atlas(stopped.value.partial, diff())
    assert "spectrum was cancelled after 2 of 5" in found.meta["notes"]
    assert cell(found, "fc3", "spectrum.alpha")["reason"] == "no such row in spectrum (cancelled after 2 of 5)"
    row = found.pair("spectrum.alpha", "diff.relative_norm")
    assert row["verdict"] == "too few" and math.isnan(row["rho"]) and "2 layers with both" in row["reason"]


def test_one_layer_is_an_atlas_without_a_correlation() -> None:
    model = {"fc.weight": pareto(3)}
    found = wb.atlas(wb.spectrum(model), wb.contents(model))
    assert found.pair("contents.rms", "spectrum.alpha")["verdict"] == "too few" and len(found.frame()) == 1
    assert "1 too few" in repr(found)


def test_a_failed_layer_has_no_number_that_counts() -> None:
    broken = network() | {"fc2.weight": torch.full((60, 60), math.nan)}
    found = wb.atlas(wb.spectrum(broken), wb.contents(broken), columns=["spectrum.tail_size", "contents.rms"])
    tail = cell(found, "fc2", "spectrum.tail_size")
    assert tail["value"] == 0 and not tail["used"] and tail["reason"].startswith("failed")


def test_results_of_different_models_are_not_joined_unasked() -> None:
    other = wb.diff(network(1), tuned(network(1)))
    with pytest.raises(wb.ArgumentError, match="'spectrum' is of .* and 'diff' of .*, which are different models"):
        wb.atlas(spectrum(), other)
    found = wb.atlas(spectrum(), other, across=True)
    assert found.frame("sources")["agreement"].tolist() == ["the first", "another model"]
    assert "diff and spectrum are joined by layer id; whether of one model: another model" in found.meta["notes"]
    assert len(found.frame()) == 6


def test_a_diff_is_of_both_its_models() -> None:
    after = wb.spectrum(tuned(network()))
    found = wb.atlas({"before": spectrum(), "after": after}, diff())
    assert found.frame("sources")["agreement"].tolist() == ["the first", "same tensors", "same tensors"]
    with pytest.raises(wb.ArgumentError, match="different models"):
        wb.atlas({"before": spectrum(), "after": after})


def test_a_module_and_its_tensors_are_known_for_one_model_or_noted() -> None:
    module = nn.Sequential(nn.Linear(6, 30, bias=False), nn.ReLU(), nn.Linear(30, 25, bias=False))
    audit = wb.degeneracy(module, [torch.randn(50, 6, generator=torch.Generator().manual_seed(0))], device="cpu")
    same = wb.atlas(wb.spectrum(module), audit)
    assert same.frame("sources")["agreement"].tolist() == ["the first", "same tensors"] and not same.meta["notes"]
    assert {"0", "1", "2"} <= set(same.frame()["layer"]) and "1" in set(same.alone["layer"]), "a ReLU has no matrix"
    row = same.row("2")
    blocks = audit.frame("blocks").set_index("layer")
    assert row["degeneracy.block_hessian_rank"] == blocks.loc["2", "hessian_rank"]
    assert row["degeneracy.block_hessian_share"] == blocks.loc["2", "hessian_rank"] / 750
    assert same.row("1")["degeneracy.activation_share"] == audit.row("1")["activation_rank"] / 30
    biased = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 25))
    audit = wb.degeneracy(biased, [torch.randn(50, 6, generator=torch.Generator().manual_seed(0))], device="cpu")
    unknown = wb.atlas(wb.spectrum(biased), audit)
    assert "whether of one model: not known" in unknown.meta["notes"][0]


def test_ranks_of_too_few_datapoints_are_not_read() -> None:
    module = nn.Sequential(nn.Linear(6, 30, bias=False), nn.ReLU(), nn.Linear(30, 25, bias=False))
    audit = wb.degeneracy(module, [torch.randn(10, 6, generator=torch.Generator().manual_seed(0))], device="cpu")
    assert audit.row("1")["verdict"] == "undersampled"
    found = cell(wb.atlas(audit), "1", "degeneracy.gradient_share")
    assert not found["used"] and "fewer datapoints than features" in found["reason"]


def test_parts_of_a_tensor_have_rows_of_their_own_or_one_with_their_mean() -> None:
    random = torch.Generator().manual_seed(0)
    model = {f"h.{n}.attn.in_proj_weight": torch.randn(90, 30, generator=random, dtype=torch.float64) for n in range(3)}
    contents, whole = wb.contents(model), wb.similarity({"a": model, "b": {n: 2 * t for n, t in model.items()}})
    apart = wb.atlas(contents, whole)
    parts = [layer for layer in contents.frame()["layer"] if layer.startswith("h.0.")]
    assert len(parts) == 3 and set(parts) <= set(apart.alone["layer"])
    assert any("shares no layer with any other result" in note for note in apart.meta["notes"])
    joined = wb.atlas(contents, whole, rows="modules")
    row = joined.row("h.0.attn.in_proj_weight")
    assert row["verdict"] == "joined" and row["size"] == 2700
    assert row["contents.rms"] == pytest.approx(np.mean([contents.row(part)["rms"] for part in parts]))
    assert cell(joined, "h.0.attn.in_proj_weight", "contents.rms")["reason"] == "mean of 3 parts"
    assert "averaged into their modules: 9 parts of tensors" in joined.meta["notes"]


def test_every_kind_with_a_table_by_layer_is_joined() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=random, dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=random)
    a, b, c = (
        {name: torch.randn(t.shape, generator=random, dtype=torch.float64) for name, t in module.state_dict().items()}
        for _ in range(3)
    )
    module.load_state_dict(a)
    basis = wb.interaction_basis(module, [x])
    evaluator = wb.evaluator(module, [(x, y)], "cross_entropy", device="cpu")
    match = wb.match(wb.permutation_groups(module, x[:2]), a, b)
    signature = wb.signature(ancestor=a, clean=b, robust=c)
    similarity = wb.similarity({"s": signature, "t": b}, types={"s": "u", "t": "v"})
    results = [
        wb.layers(a),
        wb.spectrum(a),
        wb.farms(a, window=5),
        wb.contents(a),
        wb.tempbalance(a, learning_rate=0.1, estimator="spectrum"),
        wb.alphapruning(a, density=0.5, estimator="spectrum"),
        wb.comparison([a, b]),
        wb.diff(a, b),
        match,
        similarity,
        signature,
        wb.activations(module, [x]),
        wb.degeneracy(module, [x]),
        basis,
        wb.interaction_graph(module, [x], basis),
        *(wb.ablation(evaluator, basis, layer) for layer in ("1", "3")),
    ]
    found = wb.atlas(*results)
    row = found.row("2")
    assert row["matching.reduction"] == match.frame("layers").set_index("layer").loc["2", "reduction"]
    aligned = match.frame("alignment").query("layer == '2' and gamma == 0").iloc[0]
    assert row["matching.alignment_0"] == aligned["overlap_after"] / aligned["vectors"]
    assert row["similarity.between"] == row["similarity.cosine"] == similarity.matrix("2").loc["s", "t"]
    assert math.isnan(row["similarity.within"])
    assert set(similarity.frame("layers")["layer"]) <= set(found.frame()["layer"])
    norms = signature.frame().set_index("tensor")["norm"]
    assert row["signature.energy"] == pytest.approx(norms["2.weight"] ** 2 / (norms**2).sum(), rel=1e-12)
    assert row["comparison.change"] == pytest.approx(row["comparison.last"] - row["comparison.first"], nan_ok=True)
    for layer, ablation in zip(("1", "3"), results[-2:], strict=True):
        assert found.row(layer)["ablation.needed"] == ablation.needed
        assert found.row(layer)["ablation.needed_share"] == ablation.needed / ablation.total
    assert len(found.frame("sources")) == len(results) - 1, "both ablations are one column"
    labels = {name.partition(".")[0] for name in found.frame("columns")["column"]} - {"depth", "size"}
    assert labels == set(found.frame("sources")["label"])


REFUSED: dict[str, Callable[[], Any]] = {
    "no results: expected what analyses returned": lambda: wb.atlas(),
    "the kind PermutationGroups has no table by layer": lambda: wb.atlas(
        wb.permutation_groups(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), torch.zeros(1, 2))
    ),
    "got int: expected results of analyses": lambda: wb.atlas(3),
    "two results are called 'spectrum': give each a label": lambda: wb.atlas(
        spectrum(), wb.spectrum(network(), xmin="median")
    ),
    "'spectrum' and 'again' are the same result": lambda: wb.atlas(spectrum(), again=wb.spectrum(network())),
    "label 'a.b': a label has no": lambda: wb.atlas({"a.b": spectrum()}),
    "label 3: expected a name": lambda: wb.atlas({3: spectrum()}),
    "columns: no column 'spectrum.alhpa'. Did you mean 'spectrum.alpha'": lambda: wb.atlas(
        spectrum(), columns="spectrum.alhpa"
    ),
    "controls: no column 'width'": lambda: wb.atlas(spectrum(), controls=["width"]),
    "permutations=10: expected a whole number, at least 99": lambda: wb.atlas(spectrum(), permutations=10),
    "got results and models=": lambda: wb.atlas(spectrum(), models={"a": [diff()]}),
    "models: expected a mapping": lambda: wb.atlas(models={}),
    "models has the label ''": lambda: wb.atlas(models={"": [diff()]}),
    "this Atlas has no column 'diff.relative'": lambda: joined().values("diff.relative"),
    "'depth' and 'size' are not compared": lambda: joined().pair("depth", "size"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_says_what_to_do(message: str) -> None:
    with pytest.raises(wb.ArgumentError) as refused:
        REFUSED[message]()
    assert message in str(refused.value)


def test_words_out_of_their_range_are_refused_before_the_run_time_checks(raised: Callable[..., Any]) -> None:
    found = raised(
        [
            "wb.atlas(wb.spectrum(model), seed='a')",
            "wb.atlas(wb.spectrum(model), rows='parts')",
            "wb.atlas(wb.spectrum(model), unread='dropped')",
        ]
    )
    assert [message.partition(":")[0] for _, message in found.values()] == [
        "seed='a'",
        "rows='parts'",
        "unread='dropped'",
    ]
    assert {kind for kind, _ in found.values()} == {"ArgumentError"}


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(wb.LayerNotFoundError, match="Did you mean 'fc1'"):
        joined().row("fc11")


def pooled(count: int = 2) -> wb.Atlas:
    return wb.atlas(
        models={
            f"seed {seed}": [wb.spectrum(network(seed)), wb.diff(network(seed), tuned(network(seed)))]
            for seed in range(count)
        }
    )


def test_seeds_of_one_architecture_are_no_further_layers() -> None:
    one, three = joined(), pooled(3)
    assert len(three.frame()) == 18 and set(three.frame("sources")["architecture"]) == {"seed 0"}
    row = three.pair("spectrum.alpha", "diff.relative_norm")
    assert (row["layers"], row["rows"], row["models"]) == (4, 12, 3)
    assert row["p"] == one.pair("spectrum.alpha", "diff.relative_norm")["p"], "three copies prove no more than one"
    assert (
        "2 models repeat the layers of another of the same architecture; these layers count once" in three.meta["notes"]
    )
    with pytest.raises(wb.ArgumentError, match="have a layer 'fc1': say which"):
        three.row("fc1")
    assert three.row("fc1", "seed 2")["model"] == "seed 2"


def test_architectures_are_strata() -> None:
    """Inside of both the change falls with α; the second has larger α and larger changes throughout."""
    small = {f"{n}.weight": pareto(2.2 + 0.2 * n) for n in range(5)}
    large = {f"block.{n}.weight": pareto(5.2 + 0.2 * n) for n in range(5)}
    results = {
        label: [
            wb.spectrum(model),
            wb.diff(model, {k: w * (1 + s - 0.01 * n) for n, (k, w) in enumerate(model.items())}),
        ]
        for label, model, s in (("small", small, 0.1), ("large", large, 0.9))
    }
    row = wb.atlas(models=results).pair("spectrum.alpha", "diff.relative_norm")
    assert row["rho"] == pytest.approx(-1) and row["layers"] == 10 and row["verdict"] == "negative"
    assert row["p"] == pytest.approx(2 / (120 * 120)), "both must fall, or both rise"


def test_a_repr_shows_layers_numbers_and_the_next_call() -> None:
    text = repr(joined())
    assert "Atlas of spectrum, diff: 6 layers, 1 of them in one result only" in text
    assert "spectrum.alpha" in text and "diff.relative_norm" in text and "next: " in text
    assert "<table" in joined()._repr_html_()

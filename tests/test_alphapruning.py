"""`wb.alphapruning`: sparsities by hand, the total to the element, and files with exactly those zeros."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

import workbench as wb
from workbench.figures import Points, Rule
from workbench.spectra import farms_layer
from workbench.spectra.alphapruning import block_of, largest, pruned_counts

DATA = Path(__file__).parents[1] / "data"


def tail(alpha: float, size: int = 200) -> Tensor:
    """A diagonal matrix whose λ are Pareto quantiles."""
    return torch.diag((torch.arange(1, size + 1, dtype=torch.float64) / (size + 0.5)) ** (-0.5 / (alpha - 1)))


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pruned(model: Any, **options: Any) -> wb.AlphaPruning:
    return wb.alphapruning(model, **({"estimator": "spectrum", "xmin": 1.0, "by": "layer"} | options))


# How much of each layer


def test_no_full_matrix_is_paid_for_and_a_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"a.weight": gaussian(150, 120), "b.weight": gaussian(130, 140, seed=1)}
    sizes: list[tuple[int, ...]] = []
    solved = farms_layer.gram_eigenvalues

    def counted(given: Tensor) -> Tensor:
        sizes.append(tuple(given.shape[1:]))
        return solved(given)

    monkeypatch.setattr(farms_layer, "gram_eigenvalues", counted)
    plain = pruned(model, estimator="farms", window=50)
    assert all(min(size) == 1 for size in sizes), "one number a matrix, whether it is finite"
    first, second = (pruned(model, estimator="farms", window=50, cache=tmp_path) for _ in range(2))
    assert plain.tables == first.tables == second.tables and "cache" not in plain.meta
    assert (first.meta["cache"]["computed"], second.meta["cache"]["found"]) == (2, 2)
    whole = wb.farms(model, xmin=1.0, window=50, resamples=0)
    assert plain.tables["layers"]["alpha"] == whole.tables["layers"]["alpha"]
    with pytest.raises(wb.ArgumentError, match="is a file"):
        pruned(model, cache=Path(__file__))


@pytest.mark.parametrize("window", [20, 100])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200, 1e-200])
def test_what_cannot_be_analysed_is_told_in_the_same_words_without_full_matrices(value: float, window: int) -> None:
    weight = torch.full((40, 30), value, dtype=torch.float64)
    model = {"a.weight": weight, "b.weight": gaussian(40, 30)}
    reasons = [wb.farms(model, window=window, resamples=0, full=full).row("a")["reason"] for full in (True, False)]
    assert reasons[0] == reasons[1] and ("1200 of 1200" in reasons[0] or "flow float64" in reasons[0])
    assert math.isnan(wb.farms(model, window=window, resamples=0, full=False).row("b")["alpha_full"])


def test_sparsities_are_the_papers_formula() -> None:
    model = {"a.weight": tail(2.0), "b.weight": tail(5.0, 100), "c.weight": tail(3.0, 300), "c.bias": torch.ones(9)}
    alphas = np.array(wb.spectrum(model, xmin=1.0).frame()["alpha"])
    sizes = np.array([200**2, 100**2, 300**2])
    ratios = 0.7 + (alphas - alphas.min()) / np.ptp(alphas) * 0.6
    expected = ratios * 0.6 * sizes.sum() / (sizes * ratios).sum()
    table = pruned(model, density=0.4, epsilon=0.3).tables["layers"]
    assert table["ratio"] == pytest.approx(ratios)
    assert table["sparsity"] == pytest.approx(expected, abs=1 / sizes.min())
    assert table["density"] == pytest.approx(1 - expected, abs=1 / sizes.min())
    assert sum(table["kept"]) == round(0.4 * sizes.sum())
    assert table["sparsity"][1] > table["sparsity"][2] > table["sparsity"][0]  # the larger α, the more is pruned


@pytest.mark.parametrize(
    ("elements", "ratios", "density", "expected"),
    [
        ([100, 100], [1.0, 1.0], 0.3, [70, 70]),
        ([100, 100], [0.8, 1.2], 0.5, [40, 60]),
        ([100, 300], [0.8, 1.2], 0.5, [36, 164]),  # 200·0.8·100/440 = 36.36…, 163.63…
        ([10, 10], [0.5, 1.5], 0.2, [7, 9]),  # 4 and 12 of 10: one stays, the other gives the rest
        ([10, 10], [0.5, 1.0], 0.25, [6, 9]),  # 5 and just 10 of 10
        ([10, 10, 20], [0.5, 1.5, 1.5], 0.1, [8, 9, 19]),
        ([3, 3, 3], [1.0, 1.0, 1.0], 0.5, [2, 2, 1]),  # round(4.5) = 4 stay, 5 go
        ([7, 9], [0.8, 1.2], 1.0, [0, 0]),
        ([4, 4], [1.0, 1.0], 0.25, [3, 3]),
        ([50, 100, 100], [0.0, 0.8, 1.2], 0.5, [0, 40, 60]),
        ([50], [0.0], 0.5, [0]),
    ],
)
def test_counts_by_hand(elements: list[int], ratios: list[float], density: float, expected: list[int]) -> None:
    assert pruned_counts(elements, ratios, density) == expected


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.floats(0.05, 1.95)), min_size=1, max_size=20),
    st.floats(0.001, 1),
)
def test_counts_add_up_to_the_element_and_leave_one_in_every_layer(
    layers: list[tuple[int, float]], density: float
) -> None:
    elements, ratios = [size for size, _ in layers], [ratio for _, ratio in layers]
    total = sum(elements)
    if round(density * total) < len(layers):
        with pytest.raises(wb.ArgumentError, match="expected one a layer at least"):
            pruned_counts(elements, ratios, density)
        return
    counts = pruned_counts(elements, ratios, density)
    assert total - sum(counts) == round(density * total)
    assert all(0 <= count < size for count, size in zip(counts, elements, strict=True))
    shares = [
        count / (size * ratio) for count, size, ratio in zip(counts, elements, ratios, strict=True) if count < size - 1
    ]
    slack = max(1 / (size * ratio) for size, ratio in layers)
    assert max(shares, default=0) - min(shares, default=0) <= 2 * slack  # in proportion to d·r, but for roundings
    for count, size, ratio in zip(counts, elements, ratios, strict=True):
        if count == size - 1:  # only a layer whose own share asks for as much is pruned to its last element
            assert all(share >= count / (size * ratio) - 2 * slack for share in shares)


@pytest.mark.parametrize("density", [0.9, 0.5, 0.05, 0.01])
def test_the_total_is_what_was_asked_for(density: float) -> None:
    model = {f"{n}.weight": gaussian(40, 11 + n, seed=n) for n in range(5)}
    for options in ({}, {"epsilon": 0.9}, {"estimator": "farms", "xmin": "median", "window": 11}):
        table = pruned(model, density=density, **options).tables["layers"]
        assert sum(table["kept"]) == round(density * sum(table["elements"]))
        assert max(table["sparsity"]) < 1


def test_a_larger_epsilon_spreads_more_and_none_is_uniform() -> None:
    model = {f"{n}.weight": tail(alpha) for n, alpha in enumerate((2.0, 3.0, 4.0))}
    spans = [np.ptp(pruned(model, epsilon=epsilon).tables["layers"]["sparsity"]) for epsilon in (0, 0.1, 0.2, 0.3)]
    assert spans[0] <= 1 / 200**2 and spans == sorted(spans) and spans[3] == pytest.approx(0.42, abs=0.01)


def test_equal_alphas_are_pruned_alike() -> None:
    table = pruned({f"{n}.weight": tail(3.0) for n in range(3)}, density=0.25).tables["layers"]
    assert table["ratio"] == (1, 1, 1) and table["kept"] == (10000, 10000, 10000)


# Blocks


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("encoder.layer.3.attention.self.query", "encoder.layer.3"),
        ("model.layers.10.mlp.experts.3", "model.layers.10"),
        ("model.layers.10.mlp.experts.3.w1", "model.layers.10"),
        ("layer1.0.conv1", "layer1.0"),
        ("layer1.0.downsample.0", "layer1.0"),
        ("h.0.attn.c_attn.q", "h.0"),
        ("features.12", "features.12"),
        ("0", "0"),
        ("3.1", "3"),
        ("conv1", "conv1"),
        ("fc", "fc"),
        ("embeddings.word_embeddings", "embeddings.word_embeddings"),
    ],
)
def test_the_block_of_a_layer(layer: str, block: str) -> None:
    assert block_of(layer) == block


def test_the_layers_of_a_block_share_its_mean_alpha() -> None:
    alphas = {"blocks.0.a": 2.0, "blocks.0.b": 4.0, "blocks.1.a": 5.0, "blocks.1.b": 2.5, "head": 3.5}
    model = {f"{name}.weight": tail(alpha) for name, alpha in alphas.items()}
    table = pruned(model, by="block").frame().set_index("layer")
    assert table["block"].tolist() == ["blocks.0", "blocks.0", "blocks.1", "blocks.1", "head"]
    means = table.groupby("block")["alpha"].mean()
    assert table["score"].tolist() == pytest.approx([means[block] for block in table["block"]])
    low, high = means.min(), means.max()
    assert table["ratio"].tolist() == pytest.approx(
        [0.8 + 0.4 * (means[block] - low) / (high - low) for block in table["block"]]
    )
    single = pruned(model, by="layer").frame()
    assert single["score"].tolist() == single["alpha"].tolist()


def test_a_layer_without_alpha_has_ratio_one_and_a_failed_one_is_left_whole() -> None:
    bad = gaussian(50, 50)
    bad[3, 4] = math.nan
    model = {"a.weight": tail(2.0), "eye.weight": torch.eye(50), "bad.weight": bad, "b.weight": tail(4.0)}
    found = pruned(model, xmin="median", density=0.3)
    table = found.frame().set_index("layer")
    assert table["ratio"].to_dict() == pytest.approx({"a": 0.8, "eye": 1.0, "bad": 0.0, "b": 1.2})
    assert table["kept"]["bad"] == 2500 and table["verdict"]["bad"] == "failed"
    assert table["reason"]["bad"].startswith("left whole: 1 of 2500")
    assert table["reason"]["eye"] == "ratio 1: no α; the eigenvalues are all equal: the tail has no spread"
    counted = table.drop("bad")
    assert counted["kept"].sum() == round(0.3 * counted["elements"].sum())
    assert "1 layer left whole" in found.facts()
    assert torch.equal(found.apply(model)["bad.weight"].isnan(), bad.isnan())


# What is pruned


@given(st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=30), st.floats(0, 1))
def test_the_largest_are_kept_and_of_equal_ones_the_last(values: list[float], share: float) -> None:
    count = round(share * len(values))
    order = sorted(range(len(values)), key=lambda place: (abs(values[place]), place))
    kept = set(order[len(values) - count :])
    mask = largest(torch.tensor(values), count)
    assert {place for place, keep in enumerate(mask.tolist()) if keep} == kept


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_is_ranked_exactly(dtype: torch.dtype) -> None:
    values = gaussian(37, 11).to(dtype)
    for count in (0, 1, 200, 406, 407):
        mask = largest(values, count)
        assert int(mask.sum()) == count
        if 0 < count < values.numel():
            assert values[mask].abs().min() >= values[~mask].abs().max()
    odd = torch.tensor([1.0, math.nan, 5.0, math.inf, 2.0]).to(dtype)
    assert largest(odd, 2).tolist() == [False, True, False, True, False]


def conv_net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Conv2d(24, 30, 3), nn.Flatten(), nn.Linear(30, 40)
        )


def test_apply_zeroes_the_smallest_of_each_layer_and_hands_on_the_rest_bit_for_bit(tmp_path: Path) -> None:
    module = conv_net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = pruned(module, layers=["2", "4"], density=0.2, xmin="median")
    read = load_file(wb.save(found.apply(module), tmp_path / "pruned.safetensors"))
    assert list(read) != [] and set(read) == set(before)
    for name in before:
        if name in ("2.weight", "4.weight"):
            row = found.row(name.removesuffix(".weight"))
            size = before[name].abs().flatten().sort().values
            expected = torch.where(before[name].abs() > size[row["elements"] - row["kept"] - 1], before[name], 0)
            assert torch.equal(read[name], expected)
            assert int(read[name].count_nonzero()) == row["kept"]
        else:
            assert torch.equal(read[name], before[name])
        assert read[name].dtype == before[name].dtype
        assert torch.equal(module.state_dict()[name], before[name])  # the model itself is as it was
    kept = sum(int(read[f"{layer}.weight"].count_nonzero()) for layer in ("2", "4"))
    assert kept == round(0.2 * (24 * 30 * 9 + 30 * 40))


def test_masks_are_true_where_apply_keeps_and_can_be_saved(tmp_path: Path) -> None:
    module = conv_net()
    found = pruned(module, density=0.4, xmin="median")
    masks, applied = found.masks(module), found.apply(module)
    assert list(masks) == ["0.weight", "2.weight", "4.weight"]
    for name, mask in masks.items():
        assert mask.dtype == torch.bool
        assert torch.equal(module.state_dict()[name] * mask, applied[name])
        assert torch.equal(mask, applied[name] != 0)
    read = load_file(wb.save(masks, tmp_path / "masks.safetensors"))
    assert all(read[name].dtype == torch.bool and torch.equal(read[name], masks[name]) for name in masks)


def test_tied_names_parts_and_order_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z = nn.Embedding(30, 20)
            self.attention = nn.MultiheadAttention(24, 2)
            self.a = nn.Linear(20, 30, bias=False)
            self.a.weight = self.z.weight

    module = Tied()
    found = pruned(module, density=0.5, xmin="median")
    applied = found.apply(module)
    assert list(applied) == list(wb.load(module)) and applied.infos == wb.load(module).infos
    assert torch.equal(applied["a.weight"], applied["z.weight"])
    assert int(applied["a.weight"].count_nonzero()) == found.row("z")["kept"]
    fused = applied["attention.in_proj_weight"].chunk(3)
    for part, tensor in zip("qkv", fused, strict=True):
        assert int(tensor.count_nonzero()) == found.row(f"attention.in_proj_weight.{part}")["kept"]
    assert list(found.masks(module)) == ["z.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    module.load_state_dict(dict(applied))


def test_apply_reads_one_tensor_at_a_time_and_only_when_asked(unchecked: Callable[..., Any]) -> None:
    script = """
import json, torch, workbench as wb
weights = wb.load({f"{n}.weight": torch.arange(600.0).reshape(30, 20) + n for n in range(3)})
found, reads, read = wb.alphapruning(weights), [], weights._read
weights._read = lambda info: (reads.append(info.name), read(info))[1]
applied, masks = found.apply(weights), found.masks(weights)
first = list(reads)
applied["1.weight"].zero_()
print(json.dumps([first, reads, int(applied["1.weight"].count_nonzero()), found.row("1")["kept"], applied.notes[-1]]))
"""
    before, after, nonzero, kept, note = unchecked(script)
    assert (before, after) == ([], ["1.weight", "1.weight"])  # read anew: what is handed out is a copy
    assert nonzero == kept
    assert note.startswith("pruned by magnitude by wb.alphapruning to a density of 0.3: AlphaPruning of")


def test_another_model_is_refused() -> None:
    found = pruned({"layer.a.weight": gaussian(30, 20), "b.weight": gaussian(20, 20)}, xmin="median")
    other = {"layer.aa.weight": gaussian(30, 20), "b.weight": gaussian(20, 20)}
    for use in (found.apply, found.masks):
        with pytest.raises(wb.LayerNotFoundError, match=r"no layer 'layer.a' to prune. Did you mean 'layer.aa'"):
            use(other)
        with pytest.raises(wb.ArgumentError, match="'layer.a' of .* has 900 elements, 600 where it was analysed"):
            use({"layer.a.weight": gaussian(30, 30), "b.weight": gaussian(20, 20)})


# Arguments, and what a result says of itself

ARGUMENTS = {
    "density=0": "density=0: expected the share that is kept, in (0, 1].",
    "density=1.1": "density=1.1: expected the share that is kept",
    "density=-0.3": "density=-0.3: expected the share that is kept",
    "density=math.nan": "density=nan: expected the share that is kept",
    "density='0.3'": "density='0.3': expected the share that is kept",
    "density=True": "density=True: expected the share that is kept",
    "density=1e-4": "density=0.0001 keeps 0 of 1800 elements in 2 layers: expected one a layer at least, a density of",
    "epsilon=-0.1": "epsilon=-0.1: expected a number in [0, 1); 0.1 to 0.3 are usual.",
    "epsilon=1": "epsilon=1: expected a number in [0, 1)",
    "by='blocks'": "Did you mean 'block'?",
    "layers='a'": "'a' is the only block: α is compared between blocks; choose more layers.",
    "layers='a', by='layer'": "'a' is the only layer: α is compared between layers; choose more layers.",
    "estimator='spectra'": "Did you mean 'spectrum'?",
    "estimator='spectrum', window=20": "go with estimator='farms'; full matrices have no windows.",
    "xmin='peek'": "Did you mean 'peak'?",
}


@pytest.fixture(scope="module")
def refusals(raised: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    model = "{'a.weight': torch.eye(30), 'b.weight': torch.eye(30)}"
    found = raised([f"wb.alphapruning({model}, {arguments})" for arguments in ARGUMENTS])
    return dict(zip(ARGUMENTS, found.values(), strict=True))


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_an_argument_out_of_range_says_what_is_expected(arguments: str, refusals: dict[str, list[str]]) -> None:
    name, message = refusals[arguments]
    assert name == "ArgumentError" and ARGUMENTS[arguments] in message


def test_one_block_of_several_layers_names_the_other_rule() -> None:
    model = {"blocks.0.a.weight": tail(2.0), "blocks.0.b.weight": tail(3.0)}
    with pytest.raises(wb.ArgumentError, match="'blocks.0' is the only block: .* by='layer' compares the layers in it"):
        pruned(model, by="block")


def test_a_result_tells_its_parameters_and_reads_back(tmp_path: Path) -> None:
    model = {"a.weight": gaussian(30, 20), "b.weight": gaussian(20, 20)}
    found = wb.alphapruning(model, window=10)
    assert found.meta["parameters"] == {
        "density": 0.3,
        "epsilon": 0.2,
        "by": "block",
        "estimator": "farms",
        "xmin": "median",
        "window": 10,
        "stride": None,
        "layers": None,
    }
    again = wb.open_result(found.save(tmp_path / "pruning"))
    assert isinstance(again, wb.AlphaPruning) and again.tables == found.tables
    assert torch.equal(again.apply(model)["a.weight"], found.apply(model)["a.weight"])
    assert "2 layers, 300 of 1,000 elements kept (0.3), sparsities" in repr(found)


def test_the_figure_shows_every_sparsity_and_that_of_all() -> None:
    bad = torch.full((30, 30), math.nan)
    model = {"a.weight": tail(2.0), "b.weight": tail(4.0), "bad.weight": bad}
    found = pruned(model, density=0.25)
    (panel,) = wb.figure(found, layer="a").panels
    rule, shown, whole, ring = panel.marks
    assert isinstance(rule, Rule) and (rule.axis, rule.value) == ("y", 0.75)
    assert isinstance(shown, Points) and isinstance(whole, Points) and isinstance(ring, Points)
    assert (shown.ids, whole.ids, ring.ids) == (("a", "b"), ("bad",), ("a",))
    assert shown.y == tuple(found.row(name)["sparsity"] for name in ("a", "b")) and whole.y == (0.0,)


# The saved studies


@pytest.fixture(scope="module")
def studies() -> Any:
    sys.path.insert(0, str(DATA))
    try:
        import studies as module
    finally:
        sys.path.remove(str(DATA))
    return module


@pytest.mark.parametrize("name", ["tempbalance-digits", "alphapruning-digits"])
def test_a_saved_study_follows_from_its_own_runs(name: str, studies: Any) -> None:
    from scipy import stats

    study = wb.open_result(DATA / "results" / name)
    comparisons, runs = study.frame(), study.frame("runs")
    assert len(comparisons) and study.meta["recipe"].startswith("scikit-learn's digits")
    for row in comparisons.itertuples():
        mine = runs.query("network == @row.network and pruned == @row.pruned and density == @row.density")
        wide = mine.pivot(index="seed", columns="method", values="test")
        test = stats.ttest_rel(wide[row.method], wide[row.baseline])
        interval = test.confidence_interval(0.95)
        assert row.pairs == len(wide) >= 8
        assert row.difference == pytest.approx((wide[row.method] - wide[row.baseline]).mean(), abs=1e-12)
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
        expected = "better" if row.low > 0 else "worse" if row.high < 0 else "no difference shown"
        assert row.conclusion == expected
    best = study.frame("trials").query("chosen").groupby(["network", "pruned", "method"]).size()
    assert (best == 1).all()
    assert sum(file.stat().st_size for file in (DATA / "results").rglob("*") if file.is_file()) < 400_000


def test_a_method_is_compared_seed_by_seed(studies: Any) -> None:
    runs = [
        {"seed": seed, "method": method, "test": value}
        for method, values in {"new": (0.6, 0.7, 0.9), "old": (0.5, 0.6, 0.7)}.items()
        for seed, value in enumerate(values)
    ]
    found = studies.comparison(runs, "new", "old")
    assert found["difference"] == pytest.approx(0.4 / 3) and found["pairs"] == 3
    assert found["deviation"] == pytest.approx(0.1 / math.sqrt(3))
    half = 4.302652729911275 * (0.1 / math.sqrt(3)) / math.sqrt(3)  # t at 97.5 % with 2 degrees of freedom
    assert (found["low"], found["high"]) == pytest.approx((0.4 / 3 - half, 0.4 / 3 + half))
    assert found["conclusion"] == "no difference shown"

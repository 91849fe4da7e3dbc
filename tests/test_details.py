"""What `wb.spectrum(detail=…)` adds: a row per layer in a table of its own, equal to the function behind it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import nn

import workbench as wb
from workbench.spectra.details import COLUMNS, DETAILS
from workbench.spectra.goodness import goodness
from workbench.spectra.power_law import power_law
from workbench.spectra.tails import tail_comparison

RANDOM = np.random.default_rng(0)
HEAVY = torch.from_numpy(RANDOM.standard_t(2.5, (120, 90)))
NOISE = torch.from_numpy(RANDOM.standard_normal((120, 90)))


@pytest.fixture(scope="module")
def spectrum() -> wb.Spectrum:
    torch.manual_seed(0)
    model = {"heavy.weight": HEAVY, "noise.weight": NOISE, "conv.weight": torch.randn(16, 8, 3, 3)}
    model |= {"zero.weight": torch.zeros(30, 30), "bad.weight": torch.full((30, 30), math.nan), "b": torch.ones(3)}
    return wb.spectrum(model, detail=DETAILS, seed=3)


@pytest.mark.parametrize("name", DETAILS)
def test_every_detail_is_a_table_of_the_layers_that_did_not_fail(spectrum: wb.Spectrum, name: str) -> None:
    frame = spectrum.frame(name)
    assert list(frame.columns) == list(COLUMNS[name])
    rows = set(frame["layer"])
    assert rows == {"heavy", "noise", "conv"} | (set() if name == "vectors" else {"zero"})
    if name != "vectors":
        assert list(frame["layer"]) == ["heavy", "noise", "conv", "zero"]


def test_numbers_are_those_of_numpy_and_of_the_laws(spectrum: wb.Spectrum) -> None:
    noise = spectrum.frame("noise").set_index("layer")
    assert noise.loc["noise", "sigma"] == pytest.approx(1, abs=0.02) and noise.loc["noise", "num_spikes"] == 0
    assert noise.loc["heavy", "num_spikes"] > 0
    low, high = (120 * (1 - math.sqrt(0.75)) ** 2, 120 * (1 + math.sqrt(0.75)) ** 2)  # N·σ²(1 ∓ √q)²
    assert noise.loc["noise", ["bulk_min", "bulk_max"]].tolist() == pytest.approx([low, high], rel=0.05)

    shuffled = spectrum.randomised["heavy"]
    assert float(shuffled.sum()) == pytest.approx(float(HEAVY.square().sum()), rel=1e-12), "the elements are the same"
    randomised = spectrum.frame("randomised").set_index("layer")
    assert randomised.loc["heavy", "max_rand_eval"] == float(shuffled[-1])

    row = spectrum.row("heavy")
    tail = spectrum.eigenvalues["heavy"][-row["tail_size"] :]
    compared = tail_comparison(tail)
    tails = spectrum.frame("tails").set_index("layer").loc["heavy"]
    assert (tails["preferred"], tails["statement"]) == (compared.preferred, compared.statement)
    assert tails["truncated_ratio"] == compared.alternatives[0].ratio
    assert tails["log_normal_p"] == compared.alternatives[1].p_value

    det_x = spectrum.frame("det_x").set_index("layer").loc["noise"]
    logs = np.log(spectrum.eigenvalues["noise"].numpy() / spectrum.eigenvalues["noise"].numpy().mean())
    assert det_x["log_product"] == pytest.approx(logs[-int(det_x["size"]) :].sum(), rel=1e-9)

    vectors = spectrum.frame("vectors").query("layer == 'heavy'")
    values = np.linalg.svd(HEAVY.numpy(), compute_uv=False)[:5]
    np.testing.assert_allclose(vectors["singular_value"], values, rtol=1e-10)
    assert spectrum.frame("vectors").query("layer == 'conv'")["matrix"].nunique() == 9
    good = spectrum.frame("goodness").set_index("layer")
    assert good.loc["heavy", "resamples"] == 100 and math.isnan(good.loc["zero", "p_value"])


def test_a_layer_alone_and_another_order_draw_the_same(spectrum: wb.Spectrum) -> None:
    alone = wb.spectrum({"noise.weight": NOISE, "heavy.weight": HEAVY}, detail=["goodness", "randomised"], seed=3)
    other = wb.spectrum({"heavy.weight": HEAVY}, detail="randomised", seed=4)
    for name in ("goodness", "randomised"):
        ours, theirs = (one.frame(name).set_index("layer").loc["heavy"] for one in (alone, spectrum))
        assert ours.equals(theirs)
    assert not torch.equal(other.randomised["heavy"], alone.randomised["heavy"])
    assert other.meta["seed"] == 4 and wb.spectrum({"heavy.weight": HEAVY}, detail="noise").meta["seed"] is None


def test_details_are_saved_cached_and_missed_by_name(spectrum: wb.Spectrum, tmp_path: Path) -> None:
    again = wb.open_result(spectrum.save(tmp_path / "spectrum"))
    assert isinstance(again, wb.Spectrum)
    for name in DETAILS:
        assert again.frame(name).equals(spectrum.frame(name))
    assert torch.equal(again.randomised["conv"], spectrum.randomised["conv"])
    first, second = (wb.spectrum({"heavy.weight": HEAVY}, detail=DETAILS, cache=tmp_path / "cache") for _ in range(2))
    assert second.meta["cache"]["found"] == 1
    assert all(first.frame(name).equals(second.frame(name)) for name in DETAILS)
    with pytest.raises(wb.ArgumentError, match="has no table 'tails': it is made by wb.spectrum.*detail='tails'"):
        wb.spectrum({"heavy.weight": HEAVY}).frame("tails")


def test_convolutions_of_a_module_and_compat_have_details_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Linear(40, 30))
    plain = wb.spectrum(net, detail=["noise", "vectors"])
    assert plain.frame("vectors").query("layer == '0'")["matrix"].nunique() == 18
    compatible = wb.spectrum(net, compat="weightwatcher", detail="noise")
    ours, theirs = (one.frame("noise").set_index("layer") for one in (plain, compatible))
    assert theirs.loc["0", "sigma"] == pytest.approx(ours.loc["0", "sigma"] * math.sqrt(0.5), rel=1e-12)
    assert theirs.loc["1"].equals(ours.loc["1"])


def test_wrong_details_are_refused(raised: Any) -> None:
    calls = {
        "wb.spectrum(model, detail='tail')": "detail='tail': expected 'noise', 'randomised', 'tails'",
        "wb.spectrum(model, detail=['noise', 'x'])": "detail='x': expected ",
        "wb.spectrum(model, seed=1.5)": "seed=1.5: expected a whole number",
    }
    for code, (kind, message) in raised(calls).items():
        assert kind == "ArgumentError" and calls[code] in message


def test_the_laws_begin_where_the_fit_does() -> None:
    found = wb.spectrum({"heavy.weight": HEAVY}, xmin=200.0, detail="tails")
    tail = found.eigenvalues["heavy"][-found.row("heavy")["tail_size"] :]
    expected = tail_comparison(tail, 200.0)
    assert found.frame("tails")["exponential_ratio"][0] == expected.alternatives[2].ratio
    assert expected.power_law.parameters["alpha"] == pytest.approx(found.row("heavy")["alpha"], rel=1e-9)


@pytest.mark.parametrize("rule", ["search", "median", "peak", 200.0])
def test_p_is_that_of_the_rule_of_the_fit(rule: str | float) -> None:
    found = wb.spectrum({"heavy.weight": HEAVY}, xmin=rule, detail="goodness", seed=5)
    fit = power_law(found.eigenvalues["heavy"], rule)
    expected = goodness(found.eigenvalues["heavy"], fit, rule, seed=5, layer="heavy")
    assert found.frame("goodness")[["p_value", "resamples"]].iloc[0].tolist() == [expected.p_value, 100]


@pytest.mark.parametrize("options", [{}, {"xmin": "peak"}, {"compat": "weightwatcher"}])
def test_details_do_not_depend_on_torchs_default_device(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default of "meta" stands for the "cuda" that notebooks set."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # a default device is one thread's
    chosen = ["noise", "randomised", "goodness", "det_x"]
    expected = wb.spectrum({"heavy.weight": HEAVY}, detail=chosen, device="cpu", **options)
    with torch.device("meta"):
        found = wb.spectrum({"heavy.weight": HEAVY}, detail=chosen, device="cpu", **options)
    for name in found.tables:
        assert_frame_equal(found.frame(name), expected.frame(name))

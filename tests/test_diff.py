"""What `wb.diff` says of two or many models is what numpy says of all their elements at once."""

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import workbench as wb
from workbench.signatures.concentration import robust_z
from workbench.signatures.elements import EXACT, PIECE, element_sums
from workbench.signatures.subspaces import overlap, singular

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def one(a: Tensor, b: Tensor, **options: Any) -> dict[str, Any]:
    return wb.diff({"w.weight": a}, {"w.weight": b}, **options).row("w")


def spectra(change: Tensor, base: Tensor | None = None) -> dict[str, Any]:
    base = random(*change.shape, seed=7) if base is None else base
    found = wb.diff({"w.weight": base}, {"w.weight": base + change}, detail="spectra")
    return found.frame("spectra").iloc[0].to_dict()


# golden tests


def test_a_change_of_rank_one_has_stable_rank_one() -> None:
    change = torch.outer(random(30, seed=1), random(20, seed=2))
    row = spectra(change, torch.zeros(30, 20, dtype=torch.float64))
    assert row["stable_rank"] == pytest.approx(1, abs=1e-12) and row["effective_rank"] == pytest.approx(1, abs=1e-9)
    assert [row[f"rank_{share}"] for share in (50, 90, 95, 99)] == [1, 1, 1, 1]
    assert (row["bytes_90"], row["bytes_full"]) == ((30 + 20) * 8, 30 * 20 * 8)


def test_an_orthogonal_change_has_stable_rank_n() -> None:
    change = torch.linalg.qr(random(24, 24)).Q
    row = spectra(change)
    assert row["stable_rank"] == pytest.approx(24, rel=1e-12) and row["effective_rank"] == pytest.approx(24, rel=1e-12)
    assert [row[f"rank_{share}"] for share in (50, 90, 95, 99)] == [12, 22, 23, 24]


def test_a_change_has_a_cosine_of_one_with_itself_and_conflicts_wholly_with_its_opposite() -> None:
    base, change = random(50, 40, seed=1), random(50, 40, seed=2) / 64
    exact = (base + change) - base  # as the elements hold it
    models = {"one": base + exact, "same": base + exact, "opposite": base - exact}
    found = wb.diff({"w.weight": base}, {name: {"w.weight": own} for name, own in models.items()}, density=0.3)
    for table in ("pairs", "layer_pairs"):
        rows = found.frame(table).set_index(["one", "other"])
        assert rows.loc[("one", "same"), "cosine"] == 1
        assert rows.loc[("one", "same"), ["sign_conflict", "trimmed_conflict"]].tolist() == [0, 0]
        assert rows.loc[("one", "opposite"), "cosine"] == pytest.approx(-1, abs=1e-12)
        assert rows.loc[("one", "opposite"), ["sign_conflict", "trimmed_conflict"]].tolist() == [1, 1]
        assert rows["null_sd"].tolist() == pytest.approx([2000**-0.5] * 3)


def test_opposite_weights_conflict_in_every_sign() -> None:
    row = one(random(9, 9), -random(9, 9))
    assert (row["relative_norm"], row["cosine"], row["sign_conflict"]) == (2, -1, 1)


# against numpy


def differ(one: np.ndarray, other: np.ndarray, among: np.ndarray) -> float:
    among = among & (one != 0) & (other != 0)
    return float(np.mean(np.sign(one[among]) != np.sign(other[among]))) if among.any() else math.nan


def assert_as_numpy(base: Tensor, others: list[Tensor], rel: float = 1e-10) -> None:
    labels = [f"m{n}" for n in range(len(others))]
    models = {label: {"w.weight": own} for label, own in zip(labels, others, strict=True)}
    found = wb.diff({"w.weight": base}, models, density=0.25)
    w = base.double().numpy().reshape(-1)
    taus = [own.double().numpy().reshape(-1) - w for own in others]
    values = found.frame("values")
    for row, tau in zip(values.to_dict("records"), taus, strict=True):
        norms = np.linalg.norm(w), np.linalg.norm(w + tau)
        assert row["changed"] == np.count_nonzero(tau) / tau.size
        assert row["delta_norm"] == pytest.approx(np.linalg.norm(tau), rel=rel)
        assert row["relative_norm"] == pytest.approx(np.linalg.norm(tau) / norms[0], rel=rel)
        assert row["cosine"] == pytest.approx(w @ (w + tau) / (norms[0] * norms[1]), rel=10 * rel, abs=rel)
        assert row["sign_conflict"] == differ(w, w + tau, w == w)
    rows = found.frame("layer_pairs").to_dict("records")
    for row, (i, j) in zip(rows, combinations(range(len(taus)), 2), strict=True):
        one, two = taus[i], taus[j]
        expected = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
        assert row["cosine"] == pytest.approx(expected, rel=10 * rel, abs=10 * rel)
        assert row["sign_conflict"] == differ(one, two, one == one)
        keep = max(round(0.25 * one.size), 1)
        kept = [np.abs(tau) >= np.sort(np.abs(tau))[-keep] for tau in (one, two)]
        assert row["trimmed_conflict"] == pytest.approx(differ(one, two, kept[0] & kept[1]), nan_ok=True)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16), dtype=st.sampled_from(FLOATS), rows=st.integers(2, 30), cols=st.integers(1, 30))
def test_small_tensors_are_as_numpy_in_float64(seed: int, dtype: torch.dtype, rows: int, cols: int) -> None:
    base = random(rows, cols, seed=seed)
    others = [(base + random(rows, cols, seed=seed + n) / 3).to(dtype) for n in (1, 2, 3)]
    assert_as_numpy(base.to(dtype), others)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_large_tensors_in_pieces_are_as_numpy(dtype: torch.dtype) -> None:
    base = random(500, 600)
    assert base.numel() > 2 * PIECE > EXACT
    others = [(base + random(500, 600, seed=n) / 10).to(dtype) for n in (1, 2)]
    assert_as_numpy(base.to(dtype), others, rel=1e-10 if dtype == torch.float64 else 3e-7)


def test_changes_whose_squares_leave_the_range_of_float32_are_summed_in_float64() -> None:
    base = torch.zeros(400, 300)
    for size in (1e-25, 1e25):
        tau = (size * random(400, 300)).float()
        sums = element_sums(base, [tau])
        assert sums.changes[0, 0] == pytest.approx(float(tau.double().square().sum()), rel=1e-6)


def test_frozen_layers_and_zeros_have_their_signs_left_out() -> None:
    base = torch.tensor([[1.0, -1.0, 0.0, 2.0]])
    models = {"one": torch.tensor([[2.0, -1.0, 1.0, 1.0]]), "two": torch.tensor([[0.0, -2.0, 1.0, 3.0]])}
    found = wb.diff({"w.weight": base}, {name: {"w.weight": own} for name, own in models.items()})
    (row,) = found.frame("layer_pairs").to_dict("records")
    assert row["sign_conflict"] == pytest.approx(2 / 3)  # τ = [1, 0, 1, −1] and [−1, −1, 1, 1]
    assert found.frame("values")["sign_conflict"].tolist() == [0, 0] and found.row("w")["changed"] == (3 / 4 + 1) / 2


def test_the_whole_is_the_sum_of_its_layers() -> None:
    base = {f"{n}.weight": random(10 + n, 8, seed=n) for n in range(3)}
    models = {
        str(k): {name: own + random(*own.shape, seed=9 + k) / (k + 2) for name, own in base.items()} for k in range(3)
    }
    del models["2"]["1.weight"]
    found = wb.diff(base, models, floor={name: own * 1.01 for name, own in base.items()})

    def flat(model: dict[str, Tensor], names: list[str]) -> np.ndarray:
        return torch.cat([model[name].reshape(-1) for name in names]).numpy()

    for row in found.frame("models").to_dict("records"):
        names = list(models[row["label"]])
        w, tau = flat(base, names), flat(models[row["label"]], names) - flat(base, names)
        assert row["relative_norm"] == pytest.approx(np.linalg.norm(tau) / np.linalg.norm(w), rel=1e-12)
        assert row["over_floor"] == pytest.approx(row["relative_norm"] / 0.01, rel=1e-9)
        assert row["elements"] == w.size
    for row in found.frame("pairs").to_dict("records"):
        names = [name for name in base if name in models[row["one"]] and name in models[row["other"]]]
        one, two = (flat(models[row[side]], names) - flat(base, names) for side in ("one", "other"))
        assert row["cosine"] == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), rel=1e-10)
        assert row["elements"] == one.size
    assert "'1.weight' is in the base and not in " in found.meta["notes"][0] and found.row("1")["models"] == 2


# the floor


def test_the_floor_decides_what_is_beyond_it() -> None:
    base = {"a.weight": random(9, 9), "b.weight": random(9, 9, seed=1)}
    other = {"a.weight": 1.3 * base["a.weight"], "b.weight": 1.1 * base["b.weight"]}
    found = wb.diff(base, other, floor={name: 1.2 * own for name, own in base.items()})
    assert found.frame()["over_floor"].tolist() == pytest.approx([1.5, 0.5])
    assert found.frame()["verdict"].tolist() == ["beyond floor", "within floor"]
    assert found.frame()["floor"].tolist() == pytest.approx([0.2, 0.2])
    part = wb.diff(base, other, floor={"a.weight": 1.2 * base["a.weight"]})
    assert part.row("b")["verdict"] == "changed" and math.isnan(part.row("b")["over_floor"])


# the manifest


def test_the_manifest_tells_what_headers_and_bytes_tell() -> None:
    base = {
        "same.weight": random(3, 4),
        "changed.weight": random(3, 4, seed=1),
        "old.weight": random(5, 4, seed=2),
        "shape.weight": random(3, 4, seed=3),
        "dtype.weight": random(3, 4, seed=4),
        "gone": random(3, seed=5),
    }
    other = {
        "same.weight": base["same.weight"].clone(),
        "changed.weight": base["changed.weight"] + 1,
        "new.weight": base["old.weight"].clone(),
        "shape.weight": random(4, 4),
        "dtype.weight": base["dtype.weight"].float(),
        "extra": random(9),
    }
    found = wb.diff(base, other)
    rows = {row["tensor"]: row for row in found.frame("manifest").to_dict("records")}
    assert {name: (row["change"], row["content"]) for name, row in rows.items()} == {
        "same.weight": ("kept", "identical"),
        "changed.weight": ("kept", "differs"),
        "old.weight": ("renamed", "identical"),
        "shape.weight": ("shape", "differs"),
        "dtype.weight": ("dtype", "differs"),
        "gone": ("removed", "no partner"),
        "extra": ("added", "no partner"),
    }
    assert rows["old.weight"]["other_name"] == "new.weight" and rows["shape.weight"]["other_shape"] == "4×4"
    assert rows["dtype.weight"]["other_dtype"] == "float32"
    model = found.frame("models").iloc[0]
    assert model[["compared", "identical", "renamed", "added", "removed", "shape", "dtype"]].tolist() == [
        4, 2, 1, 1, 1, 1, 1,
    ]  # fmt: skip
    assert found.row("same")["verdict"] == found.row("old")["verdict"] == "identical"
    assert found.row("gone")["verdict"] == "absent" and found.row("gone")["reason"].startswith("not in ")
    assert found.row("shape")["verdict"] == "shape" and "4×4 in" in found.row("shape")["reason"]
    assert found.row("dtype")["relative_norm"] == pytest.approx(3e-8, rel=0.5)
    assert "2 of 4 tensors bit-identical, 1 renamed, 1 shape, 1 dtype, 1 added, 1 removed" in found.facts()


def test_tied_tensors_are_compared_once_and_untied_ones_are_told() -> None:
    shared = random(4, 3)
    tied = {"embed.weight": shared, "head.weight": shared}
    other = random(4, 3, seed=1)
    found = wb.diff(tied, {"embed.weight": other, "head.weight": other})
    assert found.row("head.weight")["verdict"] == "tied" and found.row("embed")["verdict"] == "changed"
    assert found.frame("models")["elements"].tolist() == [12]
    untied = wb.diff(tied, {"embed.weight": other, "head.weight": other + 1})
    rows = untied.frame("manifest").set_index("tensor")
    assert rows.loc["head.weight", ["change", "tied_to", "other_tied_to"]].tolist() == ["tied", "embed.weight", ""]
    assert untied.row("head.weight")["verdict"] == "changed"


# bad input


def test_zero_deltas_are_identical() -> None:
    base = {"w.weight": random(3, 4), "b": torch.zeros(3)}
    found = wb.diff(base, {name: own.clone() for name, own in base.items()}, detail=["lorenz", "outliers", "spectra"])
    assert found.frame()["verdict"].tolist() == ["identical", "identical"]
    row = found.row("w")
    assert [row[name] for name in ("relative_norm", "changed", "cosine", "sign_conflict")] == [0, 0, 1, 0]
    assert math.isnan(found.frame("lorenz")["top10"][0]) and found.frame("spectra")["rank_90"][0] == 0
    assert math.isnan(found.frame("spectra")["stable_rank"][0]) and found.frame("spectra")["directions"][0] == 0


def test_counts_and_scalars_are_compared_and_no_weights() -> None:
    base = {"w.weight": random(3, 4), "bn.num_batches_tracked": torch.tensor(3), "ids": torch.arange(4)}
    base |= {"scale": torch.tensor(2.0), "mask": torch.tensor([True, False])}
    other = base | {"bn.num_batches_tracked": torch.tensor(938), "ids": torch.tensor([0, 1, 2, 7])}
    other |= {"scale": torch.tensor(2.5), "w.weight": random(3, 4) + 1}
    found = wb.diff(base, other)
    rows = {row["layer"]: row for row in found.frame().to_dict("records")}
    assert rows["bn.num_batches_tracked"]["reason"] == "int64: a count or an index, no weights; 3 → 938"
    assert rows["scale"]["reason"] == "a scalar: it has no direction; 2.0 → 2.5"
    assert rows["ids"]["reason"].endswith("1 of 4 elements differ") and rows["ids"]["changed"] == 0.25
    assert rows["mask"]["verdict"] == "identical" and rows["ids"]["verdict"] == "no weights"
    assert all(math.isnan(rows[name]["relative_norm"]) for name in ("bn.num_batches_tracked", "scale", "ids"))
    assert found.frame("models")["elements"].tolist() == [12]


def test_statistics_of_norm_layers_have_rows_and_no_share_in_the_whole() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    other = {name: own + 1 for name, own in net.state_dict().items()}
    found = wb.diff(net, other)
    assert found.row("1.running_var")["relative_norm"] == 1
    assert found.frame("models")["elements"].tolist() == [12 + 4 + 4 + 4]


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("a", math.nan, "1 of 12 elements NaN in the base"),
        ("b", math.inf, "1 of 12 elements infinite in tuned"),
        ("floor", -math.inf, "1 of 12 elements infinite in the floor"),
    ],
)
def test_what_is_not_finite_is_a_row_with_its_reason(place: str, value: float, told: str) -> None:
    models = {name: {"w.weight": random(3, 4, seed=n), "x": random(5)} for n, name in enumerate(("a", "b", "floor"))}
    models[place]["w.weight"][1, 2] = value
    found = wb.diff(models["a"], {"tuned": models["b"]}, floor=models["floor"], detail="spectra")
    row, total = found.row("w"), found.frame("models").iloc[0]
    assert math.isnan(row["over_floor"]) and row["reason"].endswith(told)
    if place == "floor":
        assert (row["verdict"], total["elements"]) == ("changed", 17) and row["reason"].startswith("over no floor: ")
        assert total["reason"] == "over_floor without 1 layer with no floor"
        expected = (models["b"]["w.weight"] - models["a"]["w.weight"]).norm() / models["a"]["w.weight"].norm()
        assert row["relative_norm"] == pytest.approx(float(expected))
    else:
        assert (row["verdict"], total["elements"]) == ("not finite", 5) and math.isnan(row["relative_norm"])
        assert total["reason"] == "without 1 layer, not finite: w"
    huge = wb.diff({"w.weight": torch.full((3, 3), 1e200, dtype=torch.float64)}, {"w.weight": random(3, 3)})
    assert huge.row("w")["reason"] == "elements of the base are so large that their squares overflow"


def test_a_base_of_zeros_has_no_relative_norm() -> None:
    row = one(torch.zeros(3, 4), torch.ones(3, 4))
    assert math.isnan(row["relative_norm"]) and math.isnan(row["cosine"]) and row["delta_norm"] == 12**0.5
    assert row["reason"] == "the base is all zero: there is no relative norm"
    small = one(torch.full((3, 4), 1e-200, dtype=torch.float64), torch.full((3, 4), 2e-200, dtype=torch.float64))
    assert small["reason"] == "the changes are so small that their squares underflow"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            {"q.weight": random(3, 4, seed=9)},
            "no tensor of a mapping in memory is in 'b': the base begins with ['w.weight', 'v'",
        ),
        (
            {"w.weight": random(4, 4), "v": random(9)},
            "The first difference: 'w.weight' is [3, 4] in the base and [4, 4]",
        ),
        ({"net.w.weight": random(3, 4, seed=9), "net.v": random(4, seed=9), "x": random(2)}, "behind 'net.'"),
    ],
)
def test_models_without_a_common_tensor_are_refused(other: dict[str, Tensor], told: str) -> None:
    with pytest.raises(wb.LayerNotFoundError) as raised:
        wb.diff({"w.weight": random(3, 4), "v": random(4)}, {"b": other})
    assert told in str(raised.value)


def test_a_wrapper_in_the_base_is_named() -> None:
    base = {"bert.w.weight": random(3, 4), "bert.v": random(4), "y": random(2)}
    with pytest.raises(wb.LayerNotFoundError, match=r"The base's names are the other's behind 'bert\.'"):
        wb.diff(base, {"w.weight": random(3, 4, seed=9), "v": random(4, seed=9)})


REFUSED = {
    "wb.diff(model, [])": ("ArgumentError", "b is empty"),
    "wb.diff(model, 7)": ("SourceTypeError", "b: a model is a path"),
    "wb.diff(model, [model, 7])": ("SourceTypeError", "b[1]: a model is a path"),
    "wb.diff(model, {'': model})": ("ArgumentError", "the label '' is empty or stands for two"),
    "wb.diff(model, {1: model, '1': model})": ("ArgumentError", "the label '1' is empty or stands for two"),
    "wb.diff(model, model, detail='spectrum')": ("ArgumentError", "Did you mean 'spectra'?"),
    "wb.diff(model, model, detail=7)": ("ArgumentError", "detail=7: expected 'elements'"),
    "wb.diff(model, model, detail='activations')": ("ArgumentError", "activations need data: pass data=batches"),
    "wb.diff(model, model, density=0)": ("ArgumentError", "density=0: expected a share kept in (0, 1]"),
    "wb.diff(model, model, density=True)": ("ArgumentError", "density=True: expected"),
    "wb.diff(model, model, directions=0)": ("ArgumentError", "directions=0: expected a whole number"),
    "wb.diff(model, model, data=[torch.ones(2, 24)])": ("ArgumentError", "pass it in module="),
    "wb.diff(model, model, module=torch.nn.Linear(24, 24))": ("ArgumentError", "module= goes with data="),
    "wb.diff(model, model, progress=3)": ("ArgumentError", "progress=3: expected a function"),
    "wb.diff(model, model, layers='nothing')": ("LayerNotFoundError", "matches 'nothing'"),
    "wb.diff(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), data=iter([]))": ("ArgumentError", "data is a one-shot"),
    "wb.diff(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), data=[torch.ones(1, 2)], layers='bias')": (
        "ArgumentError",
        "none of the chosen layers is a submodule",
    ),
}


def test_bad_arguments_are_told(raised: Any) -> None:
    found = raised(REFUSED)
    assert {call: error for call, (error, _) in found.items()} == {call: error for call, (error, _) in REFUSED.items()}
    for call, (_, told) in REFUSED.items():
        assert told in found[call][1], call


def test_a_sparse_tensor_is_a_row_that_failed() -> None:
    base = {"w.weight": random(3, 4), "v.weight": random(3, 4)}
    found = wb.diff(base, base | {"w.weight": random(3, 4).to_sparse()})
    assert found.row("w")["verdict"] == "failed" and "only dense tensors" in found.row("w")["reason"]
    assert found.row("v")["verdict"] == "identical"


# sources, selection, cancelling


def test_files_lists_and_labels(tmp_path: Path) -> None:
    base = {"w.weight": random(3, 4), "v": random(4)}
    for name in ("base", "one", "two"):
        save_file(
            {key: own + len(name) * (name != "base") for key, own in base.items()}, tmp_path / f"{name}.safetensors"
        )
    found = wb.diff(tmp_path / "base.safetensors", [tmp_path / "one.safetensors", tmp_path / "two.safetensors"])
    assert found.labels == ("one.safetensors", "two.safetensors")
    assert found.meta["sources"]["two.safetensors"].endswith("two.safetensors")
    memory = wb.diff(base, {"one": {key: own + 3 for key, own in base.items()}})
    for layer in ("w", "v"):
        of_file = found.frame("values").set_index(["layer", "label"]).loc[(layer, "one.safetensors"), "relative_norm"]
        assert memory.row(layer)["relative_norm"] == of_file
    assert (
        set(found.meta["other_fingerprints"]["one.safetensors"]) == set(found.meta["fingerprints"]) == {"w.weight", "v"}
    )


def test_a_nested_checkpoint_is_one_model() -> None:
    base = {"w.weight": random(3, 4)}
    assert len(wb.diff(base, {"state_dict": {"w.weight": random(3, 4, seed=1)}, "epoch": 3}).labels) == 1


def test_parts_of_tensors_are_layers_of_their_own() -> None:
    base = nn.MultiheadAttention(8, 2)
    other = {name: own.clone() for name, own in base.state_dict().items()}
    other["in_proj_weight"][8:16] += 1
    found = wb.diff(base, other, detail=["lorenz", "outliers", "spectra"])
    assert [found.row(f"in_proj_weight.{part}")["verdict"] for part in "qkv"] == ["identical", "changed", "identical"]
    assert [found.row(f"in_proj_weight.{part}")["changed"] for part in "qkv"] == [0, 1, 0]
    assert found.frame("spectra").set_index("layer").loc["in_proj_weight.k", "stable_rank"] == pytest.approx(
        1, abs=1e-4
    )


def test_a_selection_leaves_the_rest_unread() -> None:
    base = {"w.weight": random(3, 4), "v.weight": random(4, 4)}
    found = wb.diff(base, {name: own + 1 for name, own in base.items()}, layers="w")
    assert found.frame()["layer"].tolist() == ["w"]
    assert found.frame("manifest")["content"].tolist() == ["differs", "not read"]
    assert found.frame("models")["elements"].tolist() == [12]


def test_a_cancelled_run_keeps_what_was_done() -> None:
    base = {f"{n}.weight": random(3, 4, seed=n) for n in range(4)}

    def stop(progress: wb.Progress) -> None:
        if progress.done == 2:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stopped:
        wb.diff(base, {name: own + 1 for name, own in base.items()}, progress=stop)
    partial = stopped.value.partial
    done = len(partial.frame())  # with what was under way: two threads may have begun the third
    assert done in (2, 3) and f"CANCELLED after {done} of 4 tensors" in partial.facts()
    assert partial.frame("manifest")["content"].tolist() == ["differs"] * done + ["not read"] * (4 - done)


def test_a_diff_is_saved_and_opened(tmp_path: Path) -> None:
    base = {"w.weight": random(9, 4), "v": random(4)}
    models = {label: {name: own + random(*own.shape, seed=ord(label)) for name, own in base.items()} for label in "xy"}
    found = wb.diff(base, models, detail=["lorenz", "outliers", "spectra"], density=0.2)
    again = wb.open_result(found.save(tmp_path / "diff"))
    assert isinstance(again, wb.Diff) and again.labels == ("x", "y")
    for name in found.tables:
        assert found.frame(name).equals(again.frame(name))
    assert torch.equal(again.singular_change["w"], found.singular_change["w"]) and again.facts() == found.facts()


def test_nothing_that_was_given_changes() -> None:
    net = nn.Linear(4, 3)
    before = {name: own.clone() for name, own in net.state_dict().items()}
    wb.diff(net, {name: own + 1 for name, own in before.items()}, detail=["lorenz", "outliers", "spectra"], density=0.5)
    assert all(torch.equal(own, before[name]) for name, own in net.state_dict().items())
    assert net.weight.requires_grad and net.weight.grad is None


# details


def test_the_lorenz_curve_by_hand() -> None:
    tau = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]])
    found = wb.diff({"w.weight": torch.ones(1, 10)}, {"w.weight": tau + 1}, detail="lorenz")
    row = found.frame("lorenz").iloc[0]
    assert row["top10"] == pytest.approx(100 / 385) and row["half"] == 0.3
    sums = np.concatenate([[0], np.cumsum(np.arange(1, 11) ** 2)]) / 385
    assert row["gini"] == pytest.approx(1 - 2 * np.trapezoid(sums, dx=0.1))
    np.testing.assert_allclose(found.lorenz["w"][0, ::10], sums, rtol=1e-12)
    single = wb.diff({"w.weight": torch.zeros(1, 1000)}, {"w.weight": torch.eye(1000)[:1]}, detail="lorenz")
    assert single.frame("lorenz")["gini"][0] == pytest.approx(0.999) and single.frame("lorenz")["half"][0] == 0.001


def test_outlier_channels_are_found_on_both_axes() -> None:
    change = random(50, 40)
    change[7] *= 20
    change[:, 3] *= 9
    found = wb.diff({"w.weight": torch.zeros(50, 40, dtype=torch.float64)}, {"w.weight": change}, detail="outliers")
    rows = found.frame("outliers")
    assert {(row.axis, row.channel) for row in rows.itertuples()} >= {("output", 7), ("input", 3)}
    norms = np.linalg.norm(change.numpy(), axis=1)
    spread = 1.4826 * np.median(np.abs(norms - np.median(norms)))
    row = rows[(rows.axis == "output") & (rows.channel == 7)].iloc[0]
    assert row["z"] == pytest.approx((norms[7] - np.median(norms)) / spread, rel=1e-9)
    assert row["norm"] == pytest.approx(norms[7], rel=1e-12)
    assert robust_z(np.array([1.0, 1.0, 1.0, 2.0])).tolist() == [0, 0, 0, math.inf]


@pytest.mark.parametrize("groups", [1, 2])
def test_outlier_channels_of_convolutions(groups: int) -> None:
    net = nn.Conv2d(8, 12, 3, groups=groups, bias=False)
    other = {"weight": net.weight.detach().clone()}
    other["weight"][5] += 1
    rows = wb.diff(net, other, detail="outliers").frame("outliers")
    assert rows.loc[rows.axis == "output", "channel"].tolist() == [5]
    assert rows["norm"][0] == pytest.approx((9 * 8 / groups) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_spectra_are_numpys(dtype: torch.dtype) -> None:
    base = random(40, 60, seed=1).to(dtype)
    other = (base + (random(40, 3, seed=2) @ random(3, 60, seed=3)).to(dtype)).to(dtype)
    found = wb.diff({"w.weight": base}, {"w.weight": other}, detail="spectra", directions=3)
    row = found.frame("spectra").iloc[0]
    w, after = base.double().numpy(), other.double().numpy()
    u, sigma, vt = np.linalg.svd(after - w)
    left, before, right = np.linalg.svd(w)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(found.singular_change["w"][0], sigma, atol=tolerance * sigma[0])
    np.testing.assert_allclose(found.singular_before["w"], before, atol=tolerance * before[0])
    np.testing.assert_allclose(found.singular_after["w"][0], np.linalg.svd(after)[1], atol=tolerance * before[0])
    assert row["stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-6)
    share = before / before.sum()
    assert row["base_effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)
    assert row["overlap"] == pytest.approx((np.square(left[:, :3].T @ u[:, :3])).sum() / 3, abs=1e-5)
    assert row["overlap_right"] == pytest.approx((np.square(right[:3] @ vt[:3].T)).sum() / 3, abs=1e-5)
    assert (row["chance"], row["chance_right"]) == (3 / 40, 3 / 60)
    assert row["rank_99"] <= 3 and row["spectral_change"] <= found.row("w")["relative_norm"]


def test_a_change_along_the_base_overlaps_wholly_and_an_independent_one_by_chance() -> None:
    base = random(64, 64)
    assert spectra(0.1 * base, base)["overlap"] == pytest.approx(1)
    shares = [spectra(random(64, 64, seed=n), base)["overlap"] for n in range(1, 21)]
    assert np.mean(shares) == pytest.approx(8 / 64, abs=0.02)


def test_grouped_convolutions_are_one_block_diagonal_matrix() -> None:
    weight = random(6, 2, 3, 3)
    net = nn.Conv2d(4, 6, 3, groups=2, bias=False)
    net.weight.data = torch.zeros(6, 2, 3, 3)
    row = wb.diff(net, {"weight": weight.float()}, detail="spectra").frame("spectra").iloc[0]
    block = torch.block_diag(*weight.float().double().reshape(2, 3, 18))
    sigma = np.linalg.svd(block.numpy(), compute_uv=False)
    assert row["stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-6)
    assert (row["rows"], row["cols"], row["bytes_full"]) == (6, 36, 6 * 2 * 9 * 4)


def test_gram_and_svd_give_the_same_leading_directions() -> None:
    own = random(2, 30, 20)
    for matrices in (own, own.mT):
        gram, svd = singular(matrices, 5, exact=False), singular(matrices, 5, exact=True)
        torch.testing.assert_close(gram.values, svd.values, rtol=1e-9, atol=1e-9)
        assert overlap(gram.left, svd.left) == pytest.approx(1) and overlap(gram.right, svd.right) == pytest.approx(1)


# activations


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def test_cka_is_numpys_and_the_module_is_as_before() -> None:
    net, other = network(0), network(1)
    data = [random(10, 1, 6, 6, seed=n).float() for n in range(2)]
    before = {name: own.clone() for name, own in net.state_dict().items()}
    found = wb.diff(net, {"other": other, "same": net}, data=data, device="cpu")
    rows = found.frame("activations").set_index(["layer", "label"])
    with torch.no_grad():
        x, y = (own.eval()(torch.cat(data)).double().numpy() for own in (net, other))
    x, y = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert rows.loc[("4", "other"), "cka"] == pytest.approx(expected, rel=1e-5)
    assert rows.loc[("4", "same"), "cka"] == pytest.approx(1) and rows.loc[("4", "other"), "samples"] == 20
    assert rows.loc[("0", "other"), ["samples", "width"]].tolist() == [320, 4]
    assert all(torch.equal(own, before[name]) for name, own in net.state_dict().items())
    one = wb.diff(net, other, data=data, layers=["4"], device="cpu").frame("activations")
    assert one["layer"].tolist() == ["4"]


def test_activations_of_a_file_need_the_module_and_a_cancel_keeps_the_rest() -> None:
    net = network(0)
    state = dict(net.state_dict())
    data = [random(4, 1, 6, 6, seed=n).float() for n in range(3)]
    other = {name: own * 2 if own.is_floating_point() else own for name, own in state.items()}
    found = wb.diff(state, other, data=data, module=net, device="cpu")
    assert len(found.frame("activations")) == 5

    def stop(progress: wb.Progress) -> None:
        if progress.item == "activations: batch 2":
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stopped:
        wb.diff(state, other, data=data, module=net, device="cpu", progress=stop)
    assert stopped.value.partial.frame("activations")["samples"].max() == 8 * 16
    assert stopped.value.partial.frame().equals(found.frame())


# real weights


def test_minilm_against_a_perturbed_copy(minilm: Path) -> None:
    base = wb.load(minilm)
    noise = torch.Generator().manual_seed(0)
    other = {
        name: own + 0.01 * own.std() * torch.randn(own.shape, generator=noise) if own.is_floating_point() else own
        for name, own in base.items()
    }
    found = wb.diff(minilm, other)
    rows = found.frame()
    large = rows[rows["elements"] > 10_000]
    assert (large["verdict"] == "changed").all() and large["relative_norm"].between(0.0095, 0.0101).all()
    assert found.frame("models")["elements"][0] == sum(own.numel() for own in base.values() if own.is_floating_point())


@pytest.mark.parametrize("values", [(1.3, 1.43), (0.3, 0.33)])
def test_sums_of_equal_elements_do_not_drift(values: tuple[float, float]) -> None:
    """Rounding of equal products is no random walk: each of float32's sums is short, and errs all the same way."""
    one, two = (torch.full((500, 700), value) for value in values)
    found = wb.diff({"w.weight": one}, {"w.weight": two}).row("w")
    first, second = (float(own[0, 0]) for own in (one, two))
    assert found["relative_norm"] == pytest.approx((second - first) / first, rel=2e-7)
    assert found["norm"] == pytest.approx(first * 350_000**0.5, rel=2e-7)


def test_a_floor_of_zero_is_exceeded_by_whatever_changes() -> None:
    """A layer that was frozen in the seed's model."""
    base = {"a.weight": random(6, 5), "b.weight": random(4, 6, seed=1), "c.weight": random(3, 4, seed=2)}
    seed = base | {"b.weight": base["b.weight"] + 0.1}
    found = wb.diff(base, {name: own + (name != "c.weight") for name, own in base.items()}, floor=seed)
    assert found.row("a")["over_floor"] == math.inf and found.row("a")["verdict"] == "beyond floor"
    assert found.row("c")["verdict"] == "identical" and math.isnan(found.row("c")["over_floor"])
    assert math.isfinite(found.row("b")["over_floor"])
    figure = wb.figure(found)
    assert figure.panels[1].title == "not drawn: 1 over a floor of 0"
    assert figure.panels[0].x.ticks[0] == (0.0, "a")


def test_equal_numbers_that_are_stored_otherwise() -> None:
    base = {"a.weight": random(6, 5).float(), "b.weight": torch.zeros(3, 4), "c.weight": random(3, 4)}
    other = {"a.weight": base["a.weight"].double(), "b.weight": -base["b.weight"], "c.weight": base["c.weight"]}
    rows = [wb.diff(base, other).row(layer) for layer in "abc"]
    assert [row["verdict"] for row in rows] == ["equal", "equal", "identical"]
    assert all("equal numbers, stored otherwise" in row["reason"] for row in rows[:2]) and not rows[2]["reason"]


def test_what_the_base_alone_ties_is_counted_once() -> None:
    base = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3, bias=False), "b": torch.nn.Linear(3, 3, bias=False)})
    base["b"].weight = base["a"].weight
    weight = base["a"].weight.detach()
    found = wb.diff(base, {"a.weight": weight + 1, "b.weight": weight + 2})
    second = found.row("b.weight")
    assert second["relative_norm"] == pytest.approx(2 * found.row("a")["relative_norm"])
    assert "tied to a.weight in the base alone" in second["reason"] and not found.row("a")["reason"]
    whole = found.frame("models").iloc[0]
    assert whole["elements"] == 9 and whole["relative_norm"] == pytest.approx(found.row("a")["relative_norm"])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int8])
def test_weights_beside_what_is_none_are_counted_only(dtype: torch.dtype) -> None:
    base = {"v.weight": torch.ones(2, 2), "w.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    other = base | {"w.weight": torch.tensor([[1.0, 2.0], [3.0, 0.0]]).to(dtype)}
    for one, two in ((base, other), (other, base)):
        found = wb.diff(one, two)
        row = found.frame().iloc[1]
        assert row["verdict"] == "no weights" and row["changed"] == 0.25 and math.isnan(row["cosine"])
        assert found.frame("models").loc[0, "elements"] == 4


def test_what_is_not_finite_in_one_model_takes_no_number_from_the_others() -> None:
    base, good, bad = ({"w.weight": random(3, 4, seed=n)} for n in range(3))
    bad["w.weight"][0, 0] = math.nan
    found, alone = wb.diff(base, {"b": good, "c": bad}), wb.diff(base, {"b": good})
    rows = found.frame("values").set_index("label")
    assert rows.loc["b", "relative_norm"] == alone.row("w")["relative_norm"] and rows.loc["b", "reason"] == ""
    assert (rows.loc["c", "verdict"], rows.loc["c", "reason"]) == ("not finite", "1 of 12 elements NaN in c")
    totals = found.frame("models").set_index("label")
    assert totals.loc["b", "delta_norm"] == alone.frame("models")["delta_norm"][0] and totals.loc["b", "reason"] == ""
    assert math.isnan(totals.loc["c", "delta_norm"])
    assert totals.loc["c", "reason"] == "nothing was measured; without 1 layer, not finite: w"
    assert found.row("w")["models"] == 1 and found.frame("pairs")["reason"][0] == totals.loc["c", "reason"]


def test_a_mask_that_nobody_changed_is_identical() -> None:
    mask = torch.full((3, 3), -math.inf).triu(1)
    base = {"mask": mask, "w.weight": random(4, 4)}
    models = {"same": {**base, "mask": mask.clone()}, "other": {**base, "mask": torch.zeros(3, 3)}}
    found = wb.diff(base, {"same": models["same"]}).row("mask")
    assert (found["verdict"], found["changed"], found["delta_norm"]) == ("identical", 0, 0)
    assert math.isnan(found["relative_norm"]) and found["reason"] == "3 of 9 elements infinite in the base"
    both = wb.diff(base, models)
    assert both.row("mask")["verdict"] == "not finite"
    rows = both.frame("values").query("layer == 'mask'").set_index("label")
    assert rows["verdict"].to_dict() == {"same": "identical", "other": "not finite"}


def test_models_that_differ_beside_the_floor_are_counted_in_the_verdict() -> None:
    base = {"w.weight": torch.ones(4, 4)}
    models = {f"m{n}": {"w.weight": base["w.weight"] + size} for n, size in enumerate((2.0, 0.01, 0.01, 0.01, 0.01))}
    found = wb.diff(base, models, floor={"w.weight": base["w.weight"] + 1})
    assert found.row("w")["verdict"] == "beyond in 1 of 5"
    assert found.row("w")["over_floor"] == pytest.approx((2 + 4 * 0.01) / 5, rel=1e-6)
    assert "in 1 layer only some models" in wb.figure(found, "norms").panels[1].title
    beyond = wb.diff(base, {"m": models["m0"]}, floor={"w.weight": base["w.weight"] + 1})
    assert beyond.row("w")["verdict"] == "beyond floor"


def test_totals_say_which_buffers_count() -> None:
    """A module tells its buffers, a file does not: totals differ, and a note says by what."""

    class Masked(nn.Linear):
        def __init__(self, shift: float) -> None:
            super().__init__(3, 2)
            self.register_buffer("mask", torch.ones(2, 3) + shift)

    base, model = Masked(0), Masked(1)
    whole = wb.diff(base, model)
    assert whole.frame("models")["elements"][0] == 8
    assert "in no total, as buffers or statistics of norm layers: mask" in whole.meta["notes"]
    file = wb.diff(base.state_dict(), model.state_dict())
    assert file.frame("models")["elements"][0] == 14
    told = "in the totals, though by their names buffers, which a module's totals leave out: mask"
    assert told in file.meta["notes"]


def test_what_is_all_alike_was_not_renamed() -> None:
    """The ones of one norm layer are those of every other; a weight that moved is found by its content."""
    moved = random(4, 4)
    base = {"a.weight": random(4, 4, seed=1), "ln_f.weight": torch.ones(4), "old.weight": moved}
    model = {"a.weight": random(4, 4, seed=2), "q_norm.weight": torch.ones(4), "new.weight": moved.clone()}
    changes = wb.diff(base, model).frame("manifest").set_index("tensor")["change"].to_dict()
    assert changes == {
        "a.weight": "kept",
        "ln_f.weight": "removed",
        "old.weight": "renamed",
        "q_norm.weight": "added",
    }
    with pytest.raises(wb.LayerNotFoundError, match="no tensor of .* is in"):
        wb.diff({"x.weight": moved, "x.bias": torch.zeros(4)}, {"y.weight": moved + 1, "y.bias": torch.zeros(4)})

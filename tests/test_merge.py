"""wb.merge against hand calculations, numpy, and what other packages get wrong."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.signatures.family import Mismatch
from workbench.signatures.magnitudes import largest
from workbench.signatures.merge import Method

Tensors = dict[str, Tensor]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def checkpoint(seed: int, dtype: torch.dtype = torch.float32) -> Tensors:
    return {
        "a.weight": normal(40, 30, seed=seed, dtype=dtype),
        "a.bias": normal(40, seed=seed + 100, dtype=dtype),
        "b.weight": normal(300, 1000, seed=seed + 200, dtype=dtype),  # more than one piece
        "scale": normal(1, seed=seed + 300, dtype=dtype)[0],  # no axis
    }


def near(base: Tensors, seed: int, size: float = 0.1) -> Tensors:
    return {name: value + size * normal(*value.shape, seed=seed).to(value.dtype) for name, value in base.items()}


def flat(tensors: Tensors) -> np.ndarray:
    return np.concatenate([tensors[name].double().numpy().ravel() for name in tensors])


GOLDEN = [[0.9, -0.1, 0.5, 0.0, -0.6, 0.2], [-0.4, 0.8, 0.3, 0.1, -0.5, -0.2], [0.3, 0.7, -0.9, 0.2, 0.1, 0.4]]


def test_ties_by_hand() -> None:
    base = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).double()
    merged = wb.merge({"w": base}, [{"w": base + torch.tensor(change).double()} for change in GOLDEN], density=0.5)
    expected = base + torch.tensor([0.9, 0.75, -0.9, 0.0, -0.55, 0.4]).double()
    np.testing.assert_allclose(merged["w"], expected, atol=1e-12)


def ties(base: np.ndarray, models: list[np.ndarray], density: float, scale: float) -> np.ndarray:
    """The definition, all at once and sorted."""
    kept = []
    for model in models:
        change = model - base
        first = np.argsort(-np.abs(change), kind="stable")[: round(density * len(change))]
        trimmed = np.zeros_like(change)
        trimmed[first] = change[first]
        kept.append(trimmed)
    stacked = np.stack(kept)
    sign = np.sign(stacked.sum(0))
    agree = (stacked * sign) > 0
    return np.asarray(base + scale * (stacked * agree).sum(0) / np.maximum(agree.sum(0), 1))


@pytest.mark.parametrize("density", [1.0, 0.2, 1e-4, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_is_its_definition_over_the_whole_model(density: float, dtype: torch.dtype) -> None:
    base = checkpoint(0, dtype)
    models = [near(base, 1), near(base, 2, 0.3), near(base, 3)]
    merged = wb.merge(base, models, density=density, scale=0.7)
    expected = ties(flat(base), [flat(model) for model in models], density, 0.7)
    assert list(merged) == list(base) and all(merged[name].dtype == dtype for name in base)
    np.testing.assert_allclose(flat(dict(merged)), expected, atol=1e-12 if dtype == torch.float64 else 1e-6)


def test_equal_changes_are_kept_exactly_as_many_as_asked_the_first_ones() -> None:
    """Changes of bfloat16 have few sizes; a threshold alone would keep all of one or none."""
    base = {"a": torch.zeros(3), "b": torch.zeros(200_000), "c": torch.zeros(5)}
    model = {"a": torch.tensor([1.0, -2.0, 1.0]), "b": torch.ones(200_000), "c": torch.full((5,), -1.0)}
    for count in (1, 2, 3, 150_000, 200_004):
        merged = wb.merge(base, [model], density=count / 200_008)
        kept = flat(dict(merged))
        assert (kept != 0).sum() == count
        np.testing.assert_array_equal(kept, ties(flat(base), [flat(model)], count / 200_008, 1.0))


def test_ties_keeps_no_element_more_and_ranks_no_tensor_by_itself() -> None:
    """The authors' code keeps k + 1 elements; mergekit keeps a share of each tensor, however small its changes."""
    base = {"loud": torch.zeros(10), "quiet": torch.zeros(10)}
    model = {"loud": torch.arange(1.0, 11), "quiet": torch.arange(1.0, 11) / 1000}
    merged = wb.merge(base, [model], density=0.25)
    assert merged["loud"].tolist() == [0.0] * 5 + [6.0, 7.0, 8.0, 9.0, 10.0]
    assert not merged["quiet"].any()


def test_a_sum_of_zero_elects_no_sign() -> None:
    merged = wb.merge(
        {"w": torch.tensor([5.0, 5.0])}, [{"w": torch.tensor(w)} for w in ([6.0, 8.0], [4.0, 6.0])], density=1
    )
    assert merged["w"].tolist() == [5.0, 7.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kth_largest_of_numbers_read_in_pieces(dtype: torch.dtype) -> None:
    numbers = torch.cat([normal(5000, seed=1), normal(5000, seed=2) * 1e-30, torch.zeros(50), torch.ones(9)]).to(dtype)
    order = numbers.abs().sort(descending=True).values
    for count in (1, 2, 4000, 5005, 9999, 10_000, 10_020, len(numbers)):
        found = largest(lambda: [("x", part) for part in numbers.split(977)], count, dtype)
        assert found.value == order[count - 1]
        assert found.above == int((numbers.abs() > found.value).sum()) and found.kept == count - found.above
        assert found.equal == int((numbers.abs() == found.value).sum())


@pytest.mark.parametrize("scale", [0.4, -1.0, [0.5, 0.25]])
def test_task_arithmetic_by_its_formula(scale: float | list[float]) -> None:
    base = checkpoint(0, torch.float64)
    models = [near(base, 1), near(base, 2)]
    merged = wb.merge(base, models, method="task_arithmetic", scale=scale)
    first, second = scale if isinstance(scale, list) else (scale, scale)
    changes = [flat(model) - flat(base) for model in models]
    np.testing.assert_allclose(flat(dict(merged)), flat(base) + first * changes[0] + second * changes[1], atol=1e-13)


def test_what_no_model_changed_stays_to_the_last_bit() -> None:
    base = checkpoint(0)
    for method in ("task_arithmetic", "ties"):
        merged = wb.merge(base, [dict(base), dict(base)], method=method)
        assert all(torch.equal(merged[name], base[name]) for name in base)


def test_slerp_by_hand() -> None:
    ends = {"w": torch.tensor([1.0, 0.0])}, [{"w": torch.tensor([0.0, 1.0])}]
    np.testing.assert_allclose(wb.merge(*ends, method="slerp")["w"], [2**-0.5] * 2, rtol=1e-6)
    third = wb.merge(*ends, method="slerp", t=1 / 3)["w"]
    np.testing.assert_allclose(third, [3**0.5 / 2, 0.5], rtol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_is_scipys_between_directions(t: float) -> None:
    from scipy.spatial import geometric_slerp

    ends = normal(2, 257, seed=3, dtype=torch.float64).numpy()
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    merged = wb.merge({"w": torch.tensor(ends[0])}, [{"w": torch.tensor(ends[1])}], method="slerp", t=t)
    np.testing.assert_allclose(merged["w"], geometric_slerp(*ends, t), atol=1e-12)


def test_slerp_of_nearly_parallel_of_zero_and_of_single_elements_is_the_straight_line() -> None:
    """Another package raises on tensors without axes."""
    for base, model in (
        (normal(50), normal(50) * (1 + 1e-7)),
        (torch.zeros(4), torch.ones(4)),
        (torch.tensor(2.0), torch.tensor(-4.0)),
    ):
        merged = wb.merge({"w": base, "v": base}, [{"w": model, "v": model}], method="slerp", t=0.25)
        np.testing.assert_allclose(merged["w"], 0.75 * base + 0.25 * model, rtol=1e-6)


def test_antiparallel_ends_have_no_arc() -> None:
    merged = wb.merge(
        {"a": torch.ones(2), "fc.weight": normal(6, 5)},
        [{"a": torch.ones(2), "fc.weight": -normal(6, 5)}],
        method="slerp",
    )
    with pytest.raises(
        wb.LayerError, match=r"fc\.weight: base and model are antiparallel .* merge it by another method"
    ):
        merged["fc.weight"]


def test_a_merge_is_read_tensor_by_tensor_and_saved(tmp_path: Path) -> None:
    base = {name: value.bfloat16() for name, value in checkpoint(0).items()}
    models = [near(base, seed) for seed in (1, 2)]
    files = [wb.save(tensors, tmp_path / f"{n}.safetensors") for n, tensors in enumerate([base, *models])]
    merged = wb.merge(files[0], files[1:], method="ties", density=0.3)
    opened = wb.load(wb.save(merged, tmp_path / "merged.safetensors"))
    held = wb.merge(base, models, density=0.3)
    for name in base:
        assert opened[name].dtype == torch.bfloat16 and torch.equal(opened[name], held[name])
    assert "ties(density=0.3, scale=1.0) of 0.safetensors and 1.safetensors, 2.safetensors" in repr(merged)


def test_integers_statistics_and_ties_are_told() -> None:
    class Net(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.norm = nn.BatchNorm1d(4)
            self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight
            self.norm.running_var.fill_(1.0 + 2 * seed)
            self.norm.num_batches_tracked.fill_(seed)

    with torch.random.fork_rng():
        base, *models = (Net(seed) for seed in range(3))
    merged = wb.merge(base, models, method="task_arithmetic", scale=3.0)
    assert merged["norm.running_var"].tolist() == [4.0] * 4  # the sum of changes would be 1 + 3·(2 + 4)
    assert merged["norm.num_batches_tracked"] == 0
    assert torch.equal(merged["head.weight"], merged["embedding.weight"])
    assert merged.infos["head.weight"].tied_to == "embedding.weight"
    told = " ".join(merged.notes)
    assert "2 running statistics are averages over the models" in told and "wb.repair" in told
    assert "1 tensor of integers is the base's" in told


def grown() -> tuple[Tensors, list[Tensors]]:
    """A model with two more tokens, and one with a head of its own."""
    base = {"embedding": torch.zeros(3, 2), "norm": torch.zeros(2)}
    return base, [
        {"embedding": torch.ones(5, 2), "norm": torch.ones(2)},
        {"embedding": torch.ones(3, 2), "norm": torch.ones(2), "head": torch.ones(1)},
    ]


def test_a_vocabulary_that_grew() -> None:
    base, models = grown()
    with pytest.raises(wb.ArgumentError, match=r"'embedding' is \[3, 2\] in the base and \[5, 2\].*mismatch='overlap'"):
        wb.merge(base, models[:1])
    kept = wb.merge(base, models[:1], mismatch="base", density=1)
    assert not kept["embedding"].any() and kept["norm"].all()
    assert "embedding is the base's: 'embedding' is [3, 2] in the base and [5, 2]" in " ".join(kept.notes)
    overlap = wb.merge(base, models[:1], mismatch="overlap", density=1)
    assert overlap["embedding"].all() and overlap["embedding"].shape == (3, 2)
    smaller = wb.merge(models[0], [base], mismatch="overlap", density=1)
    assert smaller["embedding"].tolist() == [[0.0, 0.0]] * 3 + [[1.0, 1.0]] * 2
    assert "embedding: the first 3 of 5 rows are merged, the others the base's" in smaller.notes
    with pytest.raises(wb.ArgumentError, match=r"1 tensor of model 1 \(.*\) is not in the base \('head'\)"):
        wb.merge(base, models[1:])
    assert (
        "1 tensor of model 1 (a mapping in memory) is not in the base ('head') and left out"
        in wb.merge(base, models[1:], mismatch="base").notes
    )


def test_a_tie_that_a_model_has_not_is_told() -> None:
    shared = torch.zeros(2, 2)
    base = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    base["b"].weight = base["a"].weight
    model = {"a.weight": shared + 1, "b.weight": shared + 2}
    with pytest.raises(wb.ArgumentError, match=r"'b.weight' is tied to 'a.weight' in the base and not in model 1"):
        wb.merge(base, [model])
    merged = wb.merge(base, [model], mismatch="base", density=1)
    assert (merged["b.weight"] - 1).abs().max() < 1e-6 and "the tie stays" in " ".join(merged.notes)
    tied = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    tied["b"].weight = tied["a"].weight
    wb.merge(base, [tied])


WRONG = {
    "method='tie'": r"method='tie': expected 'task_arithmetic', .* Did you mean 'ties'",
    "method='slerp', density=0.5": r"density=0.5: slerp has no density, only \['t'\]",
    "density=0": r"density=0: expected a number in \(0, 1\], the share",
    "density=1.5": r"density=1.5: expected",
    "scale=True": r"scale=True: expected a finite number, λ",
    "scale=[1.0]": r"scale=\[1.0\]: expected a finite number",
    "method='task_arithmetic', scale=[1.0, 2.0]": r"scale has 2 numbers for 1 model:",
    "method='task_arithmetic', scale=[1.0, '2']": r"scale='2': expected a finite number",
    "method='slerp', t=-0.1": r"t=-0.1: expected a number in \[0, 1\]",
    "mismatch='skip'": r"mismatch='skip': expected one of 'error' \(refuse\)",
    "progress=3": r"progress=3: expected a function",
}
MODELS = {
    "[model, model], method='slerp'": r"models=2 of them: slerp takes 1 beside the base",
    "[]": r"models=0 of them: ties takes at least 1",
    "model": r"models is dict: expected a list of models, also of one",
    "'model.safetensors'": r"models is str: expected a list",
    "3": r"models is int: expected a list",
    "[{'v': torch.ones(3)}]": r"no tensor of .* is in the model .* \('fc.weight' against 'v'\)",
    "[{'v': torch.ones(3)}], mismatch='base'": r"no tensor of",
}


def test_arguments_that_are_wrong(raised: Callable[[Iterable[str]], dict[str, list[str]]]) -> None:
    calls = {f"wb.merge(model, [model], {wrong})": match for wrong, match in WRONG.items()}
    calls |= {f"wb.merge(model, {wrong})": match for wrong, match in MODELS.items()}
    found = raised(calls)
    for call, match in calls.items():
        kind, message = found[call]
        assert kind == "ArgumentError" and re.search(match, message), (call, kind, message)


REFUSED = {
    "float8_e4m3fn": torch.ones(2, 2).to(torch.float8_e4m3fn),
    "complex64": torch.ones(2, 2, dtype=torch.complex64),
    "sparse_coo float32": torch.eye(2).to_sparse(),
}


@pytest.mark.parametrize("words", REFUSED)
@pytest.mark.parametrize("mismatch", ["error", "base"])
@pytest.mark.parametrize("name", ["w", "norm.running_mean"])
def test_numbers_whose_differences_mean_nothing_are_refused_by_name(words: str, mismatch: Mismatch, name: str) -> None:
    state = {"w": torch.ones(2, 2), "norm.running_mean": torch.ones(2, 2), "step": torch.ones(3, dtype=torch.int64)}
    base, model = (state | {name: one} for one in (REFUSED[words], REFUSED[words].clone()))
    with pytest.raises(wb.ArgumentError, match=rf"'{re.escape(name)}' in the base is {words}: expected dense real"):
        wb.merge(base, [model], mismatch=mismatch)
    if words != "complex64":
        with pytest.raises(wb.ArgumentError, match=rf"'{re.escape(name)}' in model 2 \(.*\) is {words}"):
            wb.merge(state, [state, model], mismatch=mismatch)


def test_a_model_with_other_numbers_than_the_base_is_a_mismatch_and_no_integer() -> None:
    base = {"w": torch.ones(2), "z": torch.ones(2), "step": torch.ones(3, dtype=torch.int64), "on": torch.ones(1) > 0}
    model = base | {"z": torch.ones(2, dtype=torch.complex64)}
    with pytest.raises(wb.ArgumentError, match=r"'z' is float32 in the base and complex64 in model 1"):
        wb.merge(base, [model])
    for mismatch in ("base", "overlap"):
        merged = wb.merge(base, [model], mismatch=mismatch)
        assert torch.equal(merged["z"], base["z"])
        assert merged.notes[-1] == "2 tensors of integers are the base's"
        assert any(
            note.startswith("z is the base's: 'z' is float32 in the base and complex64") for note in merged.notes
        )


def test_a_parameter_says_its_range_once_for_the_form_and_the_check() -> None:
    told = {
        (way, field.name): tuple(field.metadata[key] for key in ("low", "high", "open_low", "several"))
        for way, kind in wb.MERGE_METHODS.items()
        for field in dataclasses.fields(kind)
    }
    finite = (-math.inf, math.inf, False)
    assert told == {
        ("task_arithmetic", "scale"): (*finite, True),
        ("ties", "density"): (0.0, 1.0, True, False),
        ("ties", "scale"): (*finite, False),
        ("slerp", "t"): (0.0, 1.0, False, False),
    }
    for (way, name), (low, high, open_low, _) in told.items():
        for value, fits in ((low, not open_low and math.isfinite(low)), (high, math.isfinite(high)), (math.nan, False)):
            if fits:
                wb.MERGE_METHODS[way](**{name: value})
            else:
                with pytest.raises(wb.ArgumentError, match=rf"{name}=.*: expected a .*number.*, "):
                    wb.MERGE_METHODS[way](**{name: value})


def test_changes_that_are_not_finite_have_no_size() -> None:
    model = {"a": torch.ones(3), "w": torch.tensor([1.0, torch.nan])}
    with pytest.raises(wb.LayerError, match="w: a difference to the base is NaN or infinite"):
        wb.merge({"a": torch.ones(3), "w": torch.ones(2)}, [model])
    merged = wb.merge({"a": torch.ones(3), "w": torch.ones(2)}, [model], method="task_arithmetic")
    assert merged["w"].isnan().tolist() == [False, True]


def test_progress_and_cancel() -> None:
    base = checkpoint(0)
    seen: list[wb.Progress] = []
    wb.merge(base, [near(base, 1), near(base, 2)], progress=seen.append)
    assert [(one.done, one.total) for one in seen] == [(n, 16) for n in range(17)]
    assert seen[0].item == "a.weight" and not seen[-1].item

    def stop(now: wb.Progress) -> None:
        if now.done == 5:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stopped:
        wb.merge(base, [near(base, 1), near(base, 2)], progress=stop)
    assert stopped.value.partial is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "slerp"])
def test_models_on_a_gpu_are_merged_on_the_cpu(method: str) -> None:
    base = checkpoint(0) | {"norm.running_var": torch.ones(4), "step": torch.tensor(3)}
    model = near(base, 1) | {"step": torch.tensor(4)}
    expected = wb.merge(base, [model], method=method)
    for where in ({}, {"cuda": True}):
        own = {name: one.cuda() for name, one in base.items()} if where else base
        found = wb.merge(own, [{name: one.cuda() for name, one in model.items()}], method=method)
        assert all(found[name].device.type == "cpu" for name in found)
        assert all(torch.equal(found[name], expected[name]) for name in found)


MASKED = {"attn.mask": torch.full((3, 3), -math.inf).triu(1), "w": normal(6, 5)}


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "slerp"])
def test_a_mask_that_nobody_changed_is_the_bases(method: Method, tmp_path: Path) -> None:
    model = {"attn.mask": MASKED["attn.mask"].clone(), "w": normal(6, 5, seed=1)}
    wb.save(model, tmp_path / "model.safetensors")
    for one in (model, tmp_path / "model.safetensors"):
        merged = wb.merge(MASKED, [one], method=method)
        assert torch.equal(merged["attn.mask"], MASKED["attn.mask"]) and bool(merged["w"].isfinite().all())
        assert any("attn.mask" in note and "bit by bit" in note for note in merged.notes)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "slerp"])
def test_what_is_the_same_everywhere_stays_so_bit_by_bit(method: Method) -> None:
    """Also NaN with its payload, which no sum keeps."""
    same = torch.tensor([0x7FC01234, 0x3F800001, 0x00000001], dtype=torch.int32).view(torch.float32)
    merged = wb.merge({"same": same, "w": normal(4)}, [{"same": same.clone(), "w": normal(4, seed=1)}], method=method)
    assert torch.equal(merged["same"].view(torch.int32), same.view(torch.int32))


def test_one_model_that_changed_a_mask_is_still_refused() -> None:
    changed = {**MASKED, "attn.mask": torch.zeros(3, 3)}
    with pytest.raises(wb.LayerError, match=r"attn\.mask: .* no rank by size: expected finite tensors, or the same"):
        wb.merge(MASKED, [changed])


@pytest.mark.parametrize("options", [{"method": "task_arithmetic", "scale": 1.0}, {"density": 1.0, "scale": 3.0}])
def test_a_merge_that_overflows_is_refused_by_name(options: dict[str, Any]) -> None:
    base, model = ({"a": normal(2), "fc.weight": torch.tensor([[size, 1.0]]).half()} for size in (60000.0, 64000.0))
    merged = wb.merge(base, [model, model, model], **options)
    with pytest.raises(wb.LayerError, match=r"fc\.weight: the merge overflows torch\.float16"):
        merged["fc.weight"]


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_antiparallel_ends_are_the_ends_themselves(t: float) -> None:
    base = normal(4, 4)
    merged = wb.merge({"w": base}, [{"w": -base}], method="slerp", t=t)
    assert torch.equal(merged["w"], base if t == 0 else -base)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "slerp"])
def test_a_merge_stays_when_its_base_is_trained_on(method: Method) -> None:
    base, model = nn.Linear(4, 3), nn.Linear(4, 3)
    merged = wb.merge(base, [model], method=method)
    before = {name: tensor.clone() for name, tensor in merged.items()}
    base.load_state_dict(dict(merged))
    with torch.no_grad():
        model.weight.zero_()
    assert all(torch.equal(merged[name], before[name]) for name in before)


def test_rows_of_a_model_that_are_dropped_are_told() -> None:
    base, model = normal(10, 4), normal(12, 4, seed=1)
    merged = wb.merge({"e": base}, [{"e": model}], mismatch="overlap", method="task_arithmetic", scale=1.0)
    np.testing.assert_allclose(merged["e"], model[:10], atol=1e-6)
    (note,) = [note for note in merged.notes if note.startswith("e: ")]
    assert note.startswith("e: all 10 rows are merged, the last 2 of the 12 rows of model 1")
    shorter = wb.merge({"e": model}, [{"e": base}], mismatch="overlap")
    assert "e: the first 10 of 12 rows are merged, the others the base's" in shorter.notes


@pytest.mark.parametrize("mismatch", ["error", "base"])
def test_one_tensor_of_another_shape_is_no_other_prefix(mismatch: Mismatch) -> None:
    with pytest.raises(wb.ArgumentError, match=r"'e' is \[10, 4\] in the base and \[12, 4\]") as caught:
        wb.merge({"e": normal(10, 4)}, [{"e": normal(12, 4)}], mismatch=mismatch)
    assert "prefix" not in str(caught.value)


@pytest.mark.parametrize("other", [{"ids": torch.arange(6)}, {}, {"ids": torch.zeros(4)}])
def test_integers_that_differ_in_shape_are_differences(other: Tensors) -> None:
    base, model = {"w": normal(4), "ids": torch.arange(4)}, {"w": normal(4, seed=1), **other}
    with pytest.raises(wb.ArgumentError, match="'ids' is .*mismatch='base'"):
        wb.merge(base, [model])
    merged = wb.merge(base, [model], mismatch="base")
    assert torch.equal(merged["ids"], base["ids"]) and any(
        note.startswith("ids is the base's") for note in merged.notes
    )
    counted = wb.merge(base, [{"w": model["w"], "ids": torch.arange(4) + 1}])
    assert torch.equal(counted["ids"], base["ids"])


@pytest.mark.parametrize("method", wb.MERGE_METHODS)
def test_a_merge_that_is_saved_is_the_merge_that_is_read(method: Any, tmp_path: Path) -> None:
    """Saving borrows memory that the next tensor takes again; reading hands out tensors that stay."""
    random = torch.Generator().manual_seed(0)
    base, model = ({f"{n}.weight": torch.randn(n, 30, generator=random) for n in (7, 40, 3, 12)} for _ in range(2))
    merged = wb.merge(base, [model], method=method)
    kept = {name: merged[name] for name in merged}
    stored = wb.load(wb.save(merged, tmp_path / "merged.safetensors"))
    assert all(torch.equal(stored[name], tensor) for name, tensor in kept.items())

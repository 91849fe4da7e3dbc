"""Robust weight signatures: the algebra, applying and taking off, batch norm, and what is refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import workbench as wb

State = dict[str, Tensor]


def network(norm: bool = False) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(16, 3)).eval()


def checkpoints(dtype: torch.dtype = torch.float64, *, norm: bool = False, seed: int = 0) -> list[State]:
    """An ancestor and two networks near it, the running statistics and counters changed too."""
    random = torch.Generator().manual_seed(seed)
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in network(norm).state_dict().items()}
    start = {name: torch.rand(shape, generator=random) + 0.5 for name, (shape, _) in shapes.items()}
    found = []
    for step in (0.0, 0.1, 0.2):
        state = {name: one + step * torch.randn(one.shape, generator=random) for name, one in start.items()}
        found.append(
            {
                name: one.abs().to(dtype if shapes[name][1].is_floating_point else torch.int64)
                for name, one in state.items()
            }
        )
    return found


def taken(states: list[State]) -> wb.Signature:
    return wb.signature(ancestor=states[0], clean=states[1], robust=states[2])


def dot(one: Tensor, other: Tensor) -> float:
    return float((one.double() * other.double()).sum())


def equal(one: Any, other: Any) -> bool:
    """To the last bit: −0 is not 0, NaN is NaN."""
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(*(side[name].contiguous().reshape(-1).view(torch.uint8) for side in (one, other)))
        for name in one
    )


# The algebra


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_it_is_what_is_orthogonal_to_c_and_pythagoras_holds(dtype: torch.dtype, tolerance: float) -> None:
    ancestor, clean, robust = checkpoints(dtype)
    found = wb.signature(ancestor=ancestor, clean=clean, robust=robust)
    assert list(found) == list(ancestor) and {one.dtype for one in found.values()} == {dtype}
    rows = found.frame().set_index("tensor")
    for name, start in ancestor.items():
        c, t = clean[name].double() - start.double(), robust[name].double() - start.double()
        rws = found[name]
        assert abs(dot(rws, c)) < tolerance * dot(c, c) ** 0.5 * dot(t, t) ** 0.5
        assert dot(t, t) == pytest.approx(dot(rws, rws) + dot(c, t) ** 2 / dot(c, c), rel=tolerance)
        numbers = [dot(rws, rws) ** 0.5, dot(t, t) ** 0.5, dot(c, c) ** 0.5, dot(c, t) / dot(c, c)]
        assert rows.loc[name].tolist() == pytest.approx([start.numel(), *numbers], rel=10 * tolerance)


def test_it_is_idempotent_homogeneous_zero_for_c_and_t_where_c_is_zero() -> None:
    ancestor, clean, robust = checkpoints()
    zero = {name: torch.zeros_like(one) for name, one in ancestor.items()}
    c = {name: clean[name] - ancestor[name] for name in ancestor}
    t = {name: robust[name] - ancestor[name] for name in ancestor}
    once = wb.signature(ancestor=zero, clean=c, robust=t)
    twice = wb.signature(ancestor=zero, clean=c, robust=once)
    thrice = wb.signature(ancestor=zero, clean=c, robust={name: -3 * one for name, one in t.items()})
    for name in ancestor:
        torch.testing.assert_close(twice[name], once[name], rtol=0, atol=1e-15)
        torch.testing.assert_close(thrice[name], -3 * once[name], rtol=1e-13, atol=1e-14)
    of_clean = wb.signature(ancestor=ancestor, clean=clean, robust=clean)
    assert not any(one.any() for one in of_clean.values())
    assert "the signature is zero: robust differs from the ancestor as clean does" in of_clean.meta["notes"]
    whole = wb.signature(ancestor=zero, clean=zero, robust=t)
    assert equal(whole, t) and "clean is the ancestor in every tensor" in whole.meta["notes"]
    assert whole.frame()["projection"].isna().all()
    nothing = wb.signature(ancestor=ancestor, clean=clean, robust=ancestor)
    assert "robust is the ancestor in every tensor" in nothing.meta["notes"]


def test_sums_are_in_float64_whatever_is_stored() -> None:
    """Half of a million float16 steps is beyond float16; in bfloat16 every sum would stop growing."""
    for dtype in (torch.float16, torch.bfloat16):
        states = [{"w": torch.full((200_000,), value, dtype=dtype)} for value in (1.0, 1.5, 1.5)]
        states[2]["w"][::2] = 2.0
        found = taken(states)
        torch.testing.assert_close(found["w"][:2].tolist(), [0.25, -0.25], rtol=0, atol=1e-6)
        assert found["w"].dtype == torch.float32 and found.apply(states[1])["w"].dtype == dtype


def test_small_tensors_have_their_own_rules() -> None:
    """A scalar has no direction beside c; an empty tensor has nothing; a tensor that clean left alone is t."""
    states = [
        {"scalar": torch.tensor(value), "none": torch.ones(0, 3), "still": torch.full((2,), still)}
        for value, still in ((1.0, 1.0), (2.0, 1.0), (5.0, 4.0))
    ]
    found = taken(states)
    assert found["scalar"].item() == 0 and found["none"].shape == (0, 3) and found["still"].tolist() == [3, 3]
    assert "clean is the ancestor in 1 tensor: still…" in found.meta["notes"]
    assert taken([{**states[0]}, {**states[1], "scalar": torch.tensor(1.0)}, states[2]])["scalar"].item() == 4


# Applying and taking off


@settings(max_examples=40)
@given(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]), st.floats(-3, 3), st.booleans())
def test_it_comes_off_to_the_last_bit(dtype: torch.dtype, scale: float, module: bool) -> None:
    states = checkpoints(dtype)
    model: Any = network().to(dtype) if module else copy.deepcopy(states[1])
    if module:
        model.load_state_dict(states[1])
    patched = taken(states).apply(model, scale=scale)
    if module:
        model.load_state_dict(dict(patched))  # which changes the memory that the original came from
    else:
        model["0.weight"].zero_()
    assert equal(wb.Signature.remove(patched), states[1]) and equal(patched.original, states[1])
    assert scale != 0 or patched.touched == ()


def test_subtraction_would_not_restore_every_bit() -> None:
    """What the undo is for; of the shipped family one element in seven would stay wrong."""
    states = checkpoints(torch.float32)
    found = taken(states)
    patched = found.apply(states[1])
    off = {name: one - found[name] for name, one in patched.items()}
    assert not equal(off, states[1])


def test_alpha_0_is_the_identity_bit_by_bit() -> None:
    states = checkpoints(torch.float32)
    states[1]["4.bias"][:] = torch.tensor([-0.0, 1e-45, -1e-45])
    found = taken(states)
    for scale in (0, 0.0, -0.0):
        patched = found.apply(states[1], scale=scale)
        assert equal(patched, states[1]) and patched.touched == ()


def test_alpha_is_applied_once_and_a_mean_has_1_over_k() -> None:
    """The paper's code multiplies by α/K twice: (½/2)² would be a sixteenth of the sum, and a quarter of ours."""
    ancestor, clean, robust = checkpoints()
    other = checkpoints(seed=1)[2]
    one, two = (wb.signature(ancestor=ancestor, clean=clean, robust=tuned) for tuned in (robust, other))
    mean = wb.Signature.mean([one, two])
    patched = mean.apply(clean, scale=0.5)
    for name in clean:
        torch.testing.assert_close(mean[name], (one[name] + two[name]) / 2, rtol=1e-14, atol=1e-16)
        torch.testing.assert_close(patched[name], clean[name] + 0.5 * (one[name] + two[name]) / 2, rtol=1e-14, atol=0)
    assert mean.frame()["norm"].tolist() == pytest.approx([dot(x, x) ** 0.5 for x in mean.values()])
    assert equal(wb.Signature.mean([one]), one) and mean.meta["notes"] == []
    apart = wb.Signature.mean([one, taken(checkpoints(seed=2))])
    assert apart.meta["notes"] == ["their ancestors differ, and so do the meanings of their coordinates"]


@pytest.mark.parametrize(
    ("layers", "changed"),
    [
        (None, ["0.weight", "0.bias", "4.weight", "4.bias"]),
        ("0", ["0.weight", "0.bias"]),
        ("0.weight", ["0.weight"]),
        (["*.bias"], ["0.bias", "4.bias"]),
        (["4", "0.bias"], ["0.bias", "4.weight", "4.bias"]),
        (lambda layer: layer.kind == "conv2d", ["0.weight"]),
    ],
)
def test_layers_choose_whole_modules_and_tensors(layers: Any, changed: list[str]) -> None:
    states = checkpoints()
    found = taken(states)
    patched = found.apply(states[1], layers=layers)
    assert list(patched.touched) == changed and set(found.only(layers)) == set(changed)
    for name, before in states[1].items():
        assert torch.equal(patched[name], before + found[name] if name in changed else before)
    assert equal(found.only(layers).apply(states[1]), patched)


def test_layers_that_are_not_there_or_half_there_are_refused() -> None:
    found = taken(checkpoints())
    for layers, words in (("conv", "matches 'conv'"), ([], "empty list"), (lambda layer: False, "predicate holds")):
        with pytest.raises(wb.LayerNotFoundError, match=words):
            found.only(layers)
    with pytest.raises(wb.LayerNotFoundError, match=r"Did you mean '4\.weight'"):
        found.only("4.weigth")
    fused = [{"attn.in_proj_weight": one} for one in torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))]
    half = taken(fused)
    assert set(half.only("attn")) == set(half.only(["attn.in_proj_weight.*"])) == {"attn.in_proj_weight"}
    with pytest.raises(wb.ArgumentError, match="is another part of 'attn.in_proj_weight': whole tensors"):
        half.only("attn.in_proj_weight.q")


def test_a_file_comes_off_in_another_session(tmp_path: Path) -> None:
    states = checkpoints(torch.float32)
    wb.save(states[1], tmp_path / "clean.safetensors")
    patched = taken(states).apply(tmp_path / "clean.safetensors", scale=0.7, layers="0")
    wb.save(patched, tmp_path / "patched.safetensors")
    undo = patched.save_undo(tmp_path / "undo.safetensors")
    assert not equal(wb.load(tmp_path / "patched.safetensors"), states[1])
    assert list(wb.load(undo)) == ["0.weight", "0.bias"] and torch.equal(wb.load(undo)["0.bias"], states[1]["0.bias"])
    assert equal(wb.Signature.remove(tmp_path / "patched.safetensors", undo), states[1])
    assert equal(wb.Signature.remove(dict(patched), undo), states[1])
    told = json.loads(wb.load(undo).metadata["undo"])
    assert (told["scale"], told["tensors"], told["batch_norm"]) == (0.7, ["0.bias", "0.weight"], None)
    nothing = taken(states).apply(states[1], scale=0).save_undo(tmp_path / "none.safetensors")
    assert equal(wb.Signature.remove(states[1], nothing), states[1])


def test_what_is_not_as_it_was_left_is_not_restored(tmp_path: Path) -> None:
    states = checkpoints(torch.float32)
    patched = taken(states).apply(states[1], layers="0")
    undo = patched.save_undo(tmp_path / "undo.safetensors")
    kept = dict(patched)
    trained = {**kept, "4.bias": kept["4.bias"] + 1e-3}
    cast = {name: one.half() for name, one in kept.items()}
    fewer = {name: one for name, one in kept.items() if name != "4.bias"}
    for other, words in (
        (trained, r"'4\.bias' in .* is not as the signature left it"),
        (cast, r"'0\.weight' in .* is not as the signature left it"),
        (states[1], r"'0\.weight' in .* is not as the signature left it"),
        (fewer, r"no tensor '4\.bias', which was patched"),
        ({**kept, "5.bias": torch.ones(1)}, r"has '5\.bias', which the patched network has not"),
    ):
        with pytest.raises(wb.ArgumentError, match=words):
            wb.Signature.remove(other, undo)
    with pytest.raises(wb.ArgumentError, match=r"undo=None .* save_undo\(path\)"):
        wb.Signature.remove(kept)
    with pytest.raises(wb.CheckpointError, match="no undo"):
        wb.Signature.remove(kept, wb.save(kept, tmp_path / "other.safetensors"))
    with pytest.raises(wb.ArgumentError, match="ends in .safetensors"):
        patched.save_undo(tmp_path / "undo")
    data = bytearray(undo.read_bytes())
    data[-1] ^= 1
    undo.write_bytes(bytes(data))
    with pytest.raises(wb.CheckpointError, match="original tensor is damaged"):
        wb.Signature.remove(kept, undo)


def test_tied_weights_are_changed_once_and_under_every_name(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.head, self.embedding = nn.Linear(5, 7, bias=False), nn.Embedding(7, 5)
            self.head.weight = self.embedding.weight
            random = torch.Generator().manual_seed(seed)
            self.head.weight.data = torch.randn(7, 5, generator=random)

    modules = [Tied(seed) for seed in range(3)]
    found = wb.signature(ancestor=modules[0], clean=modules[1], robust=modules[2])
    assert found.weights.infos["embedding.weight"].tied_to == "head.weight" and found.weights.elements == 35
    for layers in (None, "head", "embedding"):
        patched = found.apply(modules[1], layers=layers)
        assert set(patched.touched) == {"head.weight", "embedding.weight"}
        expected = (modules[1].head.weight.double() + found["head.weight"].double()).float()
        assert all(torch.equal(patched[name], expected) for name in patched)
        assert equal(patched.original, modules[1].state_dict())
    undo, copies = (
        patched.save_undo(tmp_path / "undo.safetensors"),
        {name: one.clone() for name, one in patched.items()},
    )
    for other in (patched.original, copies):  # tied or stored twice
        tied = wb.load(other).infos["embedding.weight"].tied_to
        again = wb.Signature.remove(wb.save(patched, tmp_path / "net.safetensors") if tied else copies, undo)
        assert equal(again, modules[1].state_dict())
    untied = {name: one.clone() for name, one in modules[2].state_dict().items()}
    untied["embedding.weight"] += 1
    apart = wb.signature(ancestor=modules[0], clean=modules[1], robust=untied)
    assert not torch.equal(apart["head.weight"], apart["embedding.weight"])
    with pytest.raises(wb.ArgumentError, match=r"ties 'embedding.weight' to 'head.weight', and the signature changes"):
        apart.apply(modules[1])


# Batch norm


def test_every_policy_and_its_control() -> None:
    states = checkpoints(torch.float32, norm=True)
    found = taken(states)
    module = network(norm=True)
    module.load_state_dict(states[1])
    assert "1.weight" in found and not any("running" in name or "num" in name for name in found)
    assert set(found.statistics) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    data = [torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    for scale in (0.0, 1.0):
        untouched = found.apply(module, scale=scale, batch_norm="untouched")
        copied = found.apply(states[1], scale=scale, batch_norm="copied")
        again = found.apply(module, scale=scale, batch_norm="re-estimated", data=data, device="cpu")
        through = found.apply(
            states[1], scale=scale, batch_norm="re-estimated", data=data, module=network(norm=True), device="cpu"
        )
        assert equal(again, through)
        with torch.no_grad():
            outputs = nn.functional.conv2d(torch.cat(data), untouched["0.weight"], untouched["0.bias"])
        torch.testing.assert_close(again["1.running_mean"], outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        for name, before in states[1].items():
            statistic = name in found.statistics
            assert torch.equal(copied[name], states[2][name] if statistic else untouched[name])
            assert not statistic or torch.equal(untouched[name], before)
            assert statistic or torch.equal(again[name], untouched[name])
        assert equal(copied.original, states[1]) and equal(again.original, states[1])
        changed = set() if scale == 0 else set(found)
        assert set(untouched.touched) == changed and set(copied.touched) == changed | set(found.statistics)


def test_statistics_of_another_shape_or_kind_are_not_copied() -> None:
    states = checkpoints(torch.float32, norm=True)
    found = taken(states)
    for tensor, words in (
        (torch.zeros(7), r"'1\.running_mean' is \[7\] of torch.float32 in .* \[4\] of torch.float32 in the signature"),
        (torch.zeros(4, dtype=torch.int64), r"'1\.running_mean' is \[4\] of torch.int64 in .*say 'untouched'"),
    ):
        other = states[1] | {"1.running_mean": tensor}
        with pytest.raises(wb.ArgumentError, match=rf"batch_norm='copied', but {words}"):
            found.apply(other, batch_norm="copied")
        assert torch.equal(found.apply(other, batch_norm="untouched")["1.running_mean"], tensor)
    half = states[1] | {"1.running_mean": states[1]["1.running_mean"].half()}
    assert found.apply(half, batch_norm="copied")["1.running_mean"].dtype == torch.float16


def test_a_policy_that_is_missing_or_lacks_something_is_refused() -> None:
    states = checkpoints(torch.float32, norm=True)
    found, data = taken(states), [torch.zeros(4, 1, 4, 4)]
    mean = wb.Signature.mean([found, found])
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: found.apply(states[1]), r"batch_norm=None, but .*'1\.running_mean'.* say 'untouched'"),
        (lambda: found.apply(states[1], batch_norm="re-estimated"), r"needs data=…"),
        (lambda: found.apply(states[1], batch_norm="re-estimated", data=data), r"an nn.Module, or module=…"),
        (lambda: found.apply(states[1], batch_norm="untouched", data=data), "data are for batch_norm='re-estimated'"),
        (lambda: mean.apply(states[1], batch_norm="copied"), r"has no '1\.running_mean': it is a mean"),
    ]
    for call, words in calls:
        with pytest.raises(wb.ArgumentError, match=words):
            call()
    instance = nn.Sequential(nn.InstanceNorm1d(3, affine=True, track_running_stats=True))
    own = wb.signature(ancestor=instance, clean=instance, robust=instance)
    with pytest.raises(wb.ArgumentError, match=r"'0\.running_mean' cannot be re-estimated \(instance norm"):
        own.apply(instance, batch_norm="re-estimated", data=[torch.randn(4, 3, 5)])
    plain = checkpoints()
    assert equal(taken(plain).apply(plain[1], batch_norm="copied"), taken(plain).apply(plain[1]))


def test_wrong_words_are_refused(raised: Callable[[list[str]], dict[str, list[str]]]) -> None:
    """Without the type checks of the tests, as a user has it."""
    start = "wb.signature(ancestor=model, clean=model, robust=model)"
    found = raised(
        [
            f"{start}.apply(model, batch_norm='reset')",
            f"{start}.apply(model, scale=float('nan'))",
            f"{start}.apply(model, scale='1')",
            f"{start}.only(3)",
            f"{start}.save('s.safetensors', bits=1)",
            f"{start}.save('s.safetensors', bits=4.0)",
            "wb.Signature.mean([])",
            "wb.Signature.mean([model])",
            "wb.similarity({})",
            "wb.similarity([model])",
            "wb.signature(ancestor=model, clean=model, robust=model, progress=3)",
        ]
    )
    words = ["batch_norm='reset'", "scale=nan", "scale='1'", "layers=3", "bits=1", "bits=4.0", "list of at least one"]
    words += ["list of at least one", "mapping of labels", "mapping of labels", "progress=3"]
    for (kind, message), word in zip(found.values(), words, strict=True):
        assert kind == "ArgumentError" and word in message


# What is refused


def _changed(states: list[State], place: int, name: str, tensor: Tensor | None) -> list[State]:
    other = [dict(state) for state in states]
    if tensor is None:
        del other[place][name]
    else:
        other[place][name] = tensor
    return other


@pytest.mark.parametrize(
    ("place", "name", "tensor", "words"),
    [
        (1, "4.bias", None, r"'4\.bias' is in ancestor and not in clean: .*one architecture"),
        (2, "5.bias", torch.ones(1), r"'5\.bias' is in robust and not in ancestor"),
        (2, "4.weight", torch.ones(4, 16), r"'4\.weight' is \[3, 16\] in ancestor and \[4, 16\] in robust"),
        (1, "4.bias", torch.ones(3, dtype=torch.int64), r"'4\.bias' is float64 in ancestor and int64 in"),
        (0, "4.bias", torch.tensor([1.0, torch.nan, 0.0]), r"'4\.bias' is NaN or infinite in ancestor"),
        (2, "0.bias", torch.full((4,), torch.inf), r"'0\.bias' is NaN or infinite in robust"),
        (1, "0.bias", torch.full((4,), 1e200, dtype=torch.float64), r"'0\.bias' has elements whose squares overflow"),
    ],
)
def test_checkpoints_that_do_not_fit_are_named(place: int, name: str, tensor: Tensor | None, words: str) -> None:
    with pytest.raises(wb.ArgumentError, match=words):
        taken(_changed(checkpoints(), place, name, tensor))


def test_numbers_without_meaning_are_refused_or_left_out() -> None:
    for tensor, words in (
        (torch.ones(3, dtype=torch.complex64), "complex64"),
        (torch.ones(3).to(torch.float8_e4m3fn), "float8"),
        (torch.eye(3).to_sparse(), "sparse"),
    ):
        with pytest.raises(wb.ArgumentError, match=words):
            taken([{"w": tensor}] * 3)
    with pytest.raises(wb.ArgumentError, match="no tensors of real numbers"):
        taken([{"ids": torch.arange(3)}] * 3)
    states = [state | {"ids": torch.arange(3), "mask": torch.ones(2, dtype=torch.bool)} for state in checkpoints()]
    found = taken(states)
    assert "left out, as they are no real numbers: ids, mask" in found.meta["notes"]
    assert equal({"ids": found.apply(states[1])["ids"]}, {"ids": torch.arange(3)})


def test_a_model_that_does_not_fit_is_named() -> None:
    states = checkpoints(torch.float32)
    found = taken(states)
    other = {name: one for name, one in states[1].items() if name != "4.weight"}
    with pytest.raises(wb.ArgumentError, match=r"has no tensor '4\.weight', which the signature changes"):
        found.apply(other)
    assert found.apply(other, layers="0").touched == ("0.weight", "0.bias")
    with pytest.raises(wb.ArgumentError, match=r"'4\.weight' is \[5, 16\] of torch.float32 .*leave it out with layers"):
        found.apply({**other, "4.weight": torch.ones(5, 16)})
    wrapped = {f"module.{name}": one for name, one in states[1].items()}
    assert equal(found.apply(wrapped), found.apply(states[1]))


def test_a_sum_that_overflows_is_refused_when_it_is_read(raised: Callable[[list[str]], dict[str, list[str]]]) -> None:
    taken = "wb.signature(ancestor=model, clean=model, robust={'fc.weight': 2 * model['fc.weight']})"
    code = f"{taken}.apply({{'fc.weight': 6e4 * model['fc.weight'].half()}}, scale=1e5)['fc.weight']"
    assert raised([code])[code] == [
        "ArgumentError",
        "'fc.weight' overflows torch.float16 at scale=100000: choose a smaller one.",
    ]


def test_progress_is_told_and_a_cancel_goes_through() -> None:
    heard: list[wb.Progress] = []
    states = checkpoints()
    wb.signature(ancestor=states[0], clean=states[1], robust=states[2], progress=heard.append)
    assert [one.item for one in heard] == [*states[0], ""] and heard[-1].done == heard[-1].total == 4

    def stop(_: wb.Progress) -> None:
        raise wb.Cancelled

    with pytest.raises(wb.Cancelled):
        wb.signature(ancestor=states[0], clean=states[1], robust=states[2], progress=stop)


def test_it_is_weights_to_everything_else_and_says_what_it_is(tmp_path: Path) -> None:
    found = taken(checkpoints())
    assert wb.spectrum(found).frame()["layer"].tolist() == ["0", "4"]
    assert wb.layers(found).frame()["tensor"].tolist() == list(found)
    text = repr(found)
    assert "4 tensors, 91 elements, norm " in text and ".apply(model, scale=1.0)" in text
    assert "α = 0.5, 2 tensors touched" in repr(found.apply(checkpoints()[1], scale=0.5, layers="0"))
    assert len(found.fingerprint) == 32 and found.fingerprint != taken(checkpoints(seed=1)).fingerprint


def test_a_mask_that_all_three_have_alike_is_left_out() -> None:
    mask = torch.full((3, 3), float("-inf")).triu(1)
    states = [{"w": state["0.weight"], "mask": mask.clone()} for state in checkpoints()]
    found = taken(states)
    assert list(found) == ["w"] and "left out, as not finite and the same in all three: mask" in found.meta["notes"]
    assert torch.equal(found.apply(states[1])["mask"], mask)
    states[2]["mask"] = torch.zeros(3, 3)
    with pytest.raises(wb.ArgumentError, match="'mask' is NaN or infinite in ancestor"):
        taken(states)


def test_a_second_name_that_files_do_not_store_is_no_difference() -> None:
    """The ancestor in memory ties its head, and the files of its descendants have the embedding alone."""
    states = [{"embed.weight": one["4.weight"], "norm.weight": one["0.bias"]} for one in checkpoints()]
    tied = {**states[0], "head.weight": states[0]["embed.weight"]}
    found = wb.signature(ancestor=tied, clean=states[1], robust=states[2])
    expected = taken(states)
    assert list(found) == list(states[0]) and all(torch.equal(found[name], expected[name]) for name in found)
    patched = found.apply(tied)
    assert torch.equal(patched["head.weight"], patched["embed.weight"])
    own = {**states[0], "head.weight": states[0]["embed.weight"] + 1}
    with pytest.raises(wb.ArgumentError, match=r"'head\.weight' is in ancestor and not in clean"):
        wb.signature(ancestor=own, clean=states[1], robust=states[2])


def test_a_mean_takes_any_iterable() -> None:
    found = taken(checkpoints())
    mean = wb.Signature.mean(one for one in (found, found))
    assert all(torch.allclose(mean[name], found[name]) for name in found)
    with pytest.raises(wb.ArgumentError, match="at least one Signature"):
        wb.Signature.mean(one for one in ())


@pytest.mark.parametrize("kind", ["sparse", "float8"])
def test_a_signature_is_not_put_on_what_is_no_dense_real_tensor(kind: str) -> None:
    states = checkpoints()
    bad = states[1]["0.weight"].to_sparse() if kind == "sparse" else states[1]["0.weight"].to(torch.float8_e4m3fn)
    with pytest.raises(wb.ArgumentError, match=rf"'0\.weight' in .* is {kind}.*: expected dense real numbers"):
        taken(states).apply({**states[1], "0.weight": bad})

"""PEFT adapters: W + scale · B A by hand for every variant, and a reason for everything that is refused."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.errors import CheckpointError, CheckpointNotFoundError
from workbench.weights.adapter import is_adapter, merged_adapter

P = "base_model.model."
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "fan_in_fan_out": False}


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(1000 * seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


def lora(module: str, rows: int, cols: int, rank: int = 2, seed: int = 1) -> dict[str, Tensor]:
    """A and B of a linear layer, under the names that peft gives them."""
    low, high = normal(rank, cols, seed=seed), normal(rows, rank, seed=seed + 1)
    return {f"{P}{module}.lora_A.weight": low, f"{P}{module}.lora_B.weight": high}


def product(tensors: Mapping[str, Tensor], module: str) -> Tensor:
    return tensors[f"{P}{module}.lora_B.weight"].double() @ tensors[f"{P}{module}.lora_A.weight"].double()


def adapter(where: Path, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    path = where / "adapter"
    path.mkdir()
    safetensors.torch.save_file(dict(tensors), path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return path


def base() -> dict[str, Tensor]:
    return {
        "model.embed.weight": normal(7, 4),
        "model.layers.0.q.weight": normal(5, 4),
        "model.layers.0.q.bias": normal(5),
        "model.layers.1.q.weight": normal(5, 4, seed=9),
        "head.weight": normal(3, 5),
    }


def agrees(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected.to(got.dtype), rtol=1e-5, atol=1e-6)


Q = "model.layers.0.q"


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 3.0),
        ({"use_rslora": True}, 6 / math.sqrt(2)),
        ({"lora_alpha": 0.5}, 0.25),
        ({"rank_pattern": None, "alpha_pattern": None, "use_dora": False, "loftq_config": {}}, 3.0),
        ({"init_lora_weights": "gaussian"}, 3.0),
        ({"layers_pattern": "layers", "layers_to_transform": [0]}, 3.0),
    ],
)
def test_delta_is_scale_times_b_a(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    tensors, state = lora(Q, 5, 4), base()
    merged = merged_adapter(adapter(tmp_path, tensors, **config), wb.load(state))
    agrees(merged[f"{Q}.weight"], state[f"{Q}.weight"].double() + scale * product(tensors, Q))
    for name in state.keys() - {f"{Q}.weight"}:
        assert torch.equal(merged[name], state[name])
    assert list(merged) == list(state)
    settings = f"rank 2, alpha {config.get('lora_alpha', 6)}, scale {scale:.4g}"
    assert merged.notes[-1] == f"adapter: tensors changed by LoRA: 1 ({settings}), replaced: 0"


def test_patterns_set_rank_and_alpha_by_module(tmp_path: Path) -> None:
    modules = {"model.layers.0.q": 3, "model.layers.1.q": 2, "model.layers.10.q": 4, "head": 2}
    state = {f"{module}.weight": normal(5, 4, seed=seed) for seed, module in enumerate(modules)}
    tensors: dict[str, Tensor] = {}
    for seed, (module, rank) in enumerate(modules.items()):
        tensors |= lora(module, 5, 4, rank=rank, seed=seed)
    patterns = {  # the first that matches counts; "ead" must not match head, nor "model" what lies in it
        "rank_pattern": {"model": 7, "0.q": 3, r"model\.layers\.1\d\.q": 4, "ead": 5},
        "alpha_pattern": {r"layers\.\d\.q": 8, "1.q": 100, "ead": 50},
    }
    merged = merged_adapter(adapter(tmp_path, tensors, **patterns), wb.load(state))
    scales = {"model.layers.0.q": 8 / 3, "model.layers.1.q": 8 / 2, "model.layers.10.q": 6 / 4, "head": 6 / 2}
    for module, scale in scales.items():
        agrees(merged[f"{module}.weight"], state[f"{module}.weight"].double() + scale * product(tensors, module))
    expected = "tensors changed by LoRA: 4 (rank 2 to 4, alpha 6 to 8, scale 1.5 to 4), replaced: 0"
    assert expected in merged.notes[-1]


@pytest.mark.parametrize(("rows", "cols"), [(3, 4), (4, 4)])
def test_fan_in_fan_out_adds_the_transpose(tmp_path: Path, rows: int, cols: int) -> None:
    tensors, weight = lora("h", rows, cols), normal(cols, rows)
    merged = merged_adapter(adapter(tmp_path, tensors, fan_in_fan_out=True), wb.load({"h.weight": weight}))
    agrees(merged["h.weight"], weight.double() + 3 * product(tensors, "h").T)


def test_the_class_of_a_module_overrules_the_flag_as_in_peft(tmp_path: Path) -> None:
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(normal(4, 4, seed=3))

    model = nn.ModuleDict({"one": Conv1D(), "two": nn.Linear(4, 4)})
    tensors = lora("one", 4, 4) | lora("two", 4, 4, seed=5)
    for flag in (False, True):
        (tmp_path / str(flag)).mkdir()
        merged = merged_adapter(adapter(tmp_path / str(flag), tensors, fan_in_fan_out=flag), wb.load(model))
        state = model.state_dict()
        agrees(merged["one.weight"], state["one.weight"].double() + 3 * product(tensors, "one").T)
        agrees(merged["two.weight"], state["two.weight"].double() + 3 * product(tensors, "two"))


@pytest.mark.parametrize("ending", ["", ".default"])
def test_embeddings(tmp_path: Path, ending: str) -> None:
    low, high, state = normal(2, 7, seed=1), normal(4, 2, seed=2), base()
    names = [f"{P}model.embed.lora_embedding_{side}{ending}" for side in "AB"]
    merged = merged_adapter(adapter(tmp_path, dict(zip(names, (low, high), strict=True))), wb.load(state))
    agrees(merged["model.embed.weight"], state["model.embed.weight"].double() + 3 * (high.double() @ low.double()).T)


def test_convolutions(tmp_path: Path) -> None:
    low, high, weight = normal(2, 3, 3, 2, seed=1), normal(4, 2, 1, 1, seed=2), normal(4, 3, 3, 2)
    tensors = {f"{P}c.lora_A.weight": low, f"{P}c.lora_B.weight": high}
    merged = merged_adapter(adapter(tmp_path, tensors), wb.load({"c.weight": weight}))
    agrees(merged["c.weight"], weight + 3 * torch.einsum("or,rihw->oihw", high[:, :, 0, 0], low))
    image = normal(1, 3, 8, 8)  # what the unmerged adapter computes: one convolution after the other
    path = nn.functional.conv2d(nn.functional.conv2d(image, low), high)
    torch.testing.assert_close(
        nn.functional.conv2d(image, merged["c.weight"]),
        nn.functional.conv2d(image, weight) + 3 * path,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("kernel", [(3,), (1,), (1, 1), (2, 1, 2)])
def test_convolutions_of_any_number_of_axes(tmp_path: Path, kernel: tuple[int, ...]) -> None:
    ones = (1,) * len(kernel)
    low, high, weight = normal(2, 3, *kernel, seed=1), normal(4, 2, *ones, seed=2), normal(4, 3, *kernel)
    tensors = {f"{P}c.lora_A.weight": low, f"{P}c.lora_B.weight": high}
    path = adapter(tmp_path, tensors, fan_in_fan_out=True)  # the flag is for matrices
    merged = merged_adapter(path, wb.load({"c.weight": weight}))
    convolution = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[len(kernel) - 1]
    image = normal(1, 3, *(5 for _ in kernel)).double()
    expected = convolution(image, weight.double()) + 3 * convolution(convolution(image, low.double()), high.double())
    torch.testing.assert_close(convolution(image, merged["c.weight"].double()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [2, 6])
def test_a_grouped_convolution_is_refused_as_no_weights_equal_it(tmp_path: Path, groups: int) -> None:
    """As peft builds it: A sees all 6 inputs, B is grouped."""
    tensors = {f"{P}c.lora_A.weight": normal(6, 6, 3, 3), f"{P}c.lora_B.weight": normal(12, 6 // groups, 1, 1)}
    message = f"sums over all {groups} groups of 'c.weight', so no weights of its shape (12, {6 // groups}, 3, 3) equal"
    state = {"c.weight": normal(12, 6 // groups, 3, 3)}
    refused(adapter(tmp_path, tensors, r=6), state, message, "nor can peft merge it; open the base without the adapter")


def test_attention_with_a_fused_projection_is_refused(tmp_path: Path) -> None:
    """So peft 0.21.2 names LoRA on nn.MultiheadAttention, and adds the ΔW of out_proj twice."""
    tensors = lora("attn", 12, 4) | lora("attn.base_layer.out_proj", 4, 4)
    state = {"attn.in_proj_weight": normal(12, 4), "attn.out_proj.weight": normal(4, 4)}
    key = f"{P}attn.base_layer.out_proj.lora_A.weight"
    message = "(nn.MultiheadAttention), whose ΔW depends on peft's version; merge it with peft"
    refused(adapter(tmp_path, tensors), state, message, "with the version that trained it", key=key)


def test_a_normalisation_saved_with_its_statistics(tmp_path: Path) -> None:
    norm, new = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    new(normal(5, 3))
    tensors = {f"{P}norm.{name}": tensor for name, tensor in new.state_dict().items()}
    merged = merged_adapter(adapter(tmp_path, tensors, modules_to_save=["norm"]), wb.load(norm_in(norm)))
    assert {name: tensor.tolist() for name, tensor in merged.items()} == {
        f"norm.{name}": tensor.tolist() for name, tensor in new.state_dict().items()
    }
    assert merged["norm.num_batches_tracked"].dtype == torch.int64


def norm_in(norm: nn.Module) -> nn.Module:
    return nn.ModuleDict({"norm": norm})


WRITTEN = r"""
{"alora_invocation_tokens": null, "alpha_pattern": {"q_proj": 7, "layers.1": 99}, "arrow_config": null,
"auto_mapping": null, "base_model_name_or_path": "", "bias": "none", "corda_config": null,
"ensure_weight_tying": false, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
"inference_mode": true, "init_lora_weights": true, "kasa_config": null, "layer_replication": null,
"layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 6, "lora_bias": false,
"lora_dropout": 0.0, "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
"modules_to_save": null, "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2",
"qalora_group_size": 16, "r": 3,
"rank_pattern": {"1.q_proj": 2, "layers\\.\\d\\.down": 5, "^model.layers.10.v": 4}, "revision": null,
"target_modules": ["q_proj", "v", "down"], "target_parameters": null, "task_type": null,
"trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false, "use_rslora": true,
"velora_config": null}
"""


def test_a_configuration_as_peft_writes_it(tmp_path: Path) -> None:
    """All the options of peft 0.21.2 in their places; ranks and scales by its rules, worked out by hand."""
    expected = {  # module: rank, α
        "model.layers.0.q_proj": (3, 7),
        "model.layers.1.q_proj": (2, 7),
        "model.layers.1.down": (5, 6),
        "model.layers.10.down": (3, 6),  # \d is one digit
        "model.layers.10.v": (4, 6),
    }
    tensors: dict[str, Tensor] = {}
    for seed, (module, (rank, _)) in enumerate(expected.items()):
        tensors |= lora(module, 5, 4, rank=rank, seed=seed)
    path = adapter(tmp_path, tensors)
    (path / "adapter_config.json").write_text(WRITTEN)
    state = {f"{module}.weight": normal(5, 4, seed=seed) for seed, module in enumerate(expected)}
    merged = merged_adapter(path, wb.load(state))
    for module, (rank, alpha) in expected.items():
        change = alpha / math.sqrt(rank) * product(tensors, module)
        agrees(merged[f"{module}.weight"], state[f"{module}.weight"].double() + change)


@pytest.mark.parametrize("form", ["head.weight", "head.modules_to_save.weight", "head.modules_to_save.default.weight"])
def test_whole_tensors_replace_those_of_the_base(tmp_path: Path, form: str) -> None:
    new, state = normal(3, 5, seed=4), base()
    path = adapter(tmp_path, lora(Q, 5, 4) | {P + form: new}, modules_to_save=["head"])
    merged = merged_adapter(path, wb.load(state))
    assert torch.equal(merged["head.weight"], new)
    assert "changed by LoRA: 1 (" in merged.notes[-1] and merged.notes[-1].endswith("replaced: 1")


def test_trained_biases_and_resaved_embeddings(tmp_path: Path) -> None:
    bias, embed, low, high = normal(5, seed=4), normal(7, 4, seed=5), normal(2, 7, seed=1), normal(4, 2, seed=2)
    tensors = lora(Q, 5, 4) | {
        f"{P}{Q}.base_layer.bias": bias,
        f"{P}model.embed.base_layer.weight": embed,
        f"{P}model.embed.lora_embedding_A": low,
        f"{P}model.embed.lora_embedding_B": high,
    }
    merged = merged_adapter(adapter(tmp_path, tensors, bias="all"), wb.load(base()))
    assert torch.equal(merged[f"{Q}.bias"], bias)
    agrees(
        merged["model.embed.weight"], embed.double() + 3 * (high.double() @ low.double()).T
    )  # replaced, then changed


def test_a_tensor_saved_twice_and_the_copy_of_the_original(tmp_path: Path) -> None:
    new = normal(3, 5, seed=4)
    tensors = {
        f"{P}head.weight": new,
        f"{P}head.modules_to_save.weight": new.clone(),
        f"{P}head.original_module.weight": normal(3, 5),
    }
    merged = merged_adapter(adapter(tmp_path, tensors), wb.load(base()))
    assert torch.equal(merged["head.weight"], new)
    assert "adapter: copies of the base's own tensors (original_module) left out: 1" in merged.notes
    assert merged.notes[-1] == "adapter: tensors changed by LoRA: 0, replaced: 1"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_sum_is_rounded_once_to_the_dtype_of_the_base(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors, weight, new = lora("a", 5, 4), normal(5, 4).to(dtype), normal(3)
    state = {"a.weight": weight, "b.bias": torch.zeros(3, dtype=dtype, device="cpu")}
    low, high = tensors.values()
    path = adapter(tmp_path, tensors | {f"{P}b.bias": new}, bias="all")
    merged = merged_adapter(path, wb.load(state))
    work = torch.float64 if dtype == torch.float64 else torch.float32
    expected = (weight.to(work) + (high.to(work) @ low.to(work)) * 3.0).to(dtype)
    assert merged["a.weight"].dtype == merged.infos["a.weight"].dtype == dtype
    assert torch.equal(merged["a.weight"], expected)
    assert torch.equal(merged["b.bias"], new.to(dtype))


def test_names_with_default_and_the_bin_file(tmp_path: Path) -> None:
    tensors, state = lora(Q, 5, 4), base()
    path = adapter(tmp_path, tensors)
    expected = merged_adapter(path, wb.load(state))[f"{Q}.weight"]
    (path / "adapter_model.safetensors").unlink()
    for legacy in (False, True):
        renamed = {name.replace(".weight", ".default.weight"): tensor for name, tensor in tensors.items()}
        torch.save(renamed, path / "adapter_model.bin", _use_new_zipfile_serialization=not legacy)
        assert torch.equal(merged_adapter(path, wb.load(state))[f"{Q}.weight"], expected)


LAZY = """
import json, sys
from pathlib import Path
import torch
from workbench.weights.adapter import merged_adapter
from workbench.weights.weights import TensorInfo, Weights

shapes, asked = json.loads(sys.argv[2]), []

def read(info):
    asked.append(info.name)
    return torch.zeros(info.shape)

infos = [TensorInfo(name=name, stored=name, shape=tuple(shape), dtype=torch.float32) for name, shape in shapes.items()]
base = Weights(infos, read, source="base", notes=["a note"], ordered=False, shared=True)
merged = merged_adapter(Path(sys.argv[1]), base)
repr(merged), len(merged), merged.bytes
said = [merged.source, merged.ordered, merged.notes[0], merged.elements, merged.fingerprint == base.fingerprint]
before = list(asked)
merged["model.layers.0.q.weight"]
print(json.dumps([said, before, asked]))
"""


def test_no_tensor_of_the_base_is_read_before_it_is_asked_for(tmp_path: Path, unchecked: Callable[..., Any]) -> None:
    path = adapter(tmp_path, lora(Q, 5, 4) | {f"{P}head.weight": normal(3, 5)})
    shapes = {name: list(tensor.shape) for name, tensor in base().items()}
    said, before, asked = unchecked(LAZY, str(path), json.dumps(shapes))
    assert said == [f"base + {path}", False, "a note", sum(math.prod(shape) for shape in shapes.values()), True]
    assert before == [] and asked == [f"{Q}.weight"]


def test_writing_into_what_is_handed_out_changes_neither_base_nor_adapter(tmp_path: Path) -> None:
    state, new = base(), normal(3, 5, seed=4)
    before = {name: tensor.clone() for name, tensor in state.items()}
    path = adapter(tmp_path, {})
    (path / "adapter_model.safetensors").unlink()
    torch.save(lora(Q, 5, 4) | {f"{P}head.weight": new}, path / "adapter_model.bin")
    merged = merged_adapter(path, wb.load(state))
    first = {name: tensor.clone() for name, tensor in merged.items()}
    for name in merged:
        merged[name].fill_(99)
        merged.borrowed(name).fill_(99)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert all(torch.equal(merged[name], first[name]) for name in merged)


def test_a_changed_tensor_leaves_its_tie(tmp_path: Path) -> None:
    shared, other = normal(7, 4), normal(2, 2)
    state = {"embed.weight": shared, "head.weight": shared, "third.weight": shared, "x": other, "y": other}
    low, high = normal(2, 7, seed=1), normal(4, 2, seed=2)
    tensors = {f"{P}embed.lora_embedding_A": low, f"{P}embed.lora_embedding_B": high}
    merged = merged_adapter(adapter(tmp_path, tensors), wb.load(state))
    ties = {name: info.tied_to for name, info in merged.infos.items()}
    assert ties == {"embed.weight": None, "head.weight": None, "third.weight": "head.weight", "x": None, "y": "x"}
    assert torch.equal(merged["head.weight"], shared) and not torch.equal(merged["embed.weight"], shared)
    assert merged.elements == 28 + 28 + 4
    assert any("tied in the base, changed alone by the adapter: embed.weight;" in note for note in merged.notes)


@pytest.mark.parametrize(
    ("saved", "held", "note"),
    [
        ("model.layers.0.q", "layers.0.q", "prefix 'model.' of its names stands for '' in the base"),
        ("layers.0.q", "model.layers.0.q", "prefix '' of its names stands for 'model.' in the base"),
        ("transformer.h.0.c", "h.0.c", "prefix 'transformer.' of its names stands for '' in the base"),
        ("encoder.layer.0.k", "bert.encoder.layer.0.k", "prefix '' of its names stands for 'bert.' in the base"),
    ],
)
def test_names_may_differ_by_a_prefix(tmp_path: Path, saved: str, held: str, note: str) -> None:
    tensors, state = lora(saved, 5, 4), {f"{held}.weight": normal(5, 4), "head.weight": normal(3, 5)}
    merged = merged_adapter(adapter(tmp_path, tensors | {f"{P}head.weight": normal(3, 5, seed=2)}), wb.load(state))
    agrees(merged[f"{held}.weight"], state[f"{held}.weight"].double() + 3 * product(tensors, saved))
    assert f"adapter: {note}" in merged.notes


def test_a_module_that_is_called_like_a_lora_tensor(tmp_path: Path) -> None:
    new = normal(3, 5, seed=2)
    merged = merged_adapter(adapter(tmp_path, {f"{P}lora_head.weight": new}), wb.load({"lora_head.weight": new * 2}))
    assert torch.equal(merged["lora_head.weight"], new)


def test_the_exact_name_wins_over_a_longer_one(tmp_path: Path) -> None:
    state = {"q.weight": normal(5, 4), "model.q.weight": normal(5, 4, seed=2)}
    merged = merged_adapter(adapter(tmp_path, lora("q", 5, 4)), wb.load(state))
    assert torch.equal(merged["model.q.weight"], state["model.q.weight"])
    assert not torch.equal(merged["q.weight"], state["q.weight"])


def refused(path: Path, state: Mapping[str, Any], *parts: str, key: str | None = None) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        merged_adapter(path, wb.load(state))
    for part in parts:
        assert part in str(caught.value)
    if key is not None:
        assert caught.value.key == key
    return caught.value


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type", "'IA3' is not supported, expected 'LORA'"),
        ({"peft_type": None}, "peft_type", "None is not supported, expected 'LORA'"),
        ({"use_dora": True}, "use_dora", "DoRA rescales every row by a trained magnitude"),
        ({"use_qalora": True}, "use_qalora", "QALoRA pools the inputs"),
        ({"lora_bias": True}, "lora_bias", "the LoRA matrices have biases of their own"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication", "layers of the base are repeated"),
        ({"target_parameters": ["experts.w"]}, "target_parameters", "LoRA on bare parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices", "single rows of the embedding"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens", "acts only on some tokens"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config", "Arrow chooses adapters token by token"),
        ({"kasa_config": {"beta": 0.0001}}, "kasa_config", "KaSA takes the smallest singular values from the base's"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora", "BD-LoRA stores the blocks of a block-diagonal matrix"),
        ({"velora_config": {"num_groups": 32}}, "velora_config", "VeLoRA keeps tensors of its own beside A and B"),
        ({"monteclora_config": {"num_samples": 8}}, "monteclora_config", "MonteCLoRA draws A anew in every step"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights", "'pissa_niter_4' changed the base's own weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights", "'olora' changed the base's own weights"),
        ({"layers_pattern": "h"}, "layers_pattern", "set without layers_to_transform"),
        ({"bias": "some"}, "bias", "'some', expected 'none', 'all' or 'lora_only'"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path: Path, config: dict[str, Any], key: str, message: str) -> None:
    path = adapter(tmp_path, lora(Q, 5, 4), **config)
    error = refused(path, base(), message, "merge_and_unload().save_pretrained(path)) and open the result", key=key)
    assert error.path == str(path / "adapter_config.json")


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        ({"r": 0}, "r", "0, expected a positive int; save the adapter again"),
        ({"r": True}, "r", "True, expected a positive int"),
        ({"r": 2.0}, "r", "2.0, expected a positive int"),
        ({"lora_alpha": None}, "lora_alpha", "None, expected a number"),
        ({"lora_alpha": math.nan}, "lora_alpha", "nan, expected a number"),
        ({"rank_pattern": {"q": -1}}, "rank_pattern", "-1, expected a positive int"),
        ({"alpha_pattern": {"q": "8"}}, "alpha_pattern", "'8', expected a number"),
        ({"alpha_pattern": [8]}, "alpha_pattern", "a list, expected an object from module names to numbers"),
        ({"rank_pattern": {"q(": 2}}, "rank_pattern", "'q(' is no regular expression: "),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, config: dict[str, Any], key: str, message: str) -> None:
    refused(adapter(tmp_path, lora(Q, 5, 4), **config), base(), message, key=key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not valid JSON ("),
        (b"\xff", "not valid JSON ("),
        (b"[" * 100_000, "not valid JSON ("),
        (b"[1]", "holds a list, expected an object with peft_type"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_broken_configuration(tmp_path: Path, text: bytes | None, message: str) -> None:
    path = adapter(tmp_path, lora(Q, 5, 4))
    (path / "adapter_config.json").unlink()
    if text is not None:
        (path / "adapter_config.json").write_bytes(text)
    refused(path, base(), message)


SHAPED = "(rank 2 of adapter_config.json, 'model.layers.0.q.weight' of shape (5, 4), fan_in_fan_out false); open the"
A, B = (f"{P}{Q}.lora_{side}.weight" for side in "AB")


@pytest.mark.parametrize(
    ("tensors", "key", "message"),
    [
        ({A: normal(2, 4)}, A, "lora_A without lora_B: expected both; save the adapter again"),
        ({B: normal(5, 2)}, B, "lora_B without lora_A: expected both"),
        ({f"{P}model.embed.lora_embedding_B": normal(4, 2)}, None, "lora_embedding_B without lora_embedding_A"),
        ({A: normal(3, 4), B: normal(5, 3)}, A, f"shape (3, 4), expected (2, 4) {SHAPED}"),
        ({A: normal(2, 4), B: normal(6, 2)}, B, f"shape (6, 2), expected (5, 2) {SHAPED}"),
        ({A: normal(2, 4).long(), B: normal(5, 2)}, A, "torch.int64, expected one of torch.float64, torch.float32"),
        ({f"{P}head.weight": normal(4, 5)}, None, "shape (4, 5), expected (3, 5) as in the base; resize the base"),
        ({f"{P}head.weight": normal(3, 5).int()}, None, "torch.int32, expected torch.float32 as in the base"),
        (lora("model.layers.2.q", 5, 4), None, "no tensor 'model.layers.2.q.weight'. Did you mean 'model.layers."),
        (lora("z" * 30, 5, 4), None, "zzz.weight'. Open the model that the adapter was trained on"),
        ({f"{P}model.layers.1.q.bias": normal(5)}, None, "'model.layers.1.q.bias', and its biases cannot be left out"),
        (lora("q", 5, 4), None, "'q.weight' could be any of 'model.layers.0.q.weight', 'model.layers.1.q.weight'"),
        (lora("layers.0.q", 5, 4) | lora("m.head", 3, 5), None, "expected one for all"),
        (lora(Q, 5, 4) | lora("layers.0.q", 5, 4, seed=3), None, f"a second LoRA for '{Q}.weight' of the base"),
        ({A: normal(2, 4), A.replace("A.", "A.default."): normal(2, 4)}, None, "says the same as"),
        ({f"{P}{Q}.lora_magnitude_vector": normal(5)}, None, "DoRA's magnitudes; expected lora_A, lora_B or"),
        ({f"{P}{Q}.lora_B.bias": normal(5)}, None, "a LoRA tensor of a kind that is not supported; expected"),
        ({f"{P}head.weight": normal(3, 5), f"{P}head.modules_to_save.weight": normal(3, 5) + 1}, None, "differs from"),
        (
            {f"{P}{Q}.weight": normal(5, 4), f"{P}layers.0.q.weight": normal(5, 4)},
            None,
            f"both this and '{P}layers.0.q.weight' stand for '{Q}.weight'",
        ),
        (lora(f"{Q}.bias", 5, 4), None, "no tensor 'model.layers.0.q.bias.weight'"),
        ({}, None, "holds no tensors; expected lora_A and lora_B of some modules"),
    ],
)
def test_every_tensor_has_its_place_or_the_adapter_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], key: str | None, message: str
) -> None:
    error = refused(adapter(tmp_path, tensors), base(), message, key=key)
    assert error.path.endswith("adapter_model.safetensors")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (
            torch.zeros(5, 4, dtype=torch.int8, device="cpu"),
            "is torch.int8 of shape (5, 4), expected a matrix of floats",
        ),
        (torch.zeros(5, device="cpu"), "is torch.float32 of shape (5,), expected a matrix of floats"),
    ],
)
def test_a_base_that_no_lora_fits(tmp_path: Path, weight: Tensor, message: str) -> None:
    refused(adapter(tmp_path, lora("a", 5, 4)), {"a.weight": weight}, message, "before it was quantised")


def test_tying_that_peft_was_asked_to_keep(tmp_path: Path) -> None:
    shared = normal(5, 4)
    path = adapter(tmp_path, lora("a", 5, 4), ensure_weight_tying=True)
    refused(path, {"a.weight": shared, "b.weight": shared}, "'a.weight', which the base ties, is not supported")
    assert "changed by LoRA: 1 (" in merged_adapter(path, wb.load({"a.weight": shared})).notes[-1]


def test_a_transposed_adapter_says_which_way_it_was_read(tmp_path: Path) -> None:
    path = adapter(tmp_path, lora("c", 6, 4))
    refused(path, {"c.weight": normal(4, 6)}, "expected (2, 6)", "fan_in_fan_out false")


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    path = adapter(tmp_path, lora(Q, 5, 4))
    file = path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused(path, base(), "not a valid safetensors file")
    file.unlink()
    (path / "adapter_model.bin").write_bytes(b"")
    refused(path, base(), "the file is empty")
    (path / "adapter_model.bin").unlink()
    expected = "without weights; expected adapter_model.safetensors or adapter_model.bin"
    with pytest.raises(CheckpointNotFoundError, match=re.escape(expected)):
        merged_adapter(path, wb.load(base()))


def test_is_adapter(tmp_path: Path) -> None:
    path = adapter(tmp_path, lora(Q, 5, 4))
    assert is_adapter(path)
    assert not is_adapter(tmp_path) and not is_adapter(path / "adapter_config.json")
    assert not is_adapter(tmp_path / ("x" * 5000)) and not is_adapter(tmp_path / "a\0b")

"""Permutation groups: the function stays, no axis can be left out, and only what must keeps its order."""

from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import nn

import zoo_attention
import zoo_images
import zoo_more
import zoo_order
from workbench.connectivity import PermutationGroups, permutation_groups
from zoo import ZOO, change, described, function, in_double, one_axis_less, random_weights, turned
from zoo_six import architectures

assert zoo_attention and zoo_images and zoo_more and zoo_order  # they fill the zoo
SIX = ("mlp", "cnn", "resnet", "mobile", "llama", "encoder", "transformer")


def unfelt_axes(groups: PermutationGroups, module: nn.Module, inputs: Any) -> list[str]:
    """Asserts that permutations leave the function as it is; returns the axes that could have been forgotten."""
    outputs, weights, structure = function(module, inputs), random_weights(module), groups.structure
    before = outputs(weights)
    for permutations in (groups.random(1), groups.random(2), turned(structure)):
        assert change(before, outputs(groups.apply(weights, permutations))) <= 1e-10
    forgetful = [(axis, less.applied(weights, turned(structure))) for axis, less in one_axis_less(structure)]
    return [axis for axis, permuted in forgetful if change(before, outputs(permuted)) <= 1e-8]


@pytest.mark.parametrize("name", SIX)
def test_golden_networks(name: str) -> None:
    """The groups of the spec at least; a permutation changes nothing, without one axis it does; what is frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        it = architectures()[name]
    module, inputs = in_double(lambda: it.built)
    groups = permutation_groups(module, inputs)
    assert len(groups.structure.free) >= it.count
    assert groups.verified and groups.meta["function_error"] <= 1e-10
    assert not groups.tables["unknown"]["operation"]
    assert tuple(unfelt_axes(groups, module, inputs)) == it.dead
    table = groups.tables["frozen"]
    found = {f"{t} {a}": why for t, a, why in zip(table["tensor"], table["axis"], table["frozen"], strict=True)}
    expected = [(pattern, why) for why, patterns in it.frozen.items() for pattern in patterns]
    for axis, why in found.items():
        assert any(fnmatch(axis, pattern) and why == reason for pattern, reason in expected), (axis, why)
    for pattern, why in expected:
        assert any(fnmatch(axis, pattern) and found[axis] == why for axis in found), pattern


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str) -> None:
    case = ZOO[name]
    module, inputs = in_double(case.build)
    groups = permutation_groups(module, inputs)
    assert described(groups) == sorted(case.groups)
    assert sorted(groups.tables["unknown"]["operation"]) == sorted(case.unknown)
    assert groups.verified and groups.meta["function_error"] <= 1e-10
    assert tuple(unfelt_axes(groups, module, inputs)) == case.dead


def members(groups: PermutationGroups) -> dict[str, list[str]]:
    table = groups.tables["groups"]
    return {name: axes.split(", ") for name, axes in zip(table["group"], table["axes"], strict=True)}


def test_bert() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=10
    )
    config.max_position_embeddings, config.num_hidden_layers = 9, 2
    tokens = {"input_ids": torch.arange(10).reshape(2, 5), "attention_mask": torch.ones(2, 5, dtype=torch.int64)}
    module, inputs = in_double(lambda: (transformers.BertModel(config), tokens))
    groups = permutation_groups(module, inputs, outputs="pooler_output")
    layer = ["10", "3", "4 in 3", "4 in 3"]
    assert described(groups) == sorted(["12", *layer, *layer])
    axes = members(groups)
    stream = axes["embeddings.word_embeddings"]
    for expected in (
        "embeddings.LayerNorm.bias[0]",
        "encoder.layer.1.output.dense.weight[0]",
        "pooler.dense.weight[1]",
    ):
        assert expected in stream
    first = "encoder.layer.0.attention.self"
    assert set(axes[f"{first}.query:qk"]) == {
        f"{first}.{p}.{t}[0]" for p in ("query", "key") for t in ("weight", "bias")
    }
    value = {f"{first}.value.weight[0]", f"{first}.value.bias[0]", "encoder.layer.0.attention.output.dense.weight[1]"}
    assert set(axes[f"{first}.value:v"]) == value
    assert set(axes[f"{first}.query:heads"]) == value | set(axes[f"{first}.query:qk"])
    assert groups.verified and groups.meta["function_error"] <= 1e-10
    reasons = {"looked up by index", "output pooler_output"}
    assert set(groups.tables["frozen"]["frozen"]) == reasons
    whole = permutation_groups(module, inputs)  # the last hidden state is an output: the stream keeps its order
    assert described(whole) == sorted([*layer, *layer]) and whole.verified
    assert set(whole.tables["frozen"]["frozen"]) == reasons | {"output last_hidden_state"}


def test_gpt2() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=30, n_embd=12, n_layer=2, n_head=3, n_positions=9, n_inner=10, bos_token_id=0, eos_token_id=0
    )
    tokens = torch.arange(10).reshape(2, 5)
    module, inputs = in_double(lambda: (transformers.GPT2LMHeadModel(config), {"input_ids": tokens}))
    groups = permutation_groups(module, inputs)
    layer = ["10", "3", "4 in 3", "4 in 3"]
    assert described(groups) == sorted(["12", *layer, *layer])
    assert groups.verified and groups.meta["function_error"] <= 1e-10
    assert set(groups.tables["frozen"]["frozen"]) == {"looked up by index"}
    table = groups.tables["axes"]
    made_of = dict(zip(zip(table["tensor"], table["axis"], strict=True), table["made_of"], strict=True))
    attention = "transformer.h.0.attn.c_attn"
    parts = [f"{attention}:heads*{attention}:{part}" for part in ("qk", "qk", "v")]
    assert made_of[f"{attention}.weight", 1] == made_of[f"{attention}.bias", 0] == "+".join(parts)
    assert made_of["lm_head.weight", 1] == made_of["transformer.h.1.mlp.c_proj.weight", 1] == "transformer.wte"
    outputs, weights = function(module, inputs), module.state_dict()
    assert change(outputs(weights), outputs(groups.apply(weights, turned(groups.structure)))) <= 1e-10


def test_llama_computes_its_norms_in_single_precision() -> None:
    """The precision that the check asks for is that of the computation, not of the parameters."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2
    )
    config.intermediate_size = 10
    module, inputs = in_double(lambda: (transformers.LlamaForCausalLM(config), {"input_ids": torch.arange(6)[None]}))
    groups = permutation_groups(module, inputs)
    assert described(groups) == sorted(["16", "2", "2 in 2", "4 in 2", "10"])
    assert groups.verified and groups.meta["function_error"] <= 1e-5


def test_nothing_is_left_out_of_the_tables() -> None:
    """Every axis of every tensor has a row, and what it is made of has its size."""
    module, inputs = in_double(ZOO["packed_attention"].build)
    groups = permutation_groups(module, inputs)
    shapes = {name: tuple(node.size for node in layout) for name, layout in groups.structure.layouts.items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}

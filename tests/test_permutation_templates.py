"""Templates against the groups that torch.export finds in the same network, and against the function itself."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.connectivity import PermutationGroups, permutation_groups, template_tables, templates
from workbench.errors import ArgumentError, CheckpointError

IDS = {"input_ids": torch.tensor([[1, 4, 2, 9, 3]])}
IMAGES = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 64, dtype=torch.float64).sin().reshape(2, 3, 8, 8)}
BERT = {
    "vocab_size": 11,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 10,
}
VIT = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 10, "image_size": 8}
TOKENS = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {**TOKENS, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 7, "n_inner": 10}
LLAMA = {
    **TOKENS,
    "max_position_embeddings": 7,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "intermediate_size": 10,
    "head_dim": 4,
}
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "bert": ("BertModel", "BertConfig", BERT, 3),
    "bert classifier": ("BertForSequenceClassification", "BertConfig", BERT, 3),
    "bert tokens": ("BertForTokenClassification", "BertConfig", BERT, 3),
    "bert of one head": ("BertForSequenceClassification", "BertConfig", BERT | {"num_attention_heads": 1}, 1),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2, 3),
    "gpt2 body": ("GPT2Model", "GPT2Config", GPT2, 3),
    "gpt2 untied": ("GPT2LMHeadModel", "GPT2Config", GPT2 | {"tie_word_embeddings": False}, 3),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA | {"num_attention_heads": 6, "num_key_value_heads": 2}, 6),
    "llama body": ("LlamaModel", "LlamaConfig", LLAMA | {"num_attention_heads": 6, "num_key_value_heads": 2}, 6),
    "llama of one key": (
        "LlamaForCausalLM",
        "LlamaConfig",
        LLAMA | {"num_attention_heads": 3, "num_key_value_heads": 1},
        3,
    ),
    "llama without sharing, tied": (
        "LlamaForCausalLM",
        "LlamaConfig",
        LLAMA
        | {"num_attention_heads": 3, "num_key_value_heads": 3}
        | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        3,
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", VIT | {"patch_size": 4}, 3),
    "vit body": ("ViTModel", "ViTConfig", VIT | {"patch_size": 4}, 3),
}


class Block(nn.Module):
    """Of a ResNet: two or three convolutions, and torchvision's or the CIFAR networks' shortcut."""

    def __init__(self, read: int, made: int, stride: int, shortcut: str, bottleneck: bool) -> None:
        super().__init__()
        widths = [read, made // 2, made // 2, made] if bottleneck else [read, made, made]
        self.count = len(widths) - 1
        for number in range(1, self.count + 1):
            size = 1 if bottleneck and number != 2 else 3
            step = stride if number == self.count - 1 else 1
            inner = nn.Conv2d(widths[number - 1], widths[number], size, step, size // 2, bias=False)
            setattr(self, f"conv{number}", inner)
            setattr(self, f"bn{number}", nn.BatchNorm2d(widths[number]))
        self.shortcut, self.pad, self.stride = nn.Sequential(), (made - read) // 2, stride
        if (read != made or stride > 1) and shortcut != "pad":
            joined = nn.Sequential(nn.Conv2d(read, made, 1, stride, bias=False), nn.BatchNorm2d(made))
            self.pad, self.stride = 0, 1
            if shortcut == "downsample":
                self.downsample, self.shortcut = joined, nn.Identity()
            else:
                self.shortcut = joined

    def forward(self, maps: Tensor) -> Tensor:
        inner = maps
        for number in range(1, self.count + 1):
            inner = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(inner))
            inner = F.relu(inner) if number < self.count else inner
        around = getattr(self, "downsample", self.shortcut)(maps)[:, :, :: self.stride, :: self.stride]
        return F.relu(inner + F.pad(around, (0, 0, 0, 0, self.pad, self.pad)))


class ResNet(nn.Module):
    """Three stages; `head` is torchvision's fc, the CIFAR networks' linear, or nothing."""

    def __init__(self, widths: tuple[int, int, int], shortcut: str, head: str, bottleneck: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        read = 4
        for number, made in enumerate(widths, 1):
            first = Block(read, made, 1 if number == 1 else 2, shortcut, bottleneck)
            more = [Block(made, made, 1, shortcut, bottleneck)] if number == 2 else []
            setattr(self, f"layer{number}", nn.Sequential(first, *more))
            read = made
        self.head = head
        if head:
            setattr(self, head, nn.Linear(read, 5))

    def forward(self, pixel_values: Tensor) -> Tensor:
        maps = F.relu(self.bn1(self.conv1(pixel_values)))
        features = self.layer3(self.layer2(self.layer1(maps))).mean((2, 3))
        return getattr(self, self.head)(features) if self.head else features


RESNETS: dict[str, Callable[[], nn.Module]] = {
    "torchvision's": lambda: ResNet((4, 8, 16), "downsample", "fc"),
    "torchvision's bottlenecks": lambda: ResNet((8, 12, 16), "downsample", "fc", bottleneck=True),
    "akamaster's, padded": lambda: ResNet((4, 8, 16), "pad", "linear"),
    "akamaster's, convolved": lambda: ResNet((4, 8, 16), "shortcut", "linear"),
    "without a head": lambda: ResNet((4, 8, 16), "downsample", ""),
    "padded, without a head": lambda: ResNet((4, 8, 16), "pad", ""),
}
NAMES = [*TRANSFORMERS, *RESNETS]


def randomised(module: nn.Module) -> nn.Module:
    """In float64, evaluation mode, without a vector that is constant."""
    generator = torch.Generator().manual_seed(3)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - (tensor.ndim > 1) / 2)
            tensor.add_(0.5 * (tensor.ndim == 1))
    return module.double().eval()


@cache
def network(name: str) -> nn.Module:
    if name in RESNETS:
        return randomised(RESNETS[name]())
    transformers = pytest.importorskip("transformers")
    model, config, sizes, _ = TRANSFORMERS[name]
    module = getattr(transformers, model)(getattr(transformers, config)(**sizes))
    for path, norm in list(module.named_modules()):
        if type(norm).__name__ == "LlamaRMSNorm":  # it computes in float32, whatever its weights are in
            module.set_submodule(path, nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon))
    return randomised(module)


def inputs(name: str) -> dict[str, Tensor]:
    return IMAGES if name in RESNETS or "vit" in name else IDS


def heads(name: str) -> int | None:
    return None if name in RESNETS else TRANSFORMERS[name][3]


@cache
def traced(name: str) -> PermutationGroups:
    found = permutation_groups(network(name), inputs(name))
    assert found.verified
    return found


def layouts(groups: PermutationGroups) -> dict[str, tuple[str, ...]]:
    """Tensor → axes, with groups numbered in the order in which they are met, and those that they lie within."""
    found: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, str] = {}
    structure = groups.structure

    def told(name: str) -> str:
        outer = structure.within.get(name)
        return numbers.setdefault(name, f"{len(numbers)}:{structure.sizes[name]}") + (
            f" within {numbers.get(outer, '?')}" if outer else ""
        )

    for tensor in sorted(structure.layouts):
        axes = (
            template_tables.WORD.sub(lambda word: word[0] if word[0][0] == "#" else told(word[0]), str(node))
            for node in structure.layouts[tensor]
        )
        found[tensor] = tuple(axes)
    return found


@cache
def own_outputs(name: str) -> Tensor:
    return outputs(network(name), network(name).state_dict(), inputs(name))


def outputs(module: nn.Module, weights: Any, given: dict[str, Tensor]) -> Tensor:
    """What the module gives with other weights, all of it in one vector."""
    result = torch.func.functional_call(module, dict(weights), (), given, tie_weights=False)
    tensors = [result] if isinstance(result, Tensor) else [x for x in result.values() if isinstance(x, Tensor)]
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def change(name: str, groups: PermutationGroups, seed: int = 1) -> float:
    """How far random permutations of a template's groups change the function."""
    before = own_outputs(name)
    permuted = groups.apply(network(name).state_dict(), groups.random(seed))
    after = outputs(network(name), permuted, inputs(name))
    return float((before - after).norm() / before.norm())


@pytest.mark.parametrize("name", NAMES)
def test_a_template_says_what_the_trace_finds(name: str) -> None:
    found = permutation_groups(network(name).state_dict(), heads=heads(name))
    assert layouts(found) == layouts(traced(name))
    names = ["tensor", "axis", "kind", "tied_to"]
    expected = traced(name).frame("axes")[names].sort_values(names[:2], ignore_index=True)
    assert found.frame("axes")[names].sort_values(names[:2], ignore_index=True).equals(expected)
    assert sorted(found.frame("groups")["parameters"]) == sorted(traced(name).frame("groups")["parameters"])
    reasons = [frame[["tensor", "axis"]] for frame in (found.frame("frozen"), traced(name).frame("frozen"))]
    assert {*map(tuple, reasons[0].to_numpy().tolist())} == {*map(tuple, reasons[1].to_numpy().tolist())}
    assert not found.verified and "its function was not checked" in found.facts()


@pytest.mark.parametrize("name", NAMES)
def test_random_permutations_leave_the_function(name: str) -> None:
    found = permutation_groups(network(name).state_dict(), heads=heads(name))
    assert len(found.structure.free) >= 4
    assert change(name, found) < 1e-10


@pytest.mark.parametrize("name", ["bert classifier", "gpt2 untied", "llama", "vit", "akamaster's, padded"])
def test_an_axis_dropped_from_a_template_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network(name).state_dict()
    whole = permutation_groups(weights, heads=heads(name))
    kind = whole.meta["parameters"]["template"]
    table = templates.TEMPLATES[kind]
    if kind == "resnet":
        assert table.fitted
        table = replace(table.fitted(table, {one: tuple(x.shape) for one, x in weights.items()}), fitted=None)
    caught = 0
    for part in ("rows", "head_rows"):
        for pattern, text in getattr(table, part).items():
            for place, axis in enumerate(texts := text.split(", ")):
                if axis in template_tables.KEPT:
                    continue
                rows = getattr(table, part) | {pattern: ", ".join([*texts[:place], "index", *texts[place + 1 :]])}
                monkeypatch.setitem(templates.TEMPLATES, kind, replace(table, **{part: rows}))
                try:
                    found = permutation_groups(weights, heads=heads(name))
                except ArgumentError as refusal:
                    assert "cannot be told" in str(refusal)
                    continue
                if found.structure.layouts == whole.structure.layouts:
                    continue  # a row of another network with this template
                assert layouts(found) != layouts(traced(name))
                assert change(name, found) > 1e-4, pattern
                caught += 1
    assert caught >= 15


def rewritten(name: str, changes: dict[str, str]) -> dict[str, str]:
    """The network's names → the same in another spelling."""
    found = {}
    for tensor in network(name).state_dict():
        other = tensor
        for one, more in changes.items():
            other = re.sub(one, more, other)
        found[tensor] = other
    return found


HUB_VIT = {
    r"layers\.(\d+)\.attention\.o_proj": r"encoder.layer.\1.attention.output.dense",
    r"layers\.(\d+)\.mlp\.fc1": r"encoder.layer.\1.intermediate.dense",
    r"layers\.(\d+)\.mlp\.fc2": r"encoder.layer.\1.output.dense",
    r"layers\.(\d+)\.attention\.q_proj": r"encoder.layer.\1.attention.attention.query",
    r"layers\.(\d+)\.attention\.k_proj": r"encoder.layer.\1.attention.attention.key",
    r"layers\.(\d+)\.attention\.v_proj": r"encoder.layer.\1.attention.attention.value",
    r"layers\.(\d+)\.layernorm": r"encoder.layer.\1.layernorm",
}
SPELLINGS = {
    "the hub's ViT": ("vit", HUB_VIT),
    "the hub's ViT without a head": ("vit body", HUB_VIT),
    "BERT of TensorFlow": (
        "bert classifier",
        {r"LayerNorm\.weight": "LayerNorm.gamma", r"LayerNorm\.bias": "LayerNorm.beta"},
    ),
    "BERT in sentence-transformers": ("bert", {"^": "0.auto_model."}),
    "Llama in sentence-transformers": ("llama body", {"^": "0.auto_model."}),
    "Llama in a wrapper": ("llama", {"^": "inner."}),
    "ResNet in a wrapper": ("torchvision's", {"^": "net."}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_the_same_network(spelling: str) -> None:
    name, changes = SPELLINGS[spelling]
    names = rewritten(name, changes)
    assert set(names) != set(names.values())
    weights = {names[tensor]: value for tensor, value in network(name).state_dict().items()}
    found = permutation_groups(weights, heads=heads(name))
    plain = permutation_groups(network(name).state_dict(), heads=heads(name))
    back = {other: tensor for tensor, other in names.items()}
    orders = found.random(5)
    permuted = {back[other]: value for other, value in found.apply(weights, orders).items()}
    same = dict(zip(found.structure.free, plain.structure.free, strict=True))
    expected = plain.apply(network(name).state_dict(), {same[group]: order for group, order in orders.items()})
    assert all(torch.equal(permuted[tensor], expected[tensor]) for tensor in expected)
    assert found.structure.sizes.keys() != plain.structure.sizes.keys() or spelling == "BERT of TensorFlow"


def test_masked_language_model_has_its_transform_in_the_stream_if_tied() -> None:
    body = {f"bert.{name}": x for name, x in network("bert").state_dict().items() if "pooler" not in name}
    width = {"transform.dense.weight": (12, 12), "bias": (11,), "decoder.weight": (11, 12), "decoder.bias": (11,)}
    width |= {f"transform.{name}": (12,) for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")}
    head = {f"cls.predictions.{name}": torch.rand(shape) for name, shape in width.items()}
    untied = permutation_groups(body | head, heads=3).structure
    stream, own = "bert.embeddings.word_embeddings", "cls.predictions.transform.dense"
    assert list(map(str, untied.layouts["cls.predictions.transform.dense.weight"])) == [own, stream]
    assert list(map(str, untied.layouts["cls.predictions.decoder.weight"])) == ["#11", own]
    embedding = body["bert.embeddings.word_embeddings.weight"]
    equal = permutation_groups(body | head | {"cls.predictions.decoder.weight": embedding.clone()}, heads=3).structure
    stored = {name: x for name, x in head.items() if "decoder" not in name}
    absent = permutation_groups(body | stored, heads=3).structure
    for tied in (equal, absent):
        assert list(map(str, tied.layouts["cls.predictions.transform.dense.weight"])) == [stream, stream]
        assert tied.tied["cls.predictions.decoder.weight"] == "bert.embeddings.word_embeddings.weight"


def test_a_saved_model_tells_its_heads_and_that_its_head_is_tied(tmp_path: Path) -> None:
    stored = {name: x.clone() for name, x in network("gpt2").state_dict().items() if name != "lm_head.weight"}
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(ArgumentError, match="cannot be told from shapes: pass heads=.*'n_head'"):
        permutation_groups(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 3}))
    found = permutation_groups(tmp_path)
    assert found.meta["parameters"]["heads"] == 3
    assert "no head is stored: taken as tied to transformer.wte.weight" in found.meta["notes"]
    assert layouts(found) == layouts(traced("gpt2"))
    assert change("gpt2", found) < 1e-10
    applied = found.apply(tmp_path, found.random(1))
    assert "lm_head.weight" not in applied and len(applied) == len(stored)
    with pytest.raises(ArgumentError, match=r"heads=4, but the config.json .*n_head=3"):
        permutation_groups(tmp_path, heads=4)
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 3, "tie_word_embeddings": False}))
    assert "transformer.wte" not in permutation_groups(tmp_path).structure.sizes
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json: cannot be read"):
        permutation_groups(tmp_path)


def test_the_hub_s_gpt2_has_neither_prefix_nor_head(tmp_path: Path) -> None:
    stored = {name: x.clone() for name, x in network("gpt2 body").state_dict().items()}
    stored |= {"h.0.attn.bias": torch.ones(1, 1, 7, 7), "h.1.attn.bias": torch.ones(1, 1, 7, 7)}
    bare = permutation_groups(stored, heads=3)
    assert "wte" not in bare.structure.free and "outputs='logits'" in bare.meta["notes"][-1]
    held = permutation_groups(stored, heads=3, outputs="logits")
    assert "wte" in held.structure.free and held.structure.tied == {"lm_head.weight": "wte.weight"}
    assert held.structure.buffers == {"h.0.attn.bias", "h.1.attn.bias"}
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 3, "architectures": ["GPT2LMHeadModel"]}))
    assert layouts(permutation_groups(tmp_path)) == layouts(held)


def test_outputs_tell_what_is_held() -> None:
    weights = network("bert").state_dict()
    free = {
        name: permutation_groups(weights, heads=3, outputs=name).structure.free
        for name in ("last_hidden_state", "pooler_output")
    }
    stream, pooled = "embeddings.word_embeddings", "pooler.dense"
    assert stream not in free["last_hidden_state"] and pooled in free["last_hidden_state"]
    assert stream in free["pooler_output"] and pooled not in free["pooler_output"]
    with pytest.raises(ArgumentError, match="outputs has 'logits': the template gives 'last_hidden_state', 'pooler"):
        permutation_groups(weights, heads=3, outputs="logits")


def test_a_real_transformer_s_folder(minilm: Path) -> None:
    found = permutation_groups(minilm)
    sizes = sorted(found.frame("groups")["size"])
    assert sizes == sorted(6 * [12, 32, 32, 1536])  # heads, queries and keys, values, hidden units of six layers
    assert set(found.frame("frozen")["frozen"]) >= {"output last_hidden_state", "output pooler_output"}
    assert found.meta["parameters"] == {"outputs": None, "template": "bert", "heads": 12}


def test_padded_shortcuts_are_told() -> None:
    found = permutation_groups(network("akamaster's, padded").state_dict())
    notes = [note for note in found.meta["notes"] if "channels of zeros" in note]
    assert [note.split()[0] for note in notes] == ["layer2.0", "layer3.0"]
    assert "2 channels of zeros on either side" in notes[0]


def without(name: str, *dropped: str) -> dict[str, Tensor]:
    return {one: x for one, x in network(name).state_dict().items() if one not in dropped}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown": (lambda: permutation_groups({"a.weight": torch.ones(2, 2)}), "no template fits its names .a.weight"),
    "misspelled": (lambda: permutation_groups(without("bert"), template="brt"), "Did you mean 'bert'"),
    "another": (lambda: permutation_groups(without("bert"), template="gpt2"), "template='gpt2' does not fit its names"),
    "twice": (
        lambda: permutation_groups({f"{at}.{name}": x for at in "ab" for name, x in without("bert").items()}, heads=3),
        "several times .'bert' at a., 'bert' at b.",
    ),
    "a tensor more": (
        lambda: permutation_groups(without("bert") | {"encoder.layer.0.adapter.weight": torch.ones(2)}, heads=3),
        "'encoder.layer.0.adapter.weight', which the template does not know",
    ),
    "a tensor less": (
        lambda: permutation_groups(without("bert", "encoder.layer.1.attention.self.key.weight"), heads=3),
        "lacks 'encoder.layer.1.attention.self.key.weight', which other layers have",
    ),
    "no heads": (lambda: permutation_groups(without("llama")), "pass heads=.*'num_attention_heads'"),
    "heads that do not divide": (
        lambda: permutation_groups(without("bert"), heads=5),
        r"query.weight' of the shape \[12, 12\]; the template reads axis 0 as heads\*qk with heads = 5",
    ),
    "heads that do not share": (lambda: permutation_groups(without("llama"), heads=4), "3 queries share a key"),
    "no number": (lambda: permutation_groups(without("bert"), heads=0), "heads=0: expected a positive integer"),
    "heads of a ResNet": (lambda: permutation_groups(without("torchvision's"), heads=2), "has no attention heads"),
    "another shape": (
        lambda: permutation_groups(without("torchvision's") | {"layer1.0.conv2.weight": torch.ones(4, 2, 3, 3)}),
        r"layer1.0.conv2.weight' of the shape \[4, 2, 3, 3\]",
    ),
    "another rank": (
        lambda: permutation_groups(without("torchvision's") | {"fc.weight": torch.ones(5)}),
        r"'fc.weight' of the shape \[5\]; the template expects 2 axes",
    ),
    "inputs": (lambda: permutation_groups(without("torchvision's"), torch.ones(1)), "example_inputs go with a module"),
    "a module": (
        lambda: permutation_groups(network("torchvision's"), IMAGES, template="resnet"),
        "go with a checkpoint without",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ArgumentError, match=message):
        call()


def test_pruned_heads_are_refused(tmp_path: Path) -> None:
    save_file({name: x.clone() for name, x in without("bert").items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3, "pruned_heads": {"0": [1]}}))
    with pytest.raises(ArgumentError, match="has pruned heads"):
        permutation_groups(tmp_path)

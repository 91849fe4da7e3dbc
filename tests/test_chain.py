"""The cut-set test: networks whose cuts are known, each also held by hand; hostile modules, data and outputs."""

import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import workbench as wb
from workbench.errors import ArgumentError, Cancelled, LayerNotFoundError
from workbench.runtime import EvaluationError, cut_test, graph_paths
from workbench.runtime.activations import WIDEST
from workbench.runtime.batches import first_tensor
from workbench.runtime.chain import Chain
from workbench.runtime.marks import few, mark_of, other_input

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import architectures  # noqa: E402

layer_chain = partial(cut_test.layer_chain, device="cpu")


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, below: int = 50, seed: int = 0) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(seed))


def padded(samples: int = 6, steps: int = 7) -> list[dict[str, Tensor]]:
    """A batch as Hugging Face's tokenizers make them, with labels, padding and constant token types."""
    mask = torch.ones(samples, steps, dtype=torch.long)
    mask[0, 4:] = 0
    mask[3, 2:] = 0
    ids = tokens(samples, steps)
    return [{"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids), "labels": ids}]


class Wrapped(nn.Module):
    """A module as a function of itself and the input, over named parts."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.run(self, *given, **named)


def draws() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002


def state(module: nn.Module) -> tuple[Any, ...]:
    """Everything that must be as before, with identities. Python's random state is looked at elsewhere."""
    held = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return (
        [
            (name, id(t), t.requires_grad, None if t.grad is None else id(t.grad), t.tolist(), t.dtype)
            for name, t in held
        ],
        [[part.training, *([*getattr(part, name)] for name in hooks)] for part in module.modules()],
        [(name, id(value)) for part in module.modules() for name, value in vars(part).items()],
        [torch.get_rng_state().tolist(), str(np.random.get_state())],  # noqa: NPY002
        [torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()],
    )


# The oracle: hold one output by a hook of its own and look whether the module's output moves


def cuts_by_hand(module: nn.Module, batch: Any) -> set[str]:
    """Paths that run once and with whose output held at x's the module gives x's output for another x′."""

    def run(given: Any, held: tuple[str, Any] | None = None) -> tuple[Tensor, dict[str, Any], Counter[str]]:
        seen: dict[str, Any] = {}
        calls: Counter[str] = Counter()

        def hook(path: str) -> Any:
            def hear(_: nn.Module, __: Any, output: Any) -> Any:
                calls[path] += 1
                if held is not None and held[0] == path:
                    whole, tensor = output, held[1]
                    return tensor if isinstance(whole, Tensor) else type(whole)((tensor, *whole[1:]))
                if isinstance(output, Tensor | tuple):
                    first = output if isinstance(output, Tensor) else output[0]
                    seen[path] = first.clone() if isinstance(first, Tensor) else None
                return None

            return hear

        handles = [part.register_forward_hook(hook(path)) for path, part in module.named_modules() if path]
        try:
            output = module(**given) if isinstance(given, dict) else module(given)
        finally:
            for handle in handles:
                handle.remove()
        return first_tensor(output).clone(), seen, calls

    def other(value: Any, name: str = "") -> Any:
        if isinstance(value, Mapping):
            return {key: other(part, key) for key, part in value.items() if key != "labels"}
        return value if name == "attention_mask" else value.flip(0)

    given = other(other(batch))  # the same without labels
    module.eval()
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            output, seen, calls = run(given)
            moved = run(other(given))[0]
            assert not torch.allclose(moved, output)
            held = {path: run(other(given), (path, value))[0] for path, value in seen.items() if value is not None}
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    return {
        path
        for path, value in held.items()
        if calls[path] == 1 and torch.allclose(value, output, rtol=0, atol=1e-9 * float((moved - output).abs().max()))
    }


SKIPPED_CUTS = ("its output is that of", "is a function of each", "a layer norm of", "does not depend", "no features")


def assert_cuts(module: nn.Module, data: list[Any], expected: list[str]) -> Chain:
    """The chain's layers are the expected ones, all of them cuts by hand; cuts by hand that are not say why."""
    module.double()
    chain = layer_chain(module, data)
    assert chain.layers == expected
    batch = data[0][0] if isinstance(data[0], tuple) else data[0]
    if isinstance(batch, Tensor) and batch.is_floating_point():
        batch = batch.double()
    by_hand = cuts_by_hand(module, batch)
    assert {cut.path for cut in chain.cuts} - {""} <= by_hand
    end = list(dict(module.named_modules())).index(chain.cuts[-1].path)
    before = {path for number, path in enumerate(dict(module.named_modules())) if number < end or not end}
    for path in (by_hand & before) - {cut.path for cut in chain.cuts}:
        # a container may begin before and end with the last cut
        reason = chain.skipped.get(path, "its output is that of the end")
        assert any(words in reason for words in SKIPPED_CUTS), (path, reason)
    return chain


# Networks


def test_a_multi_layer_perceptron() -> None:
    chain = assert_cuts(architectures.mlp(16), [gaussian(12, 64)], ["1", "3", "4"])
    assert [(cut.axis, cut.width, cut.positions) for cut in chain.cuts] == [(-1, 16, 1), (-1, 16, 1), (-1, 10, 1)]
    assert chain.skipped["0"] == "'1' is a function of each of its elements or channels: that one is taken"


def test_a_convolutional_network_with_functional_relu_and_flatten() -> None:
    chain = assert_cuts(
        architectures.CNN(4), [(gaussian(12, 1, 8, 8), torch.zeros(12))], ["conv1", "conv2", "fc1", "fc2"]
    )
    assert [(cut.axis, cut.width, cut.positions) for cut in chain.cuts] == [
        (1, 4, 64),
        (1, 4, 64),
        (-1, 128, 1),
        (-1, 10, 1),
    ]


def test_a_residual_network_has_no_cut_inside_a_block() -> None:
    chain = assert_cuts(architectures.ResNet(4), [gaussian(12, 1, 8, 8)], ["bn", "stage1", "stage2", "fc"])
    assert "way around" in chain.skipped["stage1.bn1"] and "way around" in chain.skipped["stage2.shortcut"]


def test_a_pre_norm_transformer() -> None:
    assert_cuts(
        architectures.Transformer(16, 2, 32, 2), [gaussian(8, 8, 8)], ["embedding", "blocks.0", "blocks.1", "head"]
    )


def test_tokens_and_a_layer_that_reads_the_last_position() -> None:
    expected = ["embedding", "resid_pre", "resid_mid", "resid_post", "unembed"]
    chain = assert_cuts(architectures.ModularAddition(7, 8, 2, 16), [tokens(9, 3, below=7)], expected)
    assert [cut.positions for cut in chain.cuts] == [3, 3, 1, 1, 1]


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_of_torch(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first, dropout=0.1)
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    post = ["layers.0.norm1", "layers.0.norm2", "layers.1.norm1", "layers.1.norm2"]
    assert_cuts(module, [gaussian(5, 4, 8)], ["layers.0", "layers.1"] if norm_first else post)


def test_samples_on_the_second_axis_are_refused_also_where_the_sizes_agree() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    module = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    with pytest.raises(ArgumentError, match="samples of a batch change each other's outputs"):
        layer_chain(module, [gaussian(6, 6, 8)])
    inner = Wrapped(
        lambda self, x: self.head(self.encoder(x.transpose(0, 1)).mean(0)), encoder=module, head=nn.Linear(8, 3)
    )
    chain = layer_chain(inner, [gaussian(6, 6, 8)])
    assert chain.layers == ["head"] and "change each other" in chain.skipped["encoder.layers.0.norm1"]
    other = layer_chain(inner, [gaussian(6, 5, 8)])
    assert "first axis of its output [5, 6, 8] is not the 6 samples" in other.skipped["encoder.layers.0.norm1"]


def test_batch_statistics_in_evaluation_mode_are_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2))
    with pytest.raises(ArgumentError, match="cannot be taken apart: the samples of a batch change each other's"):
        layer_chain(module, [gaussian(6, 4)])


# Hugging Face


def hugging_face(kind: str, layers: int = 2) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 8, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 12}
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=layers, n_head=2, **ends)
        return transformers.GPT2LMHeadModel(config)  # type: ignore[no-any-return]
    if kind == "bert":
        return transformers.BertModel(transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **small))  # type: ignore[no-any-return]
    if kind == "llama":
        config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=1, **small, **ends)
        return transformers.LlamaForCausalLM(config)  # type: ignore[no-any-return]
    return transformers.ViTForImageClassification(  # type: ignore[no-any-return]
        transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **small)
    )


def test_gpt2_and_its_passes() -> None:
    module = hugging_face("gpt2", layers=12)
    names = ["transformer.wte", "transformer.drop", *(f"transformer.h.{n}" for n in range(12)), "lm_head"]
    batch = {name: value for name, value in padded()[0].items() if name != "token_type_ids"}
    passes = []
    handle = module.register_forward_pre_hook(lambda *_: passes.append(1))
    assert layer_chain(module, [batch]).layers == names
    handle.remove()
    assert len(passes) <= len(names) + 8, "passes for layers that the gradient's graph shows to be no cuts"
    assert_cuts(hugging_face("gpt2"), [batch], [*names[:4], "lm_head"])


def test_bert_with_padding_and_its_passes() -> None:
    module = hugging_face("bert", layers=12)
    parts = ("attention.output.LayerNorm", "output.LayerNorm")
    names = [
        "embeddings.word_embeddings",
        "embeddings.LayerNorm",
        *(f"encoder.layer.{n}.{part}" for n in range(12) for part in parts),
    ]
    passes = []
    handle = module.register_forward_pre_hook(lambda *_: passes.append(1))
    chain = layer_chain(module, padded())
    handle.remove()
    assert chain.layers == names and len(passes) <= len(names) + 8
    assert "does not depend" in chain.skipped["embeddings.token_type_embeddings"]
    assert_cuts(hugging_face("bert"), padded(), names[:6])


def test_llama_and_a_vision_transformer() -> None:
    batch = {name: value for name, value in padded()[0].items() if name != "token_type_ids"}
    assert_cuts(hugging_face("llama"), [batch], ["model.embed_tokens", "model.layers.0", "model.layers.1", "lm_head"])
    chain = layer_chain(hugging_face("vit"), [{"pixel_values": gaussian(5, 1, 8, 8)}])  # a dropout in it runs twice
    assert chain.layers[-4:] == ["vit.embeddings.dropout", "vit.layers.0", "vit.layers.1", "classifier"]
    assert "runs 2 times" in chain.skipped["vit.layers.0.dropout"]


# Forms of modules


def test_a_concatenating_skip() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        first = self.down(x)
        return self.last(torch.relu(self.up(torch.cat([first, self.deep(F.avg_pool2d(first, 1))], 1))))  # type: ignore[no-any-return]

    conv = partial(nn.Conv2d, kernel_size=3, padding=1)
    module = Wrapped(run, down=conv(1, 3), deep=conv(3, 4), up=conv(7, 3), last=conv(3, 2))
    assert_cuts(module, [gaussian(4, 1, 6, 6)], ["down", "up", "last"])
    with pytest.raises(ArgumentError, match="layer 'deep' does not determine 'last': the output of 'down' gets around"):
        layer_chain(module, [gaussian(4, 1, 6, 6)], ["down", "deep"])


class Pair(NamedTuple):
    """Two outputs with a name that is also that of Hugging Face's."""

    logits: Tensor
    hidden: Tensor


@pytest.mark.parametrize(
    "form",
    [
        lambda y, h: (y, h),
        lambda y, h: [y, h],
        lambda y, h: {"number": 3, "y": y, "h": h},
        lambda y, h: {"h": h, "logits": y},
        lambda y, h: Pair(y, h),
        lambda y, h: torch.return_types.max((y, h)),
    ],
)
def test_outputs_of_every_form(form: Callable[[Tensor, Tensor], Any]) -> None:
    def run(self: Any, x: Tensor) -> Any:
        hidden = self.body(x)
        inner = first_tensor(hidden) if not isinstance(hidden, Tensor) else hidden
        return form(self.head(torch.tanh(inner)), inner)

    body = Wrapped(lambda self, x: form(self.fc(x), x), fc=nn.Linear(4, 3))
    module = Wrapped(run, body=body, head=nn.Linear(3, 2))
    assert layer_chain(module, [gaussian(6, 4)]).layers == ["body.fc", "head"]


def test_the_second_element_of_a_tuple_gets_around_the_first() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        outputs, (hidden, _) = self.lstm(x)
        return self.head(outputs[:, 0] + hidden[0])  # type: ignore[no-any-return]

    module = Wrapped(run, lstm=nn.LSTM(4, 3, batch_first=True), head=nn.Linear(3, 2))
    chain = layer_chain(module, [gaussian(6, 5, 4)])
    assert chain.layers == ["head"] and "around" in chain.skipped["lstm"]


def test_operations_in_place_change_no_values_and_no_gradients() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ReLU(inplace=True)).double()
    x = gaussian(7, 5).double()
    chain = layer_chain(module, [x], ["0", "2"])
    assert chain.layers == ["0", "2", "3"]
    with chain.lent():
        (batch,) = chain.batches()
        first, second, last = chain.outputs(batch, chain.cuts)
        leaf, output = chain.segment(batch, *chain.cuts[:2])
        (gradient,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    hidden = F.linear(x, module[0].weight, module[0].bias).detach()
    assert (hidden < 0).any() and torch.equal(first, hidden) and torch.equal(leaf.detach(), hidden)
    expected = F.linear(hidden.relu(), module[2].weight, module[2].bias)
    torch.testing.assert_close(second, expected, rtol=0, atol=0)
    assert (expected < 0).any() and torch.equal(last, expected.relu())
    torch.testing.assert_close(gradient, (hidden > 0) * module[2].weight.sum(0), rtol=1e-14, atol=1e-14)
    assert torch.equal(x, gaussian(7, 5).double())


def test_an_input_that_the_module_changes_in_place() -> None:
    module = Wrapped(lambda self, x: self.b(self.a(x.mul_(2).add_(1)).tanh()), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    x = gaussian(5, 3)
    chain = layer_chain(module, [x])
    assert chain.layers == ["a", "b"] and torch.equal(x, gaussian(5, 3))
    with chain.lent():
        (batch,) = chain.batches()
        expected = F.linear(2 * x.double() + 1, module.a.weight, module.a.bias)
        for _ in range(2):
            assert torch.equal(chain.outputs(batch, chain.cuts)[0], expected)
            assert torch.equal(chain.segment(batch, *chain.cuts)[0], expected)


def test_a_submodule_that_runs_twice_and_one_under_two_names() -> None:
    shared = nn.Linear(4, 4)
    twice = Wrapped(lambda self, x: self.head(self.a(torch.tanh(self.a(x)))), a=shared, head=nn.Linear(4, 2))
    chain = layer_chain(twice, [gaussian(5, 4)])
    assert chain.layers == ["head"] and chain.skipped["a"] == "it runs 2 times in a pass"
    with pytest.raises(ArgumentError, match=r"layer 'a' of Wrapped cannot be taken: it runs 2 times"):
        layer_chain(twice, [gaussian(5, 4)], ["a"])
    once = Wrapped(lambda self, x: self.head(torch.tanh(self.b(x))), a=shared, b=shared, head=nn.Linear(4, 2))
    for layers in (None, "a", "b", ["a", "b"], ["b", "head"]):
        assert layer_chain(once, [gaussian(5, 4)], layers).layers == ["a", "head"]


def test_parametrised_weights_are_no_layers() -> None:
    module = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh(), parametrizations.spectral_norm(nn.Linear(4, 3))
    )
    before = state(module)
    assert layer_chain(module, [gaussian(5, 4)]).layers == ["1", "2"]
    assert state(module) == before


def test_a_compiled_module_and_a_compiled_part() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    whole = torch.compile(inner, backend="eager")
    assert layer_chain(whole, [gaussian(5, 4)]).layers == ["1", "2"]  # type: ignore[arg-type]
    part = Wrapped(lambda self, x: self.b(self.a(x)), a=torch.compile(inner, backend="eager"), b=nn.Linear(3, 2))  # type: ignore[arg-type]
    assert [cut.width for cut in layer_chain(part, [gaussian(5, 4)]).cuts] == [4, 3, 2]


def test_a_part_called_output() -> None:
    module = Wrapped(lambda self, x: 2 * self.output(torch.tanh(self.a(x))), a=nn.Linear(4, 4), output=nn.Linear(4, 3))
    assert layer_chain(module, [gaussian(5, 4)]).layers == ["a", "output", "(output)"]
    assert layer_chain(module, [gaussian(5, 4)], "output").layers == ["output", "(output)"]
    assert layer_chain(module, [gaussian(5, 4)], "(output)").layers == ["(output)"]
    plain = Wrapped(lambda self, x: 2 * self.a(x), a=nn.Linear(4, 4))
    assert layer_chain(plain, [gaussian(5, 4)], "output").layers == ["output"]
    assert layer_chain(plain, [gaussian(5, 4)]).layers == ["a", "output"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    module = architectures.mlp(8).to(dtype)
    before = state(module)
    chain = layer_chain(module, [gaussian(6, 64).to(dtype)])
    assert chain.layers == ["1", "3", "4"] and state(module) == before
    with chain.lent():
        assert {output.dtype for batch in chain.batches() for output in chain.outputs(batch, chain.cuts)} == {
            torch.float64
        }
    own = layer_chain(module, [gaussian(6, 64).to(dtype)], dtype=None)
    assert own.layers == ["1", "3", "4"]
    with own.lent():
        assert {output.dtype for batch in own.batches() for output in own.outputs(batch, own.cuts)} == {dtype}


def test_a_module_on_meta_is_refused_by_name() -> None:
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    with pytest.raises(ArgumentError, match="Linear's 'weight' is on the meta device and has no values"):
        layer_chain(module, [gaussian(5, 3)])


def test_a_weak_way_around_beside_large_numbers_is_seen() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x))) + 1e-4 * x[:, :3] + 1e9  # type: ignore[no-any-return]

    module = Wrapped(run, a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    for known in (True, False):  # the graph shows it; without the graph its numbers do
        with pytest.MonkeyPatch.context() as patch:
            if not known:
                patch.setattr(cut_test, "bypassed", lambda *_: frozenset())
            chain = layer_chain(module, [gaussian(5, 4)])
        assert chain.layers == ["output"] and "around" in chain.skipped["a"] and "around" in chain.skipped["b"]


# What the gradient's graph does not show


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda self, x: self.c(self.b(self.a(x)) + x.detach()), ["c"]),
        (lambda self, x: self.c(self.b(self.a(x)) + self.a.weight[x.abs().argmax(-1)]), ["c"]),
        (lambda self, x: self.c(self.b(self.a(x).detach())), ["a", "b", "c"]),
        (lambda self, x: self.c(self.b(h := self.a(x)) + self.d(h.detach())), ["a", "c"]),
        (lambda self, x: self.c(torch.from_numpy(self.b(self.a(x)).numpy())), ["a", "b", "c"]),
        (lambda self, x: self.c(self.b(h := self.a(x)) + F.embedding(h.argmax(-1), self.d.weight)), ["a", "c"]),
        (lambda self, x: self.c(self.e((h := self.a(x)).argmax(-1)) + self.b(h)), ["a", "c"]),
    ],
    ids=["detach", "index", "detached", "detached-branch", "numpy", "looked-up", "embedded"],
)
def test_cuts_are_found_by_numbers_where_the_graph_is_broken(run: Callable[..., Any], expected: list[str]) -> None:
    torch.manual_seed(0)
    parts = {name: nn.Linear(4, 4) for name in "abcd"}
    module = Wrapped(run, **parts, e=nn.Embedding(4, 4))
    assert_cuts(module, [gaussian(8, 4)], expected)


def test_a_backbone_without_gradients() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.b(torch.tanh(self.a(x)))
        return self.c(hidden)  # type: ignore[no-any-return]

    module = Wrapped(run, a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 2))
    chain = assert_cuts(module, [gaussian(8, 4)], ["a", "b", "c"])
    with chain.lent():
        (batch,) = chain.batches()
        leaf, output = chain.segment(batch, chain.cuts[1], chain.cuts[2])
        (gradient,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    torch.testing.assert_close(gradient[0], module.c.weight.sum(0).detach())


def test_the_graph_counts_ways() -> None:
    def run(self: Any, x: Tensor, ids: Tensor) -> Tensor:
        first = self.a(x) + self.e(ids)
        return self.c(self.b(first) * first)  # type: ignore[no-any-return]

    module = Wrapped(run, a=nn.Linear(4, 4), e=nn.Embedding(9, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 2))
    module.requires_grad_(False)
    call = ((), {"x": gaussian(5, 4), "ids": tokens(5, below=9)})
    other = ((), {name: value.roll(1, 0) for name, value in call[1].items()})
    parts = dict(module.named_modules())
    assert graph_paths.bypassed(module, parts, call, other, set(parts)) == {"a", "e", "b"}
    same_ids = ((), {**other[1], "ids": call[1]["ids"]})
    assert graph_paths.bypassed(module, parts, call, same_ids, set(parts) - {"e"}) == {"b"}
    module.requires_grad_(True)
    assert graph_paths.bypassed(module, parts, call, other, set(parts)) == frozenset()


# Layers that are asked for


def test_the_way_around_is_named() -> None:
    module = architectures.ResNet(4)
    data = [gaussian(8, 1, 8, 8)]
    with pytest.raises(
        ArgumentError, match=r"layer 'stage2.conv1' does not determine 'fc': the output of 'stage1' gets"
    ):
        layer_chain(module, data, ["stage2.conv1"])
    with pytest.raises(
        ArgumentError, match=r"'stage1.bn2' does not determine 'stage2': the output of 'bn' gets around"
    ):
        layer_chain(module, data, ["stage1.bn2", "stage2"])
    skip = Wrapped(lambda self, x: self.b(self.a(x)) + x, a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    with pytest.raises(
        ArgumentError, match=r"layer 'a' does not determine 'output': the module's input gets around it"
    ):
        layer_chain(skip, [gaussian(5, 4)], "a")


def test_layers_that_are_asked_for_are_taken_as_they_are() -> None:
    data = [gaussian(6, 64)]
    assert layer_chain(architectures.mlp(8), data, ["2", "0"]).layers == ["0", "2", "4"]
    assert layer_chain(architectures.mlp(8), data, "*").layers == ["0", "1", "2", "3", "4"]
    assert layer_chain(architectures.mlp(8), data, "output").layers == ["4"]
    for layers, words in (("5", "no submodule '5'"), (["0", "x*"], "no submodule")):
        with pytest.raises(LayerNotFoundError, match=words):
            layer_chain(architectures.mlp(8), data, layers)
    with pytest.raises(LayerNotFoundError, match=r"'head\.\*': .*: 'heads', 'heads.0', 'tail'\. Did you mean 'heads"):
        layer_chain(nn.ModuleDict({"heads": nn.Sequential(nn.ReLU()), "tail": nn.ReLU()}), data, "head.*")
    with pytest.raises(LayerNotFoundError, match=r"'x': .*: '0', '1', .*, '9', … \(12 in all\)\.$"):
        layer_chain(nn.Sequential(*[nn.ReLU()] * 12), data, "x")
    with pytest.raises(LayerNotFoundError, match="features names 'x', which is no layer of Sequential"):
        layer_chain(architectures.mlp(8), data, features={"x": 1})


def test_layers_that_cannot_be_taken() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        self.counted(x)
        return self.fc(self.turned(x))  # type: ignore[no-any-return]

    module = Wrapped(
        run,
        counted=Wrapped(lambda self, x: x.long()),
        turned=Wrapped(lambda self, x: self.one(self.t(x)), t=Wrapped(lambda _, x: x.T), one=Wrapped(lambda _, x: x.T)),
        idle=nn.Linear(2, 2),
        fc=nn.Linear(4, 3),
    )
    chain = layer_chain(module, [gaussian(5, 4)])
    reasons = {
        "counted": "its output is no tensor of real floating numbers",
        "idle": "it did not run",
        "turned.t": r"the first axis of its output \[4, 5\] is not the 5 samples",
    }
    for path, reason in reasons.items():
        with pytest.raises(ArgumentError, match=f"layer '{path}' of Wrapped cannot be taken: {reason}"):
            layer_chain(module, [gaussian(5, 4)], path)
        assert chain.skipped[path] == reason.replace("\\", "")
    wrong = r"its output \[5, 3\] has no features on axis"
    with pytest.raises(ArgumentError, match=f"'fc' of Wrapped cannot be taken: {wrong} 0"):
        layer_chain(
            Wrapped(run, **dict(module.named_children()), h=nn.Identity()), [gaussian(5, 4)], "fc", features={"fc": 0}
        )


def test_one_number_a_sample_is_refused() -> None:
    module = Wrapped(lambda self, x: self.fc(x).squeeze(-1), fc=nn.Linear(3, 1))
    with pytest.raises(
        ArgumentError, match=r"Wrapped's output cannot be taken apart: its output \[5\] has no features"
    ):
        layer_chain(module, [gaussian(5, 3)])
    with pytest.raises(ArgumentError, match="Wrapped gives no tensor of real numbers"):
        layer_chain(Wrapped(lambda self, x: {"loss": 3.0}), [gaussian(5, 3)])


# Data


def test_one_sample_zeros_identical_samples_and_one_token() -> None:
    module = architectures.mlp(8)
    for data in (
        [gaussian(1, 64)],
        [torch.zeros(6, 64)],
        [gaussian(1, 64).expand(6, 64)],
        [gaussian(1, 64), gaussian(5, 64)],
    ):
        assert layer_chain(module, data).layers == ["1", "3", "4"]
    words = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(12, 3))
    for ids in (tokens(5, 3), tokens(1, 3), tokens(1, 3).expand(4, 3)):
        assert layer_chain(words, [ids]).layers == ["0", "1", "2"]
    with pytest.raises(ArgumentError, match="samples of the first batch are all alike, so that no layer can be tested"):
        layer_chain(words, [torch.zeros(5, 3, dtype=torch.long)])


def test_a_generator_and_other_data_are_refused() -> None:
    module = architectures.mlp(8)

    def generated() -> Iterator[Tensor]:
        yield gaussian(5, 64)

    with pytest.raises(ArgumentError, match="one-shot generator"):
        layer_chain(module, generated())
    with pytest.raises(ArgumentError, match="expected at least one batch"):
        layer_chain(module, [])


def test_what_is_no_module(raised: Callable[..., dict[str, list[str]]]) -> None:
    code = "__import__('workbench.runtime.cut_test').runtime.cut_test.layer_chain(None, [torch.ones(2, 3)])"
    assert raised([code])[code] == ["ArgumentError", "module is NoneType: expected an nn.Module."]


def test_a_module_that_does_not_depend_on_its_input() -> None:
    for constant in (lambda self, x: self.fc(0 * x), lambda self, x: self.fc(x) * float("nan")):
        with pytest.raises(ArgumentError, match="gives the same output for two different inputs"):
            layer_chain(Wrapped(constant, fc=nn.Linear(3, 2)), [gaussian(5, 3)])


def test_activations_that_are_nowhere_finite_or_here_and_there() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        hidden = self.a(x)
        hidden = torch.where(torch.arange(4) == 2, float("nan"), hidden)
        return self.c(torch.nan_to_num(self.b(hidden)))  # type: ignore[no-any-return]

    module = Wrapped(run, a=nn.Linear(3, 4), b=nn.Identity(), c=nn.Linear(4, 2))
    assert layer_chain(module, [gaussian(5, 3)]).layers == ["a", "b", "c"]


def test_random_numbers_in_evaluation_mode_are_named() -> None:
    module = Wrapped(
        lambda self, x: self.c(self.b(self.a(x))),
        a=nn.Linear(4, 4),
        b=Wrapped(lambda _, x: F.dropout(x, 0.5, training=True)),
        c=nn.Linear(4, 3),
    )
    before = draws()
    with pytest.raises(ArgumentError, match=r"is not deterministic: 'b' gives another output .*dropout with training"):
        layer_chain(module, [gaussian(5, 4)])
    assert draws()[0] == before[0] and draws()[2] == before[2]


def test_few_samples_of_a_large_input_and_what_is_no_sample() -> None:
    assert few(((gaussian(20, 4),), {}), 20)[0][0].shape == (8, 4)
    assert few(((gaussian(20, 3, 64, 64),), {}), 20)[0][0].shape == (2, 3, 64, 64)
    assert few(((tokens(20, 128),), {}), 20)[0][0].shape == (2, 128)
    named = few(((), {"x": gaussian(20, 4), "scale": gaussian(3), "flag": True}), 20)[1]
    assert named["x"].shape == (8, 4) and named["scale"].shape == (3,) and named["flag"] is True
    call = ((), {"input_ids": tokens(4, 3), "attention_mask": tokens(4, 3, below=2)})
    other, single, sample = other_input(call)
    assert torch.equal(other[1]["attention_mask"], call[1]["attention_mask"])
    changed = (single[1]["input_ids"] != call[1]["input_ids"]).any(1)
    assert changed.tolist() == [place == sample for place in range(4)]


def test_marks_tell_outputs_apart() -> None:
    one = gaussian(4, 3, 5)
    assert mark_of(one, 0).same(mark_of(one.clone(), 0))
    assert not mark_of(one, 0).same(mark_of(one.roll(1, 0), 0)) and not mark_of(one, 0).same(mark_of(one.flip(-1), 0))
    assert not mark_of(one, 0).same(mark_of(one.movedim(1, -1), 0)) and mark_of(torch.zeros(4, 0), 0).norm == 0
    first = one.clone()
    first[0] += 1
    assert mark_of(first, 0).same_rest(mark_of(one, 0)) and not mark_of(first, 1).same_rest(mark_of(one, 1))
    holes, moved = one.clone(), one.clone()
    holes[0, 0, 0] = moved[0, 0, 1] = float("nan")
    assert mark_of(holes, 0).same(mark_of(holes.clone(), 0)) and not mark_of(holes, 0).same(mark_of(moved, 0))


def test_later_batches_that_run_other_layers_or_give_other_widths() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(self.a(x) if len(x) > 2 else x)  # type: ignore[no-any-return]

    module = Wrapped(run, a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    chain = layer_chain(module, [gaussian(5, 4), gaussian(2, 4)])
    with (
        chain.lent(),
        pytest.raises(EvaluationError, match=r"batch 1, .*layer 'a' did not run, as it did in the first"),
    ):
        for batch in chain.batches():
            chain.outputs(batch, chain.cuts)
    wide = layer_chain(
        nn.Sequential(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 2, 1)), [gaussian(5, 1, 4), gaussian(5, 1, 8)], features={"0": 2}
    )
    with (
        wide.lent(),
        pytest.raises(ArgumentError, match=r"'0' gives \[5, 2, 8\]: expected 4 features on axis 2, as in"),
    ):
        for batch in wide.batches():
            wide.cuts[0].rows(wide.outputs(batch, wide.cuts)[0], batch.keep)


def test_a_first_batch_that_fails_is_named() -> None:
    module = Wrapped(lambda self, x: self.fc(x.reshape(3, -1)), fc=nn.Linear(4, 2))
    for data, words in (
        ([gaussian(5, 4)], r"batch 0, .*\(\[5, 4\]\): RuntimeError: shape"),
        (["word"], "expected a tensor"),
    ):
        with pytest.raises(EvaluationError, match=words):
            layer_chain(module, data)


# Rows and positions


def test_rows_and_back() -> None:
    chain = layer_chain(architectures.CNN(3), [gaussian(5, 1, 8, 8)])
    with chain.lent():
        (batch,) = chain.batches()
        (output,) = chain.outputs(batch, chain.cuts[:1])
    rows = chain.cuts[0].rows(output, None)
    assert rows.shape == (5 * 64, 3) and torch.equal(rows[64 + 9], output[1, :, 1, 1])
    assert torch.equal(chain.cuts[0].unfolded(rows, output, None), output)


def test_padding_is_in_no_row() -> None:
    chain = layer_chain(hugging_face("bert"), padded())
    with chain.lent():
        (batch,) = chain.batches()
        (output,) = chain.outputs(batch, chain.cuts[1:2])
    cut, keep = chain.cuts[1], padded()[0]["attention_mask"] != 0
    rows = cut.rows(output, batch.keep)
    assert len(rows) == int(keep.sum()) and torch.equal(rows, output[keep])
    back = cut.unfolded(rows + 1, output, batch.keep)
    torch.testing.assert_close(back, output + keep[..., None], rtol=0, atol=0)


# Everything is as before


def busy() -> nn.Module:
    """A module in several modes, with gradients, foreign hooks, buffers, shared and frozen parameters."""
    torch.manual_seed(1)
    shared = nn.Linear(6, 6)
    module = nn.Sequential(
        nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout(0.5), shared, nn.Tanh(), nn.Linear(6, 3)
    )
    module[6].weight.requires_grad_(False)
    module(gaussian(8, 6)).sum().backward()
    module[1].eval()
    module[4].register_forward_hook(lambda _, __, output: output + 1)
    module[0].register_forward_pre_hook(lambda _, given: (2 * given[0],))
    module[0].register_full_backward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize("layers", [None, ["1", "4"]])
@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_as_before(layers: list[str] | None, training: bool) -> None:
    module = busy().train(training)
    module[1].eval()
    data = [gaussian(8, 6), gaussian(3, 6, seed=1)]
    before, inputs = state(module), [x.clone() for x in data]
    chain = layer_chain(module, data, layers)
    assert state(module) == before
    with chain.lent():
        assert not module.training and state(module) != before
        for batch in chain.batches():
            chain.outputs(batch, chain.cuts)
            leaf, output = chain.segment(batch, chain.cuts[0], chain.cuts[-1])
            torch.autograd.grad(output, leaf, torch.ones_like(output))
            assert not torch.is_grad_enabled()
    assert state(module) == before and all(map(torch.equal, data, inputs))


def test_a_foreign_hook_takes_part() -> None:
    chain = layer_chain(busy().eval(), [gaussian(8, 6)], ["0", "4"])
    with chain.lent():
        (batch,) = chain.batches()
        first, second = chain.outputs(batch, chain.cuts[:2])
        module: Any = chain.module
        torch.testing.assert_close(first, F.linear(2 * gaussian(8, 6).double(), module[0].weight, module[0].bias))
        hidden = F.relu(module[1](first))
        torch.testing.assert_close(second, F.linear(hidden, module[4].weight, module[4].bias) + 1)


@pytest.mark.parametrize("error", [ValueError("no"), Cancelled(), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("number", range(1, 9))
def test_the_module_is_as_before_after_whatever_is_raised_in_whichever_pass(error: BaseException, number: int) -> None:
    module, seen = busy(), [0]

    def stop(*_: Any) -> None:
        seen[0] += 1
        if seen[0] == number:
            raise error

    module[5].register_forward_hook(stop)
    before = state(module)
    caught: BaseException | None = None
    try:
        layer_chain(module, [gaussian(8, 6)])
    except BaseException as raised:  # noqa: B036 - whatever it is
        caught = raised
    if isinstance(error, Exception):  # the pass for the graph alone can do without
        assert caught is None or (isinstance(caught, EvaluationError) and caught.__cause__ is error)
    else:
        assert caught is error
    assert state(module) == before and seen[0] >= number


@pytest.mark.parametrize("error", [ValueError("no"), Cancelled()], ids=lambda e: type(e).__name__)
def test_a_change_or_a_start_that_raises_leaves_the_module_as_before(error: BaseException) -> None:
    module = busy()
    before = state(module)
    chain = layer_chain(module, [gaussian(8, 6)])

    def stop(_: Tensor) -> Tensor:
        raise error

    for wanted in (
        lambda batch: chain.outputs(batch, chain.cuts, {chain.layers[0]: stop}),
        lambda batch: chain.segment(batch, chain.cuts[0], chain.cuts[-1], stop),
    ):
        with pytest.raises(EvaluationError if isinstance(error, Exception) else Cancelled), chain.lent():
            for batch in chain.batches():
                wanted(batch)
        assert state(module) == before


def test_pythons_random_state_is_as_before(unchecked: Callable[..., Any]) -> None:
    script = """
import json, random, numpy, torch
from torch import nn
from workbench.runtime.cut_test import layer_chain

class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
    def forward(self, x):
        random.random(), numpy.random.rand(), torch.rand(2)
        return self.fc(x)

module, x = Drawing(), torch.randn(5, 3)
states = lambda: [str(random.getstate()), str(numpy.random.get_state()), torch.get_rng_state().tolist()]
before = states()
chain = layer_chain(module, torch.utils.data.DataLoader(x, 5, shuffle=True))
print(json.dumps([states() == before, chain.layers]))
"""
    assert unchecked(script) == [True, ["fc"]]


def test_no_warning_and_no_change_of_the_callers_batch() -> None:
    batch = padded()[0]
    copies = {name: value.clone() for name, value in batch.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer_chain(hugging_face("bert"), [batch])
    assert all(torch.equal(batch[name], copies[name]) for name in copies)


def test_the_number_of_batches_is_that_of_the_data() -> None:
    assert layer_chain(architectures.mlp(8), [gaussian(6, 64)]).batch_count == 1


@pytest.mark.parametrize(
    "analysis",
    [cut_test.layer_chain, wb.activations, wb.degeneracy, wb.interaction_basis],
    ids=lambda one: one.__name__,
)
def test_no_layers_are_told(analysis: Callable[..., Any]) -> None:
    net, data = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), [gaussian(4, 2)]
    with pytest.raises(LayerNotFoundError, match="an empty list of"):
        analysis(net, data, [], device="cpu")


def test_names_are_read_once() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    found = wb.interaction_basis(net, [gaussian(4, 2)], iter(["1"]), device="cpu")
    assert found.meta["parameters"]["layers"] == ["1"]


def test_layers_that_are_no_names_are_told(unchecked: Callable[..., Any]) -> None:
    script = """
import json, torch, workbench as wb
net, told = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), []
for analysis in (wb.activations, wb.degeneracy, wb.interaction_basis):
    try:
        analysis(net, [torch.eye(2)], 1, device="cpu")
    except wb.ArgumentError as error:
        told.append(str(error)[:39])
print(json.dumps(told))
"""
    assert unchecked(script) == ["layers=1: expected a path or a glob of "] * 3


@pytest.mark.parametrize("layers", [None, ["0"]])
def test_an_output_as_wide_as_a_vocabulary_is_refused_unless_it_is_named(layers: list[str] | None) -> None:
    width = WIDEST + 1
    net, data = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, width)), [gaussian(4, 2)]
    with pytest.raises(ArgumentError, match=rf"output '1' has {width:,} features.*2.15 GB.*name '1' in `layers`"):
        layer_chain(net, data, layers)
    assert layer_chain(net, data, ["0", "1"]).layers == layer_chain(net, data, ["0", "output"]).layers == ["0", "1"]

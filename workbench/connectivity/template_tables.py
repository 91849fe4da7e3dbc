"""What the tensors of known architectures are made of, as tables that a reader can check against the model's code.

A row is a pattern of names and the axes of the tensors that fit it. In a pattern `*` is a layer's number and (a|b) one
of two. An axis is a text as in layout.py; a name in it is a group, of which there is one for every layer, unless it
also stands in a row without `*` (as `stream` does). The words of KEPT are axes that keep their order; `a|b` is the
group a where the checkpoint has it, else b.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from workbench.errors import ArgumentError

Shapes = Mapping[str, tuple[int, ...]]
Rows = Mapping[str, str]
WORD = re.compile(r"[^*+(),|\s]+")  # a name or word in the text of an axis
BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")

BUFFER = "buffer"  # tensors of any number of axes that a module keeps for itself
KEPT: Rows = {
    "index": "looked up by index",
    "classes": "output logits",
    "channels": "input channels",
    "kernel": "kernel positions",
    "patches": "image positions",
    "one": "a single position",
    BUFFER: "a buffer that numbers or masks",
}
FROZEN: Rows = {"rotary": "turned by rotary positions"}
WITHIN: Rows = {"qk": "heads", "v": "heads", "queries": "heads"}


@dataclass(frozen=True, kw_only=True)
class Template:
    """One architecture.

    Attributes:
        signs: tensors that tell it; what stands before the first is the prefix of all of them.
        rows: the network without a task's head.
        head_rows: heads, whose names lack the last part of the prefix (`bert.`).
        outputs: what the network gives where it has no head → axis.
        ties: further name → first name of tensors that may be one.
        tied_head: where all of a head may be tied, so that a checkpoint need not show it: what the models with such a
            head call the rest; a prefix that ends so tells of the head.
        heads: where config.json has the number of heads; empty if there are none.
        sizes: group → number of units, where shapes do not tell it.
        notes: what was taken for granted.
        fitted: the template for one checkpoint's shapes, told without the prefix.
    """

    signs: tuple[str, ...]
    rows: Rows
    head_rows: Rows
    outputs: Rows
    ties: Rows = field(default_factory=dict)
    tied_head: str = ""
    heads: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fitted: Callable[[Template, Shapes], Template] | None = None


def _norm(name: str, axis: str = "stream") -> Rows:
    return {f"{name}.(weight|bias|gamma|beta)": axis}


def _linear(name: str, made: str, read: str = "stream") -> Rows:
    """A torch.nn.Linear, whose weight is [made, read]."""
    return {f"{name}.weight": f"{made}, {read}", f"{name}.bias": made}


def _conv1d(name: str, made: str, read: str = "stream") -> Rows:
    """GPT-2's Conv1D, whose weight is [read, made]."""
    return {f"{name}.weight": f"{read}, {made}", f"{name}.bias": made}


BERT = Template(
    signs=("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"),
    rows={
        "embeddings.(word|position|token_type)_embeddings.weight": "index, stream",
        "embeddings.(position|token_type)_ids": BUFFER,
        **_norm("embeddings.LayerNorm"),
        **_linear("encoder.layer.*.attention.self.(query|key)", "heads*qk"),
        **_linear("encoder.layer.*.attention.self.value", "heads*v"),
        **_linear("encoder.layer.*.attention.output.dense", "stream", "heads*v"),
        **_norm("encoder.layer.*.attention.output.LayerNorm"),
        **_linear("encoder.layer.*.intermediate.dense", "hidden"),
        **_linear("encoder.layer.*.output.dense", "stream", "hidden"),
        **_norm("encoder.layer.*.output.LayerNorm"),
        **_linear("pooler.dense", "pooled"),
    },
    head_rows={
        **_linear("cls.predictions.transform.dense", "transformed"),
        **_norm("cls.predictions.transform.LayerNorm", "transformed"),
        **_linear("cls.predictions.decoder", "classes", "transformed"),
        "cls.predictions.bias": "classes",
        **_linear("cls.seq_relationship", "classes", "pooled"),
        **_linear("classifier", "classes", "pooled|stream"),
        **_linear("qa_outputs", "classes"),
    },
    outputs={"last_hidden_state": "stream", "pooler_output": "pooled"},
    ties={
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    heads="num_attention_heads",
)

GPT2 = Template(
    signs=("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight"),
    rows={
        "(wte|wpe).weight": "index, stream",
        **_norm("h.*.ln_(1|2)"),
        **_conv1d("h.*.attn.c_attn", "heads*qk+heads*qk+heads*v"),
        **_conv1d("h.*.attn.c_proj", "stream", "heads*v"),
        "h.*.attn.(bias|masked_bias)": BUFFER,
        **_conv1d("h.*.mlp.c_fc", "hidden"),
        **_conv1d("h.*.mlp.c_proj", "stream", "hidden"),
        **_norm("ln_f"),
    },
    head_rows={"(lm_head|score).weight": "classes, stream", **_linear("(classifier|qa_outputs)", "classes")},
    outputs={"last_hidden_state": "stream"},
    ties={"lm_head.weight": "wte.weight"},
    tied_head="transformer.",
    heads="n_head",
)


def _llama(template: Template, shapes: Shapes) -> Template:
    """How many queries share a key; head counts themselves are no matter of shapes."""
    queries, keys = (shapes.get(f"layers.0.self_attn.{name}_proj.weight", (0,))[0] for name in "qk")
    if not keys or queries % keys:
        raise ArgumentError(f"q_proj has {queries} rows and k_proj {keys}: expected a multiple of the keys' rows.")
    return replace(template, sizes={"queries": queries // keys})


LLAMA = Template(
    signs=("embed_tokens.weight", "layers.0.self_attn.q_proj.weight", "layers.0.mlp.gate_proj.weight"),
    rows={
        "embed_tokens.weight": "index, stream",
        **_linear("layers.*.self_attn.q_proj", "heads*queries*rotary"),
        **_linear("layers.*.self_attn.k_proj", "heads*rotary"),
        **_linear("layers.*.self_attn.v_proj", "heads*v"),
        **_linear("layers.*.self_attn.o_proj", "stream", "heads*queries*v"),
        "(rotary_emb|layers.*.self_attn.rotary_emb).inv_freq": BUFFER,
        **_linear("layers.*.mlp.(gate|up)_proj", "hidden"),
        **_linear("layers.*.mlp.down_proj", "stream", "hidden"),
        "layers.*.(input|post_attention)_layernorm.weight": "stream",
        "norm.weight": "stream",
    },
    head_rows={"lm_head.weight": "classes, stream", **_linear("(score|qa_outputs)", "classes")},
    outputs={"last_hidden_state": "stream"},
    ties={"lm_head.weight": "embed_tokens.weight"},
    tied_head="model.",
    heads="num_attention_heads",
    fitted=_llama,
)

VIT = Template(
    signs=("embeddings.patch_embeddings.projection.weight", "embeddings.cls_token"),
    rows={
        "embeddings.patch_embeddings.projection.weight": "stream, channels, kernel, kernel",
        "embeddings.patch_embeddings.projection.bias": "stream",
        "embeddings.(cls|mask)_token": "one, one, stream",
        "embeddings.position_embeddings": "one, patches, stream",
        # transformers 5
        **_linear("layers.*.attention.(q|k)_proj", "heads*qk"),
        **_linear("layers.*.attention.v_proj", "heads*v"),
        **_linear("layers.*.attention.o_proj", "stream", "heads*v"),
        **_linear("layers.*.mlp.fc1", "hidden"),
        **_linear("layers.*.mlp.fc2", "stream", "hidden"),
        **_norm("layers.*.layernorm_(before|after)"),
        # the hub's checkpoints
        **_linear("encoder.layer.*.attention.attention.(query|key)", "heads*qk"),
        **_linear("encoder.layer.*.attention.attention.value", "heads*v"),
        **_linear("encoder.layer.*.attention.output.dense", "stream", "heads*v"),
        **_linear("encoder.layer.*.intermediate.dense", "hidden"),
        **_linear("encoder.layer.*.output.dense", "stream", "hidden"),
        **_norm("encoder.layer.*.layernorm_(before|after)"),
        **_norm("layernorm"),
        **_linear("pooler.dense", "pooled"),
    },
    head_rows=_linear("classifier", "classes"),
    outputs={"last_hidden_state": "stream", "pooler_output": "pooled"},
    heads="num_attention_heads",
)


def _batch_norm(name: str, axis: str) -> Rows:
    return {f"{name}.(weight|bias|running_mean|running_var)": axis, f"{name}.num_batches_tracked": BUFFER}


def _resnet(template: Template, shapes: Shapes) -> Template:
    """Block by block: what a shortcut without weights joins is one group."""
    rows = {"conv1.weight": "stem, channels, kernel, kernel", **_batch_norm("bn1", "stem")}
    stream, width = "stem", shapes["conv1.weight"][0]
    sizes: dict[str, int] = {}
    notes = []
    blocks = {tuple(map(int, found.groups())) for name in shapes if (found := BLOCK.match(name))}
    for home in (f"layer{stage}.{block}" for stage, block in sorted(blocks)):
        last = 3 if f"{home}.conv3.weight" in shapes else 2
        made = shapes.get(f"{home}.conv{last}.weight", (0,))[0]
        read, pad = stream, (made - width) // 2
        weighted = any(f"{home}.{name}.0.weight" in shapes for name in ("downsample", "shortcut"))
        if weighted:
            stream = f"stream@{home}"
        elif made > width and made == width + 2 * pad:
            stream = f"(before@{home}+{read}+after@{home})"
            sizes |= {f"before@{home}": pad, f"after@{home}": pad}
            notes.append(f"{home} has a shortcut without weights: taken as {pad} channels of zeros on either side")
        units = [read, *(f"units{number}@{home}" for number in range(1, last)), stream]
        for number in range(1, last + 1):
            rows[f"{home}.conv{number}.weight"] = f"{units[number]}, {units[number - 1]}, kernel, kernel"
            rows |= _batch_norm(f"{home}.bn{number}", units[number])
        if weighted:
            rows[f"{home}.(downsample|shortcut).0.weight"] = f"{stream}, {read}, kernel, kernel"
            rows |= _batch_norm(f"{home}.(downsample|shortcut).1", stream)
        width = made
    head = _linear("(fc|linear)", "classes", stream)
    return replace(template, rows=rows, head_rows=head, outputs={"features": stream}, sizes=sizes, notes=tuple(notes))


RESNET = Template(
    signs=("layer1.0.conv1.weight", "conv1.weight", "bn1.weight"),
    rows={},
    head_rows={},
    outputs={},
    fitted=_resnet,
)

TEMPLATES: Mapping[str, Template] = {"bert": BERT, "gpt2": GPT2, "llama": LLAMA, "vit": VIT, "resnet": RESNET}

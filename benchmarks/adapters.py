"""Agreement with Hugging Face peft: `python benchmarks/adapters.py`, in an environment that has peft and transformers.

Every row adapts a tiny model with random weights, saves the adapter with `save_pretrained`, opens it with
`wb.load(adapter, base=…)` over the model in memory and over a file of its weights, and compares with what peft's
`merge_and_unload()` gives and with the outputs of peft's model before it was merged. Exit code 1 on a difference.
"""

import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import workbench as wb

EPSILON = torch.finfo(torch.float32).eps
ROUNDING = 32  # float32 steps of a tensor's largest element: sums of at most 13 products, W and scale · B A in turn
OUTPUTS = 1e-4  # relative to the largest output: the same rounding through a few layers


class Parts(nn.Module):
    """A module of every kind that peft adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.signal = nn.Conv1d(8, 8, 3, padding=1)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mix = Conv1D(8, 8)
        self.image = nn.Conv2d(1, 4, (3, 2), padding=1)
        self.point = nn.Conv2d(4, 6, 1, bias=False)
        self.volume = nn.Conv3d(1, 3, 2)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 8, 3, groups=2)
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Something of every part."""
        x = self.signal(self.embed(tokens).transpose(1, 2)).transpose(1, 2).contiguous()
        x = self.mix(x + self.attn(x, x, x, need_weights=False)[0])
        image = self.grouped(self.norm(self.point(self.image(x[:, None]))))
        return self.head(x) + self.volume(x[:, None, None].repeat(1, 1, 2, 1, 1)).mean() + image.mean()  # type: ignore[no-any-return]


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=13, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def bert() -> nn.Module:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    return transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=13, num_labels=3, **sizes))


def llama() -> nn.Module:
    sizes = {"hidden_size": 8, "num_hidden_layers": 11, "num_attention_heads": 2, "intermediate_size": 12}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=13, **sizes))


def mixtral() -> nn.Module:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    experts = {"num_local_experts": 3, "num_key_value_heads": 2}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(vocab_size=13, **sizes, **experts))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One adapter.

    Attributes:
        model: makes the base.
        config: what is given to `LoraConfig`, or another of peft's configurations.
        refused: words of the refusal that is expected; None where the adapter must open.
        apart: names that the base ties to an adapted tensor. peft's merge changes them too, its model before the
            merge does not, and ours must not either.
        adapter_name: peft saves others than `default` in a folder of that name.
        saving: given to `save_pretrained`.
        converted: saved as the difference from the adapter at the start of training, over the base as it was.
        dtype: of the base.
        rounding: float32 steps within which the merged weights agree.
    """

    model: Callable[[], nn.Module]
    config: Mapping[str, Any] | peft.PeftConfig
    refused: str | None = None
    apart: tuple[str, ...] = ()
    adapter_name: str = "default"
    saving: Mapping[str, Any] = field(default_factory=dict)
    converted: bool = False
    dtype: torch.dtype = torch.float32
    rounding: float = ROUNDING


LINEAR = {"target_modules": ["head"]}
ATTENTION = {"target_modules": ["q_proj", "v_proj", "down_proj"], "lora_alpha": 6, "r": 3}
FUSED = {"target_modules": ["c_attn", "c_proj"], "r": 3, "lora_alpha": 5, "fan_in_fan_out": True}
BERT = {"target_modules": ["query", "value", "dense"], "r": 3}
PATTERNS = {
    "rank_pattern": {"1.self_attn.q_proj": 2, r"layers\.\d\.mlp\.down_proj": 5, "^model.layers.10.self_attn.v_proj": 4},
    "alpha_pattern": {"q_proj": 7, "layers.1": 99, "proj": 50},
}
CASES = {
    "linear": Case(model=Parts, config=LINEAR),
    "rslora": Case(model=llama, config={**ATTENTION, "use_rslora": True}),
    "patterns": Case(model=llama, config={**ATTENTION, **PATTERNS}),
    "patterns and rslora": Case(model=llama, config={**ATTENTION, **PATTERNS, "use_rslora": True}),
    "all-linear": Case(model=llama, config={"target_modules": "all-linear"}),
    "some layers": Case(model=llama, config={**ATTENTION, "layers_to_transform": [1, 10], "layers_pattern": "layers"}),
    "gpt2": Case(model=gpt2, config=FUSED),
    "gpt2, flag forgotten": Case(model=gpt2, config={**FUSED, "fan_in_fan_out": False}),
    "gpt2, square and not": Case(model=gpt2, config={**FUSED, "target_modules": "all-linear", "r": 2}),
    "bert, classifier saved": Case(model=bert, config={**BERT, "task_type": "SEQ_CLS"}),
    "bert, bias all": Case(model=bert, config={**BERT, "bias": "all"}),
    "bert, bias lora_only": Case(model=bert, config={**BERT, "bias": "lora_only"}),
    "gpt2, bias all": Case(model=gpt2, config={**FUSED, "bias": "all"}),
    "embedding": Case(model=Parts, config={"target_modules": ["embed", "head"], "r": 4}),
    "embedding of a transformer": Case(model=llama, config={**ATTENTION, "target_modules": ["embed_tokens", "q_proj"]}),
    "embedding, tied": Case(model=gpt2, config={**FUSED, "target_modules": ["wte"]}, apart=("lm_head.weight",)),
    "head saved, tied": Case(model=gpt2, config={**FUSED, "modules_to_save": ["lm_head"]}),
    "embeddings saved": Case(model=llama, config=ATTENTION, saving={"save_embedding_layers": True}),
    "convolutions": Case(model=Parts, config={"target_modules": ["signal", "image", "point", "volume"], "r": 2}),
    "buffers saved": Case(model=Parts, config={**LINEAR, "modules_to_save": ["norm"]}),
    "another adapter name": Case(model=llama, config=ATTENTION, adapter_name="other"),
    "pickled": Case(model=llama, config=ATTENTION, saving={"safe_serialization": False}),
    "gaussian": Case(model=llama, config={**ATTENTION, "init_lora_weights": "gaussian"}),
    "orthogonal": Case(model=llama, config={**ATTENTION, "r": 4, "init_lora_weights": "orthogonal"}),
    "mica": Case(model=llama, config={**ATTENTION, "init_lora_weights": "mica"}),
    # peft rounds ΔW and the sum to bfloat16, ours the sum: 2 steps of 2⁻⁸
    "bfloat16": Case(model=llama, config=ATTENTION, dtype=torch.bfloat16, rounding=2 * 2**-8 / EPSILON),
    "grouped convolution": Case(
        model=Parts, config={"target_modules": ["grouped"], "r": 2}, refused="grouped convolution"
    ),
    "nn.MultiheadAttention": Case(
        model=Parts, config={"target_modules": ["attn"], "r": 3}, refused="nn.MultiheadAttention"
    ),
    "DoRA": Case(model=llama, config={**ATTENTION, "use_dora": True}, refused="DoRA"),
    "LoRA with biases": Case(model=Parts, config={**LINEAR, "lora_bias": True}, refused="biases of their own"),
    "PiSSA": Case(model=llama, config={**ATTENTION, "init_lora_weights": "pissa"}, refused="'pissa'"),
    "PiSSA, converted": Case(model=llama, config={**ATTENTION, "init_lora_weights": "pissa"}, converted=True),
    "OLoRA": Case(model=llama, config={**ATTENTION, "init_lora_weights": "olora"}, refused="'olora'"),
    "KaSA": Case(model=llama, config={**ATTENTION, "kasa_config": peft.KasaConfig()}, refused="KaSA"),
    "VeLoRA": Case(model=llama, config={**ATTENTION, "velora_config": peft.VeloraConfig()}, refused="VeLoRA"),
    "MonteCLoRA": Case(
        model=llama, config={**ATTENTION, "monteclora_config": peft.MontecloraConfig()}, refused="MonteCLoRA"
    ),
    "block-diagonal": Case(
        model=llama,
        config={
            **ATTENTION,
            "r": 4,
            "use_bdlora": peft.BdLoraConfig(target_modules_bd_a=["q_proj", "v_proj", "down_proj"], nblocks=2),
        },
        refused="BD-LoRA",
    ),
    "bare parameters": Case(
        model=mixtral,
        config={"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]},
        refused="bare parameters",
    ),
    "single tokens": Case(
        model=llama, config={**ATTENTION, "trainable_token_indices": [1, 3]}, refused="single rows of the embedding"
    ),
    "layers repeated": Case(
        model=llama, config={**ATTENTION, "layer_replication": [(0, 2), (1, 3)]}, refused="layers of the base"
    ),
    "LoHa": Case(model=llama, config=peft.LoHaConfig(target_modules=["q_proj"]), refused="'LOHA'"),
    "LoKr": Case(model=llama, config=peft.LoKrConfig(target_modules=["q_proj"]), refused="'LOKR'"),
    "AdaLoRA": Case(
        model=llama, config=peft.AdaLoraConfig(target_modules=["q_proj"], total_step=9), refused="'ADALORA'"
    ),
    "IA3": Case(
        model=llama,
        config=peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        refused="'IA3'",
    ),
    "OFT": Case(model=llama, config=peft.OFTConfig(target_modules=["q_proj"], oft_block_size=4), refused="'OFT'"),
    "VeRA": Case(model=llama, config=peft.VeraConfig(target_modules=["q_proj"], r=2), refused="'VERA'"),
    "prompt tuning": Case(
        model=llama,
        config=peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        refused="'PROMPT_TUNING'",
    ),
    "prefix tuning": Case(
        model=llama,
        config=peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        refused="'PREFIX_TUNING'",
    ),
}


def main() -> int:
    print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    print(f"{'adapter':<28}{'base':<8}{'tensors':>8}{'changed':>8}{'weights':>9}{'outputs':>10}  verdict")
    agreed = [row(name, case) for name, case in CASES.items()]
    print("weights: float32 steps of the tensor's largest element; outputs: relative to the largest")
    print(f"{sum(agreed)} of {len(agreed)} as expected")
    return 0 if all(agreed) else 1


def row(name: str, case: Case) -> bool:
    """Prints a line for each base and tells whether both are as expected."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            base, merged, outputs, folder = adapted(case, Path(scratch))
        except Exception as error:
            print(f"{name:<28}{'':<43}  NO: peft itself failed: {type(error).__name__}: {error}")
            return False
        file = Path(scratch) / "base.pt"
        torch.save(base.state_dict(), file)
        return all([line(name, case, where, base, merged, outputs, folder) for where in (base, file)])


def line(
    name: str, case: Case, where: Any, base: nn.Module, merged: Mapping[str, Tensor], outputs: Tensor, folder: Path
) -> bool:
    begin = f"{name:<28}{'module' if where is base else 'file':<8}"
    try:
        ours = dict(wb.load(folder, base=where))
    except wb.CheckpointError as error:
        good = case.refused is not None and case.refused in str(error)
        print(f"{begin}{'':<35}  {'refused by name' if good else f'NO: {error.key}: {error.reason}'}")
        return good
    if list(ours) != list(base.state_dict()):
        print(f"{begin}{len(ours):>8}{'':<27}  NO: other names or another order than the base's")
        return False
    expected = {**merged, **{one: base.state_dict()[one] for one in case.apart}}
    weights = max(steps(ours[one], expected[one]) for one in ours)
    changed = sum(not torch.equal(ours[one], tensor) for one, tensor in base.state_dict().items())
    output = relative(run(untied(base, ours)), outputs)
    far = output > (OUTPUTS if case.dtype == torch.float32 else 0.1)
    wrong = weights > case.rounding or far or not changed
    verdict = "NO: opened, expected a refusal" if case.refused else "NO" if wrong else "agrees"
    print(f"{begin}{len(ours):>8}{changed:>8}{weights:>9.2g}{output:>10.1e}  {verdict}")
    return verdict == "agrees"


def adapted(case: Case, scratch: Path) -> tuple[nn.Module, dict[str, Tensor], Tensor, Path]:
    """The base, what peft merges, what its model gives before, and the folder that it saved."""
    torch.manual_seed(0)
    model = case.model().to(case.dtype).eval()
    for tensor in model.state_dict().values():  # biases and statistics that are not 0 or 1
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.randn_like(tensor)).abs_() if tensor.ndim == 1 else tensor
    base = copy.deepcopy(model)
    config = case.config if isinstance(case.config, peft.PeftConfig) else LoraConfig(**case.config)
    model = get_peft_model(model, config, adapter_name=case.adapter_name).eval()  # type: ignore[arg-type]
    start = {}
    if case.converted:
        start = {"path_initial_model_for_weight_conversion": str(scratch / "start")}
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(str(scratch / "start"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for part, module in model.named_modules():
            if part.endswith("modules_to_save.default") and isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(1.0)  # type: ignore[union-attr]
    model.save_pretrained(str(scratch / "adapter"), **case.saving, **start)
    folder = scratch / "adapter" / ("" if case.adapter_name == "default" else case.adapter_name)
    if case.refused:
        return base, {}, torch.empty(0), folder
    outputs = run(model)
    return base, dict(model.merge_and_unload().state_dict()), outputs, folder


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        given = model(torch.arange(10).reshape(2, 5))
    outputs: Tensor = given if isinstance(given, Tensor) else given.logits
    return outputs


def untied(base: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the base with these weights, each name with a tensor of its own."""
    model, seen = copy.deepcopy(base), set[int]()
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in seen:
                setattr(model.get_submodule(path), name, nn.Parameter(parameter.detach().clone()))
            seen.add(id(parameter))
    model.load_state_dict(dict(weights))
    return model


def steps(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in steps of float32 at the largest element; infinite for another dtype or shape."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return float("inf")
    return relative(ours, theirs) / EPSILON


def relative(ours: Tensor, theirs: Tensor) -> float:
    gap = (ours.double() - theirs.double()).abs().max().item()
    return gap / max(theirs.double().abs().max().item(), torch.finfo(torch.float32).tiny)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    sys.exit(main())

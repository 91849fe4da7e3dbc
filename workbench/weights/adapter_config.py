"""What a PEFT adapter's configuration asks for: rank and α of each module, or a reason why no weights equal it."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError

CONFIG = "adapter_config.json"
DO = "merge it with peft (model.merge_and_unload().save_pretrained(path)) and open the result"
REFUSED = {  # options under which the adapted model is not W + scale · B A
    "use_dora": "DoRA rescales every row by a trained magnitude",
    "use_qalora": "QALoRA pools the inputs by groups of a quantised base",
    "lora_bias": "the LoRA matrices have biases of their own",
    "layer_replication": "layers of the base are repeated",
    "target_parameters": "LoRA on bare parameters, not on modules",
    "trainable_token_indices": "single rows of the embedding are trained",
    "alora_invocation_tokens": "activated LoRA acts only on some tokens, so no weights equal it",
    "arrow_config": "Arrow chooses adapters token by token, so no weights equal it",
    "kasa_config": "KaSA takes the smallest singular values from the base's own weights before training",
    "use_bdlora": "BD-LoRA stores the blocks of a block-diagonal matrix",
    "velora_config": "VeLoRA keeps tensors of its own beside A and B",
    "monteclora_config": "MonteCLoRA draws A anew in every step and keeps what it draws from",
}
REWRITES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # these initialisations change the base's own weights


def adapter_config(path: Path) -> dict[str, Any]:
    """The adapter's configuration, if ΔW = scale · B A is all that it asks for."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(str(path), None, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(str(path), None, f"not valid JSON ({error}); save the adapter again") from error
    if not isinstance(config, dict):
        raise CheckpointError(str(path), None, f"holds a {type(config).__name__}, expected an object with peft_type")

    def refuse(key: str, why: str) -> CheckpointError:
        return CheckpointError(str(path), key, why)

    if config.get("peft_type") != "LORA":
        raise refuse("peft_type", f"{config.get('peft_type')!r} is not supported, expected 'LORA'; {DO}")
    for key, what in REFUSED.items():
        if config.get(key) not in (None, False, [], {}):
            raise refuse(key, f"not supported: {what}; {DO}")
    if str(config.get("init_lora_weights")).casefold().startswith(REWRITES_BASE):
        what = f"{config['init_lora_weights']!r} changed the base's own weights before training"
        raise refuse("init_lora_weights", f"not supported: {what}; {DO}")
    if config.get("layers_pattern") and config.get("layers_to_transform") is None:
        raise refuse("layers_pattern", f"set without layers_to_transform, which peft does not allow either; {DO}")
    if (bias := config.get("bias", "none")) not in ("none", "all", "lora_only"):
        raise refuse("bias", f"{bias!r}, expected 'none', 'all' or 'lora_only'; {DO}")
    for key, pattern, kind in (("r", "rank_pattern", "a positive int"), ("lora_alpha", "alpha_pattern", "a number")):
        whole = (int,) if key == "r" else (int, float)
        patterns = config.get(pattern) or {}
        if not isinstance(patterns, dict):
            raise refuse(pattern, f"a {type(patterns).__name__}, expected an object from module names to numbers")
        for where, value in ((key, config.get(key)), *((pattern, value) for value in patterns.values())):
            if type(value) not in whole or not math.isfinite(value) or (key == "r" and value < 1):
                raise refuse(where, f"{value!r}, expected {kind}; save the adapter again")
        for expression in patterns:
            try:
                re.compile(rf"(.*\.)?({expression})$")
            except re.error as error:
                raise refuse(pattern, f"{expression!r} is no regular expression: {error}; correct it") from error
    return config


def setting(config: Mapping[str, Any], patterns: str, module: str) -> Any:
    """A module's r or α: of the first pattern that matches it or its end, as in peft's get_pattern_key."""
    for expression, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({expression})$", module):
            return value
    return config["r" if patterns == "rank_pattern" else "lora_alpha"]

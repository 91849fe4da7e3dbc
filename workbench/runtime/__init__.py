"""What needs a module and data: evaluation, captured outputs and their moments, batch-norm statistics."""

from workbench.runtime.activations import ActivationMoments, LayerMoments, activation_moments
from workbench.runtime.batch_norm import reset_statistics
from workbench.runtime.batches import EvaluationError
from workbench.runtime.evaluator import Evaluator, evaluator
from workbench.runtime.hooks import captured

__all__ = [
    "ActivationMoments",
    "EvaluationError",
    "Evaluator",
    "LayerMoments",
    "activation_moments",
    "captured",
    "evaluator",
    "reset_statistics",
]

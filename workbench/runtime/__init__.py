"""What needs a module and data: evaluation, captured outputs, batch-norm statistics."""

from workbench.runtime.batch_norm import reset_statistics
from workbench.runtime.batches import EvaluationError
from workbench.runtime.evaluator import Evaluator, evaluator
from workbench.runtime.hooks import captured

__all__ = ["EvaluationError", "Evaluator", "captured", "evaluator", "reset_statistics"]

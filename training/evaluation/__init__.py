"""Accuracy, intervals and calibration of a finished run."""

from .evaluate import EvaluationError, evaluate_run
from .summary import Predictions, describe_evaluation, leak_text, summarize

__all__ = [
    "EvaluationError", "Predictions", "describe_evaluation", "evaluate_run", "leak_text",
    "summarize",
]  # fmt: skip

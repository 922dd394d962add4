"""Accuracy, intervals and calibration of a finished run."""

from .evaluate import EvaluationError, evaluate_run
from .files import examples_path, list_evaluations
from .folds import FoldError, parse_fold, pool_folds
from .summary import Predictions, describe_evaluation, describe_folds, leak_text, summarize

__all__ = [
    "EvaluationError", "FoldError", "Predictions", "describe_evaluation", "describe_folds",
    "evaluate_run", "examples_path", "leak_text", "list_evaluations", "parse_fold", "pool_folds",
    "summarize",
]  # fmt: skip

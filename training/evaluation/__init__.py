"""Accuracy, intervals, calibration and probabilities of a finished run."""

from . import metrics
from .evaluate import EvaluationError, evaluate_run
from .files import examples_path, list_evaluations, probabilities_path
from .folds import FoldError, parse_fold, pool_folds
from .probabilities import (
    Probabilities,
    ProbabilitiesError,
    join_probabilities,
    load_probabilities,
)
from .summary import (
    Predictions,
    apply_threshold,
    describe_evaluation,
    describe_folds,
    drop_top5,
    leak_text,
    list_probabilities,
    summarize,
    summarize_videos,
)

__all__ = [
    "EvaluationError", "FoldError", "Predictions", "Probabilities", "ProbabilitiesError",
    "apply_threshold", "describe_evaluation", "describe_folds", "drop_top5", "evaluate_run",
    "examples_path", "join_probabilities", "leak_text", "list_evaluations", "list_probabilities",
    "load_probabilities", "metrics", "parse_fold", "pool_folds", "probabilities_path", "summarize",
    "summarize_videos",
]  # fmt: skip

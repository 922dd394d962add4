"""The runs of K folds as one row: test figures of all videos, the rest means over the folds."""

import statistics
from collections.abc import Sequence

from ..evaluation import parse_fold, pool_folds
from .runs import ReportError, Run, read_probabilities


def pool_runs(folds: Sequence[Run]) -> Run:
    """Runs that differ in their fold alone -> one. Raises ReportError or FoldError.

    metrics: the lines of all folds; summary: seconds are their sum, accuracies their mean; config
    and environment are the first fold's.
    """
    folds = sorted(folds, key=lambda run: parse_fold(run.evaluation["split"]["name"]) or (0, 0))
    first, folder = folds[0], folds[0].folder.parent
    if first.evaluation["on"] != "test":
        raise ReportError(
            f"the folds in {folder} are one row on their test clips only: leave out "
            f"--subset {first.evaluation['on']}."
        )
    results = [run.evaluation for run in folds]
    evaluation = pool_folds(results, str(folder), read_probabilities(folds))
    accuracies = [run.summary["best_val_acc"] for run in folds]
    summary = {
        **first.summary,
        "split": evaluation["split"],
        "seconds": sum(run.summary["seconds"] for run in folds),
        "best_val_acc": None if None in accuracies else statistics.mean(accuracies),
    }
    return Run(
        folder,
        [line for run in folds for line in run.metrics],
        summary,
        evaluation,
        {**first.config, "split": evaluation["split"]["name"]},
        first.environment,
        first.evaluation_path,
        folds=tuple(folds),
    )

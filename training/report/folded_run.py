"""The runs of K folds as one row: test figures of all videos, the rest means over the folds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation import FoldError, parse_fold, pool_folds
from .runs import ReportError, Run, read_probabilities


@dataclass(frozen=True)
class FoldedRun(Run):
    """folds: the run of each fold that is there, in order. num_folds: of how many.

    metrics: the lines of all folds; summary: seconds are their sum, accuracies their mean; config
    and environment are the first fold's.
    """

    folds: tuple[Run, ...] = ()
    num_folds: int = 0

    @property
    def parts(self) -> Sequence[Run]:
        return self.folds

    @property
    def missing_folds(self) -> list[int]:
        there = {row["fold"] for row in self.evaluation["folds"]}
        return [fold for fold in range(1, self.num_folds + 1) if fold not in there]

    @property
    def best_metrics(self) -> dict[str, Any]:
        return _means([fold.best_metrics for fold in self.folds])

    @property
    def best_over_epochs(self) -> dict[str, Any]:
        return _means([fold.best_over_epochs for fold in self.folds])


def pool_runs(folds: Sequence[Run]) -> FoldedRun:
    """Runs that differ in their fold alone -> one. Raises ReportError where they do not."""
    folds = sorted(folds, key=lambda run: parse_fold(run.evaluation["split"]["name"]) or (0, 0))
    first, folder = folds[0], folds[0].folder.parent
    if first.evaluation["on"] != "test":
        raise ReportError(
            f"the folds in {folder} are one row on their test clips only: leave out "
            f"--subset {first.evaluation['on']}."
        )
    try:
        results = [run.evaluation for run in folds]
        evaluation = pool_folds(results, str(folder), read_probabilities(folds))
    except FoldError as error:
        raise ReportError(str(error)) from error
    fold = parse_fold(first.evaluation["split"]["name"])
    accuracies = [run.summary["best_val_acc"] for run in folds]
    summary = {
        **first.summary,
        "split": evaluation["split"],
        "seconds": sum(run.summary["seconds"] for run in folds),
        "best_val_acc": None if None in accuracies else statistics.mean(accuracies),
    }
    return FoldedRun(
        folder,
        [line for run in folds for line in run.metrics],
        summary,
        evaluation,
        {**first.config, "split": evaluation["split"]["name"]},
        first.environment,
        first.evaluation_path,
        folds=tuple(folds),
        num_folds=fold[1] if fold else 0,
    )


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number; None where a row has none."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: None if None in values else statistics.mean(values)
        for name, values in columns.items()
        if not isinstance(values[0], (str, list))
    }

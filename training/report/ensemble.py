"""The ensemble of a report: the mean of the probabilities of runs that were tested on one subset.

Their views may differ: a run's probabilities of a video are the mean over its views.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation import summarize_videos
from .comparison import find_difference
from .runs import ReportError, Run


def evaluate_ensemble(runs: Sequence[Run]) -> dict[str, Any]:
    """-> the entries of eval.json that are of videos, of the mean probabilities, and "ensemble_of",
    the labels of the runs.

    Raises ReportError, one sentence, for fewer than two runs, for runs of other classes, shard
    sets, splits, subsets or videos, and for one without probabilities.
    """
    first = runs[0]
    if len(runs) < 2:
        raise ReportError(
            f"--ensemble averages several runs and there is one, {first.folder}: give two or more."
        )
    names, labels, _ = first.probabilities.average_clips()
    means = []
    for run in runs:
        run_names, _, probabilities = run.probabilities.average_clips()
        difference = find_difference(run, first, any_views=True)
        if difference is None and run_names != names:
            difference = f"videos ({len(run_names)} and {len(names)})"
        if difference:
            raise ReportError(
                f"--ensemble cannot average {run.folder} and {first.folder}, they were tested on "
                f"different clips, they differ in {difference}: leave one of them out."
            )
        means.append(probabilities)
    result = first.evaluation
    views = dict.fromkeys(str(run.evaluation["views"]) for run in runs)
    return {
        "ensemble_of": [run.label for run in runs],
        **{name: result[name] for name in ("on", "split")},
        "views": ", ".join(views),
        **summarize_videos(names, labels, np.mean(means, axis=0), first.classes),
    }

"""The evaluations of K folds as one: every video was tested once, by one of the K networks."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import HarError
from ...shards.splits import FOLD_NAME
from .probabilities import Probabilities
from .summary import apply_threshold, summarize


class FoldError(HarError):
    """Evaluations that cannot be pooled; one sentence."""


def parse_fold(name: str) -> tuple[int, int] | None:
    """(fold from 1, number of folds) of a split's name "fold-2/5"; None for another split."""
    fold = FOLD_NAME.fullmatch(name)
    return (int(fold[1]), int(fold[2])) if fold else None


def pool_folds(
    results: Sequence[dict[str, Any]], run: str, probabilities: Probabilities
) -> dict[str, Any]:
    """Contents of eval.json of several folds -> one of the same entries, over the videos of all.

    run: the folder that holds the runs. probabilities: of the clips of all folds. Figures are those
    of all videos (or clips) together, not means over the folds. "folds" has a row for each fold:
    its number, videos and video@1. The split is called "5 folds", or "3 of 5 folds" where some are
    missing.

    Raises FoldError where the results are not of different folds of one split.
    """
    results = sorted(results, key=lambda result: _fold_of(result)[0])
    folds = [_fold_of(result) for result in results]
    numbers, num_folds = [fold for fold, _ in folds], folds[0][1]
    keys = [row["key"] for result in results for row in result["predictions"]]
    if len(set(keys)) < len(keys):
        raise FoldError(
            f"{run}: a video was tested in two folds ({', '.join(map(str, numbers))}), so they are "
            "not of one set and seed: report them apart."
        )
    clips = [result["clips"] for result in results]
    leaks = [result["split"]["leak"] for result in results]
    digests = "".join(result["split"]["digest"] for result in results)
    count = f"{len(folds)} of " * (len(folds) < num_folds)
    pooled = {
        **{name: results[0][name] for name in ("model", "checkpoint", "on", "views")},
        "multiply_adds": results[0].get("multiply_adds"),
        "run": run,
        "epoch": [result["epoch"] for result in results],
        "split": {
            "name": f"{count}{num_folds} folds",
            "seed": results[0]["split"]["seed"],
            "digest": hashlib.sha256(digests.encode()).hexdigest()[:16],
            "leak": None if None in leaks else float(np.average(leaks, weights=clips)),
        },
        "folds": [
            {"fold": fold, "videos": result["videos"], "video@1": result["video@1"]}
            for fold, result in zip(numbers, results, strict=True)
        ],
        **summarize(
            probabilities,
            float(np.average([result["loss"] for result in results], weights=clips)),
        ),
    }
    thresholds = {result.get("threshold", {}).get("threshold") for result in results}
    if len(thresholds) == 1 and None not in thresholds:
        pooled["threshold"] = apply_threshold(pooled["predictions"], thresholds.pop())
    return pooled


def _fold_of(result: dict[str, Any]) -> tuple[int, int]:
    fold = parse_fold(result["split"]["name"])
    if fold is None:
        raise FoldError(f"split {result['split']['name']} is not a fold.")
    return fold

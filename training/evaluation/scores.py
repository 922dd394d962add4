"""What an evaluation says: from predictions of clips to the numbers in eval.json, and as text.

Odd: clips are averaged to videos first (softmax, equal weight); everything except clip@1 and the
loss is about videos. The leak (share of these clips with a clip of the same group in the run's
train side) stands beside every accuracy that is printed, because without it none can be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import metrics

MOST_CONFUSED = 10


@dataclass(frozen=True)
class Predictions:
    """Of N clips over K classes; each clip once, in any order.

    ids: int64 [N], sample ids. probabilities: float32 [N,K], rows sum to 1. labels: int64 [N].
    losses: float32 [N], unweighted cross entropy.
    """

    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    losses: NDArray[np.float32]


def summarise(
    predictions: Predictions, *, videos: NDArray, keys: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """The numbers of eval.json: counts, loss, accuracies, calibration, classes, each video.

    videos: int [N], the video of each clip. keys: a key for each clip; a video goes by the first
    of its clips' keys.
    """
    P, labels, numbers = metrics.average_views(
        predictions.probabilities, predictions.labels, videos
    )
    predicted = P.argmax(axis=1)
    matrix = metrics.confusion(labels, predicted, len(classes))
    right = predicted == labels
    return {
        "clips": len(predictions.ids),
        "videos": len(numbers),
        "loss": float(predictions.losses.mean(dtype=np.float64)),
        "clip@1": metrics.topk_accuracy(predictions.probabilities, predictions.labels),
        "video@1": float(right.mean()),
        "video@5": metrics.topk_accuracy(P, labels, 5),
        "mean_class_acc": metrics.mean_class_accuracy(matrix),
        "interval": list(metrics.bootstrap_interval(right)),
        "ece": metrics.calibration_error(P, labels),
        "per_class": _per_class(matrix, classes),
        "confusion": matrix.tolist(),
        "confused": _confused(matrix, classes),
        "predictions": _each_video(P, labels, _video_keys(videos, keys, numbers), classes),
    }


def _per_class(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    columns = {name: values.tolist() for name, values in metrics.per_class(matrix).items()}
    return [
        {"class": name, **{column: values[row] for column, values in columns.items()}}
        for row, name in enumerate(classes)
    ]


def _confused(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent wrong answers, the most frequent first; equal ones in class order."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [(int(flat) // len(classes), int(flat) % len(classes)) for flat in order]
    return [
        {"true": classes[t], "predicted": classes[p], "count": int(wrong[t, p])}
        for t, p in pairs
        if wrong[t, p] > 0
    ]


def _video_keys(videos: NDArray, keys: Sequence[str], numbers: NDArray) -> list[str]:
    first: dict[int, str] = {}
    for video, key in zip(videos.tolist(), keys, strict=True):
        first[video] = min(key, first.get(video, key))
    return [first[number] for number in numbers.tolist()]


def _each_video(
    P: NDArray, labels: NDArray, keys: Sequence[str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    predicted = P.argmax(axis=1)
    rows = zip(keys, labels.tolist(), predicted.tolist(), P.max(axis=1).tolist(), strict=True)
    return [
        {"key": key, "true": classes[t], "predicted": classes[p], "probability": share}
        for key, t, p, share in sorted(rows)
    ]


def leak_text(leak: float | None) -> str:
    """The leak of a split as it is printed beside an accuracy."""
    return "leak unknown" if leak is None else f"leak {leak:.1%}"


def describe(result: dict[str, Any]) -> str:
    """eval.json as lines for the terminal, the leak beside every accuracy."""
    split, leak = result["split"], leak_text(result["split"]["leak"])
    views = "1 clip a video" if result["views"] == 1 else f"up to {result['views']} clips a video"
    low, high = result["interval"]
    lines = [
        f"{result['model']}, {result['checkpoint']} of epoch {result['epoch']}, on {result['on']} "
        f"of split {split['name']} ({split['digest']}): {result['videos']} videos, {views}",
        f"  video@1              {result['video@1']:.4f}  {leak}  95% [{low:.4f}, {high:.4f}]",
        f"  video@5              {result['video@5']:.4f}  {leak}",
        f"  clip@1               {result['clip@1']:.4f}  {leak}",
        f"  mean class accuracy  {result['mean_class_acc']:.4f}  {leak}",
        f"  loss                 {result['loss']:.4f}",
        f"  calibration (ECE)    {result['ece']:.4f}",
    ]
    if result["confused"]:
        pairs = [f"{c['true']} as {c['predicted']} ({c['count']})" for c in result["confused"][:3]]
        lines.append("  most confused        " + ", ".join(pairs))
    lines.append("leak: share of these clips with a clip of the same group in the run's train side")
    return "\n".join(lines)

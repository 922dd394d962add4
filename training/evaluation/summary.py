"""From predictions of clips to the numbers of eval.json, and these as text.

Notes: clips are averaged to videos first (softmax, equal weight); everything except clip@1 and the
loss is about videos. The leak (share of these clips with a clip of the same group in the run's
train subset) stands beside every accuracy that is printed: without it none can be judged.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import metrics

_MAX_CONFUSED = 10


@dataclass(frozen=True)
class Predictions:
    """Of N clips over K classes; each clip once, in any order.

    indices: int64 [N], of the samples. probabilities: float32 [N,K], rows sum to 1. labels: int64
    [N]. losses: float32 [N], unweighted cross entropy.
    """

    indices: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    losses: NDArray[np.float32]


def summarize(
    predictions: Predictions, *, videos: NDArray, keys: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """The numbers of eval.json: counts, loss, accuracies, calibration, classes, each video.

    videos: int [N], the video of each clip. keys: of each clip; a video is called by the first (in
    order of text) of its clips' keys.
    """
    probabilities, labels, video_numbers = metrics.average_views(
        predictions.probabilities, predictions.labels, videos
    )
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion(labels, predicted, len(classes))
    # the last of equal ones stays in a dict
    key_of_video = dict(sorted(zip(videos.tolist(), keys, strict=True), reverse=True))
    rows = zip(
        [key_of_video[video] for video in video_numbers.tolist()],
        labels.tolist(),
        predicted.tolist(),
        probabilities.max(axis=1).tolist(),
        strict=True,
    )
    return {
        "clips": len(predictions.indices),
        "videos": len(video_numbers),
        "loss": float(predictions.losses.mean(dtype=np.float64)),
        "clip@1": metrics.topk_accuracy(predictions.probabilities, predictions.labels),
        "video@5": metrics.topk_accuracy(probabilities, labels, 5),
        **summarize_videos(matrix, predicted == labels, probabilities.max(axis=1), classes),
        "predictions": [
            {"key": key, "true": classes[t], "predicted": classes[p], "probability": probability}
            for key, t, p, probability in sorted(rows)
        ],
    }


def summarize_videos(
    matrix: NDArray[np.int64],
    is_right: NDArray[np.bool_],
    confidence: NDArray[np.floating],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The numbers of eval.json that follow from the top class of each video.

    matrix: int64 [K,K], their confusion. is_right: bool [V]. confidence: float [V], the top class's
    probability.
    """
    return {
        "video@1": float(is_right.mean()),
        "mean_class_acc": metrics.mean_class_accuracy(matrix),
        "interval": list(metrics.bootstrap_interval(is_right)),
        "ece": metrics.confidence_error(confidence, is_right),
        "per_class": _per_class(matrix, classes),
        "confusion": matrix.tolist(),
        "confused": _most_confused(matrix, classes),
    }


def _per_class(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    columns = {"class": np.array(classes, object), **metrics.per_class(matrix)}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _most_confused(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent wrong answers, the most frequent first; equal ones in class order."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_CONFUSED]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        {"true": classes[t], "predicted": classes[p], "count": int(wrong[t, p])}
        for t, p in pairs
        if wrong[t, p] > 0
    ]


def leak_text(leak: float | None) -> str:
    """The leak of a split as it is printed beside an accuracy."""
    return "leak unknown" if leak is None else f"leak {leak:.1%}"


def describe_folds(folds: Sequence[dict[str, Any]]) -> str:
    """The spread of the folds' accuracies in words."""
    values = [fold["video@1"] for fold in folds]
    text = f"{min(values):.4f} to {max(values):.4f}"
    if len(values) > 1:
        text += f", mean {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    return text


def _report_options(result: dict[str, Any]) -> str:
    """The options with which har-report takes this evaluation."""
    subset = "" if result["on"] == "test" else f" --subset {result['on']}"
    return subset + (f" --views {result['views']}" if result["views"] > 1 else "")


def describe_evaluation(result: dict[str, Any]) -> str:
    """eval.json as lines for the terminal, the leak beside every accuracy."""
    split, leak = result["split"], leak_text(result["split"]["leak"])
    views = "1 clip a video" if result["views"] == 1 else f"up to {result['views']} clips a video"
    low, high = result["interval"]
    epoch = "each fold" if "folds" in result else f"epoch {result['epoch']}"
    lines = [
        f"{result['model']}, {result['checkpoint']} of {epoch}, on {result['on']} "
        f"of split {split['name']} ({split['digest']}): {result['videos']} videos, {views}",
        f"  video@1              {result['video@1']:.4f}  {leak}  95% [{low:.4f}, {high:.4f}]",
        f"  video@5              {result['video@5']:.4f}  {leak}",
        f"  clip@1               {result['clip@1']:.4f}  {leak}",
        f"  mean class accuracy  {result['mean_class_acc']:.4f}  {leak}",
        f"  loss                 {result['loss']:.4f}",
        f"  calibration (ECE)    {result['ece']:.4f}",
    ]
    if "folds" in result:
        lines.insert(2, f"  video@1 of the folds {describe_folds(result['folds'])}")
    if result["confused"]:
        pairs = [f"{c['true']} as {c['predicted']} ({c['count']})" for c in result["confused"][:3]]
        lines.append("  most confused        " + ", ".join(pairs))
    if "set_changes" in result:
        lines.append(f"the shards are not as the run was trained on: {result['set_changes']}")
    lines += [
        "leak: share of these clips with a clip of the same group in the run's train subset",
        f"next: har-report {result['run']}{_report_options(result)}",
    ]
    return "\n".join(lines)

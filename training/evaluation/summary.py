"""From predictions of clips to the numbers of eval.json, and these as text.

Notes: clips are averaged to videos first (softmax, equal weight); everything except clip@1 and the
loss is about videos. Below six classes there is no video@5, which would say nothing. The leak
(share of these clips with a clip of the same group in the run's train subset) stands beside every
accuracy that is printed: without it none can be judged.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import metrics
from .probabilities import Probabilities

_MAX_CONFUSED = 10
_TOP5_CLASSES = 6  # the fewest of which a top 5 says something


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


def summarize(probabilities: Probabilities, loss: float) -> dict[str, Any]:
    """The numbers of eval.json: counts, loss, accuracies, calibration, classes, each video.

    loss: the mean over the clips.
    """
    return {
        "clips": len(probabilities.key),
        "loss": loss,
        "clip@1": metrics.topk_accuracy(probabilities.probabilities, probabilities.label),
        **summarize_videos(*probabilities.average_clips(), probabilities.classes.tolist()),
    }


def list_probabilities(
    predictions: Predictions, *, videos: NDArray, keys: Sequence[str], classes: Sequence[str]
) -> Probabilities:
    """What probabilities.npz holds.

    videos: int [N], the video of each clip. keys: of each clip; a video is called by the first (in
    order of text) of its clips' keys.
    """
    # the last of equal ones stays in a dict
    key_of_video = dict(sorted(zip(videos.tolist(), keys, strict=True), reverse=True))
    return Probabilities(
        np.array(keys, np.str_),
        np.array([key_of_video[video] for video in videos.tolist()], np.str_),
        predictions.labels.astype(np.int64),
        predictions.probabilities,
        np.array(classes, np.str_),
    )


def summarize_videos(
    keys: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The numbers of eval.json that are of V videos. labels [V], probabilities [V,K]."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    is_right = predicted == labels
    matrix = metrics.confusion(labels, predicted, len(classes))
    areas = metrics.class_average_precision(probabilities, labels)
    rows = zip(keys, labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
    result = {
        "videos": len(keys),
        "video@1": float(is_right.mean()),
        "mean_class_acc": metrics.mean_class_accuracy(matrix),
        "interval": list(metrics.wilson_interval(int(is_right.sum()), len(keys))),
        "ece": metrics.calibration_error(probabilities, labels),
        "per_class": _per_class(matrix, areas, classes),
        "confusion": matrix.tolist(),
        "confused": _most_confused(matrix, classes),
        "predictions": [
            {"key": key, "true": classes[t], "predicted": classes[p], "probability": probability}
            for key, t, p, probability in sorted(rows)
        ],
    }
    if len(classes) >= _TOP5_CLASSES:
        result["video@5"] = metrics.topk_accuracy(probabilities, labels, 5)
    return result | {"map": float(np.nanmean(areas))}


def apply_threshold(predictions: Sequence[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """What becomes of eval.json's predictions where a highest probability below `threshold` is
    answered with "unknown".

    coverage: the share that is answered. accuracy_of_answered: of these, None where there is none.
    accuracy_of_all: the share of all that is answered right; unknown is not right.
    """
    answered = [row for row in predictions if row["probability"] >= threshold]
    num_right = sum(row["true"] == row["predicted"] for row in answered)
    return {
        "threshold": threshold,
        "answered": len(answered),
        "unknown": len(predictions) - len(answered),
        "coverage": len(answered) / len(predictions),
        "accuracy_of_answered": num_right / len(answered) if answered else None,
        "accuracy_of_all": num_right / len(predictions),
    }


def _per_class(
    matrix: NDArray[np.int64], areas: NDArray[np.float64], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """areas: average precision [K], nan for a class without a video."""
    figures = metrics.per_class(matrix)
    return [
        {
            "class": name,
            **{figure: values[k].item() for figure, values in figures.items()},
            "average_precision": None if np.isnan(areas[k]) else float(areas[k]),
        }
        for k, name in enumerate(classes)
    ]


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


def drop_top5(result: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without video@5 where that says nothing: earlier versions always wrote it."""
    keep = len(result["per_class"]) >= _TOP5_CLASSES
    return {name: value for name, value in result.items() if keep or name != "video@5"}


def _report_options(result: dict[str, Any]) -> str:
    """The options with which har-report takes this evaluation."""
    subset = "" if result["on"] == "test" else f" --subset {result['on']}"
    return subset + (f" --views {result['views']}" if result["views"] > 1 else "")


def describe_evaluation(result: dict[str, Any]) -> str:
    """The content of eval.json as lines for the terminal, the leak beside every accuracy."""
    split, leak = result["split"], leak_text(result["split"]["leak"])
    views = "1 clip a video" if result["views"] == 1 else f"up to {result['views']} views a video"
    low, high = result["interval"]
    epoch = "each fold" if "folds" in result else f"epoch {result['epoch']}"
    lines = [
        f"{result['model']}, {result['checkpoint']} of {epoch}, on {result['on']} "
        f"of split {split['name']} ({split['digest']}): {result['videos']} videos, {views}",
        f"  video@1              {result['video@1']:.4f}  {leak}  95% [{low:.4f}, {high:.4f}]",
    ]
    if "folds" in result:
        lines.append(f"  video@1 of the folds {describe_folds(result['folds'])}")
    names = {"video@5": "video@5", "clip@1": "clip@1", "mean_class_acc": "mean class accuracy",
             "map": "mAP"}  # fmt: skip
    there = ((text, result[name]) for name, text in names.items() if name in result)
    lines += [f"  {text:<19}  {value:.4f}  {leak}" for text, value in there]
    lines += [
        f"  loss                 {result['loss']:.4f}",
        f"  calibration (ECE)    {result['ece']:.4f}",
    ]
    if "threshold" in result:
        lines.append(f"  {_describe_threshold(result['threshold'])}  {leak}")
    if result["confused"]:
        pairs = [f"{c['true']} as {c['predicted']} ({c['count']})" for c in result["confused"][:3]]
        lines.append("  most confused        " + ", ".join(pairs))
    if "set_changes" in result:
        lines.append(f"the shards are not as the run was trained on: {result['set_changes']}")
    lines.append(
        "leak: share of these clips with a clip of the same group in the run's train subset"
    )
    if "folder" in result:
        folder = Path(result["run"], result["folder"])
        lines.append(f"written: {folder}, with the probabilities of every clip")
    if result["checkpoint"] == "best.pt":
        lines.append(f"next: har-report {quote(result['run'])}{_report_options(result)}")
    return "\n".join(lines)


def _describe_threshold(result: dict[str, Any]) -> str:
    """An answer of `apply_threshold` in words."""
    share = result["accuracy_of_answered"]
    of_answered = "none" if share is None else f"{share:.4f} of them right"
    return (
        f"threshold {result['threshold']:<9g}  coverage {result['coverage']:.4f} "
        f"({result['answered']} answered, {result['unknown']} unknown), {of_answered}, "
        f"{result['accuracy_of_all']:.4f} of all"
    )

"""Accuracy and its relatives: figures of finished predictions.

Plain numpy over whole arrays, so that it can be checked against any other tool. Averages are sums
divided once, never means of means. Letters: N rows (clips or videos), K classes.
"""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution: for intervals of 95 %

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def topk_accuracy(probabilities: Floats, labels: Ints, k: int = 1) -> float:
    """Share of rows [N,K] whose label is among the k most probable classes; nan for no row.

    Ties go to the lower class number, as argmax does.
    """
    if len(labels) == 0:
        return float("nan")
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]  # [N,k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(labels: Ints, predicted: Ints, classes: int) -> NDArray[np.int64]:
    """int64 [K,K], row = true class, column = predicted class, entry = number of rows."""
    flat = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: NDArray[np.int64]) -> dict[str, NDArray]:
    """Confusion [K,K] -> precision, recall, f1 (float64 [K]) and support (int64 [K]).

    A quotient with an empty denominator (class never predicted, never present) is 0, the
    convention of scikit-learn's zero_division=0.
    """
    hits, support, num_predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "precision": hits / np.maximum(num_predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + num_predicted, 1),
        "support": support,
    }


def mean_class_accuracy(matrix: NDArray[np.int64]) -> float:
    """Mean recall over the classes that occur; nan when none does."""
    present = matrix.sum(axis=1) > 0
    return float(per_class(matrix)["recall"][present].mean()) if present.any() else float("nan")


def precision_recall(scores: Floats, is_positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Precision and recall, float64 [S] each, of "it is of the class where the score is at least
    s", for the S distinct scores s of `scores` [N], the highest first; recall is nan where no row
    is positive."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_positive[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of equal scores
    total = hits[-1] or np.nan
    return hits[last] / (last + 1), hits[last] / total


def average_precision(scores: Floats, is_positive: NDArray[np.bool_]) -> float:
    """The area under the steps of the curve: precision at each score, weighted by the rise of
    recall there (scikit-learn's `average_precision_score`); nan where no row is positive."""
    precision, recall = precision_recall(scores, is_positive)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def class_average_precision(probabilities: Floats, labels: Ints) -> NDArray[np.float64]:
    """`average_precision` of each class against all others: [N,K], [N] -> [K]; nan for a class of
    which no row is."""
    classes = range(probabilities.shape[1])
    return np.array([average_precision(probabilities[:, k], labels == k) for k in classes])


def calibration_error(probabilities: Floats, labels: Ints, bins: int = 15) -> float:
    """Expected calibration error of the top class over equally wide bins (Guo et al. 2017, eq. 3).

    Sum over bins of (rows in the bin / N) * |accuracy - mean confidence|, in [0,1]; nan for N=0.
    """
    if len(labels) == 0:
        return float("nan")
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    bin_of_row = np.digitize(confidence, edges, right=True)  # [N], bins are (low, high]
    gap = np.bincount(bin_of_row, is_right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def wilson_interval(num_right: int, N: int) -> tuple[float, float]:
    """95 % score interval (Wilson 1927) of the share num_right / N; (nan, nan) for N=0.

    Videos count as independent; clips of one group are not quite, so the interval is a little
    narrow.
    """
    if N == 0:
        return float("nan"), float("nan")
    center, half = num_right + _Z**2 / 2, _Z * sqrt(num_right * (N - num_right) / N + _Z**2 / 4)
    return max(0.0, (center - half) / (N + _Z**2)), min(1.0, (center + half) / (N + _Z**2))


def average_views(
    probabilities: Floats, labels: Ints, videos: Ints
) -> tuple[NDArray[np.float64], Ints, Ints]:
    """Average the softmax of all clips of a video, equally weighted.

    probabilities [N,K], labels [N], videos [N] (any video numbers) -> probabilities float64 [V,K],
    labels [V], videos [V] in rising order. Raises ValueError when one video has two labels.
    """
    unique, first, video_of_row = np.unique(videos, return_index=True, return_inverse=True)
    if (labels[first][video_of_row] != labels).any():
        raise ValueError("the views of one video carry different labels: the index is damaged.")
    sums = np.zeros((len(unique), probabilities.shape[1]))
    np.add.at(sums, video_of_row, probabilities)
    return sums / np.bincount(video_of_row)[:, None], labels[first], unique

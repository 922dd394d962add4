"""Metrics against slow, obvious code (loops and fractions) and against scikit-learn."""

from statistics import NormalDist

import numpy as np
import pytest
import torch

from har.training.evaluation import Predictions, list_probabilities, metrics, summarize
from har.training.optim.metric_sums import MetricSums


def _random(n: int = 200, k: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(k) * 0.5, size=n)
    labels = np.where(
        random.random(n) < 0.5, probabilities.argmax(axis=1), random.integers(0, k, n)
    )
    return probabilities, labels


def test_running_without_a_clip_is_not_a_number_and_does_not_raise():
    result = MetricSums("cpu").compute()
    assert np.isnan(result["loss"])
    assert np.isnan(result["acc"])
    assert result["count"] == 0


def test_a_tie_goes_to_the_lower_class():
    even = np.full((1, 3), 1 / 3)
    assert metrics.topk_accuracy(even, np.array([0])) == 1.0
    assert metrics.topk_accuracy(even, np.array([2])) == 0.0
    assert metrics.topk_accuracy(even, np.array([2]), 99) == 1.0


def test_a_class_that_never_occurs_is_zero_and_not_in_the_class_mean():
    matrix = metrics.confusion(np.array([0, 0, 1]), np.array([0, 0, 0]), 4)
    figures = metrics.per_class(matrix)
    assert figures["precision"].tolist() == [2 / 3, 0, 0, 0]
    assert figures["f1"].tolist() == [0.8, 0, 0, 0]
    assert metrics.mean_class_accuracy(matrix) == 0.5


def test_certain_and_right_is_perfectly_calibrated_and_certain_and_wrong_is_not():
    certain = np.eye(3)
    assert metrics.calibration_error(certain, np.arange(3)) == 0.0
    assert metrics.calibration_error(certain, np.array([1, 2, 0])) == 1.0


@pytest.mark.parametrize("N", [1, 6, 48, 3783])
def test_wilson_interval_is_as_wilson_defines_it_and_no_point_where_all_or_none_is_right(N: int):
    z = NormalDist().inv_cdf(0.975)
    for num_right in {0, N // 3, N - 1, N}:
        low, high = metrics.wilson_interval(num_right, N)
        for end in (low, high):  # its distance to the share, in standard errors that `end` has
            distance = abs(num_right / N - end)
            assert distance == pytest.approx(z * (end * (1 - end) / N) ** 0.5, abs=1e-7)
        assert 0 <= low <= num_right / N <= high <= 1
        assert high - low > 1 / (N + 1)
    assert np.isnan(metrics.wilson_interval(0, 0)).all()


def test_views_of_a_video_are_averaged_whatever_their_order():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    averaged, labels, videos = metrics.average_views(
        probabilities, np.array([0, 1, 0]), np.array([8, 4, 8])
    )
    assert videos.tolist() == [4, 8]
    assert labels.tolist() == [1, 0]
    assert averaged == pytest.approx(np.array([[0.2, 0.8], [0.6, 0.4]]))


def test_two_labels_on_one_video_are_refused():
    with pytest.raises(ValueError, match="different labels"):
        metrics.average_views(np.eye(2), np.array([0, 1]), np.array([5, 5]))


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The definition, bin by bin."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for b in range(15):
        rows = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if rows.any():
            error += rows.mean() * abs(right[rows].mean() - confidence[rows].mean())
    return error


@pytest.mark.parametrize("seed", range(5))
def test_every_number_of_eval_json_equals_scikit_learns_on_random_data(seed):
    """Two clips a video; classes of which one never occurs and one is never said."""
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    N, K = int(random.integers(20, 400)), int(random.integers(6, 30))
    P = random.dirichlet(np.ones(K) * 0.3, size=(N, 2))  # [N,views,K]
    P[..., 1] = 0  # never said
    P /= P.sum(axis=-1, keepdims=True)
    labels, losses = random.integers(1, K, N), random.random(2 * N)  # 0 never occurs
    clip_labels, clips = labels.repeat(2), P.reshape(-1, K)
    kept = list_probabilities(
        Predictions(np.arange(2 * N), clips, clip_labels, losses),
        videos=np.arange(N).repeat(2),
        keys=[f"{n:04d}" for n in range(2 * N)],
        classes=[str(c) for c in range(K)],
    )
    found = summarize(kept, losses.mean())
    P, every = P.mean(axis=1), np.arange(K)
    said = P.argmax(axis=1)
    expected = {
        "clips": 2 * N,
        "videos": N,
        "loss": losses.mean(),
        "clip@1": sklearn.accuracy_score(clip_labels, clips.argmax(1)),
        "video@1": sklearn.accuracy_score(labels, said),
        "video@5": sklearn.top_k_accuracy_score(labels, P, k=5, labels=every),
        "mean_class_acc": sklearn.recall_score(
            labels, said, labels=np.unique(labels), average="macro"
        ),
        "ece": _calibration_error(P, labels),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["confusion"] == sklearn.confusion_matrix(labels, said, labels=every).tolist()
    columns = sklearn.precision_recall_fscore_support(labels, said, labels=every, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert [row[name] for row in found["per_class"]] == pytest.approx(values.tolist())
    areas = [sklearn.average_precision_score(labels == k, P[:, k]) for k in range(1, K)]
    found_areas = [row["average_precision"] for row in found["per_class"]]
    assert found_areas == [None, *map(pytest.approx, areas)]
    assert found["map"] == pytest.approx(np.mean(areas))
    assert [row["key"] for row in found["predictions"]] == [f"{2 * n:04d}" for n in range(N)]


@pytest.mark.parametrize("digits", [1, 2, 9])  # few: many equal scores
def test_curves_of_precision_and_recall_equal_scikit_learns(digits):
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(digits)
    scores, is_positive = random.random(200).round(digits), random.random(200) < 0.2
    precision, recall = metrics.precision_recall(scores, is_positive)
    expected = sklearn.precision_recall_curve(is_positive, scores)  # the lowest score first
    assert precision == pytest.approx(expected[0][-2::-1])
    assert recall == pytest.approx(expected[1][-2::-1])
    area = metrics.average_precision(scores, is_positive)
    assert area == pytest.approx(sklearn.average_precision_score(is_positive, scores))
    assert np.isnan(metrics.average_precision(scores, np.zeros(200, bool)))


def test_the_running_loss_and_accuracy_of_two_ranks_equal_scikit_learns():
    """The last batch is a short one: sums are divided once, so batches weigh by their clips."""
    sklearn = pytest.importorskip("sklearn.metrics")
    P, labels = _random(301)
    losses = torch.from_numpy(-np.log(P[np.arange(len(P)), labels])).requires_grad_()
    hits = torch.from_numpy(P.argmax(axis=1) == labels)
    ranks = [MetricSums("cpu"), MetricSums("cpu")]
    for number, start in enumerate(range(0, 301, 32)):
        part = slice(start, start + 32)
        running = ranks[number % 2]
        running.update(losses[part].sum(), hits[part].sum(), torch.tensor(len(hits[part])))
    ranks[0].sums.add_(ranks[1].sums)
    assert ranks[0].sums.dtype == torch.float64
    assert not ranks[0].sums.requires_grad
    found = ranks[0].compute()
    assert found["loss"] == pytest.approx(sklearn.log_loss(labels, P, labels=np.arange(7)))
    assert found["acc"] == pytest.approx(sklearn.accuracy_score(labels, P.argmax(axis=1)))
    assert found["count"] == 301

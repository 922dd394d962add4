"""Every number of an evaluation, recomputed by scikit-learn (extra `dev`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_shards import make_run, make_shards

from har.training.evaluation import Predictions, evaluate, evaluate_run

metrics = pytest.importorskip("sklearn.metrics")
SEVEN = tuple(f"Class{letter}" for letter in "ABCDEFG")


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """eval.json of an untrained network on noise, and the probabilities it was made from."""
    kept: dict[str, np.ndarray] = {}
    summarize = evaluate.summarize

    def keep(predictions: Predictions, **more: Any) -> dict[str, Any]:
        kept.update(P=predictions.probabilities, labels=predictions.labels, videos=more["videos"])
        return summarize(predictions, **more)

    monkeypatch.setattr(evaluate, "summarize", keep)
    clips = make_shards(tmp_path / "shards", classes=SEVEN, views=2)
    run = make_run(tmp_path / "run", clips)
    evaluate_run(run, views=2, subset="train")
    return json.loads((run / "eval-train.json").read_text()), kept


def _by_video(kept: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities and label of each video."""
    order = sorted(set(kept["videos"].tolist()))
    rows = [kept["videos"] == video for video in order]
    P = np.stack([kept["P"][row].astype(float).mean(0) for row in rows])
    return P, np.array([kept["labels"][row][0] for row in rows])


def test_accuracies_and_loss_are_scikit_learns(evaluated: tuple):
    found, kept = evaluated
    P, labels = _by_video(kept)
    numbers = range(len(SEVEN))
    said = P.argmax(1)
    assert found["videos"] == len(labels)
    assert found["clips"] == 2 * len(labels)
    assert found["video@1"] == pytest.approx(metrics.accuracy_score(labels, said))
    top5 = metrics.top_k_accuracy_score(labels, P, k=5, labels=list(numbers))
    assert found["video@5"] == pytest.approx(top5)
    clip1 = metrics.accuracy_score(kept["labels"], kept["P"].argmax(1))
    assert found["clip@1"] == pytest.approx(clip1)
    assert found["mean_class_acc"] == pytest.approx(metrics.balanced_accuracy_score(labels, said))
    scaled = kept["P"].astype(float) / kept["P"].astype(float).sum(1, keepdims=True)
    loss = metrics.log_loss(kept["labels"], scaled, labels=list(numbers))
    assert found["loss"] == pytest.approx(loss, abs=1e-5)


def test_classes_confusion_and_calibration_are_recomputed(evaluated: tuple):
    found, kept = evaluated
    P, labels = _by_video(kept)
    said = P.argmax(1)
    matrix = metrics.confusion_matrix(labels, said, labels=range(len(SEVEN)))
    assert found["confusion"] == matrix.tolist()
    columns = metrics.precision_recall_fscore_support(
        labels, said, labels=range(len(SEVEN)), zero_division=0
    )
    for row, *values in zip(found["per_class"], *columns, strict=True):
        assert [row[k] for k in ("precision", "recall", "f1")] == pytest.approx(values[:3])
        assert row["class"] in SEVEN
    sure, ece = P.max(1), 0.0
    for low in np.linspace(0, 1, 16)[:-1]:
        inside = (sure > low) & (sure <= low + 1 / 15)
        if inside.any():
            ece += inside.mean() * abs((said == labels)[inside].mean() - sure[inside].mean())
    assert found["ece"] == pytest.approx(ece, abs=1e-6)

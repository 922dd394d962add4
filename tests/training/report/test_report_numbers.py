"""Every number of an evaluation and of the report, recomputed by code that is not ours.

scikit-learn (extra `dev`) counts again from the predictions; the paper's own table is parsed from
`fixtures/paper_table1.txt`, the passage as it stands in the paper's text.
"""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import make
from made_shards import make_run, make_shards

from har.training.evaluation import evaluate, scores
from har.training.plots import style
from har.training.report import write_report
from har.training.report.tables import PAPER_TABLE1, TABLE1_COLUMNS

metrics = pytest.importorskip("sklearn.metrics")
FIXTURE = Path(__file__).parent / "fixtures" / "paper_table1.txt"
SEVEN = tuple(f"Class{letter}" for letter in "ABCDEFG")


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 40)


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """eval.json of an untrained network on noise, and the probabilities it was made from."""
    kept: dict[str, np.ndarray] = {}
    summarise = scores.summarise

    def keep(predictions: scores.Predictions, **more: Any) -> dict[str, Any]:
        kept.update(P=predictions.probabilities, labels=predictions.labels, videos=more["videos"])
        return summarise(predictions, **more)

    monkeypatch.setattr(scores, "summarise", keep)
    clips = make_shards(tmp_path / "shards", classes=SEVEN, views=2)
    run = make_run(tmp_path / "run", clips)
    evaluate.run(run, views=2, on="train")
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


def test_the_test_table_is_recomputed_from_the_predictions(tmp_path: Path):
    runs = [make(tmp_path / model, model) for model in ("r3d", "convlstm")]
    write_report(runs, tmp_path / "out")
    with open(tmp_path / "out" / "test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for folder, row in zip(runs, rows, strict=True):
        said = json.loads((folder / "eval.json").read_text())["predictions"]
        true, predicted = ([one[k] for one in said] for k in ("true", "predicted"))
        accuracy = metrics.accuracy_score(true, predicted)
        assert row["Video@1"] == f"{accuracy:.4f}"
        assert row["Mean class acc"] == f"{metrics.balanced_accuracy_score(true, predicted):.4f}"
        low, high = (float(end) for end in row["95 % interval"].split(" to "))
        # the normal approximation, near enough to the bootstrap over 60 videos
        half = 1.96 * (accuracy * (1 - accuracy) / len(said)) ** 0.5
        assert low == pytest.approx(accuracy - half, abs=0.03)
        assert high == pytest.approx(min(1, accuracy + half), abs=0.03)


def test_the_papers_table_in_the_code_is_the_one_in_the_paper():
    lines = [line.split("\t") for line in FIXTURE.read_text().splitlines() if "\t" in line]
    assert lines[0] == list(TABLE1_COLUMNS)
    assert len(lines) == 5
    for line, row in zip(lines[1:], PAPER_TABLE1, strict=True):
        cells = row.cells()
        assert cells[0].lower() == line[0].lower()  # the paper writes Resnet3d, ConvLstm there
        assert cells[1:] == line[1:]  # the average, which is computed, too
        numbers = [float(value) for value in line[1:]]
        assert statistics.mean((numbers[1], numbers[3], numbers[4])) == pytest.approx(
            numbers[5], abs=5e-5
        )

"""`har-report --ensemble`, curves of precision over recall, and which evaluation a report takes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_runs import CLASSES, SPLIT, make
from PIL import Image

from har.training.cli.results import report_main
from har.training.evaluation import load_probabilities
from har.training.plots import plot_precision_recall, style
from har.training.report import ReportError, load_runs, write_report


def make_two(root: Path, **changes: Any) -> list[Path]:
    """Two runs with probabilities; `changes` to the evaluation of the second."""
    models = ("r3d", "convlstm")
    runs = [make(root / model, model, right=0.6, with_probabilities=True) for model in models]
    path = runs[1] / "eval.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return runs


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_an_ensemble_is_a_row_of_the_mean_probabilities(tmp_path: Path):
    sklearn = pytest.importorskip("sklearn.metrics")
    runs = make_two(tmp_path, views=3)  # they may differ
    told = CliRunner().invoke(
        report_main, [*map(str, runs), "--ensemble", "-o", str(tmp_path / "out")]
    )
    assert told.exit_code == 0, told.output
    kept = [load_probabilities(run / "probabilities.npz") for run in runs]
    orders = [np.argsort(one.key) for one in kept]
    pairs = zip(kept, orders, strict=True)
    P = np.mean([one.probabilities[order] for one, order in pairs], axis=0)
    labels = kept[0].label[orders[0]]
    rows = read_csv(tmp_path / "out" / "test.csv")
    assert [row["Model"] for row in rows] == ["R3D", "ConvLSTM", "Ensemble of 2 runs"]
    row = rows[2]
    assert row["Video@1"] == f"{sklearn.accuracy_score(labels, P.argmax(1)):.4f}"
    assert float(row["Video@1"]) > max(float(one["Video@1"]) for one in rows[:2]) - 0.5
    areas = [sklearn.average_precision_score(labels == k, P[:, k]) for k in range(3)]
    assert row["mAP"] == f"{np.mean(areas):.4f}"
    assert (row["Views"], row["Clip@1"]) == ("1, 3", "-")
    result = json.loads((tmp_path / "out" / "ensemble.json").read_text())
    assert result["ensemble_of"] == ["R3D", "ConvLSTM"]
    assert f"{result['video@1']:.4f}" == row["Video@1"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Ensemble of 2 runs: of the mean of the probabilities of R3D, ConvLSTM." in text
    assert "views: rows do not compare" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"manifest_digest": "f" * 64}, "shard set"),
        ({"split": {**SPLIT, "digest": "f" * 16}}, "split"),
        ({"on": "val"}, "subset"),
    ],
)
def test_runs_tested_on_other_clips_are_not_averaged(tmp_path: Path, change: dict, message: str):
    runs = make_two(tmp_path, **change)
    more: dict[str, Any] = {"subset": None}
    if "on" in change:
        path = runs[1] / "summary.json"
        split = {**SPLIT, "clips": {"train": 9, "val": 9, "test": 0}}
        path.write_text(json.dumps({**json.loads(path.read_text()), "split": split}))
    with pytest.raises(
        ReportError, match=f"--ensemble cannot average .*convlstm and .*r3d.* differ in {message} "
    ):
        write_report(runs, tmp_path / "out", ensemble=True, allow_mixed=True, **more)
    assert not (tmp_path / "out").exists()


def test_an_ensemble_needs_several_runs_with_probabilities(tmp_path: Path):
    one, two = make_two(tmp_path)
    with pytest.raises(ReportError, match="--ensemble averages several runs and there is one"):
        write_report([one], tmp_path / "out", ensemble=True)
    (two / "probabilities.npz").unlink()
    with pytest.raises(
        ReportError, match=r"kept no probabilities: run 'har-eval .*convlstm' again"
    ):
        write_report([one, two], tmp_path / "out", ensemble=True)


def test_a_report_takes_the_evaluation_of_best_pt_on_the_runs_own_shards(tmp_path: Path):
    run = make(tmp_path / "a", "r3d")
    result = json.loads((run / "eval.json").read_text())
    for name, changes in {
        "grouped-test-1view": {"video@1": 0.5, "manifest_digest": "ab" * 32},
        "grouped-test-1view-last": {"checkpoint": "last.pt", "video@1": 0.25},
        "grouped-test-1view-shards-ffffffff": {"manifest_digest": "f" * 64, "video@1": 0.125},
    }.items():
        path = run / "eval" / name / "eval.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**result, **changes}))
    assert load_runs([run])[0].evaluation["video@1"] == 0.5


# ------------------------------------------------------------------ precision over recall


def test_the_report_has_a_panel_a_class_and_the_areas(four: tuple[list[Path], Path]):
    rows = read_csv(four[1] / "average_precision.csv")
    assert [row["Class"] for row in rows] == CLASSES
    tests = {row["Model"]: row for row in read_csv(four[1] / "test.csv")}
    for label in ("R3D", "R2Plus1D", "ResNet3D", "ConvLSTM"):
        mean = np.mean([float(row[label]) for row in rows])
        assert tests[label]["mAP"] == f"{mean:.4f}"
    assert "Video@5" not in tests["R3D"]  # three classes
    assert "![A small panel for each of 3 classes" in (four[1] / "report.md").read_text()


def test_a_hundred_classes_stay_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The picture grows with them instead of shrinking its text; no two panels overlap."""
    monkeypatch.setattr(style, "DPI", 100)
    random = np.random.default_rng(0)
    names = [f"HandstandPushups{n}" for n in range(101)]
    areas = {"R3D": random.random(101).tolist(), "ConvLSTM": random.random(101).tolist()}
    areas["R3D"][5] = areas["ConvLSTM"][5] = float("nan")
    recall = np.linspace(0.1, 1, 10)
    curves = {label: [(1 - recall / 2, recall)] * 101 for label in areas}
    path = tmp_path / "pr.png"
    plot_precision_recall(path, names, curves, areas, ["r3d", "convlstm"])
    with Image.open(path) as picture:
        assert picture.width >= 700
        assert picture.height >= 17 * 110  # rows of six

"""`har-report --ensemble`, curves of precision over recall, and which evaluation a report takes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_runs import CLASSES, SPLIT, change_json, make, read_csv

from har.training.cli.results import report_main
from har.training.evaluation import load_probabilities
from har.training.report import ReportError, write_report

pytestmark = pytest.mark.usefixtures("unrendered")


def make_two(root: Path, **changes: Any) -> list[Path]:
    """Two runs with probabilities; `changes` to the evaluation of the second."""
    models = ("r3d", "convlstm")
    runs = [make(root / model, model, right=0.6, with_probabilities=True) for model in models]
    change_json(runs[1] / "eval.json", **changes)
    return runs


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
    assert "Ensemble of 2 runs: of the mean of the probabilities of R3D; ConvLSTM." in text
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
    if "on" in change:
        split = {**SPLIT, "clips": {"train": 9, "val": 9, "test": 0}}
        change_json(runs[1] / "summary.json", split=split)
    with pytest.raises(
        ReportError, match=f"--ensemble cannot average .*convlstm and .*r3d.* differ in {message} "
    ):
        write_report(runs, tmp_path / "out", ensemble=True, allow_mixed=True)
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

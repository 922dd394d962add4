"""Which runs are one row of a report, how rows are called, which evaluation of a run is taken."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import SPLIT, best_line, change_json, make, read_csv
from tiny_train import metrics_of

from har.training.evaluation import FoldError, metrics
from har.training.report import ReportError, load_runs, write_report

pytestmark = pytest.mark.usefixtures("unrendered")


def make_folds(root: Path, folds: tuple[int, ...], num_folds: int, **settings: Any) -> list[Path]:
    """Runs of these folds, tested on different videos."""
    runs = []
    for fold in folds:
        split = {**SPLIT, "name": f"fold-{fold}/{num_folds}", "digest": f"{fold:016x}"}
        folder = root / f"fold-{fold}"
        settings |= {"with_probabilities": True, "clip": fold}
        runs.append(make(folder, "r3d", split=split, **settings))
    return runs


# ------------------------------------------------------------------ folds


def test_folds_are_one_row_with_the_figures_of_all_their_videos(tmp_path: Path):
    shares = (0.9, 0.6, 0.8)
    runs = [
        make_folds(tmp_path, (n,), 3, right=share, seed=7)[0] for n, share in enumerate(shares, 1)
    ]
    for share, run in zip(shares, runs, strict=True):  # as --eval-train leaves it
        change_json(run / "summary.json", best_train_acc=share / 2)
    (tmp_path / "folds.json").write_text('{"folds": 3, "config": {}}')
    text = write_report([tmp_path], tmp_path / "out").read_text()
    (row,) = read_csv(tmp_path / "out" / "table1.csv")
    assert row["Model"] == "R3D (3 folds)"
    assert row["Train Acc"] == f"{statistics.mean(shares) / 2:.4f}"
    results = [json.loads((run / "eval.json").read_text()) for run in runs]
    rows = [one for result in results for one in result["predictions"]]
    right = np.array([one["true"] == one["predicted"] for one in rows])
    assert len(right) == 180
    assert row["Test Acc"] == f"{right.mean():.4f}"
    for column, name in (("Train Loss", "train_loss"), ("Val Acc", "val_acc")):
        mean = statistics.mean(best_line(run)[name] for run in runs)
        assert row[column] == f"{mean:.4f}"
    (folds,) = read_csv(tmp_path / "out" / "folds.csv")
    low, high = metrics.wilson_interval(right.sum(), 180)
    assert folds["95 % interval"] == f"{low:.4f} to {high:.4f}"
    single = [result["video@1"] for result in results]
    spread = f"mean {statistics.mean(single):.4f} ± {statistics.stdev(single):.4f}"
    assert folds["Of the folds"] == f"{min(single):.4f} to {max(single):.4f}, {spread}"
    assert (folds["Folds"], folds["Videos"]) == ("3 of 3", "180")
    (test,) = read_csv(tmp_path / "out" / "test.csv")
    assert (test["Video@1"], test["Split"]) == (f"{right.mean():.4f}", "3 folds")
    (cost,) = read_csv(tmp_path / "out" / "cost.csv")
    assert cost["Epochs"] == "12 + 12 + 12"
    assert cost["Time"] == "12.0 min"  # three times four
    for run in runs:  # where each figure comes from
        assert f"`{run}` | `eval.json`" in text
    assert "not every video" not in text


def test_missing_folds_are_said(tmp_path: Path):
    make_folds(tmp_path, (1, 3, 5), 5)
    (tmp_path / "fold-3" / "summary.json").unlink()  # still in training
    make(tmp_path / "fold-2", "r3d")
    change_json(tmp_path / "fold-2" / "summary.json", best_epoch=0)
    (tmp_path / "folds.json").write_text('{"folds": 5, "config": {}}')
    text = write_report([tmp_path], tmp_path / "out").read_text()
    assert "R3D (2 of 5 folds): not every video was tested, as fold 2, 3, 4 is missing;" in text
    assert f"har-train --resume {tmp_path}" in text


def test_folds_by_hand_are_one_row_and_only_where_they_differ_in_nothing_else(tmp_path: Path):
    runs = make_folds(tmp_path / "a", (1, 2), 2)
    assert [run.label for run in load_runs(runs)] == ["R3D (2 folds)"]
    others = make_folds(tmp_path / "b", (1, 2), 2, lr=0.5)
    assert [run.label for run in load_runs([*runs, *others])] == [
        "R3D (2 folds), lr none", "R3D (2 folds), lr 0.5",
    ]  # fmt: skip
    with pytest.raises(ReportError, match="are not comparable, they differ in split"):
        load_runs([*runs, others[0]])
    twice = make_folds(tmp_path / "c", (1,), 2)
    with pytest.raises(FoldError, match="tested in two folds"):
        load_runs([*runs, *twice])
    (runs[1] / "probabilities.npz").unlink()
    with pytest.raises(
        ReportError, match=rf"kept no probabilities: run 'har-eval {runs[1]}' again"
    ):
        load_runs(runs)


def test_a_folder_without_a_finished_fold_says_what_goes_on(tmp_path: Path):
    (tmp_path / "folds.json").write_text('{"folds": 5, "config": {}}')
    with pytest.raises(ValueError, match=r"no fold of .* is finished: 'har-train --resume"):
        load_runs([tmp_path])


# ------------------------------------------------------------------ missing subsets


def test_a_run_without_val_has_no_val_figures(tmp_path: Path):
    run = make(tmp_path / "a", "r3d")
    lines = [{**line, "val_loss": None, "val_acc": None} for line in metrics_of(run)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    change_json(run / "summary.json", best_val_acc=None)
    write_report([run], tmp_path / "out")
    for name in ("table1.csv", "table1_over_epochs.csv"):
        (row,) = read_csv(tmp_path / "out" / name)
        assert (row["Val Loss"], row["Val Acc"], row["Avg Acc"]) == ("-", "-", "-")
        assert float(row["Test Acc"]) > 0.5


def test_a_run_without_test_clips_is_reported_on_val_and_that_is_said(tmp_path: Path):
    split = {**SPLIT, "clips": {"train": 60, "val": 60, "test": 0}}
    run = make(tmp_path / "a", "r3d", split=split)
    with pytest.raises(ReportError, match=r"no evaluation on val \(it has eval\.json\): run"):
        load_runs([run])
    change_json(run / "eval.json", on="val")
    (run / "eval.json").rename(run / "eval-val.json")
    text = write_report([run], tmp_path / "out").read_text()
    assert "R3D: the figures named test are of the val subset" in text
    assert "## The val subset in detail" in text


# ------------------------------------------------------------------ which evaluation


def test_the_evaluation_that_is_asked_for_is_taken_and_named(tmp_path: Path):
    run = make(tmp_path / "a", "r3d")
    result = json.loads((run / "eval.json").read_text())
    other = {**SPLIT, "name": "paper", "digest": "f" * 16}
    for name, changes in {
        "grouped-test-3views": {"views": 3, "video@1": 0.25},
        "grouped-val-1view": {"on": "val", "video@1": 0.5},
        "paper-test-1view-ffffffff": {"split": other, "video@1": 1.0},
        "grouped-test-1view-last": {"checkpoint": "last.pt", "video@1": 1.0},
        "grouped-test-1view-shards-ffffffff": {"manifest_digest": "f" * 64, "video@1": 1.0},
        "grouped-test-1view": {"video@1": 0.75},  # newer than RUN/eval.json
    }.items():
        path = run / "eval" / name / "eval.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**result, **changes}))
    asked = [{}, {"views": 3}, {"subset": "val"}]
    figures = [load_runs([run], **options)[0].evaluation["video@1"] for options in asked]
    assert figures == [0.75, 0.25, 0.5]
    text = write_report([run], tmp_path / "out", views=3).read_text()
    assert "`eval/grouped-test-3views/eval.json`" in text
    with pytest.raises(ReportError, match=r"no evaluation on test of 5 views .*--views 5' first"):
        load_runs([run], views=5)


# ------------------------------------------------------------------ seeds and settings


def test_runs_are_one_row_only_where_the_seed_alone_differs(tmp_path: Path):
    settings: dict[str, dict[str, Any]] = {
        "a": {}, "b": {"seed": 1}, "c": {"lr": 0.1}, "d": {"lr": 0.1, "seed": 1, "workers": 7},
    }  # fmt: skip
    runs = [make(tmp_path / name, "resnet3d", **more) for name, more in settings.items()]
    labels = [run.label for run in load_runs(runs)]
    assert labels == [
        f"ResNet3D, lr {lr}, seed {seed}" for lr in ("none", "0.1") for seed in (0, 1)
    ]
    write_report(runs, tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "table1_seeds.csv")
    assert [row["Model"] for row in rows] == [
        "ResNet3D, lr none (2 runs)", "ResNet3D, lr 0.1 (2 runs)",
    ]  # fmt: skip
    for row, pair in zip(rows, (runs[:2], runs[2:]), strict=True):
        losses = [best_line(run)["train_loss"] for run in pair]
        mean, deviation = statistics.mean(losses), statistics.stdev(losses)
        assert row["Train Loss"] == f"{mean:.4f} ± {deviation:.4f}"


def test_a_preset_is_named_instead_of_all_that_it_changes(tmp_path: Path):
    modern = {"preset": "modern", "optimizer": "adamw", "weight_decay": 0.05, "ema_decay": 0.9}
    runs = [make(tmp_path / "a", "r3d"), make(tmp_path / "b", "r3d", **modern)]
    labels = [run.label for run in load_runs(runs)]
    assert labels == ["R3D, preset paper, ema_decay 0", "R3D, preset modern, ema_decay 0.9"]


def test_runs_of_other_shard_sets_are_refused_with_both_named(tmp_path: Path):
    runs = [make(tmp_path / "a", "r3d", manifest_digest="1" * 64),
            make(tmp_path / "b", "convlstm", manifest_digest="2" * 64)]  # fmt: skip
    with pytest.raises(ReportError, match=f"shard set .manifests {'2' * 16} and {'1' * 16}.: "):
        load_runs(runs)
    assert len(load_runs(runs, allow_mixed=True)) == 2

"""Sets whose splits lack a subset or classes: what is trained, what is said, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_shards import make_shards
from tiny_train import har_eval, har_train, message, metrics_of, train

from har.shards import splits
from har.shards.format import load_manifest
from har.training import loop
from har.training.runtime import checkpoint

TRAIN, VAL, TEST = 1, 2, 3


def make_set(root, side):
    """side: (class, group) -> number of the subset."""
    return make_shards(root, side=lambda key: side(*_parse(key))).root


def _parse(key):
    _, name, group, _ = key.split("_")
    return name, int(group[1:])


def kinetics(_, group):
    return VAL if group == 5 else TRAIN


def without_val(_, group):
    return TEST if group == 5 else TRAIN


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "set", tmp_path / "run"


def test_a_set_with_train_and_val_only_is_trained_and_evaluated_on_val(folders):
    shards, out = make_set(folders[0], kinetics), folders[1]
    result = train(shards, out, "--split", "csv")
    assert result.exit_code == 0, result.output
    assert "24 train, 6 val, 0 test clips, nothing to test on" in message(result)
    assert "warning: no test clips" in result.output
    assert f"next: har-eval {out} --subset val" in result.output
    refused = har_eval(out)
    assert refused.exit_code == 2
    assert f"split csv has no test clip of {shards}: give --subset val." in message(refused)
    assert har_eval(out, "--subset", "val").exit_code == 0


def test_without_val_the_last_epoch_is_kept_and_that_is_said(folders):
    shards, out = make_set(folders[0], without_val), folders[1]
    # with patience 1 and an improvement that no loss can show, a val subset would end it at epoch 2
    strict = ("--patience", 1, "--epsilon-increment", 99, "--epochs", 3)
    result = train(shards, out, "--split", "csv", *strict)
    assert result.exit_code == 0, result.output
    assert "without val clips the last epoch is kept as the best, patience is off" in result.output
    assert "'--val-from-train 0.1' holds out a tenth of train" in message(result)
    assert "best epoch 3, the last, no val clips" in result.output
    assert [(line["val_loss"], line["val_acc"]) for line in metrics_of(out)] == [(None, None)] * 3
    assert checkpoint.load(out / "best.pt")["epoch"] == 3
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["best_epoch"], summary["best_val_acc"]) == (3, None)
    assert har_train("--resume", out, "--epochs", 4).exit_code == 0
    assert checkpoint.load(out / "best.pt")["epoch"] == 4
    assert har_eval(out).exit_code == 0


@pytest.mark.parametrize(("losses", "factor"), [((3.0, 2.0), 1), ((2.0, 3.0), 0.1)])
def test_without_val_the_plateau_rule_follows_the_training_loss(
    folders, monkeypatch, losses, factor
):
    shards, out = make_set(folders[0], without_val), folders[1]
    real = loop.train_epoch

    def train_epoch(state, watch):
        line = real(state, watch)
        return {**line, "train_loss": losses[line["epoch"] - 1]}

    monkeypatch.setattr(loop, "train_epoch", train_epoch)
    train(shards, out, "--split", "csv", "--plateau-patience", 0, "--lr", 0.01)
    optimizer = checkpoint.load(out / "last.pt")["optimizer"]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(0.01 * factor)


def test_val_can_be_held_out_of_train_by_group(folders):
    shards, out = make_set(folders[0], without_val), folders[1]
    result = train(shards, out, "--split", "csv", "--val-from-train", 0.25)
    assert result.exit_code == 0, result.output
    assert "18 train, 6 val, 6 test clips" in result.output
    assert all(line["val_acc"] is not None for line in metrics_of(out))
    assert har_eval(out).exit_code == 0  # on the split that it was trained on
    evaluation = json.loads(next(out.glob("eval/*/eval.json")).read_text())
    assert evaluation["split"]["clips"] == {"train": 18, "val": 6, "test": 6}
    refused = train(shards, out.parent / "b", "--val-from-train", 0.25)
    assert "has 6 val clips: leave it out" in message(refused)
    assert refused.exit_code == 2


def test_classes_that_a_subset_lacks_are_said_and_one_class_alone_is_refused(folders):
    shards = make_set(
        folders[0], lambda name, group: TEST if name == "YoYo" else without_val(name, group)
    )
    result = train(shards, folders[1], "--split", "csv", "--epochs", 1)
    assert (
        "warning: no train clip of 1 of 3 classes, which cannot be learned: YoYo" in result.output
    )
    assert result.exit_code == 0
    shards = make_set(folders[0].parent / "one", lambda name, _: TRAIN if name == "Wave" else VAL)
    result = train(shards, folders[1].parent / "other", "--split", "csv")
    assert result.exit_code == 2
    assert "all 10 train clips of split 'csv'" in message(result)
    assert "are of class 'Wave', so there is nothing to learn" in message(result)
    assert not (folders[1].parent / "other").exists()


def test_a_run_whose_split_is_cut_otherwise_today_is_told_so(shards, trained, tmp_path):
    """As runs of earlier versions, where groups span classes."""
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    for name in ("best.pt", "last.pt"):
        state = checkpoint.load(out / name)
        state["split"]["digest"] = "0123456789abcdef"
        checkpoint.save(state, out / name)
    digest = splits.make_split(load_manifest(shards), "grouped").digest
    for refused in (har_eval(out), har_train("--resume", out)):
        assert refused.exit_code == 2
        assert f"otherwise (0123456789abcdef, now {digest}): where groups span" in message(refused)
    assert har_eval(out, "--allow-other-split").exit_code == 0
    assert np.isfinite(json.loads(next(out.glob("eval/*/eval.json")).read_text())["loss"])

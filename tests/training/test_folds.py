"""har-train --folds: K runs one after another, stopped and gone on with, and refused."""

import json
import re
import shutil
import signal

import numpy as np
import pytest
from tiny_train import har_eval, har_train, message, run_command, stop_after, train

from har.shards import splits
from har.shards.format import load_manifest
from har.training import loop
from har.training.cli.results import predict_main, report_main
from har.training.evaluation import join_probabilities, load_probabilities
from har.training.evaluation.metrics import class_average_precision
from har.training.runtime import checkpoint


def summaries(out):
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/summary.json")}


@pytest.fixture(scope="module")
def folded(shards, tmp_path_factory):
    """Three folds of one epoch each."""
    out = tmp_path_factory.mktemp("folded") / "run"
    result = train(shards, out, "--folds", 3, "--epochs", 1)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_every_fold_is_a_run_of_its_own_and_every_clip_is_tested_once(shards, folded):
    out, output = folded
    assert sorted(path.name for path in out.iterdir()) == [
        "fold-1",
        "fold-2",
        "fold-3",
        "folds.json",
    ]
    manifest = load_manifest(shards)
    made = [splits.make_split(manifest, f"fold-{n}/3") for n in (1, 2, 3)]
    digests = {name: summary["split"]["digest"] for name, summary in summaries(out).items()}
    assert digests == {f"fold-{n}": split.digest for n, split in enumerate(made, 1)}
    assert sorted(np.concatenate([split.test for split in made])) == list(range(30))
    for n in (1, 2, 3):
        assert f"fold {n} of 3, {out}/fold-{n}" in output
        assert checkpoint.load(out / f"fold-{n}" / "best.pt")["config"]["split"] == f"fold-{n}/3"
    assert output.splitlines()[-1] == f"all 3 folds are trained; next: har-eval {out}"
    assert "next: har-eval {out}/fold-1" not in output


def test_a_stopped_training_goes_on_in_its_fold_and_ends_alike(
    shards, folded, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)  # each fold has three steps
        result = train(shards, out, "--folds", 3, "--epochs", 1)
    assert result.exit_code == 128 + signal.SIGTERM
    assert f"next: har-train --resume {out}" in result.output
    assert list(summaries(out)) == ["fold-1"]
    refused = train(shards, out, "--folds", 3)
    assert f"or go on with --resume {out}; nothing was written" in message(refused)
    before = (out / "fold-1" / "best.pt").stat().st_mtime_ns
    result = har_train("--resume", out, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "fold 1 of 3" not in result.output
    assert "going on from epoch 1, step 1" in result.output
    assert (out / "fold-1" / "best.pt").stat().st_mtime_ns == before
    for name in ("fold-2", "fold-3"):
        ours, theirs = (checkpoint.load(folder / name / "best.pt") for folder in (out, folded[0]))
        for key, value in theirs["model"].items():
            np.testing.assert_allclose(ours["model"][key], value, rtol=1e-4, atol=1e-6)
        assert (ours["config"]["workers"], theirs["config"]["workers"]) == (1, 2)


def test_folds_that_a_process_trains_are_left_alone_by_another(shards, tmp_path, monkeypatch):
    out, train_step, refusals = tmp_path / "run", loop.train_step, []

    def step(*arguments):
        refusals.append(har_train("--resume", out, "--epochs", 9))
        return train_step(*arguments)

    monkeypatch.setattr(loop, "train_step", step)
    assert train(shards, out, "--folds", 2, "--epochs", 1).exit_code == 0
    assert {result.exit_code for result in refusals} == {2}
    assert f"another process trains in the run folder {out}" in message(refusals[0])
    assert json.loads((out / "folds.json").read_text())["config"]["epochs"] == 1


def test_finished_folds_have_nothing_to_go_on_with(folded):
    result = har_train("--resume", folded[0])
    assert (result.exit_code, result.output.count("fold ")) == (0, 0)


def test_finished_folds_are_trained_longer_when_given_more_epochs(folded, tmp_path):
    out = shutil.copytree(folded[0], tmp_path / "run")
    result = har_train("--resume", out, "--epochs", 2)
    assert result.exit_code == 0, result.output
    assert result.output.count("going on from epoch 2, step 0") == 3
    assert {summary["epochs"] for summary in summaries(out).values()} == {2}
    assert har_train("--resume", out).output.count("fold ") == 0  # folds.json keeps the 2
    refused = har_train("--resume", out, "--epochs", 1)
    assert "--epochs 1 is less than the 2 epochs" in message(refused)


def test_har_eval_and_har_report_take_the_folder_of_the_folds(folded, tmp_path):
    out = folded[0]
    result = har_eval(out, "--threshold", 0.5)
    assert result.exit_code == 0, result.output
    kept = join_probabilities(
        [load_probabilities(path) for path in out.glob("fold-?/eval/*/probabilities.npz")]
    )
    areas = class_average_precision(kept.probabilities, kept.label)
    assert f"mAP                  {np.mean(areas):.4f}" in result.output
    assert re.search(r"threshold 0.5 .* \((\d+) answered, (\d+) unknown\)", result.output)
    lines = result.output.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [f"{out}/fold-{n}" for n in (1, 2, 3)]
    assert "best.pt of each fold, on test of split 3 folds (" in lines[3]
    assert "): 30 videos, 1 clip a video" in lines[3]
    assert lines[-1] == f"next: har-report {out}"
    reported = run_command(report_main, out, "-o", tmp_path, "--cards")
    assert reported.exit_code == 0, reported.output
    assert reported.output.count("card: ") == 3
    assert "| ResNet3D (3 folds) |" in (tmp_path / "report.md").read_text()
    on_val = har_eval(out, "--subset", "val")  # val clips of folds overlap: not pooled
    assert "video@1 of the folds" in on_val.output.splitlines()[-1]
    refused = run_command(report_main, out, "-o", tmp_path, "--subset", "val")
    assert "one row on their test clips only: leave out --subset val" in message(refused)
    refused = run_command(predict_main, out, "x.avi")
    assert "holds the runs of several folds: give one of them" in message(refused)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--folds", 16], "16 folds need as many groups and"),
        (["--folds", 1], "'--folds': 1 is not in the range x>=2"),
        (["--folds", 3, "--split", "paper"], "leave out --split paper"),
        (["--folds", 3, "--model-options", "depth=3"], "no option 'depth'"),
        (["--folds", 3, "--split", "fold-4/3"], "leave out --split fold-4/3"),
        (["--split", "fold-4/3"], "there is no split 'fold-4/3'"),
        (["--split", "fold"], "--split 'fold' is unknown: choose one of grouped"),
    ],
)
def test_folds_that_cannot_be_trained_leave_nothing(shards, tmp_path, more, text):
    result = train(shards, tmp_path / "run", *more)
    assert result.exit_code == 2
    assert text in message(result)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "text"),
    [(["--folds", 3], "leave out --out, --config and --folds"),
     (["--lr", 0.1], "--lr cannot change in a resumed run")],
)  # fmt: skip
def test_settings_that_cannot_change_in_resumed_folds(folded, more, text):
    result = har_train("--resume", folded[0], *more)
    assert result.exit_code == 2
    assert text in message(result)

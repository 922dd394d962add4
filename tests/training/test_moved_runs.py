"""Runs and shard sets that were moved or copied; which checkpoint `RUN` and `RUN/NAME.pt` mean."""

import json
import os
import shutil
from pathlib import Path

import pytest
from made_predictor import make_video_run
from made_shards import make_shards
from tiny_train import har_eval, har_train, message, metrics_of, run_command, train

from har.training import config as configs
from har.training.cli.results import export_main, predict_main, report_main
from har.training.runtime import checkpoint, run_dir


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds data/shards and runs/a, which was trained in it by relative paths."""
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    make_shards(root / "data" / "shards")
    monkeypatch.chdir(root)
    result = train(Path("data/shards"), Path("runs/a"), "--epochs", 1)
    assert result.exit_code == 0, result.output
    return root


def test_a_tree_that_was_moved_evaluates_and_goes_on_from_any_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    moved = tmp_path / "other" / "place"
    moved.parent.mkdir()
    project.rename(moved)
    monkeypatch.chdir(tmp_path)
    told = har_eval(moved / "runs/a")
    assert told.exit_code == 0, told.output
    result = har_train("--resume", moved / "runs/a", "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert len(metrics_of(moved / "runs/a")) == 3
    environment = json.loads((moved / "runs/a/environment.json").read_text())
    assert environment["shards"] == {
        "absolute": str(moved / "data/shards"), "relative": "../../data/shards",
    }  # fmt: skip


def test_set_and_run_may_lie_in_a_folder_whose_name_is_no_utf8(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    make_shards(folder / "set")
    assert train(folder / "set", folder / "run", "--epochs", 1).exit_code == 0
    assert configs.load(folder / "run" / "config.toml").shards == str(folder / "set")
    assert har_train("--resume", folder / "run", "--epochs", 2).exit_code == 0
    assert har_eval(folder / "run").exit_code == 0
    told = run_command(report_main, folder / "run", "-o", folder / "report", "--cards")
    assert told.exit_code == 0, told.output
    assert "caf\\xe9/run" in (folder / "report" / "report.md").read_text()


def test_a_run_that_was_moved_alone_finds_its_shards_where_they_were(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = shutil.move(project / "runs/a", tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert har_eval(run).exit_code == 0


def test_another_set_at_the_same_relative_path_is_not_taken(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "elsewhere"
    (other / "data").mkdir(parents=True)
    make_shards(other / "data" / "shards", groups=7)
    monkeypatch.chdir(other)
    state = checkpoint.load(project / "runs/a/best.pt")
    assert run_dir.find_shards_of(state, project / "runs/a") == str(project / "data/shards")


def test_shards_that_are_nowhere_are_asked_for_first(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (project / "data/shards").rename(tmp_path / "set")
    for told in (har_eval("runs/a"), har_train("--resume", "runs/a")):
        assert told.exit_code == 2
        text = message(told)
        assert "Error: --shards is missing: the shard set of runs/a is not at " in text
        assert str(project / "data/shards") in text
    assert har_eval("runs/a", "--shards", tmp_path / "set").exit_code == 0
    result = har_train("--resume", "runs/a", "--shards", tmp_path / "set", "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert har_eval("runs/a").exit_code == 0  # the run keeps where they are now


def test_folds_that_were_moved_go_on(project: Path, tmp_path: Path, monkeypatch):
    result = train(Path("data/shards"), Path("runs/f"), "--folds", 2, "--epochs", 1)
    assert result.exit_code == 0, result.output
    shutil.rmtree(project / "runs/f/fold-2")
    moved = project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    result = har_train("--resume", moved / "runs/f")
    assert result.exit_code == 0, result.output
    assert (moved / "runs/f/fold-2/summary.json").is_file()
    (moved / "data/shards").rename(tmp_path / "set")
    assert "no such" not in har_eval(moved / "runs/f", "--shards", tmp_path / "set").output


def test_weights_of_a_run_say_which_checkpoint_was_taken(project: Path):
    more = ("--weights", "runs/a", "--epochs", 1)
    result = train(Path("data/shards"), Path("runs/b"), *more)
    assert f"weights {Path('runs/a/best.pt')}, sha256 " in result.output
    assert "a run of resnet3d, 3 classes, epoch " in result.output
    (project / "runs/folds").mkdir()
    (project / "runs/folds/folds.json").write_text("{}")
    more = ("--weights", "runs/folds")
    refused = message(train(Path("data/shards"), Path("runs/c"), *more))
    assert "runs/folds holds the runs of several folds (take one of them" in refused


def test_prediction_and_export_take_a_checkpoint_by_name_and_say_which(
    tmp_path: Path, synthetic_videos: Path
):
    run = make_video_run(tmp_path / "a")
    state = checkpoint.load(run / "best.pt")
    checkpoint.save({**state, "epoch": 7}, run / "last.pt")
    video = str(next(synthetic_videos.rglob("*.avi")))
    for name, epoch in (("", 3), ("best.pt", 3), ("last.pt", 7)):
        file = run / (name or "best.pt")
        what = f"{file}, epoch {epoch}: convlstm, 3 classes"
        told = run_command(predict_main, run / name, video)
        assert told.stderr.splitlines()[0] == f"checkpoint: {what}"
        assert told.stdout.startswith(video)
    exported = run_command(export_main, run / "last.pt", "-o", tmp_path / "m.pt2")
    assert f"MB, of {what}" in exported.output
    missing = run_command(predict_main, run / "first.pt", video)
    assert f"there is no checkpoint at {run / 'first.pt'}: give a run folder" in message(missing)

"""--tensorboard: every number of metrics.jsonl, each epoch once, however the run went."""

import shutil
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tiny_train import har_train, message, metrics_of, train

from har.training import loop
from har.training.runtime import checkpoint


def written(folder):
    """-> {(name, epoch): value} of all event files; a point that stands twice fails."""
    found = {}
    for path in folder.glob("events.out.tfevents.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.tensor.float_val[0]
    return found


def assert_all_there(out):
    lines = metrics_of(out)
    expected = {
        (name, line["epoch"]): value
        for line in lines
        for name, value in line.items()
        if name != "epoch"
    }
    assert written(out) == pytest.approx(expected, rel=1e-6)
    return len(lines)


def test_a_run_killed_after_its_events_or_before_its_metrics_has_each_epoch_once(
    shards, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:  # dies between the checkpoint and metrics.jsonl
        real = loop.write_history

        def die(state):
            if len(state.history) == 2:
                raise KeyboardInterrupt
            real(state)

        patch.setattr(loop, "write_history", die)
        assert train(shards, out, "--tensorboard").exit_code != 0
    assert len(checkpoint.load(out / "last.pt")["history"]) == 2
    assert len(metrics_of(out)) == 1
    assert har_train("--resume", out).exit_code == 0
    assert assert_all_there(out) == 2
    assert har_train("--resume", out, "--epochs", "3").exit_code == 0
    assert assert_all_there(out) == 3


def test_events_may_be_asked_for_when_a_run_goes_on(trained, tmp_path):
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    assert not list(out.glob("events*"))
    assert har_train("--resume", out, "--tensorboard", "--epochs", "3").exit_code == 0
    assert assert_all_there(out) == 3


def test_a_missing_package_is_one_sentence_and_leaves_nothing(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = train(shards, tmp_path / "run", "--tensorboard")
    assert result.exit_code == 2
    assert "pip install 'har-ucf101[tensorboard]'" in message(result)
    assert not (tmp_path / "run").exists()

"""Checkpoints are whole or not written, and nothing in one can run code."""

import pickle

import pytest
import torch

from har.training.runtime import checkpoint
from har.training.runtime.checkpoint import CheckpointError


def test_round_trip(tmp_path):
    checkpoint.save({"model_name": "x", "model": {"w": torch.ones(2)}}, tmp_path / "a.pt")
    assert torch.equal(checkpoint.load(tmp_path / "a.pt")["model"]["w"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


class Evil:
    def __reduce__(self):
        return (print, ("ran code",))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"not a checkpoint", pickle.dumps(1)])
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pt is"):
        checkpoint.load(tmp_path / "a.pt")


def test_a_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save({"model_name": "x", "model": {"w": torch.ones(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    torch.save({"schema": 2, "model_name": Evil()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="damaged or not"):
        checkpoint.load(tmp_path / "a.pt")
    assert "ran code" not in capsys.readouterr().out


def test_missing_and_foreign_checkpoints_are_told(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "nowhere.pt")
    torch.save({"state_dict": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of har-train"):
        checkpoint.load(tmp_path / "a.pt")


def test_a_failed_write_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoint.save({"model_name": "first"}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save({"model_name": "second"}, path)
    assert checkpoint.load(path)["model_name"] == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_checkpoint_with_other_weights_names_what_does_not_fit():
    state = {"model_name": "resnet3d", "model_options": {"width": 4}, "classes": ["a", "b"],
             "model": {"nonsense": torch.ones(1)}}  # fmt: skip
    with pytest.raises(CheckpointError, match="does not hold the weights of resnet3d"):
        checkpoint.restore_model(state)


def test_the_checkpoint_before_is_kept_where_the_disk_knows_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(checkpoint.os, "link", refuse)
    for name in ("first", "second"):
        checkpoint.save_last({"model_name": name}, tmp_path)
    assert checkpoint.load(tmp_path / "last.pt")["model_name"] == "second"
    assert checkpoint.load(tmp_path / "previous.pt")["model_name"] == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]

"""Checkpoints are whole or not written, and nothing in one can run code."""

import pickle

import pytest
import torch

from har import models
from har.shards.transforms.clip_transform import ClipTransform
from har.training import config
from har.training.runtime import checkpoint
from har.training.runtime.checkpoint import CheckpointError


def test_round_trip(tmp_path):
    checkpoint.save({"model_name": "x", "model": {"w": torch.ones(2)}}, tmp_path / "a.pt")
    assert torch.equal(checkpoint.load(tmp_path / "a.pt")["model"]["w"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


class Evil:
    def __reduce__(self):
        return (print, ("ran code",))

    def __repr__(self):  # the same in each process that collects the tests
        return "Evil()"


def write(content, path):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "truncated":
        checkpoint.save({"model_name": "x", "model": {"w": torch.ones(1000)}}, path)
        path.write_bytes(path.read_bytes()[:-200])
    elif content is not None:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"no checkpoint at .*a\.pt"),
        (b"", r"a\.pt is damaged or not a checkpoint \(it is empty\)"),
        (b"PK\x03\x04 half", r"a\.pt is damaged"),
        (b"not a checkpoint", r"a\.pt is damaged"),
        (pickle.dumps(1), r"a\.pt is"),
        ("truncated", r"a\.pt is damaged"),
        ({"schema": 2, "model_name": Evil()}, "damaged or not"),
        ({"state_dict": {}}, "not a checkpoint of har-train"),
        ({"schema": 99, "model_name": "x"}, "schema 99 and this version reads 1 and 2"),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_of_ours_is_one_sentence_and_runs_no_code(
    tmp_path, capsys, content, text
):
    write(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=text):
        checkpoint.load(tmp_path / "a.pt")
    assert "ran code" not in capsys.readouterr().out


def test_a_folder_that_is_moved_meanwhile_is_told(tmp_path):
    (tmp_path / "run").mkdir()
    checkpoint.save_last({"model_name": "first"}, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"run was moved or removed meanwhile: where it is"):
        checkpoint.save_last({"model_name": "second"}, tmp_path / "run")


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


def old_checkpoint(path):
    """What the first version of har-train wrote (schema 1), of an untrained ConvLSTM."""
    model = models.build("convlstm", 2, seed=0, hidden=[4], stem_channels=4)
    state = {
        "schema": 1,
        "model_name": "convlstm",
        "model_options": {"hidden": [4], "stem_channels": 4, "memory": "lean"},
        "model": model.state_dict(),
        "trained": model.state_dict(),
        "average": {"model": model.state_dict(), "updates": 3},
        "scheduler": {"last_epoch": 1},
        "early_stop": {"reference": 0.5, "waited": 2},
        "position": {"epoch": 2, "step": 0, "waited": 0.5, "transferred": 0.25},
        "sums": torch.zeros(3),
        "config": {"model": "convlstm", "ema": 0.9, "mix": "none", "mix_alpha": 0.2,
                   "model_options": "hidden=[4],memory=lean", "compile": "off"},
        "preprocessing": {"frames": 4, "size": (16, 16), "resize": (18, 24), "mean": (0.4,) * 3,
                          "std": (0.2,) * 3, "sampling": {}, "clip_shape": [4, 20, 24, 3]},
        "classes": ["a", "b"],
    }  # fmt: skip
    torch.save(state, path)
    return model


def test_a_checkpoint_of_schema_1_is_upgraded(tmp_path):
    model = old_checkpoint(tmp_path / "last.pt")
    state = checkpoint.load_last(tmp_path)
    assert state["schema"] == checkpoint.SCHEMA
    assert state["lr_scheduler"] == {"last_epoch": 1}
    assert state["early_stopping"] == {"reference": 0.5, "num_bad_epochs": 2}
    assert state["progress"] == {"epoch": 2, "step": 0, "data_time": 0.5, "transfer_time": 0.25}
    assert {"train_metrics", "train_model", "ema"} <= set(state)
    assert ClipTransform.from_dict(state["preprocessing"]).resize_size == (18, 24)
    settings = config.from_mapping(state["config"])
    assert (settings.ema_decay, settings.mixup_alpha, settings.compile) == (0.9, 0.0, False)
    restored = checkpoint.restore_model(state)
    assert set(settings.options) <= set(models.options_of("convlstm"))
    for name, value in model.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)

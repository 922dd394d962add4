"""har-train as a user runs it, on a tiny set: files, protection, errors, the rules in effect."""

import hashlib
import json
import re
from importlib import metadata

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_shards import make_shards

from har import models
from har.shards import splits
from har.shards.format import load_manifest
from har.training import loop, setup, step
from har.training.cli.train import train_main
from har.training.config import Config, ConfigError
from har.training.input.device_loader import DeviceBatch
from har.training.runtime import checkpoint

SMALL = {
    "resnet3d": ["--model-options", "width=4"],
    "r2plus1d": ["--model-options", "width=4"],
    "convlstm": ["--model-options", "hidden=[4],stem_channels=4"],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("train") / "set").root


def train(shards, out, *more, model="resnet3d", frames=4):
    arguments = [
        "--model", model, "--shards", str(shards), "--out", str(out), "--frames", str(frames),
        "--size", "16", "--batch-size", "6", "--epochs", "2", "--device", "cpu",
        "--precision", "fp32", *SMALL.get(model, []), *more,
    ]  # fmt: skip
    return CliRunner().invoke(train_main, arguments)


@pytest.mark.parametrize("model", list(SMALL))
def test_a_run_writes_all_its_files(shards, tmp_path, model):
    out = tmp_path / "run"
    result = train(shards, out, model=model)
    assert result.exit_code == 0, result.output
    names = {path.name for path in out.iterdir()}
    assert names == {
        "config.toml", "environment.json", "metrics.jsonl", "best.pt", "last.pt", "previous.pt",
        "log.txt", "summary.json", "loss.png", "acc.png",
    }  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert f"next: har-eval {out}" in result.output
    assert result.output.splitlines()[-1] in (out / "log.txt").read_text()


def test_r3d_trains_from_random_weights_only_when_told(shards, tmp_path):
    result = train(shards, tmp_path / "a", "--weights", "none", "--epochs", "1", model="r3d")
    assert result.exit_code == 0, result.output
    assert "augment = false" in (tmp_path / "a" / "config.toml").read_text()


def test_weights_are_shown_with_their_checksum_and_frozen_groups_stay(shards, tmp_path):
    model = models.build("r3d", 400, weights="none")
    torch.save(model.state_dict(), tmp_path / "r3d.pth")
    options = ["--weights", str(tmp_path / "r3d.pth"), "--freeze", "layer3", "--epochs", "1"]
    result = train(shards, tmp_path / "run", *options, model="r3d")
    assert result.exit_code == 0, result.output
    digest = hashlib.sha256((tmp_path / "r3d.pth").read_bytes()).hexdigest()
    assert f"weights {tmp_path / 'r3d.pth'}, sha256 {digest}" in result.output
    trained = checkpoint.load(tmp_path / "run" / "last.pt")["model"]
    moved = {name for name, old in model.state_dict().items() if not trained[name].equal(old)}
    assert all("layer4" in name or name.startswith("fc.") or "running" in name or "num_b" in name
               for name in moved)  # fmt: skip
    assert any("layer4" in name for name in moved)


@pytest.mark.parametrize(
    ("model", "option", "text"),
    [
        ("resnet3d", ("--freeze", "layer1"), "--freeze layer1: resnet3d has no such option"),
        ("r3d", ("--no-recompute",), "--no-recompute: r3d has no such option; use it with conv"),
    ],
)
def test_options_of_another_model_are_refused(shards, tmp_path, model, option, text):
    result = train(shards, tmp_path / "run", *option, model=model)
    assert result.exit_code == 2
    assert text in result.output
    assert not (tmp_path / "run").exists()


def test_a_window_says_how_well_it_shuffles(shards, tmp_path):
    result = train(shards, tmp_path / "run", "--shuffle-block-size", "4", "--no-recompute",
                   "--epochs", "1", model="convlstm")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert re.search(r"shuffle blocks of 4 clips: quality \d\.\d\d of 1", result.output)
    assert checkpoint.load(tmp_path / "run" / "last.pt")["model_options"]["memory"] == "fast"


def test_a_checkpoint_gives_back_the_model_and_what_it_was_trained_on(shards, tmp_path):
    out = tmp_path / "run"
    train(shards, out)
    state = checkpoint.load(out / "best.pt")
    assert state["classes"] == ["Punch", "Wave", "YoYo"]
    assert state["split"]["name"] == "grouped"
    assert state["split"]["digest"]
    assert state["preprocessing"]["crop_size"] == [16, 16]
    assert state["optimizer"]["state"]
    model = checkpoint.restore_model(state)
    clips = torch.zeros(1, 3, 4, 16, 16)
    assert torch.equal(model(clips), checkpoint.restore_model(state)(clips))


def test_two_runs_of_one_seed_are_alike_and_another_seed_is_not(shards, tmp_path):
    losses = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        train(shards, tmp_path / name, "--seed", seed, "--epochs", "1")
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text())
        losses.append(line["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-5)


def test_a_run_never_writes_over_another(shards, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "precious").write_text("mine")
    result = train(shards, out)
    assert result.exit_code == 2
    assert "already exists" in result.output
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_a_run_that_fails_before_it_trains_leaves_no_folder(shards, tmp_path, monkeypatch):
    def fails(*_):
        raise ConfigError("the server is gone.")

    monkeypatch.setattr(loop, "train_step", fails)
    out = tmp_path / "run"
    assert train(shards, out).exit_code == 2
    assert not out.exists()
    monkeypatch.undo()
    assert train(shards, out).exit_code == 0
    monkeypatch.setattr(loop, "train_step", fails)
    result = CliRunner().invoke(train_main, ["--resume", str(out), "--epochs", "3"])
    assert result.exit_code == 2
    assert (out / "last.pt").exists()  # a resumed run's folder stays


def test_without_out_each_run_gets_a_folder_of_its_own(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--shards", str(shards), "--size", "16", "--frames", "4", "--epochs", "1"]
    common += ["--batch-size", "6", "--precision", "fp32", *SMALL["resnet3d"]]
    for _ in range(2):
        assert CliRunner().invoke(train_main, common).exit_code == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["resnet3d", "resnet3d-2"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--model", "vgg"], "'resnet3d', 'r2plus1d', 'convlstm', 'r3d'"),
        (["--frames", "9"], "hold 4: use --frames 4"),
        (["--shards", "nowhere"], "no shard set at nowhere"),
        (["--split", "csv"], "needs a split column"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--model-options", "depth=3"], "no option 'depth'"),
        (["--device", "cuda:77"], "asks for a GPU"),
        (["--lr", "-1"], "--lr -1.0"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(shards, tmp_path, more, text):
    out = tmp_path / "run"
    result = train(shards, out, *more)
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not out.exists()


def test_pretrained_weights_that_are_not_there_are_never_replaced_by_random_ones(shards, tmp_path):
    result = train(shards, tmp_path / "run", model="r3d")
    if result.exit_code == 0:
        pytest.skip("the Kinetics weights are in torchvision's cache")
    assert result.exit_code == 2
    assert "--weights" in result.output
    assert not (tmp_path / "run").exists()


def test_patience_ends_the_run_and_says_so(shards, tmp_path):
    more = ["--patience", "1", "--epsilon-increment", "99", "--epochs", "9"]
    result = train(shards, tmp_path / "run", *more)
    assert "stopped: patience: val_loss has not improved by 99 % for 1 epochs" in result.output
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_loss_that_is_not_finite_stops_the_run(shards, tmp_path, monkeypatch):
    real = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *a: real(*a) | {"loss": float("nan")})
    result = train(shards, tmp_path / "run")
    assert result.exit_code == 1
    assert "not finite" in result.output
    assert "next: train anew" in result.output
    assert not (tmp_path / "run" / "best.pt").exists()


def failing_after(monkeypatch, module, name, times):
    """Make a function fail as on a full disk from its call number `times` + 1 on."""
    real, calls = getattr(module, name), []

    def call(*arguments, **more):
        calls.append(1)
        if len(calls) > times:
            raise OSError(28, "No space left on device")
        return real(*arguments, **more)

    monkeypatch.setattr(module, name, call)


def test_a_disk_full_while_saving_keeps_the_epoch_before_and_goes_on_later(
    shards, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:  # epoch 1 saves best.pt and last.pt
        failing_after(patch, torch, "save", 2)
        result = train(shards, out)
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    assert "Traceback" not in result.output
    assert checkpoint.load(out / "last.pt")["epoch"] == 1
    assert not list(out.glob(".*.tmp"))
    assert CliRunner().invoke(train_main, ["--resume", str(out)]).exit_code == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_disk_full_while_drawing_the_curves_is_one_sentence(shards, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        failing_after(patch, loop, "plot_model_curves", 3)
        result = train(shards, out)
    assert result.exit_code == 2
    assert f"the run folder {out} cannot be written to (No space left on device)" in " ".join(
        result.output.split()
    )
    assert checkpoint.load(out / "last.pt")["epoch"] == 2
    assert CliRunner().invoke(train_main, ["--resume", str(out)]).exit_code == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_curves_are_drawn_anew_each_epoch(shards, tmp_path, monkeypatch):
    drawn, real = [], loop.plot_model_curves

    def draw(path, curves, quantity):
        drawn.append((path.name, len(curves[0].epochs)))
        real(path, curves, quantity)

    monkeypatch.setattr(loop, "plot_model_curves", draw)
    train(shards, tmp_path / "run")
    assert drawn == [("loss.png", 1), ("acc.png", 1), ("loss.png", 2), ("acc.png", 2)]


def test_the_environment_says_what_the_run_ran_on(shards, tmp_path):
    train(shards, tmp_path / "run", "--epochs", "1")
    kept = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert kept["versions"]["torch"] == metadata.version("torch")
    assert {"python", "device", "precision", "commit", "command", "resumed"} <= set(kept)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_colourful_cached_windowed_runs_train(shards, tmp_path, mix):
    more = [f"--{mix}-alpha", "0.2", "--brightness", "0.3", "--saturation", "0.3", "--cache", "ram"]
    more += ["--shuffle-block-size", "8", "--max-corrupt", "1", "--label-smoothing", "0.1"]
    result = train(shards, tmp_path / "run", *more)
    assert result.exit_code == 0, result.output
    kept = (tmp_path / "run" / "config.toml").read_text()
    assert f"{mix}_alpha = 0.2" in kept


def test_a_mixed_batch_learns_from_both_labels(shards, tmp_path):
    config = Config(
        shards=str(shards), model_options="width=4", frames=4, size=16, batch_size=6,
        mixup_alpha=0.2, precision="fp32", device="cpu",
    ).resolve()  # fmt: skip
    state = setup.prepare(config, tmp_path, lambda _: None)
    batches = state.train_loader.epoch(1)
    batch = next(batches)
    clips, wanted = step.mix_batch(state, batch)
    assert wanted.shape == (6, 3)
    torch.testing.assert_close(wanted.sum(1), torch.ones(6))
    assert clips.shape == batch.clips.shape
    assert not torch.equal(clips, batch.clips)


def test_sync_bn_replaces_the_batch_norms(shards, tmp_path):
    config = Config(
        shards=str(shards), model_options="width=4", frames=4, size=16, sync_bn=True,
        precision="fp32", device="cpu",
    )  # fmt: skip
    state = setup.prepare(config, tmp_path, lambda _: None)
    kinds = {type(module).__name__ for module in state.model.modules()}
    assert "SyncBatchNorm" in kinds
    assert "BatchNorm3d" not in kinds


def test_out_of_memory_is_one_sentence_with_what_helps(shards, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(loop, "train_step", full)
    result = train(shards, tmp_path / "run")
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert "cpu is out of memory with 6 clips of 4 frames at once: use" in text
    assert "--grad-accum-steps 2" in text
    assert "--frames 2" in text


def test_class_weights_are_inverse_to_the_train_counts(shards):
    config = Config(shards=str(shards))
    clips = load_manifest(shards)
    split = splits.make_split(clips, "grouped")
    uneven = splits.Split("grouped", 0, "", split.train[[0, 1, 2, 6]], split.val, split.test, 0.0)
    weight = setup.class_weights(config, clips, uneven, torch.device("cpu")).tolist()
    counts = np.bincount(clips.index["label"][uneven.train], minlength=3)
    for number, count in enumerate(counts):
        assert weight[number] == pytest.approx(4 / (3 * count) if count else 0)


def test_fill_up_rows_do_not_count_in_loss_or_metrics(shards, tmp_path):
    """Five rows of which two are fill-up give the gradient and the sums of the three alone."""
    config = Config(
        shards=str(shards), model_options="width=4", frames=4, size=16, batch_size=6,
        optimizer="sgd", lr=1e-9, precision="fp32", class_weights="none", device="cpu",
    )  # fmt: skip
    torch.manual_seed(0)
    clips, labels = torch.randn(5, 3, 4, 16, 16), torch.tensor([0, 1, 2, 0, 1])
    gradients = []
    for rows in (5, 3):
        state = setup.prepare(config, tmp_path, lambda _: None)
        state.model.eval()  # batch norm would mix the rows
        valid = torch.arange(rows) < 3
        batch = DeviceBatch(clips[:rows], labels[:rows], labels[:rows], valid, 3, 0.0, [], 0)
        step.train_step(state, batch, update_weights=False)
        gradients.append(state.model.fc.weight.grad.clone())
        assert state.train_metrics.compute()["count"] == 3
    torch.testing.assert_close(gradients[0], gradients[1])


def test_accumulation_gives_the_gradient_of_the_whole_batch(shards, tmp_path):
    """18 train clips, batch 6 at once or as 3 x 2, batch norm in eval so that rows do not mix."""
    weights = []
    for accumulate in (1, 3):
        config = Config(
            shards=str(shards), model_options="width=4", frames=4, size=16, batch_size=6,
            grad_accum_steps=accumulate, optimizer="sgd", lr=0.1, precision="fp32", device="cpu",
            class_weights="none",
        )  # fmt: skip
        state = setup.prepare(config, tmp_path, lambda _: None)
        state.model.eval()
        for batch in state.train_loader.epoch(1):
            step.train_step(state, batch, update_weights=(batch.step + 1) % accumulate == 0)
            if batch.step + 1 == accumulate:
                break
        weights.append(state.model.fc.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-7)


def test_modern_preset_trains_and_evaluates_the_average(shards, tmp_path):
    out = tmp_path / "run"
    result = train(shards, out, "--preset", "modern")
    assert result.exit_code == 0, result.output
    state, last = checkpoint.load(out / "best.pt"), checkpoint.load(out / "last.pt")
    assert state["config"]["ema_decay"] == 0.99
    assert not torch.equal(last["train_model"]["fc.weight"], last["model"]["fc.weight"])
    assert state["model_options"]["zero_init_residual"] is True
    groups = state["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]

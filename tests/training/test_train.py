"""har-train as a user runs it, on a tiny set: files, protection, errors, the rules in effect."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from shlex import quote
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_train import OPTIONS, har_train, message, metrics_of, prepared, train

from har import models
from har.shards import splits
from har.shards.format import load_manifest, reader
from har.shards.loading import BatchSampler
from har.shards.transforms.clip_transform import ClipTransform
from har.training import config, loop, setup, status, step
from har.training.config import Config, ConfigError
from har.training.evaluation import evaluate_run
from har.training.inference import export_run
from har.training.input import DeviceBatch, DeviceLoader
from har.training.plots import plot_filters
from har.training.runtime import checkpoint, run_dir
from har.training.runtime.distributed import DistributedContext
from har.training.runtime.signals import Interrupted, SignalWatch
from har.training.status import EpochStatus


@pytest.mark.usefixtures("drawn_curves")
@pytest.mark.parametrize("model", ["resnet3d", "r2plus1d", "convlstm"])
def test_a_run_writes_all_its_files_and_its_checkpoint_gives_back_the_model(
    shards, tmp_path, model
):
    out = tmp_path / "a run"
    result = train(shards, out, model=model)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "config.toml", "environment.json", "metrics.jsonl", "best.pt", "last.pt", "previous.pt",
        "log.txt", "summary.json", "loss.png", "acc.png",
    }  # fmt: skip
    assert [line["epoch"] for line in metrics_of(out)] == [1, 2]
    assert f"next: har-eval {quote(str(out))}\n" in result.output
    assert result.output.splitlines()[-1] in (out / "log.txt").read_text()
    environment = json.loads((out / "environment.json").read_text())
    assert environment["versions"]["torch"] == metadata.version("torch")
    assert {"python", "device", "precision", "commit", "command", "resumed"} <= set(environment)
    state = checkpoint.load(out / "best.pt")
    assert state["classes"] == ["Punch", "Wave", "YoYo"]
    assert state["split"]["name"] == "grouped"
    assert state["split"]["digest"]
    assert state["preprocessing"]["crop_size"] == [16, 16]
    assert state["optimizer"]["state"]
    clips = torch.zeros(1, 3, 4, 16, 16)
    one, two = (checkpoint.restore_model(state)(clips) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.slow
def test_r3d_trains_from_random_weights_only_when_told(shards, tmp_path):
    result = train(shards, tmp_path / "a", "--weights", "none", "--epochs", 1, model="r3d")
    assert result.exit_code == 0, result.output
    assert "augment = false" in (tmp_path / "a" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("model", "kind", "more"),
    [("resnet3d", "diff", ["--drop-path", 0.2]), ("convlstm", "rgb+diff", ["--dropout", 0.9])],
)
def test_a_run_on_differences_is_evaluated_predicted_and_exported_as_it_was_trained(
    shards, tmp_path, model, kind, more
):
    out = tmp_path / "run"
    result = train(shards, out, "--input", kind, "--epochs", 1, *more, model=model)
    assert result.exit_code == 0, result.output
    state = checkpoint.load(out / "best.pt")
    assert state["model_options"]["input"] == kind
    net = checkpoint.restore_model(state)
    result = evaluate_run(out, device="cpu")
    sampler = BatchSampler(np.sort(splits.make_split(load_manifest(shards), "grouped").test), 6)
    transform = ClipTransform.from_dict(state["preprocessing"])
    loader = DeviceLoader(load_manifest(shards), sampler, transform, torch.device("cpu"))
    probabilities = net(next(loader.epoch()).clips).softmax(1).max(1).values
    loader.close()
    assert [row["probability"] for row in result["predictions"]] == pytest.approx(
        probabilities.tolist(), rel=1e-4
    )
    export_run(out, tmp_path / "x.pt2")  # it compares with the network itself
    assert plot_filters(tmp_path / "f.png", model, state["model"]) is not None


@pytest.mark.parametrize(
    ("frames", "preset", "stride"),  # of 4 stored frames
    [(2, "modern", "1-3"), (3, "modern", "even"), (4, "modern", "even"), (1, "modern", "even"),
     (2, "paper", None)],
)  # fmt: skip
def test_modern_takes_windows_where_the_stored_clips_are_long_enough(
    shards, frames, preset, stride
):
    given = {"shards": shards, "frames": frames, "size": 16, "preset": preset, "device": "cpu"}
    more = {"model_options": OPTIONS["resnet3d"], "precision": "fp32", "batch_size": 6}
    state = prepared(shards, config=config.make({**given, **more}))
    state.close()
    assert state.config.frame_stride == stride


def test_windows_are_random_in_training_and_in_the_middle_after_it(shards):
    plain, windows = (
        prepared(shards, frames=2, frame_stride=stride, temporal_jitter=False)
        for stride in (None, "1-2")
    )
    drawn = {tuple(windows.train_loader.loader.frame_indices(epoch, 0)) for epoch in range(40)}
    assert drawn == {(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)}
    assert windows.val_loader.loader.frame_indices(7, 0).tolist() == [1, 2]
    assert plain.train_loader.loader.frame_indices(7, 0).tolist() == [0, 2]
    assert windows.state_dict()["preprocessing"]["frame_stride"] == 1
    assert "frame_stride" not in plain.state_dict()["preprocessing"]
    for state in (plain, windows):
        state.close()


def test_kinetics_weights_set_the_midplanes_they_need(shards, tmp_path, monkeypatch):
    theirs = models.build("r2plus1d", 400, midplanes="torchvision").state_dict()
    torch.save(theirs, tmp_path / "x.pth")
    monkeypatch.setattr("har.models.weights._kinetics_file", lambda _: tmp_path / "x.pth")
    messages = []
    state = prepared(
        shards, messages.append, model="r2plus1d", model_options="", weights="kinetics400"
    )
    state.close()
    assert state.model_options["midplanes"] == "torchvision"
    assert "midplanes=torchvision, as the kinetics400 weights need it" in messages[0]
    assert state.model.weights_info.source == "kinetics400"


def test_weights_are_shown_with_their_checksum_and_frozen_groups_stay(shards, tmp_path):
    model, path = models.build("r3d", 400, weights="none"), tmp_path / "r3d.pth"
    torch.save(model.state_dict(), path)
    options = ["--weights", path, "--freeze", "layer3", "--epochs", 1]
    options += ["--optimizer", "sgd", "--momentum", 0]  # smaller checkpoints
    result = train(shards, tmp_path / "run", *options, model="r3d")
    assert result.exit_code == 0, result.output
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"weights {path}, sha256 {digest}" in result.output
    assert "augment = false" in (tmp_path / "run" / "config.toml").read_text()
    trained = checkpoint.load(tmp_path / "run" / "last.pt")["model"]
    moved = {name for name, old in model.state_dict().items() if not trained[name].equal(old)}
    assert all("layer4" in name or name.startswith("fc.") or "running" in name or "num_b" in name
               for name in moved)  # fmt: skip
    assert any("layer4" in name for name in moved)


def test_two_runs_of_one_seed_are_alike_and_another_seed_is_not(shards, trained, tmp_path):
    loss = metrics_of(trained)[0]["train_loss"]
    for seed in (0, 1):
        train(shards, tmp_path / f"{seed}", "--seed", seed, "--epochs", 1)
        other = metrics_of(tmp_path / f"{seed}")[0]["train_loss"]
        assert (other == pytest.approx(loss, rel=1e-5)) == (seed == 0)


def test_a_run_never_writes_over_another(shards, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "precious").write_text("mine")
    result = train(shards, out)
    assert result.exit_code == 2
    assert "already exists" in result.output
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_a_run_that_fails_before_it_trains_leaves_no_folder(shards, tmp_path, monkeypatch):
    def fail(*_):
        raise ConfigError("the server is gone.")

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", fail)
        assert train(shards, out).exit_code == 2
    assert not out.exists()
    assert train(shards, out).exit_code == 0
    monkeypatch.setattr(loop, "train_step", fail)
    assert har_train("--resume", out, "--epochs", 3).exit_code == 2
    assert (out / "last.pt").exists()  # a resumed run's folder stays


def test_a_folder_that_another_run_took_meanwhile_is_left_alone(shards, tmp_path, monkeypatch):
    out, prepare = tmp_path / "run", loop.prepare

    def prepare_slowly(*arguments, **more):
        monkeypatch.setattr(loop, "prepare", prepare)
        state = prepare(*arguments, **more)
        assert train(shards, out).exit_code == 0
        return state

    monkeypatch.setattr(loop, "prepare", prepare_slowly)
    result = train(shards, out, "--seed", 1)
    assert result.exit_code == 2
    assert "already exists" in message(result)
    assert checkpoint.load(out / "last.pt")["config"]["seed"] == 0


def test_a_folder_in_which_a_process_trains_takes_no_other_one(shards, tmp_path, monkeypatch):
    out, train_step, refusals = tmp_path / "run", loop.train_step, []

    def step(state, batch, update):
        run_dir.remove_untrained(out)  # as another process does that fails
        if state.progress.epoch == 2:
            refusals.append(har_train("--resume", out, "--epochs", 9))
        return train_step(state, batch, update)

    monkeypatch.setattr(loop, "train_step", step)
    assert train(shards, out).exit_code == 0
    assert {result.exit_code for result in refusals} == {2}
    assert f"another process trains in the run folder {out}" in message(refusals[0])
    assert checkpoint.load(out / "last.pt")["config"]["epochs"] == 2


def test_without_out_each_run_gets_a_folder_of_its_own(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/resnet3d").mkdir(parents=True)
    options = ("--size", 16, "--frames", 4, "--epochs", 1, "--batch-size", 6, "--precision", "fp32")
    result = har_train("--shards", shards, "--model-options", OPTIONS["resnet3d"], *options)
    assert result.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["resnet3d", "resnet3d-2"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--model", "vgg"], "choose one of resnet3d, r2plus1d, convlstm, r3d, MODULE:CLASS"),
        (["--frames", 9], "hold 4: use --frames 4"),
        (["--shards", "nowhere"], "no shard set at nowhere"),
        (["--split", "csv"], "needs a split column"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--model-options", "depth=3"], "no option 'depth'"),
        (["--freeze", "layer9"], "freeze must be none or one of stem, layer1"),
        (["--model", "convlstm", "--model-options", "", "--drop-path", 0.1], "no residual blocks"),
        (["--drop-path", 1.0], "--drop-path 1.0 does not work: give at least 0 and below 1"),
        (["--input", "flow"], "'rgb', 'diff', 'rgb+diff'"),
        (["--no-recompute"], "--recompute off: resnet3d has no such option; use it with convlstm"),
        (["--device", "cuda:77"], "asks for a GPU"),
        (["--cache", "gpu"], "keeps the clips on a GPU and this run is on cpu"),
        (["--lr", -1], "--lr -1.0"),
        (["--batch-size", "auto", "--grad-accum-steps", 2], "do not go together"),
        (["--batch-size", "many"], "neither a whole number nor 'auto'"),
        (["--batch-size", 2, "--grad-accum-steps", 2], "a forward pass of one clip whose maps are"),
        (["--model-options", "dropout=0.3", "--dropout", 0.7], "options dropout=0.3, not both"),
        (["--frames", 1, "--input", "diff"], "--frames 1 does not work: give 2 or more with"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(shards, tmp_path, more, text):
    out = tmp_path / "run"
    result = train(shards, out, *more)
    assert result.exit_code == 2
    assert text in message(result)
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
    more = ["--patience", 1, "--epsilon-increment", 99, "--epochs", 9]
    result = train(shards, tmp_path / "run", *more)
    assert "stopped: patience: val_loss has not improved by 99 % for 1 epochs" in result.output
    assert len(metrics_of(tmp_path / "run")) == 2


def test_a_loss_that_is_not_finite_stops_the_run(shards, tmp_path, monkeypatch):
    evaluate = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *a: evaluate(*a) | {"loss": float("nan")})
    result = train(shards, tmp_path / "run")
    assert result.exit_code == 1
    assert "not finite" in result.output
    assert "next: train anew" in result.output
    assert not (tmp_path / "run" / "best.pt").exists()


@pytest.mark.parametrize(
    ("module", "function", "calls", "words", "saved_epoch"),
    [
        # epoch 1 saves best.pt and last.pt, and draws two curves
        (torch, "save", 2, "could not be written", 1),
        (loop, "plot_model_curves", 3, "cannot be written to", 2),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    shards, tmp_path, monkeypatch, module, function, calls, words, saved_epoch
):
    out, real, called = tmp_path / "run", getattr(module, function), []

    def fails_later(*arguments, **more):
        called.append(1)
        if len(called) > calls:
            raise OSError(28, "No space left on device")
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, fails_later)
        result = train(shards, out)
    assert result.exit_code == 2
    assert words in message(result)
    assert "No space left on device" in message(result)
    assert "Traceback" not in result.output
    assert checkpoint.load(out / "last.pt")["epoch"] == saved_epoch
    assert not list(out.glob(".*.tmp"))
    assert har_train("--resume", out).exit_code == 0
    assert len(metrics_of(out)) == 2


@pytest.mark.usefixtures("drawn_curves")
def test_the_curves_are_drawn_anew_each_epoch(shards, tmp_path, monkeypatch):
    drawn, real = [], loop.plot_model_curves

    def draw(path, curves, quantity):
        drawn.append((path.name, len(curves[0].epochs)))
        real(path, curves, quantity)

    monkeypatch.setattr(loop, "plot_model_curves", draw)
    train(shards, tmp_path / "run")
    assert drawn == [("loss.png", 1), ("acc.png", 1), ("loss.png", 2), ("acc.png", 2)]


@pytest.mark.parametrize("option", ["mixup_alpha", "cutmix_alpha"])
def test_a_mixed_batch_learns_from_both_labels(shards, option):
    state = prepared(shards, **{option: 0.2})
    batch = next(state.train_loader.epoch(1))
    clips, targets = step.mix_batch(state, batch)
    state.close()
    assert targets.shape == (6, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    assert clips.shape == batch.clips.shape
    assert not torch.equal(clips, batch.clips)


def test_a_mixed_clip_counts_by_the_share_of_the_predicted_class(shards):
    state = prepared(shards, mixup_alpha=0.4, optimizer="sgd", lr=1e-9)
    state.model.eval()
    batch = next(state.train_loader.epoch(1))
    clips, targets = step.mix_batch(state, batch)
    logits = state.model(clips)
    losses = torch.nn.functional.cross_entropy(logits, targets)
    shares = targets[torch.arange(6), logits.argmax(1)]
    step.train_step(state, batch, update_weights=True)
    state.close()
    assert state.train_metrics.compute() == pytest.approx(
        {"loss": losses.item(), "acc": shares.mean().item(), "count": 6}
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixed_clip_is_weighed_by_the_classes_of_both_its_clips(shards, smoothing):
    state = prepared(shards, mixup_alpha=0.4, label_smoothing=smoothing)
    state.model.eval()
    state.class_weights = torch.tensor([0.25, 1.0, 4.0])
    batch = next(state.train_loader.epoch(1))
    clips, targets = step.mix_batch(state, batch)
    log_shares = state.model(clips).log_softmax(1)
    per_class = -(1 - smoothing) * log_shares - smoothing * log_shares.mean(1, keepdim=True)
    weights = targets * state.class_weights
    expected = (weights * per_class).sum() / weights.sum()
    loss = step.weighted_mean(state, step.classification_losses(state, batch))
    state.close()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_a_forward_pass_of_one_clip_has_nothing_to_mix(shards, name):
    with pytest.raises(ConfigError, match="parts makes one clip a forward pass, and mixup and Cut"):
        prepared(shards, batch_size=4, grad_accum_steps=4, **{name: 0.4})
    ranks = DistributedContext(world_size=2)
    with pytest.raises(ConfigError, match=r"-size 2 makes one clip a forward pass and rank, and"):
        setup.check_batch(Config(batch_size=2, **{name: 0.4}), ranks, resumed=False)
    setup.check_batch(Config(batch_size=2, **{name: 0.4}), ranks, resumed=True)
    setup.check_batch(Config(batch_size=2), ranks, resumed=False)
    with pytest.raises(ConfigError, match=r"makes 1 clips .* multiple of 16"):
        setup.check_batch(Config(batch_size=8, grad_accum_steps=8), ranks, resumed=False)


def test_the_best_checkpoint_is_measured_on_the_train_clips_as_they_are(shards, trained, tmp_path):
    result = train(shards, tmp_path / "run", "--mixup-alpha", 0.4, "--eval-train")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    measured = evaluate_run(tmp_path / "run", subset="train", device="cpu")
    assert summary["best_train_acc"] == pytest.approx(measured["clip@1"])
    assert summary["best_train_loss"] == pytest.approx(measured["loss"], rel=1e-5)
    assert "best checkpoint on the train clips, not augmented: loss " in result.output
    assert "best_train_acc" not in json.loads((trained / "summary.json").read_text())


def test_a_signal_ends_the_pass_over_the_train_clips(shards):
    state, watch = prepared(shards), SignalWatch()
    watch.number = 15
    with pytest.raises(Interrupted):
        next(loop.stop_on_signal(state.val_loader.epoch(), state, watch))
    state.close()


@pytest.mark.parametrize(
    ("steps", "parts", "is_seen"),
    [(2, 1, False), (3, 1, True), (9, 3, True), (12, 3, False), (6, 6, True)],
)
def test_ranks_see_a_signal_after_ten_steps_and_at_the_end_of_an_epoch(
    shards, tmp_path, monkeypatch, steps, parts, is_seen
):
    monkeypatch.setattr(DistributedContext, "all_reduce_max", lambda *values: values[1])
    monkeypatch.setattr(DistributedContext, "all_reduce_sum", lambda _, values: values)
    state, watch = prepared(shards, grad_accum_steps=parts), SignalWatch()
    state.close()
    state.ctx, state.folder = DistributedContext(world_size=2), tmp_path
    state.progress.step, watch.number = steps, 15  # without parts an epoch has three
    with pytest.raises(Interrupted) if is_seen else nullcontext():
        assert not loop.save_if_due(state, watch, 0.0, torch.tensor(-1))
    assert (tmp_path / "last.pt").exists() == is_seen


def test_without_a_terminal_lines_tell_loss_rate_speed_and_what_is_left(shards, tmp_path):
    lines = train(shards, tmp_path / "a", "--log-every", 1e-9).stderr.splitlines()
    text = r"loss \d\.\d{4} lr 1\.0e-03 \d+\.\d clips/s, run 0\d:\d\d left, "
    for epoch in (1, 2):
        for n in (1, 2, 3):
            line = next(line for line in lines if line.startswith(f"epoch {epoch}: {n}/3 steps, "))
            assert re.search(rf"0\d:\d\d left, {text}\d+% data wait$", line), line
        assert any(line.startswith(f"epoch {epoch}, validation: 1/1, ") for line in lines)
    assert train(shards, tmp_path / "b", "--log-every", 0).stderr == ""


def test_the_loss_and_speed_of_a_line_are_those_since_the_line_before(shards, monkeypatch):
    state, now = prepared(shards, max_minutes=1.0), [10.0]
    monkeypatch.setattr(status, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    epoch_status = EpochStatus(state)
    for seconds, steps, sums, text in (
        (1, 1, [6.0, 3.0, 6.0], "loss 1.0000 lr 1.0e-03 6.0 clips/s, run 00:59 left"),
        (2, 2, [6.6, 9.0, 12.0], "loss 0.1000 lr 1.0e-03 3.0 clips/s, run 00:57 left"),
    ):
        now[0] += seconds
        state.train_metrics.sums.copy_(torch.tensor(sums))
        assert epoch_status(steps).startswith(text)
    state.history.append({"seconds": 0.1})
    state.config = Config(epochs=11)
    now[0] += 3  # 6 s for 3 steps of 3; 10 epochs of 0.1 s follow
    assert "run 00:01 left," in epoch_status(3)
    state.close()


@pytest.mark.parametrize("model", ["resnet3d", "r2plus1d", "convlstm", "r3d"])
def test_a_run_of_other_classes_starts_any_model_with_a_new_classifier(shards, tmp_path, model):
    options = {} if model == "r3d" else Config(model_options=OPTIONS[model]).options
    old = models.build(model, 5, seed=9, weights="none", **options)
    torch.save({"model_name": model, "model_options": options, "classes": list("abcde"), "epoch": 7,
                "model": old.state_dict()}, tmp_path / "best.pt")  # fmt: skip
    messages = []
    state = prepared(
        shards, messages.append, model=model, model_options=OPTIONS[model], weights=str(tmp_path),
        freeze="layer1",
    )  # fmt: skip
    assert f"weights {tmp_path / 'best.pt'}, sha256 " in messages[0]
    size = len(old.state_dict())
    assert f"a run of {model}, 5 classes, epoch 7: {size - 2} of {size} tensors " in messages[0]
    assert messages[0].count("fc.weight, fc.bias") == 2  # new, and in the file and not used
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    for name, value in before.items():
        assert value.equal(old.state_dict()[name]) == (not name.startswith("fc.")), name
    loop.train_epoch(state, SignalWatch())
    state.close()
    first_layer = ("stem.", "layer1.", "layers.0.")
    for name, value in state.model.state_dict().items():
        if value.is_floating_point():
            assert value.equal(before[name]) == name.startswith(first_layer), name


@pytest.mark.parametrize(("split", "is_warned"), [("grouped", False), ("paper", True)])
def test_weights_of_a_run_that_trained_on_groups_of_val_or_test_are_warned_of(
    shards, trained, split, is_warned
):
    messages = []
    prepared(shards, messages.append, weights=str(trained), split=split).close()
    text = f"warning: the weights {trained / 'best.pt'} were trained on split grouped, whose train "
    assert (text in messages[0]) == is_warned


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, ""),
        ({"input": "diff"}, "were trained with input=rgb (here diff): they fit and compute"),
        (
            {"model_options": "width=4,temporal_stride=1,stem_pool=true"},
            "were trained with temporal_stride=2 (here 1), stem_pool=False (here True): they fit",
        ),
    ],
)
def test_weights_that_fit_a_network_and_mean_something_else_in_it_are_warned_of(
    shards, trained, options, text
):
    messages = []
    prepared(shards, messages.append, weights=str(trained), **options).close()
    assert text in messages[0]
    assert ("they fit and compute" in messages[0]) == bool(text)


def test_weights_of_rgb_name_the_input_where_they_do_not_fit(shards, trained):
    with pytest.raises(models.WeightsError, match=r"with --model-options 'input=rgb,width=4'$"):
        prepared(shards, weights=str(trained), input="rgb+diff")


@pytest.mark.parametrize(("weights", "is_said"), [(False, True), (True, False)])
def test_a_frozen_part_of_random_weights_is_said(shards, trained, weights, is_said):
    messages = []
    more = {"weights": str(trained)} if weights else {}
    prepared(shards, messages.append, freeze="layer1", **more).close()
    assert ("note: --freeze layer1 keeps random weights" in messages[0]) == is_said


@pytest.mark.parametrize(("size", "is_said"), [(16, False), (64, True)])
def test_stored_frames_that_are_scaled_up_are_said(shards, size, is_said):
    messages = []
    prepared(shards, messages.append, size=size).close()
    text = "note: the shards hold frames of 20x24, which are scaled up to 73x98: a smaller --size"
    assert (text in messages[0]) == is_said


def test_a_resumed_run_does_not_need_the_weights_it_started_from(shards, trained, tmp_path):
    first, second = shutil.copytree(trained, tmp_path / "a"), tmp_path / "b"
    assert train(shards, second, "--epochs", 1, "--weights", first).exit_code == 0
    shutil.rmtree(first)
    assert har_train("--resume", second, "--epochs", 2).exit_code == 0


def test_colorful_cached_smoothed_runs_in_blocks_train(shards, tmp_path):
    more = ["--cutmix-alpha", 0.2, "--brightness", 0.3, "--saturation", 0.3, "--cache", "ram"]
    more += ["--shuffle-block-size", 4, "--max-corrupt", 1, "--label-smoothing", 0.1]
    result = train(shards, tmp_path / "run", *more, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "cutmix_alpha = 0.2" in (tmp_path / "run" / "config.toml").read_text()
    assert re.search(r"shuffle blocks of 4 clips: quality \d\.\d\d of 1", result.output)


def test_sync_bn_replaces_the_batch_norms(shards):
    state = prepared(shards, sync_bn=True)
    state.close()
    kinds = {type(module).__name__ for module in state.model.modules()}
    assert "SyncBatchNorm" in kinds
    assert "BatchNorm3d" not in kinds
    ranks = DistributedContext(rank=0, world_size=2)
    with pytest.raises(ConfigError, match="--sync-bn works on GPUs, and these 2 ranks are on the"):
        setup.convert_norms(state.model, torch.device("cpu"), ranks)


def test_the_config_of_a_run_has_what_its_model_options_say(shards):
    options = "width=4,input=diff,dropout=0.5"
    state = prepared(shards, preset="modern", dropout=0.2, hflip=0.5, model_options=options)
    state.close()
    assert (state.config.input, state.config.dropout) == ("diff", 0.5)


def test_class_weights_are_inverse_to_the_train_counts(shards):
    manifest = load_manifest(shards)
    split = splits.make_split(manifest, "grouped")
    uneven = splits.Split("grouped", 0, "", split.train[[0, 1, 2, 6]], split.val, split.test, 0.0)
    weights = setup.class_weights(Config(), manifest, uneven, torch.device("cpu")).tolist()
    counts = np.bincount(manifest.index["label"][uneven.train], minlength=3)
    assert weights == pytest.approx([4 / (3 * count) if count else 0 for count in counts])


def test_padding_does_not_count_in_loss_or_metrics(shards):
    """Five clips of which two are padding give the gradient and the sums of the three alone."""
    torch.manual_seed(0)
    clips, labels = torch.randn(5, 3, 4, 16, 16), torch.tensor([0, 1, 2, 0, 1])
    gradients = []
    for size in (5, 3):
        state = prepared(shards, optimizer="sgd", class_weights="none")
        state.model.eval()  # batch norm would mix the clips
        valid = torch.arange(size) < 3
        batch = DeviceBatch(clips[:size], labels[:size], labels[:size], valid, 0.0, [], 0)
        step.train_step(state, batch, update_weights=False)
        state.close()
        gradients.append(state.model.fc.weight.grad.clone())
        assert state.train_metrics.compute()["count"] == 3
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    ("batch_size", "parts"),
    [(6, 3), (8, 2), (12, 3)],  # 18 train clips: groups of 3; 2, 2, 1 and padding; 3, 2 and padding
)
@pytest.mark.parametrize("class_weights", [None, [0.25, 1.0, 4.0]])
def test_accumulation_trains_as_the_whole_batch_does(
    shards, monkeypatch, batch_size, parts, class_weights
):
    """The weights after an epoch, batch norm in eval so that clips do not mix."""
    monkeypatch.setattr(torch.nn.Module, "train", lambda self, mode=True: self)
    weights = []
    for accum in (1, parts):
        state = prepared(
            shards, batch_size=batch_size, grad_accum_steps=accum, optimizer="sgd", lr=0.1
        )
        state.class_weights = None if class_weights is None else torch.tensor(class_weights)
        for module in state.model.modules():
            module.training = False
        loop.train_epoch(state, SignalWatch())
        state.close()
        weights.append(state.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)


def test_modern_preset_trains_and_evaluates_the_average(shards, tmp_path):
    out = tmp_path / "run"
    result = train(shards, out, "--preset", "modern", "--zero-init")
    assert result.exit_code == 0, result.output
    state, last = checkpoint.load(out / "best.pt"), checkpoint.load(out / "last.pt")
    assert state["config"]["ema_decay"] == 0.99
    assert not torch.equal(last["train_model"]["fc.weight"], last["model"]["fc.weight"])
    assert state["model_options"]["zero_init_residual"] is True
    groups = state["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
@pytest.mark.parametrize("model", ["resnet3d", "convlstm"])
def test_a_compiled_run_trains_as_the_plain_one(shards, tmp_path, model):
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        result = train(shards, tmp_path / name, *more, "--preset", "modern", model=model)
        assert result.exit_code == 0, result.output
    plain, compiled = (checkpoint.load(tmp_path / n / "last.pt") for n in ("plain", "compiled"))
    assert compiled["config"]["compile"] is True
    for part in ("model", "train_model"):
        for name, value in plain[part].items():
            torch.testing.assert_close(compiled[part][name], value, rtol=1e-3, atol=1e-5)


def test_a_compiler_that_fails_is_one_sentence(shards, tmp_path, monkeypatch):
    def fail(*_):
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no C++"), None)

    monkeypatch.setattr(loop, "train_step", fail)
    result = train(shards, tmp_path / "run", "--compile")
    assert result.exit_code == 2
    assert "--compile fails here (BackendCompilerFailed: " in message(result)


def test_curves_that_cannot_be_drawn_do_not_end_a_training(shards, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(loop, "plot_model_curves", fail)
    out = tmp_path / "run"
    result = train(shards, out)
    assert result.exit_code == 0, result.output
    assert message(result).count("the curves cannot be drawn (RuntimeError: no font)") == 1
    assert len(metrics_of(out)) == 2
    assert (out / "best.pt").exists()


def test_a_backend_of_a_notebook_that_is_not_installed_here_is_left_out():
    environment = {**os.environ, "MPLBACKEND": "module://no_such_package.backend_inline"}
    code = "import har.training.loop, matplotlib; print(matplotlib.get_backend())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip().lower()) == (0, "agg"), done.stderr


@pytest.mark.parametrize(
    ("augment", "said"), [(None, []), (False, ["--hflip, --rand-augment"])], ids=["on", "off"]
)
def test_options_of_an_augmentation_that_is_off_are_named(shards, augment, said):
    lines = []
    settings = {"augment": augment, "hflip": 0.5, "rand_augment": 9}
    prepared(shards, lines.append, **settings).close()
    start = "note: without --augment these do nothing: "
    named = [line.removeprefix(start) for line in lines[-1].splitlines() if line.startswith(start)]
    assert named == said


@pytest.mark.parametrize(("model", "is_said"), [("resnet3d", False), ("convlstm", True)])
def test_zero_init_of_a_model_that_has_none_is_named(shards, model, is_said):
    lines = []
    options = OPTIONS[model]
    prepared(shards, lines.append, model=model, model_options=options, zero_init=True).close()
    text = f"note: --zero-init does nothing: {model} has no such option"
    assert (text in lines[-1].splitlines()) is is_said


def test_cache_ram_keeps_the_val_clips_too(shards, monkeypatch):
    state = prepared(shards, cache="ram", workers=0)
    read, offsets = reader._read_at, []
    monkeypatch.setattr(reader, "_read_at", lambda *a: offsets.append(a[2]) or read(*a))
    try:
        first, again = (
            [batch.labels.tolist() for batch in state.val_loader.epoch()] for _ in range(2)
        )
        assert first == again
        assert sorted(offsets) == sorted(set(offsets))
        assert len(offsets) == len(state.split.val)
    finally:
        state.close()

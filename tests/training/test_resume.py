"""A run that was stopped or killed at any moment goes on and ends as if nothing had happened."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from made_shards import make_shards
from own_model import NAME, forget_project, write_project
from tiny_train import har_train, losses_of, message, metrics_of, stop_after

from har.training.config import Config
from har.training.optim import BestEpoch, LrScheduler
from har.training.runtime import checkpoint, run_dir, signals

OPTIONS = [
    "--model", "resnet3d", "--model-options", "width=4,dropout=0.3", "--frames", "2",
    "--size", "16", "--batch-size", "4", "--epochs", "3", "--device", "cpu", "--precision",
    "fp32", "--deterministic", "--frame-stride", "1-2", "--preset", "modern",
    "--mixup-alpha", "0.2", "--brightness", "0.2", "--contrast", "0.2", "--saturation", "0.2",
    "--save-every-minutes", "0.0001",
]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    result = har_train("--shards", shards, "--out", out, *OPTIONS)
    assert result.exit_code == 0, result.output
    return out


def assert_same_run(one, two):
    assert losses_of(one) == losses_of(two)
    for name in ("best.pt", "last.pt"):
        a, b = checkpoint.load(one / name), checkpoint.load(two / name)
        for part in ("model", "train_model"):
            assert all(torch.equal(a[part][key], b[part][key]) for key in a[part]), (name, part)
        assert a["best"] == b["best"]
        assert a["early_stopping"] == b["early_stopping"]


@pytest.mark.parametrize(
    "steps",  # first step, end of an epoch, amid the second; then others
    [1, 5, 8, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (3, 6, 11))],
)
def test_sigterm_saves_and_resume_is_bit_equal(shards, undisturbed, tmp_path, monkeypatch, steps):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        result = har_train("--shards", shards, "--out", out, *OPTIONS)
    assert result.exit_code == 128 + signal.SIGTERM
    assert f"next: har-train --resume {out}" in result.output
    progress = checkpoint.load(out / "last.pt")["progress"]
    per_epoch = 5  # 18 train clips in batches of 4
    assert (progress["epoch"] - 1) * per_epoch + progress["step"] == steps
    result = har_train("--resume", out)
    assert result.exit_code == 0, result.output
    assert_same_run(out, undisturbed)


def test_a_run_of_an_own_model_with_an_own_rate_of_its_head_resumes_bit_equal(
    shards, tmp_path, monkeypatch
):
    write_project(tmp_path, monkeypatch)
    options = [
        "--shards", shards, "--model", NAME, "--model-options", "dropout=0.3", "--freeze",
        "features", "--optimizer", "sgd", "--momentum", 0.5, "--lr", 0.01, "--lr-head", 0.1,
        "--lr-scheduler", "step", "--step-size", 1, "--gamma", 0.5, "--save-every-minutes", 0,
        *OPTIONS[4:17],
    ]  # fmt: skip
    assert har_train(*options, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert har_train(*options, "--out", "run").exit_code == 128 + signal.SIGTERM
    forget_project(monkeypatch)
    result = har_train("--resume", "run")
    assert result.exit_code == 0, result.output
    whole, run = Path("whole"), Path("run")
    assert losses_of(whole) == losses_of(run)
    states = [checkpoint.load(folder / "last.pt") for folder in (whole, run)]
    assert all(torch.equal(states[0]["model"][k], v) for k, v in states[1]["model"].items())
    assert [line["lr_head"] for line in losses_of(run)] == [0.1, 0.05, 0.025]
    assert states[1]["model_name"] == NAME
    assert 'model = "mynet:Tiny"' in (run / "config.toml").read_text()


def kill_soon_after_a_save(command, last, seconds):
    """SIGKILL the command `seconds` after it next wrote `last`; True where it still ran."""
    before = last.stat().st_mtime_ns if last.exists() else 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
        time.sleep(0.005)
    time.sleep(seconds)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


@pytest.mark.slow
def test_sigkill_at_random_moments_ends_bit_equal(shards, undisturbed, tmp_path):
    """Every step saves, so the moments lie in steps, evaluations and half-written checkpoints."""
    out = tmp_path / "run"
    code = [sys.executable, "-c", "from har.training.cli.train import train_main; train_main()"]
    command = [*code, "--shards", str(shards), "--out", str(out), *OPTIONS]
    random.seed(0)
    kills = 0
    while kill_soon_after_a_save(command, out / "last.pt", random.uniform(0, 0.15)):
        kills += 1
        command = [*code, "--resume", str(out)]
    assert kills >= 3
    result = har_train("--resume", out)
    assert result.exit_code == 0, result.output
    assert_same_run(out, undisturbed)


def test_a_second_signal_is_not_held_back():
    before = signal.getsignal(signal.SIGTERM)
    with signals.watch_signals() as seen:
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_offered(undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "copy")
    last = out / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    result = har_train("--resume", out)
    assert result.exit_code == 2
    assert "last.pt is damaged" in result.output
    assert f"--resume {out / 'previous.pt'}" in result.output
    result = har_train("--resume", out / "previous.pt")
    assert result.exit_code == 0, result.output
    assert_same_run(out, undisturbed)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--lr", "0.1"], "--lr cannot change in a resumed run"),
        (["--out", "elsewhere"], "leave out --out"),
        (["--epochs", "0"], "--epochs 0"),
        (["--epochs", "2"], "--epochs 2 is less than the 3 epochs that"),
        (["--shards", "other"], "has changed since the run began"),
        (["--resume", "empty"], "no checkpoint"),
    ],
)
def test_what_cannot_be_resumed_is_refused(undisturbed, tmp_path, monkeypatch, more, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if "other" in more:
        make_shards(tmp_path / "other", groups=6)
    result = har_train("--resume", undisturbed, *more)
    assert result.exit_code == 2
    assert text in message(result)


def test_a_finished_run_says_so_and_goes_on_when_given_more_epochs(undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "copy")
    assert "stopped: all 3 epochs are done" in har_train("--resume", out).output
    assert_same_run(out, undisturbed)
    result = har_train("--resume", out, "--epochs", 4)
    assert result.exit_code == 0
    assert len(losses_of(out)) == 4
    # 3 epochs of warm-up, and the cosine ended in the step after it: what was its end is its peak
    lr = checkpoint.load(out / "last.pt")["lr_scheduler"]["base_lrs"][0]
    told = (
        f"--epochs 4 stretches the cosine of 3 epochs: the learning rate was {lr:.1e} and goes on "
        f"from {lr:.1e}; for a schedule from its start, with these weights and a new classifier: "
        f"har-train --weights {out}"
    )
    assert told in message(result)
    assert "the cosine" not in har_train("--resume", out).output


@pytest.mark.parametrize(("epochs", "factor"), [(10, 0.5), (6, 0.0)])
def test_a_stretched_cosine_says_where_the_learning_rate_was_and_goes_on(epochs, factor):
    """After 5 of 5 epochs the rate is 0; of 10 epochs that is half the way."""

    def make(epochs):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
        config = Config(lr_scheduler="cosine", epochs=epochs)
        return optimizer, LrScheduler(config, optimizer, num_batches=4)

    optimizer, scheduler = make(5)
    for _ in range(20):
        optimizer.step()
        scheduler.step()
    resumed_optimizer, resumed = make(epochs)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    rate = 0.02 * (factor or 0.5 * (1 + np.cos(np.pi * 5 / 6)))
    assert f"was 0.0e+00 and goes on from {rate:.1e};" in resumed.describe_change(5)
    resumed_optimizer.step()
    resumed.step()
    assert resumed.lr == pytest.approx(0.01 * (1 + np.cos(np.pi * 21 / (4 * epochs))))
    assert resumed.describe_change(epochs) is None


def test_the_docs_name_what_may_change_in_a_resumed_run():
    page = Path(__file__).parents[2] / "docs" / "training.md"
    sentence = re.search(r"what may: (.*?)\. ", " ".join(page.read_text().split()))[1]
    names = re.findall(r"--([a-z-]+)", sentence)
    assert {name.replace("-", "_") for name in names} == set(run_dir.RESUMABLE)


# ------------------------------------------------------------------ from another checkpoint


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def behind(shards, tmp_path, monkeypatch):
    """A finished run of three epochs, of which the first is the best; so it is in later ones."""

    def update(best, epoch, val_acc, val_loss):
        if epoch == 1:
            best.epoch, best.val_acc, best.val_loss = epoch, val_acc, val_loss
        return epoch == 1

    monkeypatch.setattr(BestEpoch, "update", update)
    result = har_train("--shards", shards, "--out", tmp_path / "behind", *OPTIONS)
    assert result.exit_code == 0, result.output
    return tmp_path / "behind"


def test_a_checkpoint_before_the_last_is_refused_in_its_folder(behind):
    out, before = behind, contents(behind)
    result = har_train("--resume", out / "best.pt", "--epochs", 5)
    assert result.exit_code == 2
    told = message(result)
    assert f"would drop what {out} has trained since: it ends with epoch 1 and last.pt " in told
    assert f"go on with --resume {out}, or from best.pt in a new folder" in told
    assert f"--resume {out / 'best.pt'} --out FOLDER" in told
    assert contents(out) == before
    result = har_train("--resume", out / "previous.pt")
    assert "would drop what" in message(result)


def test_a_best_checkpoint_goes_on_in_a_new_folder(behind, tmp_path):
    out, before, new = behind, contents(behind), tmp_path / "new"
    result = har_train("--resume", out / "best.pt", "--out", new, "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert contents(out) == before
    assert_same_run(new, out)
    refused = har_train("--resume", out / "last.pt", "--out", tmp_path / "other")
    assert f"is for a checkpoint of a best epoch, and {out / 'last.pt'} is none" in message(refused)
    refused = har_train("--resume", out / "best.pt", "--out", new)
    assert f"the run folder {new} already exists" in message(refused)
    assert not (tmp_path / "other").exists()


def test_a_new_folder_holds_the_checkpoint_from_its_start(behind, tmp_path, monkeypatch):
    out, new = behind, tmp_path / "new"
    stop_after(monkeypatch, 1)
    har_train("--resume", out / "best.pt", "--out", new)
    assert checkpoint.load(new / "best.pt")["epoch"] == 1
    assert checkpoint.load(new / "last.pt")["progress"]["step"] == 1
    assert [line["epoch"] for line in metrics_of(new)] == [1]

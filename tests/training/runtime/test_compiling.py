"""--compile: kept where it gains and is right; where it fails the run goes on without."""

import os
import shutil
import signal

import pytest
import torch
from click.testing import CliRunner
from made_shards import make_shards
from torch import nn

from har.training import config, loop
from har.training import step as step_module
from har.training.cli.train import train_main
from har.training.runtime import checkpoint, compiling
from har.training.runtime.compiling import Trial
from har.training.runtime.distributed import DistributedContext

CPU = torch.device("cpu")
NET = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.Flatten(), nn.LazyLinear(3))
CLIPS = torch.randn(4, 3, 4, 6, 6)
NET(CLIPS)


def settled(monkeypatch, wanted, *, plain=1.0, fast=0.5, wrong=0.0, steps=10**6):
    """-> `choose` where steps take so many seconds and compiled gradients are `wrong`."""
    made = compiling.compiled(NET)  # compiles at its first call, which never comes here
    monkeypatch.setattr(compiling, "compiled", lambda _: made)
    monkeypatch.setattr(step_module, "dummy_step", lambda *_: torch.ones(2))

    def timed(model, _):
        return (plain, torch.ones(2)) if model is NET else (fast, torch.ones(2) * (1 + wrong))

    monkeypatch.setattr(compiling, "_time", timed)
    return compiling.choose(wanted, NET, Trial(CLIPS, torch.float32, steps), DistributedContext())


@pytest.mark.parametrize(
    ("wanted", "more", "kept", "said"),
    [
        ("auto", {"fast": 0.5}, True, "compiled: 2.00x"),
        ("auto", {"fast": 0.97}, False, "not compiled: 1.03x"),
        ("auto", {"fast": 0.5, "steps": 100}, False, "100 s of training steps would not repay it"),
        ("on", {"fast": 2.0, "steps": 100}, True, "compiled: 0.50x"),
        ("on", {"wrong": 0.9}, False, "its gradient is 90% off"),
        ("auto", {"wrong": float("nan")}, False, "its gradient is nan% off"),
    ],
)
def test_it_is_kept_where_it_gains_and_is_right(monkeypatch, wanted, more, kept, said):
    decided, why = settled(monkeypatch, wanted, **more)
    assert decided is kept
    assert said in why


def test_a_compiler_that_fails_is_a_line_and_training_goes_on_without(monkeypatch):
    def fail(*_):
        raise RuntimeError("InvalidCxxCompiler: no g++ found\nmore lines")

    monkeypatch.setattr(compiling, "compiled", fail)
    kept, why = compiling.choose("on", NET, Trial(CLIPS, torch.float32, 1), DistributedContext())
    assert not kept
    assert why == "not compiled, it fails here: RuntimeError: InvalidCxxCompiler: no g++ found"


def test_a_trial_leaves_the_model_as_it_was():
    before = {name: value.clone() for name, value in NET.state_dict().items()}
    gradient = step_module.dummy_step(NET, CLIPS, torch.float32)
    assert gradient.norm() > 0
    assert all(p.grad is None for p in NET.parameters())
    assert all(torch.equal(before[name], value) for name, value in NET.state_dict().items())


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("compiling") / "set").root


def train(*more):
    return CliRunner().invoke(train_main, [str(word) for word in more])


def fresh(shards, out, *more):
    return train(
        "--model", "resnet3d", "--model-options", "width=4,dropout=0.3", "--shards", shards,
        "--out", out, "--frames", "2", "--size", "16", "--batch-size", "4", "--epochs", "2",
        "--device", "cpu", "--precision", "fp32", "--preset", "modern", "--deterministic", *more,
    )  # fmt: skip


def test_auto_is_off_on_the_cpu_and_the_run_says_so_in_its_config(shards, tmp_path):
    assert fresh(shards, tmp_path / "run", "--epochs", "1").exit_code == 0
    assert config.from_toml(tmp_path / "run" / "config.toml").compile == "off"


def test_on_without_a_compiler_trains_and_is_off_from_then_on(shards, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiling, "compiled", fail)
    result = fresh(shards, tmp_path / "run", "--compile", "on", "--epochs", "1")
    assert result.exit_code == 0, result.output
    assert "not compiled, it fails here: RuntimeError: no C++ compiler" in result.output
    assert checkpoint.load(tmp_path / "run" / "last.pt")["config"]["compile"] == "off"


def test_the_decision_cannot_change_in_a_resumed_run(shards, tmp_path):
    assert fresh(shards, tmp_path / "run", "--epochs", "1").exit_code == 0
    result = train("--resume", tmp_path / "run", "--compile", "on")
    assert result.exit_code == 2
    assert "--compile cannot change in a resumed run" in result.output


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run_trains_alike_and_resumes_bit_equal(shards, tmp_path, monkeypatch):
    plain, whole, cut = tmp_path / "plain", tmp_path / "whole", tmp_path / "cut"
    assert fresh(shards, plain).exit_code == 0
    result = fresh(shards, whole, "--compile", "on")
    assert result.exit_code == 0, result.output
    assert "compiled: " in result.output
    one, two = checkpoint.load(plain / "last.pt"), checkpoint.load(whole / "last.pt")
    for part in ("model", "trained"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-3, atol=1e-5)
    real, done = loop.train_step, []

    def step(*arguments):
        done.append(1)
        if len(done) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        assert fresh(shards, cut, "--compile", "on").exit_code == 128 + signal.SIGTERM
    assert train("--resume", cut).exit_code == 0
    three = checkpoint.load(cut / "last.pt")
    assert three["config"]["compile"] == "on"
    for part in ("model", "trained"):
        assert all(torch.equal(two[part][name], three[part][name]) for name in two[part])


@pytest.mark.slow
@needs_compiler
def test_the_convlstm_recomputing_its_gates_trains_compiled(shards, tmp_path):
    """Its gradient is compared with the plain one before it is kept, so `compiled` means right."""
    result = fresh(
        shards, tmp_path / "run", "--model", "convlstm", "--model-options", "hidden=[4]",
        "--compile", "on", "--epochs", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "compiled: " in result.output, result.output

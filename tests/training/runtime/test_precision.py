"""Which precision: probed on the device, chosen by error and speed, kept by the run."""

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_train import har_train, message, metrics_of, prepared, train

from har.training import config, machine
from har.training.config import ConfigError
from har.training.runtime import checkpoint, precision
from har.training.runtime.precision import Probe

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture
def probes(monkeypatch):
    """Answers of the probe by dtype, in place of its own."""
    answers = {}
    monkeypatch.setattr(
        precision, "probe_precision", lambda dtype, device, workaround=True: answers[dtype]
    )
    return answers


@pytest.mark.parametrize(
    ("answers", "auto"),
    [
        ({BF16: Probe(0.004, 2.0)}, BF16),  # right and faster
        ({BF16: Probe(0.004, 0.9)}, FP32),  # right and slower
        ({BF16: Probe(1e30, 2.0)}, FP32),  # faster and wrong
        ({BF16: Probe(float("inf"), 0.0)}, FP32),
        ({BF16: Probe(0.004, 1.8), FP16: Probe(5e-4, 2.0)}, BF16),  # needs no loss scaling
        ({BF16: Probe(0.004, 1.5), FP16: Probe(5e-4, 2.0)}, FP16),
        ({BF16: Probe(0.7, 2.0), FP16: Probe(5e-4, 1.1)}, FP16),
        ({BF16: Probe(0.7, 2.0), FP16: Probe(5e-4, 0.9)}, FP32),
        ({FP16: Probe(5e-4, 3.0)}, FP16),  # a T4
        ({}, FP32),
    ],
)
def test_auto_takes_the_fastest_that_is_right(answers, auto):
    assert precision.fastest(answers) == auto


@pytest.mark.parametrize(
    ("device", "has_units", "dtypes"),
    [(CPU, True, [BF16]), (CUDA, True, [BF16, FP16]), (CUDA, False, [FP16])],
)
def test_emulated_bf16_of_a_gpu_is_no_candidate(monkeypatch, device, has_units, dtypes):
    def is_bf16_supported(including_emulation=True):
        return has_units or including_emulation

    module = SimpleNamespace(
        is_bf16_supported=is_bf16_supported, device=lambda _: contextlib.nullcontext()
    )
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    assert precision.candidates(device) == dtypes


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_precision_asked_for_is_refused_where_wrong_and_kept_with_a_line_where_slow(name, probes):
    lines, dtype = [], precision.DTYPES[name]
    probes[dtype] = Probe(0.7, 2.0)
    with pytest.raises(ConfigError, match=rf"--precision {name} gives wrong .*--precision fp32"):
        precision.select_precision(name, CPU)
    probes[dtype] = Probe(0.004, 0.04)
    assert precision.select_precision(name, CPU, lines.append) == dtype
    assert "has 0.04 of float32's speed on this machine (cpu); the run keeps it" in lines[0]
    probes[dtype] = Probe(0.004, 1.5)
    assert precision.select_precision(name, CPU, lines.append) == dtype
    assert len(lines) == 1


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_the_probe_sees_what_it_is_for(dtype):
    probe = precision.probe_precision(dtype, CPU)
    assert probe.is_right
    assert probe.speedup > 0


def test_a_device_that_has_not_the_type_at_all_is_as_wrong_as_can_be(monkeypatch):
    def missing(*_):
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(precision, "time_weight_gradient", missing)
    assert precision.probe_precision(BF16, CPU) == Probe(float("inf"), 0.0)


def test_a_run_keeps_what_auto_gave_whatever_a_later_machine_says(shards, tmp_path, probes):
    out = tmp_path / "run"
    probes[BF16] = Probe(0.004, 2.0)
    assert train(shards, out, "--precision", "auto", "--epochs", 1).exit_code == 0
    assert config.make({}, out / "config.toml").precision == "bf16"
    assert checkpoint.load(out / "last.pt")["config"]["precision"] == "bf16"
    probes[BF16] = Probe(0.004, 0.02)
    result = har_train("--resume", out, "--epochs", 2)
    assert result.exit_code == 0, result.output
    assert "--precision bf16 has 0.02 of float32's speed on this machine" in message(result)
    assert json.loads((out / "environment.json").read_text())["precision"] == "bfloat16"


def test_a_run_of_before_goes_on_in_the_precision_that_its_folder_names(trained, tmp_path, probes):
    """Its config says "auto" and recompute None, and its checkpoint knows no loss scale."""
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    state = checkpoint.load(out / "last.pt")
    state["config"] |= {"precision": "auto", "recompute": None}
    state["progress"].pop("skipped_steps")
    checkpoint.save(state, out / "last.pt")
    probes[BF16] = Probe(0.004, 9.0)
    result = har_train("--resume", out, "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert config.make({}, out / "config.toml").precision == "fp32"


def test_fp16_trains_as_fp32_does_and_its_loss_scale_is_in_the_checkpoint(shards, tmp_path):
    losses = {}
    for name in ("fp32", "fp16"):
        out = tmp_path / name
        more = ["--precision", name, "--preset", "modern", "--grad-accum-steps", 2, "--zero-init"]
        more += ["--mixup-alpha", 0.2, "--brightness", 0.2, "--contrast", 0.2, "--saturation", 0.2]
        result = train(shards, out, *more)
        assert result.exit_code == 0, result.output
        losses[name] = [line["train_loss"] for line in metrics_of(out)]
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=2e-3)
    assert losses["fp16"] != losses["fp32"]
    assert checkpoint.load(out / "last.pt")["loss_scaler"]["scale"] == 65536
    assert "loss_scaler" not in checkpoint.load(tmp_path / "fp32" / "last.pt")


def test_fp16_goes_on_with_its_loss_scale_and_its_skipped_steps(shards):
    state = prepared(shards, precision="fp16", preset="modern", clip_grad=1.0)
    state.close()
    state.loss_scaler.load_state_dict(
        {**state.loss_scaler.state_dict(), "scale": 512.0, "num_skipped": 7}
    )
    state.progress.skipped_steps = 3
    saved = state.state_dict()
    again = prepared(shards, precision="fp16", preset="modern", clip_grad=1.0)
    again.close()
    again.load_state_dict(saved)
    assert again.loss_scaler.state_dict() == state.loss_scaler.state_dict()
    assert again.progress.skipped_steps == 3


def test_what_auto_gives_is_alike_on_all_ranks(probes, monkeypatch):
    probes[BF16] = Probe(0.004, 2.0)
    ctx = SimpleNamespace(world_size=2, local_rank=0, broadcast=lambda _: "fp32")
    resolved, _ = machine.resolve_machine(
        config.Config(device="cpu").resolve(), lambda _: None, ctx
    )
    assert resolved.precision == "fp32"

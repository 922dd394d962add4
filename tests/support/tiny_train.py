"""Commands as a user runs them, and har-train on a tiny network and set."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from har.training import loop, setup
from har.training.cli.results import eval_main
from har.training.cli.train import train_main
from har.training.config import Config
from har.training.state import Task, TrainState
from har.training.step import CLASSIFICATION

OPTIONS = {
    "resnet3d": "width=4",
    "r2plus1d": "width=4",
    "convlstm": "hidden=[4],stem_channels=4",
    "r3d": "",
}


def run_command(command: click.Command, *words: Any, **more: Any) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words], **more)


def har_train(*words: Any) -> Result:
    return run_command(train_main, *words)


def har_eval(*words: Any) -> Result:
    return run_command(eval_main, *words)


def words(shards: Path, out: Path, *more: Any, model: str = "resnet3d") -> list[str]:
    """The options of two epochs of three steps; `more` overrides."""
    given = (
        "--model", model, "--shards", shards, "--out", out, "--frames", 4, "--size", 16,
        "--batch-size", 6, "--epochs", 2, "--device", "cpu", "--precision", "fp32",
        "--model-options", OPTIONS[model], *more,
    )  # fmt: skip
    return [str(word) for word in given]


def train(shards: Path, out: Path, *more: Any, model: str = "resnet3d") -> Result:
    return har_train(*words(shards, out, *more, model=model))


def prepared(
    shards: Path,
    log: Callable[[str], None] = lambda _: None,
    config: Config | None = None,
    task: Task = CLASSIFICATION,
    **settings: Any,
) -> TrainState:
    """The state of such a run, or of one by `config`, before its first step."""
    given = {
        "shards": str(shards), "model_options": OPTIONS["resnet3d"], "frames": 4, "size": 16,
        "batch_size": 6, "precision": "fp32", "device": "cpu",
    }  # fmt: skip
    config = config or Config(**{**given, **settings})
    return setup.prepare(config, Path("unused"), log, task=task)


def metrics_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses_of(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock or the process."""
    clock = ("seconds", "clips_per_s", "data_wait", "h2d", "compute", "peak_bytes")
    return [{k: v for k, v in line.items() if k not in clock} for line in metrics_of(out)]


def message(result: Result) -> str:
    """The command's output on one line, whatever the width it was wrapped to."""
    return " ".join(result.output.split())


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the run get a SIGTERM in its `steps`-th step."""
    real, done = loop.train_step, [0]

    def step(*arguments: Any, **more: Any) -> Any:
        done[0] += 1
        if done[0] == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **more)

    monkeypatch.setattr(loop, "train_step", step)

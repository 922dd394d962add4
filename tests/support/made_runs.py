"""Run folders with made-up figures, for the tests of the report."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from tiny_train import metrics_of

from har.training.evaluation import Predictions, Probabilities, list_probabilities, summarize
from har.training.evaluation.probabilities import save_probabilities
from har.training.plots import DISPLAY_NAMES

CLASSES = ["Punch", "Wave", "YoYo"]
SPLIT = {"name": "grouped", "digest": "abcd1234abcd1234", "seed": 0, "leak": 0.0}
# A class as no viewer of Markdown or HTML may take it, and its Markdown.
MARKED_UP = "$x_1^2$ & <b>50%</b>|`a`*c* [d](e)~~f~~ &lt; $"
MARKED_UP_ESCAPED = r"\$x_1^2\$ & \<b>50%\</b>\|\`a\`\*c\* \[d\](e)\~\~f\~\~ \&lt; \$"
SPEEDS = {"r3d": 4, "r2plus1d": 7, "resnet3d": 8, "convlstm": 14}


def metric_lines(model: str, epochs: int, seed: int = 0) -> list[dict[str, Any]]:
    """Falling losses and rising accuracies with some noise, different for each model and seed."""
    random = np.random.default_rng([seed, SPEEDS[model]])
    lines = []
    for epoch in range(1, epochs + 1):
        rest = math.exp(-epoch / SPEEDS[model])
        lines.append(
            {
                "epoch": epoch,
                "train_loss": 3 * rest + 0.1 + 0.05 * random.random(),
                "train_acc": 1 - 0.9 * rest,
                "val_loss": 3 * rest + 0.3 + 0.2 * random.random(),
                "val_acc": 0.85 * (1 - rest) + 0.05 * random.random(),
                "lr": 1e-3,
                "clips_per_s": 10 * SPEEDS[model] + random.random(),
                "data_wait": 0.01,
                "peak_bytes": 2**30 * SPEEDS[model],
                "seconds": 3.0,
            }
        )
    return lines


def evaluation(
    folder: Path, model: str, epoch: int, split: dict, classes: list[str], right: float, clip: int
) -> tuple[dict[str, Any], Probabilities]:
    """What har-eval would write for answers of which about the share `right` is right."""
    random = np.random.default_rng(SPEEDS[model])
    K, N = len(classes), 20 * len(classes)
    labels = np.arange(N) % K
    said = np.where(random.random(N) < right, labels, random.integers(0, K, N))
    P = np.full((N, K), 0.2 / K, np.float32)
    P[np.arange(N), said] += 0.8
    losses = -np.log(P[np.arange(N), labels])
    predictions = Predictions(np.arange(N), P, labels, losses)
    keys = [f"v_{classes[label]}_g{n // K:02d}_c{clip:02d}" for n, label in enumerate(labels)]
    probabilities = list_probabilities(predictions, videos=np.arange(N), keys=keys, classes=classes)
    result = {
        "run": folder.name,
        "model": model,
        "checkpoint": "best.pt",
        "epoch": epoch,
        "on": "test",
        "split": split,
        "views": 1,
        "multiply_adds": 40_700_000_000,
        **summarize(probabilities, float(losses.mean())),
    }
    return result, probabilities


def make(
    folder: Path,
    model: str,
    *,
    epochs: int = 12,
    seed: int = 0,
    split: dict | None = None,
    classes: list[str] | None = None,
    device: str = "NVIDIA H200",
    right: float | None = None,
    manifest_digest: str = "ab" * 32,
    with_probabilities: bool = False,
    clip: int = 1,
    **config: Any,
) -> Path:
    """A finished, evaluated run folder (without checkpoint and pictures).

    The evaluation is RUN/eval.json, as of earlier versions, without probabilities unless told.
    clip: in the keys of the videos that it was tested on.
    """
    split, classes = split or SPLIT, classes or CLASSES
    folder.mkdir(parents=True)
    lines = metric_lines(model, epochs, seed)
    best = max(lines, key=lambda line: line["val_acc"])
    summary = {
        "model": model,
        "parameters": 33_000_000 + SPEEDS[model],
        "stop_reason": f"all {epochs} epochs are done",
        "epochs": epochs,
        "best_epoch": best["epoch"],
        "best_val_acc": best["val_acc"],
        "seconds": 60.0 * SPEEDS[model],
        "split": split,
        "classes": classes,
        "manifest_digest": manifest_digest,
    }
    share = 0.95 - 0.04 * list(DISPLAY_NAMES).index(model) if right is None else right
    tested, probabilities = evaluation(folder, model, best["epoch"], split, classes, share, clip)
    if with_probabilities:
        save_probabilities(folder / "probabilities.npz", probabilities)
    settings = {"model": model, "seed": seed, "batch_size": 8, "frames": 16, "weights": "none"}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "eval.json").write_text(json.dumps(tested))
    toml = [f"{k} = {json.dumps(v)}\n" for k, v in {**settings, **config}.items()]
    (folder / "config.toml").write_text("".join(toml))
    environment = {
        "device": device,
        "versions": {"torch": "2.10.0"},
        "commit": "0123456789abcdef",
        "command": ["/somewhere/bin/har-train", "--model", model],
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def best_line(run: Path) -> dict[str, Any]:
    """The line of metrics.jsonl with the highest validation accuracy."""
    return max(metrics_of(run), key=lambda line: line["val_acc"])


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))

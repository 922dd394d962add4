"""The training loop of all four models: `train_step`, `evaluate`, `fit`. Reads top to bottom.

uint8 batch -> device -> augmentation (all in `training.feed`) -> model -> loss -> optimizer.

Odd:
- No step waits for the device: losses and hits are summed there and read once an epoch.
- The loss that trains is weighted by class (paper, section 3.4); every loss that is reported, for
  train, val and test, is not, so that they can be compared.
- The last batch of an epoch is filled up to full size (`shards.plan`); fill-up rows carry weight
  0 in loss and metrics.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import checkpoint, figures, progress, run
from training.config import Config
from training.feed import Ready
from training.metrics import Running
from training.prepare import Log, Trainer, prepare

if TYPE_CHECKING:
    import torch
    from torch import nn


def train_step(
    model: nn.Module,
    batch: Ready,
    optimizer: torch.optim.Optimizer,
    class_weight: torch.Tensor | None,
    precision: torch.dtype,
    sums: Running,
) -> None:
    """One step. The loss is the paper's: cross entropy with class weights, reduction "mean"."""
    import torch.nn.functional as F

    logits = forward(model, batch.clips, precision)  # [b,K] float32
    losses = F.cross_entropy(logits, batch.labels, reduction="none")  # [b]
    weight = batch.valid.float()  # [b]
    if class_weight is not None:
        weight = weight * class_weight[batch.labels]
    loss = (losses * weight).sum() / weight.sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    count(sums, logits, losses, batch)


def forward(model: nn.Module, clips: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Clips [b,C,T,h,w] -> float32 logits [b,K], under autocast unless `precision` is float32."""
    import torch

    enabled = precision != torch.float32
    with torch.autocast(clips.device.type, dtype=torch.bfloat16, enabled=enabled):
        logits = model(clips)
    return logits.float()


def count(sums: Running, logits: torch.Tensor, losses: torch.Tensor, batch: Ready) -> None:
    """Add the batch's valid rows to the running sums, without waiting for the device."""
    hits = (logits.argmax(1) == batch.labels) & batch.valid
    sums.update((losses * batch.valid).sum(), hits.sum(), batch.valid.sum())


def evaluate(
    model: nn.Module, batches: Iterable[Ready], on: torch.device, precision: torch.dtype
) -> dict[str, float]:
    """Unweighted mean loss and accuracy over the valid clips: {"loss", "acc", "count"}."""
    import torch
    import torch.nn.functional as F

    model.eval()
    sums = Running(on)
    with torch.inference_mode():
        for batch in batches:
            logits = forward(model, batch.clips, precision)
            losses = F.cross_entropy(logits, batch.labels, reduction="none")
            count(sums, logits, losses, batch)
    return sums.compute()


def train_epoch(trainer: Trainer, epoch: int) -> dict[str, Any]:
    """Train one epoch and evaluate on val; -> the line of metrics.jsonl."""
    start, waited = time.perf_counter(), 0.0
    trainer.model.train()
    sums = Running(trainer.device)
    steps = progress.track(
        trainer.train.epoch(epoch), total=trainer.train.steps, what=f"epoch {epoch}"
    )
    for batch in steps:
        waited += batch.waited
        train_step(
            trainer.model, batch, trainer.optimizer, trainer.class_weight, trainer.precision, sums
        )
    trained = sums.compute()
    seconds = time.perf_counter() - start
    checked = evaluate(trainer.model, trainer.val.epoch(), trainer.device, trainer.precision)
    return {
        "epoch": epoch,
        "train_loss": trained["loss"],
        "train_acc": trained["acc"],
        "val_loss": checked["loss"],
        "val_acc": checked["acc"],
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "clips_per_s": trained["count"] / seconds,
        "data_wait": waited / seconds,
        "peak_bytes": run.peak_bytes(trainer.device),
        "seconds": time.perf_counter() - start,
    }


def fit(config: Config, folder: Path, log: Log) -> dict[str, Any]:
    """Train by `config` in the new run folder `folder`; -> what summary.json holds.

    Raises the one-sentence errors of config, shards, splits and models before anything is written.
    """
    trainer = prepare(config, folder, log)
    try:
        return _train(trainer)
    finally:
        trainer.train.close()
        trainer.val.close()


def _train(trainer: Trainer) -> dict[str, Any]:
    config, folder = trainer.config, trainer.folder
    run.start(folder, config, trainer.device, trainer.precision)
    start = time.perf_counter()
    lines: list[dict[str, Any]] = []
    reason, finite = f"all {config.epochs} epochs are done", True
    for epoch in range(1, config.epochs + 1):
        line = train_epoch(trainer, epoch)
        lines.append(line)
        trainer.log(_describe(line))
        finite = math.isfinite(line["train_loss"]) and math.isfinite(line["val_loss"])
        if not finite:
            reason = f"the loss of epoch {epoch} is not finite: try a lower --lr"
            _append(folder / "metrics.jsonl", line)
            break
        if trainer.best.update(epoch, line["val_acc"], line["val_loss"]):
            checkpoint.save(trainer.state(line), folder / "best.pt")
        trainer.plateau.step(line["val_loss"])
        stop = trainer.stop.update(line[config.monitor])
        checkpoint.save(trainer.state(line), folder / "last.pt")
        _append(folder / "metrics.jsonl", line)
        _draw(folder, config.model, lines, trainer.best.epoch)
        if stop:
            reason = (
                f"patience: {config.monitor} has not improved by {config.epsilon_increment:g} % "
                f"for {config.patience} epochs"
            )
            break
        if config.max_minutes and time.perf_counter() - start > config.max_minutes * 60:
            reason = f"time budget: {config.max_minutes:g} minutes are over"
            break
    return run.finish(trainer, reason, len(lines), time.perf_counter() - start, finite)


def _append(path: Path, line: dict[str, Any]) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def _draw(folder: Path, model: str, lines: list[dict[str, Any]], best: int) -> None:
    """Refresh the curves of the run, loss.png and acc.png."""
    curve = figures.curve(model, model, lines, best)
    for quantity in ("loss", "acc"):
        figures.model_curves(folder / f"{quantity}.png", [curve], quantity)


def _describe(line: dict[str, Any]) -> str:
    return (
        f"epoch {line['epoch']:3d}  train loss {line['train_loss']:.4f} acc {line['train_acc']:.4f}"
        f"  val loss {line['val_loss']:.4f} acc {line['val_acc']:.4f}  lr {line['lr']:.1e}"
        f"  {line['clips_per_s']:.1f} clips/s  {line['data_wait']:.1%} waiting for data"
    )

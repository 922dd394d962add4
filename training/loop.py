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

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards import manifest as shard_set
from shards import splits
from shards.augment import Augmentation
from shards.manifest import Manifest
from shards.plan import Plan
from training import checkpoint, device, figures, progress, run
from training.config import Config, ConfigError
from training.feed import Feed, Preprocessing, Ready
from training.metrics import Running
from training.schedule import Best, EarlyStop

if TYPE_CHECKING:
    import torch
    from torch import nn

Log = Callable[[str], None]


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


@dataclasses.dataclass
class Trainer:
    """Everything a run holds while it trains; `fit` drives it."""

    config: Config
    folder: Path
    manifest: Manifest
    split: splits.Split
    model: nn.Module
    preprocessing: Preprocessing
    optimizer: torch.optim.Optimizer
    plateau: torch.optim.lr_scheduler.ReduceLROnPlateau
    stop: EarlyStop
    class_weight: torch.Tensor | None
    train: Feed
    val: Feed
    device: torch.device
    precision: torch.dtype
    log: Log
    best: Best = dataclasses.field(default_factory=Best)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch and evaluate on val; -> the line of metrics.jsonl."""
        start, waited = time.perf_counter(), 0.0
        self.model.train()
        sums = Running(self.device)
        steps = progress.track(
            self.train.epoch(epoch), total=self.train.steps, what=f"epoch {epoch}"
        )
        for batch in steps:
            waited += batch.waited
            train_step(self.model, batch, self.optimizer, self.class_weight, self.precision, sums)
        trained = sums.compute()
        seconds = time.perf_counter() - start
        checked = evaluate(self.model, self.val.epoch(), self.device, self.precision)
        return {
            "epoch": epoch,
            "train_loss": trained["loss"],
            "train_acc": trained["acc"],
            "val_loss": checked["loss"],
            "val_acc": checked["acc"],
            "lr": self.optimizer.param_groups[0]["lr"],
            "clips_per_s": trained["count"] / seconds,
            "data_wait": waited / seconds,
            "peak_bytes": run.peak_bytes(self.device),
            "seconds": time.perf_counter() - start,
        }

    def state(self, line: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds (see training/checkpoint.py)."""
        return {
            "model_name": self.config.model,
            "model_options": self.config.options,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.plateau.state_dict(),
            "early_stop": self.stop.state(),
            "best": self.best.state(),
            "epoch": line["epoch"],
            "step": line["epoch"] * self.train.steps,
            "config": dataclasses.asdict(self.config),
            "classes": list(self.manifest.classes),
            "split": self.split.describe(),
            "manifest_digest": self.manifest.digest,
            "preprocessing": {
                **dataclasses.asdict(self.preprocessing),
                "sampling": self.manifest.sampling,
                "clip_shape": list(self.manifest.clip_shape),
            },
            "metrics": line,
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
        line = trainer.epoch(epoch)
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


def prepare(config: Config, folder: Path, log: Log) -> Trainer:
    """Open the shards, split them, build model, optimizer and feeds. Writes nothing."""
    import torch

    config = config.resolve()
    on = device.choose(config.device)
    precision = device.precision(config.precision, on)
    clips = shard_set.load(config.shards)
    split = splits.make(clips, config.split, config.split_seed)
    for side in ("val", "test"):
        if len(split.side(side)) == 0:
            raise ConfigError(
                f"split {config.split!r} leaves no {side} clip of {config.shards}: "
                "build a set with more groups, or use '--split paper'."
            )
    torch.manual_seed(config.seed)
    model = _build(config, len(clips.classes))
    wanted = _preprocessing(config, model.input_spec)
    model = device.place(model, on)
    optimizer = _optimizer(config, model)
    trainer = Trainer(
        config=config,
        folder=folder,
        manifest=clips,
        split=split,
        model=model,
        preprocessing=wanted,
        optimizer=optimizer,
        plateau=torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=config.plateau_factor, patience=config.plateau_patience
        ),
        stop=EarlyStop(config.patience, config.epsilon_increment, config.monitor == "val_loss"),
        class_weight=_class_weight(config, clips, split, on),
        train=Feed(
            clips,
            Plan(split.train, config.batch_size, config.seed, shuffle=True),
            wanted,
            on,
            rule=_rule(config),
            jitter=config.jitter,
            workers=config.workers,
        ),
        val=Feed(clips, Plan(split.val, config.batch_size), wanted, on, workers=config.workers),
        device=on,
        precision=precision,
        log=log,
    )
    log(_introduce(trainer))
    return trainer


def _build(config: Config, classes: int) -> nn.Module:
    """The model; `--weights` goes to it as an option. A wrong option is a ConfigError."""
    import models

    options = config.options
    if "weights" in models.options_of(config.model):
        options["weights"] = config.weights
    elif config.weights != "none":
        raise ConfigError(
            f"--weights {config.weights!r}: there are no pretrained weights for {config.model}; "
            "use '--weights none' or another model."
        )
    try:
        return models.build(config.model, classes, seed=config.seed, **options)
    except models.WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _preprocessing(config: Config, spec: Any) -> Preprocessing:
    """The model's own input, at another size where `--size` asks for it (resize in proportion)."""
    size, resize = tuple(spec.size), tuple(spec.resize)
    if config.size is not None:
        resize = tuple(
            round(edge * config.size / side) for edge, side in zip(resize, size, strict=True)
        )
        size = (config.size, config.size)
    return Preprocessing(config.frames, size, resize, tuple(spec.mean), tuple(spec.std))


def _rule(config: Config) -> Augmentation | None:
    if not config.augment:
        return None
    return Augmentation(
        scale=(config.crop_scale, 1.0),
        degrees=config.degrees,
        flip=config.flip,
        per_frame=config.per_frame,
    )


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, nesterov=True, **common)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, fused=True, **common)


def _class_weight(
    config: Config, clips: Manifest, split: splits.Split, on: torch.device
) -> torch.Tensor | None:
    """n / (K * n_k) over the train side, float32 [K]: rare classes weigh more (section 3.4).

    A class without a train clip gets 0; it never occurs in the loss.
    """
    import numpy as np
    import torch

    if config.class_weights == "none":
        return None
    counts = np.bincount(clips.index["label"][split.train], minlength=len(clips.classes))
    weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32, device=on)


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


def _introduce(trainer: Trainer) -> str:
    split, config = trainer.split, trainer.config
    leak = "no groups known" if split.leak is None else f"{split.leak:.1%} of test leaks from train"
    return (
        f"{config.model}: {sum(p.numel() for p in trainer.model.parameters()):,} parameters, "
        f"{trainer.preprocessing.frames} frames of {trainer.preprocessing.size[0]}x"
        f"{trainer.preprocessing.size[1]}, {trainer.device}, "
        f"{str(trainer.precision).removeprefix('torch.')}\n"
        f"split {split.name} ({split.digest}): {len(split.train)} train, {len(split.val)} val, "
        f"{len(split.test)} test clips, {leak}"
    )

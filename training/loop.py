"""The training loop of all four models: `evaluate`, `train_epoch`, `fit`. One step is in `step.py`.

No step waits for the device: losses and hits are summed there and read once an epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .config import Config, ConfigError
from .input.device_loader import DeviceBatch
from .optim.metric_sums import MetricSums
from .runtime import (
    checkpoint,
    compiling,
    distributed,
    memory,
    progress,
    run_dir,
    signals,
    step_timer,
)
from .runtime.distributed import DistributedContext
from .setup import prepare
from .state import Log, TrainProgress, TrainState
from .step import forward, train_step, update_metrics


def evaluate(
    model: nn.Module,
    batches: Iterable[DeviceBatch],
    on: torch.device,
    precision: torch.dtype,
    ranks: DistributedContext | None = None,
) -> dict[str, float]:
    """Unweighted mean over the valid clips of all ranks: {"loss", "acc", "count"}."""
    model.eval()
    sums = MetricSums(on)
    with torch.inference_mode():
        for batch in batches:
            logits = forward(model, batch.clips, precision)
            losses = F.cross_entropy(logits, batch.labels, reduction="none")
            update_metrics(sums, logits, losses, batch)
    return (ranks or DistributedContext()).total(sums).compute()


def train_epoch(trainer: TrainState, watch: signals.Watch) -> dict[str, Any]:
    """Train the rest of the epoch at `trainer.position` and evaluate on val; -> its line.

    Raises signals.Interrupted when a signal came, after saving last.pt.
    """
    position, accumulate = trainer.position, trainer.config.accumulate
    trainer.model.train()
    trainer.optimizer.zero_grad(set_to_none=True)
    start = saved = time.perf_counter()
    bad = torch.full((), -1, device=trainer.device)
    batches = progress.track(
        trainer.train.epoch(position.epoch, position.step),
        total=trainer.train.steps - position.step,
        what=f"epoch {position.epoch}",
        note=lambda: f"{trainer.waiting():.1%} waiting for data",
    )
    first, on_device = position.step, trainer.device.type != "cpu"
    for batch in batches:
        last = (batch.step + 1) % accumulate == 0 or batch.step + 1 == trainer.train.steps
        loss = train_step(trainer, batch, last)
        bad = torch.where((bad < 0) & ~loss.isfinite(), batch.step, bad)
        trainer.clock.add(batch.waited, batch.marks, first=batch.step == first, device=on_device)
        start = _tick(position, start)
        if last:
            position.step = batch.step + 1
            if _save_if_due(trainer, watch, start - saved, bad):
                saved = start
    trained = trainer.ranks.total(trainer.sums).compute()  # the device has done all by now
    start = _tick(position, start)
    trainer.settle_clock()
    train_seconds = position.epoch_seconds
    checked = evaluate(
        trainer.evaluated, trainer.val.epoch(), trainer.device, trainer.precision, trainer.ranks
    )
    _tick(position, start)
    line: dict[str, Any] = {
        "epoch": position.epoch,
        "train_loss": trained["loss"],
        "train_acc": trained["acc"],
        "val_loss": checked["loss"],
        "val_acc": checked["acc"],
        "lr": trainer.rate.value,
        "clips_per_s": trained["count"] / train_seconds,
        **step_timer.shares(position.waited, position.transferred, train_seconds),
        "peak_bytes": run_dir.peak_bytes(trainer.device),
        "seconds": position.epoch_seconds,
    }
    if bad.item() >= 0:
        rows = trainer.train.loader.plan.rows(position.epoch, int(bad.item()))
        line["bad_step"] = int(bad.item())
        line["bad_keys"] = trainer.manifest.keys(rows.ids)
    return line


def _save_if_due(
    trainer: TrainState, watch: signals.Watch, since: float, bad: torch.Tensor
) -> bool:
    """Save last.pt where a signal came or `save_every_minutes` are over; -> whether it was due.

    Several ranks look only every tenth step, since agreeing waits for the device.
    """
    ranks, due = trainer.ranks, trainer.config.save_every_minutes * 60
    if ranks.count > 1 and trainer.position.step % 10:
        return False
    wish = watch.number or int(bool(due) and since > due)
    wish = ranks.any(wish, trainer.device)
    if not wish:
        return False
    if ranks.any(int(bad.item()), trainer.device) < 0:  # never nan over a good checkpoint
        trainer.settle_clock()
        state = trainer.state()
        if ranks.speaks:
            checkpoint.save_last(state, trainer.folder)
    if wish > 1:  # a signal's number; 1 (SIGHUP's) is not among those watched
        raise signals.Interrupted(wish)
    return True


def _tick(position: TrainProgress, since: float) -> float:
    """Add the time since `since` to the run's and the epoch's; -> now."""
    now = time.perf_counter()
    position.seconds += now - since
    position.epoch_seconds += now - since
    return now


def fit(
    config: Config, folder: Path, log: Log, resume: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train by `config` in the run folder `folder`; -> what summary.json holds.

    resume: the state of `last.pt` to go on from; without, the folder is new. Raises the
    one-sentence errors of config, shards, splits and models before anything is written, and
    signals.Interrupted after saving.
    """
    with distributed.join(config.device, config.rank_timeout) as ranks:
        trainer = prepare(config, folder, log if ranks.speaks else run_dir.silent, ranks)
        try:
            if resume is not None:
                trainer.restore(resume)
                place = trainer.position
                trainer.log(f"going on from epoch {place.epoch}, step {place.step}")
            trainer.log(memory.foretell(trainer))
            compiling.settle(trainer)
            if ranks.speaks:
                run_dir.start(trainer, resumed=resume is not None)
            with signals.watch() as watch:
                return _train(trainer, watch)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_full(error):
                raise
            raise ConfigError(memory.too_large(trainer)) from error
        finally:
            trainer.close()


def _train(trainer: TrainState, watch: signals.Watch) -> dict[str, Any]:
    """Epoch after epoch until a reason to stop; -> the summary."""
    reason = _over(trainer)
    while reason is None:
        line = train_epoch(trainer, watch)
        trainer.log(progress.describe(line))
        if not (math.isfinite(line["train_loss"]) and math.isfinite(line["val_loss"])):
            return run_dir.finish(trainer, progress.diverged(line), finite=False)
        _close_epoch(trainer, line)
        reason = trainer.ranks.from_first(_over(trainer))
    return run_dir.finish(trainer, reason, finite=True)


def _close_epoch(trainer: TrainState, line: dict[str, Any]) -> None:
    """Apply the rules of schedule, patience and best to the epoch's line, and save."""
    trainer.history.append(line)
    trainer.rate.after_epoch(line["val_loss"])
    trainer.stop.update(line[trainer.config.monitor])
    improved = trainer.best.update(line["epoch"], line["val_acc"], line["val_loss"])
    trainer.position = TrainProgress(epoch=line["epoch"] + 1, seconds=trainer.position.seconds)
    trainer.sums.reset()
    state = trainer.state()
    if trainer.ranks.speaks:
        if improved:
            checkpoint.save(state, trainer.folder / "best.pt")
        checkpoint.save_last(state, trainer.folder)
        run_dir.record(trainer)
        if trainer.events is not None:
            trainer.events.add(line)


def _over(trainer: TrainState) -> str | None:
    """Why training is over before the next epoch, or None."""
    config = trainer.config
    if trainer.stop.waited >= config.patience:
        return (
            f"patience: {config.monitor} has not improved by {config.epsilon_increment:g} % "
            f"for {config.patience} epochs"
        )
    if trainer.position.epoch > config.epochs:
        return f"all {config.epochs} epochs are done"
    if config.max_minutes and trainer.position.seconds > config.max_minutes * 60:
        return f"time budget: {config.max_minutes:g} minutes are over"
    return None

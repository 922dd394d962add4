"""The training loop of all models: `fit`, `train_epoch`, `evaluate`. A step is in `step.py`.

No step waits for the device: losses and hits are summed there, and read at the end of an epoch and
for each line of progress.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import nn

from ..progress import track
from .config import Config, ConfigError
from .input import DeviceBatch
from .optim import MetricSums
from .plots import Curves, plot_model_curves
from .runtime import checkpoint, memory, run_dir
from .runtime.distributed import DistributedContext, init_distributed
from .runtime.signals import Interrupted, SignalWatch, watch_signals
from .runtime.step_timer import time_shares
from .runtime.tensorboard import TensorBoardWriter
from .setup import make_train_eval_loader, prepare
from .state import Log, Task, TrainProgress, TrainState
from .status import EpochStatus, describe_epoch, diverged_reason, explain_error
from .step import CLASSIFICATION, forward, score, train_step, update_metrics


def fit(
    config: Config,
    folder: Path,
    log: Log,
    resume: dict[str, Any] | None = None,
    task: Task = CLASSIFICATION,
    on_epoch: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train by `config` in the run folder `folder`; -> what summary.json holds.

    resume: the state of `last.pt` to go on from; without, the folder must be new. on_epoch: called
    after each epoch, when it is saved (on rank 0). Raises the one-sentence errors of config,
    shards, splits and models before anything is written, those of a full disk or memory at any
    time, and `Interrupted` after saving.
    """
    folder = Path(folder)  # a str comes, too
    with init_distributed(config.device, config.rank_timeout) as ctx:
        log = log if ctx.is_main_process else run_dir.no_log
        if resume is None and (refusal := ctx.broadcast(run_dir.describe_use(folder))):
            raise ConfigError(refusal)
        state = prepare(config, folder, log, ctx, resumed=resume is not None, task=task)
        try:
            if resume is not None:
                state.load_state_dict(resume)
            is_new = resume is None or not any(folder.glob("*.pt"))
            with run_dir.claimed(folder, ctx, is_new=is_new):
                if resume is not None:
                    log(f"going on from epoch {state.progress.epoch}, step {state.progress.step}")
                    if change := state.lr_scheduler.describe_change(resume["config"]["epochs"]):
                        log(f"{change}: {config.command} --weights {quote(str(folder))}")
                if ctx.is_main_process:
                    start_folder(state, resume)
                with watch_signals() as watch:
                    return train(state, watch, on_epoch)
        except (RuntimeError, MemoryError, ValueError) as error:
            message = explain_error(state, error)
            if message is None:
                raise
            raise ConfigError(message) from error
        finally:
            state.close()


def train(
    state: TrainState, watch: SignalWatch, on_epoch: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Epoch after epoch until a reason to stop; -> the summary. on_epoch: see `fit`."""
    finite, reason = True, stop_reason(state)
    while reason is None:
        line = train_epoch(state, watch)
        state.log(describe_epoch(line))
        losses = (line["train_loss"], line["val_loss"])
        finite = all(loss is None or math.isfinite(loss) for loss in losses)
        finite = finite and not state.loss_scaler.has_collapsed
        if not finite:
            reason = diverged_reason(state, line)
            break
        finish_epoch(state, line)
        if on_epoch is not None and state.ctx.is_main_process:
            on_epoch()
        reason = state.ctx.broadcast(stop_reason(state))
    summary = state.summary(reason, finite=finite)
    if state.config.eval_train and finite:
        summary |= evaluate_best_on_train(state, watch)
    if state.ctx.is_main_process:
        with run_dir.writing(state.folder):
            run_dir.write_json(state.folder / "summary.json", summary)
    return summary


def train_epoch(state: TrainState, watch: SignalWatch) -> dict[str, Any]:
    """Train the rest of the epoch at `state.progress` and evaluate on val; -> its line.

    Raises Interrupted when a signal came, after saving last.pt.
    """
    epoch, first_step = state.progress.epoch, state.progress.step
    loader, accum = state.train_loader, state.config.grad_accum_steps
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    state.group_weight.zero_()
    now = last_save = time.perf_counter()
    bad_step = torch.full((), -1, device=state.device)  # the first whose loss is not finite
    steps, progress = loader.epoch(epoch, first_step), {"log_every": state.config.log_every}
    progress["quiet"] = not state.ctx.is_main_process
    shown = {"initial": first_step, "status": EpochStatus(state), **progress}
    for batch in track(steps, loader.num_batches, f"epoch {epoch}", **shown):
        update = (batch.step + 1) % accum == 0 or batch.step + 1 == loader.num_batches
        loss = train_step(state, batch, update)
        bad_step = torch.where((bad_step < 0) & ~loss.isfinite(), batch.step, bad_step)
        state.step_timer.add(batch.data_time, batch.copy_events)
        now = state.progress.add_time(now)
        if state.loss_scaler.has_collapsed:
            break
        if update:
            state.progress.step = batch.step + 1
            if save_if_due(state, watch, now - last_save, bad_step):
                last_save = now
    # Reading the sums waits for the device: the epoch's training ends here.
    train_metrics = state.ctx.all_reduce_metrics(state.train_metrics).compute()
    now = state.progress.add_time(now)
    state.flush_step_timer()
    train_seconds = state.progress.epoch_seconds
    state.average_buffers()
    val_metrics: dict[str, Any] = {"loss": None, "acc": None}
    if state.val_loader is not None:
        steps, num_steps = state.val_loader.epoch(), state.val_loader.num_batches
        batches = track(steps, num_steps, f"epoch {epoch}, validation", **progress)
        val_metrics = evaluate(state.eval_model, batches, state.device, state.precision, state.ctx)
    quality = state.task.measure(state)
    state.progress.add_time(now)
    line = epoch_line(state, train_metrics, val_metrics, train_seconds) | quality
    if bad_step.item() >= 0:
        line["bad_step"] = int(bad_step.item())
        line["bad_keys"] = loader.keys(epoch, line["bad_step"])
    return line


def epoch_line(
    state: TrainState,
    train_metrics: dict[str, Any],
    val_metrics: dict[str, Any],
    train_seconds: float,
) -> dict[str, Any]:
    """What metrics.jsonl says of the epoch at `state.progress`."""
    progress = state.progress
    line: dict[str, Any] = {
        "epoch": progress.epoch,
        "train_loss": train_metrics["loss"],
        "train_acc": train_metrics["acc"],
        "val_loss": val_metrics["loss"],
        "val_acc": val_metrics["acc"],
        "lr": state.lr_scheduler.lr,
        "clips_per_s": train_metrics["count"] / train_seconds,
        **time_shares(progress.data_time, progress.transfer_time, train_seconds),
        "peak_bytes": memory.peak_bytes(state.device),
        "seconds": progress.epoch_seconds,
        **{f"train_{name}": train_metrics[name] for name in state.task.metrics},
    }
    if state.config.lr_head is not None:
        line["lr_head"] = state.lr_scheduler.lr_head
    if progress.skipped_steps:
        line["skipped_steps"] = progress.skipped_steps
    return line


def evaluate(
    model: nn.Module,
    batches: Iterable[DeviceBatch],
    device: torch.device,
    precision: torch.dtype,
    ctx: DistributedContext | None = None,
) -> dict[str, float]:
    """Unweighted mean over the valid clips of all ranks: {"loss", "acc", "count"}."""
    model.eval()
    metrics = MetricSums(device)
    with torch.inference_mode():
        for batch in batches:
            logits = forward(model, batch.clips, precision)
            update_metrics(metrics, score(logits, batch.labels, batch.valid))
    return (ctx or DistributedContext()).all_reduce_metrics(metrics).compute()


def evaluate_best_on_train(state: TrainState, watch: SignalWatch) -> dict[str, float]:
    """The best checkpoint on the train clips, not augmented or mixed; -> entries of the summary.

    Raises Interrupted when a signal came; a resumed run comes here again.
    """
    path = state.folder / "best.pt"
    if not state.ctx.broadcast(path.is_file()):
        return {}
    state.eval_model.load_state_dict(checkpoint.load(path)["model"])  # training is over
    loader = make_train_eval_loader(state)
    try:
        batches = track(
            stop_on_signal(loader.epoch(), state, watch),
            loader.num_batches,
            "train clips, best checkpoint",
            quiet=not state.ctx.is_main_process,
            log_every=state.config.log_every,
        )
        metrics = evaluate(state.eval_model, batches, state.device, state.precision, state.ctx)
    finally:
        loader.close()
    state.log(
        f"best checkpoint on the train clips, not augmented: loss {metrics['loss']:.4f} "
        f"acc {metrics['acc']:.4f}"
    )
    return {"best_train_loss": metrics["loss"], "best_train_acc": metrics["acc"]}


def stop_on_signal(
    batches: Iterable[DeviceBatch], state: TrainState, watch: SignalWatch
) -> Iterator[DeviceBatch]:
    """The batches, until a signal came to any rank (asked every tenth batch): Interrupted."""
    for batch in batches:
        number = state.ctx.all_reduce_max(watch.number, state.device) if batch.step % 10 == 0 else 0
        if number:
            raise Interrupted(number)
        yield batch


def save_if_due(
    state: TrainState, watch: SignalWatch, since_save: float, bad_step: torch.Tensor
) -> bool:
    """Save last.pt where a signal came or `save_every_minutes` are over; -> whether it was due.

    Several ranks look only every ten steps or so (every update of more parts than that) and at the
    end of an epoch, since agreeing waits for the device.
    """
    accum = state.config.grad_accum_steps
    ctx, interval = state.ctx, state.config.save_every_minutes * 60
    step, is_last = state.progress.step, state.progress.step == state.train_loader.num_batches
    if ctx.world_size > 1 and step // accum % max(1, 10 // accum) and not is_last:
        return False
    due = watch.number or int(bool(interval) and since_save > interval)
    due = ctx.all_reduce_max(due, state.device)
    if not due:
        return False
    if ctx.all_reduce_max(int(bad_step.item()), state.device) < 0:  # never nan over a good one
        state.flush_step_timer()
        state.average_buffers()
        checkpoint_state = state.state_dict()
        if ctx.is_main_process:
            checkpoint.save_last(checkpoint_state, state.folder)
    if due > 1:  # a signal's number; 1 (SIGHUP's) is not among those watched
        raise Interrupted(due)
    return True


def finish_epoch(state: TrainState, line: dict[str, Any]) -> None:
    """Apply the rules of learning rate, patience and best to the epoch's line, and save."""
    state.history.append(line)
    if state.val_loader is not None:
        state.lr_scheduler.step_epoch(line["val_loss"])
        state.early_stopping.update(line[state.config.monitor])
    else:
        state.lr_scheduler.step_epoch(line["train_loss"])
    improved = state.best.update(line["epoch"], line["val_acc"], line["val_loss"])
    state.progress = TrainProgress(epoch=line["epoch"] + 1, seconds=state.progress.seconds)
    state.train_metrics.sums.zero_()
    checkpoint_state = state.state_dict()
    if state.ctx.is_main_process:
        if improved:
            checkpoint.save(checkpoint_state, state.folder / "best.pt")
        checkpoint.save_last(checkpoint_state, state.folder)
        write_history(state)
        if state.tb_writer is not None:
            state.tb_writer.add(line)


def start_folder(state: TrainState, resume: dict[str, Any] | None) -> None:
    """Make the run folder. What a resumed run has of metrics, curves and events is written anew:
    it may have been killed after its checkpoint and before them. A new folder gets its checkpoint,
    which is of a best epoch."""
    resumed = resume is not None
    run_dir.start(state.folder, state.config, state.device, state.precision, resumed=resumed)
    if resume is not None and not any(state.folder.glob("*.pt")):
        for name in ("best.pt", "last.pt"):
            checkpoint.save({**resume, "config": asdict(state.config)}, state.folder / name)
    if state.config.tensorboard:
        with run_dir.writing(state.folder):
            state.tb_writer = TensorBoardWriter(state.folder, state.history)
    if state.history:
        write_history(state)


def write_history(state: TrainState) -> None:
    """metrics.jsonl and the curves, from the run's history."""
    name = state.config.model
    curves = Curves(name, name, state.history, state.best.epoch)
    with run_dir.writing(state.folder):
        run_dir.write_metrics(state.folder, state.history)
        try:
            for quantity in ("loss", "acc") if state.draws_curves else ():
                plot_model_curves(state.folder / f"{quantity}.png", [curves], quantity)
        except OSError:
            raise  # a full disk
        except Exception as error:  # whatever it is, a picture is no reason to end a training
            state.draws_curves = False
            state.log(
                f"warning: the curves cannot be drawn ({type(error).__name__}: {error}); the "
                "training goes on without them, and har-report draws them from metrics.jsonl"
            )


def stop_reason(state: TrainState) -> str | None:
    """Why training is over before the next epoch, or None."""
    config = state.config
    if state.early_stopping.num_bad_epochs >= config.patience:
        return (
            f"patience: {config.monitor} has not improved by {config.epsilon_increment:g} % "
            f"for {config.patience} epochs"
        )
    if state.progress.epoch > config.epochs:
        return f"all {config.epochs} epochs are done"
    if config.max_minutes and state.progress.seconds > config.max_minutes * 60:
        return f"time budget: {config.max_minutes:g} minutes are over"
    return None

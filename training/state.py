"""What a run holds while it trains, and how it becomes a checkpoint and comes back from one."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..shards import splits
from ..shards.format import Manifest
from ..shards.loading import check_resume
from ..shards.transforms.clip_transform import ClipTransform
from .config import Config, ConfigError
from .input import DeviceBatch, DeviceLoader
from .optim import BestEpoch, EarlyStopping, LossScaler, LrScheduler, MetricSums, ModelEma
from .runtime.distributed import DistributedContext
from .runtime.step_timer import StepTimer
from .runtime.tensorboard import TensorBoardWriter

Log = Callable[[str], None]


@dataclass
class TrainProgress:
    """How far a run is; with the batch sampler, all that is needed to go on from any step.

    epoch: the one under way, from 1. step: its steps that are done. seconds: of training, over all
    sessions; epoch_seconds: those of this epoch; data_time and transfer_time: of them those spent
    waiting for data and for its way to the device. skipped_steps: of this epoch, whose gradients
    overflowed fp16.
    """

    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    data_time: float = 0.0
    transfer_time: float = 0.0
    skipped_steps: int = 0

    def add_time(self, since: float) -> float:
        """Add the time since `since` (of `time.perf_counter`) to the seconds; -> now."""
        now = time.perf_counter()
        self.seconds += now - since
        self.epoch_seconds += now - since
        return now


class ClipLosses(NamedTuple):
    """Of the clips of a batch, all [b]: `losses` train, weighted by `weights`; `reported`,
    `correct` (0 to 1) and those of `further` are summed over the `valid` clips."""

    losses: torch.Tensor
    weights: torch.Tensor
    reported: torch.Tensor
    correct: torch.Tensor
    valid: torch.Tensor
    further: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class Task:
    """What a run learns; all else of a run is the same for every task.

    losses: of a batch. windows, views: of `LoaderOptions` and `BatchSampler` in training.
    has_val: whether the val subset is evaluated. num_classes: the least that the train clips have.
    metrics: names of `ClipLosses.further`. adapt_model: change the model before it is placed.
    measure: more entries of an epoch's line, after its training. extra_state: more entries of
    checkpoints. describe: lines of the log; ConfigError where nothing can be learned.
    """

    losses: "Callable[[TrainState, DeviceBatch], ClipLosses]"
    windows: int = 0
    views: int = 1
    has_val: bool = True
    num_classes: int = 2
    metrics: tuple[str, ...] = ()
    adapt_model: Callable[[nn.Module], None] = lambda model: None
    measure: "Callable[[TrainState], dict[str, float | None]]" = lambda state: {}
    extra_state: "Callable[[TrainState], dict[str, Any]]" = lambda state: {}
    describe: "Callable[[TrainState], list[str]]" = lambda state: []


@dataclass
class TrainState:
    """Everything a run holds while it trains; `har.training.loop` drives it.

    ddp_model: `model` as the training step calls it: in DDP's wrapper with several ranks, compiled
    with --compile. model_options: all of the model's, as it was built. class_weights: float32 [K],
    None for an unweighted loss. val_loader: None where the split has no val clips. train_metrics:
    of the epoch under way. group_weight: with gradient accumulation that of the clips whose
    gradients are added up so far. history: a line an epoch. parent_data: what the runs saw that
    `--weights` come from.
    """

    task: Task
    config: Config
    folder: Path
    manifest: Manifest
    split: splits.Split
    model: nn.Module
    model_options: dict[str, Any]
    ddp_model: nn.Module
    ctx: DistributedContext
    transform: ClipTransform
    optimizer: torch.optim.Optimizer
    loss_scaler: LossScaler
    lr_scheduler: LrScheduler
    early_stopping: EarlyStopping
    class_weights: torch.Tensor | None
    ema: ModelEma | None
    train_loader: DeviceLoader
    val_loader: DeviceLoader | None
    device: torch.device
    precision: torch.dtype
    log: Log
    train_metrics: MetricSums = field(init=False)
    group_weight: torch.Tensor = field(init=False)
    best: BestEpoch = field(default_factory=BestEpoch)
    progress: TrainProgress = field(default_factory=TrainProgress)
    history: list[dict[str, Any]] = field(default_factory=list)
    parent_data: list[dict[str, Any]] = field(default_factory=list)
    draws_curves: bool = True  # until that fails
    step_timer: StepTimer = field(default_factory=StepTimer)
    tb_writer: TensorBoardWriter | None = None

    def __post_init__(self) -> None:
        self.train_metrics = MetricSums(self.device, self.task.metrics)
        self.group_weight = torch.zeros((), device=self.device)

    @property
    def eval_model(self) -> nn.Module:
        """What is evaluated and kept as best: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def close(self) -> None:
        """End the loaders' threads and the event file."""
        self.train_loader.close()
        if self.val_loader is not None:
            self.val_loader.close()
        if self.tb_writer is not None:
            self.tb_writer.close()

    def average_buffers(self) -> None:
        """Make batch norm's running statistics, and the EMA's, those of all ranks: before they are
        evaluated or saved. Every rank must call it."""
        self.ctx.average_buffers(self.model)
        if self.ema is not None:
            self.ctx.average_buffers(self.ema.module)

    def data_wait(self) -> float:
        """The share of the epoch's time so far that was spent waiting for data."""
        data_time = self.progress.data_time + self.step_timer.totals()[0]
        return data_time / self.progress.epoch_seconds if self.progress.epoch_seconds else 0.0

    def flush_step_timer(self) -> None:
        """Add what the timer has measured to the progress. Waits for the device."""
        data_time, transfer_time = self.step_timer.flush()
        self.progress.data_time += data_time
        self.progress.transfer_time += transfer_time
        self.step_timer = StepTimer()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds (see `har.training.runtime.checkpoint`).

        `model` is what is evaluated. Every rank must call it: the sums are added up.
        """
        state = {
            "model_name": self.config.model,
            "model_options": self.model_options,
            "model": self.eval_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "early_stopping": asdict(self.early_stopping),
            "best": asdict(self.best),
            "epoch": self.history[-1]["epoch"] if self.history else 0,
            "progress": asdict(self.progress),
            "train_metrics": self.ctx.all_reduce_sum(self.train_metrics.sums),
            "history": self.history,
            "config": asdict(self.config),
            "classes": list(self.manifest.classes),
            "split": self.split.describe(),
            "manifest_digest": self.manifest.digest,
            "preprocessing": {
                **self.transform.to_dict(),
                "sampling": self.manifest.sampling,
                "clip_shape": list(self.manifest.clip_shape),
                **({"fit": fit} if (fit := self.manifest.resize.get("fit")) else {}),
            },
        }
        state |= self.task.extra_state(self)
        if self.parent_data:
            state["parent_data"] = self.parent_data
        if scaler_state := self.loss_scaler.state_dict():
            state["loss_scaler"] = scaler_state
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
            state["train_model"] = self.model.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state` (of `last.pt`): everything but config and shards, which must agree."""
        check_resume(state["manifest_digest"], self.manifest)
        trained = state["split"]
        if trained["digest"] != self.split.digest:
            raise ConfigError(
                f"the run began with an earlier version of har, which cut split "
                f"{trained['name']} of {self.manifest.root} otherwise ({trained['digest']}, now "
                f"{self.split.digest}): where groups span classes, it balances the classes now; "
                "start a new run."
            )
        try:
            self.model.load_state_dict(state.get("train_model", state["model"]))
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"the checkpoint does not hold the weights of {self.config.model} as it is now "
                f"({detail}): go on with the class that the run began with, or start a new run."
            ) from error
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss_scaler.load_state_dict(state.get("loss_scaler", {}))
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        self.early_stopping.reference = state["early_stopping"]["reference"]
        self.early_stopping.num_bad_epochs = state["early_stopping"]["num_bad_epochs"]
        self.best = BestEpoch(**state["best"])
        self.progress = TrainProgress(**state["progress"])
        self.history = list(state["history"])
        self.parent_data = state.get("parent_data", [])
        if self.ctx.is_main_process:  # the others start from zero: these are the sums of all
            self.train_metrics.sums.copy_(state["train_metrics"])

    def summary(self, stop_reason: str, *, finite: bool) -> dict[str, Any]:
        """What summary.json holds. finite: no epoch's loss was nan or infinite."""
        return {
            "model": self.config.model,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "stop_reason": stop_reason,
            "finite": finite,
            "epochs": len(self.history),
            "best_epoch": self.best.epoch,
            "best_val_acc": self.best.val_acc if self.val_loader is not None else None,
            "seconds": self.progress.seconds,
            "split": self.split.describe(),
            "manifest_digest": self.manifest.digest,
            "classes": list(self.manifest.classes),
        }

"""What a run holds while it trains, and how it becomes a checkpoint and comes back from one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shards import splits
from ..shards.format.shard_set import Manifest
from ..shards.loading.batch_sampler import check_resume
from ..shards.transforms.clip_transform import ClipTransform
from .config import Config, ConfigError
from .input.device_loader import DeviceLoader
from .optim.ema import ModelEma
from .optim.metric_sums import MetricSums
from .optim.schedule import BestEpoch, EarlyStopping, LrScheduler
from .runtime.distributed import DistributedContext
from .runtime.step_timer import StepTimer
from .runtime.tensorboard import TensorBoardWriter

if TYPE_CHECKING:
    import torch
    from torch import nn

Log = Callable[[str], None]


@dataclasses.dataclass
class TrainProgress:
    """Where a run is; with the plan, all that is needed to go on from any step.

    epoch: the one under way, from 1; step: its steps that are done. seconds: of training, over all
    sessions; epoch_seconds: those of this epoch; waited and transferred: of them those spent
    waiting for data and for its way to the device.
    """

    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    waited: float = 0.0
    transferred: float = 0.0


@dataclasses.dataclass
class TrainState:
    """Everything a run holds while it trains; `har.training.loop` drives it.

    parallel: `model` as the forward pass calls it, which with several ranks is DDP's wrapper, and
    compiled where --compile says so. room: bytes free on the device before the first step.
    """

    config: Config
    folder: Path
    manifest: Manifest
    split: splits.Split
    model: nn.Module
    parallel: nn.Module
    ranks: DistributedContext
    preprocessing: ClipTransform
    optimizer: torch.optim.Optimizer
    rate: LrScheduler
    stop: EarlyStopping
    class_weight: torch.Tensor | None
    average: ModelEma | None
    train: DeviceLoader
    val: DeviceLoader
    device: torch.device
    precision: torch.dtype
    log: Log
    sums: MetricSums
    best: BestEpoch = dataclasses.field(default_factory=BestEpoch)
    position: TrainProgress = dataclasses.field(default_factory=TrainProgress)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    clock: StepTimer = dataclasses.field(default_factory=StepTimer)
    room: int | None = None
    events: TensorBoardWriter | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are evaluated and kept as best: the average where there is one."""
        return self.model if self.average is None else self.average.module

    def close(self) -> None:
        """End the feeds' threads and the event file."""
        self.train.close()
        self.val.close()
        if self.events is not None:
            self.events.close()

    def waiting(self) -> float:
        """The share of the epoch's time so far that was spent waiting for data."""
        waited = self.position.waited + self.clock.so_far()[0]
        return waited / self.position.epoch_seconds if self.position.epoch_seconds else 0.0

    def settle_clock(self) -> None:
        """Add what the clock has measured to the position. Waits for the device."""
        waited, transferred = self.clock.settle()
        self.position.waited += waited
        self.position.transferred += transferred
        self.clock = StepTimer()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds (see training/runtime/checkpoint.py). `model` is what is evaluated.

        Every rank must call it: the sums are added up.
        """
        state = {
            "model_name": self.config.model,
            "model_options": {**known_options(self.config), **model_options(self.config)},
            "model": self.evaluated.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.rate.state(),
            "early_stop": self.stop.state(),
            "best": self.best.state(),
            "epoch": self.history[-1]["epoch"] if self.history else 0,
            "position": dataclasses.asdict(self.position),
            "sums": self.ranks.add(self.sums.state()),
            "history": self.history,
            "config": dataclasses.asdict(self.config),
            "classes": list(self.manifest.classes),
            "split": self.split.describe(),
            "manifest_digest": self.manifest.digest,
            "preprocessing": {
                **self.preprocessing.to_dict(),
                "sampling": self.manifest.sampling,
                "clip_shape": list(self.manifest.clip_shape),
            },
        }
        if self.average is not None:
            state["average"] = self.average.state()
            state["trained"] = self.model.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state` (of `last.pt`): everything but config and shards, which must agree."""
        check_resume(state["manifest_digest"], self.manifest)
        self.model.load_state_dict(state.get("trained", state["model"]))
        if self.average is not None:
            self.average.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate.load(state["scheduler"])
        self.stop.reference = state["early_stop"]["reference"]
        self.stop.waited = state["early_stop"]["waited"]
        self.best = BestEpoch(**state["best"])
        self.position = TrainProgress(**state["position"])
        self.history = list(state["history"])
        if self.ranks.speaks:  # the others start from zero: these are the sums of all
            self.sums.state().copy_(state["sums"])


def known_options(config: Config) -> dict[str, Any]:
    """Every option of the model and its default: a later version may have other defaults."""
    from .. import models

    known = models.options_of(config.model)
    known.pop("weights", None)
    return known


def model_options(config: Config) -> dict[str, Any]:
    """--model-options, then --dropout and --zero-init where the model has them, --freeze and
    --memory, which are an error where it has not."""
    options = config.options
    for name, owner in (("freeze", "r3d"), ("memory", "convlstm")):
        value = getattr(config, name)
        if value and name not in known_options(config):
            raise ConfigError(
                f"--{name} {value}: {config.model} has no such option; use it with {owner}."
            )
        if value:
            options[name] = value
    if config.dropout:
        options.setdefault("dropout", config.dropout)
    if config.zero_init and "zero_init_residual" in known_options(config):
        options.setdefault("zero_init_residual", True)
    return options

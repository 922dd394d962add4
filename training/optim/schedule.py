"""When to lower the learning rate, when to stop, which epoch is the best: rules over numbers.

Paper, sections 4, 5 and 8: the rate falls when validation loss stops improving; training stops
when the monitored value has not improved by `epsilon_increment` percent for `patience` epochs; the
best epoch is the one with the highest validation accuracy (ties: the lower validation loss).

Odd: the learning rate is torch's own ReduceLROnPlateau (paper) or LambdaLR (cosine with warm-up),
behind one door, `LrScheduler`, because one moves by epochs and the other by steps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..config import Config


@dataclass
class EarlyStopping:
    """Counts epochs without a relative improvement of more than `percent`."""

    patience: int
    percent: float
    lower_is_better: bool
    reference: float | None = None
    waited: int = 0

    def update(self, value: float) -> bool:
        """Take the epoch's value; -> True when training should stop."""
        if self._improves(value):
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.reference is None:
            return True
        gain = self.reference - value if self.lower_is_better else value - self.reference
        return gain > abs(self.reference) * self.percent / 100

    def state(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class BestEpoch:
    """The best epoch so far, by validation accuracy, then by validation loss."""

    epoch: int = 0
    val_acc: float = -1.0
    val_loss: float = math.inf

    def update(self, epoch: int, val_acc: float, val_loss: float) -> bool:
        """-> True when this epoch is the best so far."""
        if (val_acc, -val_loss) > (self.val_acc, -self.val_loss):
            self.epoch, self.val_acc, self.val_loss = epoch, val_acc, val_loss
            return True
        return False

    def state(self) -> dict[str, Any]:
        return asdict(self)


class LrScheduler:
    """The schedule of `config`, over `steps` optimizer steps an epoch."""

    def __init__(self, config: Config, optimizer: torch.optim.Optimizer, steps: int) -> None:
        from torch.optim import lr_scheduler

        self._optimizer = optimizer
        self._by_epoch: Any = None
        self._by_step: Any = None
        if config.schedule == "plateau":
            self._by_epoch = lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=config.plateau_factor, patience=config.plateau_patience
            )
            return
        warm, total = config.warmup_epochs * steps, config.epochs * steps
        self._by_step = lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine_factor(step, warm, total)
        )

    @property
    def value(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        if self._by_step is not None:
            self._by_step.step()

    def after_epoch(self, val_loss: float) -> None:
        if self._by_epoch is not None:
            self._by_epoch.step(val_loss)

    def state(self) -> dict[str, Any]:
        kept = (self._by_epoch or self._by_step).state_dict()
        return {name: value for name, value in kept.items() if name != "lr_lambdas"}

    def load(self, state: dict[str, Any]) -> None:
        more = {"lr_lambdas": [None]} if self._by_step is not None else {}
        (self._by_epoch or self._by_step).load_state_dict({**state, **more})


def cosine_factor(step: int, warm: float, total: int) -> float:
    """lr at `step` over the peak: a line up to `warm` steps, then half a cosine down to 0."""
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1.0, total - warm)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

"""The learning rate: torch's ReduceLROnPlateau (paper, section 5) or StepLR, or a cosine with
warm-up.

One class for all, because two move by epochs and one by steps. Each multiplies the rate of every
parameter group by the same factor, the classifier's too.
"""

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from ..config import Config


class LrScheduler:
    """The scheduler that `config` names. num_batches: of an epoch, for the cosine; it counts steps
    of the optimizer, of which accumulation makes fewer."""

    def __init__(self, config: Config, optimizer: torch.optim.Optimizer, num_batches: int) -> None:
        self._config, self._optimizer = config, optimizer
        self._scheduler: ReduceLROnPlateau | StepLR | LambdaLR
        if config.lr_scheduler == "plateau":
            self._scheduler = ReduceLROnPlateau(
                optimizer, factor=config.plateau_factor, patience=config.plateau_patience
            )
        elif config.lr_scheduler == "step":
            self._scheduler = StepLR(optimizer, config.step_size, config.gamma)
        else:
            steps = -(-num_batches // config.grad_accum_steps)  # an epoch
            warmup, total = config.warmup_epochs * steps, config.epochs * steps
            self._scheduler = LambdaLR(optimizer, lambda step: cosine_factor(step, warmup, total))

    @property
    def lr(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def lr_head(self) -> float:
        """The classifier's, with `--lr-head`; else the same as `lr`."""
        return float(self._optimizer.param_groups[-1]["lr"])

    def step(self) -> None:
        """After every optimizer step."""
        if isinstance(self._scheduler, LambdaLR):
            self._scheduler.step()

    def step_epoch(self, val_loss: float) -> None:
        """After every epoch."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(val_loss)
        elif isinstance(self._scheduler, StepLR):
            self._scheduler.step()

    def describe_change(self, epochs: int) -> str | None:
        """What a resumed run must say whose cosine was of `epochs` epochs until now: the learning
        rate as it was, and as it goes on; None where they are the same."""
        config, scheduler = self._config, self._scheduler
        if not isinstance(scheduler, LambdaLR) or epochs == config.epochs:
            return None
        factor = scheduler.lr_lambdas[0](scheduler.last_epoch)
        verb = "stretches" if config.epochs > epochs else "shortens"
        return (
            f"--epochs {config.epochs} {verb} the cosine of {epochs} epochs: the learning rate "
            f"was {self.lr:.1e} and goes on from {scheduler.base_lrs[0] * factor:.1e}; for a "
            "schedule from its start, with these weights and a new classifier"
        )

    def state_dict(self) -> dict[str, Any]:
        state = self._scheduler.state_dict()
        state.pop("lr_lambdas", None)  # a function; it is made anew from the config
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        more = {"lr_lambdas": [None]} if isinstance(self._scheduler, LambdaLR) else {}
        self._scheduler.load_state_dict({**state, **more})


def cosine_factor(step: int, warmup: float, total: int) -> float:
    """lr at `step` over the peak: a line up to `warmup` steps, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

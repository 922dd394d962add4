"""The optimizer's step with loss scaling for fp16 (Micikevicius et al. 2018, torch's GradScaler).

fp16 ends at 65,504, and below 6e-8 it is 0. The loss is multiplied by a scale, so that small
gradients do not vanish; a step whose gradients overflow is skipped and the scale halved, and after
2,000 good steps it is doubled. A skipped step is normal. A run has diverged when no scale helps.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_MIN_SCALE = 1e-4  # below it gradients vanish; fairseq gives up there as well
_MOST_SKIPPED = 30  # in a row: takes the first scale, 65,536, below _MIN_SCALE


class LossScaler:
    """Backward pass and optimizer step. Without fp16 it scales nothing and skips nothing."""

    def __init__(self, precision: torch.dtype, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        self._num_skipped = 0  # in a row

    @property
    def has_collapsed(self) -> bool:
        """Whether scaling does not help any more: the run has diverged."""
        is_small = self._num_skipped > 0 and self._scaler.get_scale() < _MIN_SCALE
        return is_small or self._num_skipped >= _MOST_SKIPPED

    def backward(self, loss: torch.Tensor) -> None:
        """The backward pass of the scaled loss."""
        self._scaler.scale(loss).backward()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip_grad: float
    ) -> bool:
        """Unscale, clip to the norm `clip_grad` (0: not), step; -> whether the weights moved.

        In fp16 this waits for the device, once a step: what follows depends on the answer.
        """
        if clip_grad:
            self._scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, clip_grad)
        scale = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        is_skipped = self._scaler.get_scale() < scale
        self._num_skipped = self._num_skipped + 1 if is_skipped else 0
        return not is_skipped

    def state_dict(self) -> dict[str, Any]:
        """{} without fp16."""
        state = self._scaler.state_dict()
        return {**state, "num_skipped": self._num_skipped} if state else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state and self._scaler.is_enabled():
            self._num_skipped = state["num_skipped"]
            self._scaler.load_state_dict(state)

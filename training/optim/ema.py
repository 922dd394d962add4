"""A moving average of the weights (EMA), evaluated instead of the weights themselves.

The first update copies the weights; then the decay grows to the one asked for, as
(1 + n) / (10 + n) after n updates, so that a short run does not average in its random start.
Buffers (batch norm's statistics) are averaged too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class ModelEma:
    """Holds `module`, the averaged copy of a model; `update` after every optimizer step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._max_decay, self._decay, self._num_updates = decay, 0.0, 0
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend, use_buffers=True)

    @property
    def module(self) -> nn.Module:
        return self._averaged.module

    def update(self, model: nn.Module) -> None:
        """Average the model's weights in."""
        self._decay = min(self._max_decay, (1 + self._num_updates) / (10 + self._num_updates))
        self._averaged.update_parameters(model)
        self._num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.module.state_dict(), "updates": self._num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self._num_updates = int(state["updates"])
        self._averaged.n_averaged.fill_(self._num_updates)

    def _blend(
        self, averages: Sequence[torch.Tensor], values: Sequence[torch.Tensor], _: Any
    ) -> None:
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value.detach().to(average.dtype), 1 - self._decay)
            else:
                average.copy_(value)

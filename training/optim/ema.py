"""A moving average of the weights (EMA), evaluated instead of the weights themselves.

The first update copies the weights; then the decay grows to the one asked for, as
(1 + n) / (10 + n) after n updates, so that a short run does not average in its random start.
Buffers (batch norm's statistics) are averaged too.
"""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


class ModelEma:
    """Holds `module`, the averaged copy of a model; `update` after every optimizer step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model)
        self._max_decay, self._num_updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average the model's weights in."""
        n = self._num_updates
        decay = min(self._max_decay, (1 + n) / (10 + n)) if n else 0.0
        for average, value in zip(_tensors(self.module), _tensors(model), strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - decay)
            else:
                average.copy_(value)
        self._num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.module.state_dict(), "updates": self._num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self._num_updates = int(state["updates"])


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    return itertools.chain(model.parameters(), model.buffers())

"""A moving average of the weights (EMA), evaluated instead of the weights themselves.

Odd: the decay grows from 0.1 to the one asked for, as (1 + n) / (10 + n), so that a short run does
not average in its random start. Buffers (batch norm's statistics) are averaged too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


class ModelEma:
    """Holds `module`, the averaged copy of a model; `update` after every optimizer step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        from torch.optim.swa_utils import AveragedModel

        self._decay, self._updates, self._now = decay, 0, 0.0
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend, use_buffers=True)

    @property
    def module(self) -> nn.Module:
        return self._averaged.module

    def update(self, model: nn.Module) -> None:
        """Take the model's weights in."""
        self._now = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._averaged.update_parameters(model)
        self._updates += 1

    def state(self) -> dict[str, Any]:
        return {"model": self.module.state_dict(), "updates": self._updates}

    def load(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self._updates = int(state["updates"])
        self._averaged.n_averaged.fill_(self._updates)

    def _blend(
        self,
        averages: Sequence[torch.Tensor],
        values: Sequence[torch.Tensor],
        _: torch.Tensor | int,
    ) -> None:
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value.detach().to(average.dtype), 1 - self._now)
            else:
                average.copy_(value)

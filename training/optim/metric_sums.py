"""Running sums of an epoch's metrics, on the device; they never wait for it (no `.item()` per step)."""

from __future__ import annotations

import torch


class MetricSums:
    """Sums of loss, correct clips and clips of an epoch, kept on the device in float64.

    float64 because a float32 sum stops counting clips one by one at 2**24.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)

    def update(self, loss_sum: torch.Tensor, correct: torch.Tensor, count: torch.Tensor) -> None:
        """Add one batch: three scalars (any dtype, on the device), each a sum over its clips."""
        self._sums += torch.stack([loss_sum.detach().double(), correct.double(), count.double()])

    def state(self) -> torch.Tensor:
        """The sums themselves, float64 [3] (loss, correct, count): ranks add these in place."""
        return self._sums

    @classmethod
    def of(cls, sums: torch.Tensor) -> MetricSums:
        """Sums as `state` gives them."""
        made = cls(sums.device)
        made._sums = sums
        return made

    def reset(self) -> None:
        """Start a new epoch."""
        self._sums.zero_()

    def compute(self) -> dict[str, float]:
        """{"loss", "acc", "count"}, divided once; this is the only place that waits for the device.

        Without a single clip loss and acc are nan.
        """
        loss, correct, count = self._sums.tolist()
        if count == 0:
            return {"loss": float("nan"), "acc": float("nan"), "count": 0.0}
        return {"loss": loss / count, "acc": correct / count, "count": count}

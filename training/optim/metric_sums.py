"""Running sums of an epoch's metrics, on the device: divided once, no `.item()` a step."""

import torch


class MetricSums:
    """Sums of loss, correct clips and clips of an epoch, kept on the device in float64.

    float64 because a float32 sum stops counting clips one by one at 2**24.
    sums: float64 [3] (loss, correct, count).
    """

    def __init__(self, device: torch.device | str, sums: torch.Tensor | None = None) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device) if sums is None else sums

    def update(self, loss_sum: torch.Tensor, correct: torch.Tensor, count: torch.Tensor) -> None:
        """Add one batch: three scalars (any dtype, on the device), each a sum over its clips."""
        self.sums += torch.stack([loss_sum.detach().double(), correct.double(), count.double()])

    def compute(self) -> dict[str, float]:
        """{"loss", "acc", "count"}; this is the only place that waits for the device.

        Without a single clip loss and acc are nan.
        """
        loss, correct, count = self.sums.tolist()
        if count == 0:
            return {"loss": float("nan"), "acc": float("nan"), "count": 0.0}
        return {"loss": loss / count, "acc": correct / count, "count": count}

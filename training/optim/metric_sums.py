"""Running sums of an epoch's metrics, on the device: divided once, no `.item()` a step."""

import torch


class MetricSums:
    """Sums of loss, correct clips and clips of an epoch, kept on the device in float64.

    float64 because a float32 sum stops counting clips one by one at 2**24; mps has only that.
    sums: float64 [3] (loss, correct, count).
    """

    def __init__(self, device: torch.device | str, sums: torch.Tensor | None = None) -> None:
        if sums is None:
            is_mps = torch.device(device).type == "mps"
            sums = torch.zeros(3, dtype=torch.float32 if is_mps else torch.float64, device=device)
        self.sums = sums

    def update(self, loss_sum: torch.Tensor, correct: torch.Tensor, count: torch.Tensor) -> None:
        """Add one batch: three scalars (any dtype, on the device), each a sum over its clips."""
        values = (loss_sum.detach(), correct, count)
        self.sums += torch.stack([value.to(self.sums.dtype) for value in values])

    def compute(self) -> dict[str, float]:
        """{"loss", "acc", "count"}; this is the only place that waits for the device.

        Without a single clip loss and acc are nan.
        """
        loss, correct, count = self.sums.tolist()
        if count == 0:
            return {"loss": float("nan"), "acc": float("nan"), "count": 0.0}
        return {"loss": loss / count, "acc": correct / count, "count": count}

"""Running sums of an epoch's metrics, on the device: divided once, no `.item()` a step."""

import math
from collections.abc import Sequence

import torch


class MetricSums:
    """Sums of loss, correct clips and clips of an epoch, kept on the device in float64.

    float64 because a float32 sum stops counting clips one by one at 2**24; mps has only that.
    names: of further means. sums: float64 [3+n] (loss, correct, count, one for each name).
    """

    def __init__(self, device: torch.device | str, names: Sequence[str] = ()) -> None:
        is_mps, self.names = torch.device(device).type == "mps", tuple(names)
        dtype = torch.float32 if is_mps else torch.float64
        self.sums = torch.zeros(3 + len(self.names), dtype=dtype, device=device)

    def update(
        self,
        loss_sum: torch.Tensor,
        correct: torch.Tensor,
        count: torch.Tensor,
        *further: torch.Tensor,
    ) -> None:
        """Add one batch: scalars (any dtype, on the device), each a sum over its clips."""
        values = (loss_sum.detach(), correct, count, *further)
        self.sums += torch.stack([value.to(self.sums.dtype) for value in values])

    def compute(self) -> dict[str, float]:
        """{"loss", "acc", "count"} and each of `names`; waits for the device. Without a single clip
        the means are nan.
        """
        loss, correct, count, *further = self.sums.tolist()
        sums = zip(("loss", "acc", *self.names), (loss, correct, *further), strict=True)
        return {name: total / count if count else math.nan for name, total in sums} | {
            "count": count
        }

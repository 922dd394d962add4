"""Several processes as one run: `torchrun --nproc-per-node N $(which har-train) ...`.

Each rank takes its rows of the same global batch, so the number of ranks changes speed and not the
training. Rank 0 alone writes and speaks; sums are added over ranks and divided once.

Odd:
- What one rank alone could decide (a signal, a time limit) is agreed on first, because ranks that
  disagree on whether another step follows wait for each other.
- A rank that dies breaks the others' next exchange at once under gloo (its connections close), a
  rank that hangs after `--rank-timeout`; the first of the others to notice says so, once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ...errors import HarError
from ..config import ConfigError
from ..optim.metric_sums import MetricSums

if TYPE_CHECKING:
    import torch
    from torch import nn


class LostRankError(HarError):
    """Another rank died or hangs; one sentence, or nothing where another rank has said it."""


_SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")


@dataclass(frozen=True)
class DistributedContext:
    """Where this process stands: `rank` of `count`; `local` numbers it on its machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def speaks(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of `values` over the ranks, on every rank (a new tensor)."""
        total = values.clone()
        if self.count > 1:
            import torch.distributed as dist

            dist.all_reduce(total)
        return total

    def total(self, sums: MetricSums) -> MetricSums:
        """The sums over all ranks."""
        return MetricSums.of(self.add(sums.state()))

    def from_first(self, value: Any) -> Any:
        """Rank 0's plain `value`, on every rank."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def any(self, number: int, on: torch.device) -> int:
        """The largest `number` of all ranks."""
        if self.count == 1:
            return number
        import torch
        import torch.distributed as dist

        largest = torch.tensor(number, device=on)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest.item())

    def wrap(self, model: nn.Module, on: torch.device) -> nn.Module:
        """The model whose backward averages gradients over the ranks."""
        if self.count == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        ids = [on.index] if on.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


@contextmanager
def join(device: str, timeout: float = 300.0) -> Iterator[DistributedContext]:
    """Join the ranks that torchrun started; alone where it did not. Leaves at the end.

    timeout: seconds after which a rank that does not answer is given up. Raises LostRankError in
    the block's place when an exchange with the others breaks.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield DistributedContext()
        return
    import torch
    import torch.distributed as dist

    ranks = DistributedContext(
        int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", "0"))
    )
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda and ranks.local >= torch.cuda.device_count():
        raise ConfigError(
            f"rank {ranks.local} of this machine has no GPU ({torch.cuda.device_count()} visible): "
            "start fewer processes with --nproc-per-node, or use '--device cpu'."
        )
    if cuda:
        torch.cuda.set_device(ranks.local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout))
    try:
        yield ranks
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise LostRankError(_say_lost(ranks, error)) from error
    finally:
        dist.destroy_process_group()


def _lost(error: RuntimeError) -> bool:
    """Whether it is the exchange between ranks that broke."""
    import torch.distributed as dist

    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(sign in text for sign in _SIGNS)


def _say_lost(ranks: DistributedContext, error: RuntimeError) -> str:
    """The sentence; empty where another rank has said it already."""
    from torch.distributed import distributed_c10d as c10d

    try:
        first = c10d._get_default_store().add("har/lost", 1) == 1
    except RuntimeError:  # the store was the lost rank's
        first = True
    if not first:
        return ""
    text = " ".join(str(error).split())
    known = re.search(r"connection (closed|reset) by peer|timed out|broken pipe", text, re.I)
    reason = known.group().lower() if known else text[:100]
    return (
        f"rank {ranks.rank} of {ranks.count} lost another rank, which died or hangs ({reason}): "
        "all ranks end here; start the same torchrun command again with --resume and the run's "
        "folder."
    )

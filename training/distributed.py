"""Several processes as one run: `torchrun --nproc-per-node N $(which har-train) ...`.

Each rank takes its rows of the same global batch, so the number of ranks changes speed and not the
training. Rank 0 alone writes and speaks; sums are added over ranks and divided once.

Odd: what one rank alone could decide (a signal, a time limit) is agreed on first, because ranks
that disagree on whether another step follows wait for each other for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.config import ConfigError
from training.metrics import Running

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Ranks:
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

    def total(self, sums: Running) -> Running:
        """The sums over all ranks."""
        return Running.of(self.add(sums.state()))

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
def join(device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun started; alone where it did not. Leaves at the end."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    import torch
    import torch.distributed as dist

    ranks = Ranks(int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", "0")))
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda and ranks.local >= torch.cuda.device_count():
        raise ConfigError(
            f"rank {ranks.local} of this machine has no GPU ({torch.cuda.device_count()} visible): "
            "start fewer processes with --nproc-per-node, or use '--device cpu'."
        )
    if cuda:
        torch.cuda.set_device(ranks.local)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield ranks
    finally:
        dist.destroy_process_group()

"""Several processes as one run: `torchrun --nproc-per-node N $(which har-train) ...`.

Each rank takes its part of the same global batch, so the number of ranks changes the speed, and of
the training what batch norm sees: a rank's part, unless SyncBN. Rank 0 alone writes files and
lines; sums are added over ranks and divided once.

Notes:
- DDP would send rank 0's running statistics to all ranks before every step. Here each rank keeps
  those of its own part and `average_buffers` makes them equal before evaluation and saving, as
  timm's `distribute_bn`: all clips count, and nothing is sent in between.
- What one rank alone could decide (a signal, a time limit) is agreed on first, because ranks that
  disagree on whether another step follows wait for each other.
- A rank that dies breaks the others' next exchange at once under gloo (its connections close), a
  rank that hangs after `--rank-timeout`; the first of the others to notice says so, once.
"""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import distributed_c10d as c10d
from torch.nn.parallel import DistributedDataParallel

from ...errors import HarError
from ..config import ConfigError
from ..optim import MetricSums
from .device import best_device_type


class LostRankError(HarError):
    """Another rank died or hangs; one sentence, or nothing where another rank has said it."""


_LOST_SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")


@dataclass(frozen=True)
class DistributedContext:
    """This process: `rank` of `world_size`; `local_rank` numbers it on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of `values` over the ranks, on every rank (a new tensor)."""
        total = values.clone()
        if self.world_size > 1:
            dist.all_reduce(total)
        return total

    def all_reduce_metrics(self, metrics: MetricSums) -> MetricSums:
        """The sums over all ranks."""
        total = MetricSums(metrics.sums.device, metrics.names)
        total.sums = self.all_reduce_sum(metrics.sums)
        return total

    def all_reduce_max(self, number: int, device: torch.device) -> int:
        """The largest `number` of all ranks, exchanged through `device`."""
        if self.world_size == 1:
            return number
        largest = torch.tensor(number, device=device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest.item())

    def broadcast(self, value: Any) -> Any:
        """Rank 0's plain `value`, on every rank."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wrap_model(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model whose backward pass averages gradients over the ranks."""
        if self.world_size == 1:
            return model
        device_ids = None if device.type == "cpu" else [device.index]
        return DistributedDataParallel(
            model, device_ids=device_ids, gradient_as_bucket_view=True, broadcast_buffers=False
        )

    def no_sync(self, ddp_model: nn.Module) -> AbstractContextManager[None]:
        """Inside it, backward passes of a model of `wrap_model` leave gradients on their rank."""
        if self.world_size == 1:
            return nullcontext()
        return cast(DistributedDataParallel, ddp_model).no_sync()

    def average_buffers(self, model: nn.Module) -> None:
        """Set the model's floating-point buffers to their mean over the ranks, on every rank."""
        if self.world_size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.all_reduce_sum(buffer) / self.world_size)


@contextmanager
def init_distributed(device: str, timeout: float = 300.0) -> Iterator[DistributedContext]:
    """Join the ranks that torchrun started; alone where it did not. Leaves at the end.

    Within another such block it is that block's: ranks can join once only in a process.

    timeout: seconds after which a rank that does not answer is given up. Raises LostRankError in
    the block's place when an exchange with the others breaks.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield DistributedContext()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    ctx = DistributedContext(int(os.environ["RANK"]), world_size, local_rank)
    if dist.is_initialized():
        yield ctx
        return
    num_devices = torch.accelerator.device_count()
    if device != "cpu" and local_rank < num_devices:  # before anything touches the first GPU
        torch.accelerator.set_device_index(local_rank)
    kind = best_device_type() if device == "auto" else device.partition(":")[0]
    if kind != "cpu" and local_rank >= num_devices:
        raise ConfigError(
            f"rank {local_rank} of this machine has no GPU ({num_devices} visible): "
            "start fewer processes with --nproc-per-node, or use '--device cpu'."
        )
    backend = dist.get_default_backend_for_device(kind)  # nccl, xccl or gloo
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield ctx
    except RuntimeError as error:
        if not _is_lost_rank(error):
            raise
        raise LostRankError(_lost_rank_message(ctx, error)) from error
    finally:
        dist.destroy_process_group()


def _is_lost_rank(error: RuntimeError) -> bool:
    """Whether it is the exchange between ranks that broke."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(sign in text for sign in _LOST_SIGNS)


def _lost_rank_message(ctx: DistributedContext, error: RuntimeError) -> str:
    """The sentence; empty where another rank has said it already."""
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
        f"rank {ctx.rank} of {ctx.world_size} lost another rank, which died or hangs ({reason}): "
        "all ranks end here; start the same torchrun command again with --resume and the run's "
        "folder."
    )

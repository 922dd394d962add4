"""The plan's batches by torch's own `DataLoader`: the fallback, and the baseline of the benches.

    dataset = ClipBatches(manifest, plan, frames=8)
    batches = DataLoader(dataset, batch_size=None, sampler=Steps(plan, epoch), num_workers=4)

The same batches, bit for bit, as `har.shards.loading.loader.Loader` gives. An item of the dataset is a whole
batch, made by one worker process in fresh memory and sent through shared memory; the plain way of
one clip an item copies each clip once more (docs/benchmarks.md, "Loader").

Odd: each process opens the shards for itself at its first batch, so the dataset may be pickled and
forked. Workers know nothing of each other: each counts corrupt clips (`max_bad`) for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..format.shard_set import Manifest
from ..transforms.clip_processor import ClipProcessor
from .batch_builder import BatchBuilder
from .batch_sampler import BatchSampler
from .buffers import Batch

Place = tuple[int, int]  # epoch, step


class Steps(Sampler[Place]):
    """(epoch, step) for each step of `epoch` from `start` on; set `epoch` before each epoch."""

    def __init__(self, plan: BatchSampler, epoch: int = 0, start: int = 0) -> None:
        self.plan, self.epoch, self.start = plan, epoch, start

    def __len__(self) -> int:
        return self.plan.steps - self.start

    def __iter__(self) -> Iterator[Place]:
        return ((self.epoch, step) for step in range(self.start, self.plan.steps))


class ClipBatches(Dataset[Batch]):
    """dataset[epoch, step] -> the `Batch` of the plan; its pixels are nobody else's memory.

    frames, jitter, check, processor, max_bad: as `Loader` has them. Raises LoaderError for those that
    do not fit the shards, at the first batch.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: BatchSampler,
        *,
        frames: int | None = None,
        jitter: bool = False,
        check: bool = True,
        processor: ClipProcessor | None = None,
        max_bad: int = 0,
    ) -> None:
        self.manifest, self.plan = manifest, plan
        self._options: dict[str, Any] = {
            "frames": frames, "jitter": jitter, "check": check, "processor": processor,
            "max_bad": max_bad,
        }  # fmt: skip
        self._filler: BatchBuilder | None = None
        self._owner = 0  # process whose filler it is

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filler": None}

    def __getitem__(self, place: Place) -> Batch:
        if self._filler is None or self._owner != os.getpid():
            self._filler = BatchBuilder(self.manifest, self.plan, **self._options)
            self._owner = os.getpid()
        filler, (epoch, step) = self._filler, place
        rows = filler.rows(epoch, step)
        kind = torch.float32 if filler.floats else torch.uint8
        pixels = torch.empty((len(rows.ids), *filler.shape), dtype=kind)  # [b,t,h,w,C]
        for row, out in enumerate(pixels.numpy()):
            filler.fill(epoch, rows, row, out)
        if filler.floats:
            pixels = pixels.permute(0, 4, 1, 2, 3)  # [b,C,t,h,w]
        labels = self.manifest.index["label"][rows.ids].astype(np.int64)
        keys, counted = self.manifest.keys(rows.ids), filler.counted(epoch, step, rows)
        return Batch(step, pixels, labels, rows.ids, rows.valid, counted, keys, views=rows.views)

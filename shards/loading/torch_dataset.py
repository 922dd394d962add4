"""The sampler's batches by torch's own `DataLoader`: the fallback, and a baseline of the benches.

    dataset = ClipBatchDataset(manifest, sampler, LoaderOptions(frames=8))
    batches = DataLoader(dataset, batch_size=None, sampler=StepSampler(sampler), num_workers=4)

The same batches, bit for bit, as `Loader` gives. An item of the dataset is a whole batch, made by
one worker process. Each process opens the shards for itself at its first batch, so the dataset may
be pickled and forked, and counts corrupt clips (`max_corrupt`) for itself.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..format import Manifest
from .batch_builder import BatchBuilder, Transform
from .batch_sampler import BatchSampler
from .buffers import Batch
from .options import LoaderOptions

Position = tuple[int, int]  # epoch, step


class StepSampler(Sampler[Position]):
    """(epoch, step) for each step of `epoch` from `start` on; set `epoch` before each epoch."""

    def __init__(self, sampler: BatchSampler, epoch: int = 0, start: int = 0) -> None:
        self.sampler, self.epoch, self.start = sampler, epoch, start

    def __len__(self) -> int:
        return self.sampler.num_batches - self.start

    def __iter__(self) -> Iterator[Position]:
        return ((self.epoch, step) for step in range(self.start, self.sampler.num_batches))


class ClipBatchDataset(Dataset[Batch]):
    """dataset[epoch, step] -> the `Batch` of the sampler, in memory of its own.

    options: workers, prefetch_batches, pin_memory and timeout are the DataLoader's here. transform:
    see `Loader`. Raises LoaderError at the first batch for what does not fit the shards.
    """

    def __init__(
        self,
        manifest: Manifest,
        sampler: BatchSampler,
        options: LoaderOptions | None = None,
        *,
        transform: Transform | None = None,
    ) -> None:
        self.manifest, self.sampler, self.options = manifest, sampler, options or LoaderOptions()
        self.transform = transform
        self._builder: BatchBuilder | None = None
        self._process = 0  # that the builder belongs to

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_builder": None}

    def __getitem__(self, position: Position) -> Batch:
        if self._builder is None or self._process != os.getpid():
            self._builder = BatchBuilder(self.manifest, self.sampler, self.options, self.transform)
            self._process = os.getpid()
        builder, (epoch, step) = self._builder, position
        batch = self.sampler.batch(epoch, step)
        out = np.empty((len(batch.indices), *builder.shape), builder.dtype)
        for row in range(len(out)):
            builder.fill_row(epoch, batch, row, out[row])
        pixels = torch.from_numpy(out)
        if builder.channels_first:
            pixels = pixels.permute(0, 4, 1, 2, 3)  # [b,C,T,h,w]
        return builder.finish(epoch, step, batch, pixels)

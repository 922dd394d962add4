"""`--cache gpu`: the stored clips of one subset kept on the device, batches gathered there.

8,500 clips of 16x128x171 take 8.9 GB. Order, augmentation and temporal jitter are
those of the loader: only where the uint8 pixels come from differs. Corrupt clips are found while
the subset is read, once, and replaced as the loader does. Nothing here is CUDA's own: the tests run
it on the CPU.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from ...shards.loading import Batch, Loader
from ..config import ConfigError
from ..runtime.device import stream_module, synchronize

_READ_SIZE = 16  # clips read and copied together while the subset is read


class GpuCache:
    """The clips of the loader's sampler on `device`, uint8 [N,T,H,W,C] with all stored frames.

    Gives the batches that `loader` would give, before augmentation. Raises the loader's errors.
    """

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self._loader, self._device = loader, device
        indices = loader.sampler.indices
        self._row_of = np.full(len(loader.manifest.index), -1)  # clip index -> row of _pixels
        self._row_of[indices] = np.arange(len(indices))
        self._clip_of = indices.copy()  # row -> clip index, another's where one is corrupt
        shape = (len(indices), *loader.manifest.clip_shape)
        self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        self._fill()

    def _fill(self) -> None:
        sampler = replace(
            self._loader.sampler, batch_size=_READ_SIZE, shuffle=False, rank=0, world_size=1,
            block_size=0, views=1,
        )  # fmt: skip
        options = replace(
            self._loader.options, frames=None, frame_stride=None, temporal_jitter=False, windows=0,
            cache="none",
        )  # fmt: skip
        with Loader(self._loader.manifest, sampler, options) as reader:
            for batch in reader.epoch():
                start = batch.step * _READ_SIZE
                count = min(_READ_SIZE, len(sampler.indices) - start)  # the rest is padding
                self._pixels[start : start + count] = batch.pixels[:count].to(self._device)
                self._clip_of[start : start + count] = batch.indices[:count]
        self._loader.corrupt.update(reader.corrupt)
        synchronize(self._device)  # batches are gathered on another stream

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """As `Loader.epoch`; pixels uint8 [b,T,H,W,C] on the device, nothing to release."""
        sampler, manifest = self._loader.sampler, self._loader.manifest
        for step in range(start, sampler.num_batches):
            batch = sampler.batch(epoch, step)
            rows = self._row_of[batch.indices]
            indices = self._clip_of[rows]
            valid, num_valid = batch.valid, batch.num_valid
            if not sampler.shuffle:  # in an evaluation the other clip counts elsewhere
                valid = valid & (indices == batch.indices)
                num_valid -= int((batch.valid & ~valid).sum())
            labels = manifest.index["label"][indices].astype(np.int64)
            pixels = self._gather(epoch, indices, rows, batch.views)
            keys = manifest.keys(indices)
            yield Batch(step, pixels, labels, indices, valid, num_valid, keys, batch.views)

    def _gather(
        self, epoch: int, indices: np.ndarray, rows: np.ndarray, views: np.ndarray
    ) -> torch.Tensor:
        """uint8 [b,T,H,W,C] of these rows, with the frames that the loader would take."""
        rows_there = torch.from_numpy(rows).to(self._device, non_blocking=True)  # [b]
        if self._loader.frames == self._loader.manifest.clip_shape[0]:
            return self._pixels.index_select(0, rows_there)
        numbers = [
            self._loader.frame_indices(epoch, index, view)
            for index, view in zip(indices.tolist(), views.tolist(), strict=True)
        ]
        frames = torch.from_numpy(np.stack(numbers)).to(self._device, non_blocking=True)  # [b,T]
        return self._pixels[rows_there[:, None], frames]


def check_fits(device: torch.device, num_bytes: int, free_bytes: int | None) -> None:
    """Refuse `--cache gpu` where there is no GPU with streams or the clips do not fit.

    num_bytes: of the clips. free_bytes: None where unknown.
    """
    if stream_module(device) is None:
        raise ConfigError(
            f"--cache gpu keeps the clips on a GPU and this run is on {device}: "
            "use '--cache ram', or a machine with CUDA."
        )
    if free_bytes is not None and num_bytes > free_bytes:
        raise ConfigError(
            f"--cache gpu needs {num_bytes:,} bytes for the train and val clips and {device} has "
            f"{free_bytes:,} free: use '--cache ram' or shards of smaller or fewer frames."
        )

"""`--cache gpu`: the stored clips of one side kept on the device, batches gathered there.

UCF101's 8,500 train clips of 16x128x171 take 9.0 GB. Order, augmentation and jitter are those of
the loader: only where the uint8 pixels come from differs.

Odd: nothing here is CUDA's own; the tests run it on the CPU. Corrupt clips are found while the side
is read, once, and replaced as the loader does (`max_bad`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...shards.loading.loader import Batch, Loader
from ..config import ConfigError

if TYPE_CHECKING:
    import torch

_AT_ONCE = 16  # clips read and copied together while the side is read


class GpuCache:
    """The clips of `loader.plan.ids` on `device`, uint8 [N,T,H,W,C] with all stored frames.

    Gives the batches that `loader` would give, before augmentation. Raises the loader's errors.
    """

    def __init__(self, loader: Loader, device: torch.device, workers: int) -> None:
        import torch

        self._loader, self._device = loader, device
        ids = loader.plan.ids
        self._row = np.full(len(loader.manifest.index), -1)
        self._row[ids] = np.arange(len(ids))
        self._stands_for = ids.copy()  # another clip's number where one is corrupt
        self._pixels = torch.empty(
            (len(ids), *loader.manifest.clip_shape), dtype=torch.uint8, device=device
        )
        self._fill(workers)

    def _fill(self, workers: int) -> None:
        plan = replace(
            self._loader.plan, batch_size=_AT_ONCE, shuffle=False, rank=0, ranks=1, window=0
        )
        reader = Loader(
            self._loader.manifest,
            plan,
            workers=workers,
            pinned=self._device.type == "cuda",
            max_bad=self._loader.max_bad,
        )
        with reader:
            for batch in reader.epoch():
                start = batch.step * _AT_ONCE
                count = min(_AT_ONCE, len(plan.ids) - start)  # the rest is fill-up
                self._pixels[start : start + count] = batch.pixels[:count].to(self._device)
                self._stands_for[start : start + count] = batch.ids[:count]
        self._loader.bad.update(reader.bad)
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)  # batches are gathered on another stream

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """As `Loader.epoch`; pixels uint8 [b,T,H,W,C] on the device, nothing to release."""
        plan, manifest = self._loader.plan, self._loader.manifest
        for step in range(start, plan.steps):
            rows = plan.rows(epoch, step)
            ids = self._stands_for[self._row[rows.ids]]
            valid, counted = rows.valid, rows.counted
            if not plan.shuffle:  # in an evaluation the other clip counts elsewhere
                valid = valid & (ids == rows.ids)
                counted -= int((rows.valid & ~valid).sum())
            labels = manifest.index["label"][ids].astype(np.int64)
            pixels = self._take(epoch, ids, self._row[rows.ids])
            yield Batch(step, pixels, labels, ids, valid, counted, manifest.keys(ids))

    def _take(self, epoch: int, ids: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """uint8 [b,T,H,W,C] of these rows, with the frames that the loader would take."""
        import torch

        where = torch.from_numpy(rows).to(self._device, non_blocking=True)  # [b]
        if self._loader.frames == self._loader.manifest.clip_shape[0]:
            return self._pixels.index_select(0, where)
        numbers = [self._loader.frame_numbers(epoch, sample) for sample in ids.tolist()]
        frames = torch.from_numpy(np.stack(numbers)).to(self._device, non_blocking=True)  # [b,T]
        return self._pixels[where[:, None], frames]


def check(device: torch.device, needed: int, free: int | None) -> None:
    """Refuse `--cache gpu` where there is no CUDA device or the clips do not fit.

    needed: bytes of the clips. free: bytes that a training step leaves over; None where unknown.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"--cache gpu keeps the clips on a GPU and this run is on {device}: "
            "use '--cache ram', or a machine with CUDA."
        )
    if free is not None and needed > free:
        raise ConfigError(
            f"--cache gpu needs {needed:,} bytes for the train and val clips and {device} has "
            f"{max(0, free):,} free beside a training step: use '--cache ram' or shards of "
            "smaller or fewer frames."
        )

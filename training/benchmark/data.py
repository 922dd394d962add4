"""The data's side of har-bench-train: a small shard set, and training steps fed from it.

The set is written to a folder of the caller's and read the real way: `har.training.input.device_loader.DeviceLoader` over
`har.shards.loading.loader`, shuffled and augmented as the preset `paper` does it. Its clips are noise: raw
pixels cost the same whatever they show, from the page cache as in every epoch after the first.

Odd: between the rounds of the race the loader reads ahead for nothing, so a round would begin with
batches it never waited for. `Fed.catch_up` throws these away and makes one step that is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...shards.format import shard_set
from ...shards.format.shard_set import Manifest
from ...shards.format.writer import ShardWriter
from ...shards.loading.batch_sampler import BatchSampler
from ...shards.transforms.affine import Augmentation
from ...shards.transforms.clip_transform import ClipTransform
from ..input.device_loader import DeviceLoader

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_CLASSES = ("noise",)


def write_set(folder: Path, *, clips: int, frames: int, size: int, spec: ClipTransform) -> Manifest:
    """Write `clips` clips of noise to `folder`, one shard; -> the loaded set.

    Stored frames stand to `size` as `spec.resize_size` to `spec.crop_size`: 128x171 for 112. Raises OSError
    where the disk is full.
    """
    height, width = _stored(size, spec)
    shape = (frames, height, width, 3)
    noise, rows = np.random.default_rng(0), []
    with ShardWriter(folder / "shard-000000.tar", is_synced=False) as shard:
        for number in range(clips):
            key = f"noise_{number:05d}"
            pixels = noise.integers(0, 256, shape, np.uint8)
            offset, check = shard.add(key, pixels, 0, {"class": _CLASSES[0]})
            rows.append((key, 0, offset, 0, shard_set.NO_GROUP, number, 0, 0, frames, 0, check))
        written = shard.close()
    made = Manifest(
        clip_shape=shape,
        sampling={"rule": "paper"},
        resize={},
        classes=_CLASSES,
        groups=(),
        grouping=None,
        shards=(written,),
        plan="",
        versions={},
        rejects=0,
        index_sha256="",
        index=shard_set.make_index(rows),
    )
    return shard_set.save(made, folder)


def open_feed(
    clips: Manifest, batch_size: int, steps: int, size: int, spec: ClipTransform, on: torch.device
) -> DeviceLoader:
    """`steps` batches of the set's clips in one epoch, each clip again and again."""
    ids = np.resize(np.arange(len(clips.index)), steps * batch_size)
    height, width = _stored(size, spec)
    wanted = ClipTransform(clips.clip_shape[0], (size, size), (height, width), spec.mean, spec.std)
    plan = BatchSampler(ids, batch_size, seed=0, shuffle=True)
    return DeviceLoader(clips, plan, wanted, on, augmentation=Augmentation())


def _stored(size: int, spec: ClipTransform) -> tuple[int, int]:
    height, width = (
        round(size * edge / side)
        for edge, side in zip(spec.resize_size, spec.crop_size, strict=True)
    )
    return height, width


class Fed:
    """Training steps on batches of a feed. waited: seconds of the host in wait for a batch.

    step: what is done with clips [B,C,T,h,w].
    """

    AHEAD = 3  # batches that may lie ready: two of the loader, one on its way to a GPU

    def __init__(self, feed: DeviceLoader, step: Callable[[Tensor], None]) -> None:
        self._feed, self._step = feed, step
        self._batches = feed.epoch()
        self.waited = 0.0

    @classmethod
    def batches_of(cls, rounds: int, steps: int) -> int:
        """How many batches `rounds` rounds of `steps` steps take, with those read ahead."""
        return rounds * (steps + cls.AHEAD + 1) + cls.AHEAD

    def catch_up(self) -> None:
        """Come to where the loader is in a long run, and forget the time waited until now."""
        for _ in range(self.AHEAD):
            next(self._batches)
        self()
        self.waited = 0.0

    def __call__(self) -> None:
        start = time.perf_counter()
        ready = next(self._batches)
        self.waited += time.perf_counter() - start
        self._step(ready.clips)

    def close(self) -> None:
        self._feed.close()

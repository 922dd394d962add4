"""The data of har-bench-train: a small shard set, and training steps on batches of its loader.

The set is written to a scratch folder and read as in training: shuffled and augmented by the
`DeviceLoader` as with the preset `paper`. Its clips are noise: raw pixels cost the same whatever
they show, from the page cache as in every epoch after the first.

Notes: between two rounds the loader reads ahead while others are timed, so a round would begin with
batches it never waited for. `LoaderStep.skip_prefetched` throws these away and makes one step that
is not timed.
"""

import time
from pathlib import Path

import numpy as np
import torch

from ...shards.format import NO_GROUP, Manifest, ShardWriter, make_index, save_manifest
from ...shards.loading import BatchSampler
from ...shards.transforms.affine import Augmentation
from ...shards.transforms.clip_transform import ClipTransform
from ..input.device_loader import DeviceLoader
from .steps import Step


def noise_transform(frames: int, size: int) -> ClipTransform:
    """Clips of size x size, cut from frames that are to them as 128x171 is to 112x112."""
    standard = ClipTransform()
    height, width = (round(size * side / standard.crop_size[0]) for side in standard.resize_size)
    return ClipTransform(frames, (size, size), (height, width))


def write_noise_set(folder: Path, num_clips: int, transform: ClipTransform) -> Manifest:
    """Write clips of noise to `folder`, in one shard; -> the loaded set. Raises OSError."""
    shape = (transform.frames, *transform.resize_size, 3)
    random, rows = np.random.default_rng(0), []
    with ShardWriter(folder / "shard-000000.tar") as shard:
        for number in range(num_clips):
            key = f"noise_{number:05d}"
            pixels = random.integers(0, 256, shape, np.uint8)
            offset, checksum = shard.add(key, pixels, 0, {"class": "noise"})
            rows.append((key, 0, offset, 0, NO_GROUP, number, 0, 0, shape[0], 0, checksum))
        shard_info = shard.close()
    manifest = Manifest(
        clip_shape=shape,
        sampling={"rule": "paper"},
        resize={},
        classes=("noise",),
        groups=(),
        grouping=None,
        shards=(shard_info,),
        plan="",
        versions={},
        rejects=0,
        index_sha256="",
        index=make_index(rows),
    )
    return save_manifest(manifest, folder)


class LoaderStep:
    """Training steps on batches of a loader that reads a set's clips again and again in one epoch.

    step: what is done with clips [B,C,T,h,w]. num_batches: how many will be asked for. gpu_cache:
    as `--cache gpu`. data_time: seconds the host waited for batches since `skip_prefetched`.
    """

    PREFETCHED = 3  # batches that may be ready: two of the loader, one on its way to a GPU

    def __init__(
        self, step: Step, manifest: Manifest, transform: ClipTransform, *, batch_size: int,
        num_batches: int, device: torch.device, gpu_cache: bool = False,
    ) -> None:  # fmt: skip
        indices = np.resize(np.arange(len(manifest.index)), num_batches * batch_size)
        sampler = BatchSampler(indices, batch_size, seed=0, shuffle=True)
        self._loader = DeviceLoader(
            manifest,
            sampler,
            transform,
            device,
            augmentation=Augmentation(),
            gpu_cache=gpu_cache,
        )
        self._step, self._batches = step, self._loader.epoch()
        self.data_time = 0.0

    @classmethod
    def num_batches(cls, rounds: int, steps: int) -> int:
        """How many batches `rounds` rounds of `steps` steps take, with those read ahead."""
        return rounds * (steps + cls.PREFETCHED + 1) + cls.PREFETCHED

    def skip_prefetched(self) -> None:
        """Come to where the loader is in a long run, and set `data_time` to 0."""
        for _ in range(self.PREFETCHED):
            next(self._batches)
        self()
        self.data_time = 0.0

    def __call__(self) -> None:
        start = time.perf_counter()
        batch = next(self._batches)
        self.data_time += time.perf_counter() - start
        self._step(batch.clips)

    def close(self) -> None:
        self._loader.close()

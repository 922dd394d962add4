"""The contestants of har-bench-loader that read a shard set (or the same clips in another format).

Each is a function of no arguments that makes one pass and yields the number of clips of each batch;
workers stay alive between passes, so that no pass pays for starting them.

Odd:
- `memcpy` is the machine's ceiling: as many bytes as the set has, from memory that holds the whole
  set (a small source would sit in the cache and double the figure), into a ring like the loader's,
  with the same threads.
- LitData and MosaicML Streaming read their own formats, written from the same clips into a scratch
  folder; they take part where they are installed.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...shards.format.reader import ClipReader
from ...shards.format.shard_set import Manifest
from ...shards.format.shard_set import load as load_set
from ...shards.loading.batch_sampler import BatchSampler
from ...shards.loading.loader import Loader
from ...shards.transforms import affine
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import KINETICS_MEAN, KINETICS_STD, ClipTransform

MEAN, STD = KINETICS_MEAN, KINETICS_STD
Contestant = Callable[[], Iterator[int]]


def workers_of(workers: int) -> dict[str, Any]:
    """DataLoader's options: forked (LitData changes the default for everyone), kept alive."""
    if workers == 0:
        return {"num_workers": 0}
    return {
        "num_workers": workers, "persistent_workers": True, "multiprocessing_context": "fork",
    }  # fmt: skip


def whole_batches(clips: Manifest, batch_size: int) -> np.ndarray:
    """Sample ids for a plan without fill-up, which reads clips that are not counted: 6% of the work
    in a set of 120 clips and batches of 32, 0.1% in UCF101. All ids of a set below one batch."""
    count = len(clips.index)
    return np.arange(count - count % batch_size or count)


def ours(clips: Manifest, batch_size: int, workers: int) -> dict[str, Contestant]:
    """This loader: shuffled, in order, and augmented in its workers."""
    order = whole_batches(clips, batch_size)
    shuffled = BatchSampler(order, batch_size, seed=1, shuffle=True)
    side = min(112, *clips.clip_shape[1:3])
    transform = ClipTransform(crop_size=(side, side), resize_size=clips.clip_shape[1:3])
    processor = ClipProcessor(transform, affine.Augmentation())
    return {
        "har": _passes(Loader(clips, shuffled, workers=workers)),
        "har_sequential": _passes(Loader(clips, BatchSampler(order, batch_size), workers=workers)),
        "har_augmented": _passes(Loader(clips, shuffled, workers=workers, processor=processor)),
    }


def torch_augmented(clips: Manifest, batch_size: int, workers: int) -> Contestant:
    """This loader, augmented by `augment.apply` in the user's thread (torch)."""
    import torch

    T, H, W, _ = clips.clip_shape
    side = min(112, H, W)
    plan = BatchSampler(whole_batches(clips, batch_size), batch_size, seed=1, shuffle=True)
    loader = Loader(clips, plan, workers=workers)
    size, rule = (side, side), affine.Augmentation()

    def one_pass() -> Iterator[int]:
        for batch in loader.epoch():
            maps = affine.train_maps(
                rule, seed=1, epoch=0, keys=batch.keys, frames=T, source=(H, W), size=size
            )
            affine.apply(batch.pixels, torch.from_numpy(maps), size=size, mean=MEAN, std=STD)
            yield batch.counted

    return one_pass


def on_device(clips: Manifest, batch_size: int, workers: int, name: str) -> Contestant:
    """This loader, copied to a CUDA device and augmented there; a pass ends when the device has."""
    import torch

    T, H, W, _ = clips.clip_shape
    side = min(112, H, W)
    plan = BatchSampler(whole_batches(clips, batch_size), batch_size, seed=1, shuffle=True)
    loader = Loader(clips, plan, workers=workers, pinned=True)
    device, size, rule = torch.device(name), (side, side), affine.Augmentation()

    def one_pass() -> Iterator[int]:
        for batch in loader.epoch():
            maps = affine.train_maps(
                rule, seed=1, epoch=0, keys=batch.keys, frames=T, source=(H, W), size=size
            )
            pixels = batch.pixels.to(device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
            batch.release(copied)
            affine.apply(pixels, torch.from_numpy(maps), size=size, mean=MEAN, std=STD)
            yield batch.counted
        torch.cuda.synchronize(device)

    return one_pass


def _passes(loader: Loader) -> Contestant:
    def one_pass() -> Iterator[int]:
        for batch in loader.epoch():
            yield batch.counted

    return one_pass


class _Clips:
    """The plain way: a map-style dataset of single clips."""

    def __init__(self, clips: Manifest) -> None:
        self._reader, self._clips = ClipReader(clips), clips

    def __len__(self) -> int:
        return len(self._clips.index)

    def __getitem__(self, sample: int) -> tuple[Any, int]:
        import torch

        clip = torch.from_numpy(self._reader.read(sample))
        return clip, int(self._clips.index["label"][sample])


def dataloader(clips: Manifest, batch_size: int, workers: int, whole: bool) -> Contestant:
    """torch's DataLoader over the shards: one clip an item, or whole batches made by the worker."""
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    how = workers_of(workers)
    if whole:
        from ...shards.loading.torch_dataset import ClipBatches, Steps

        plan = BatchSampler(whole_batches(clips, batch_size), batch_size, seed=1, shuffle=True)
        loader = DataLoader(ClipBatches(clips, plan), batch_size=None, sampler=Steps(plan), **how)

        def one_pass() -> Iterator[int]:
            for batch in loader:
                yield batch.counted
    else:
        dataset: Any = _Clips(clips)
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
        items = DataLoader(dataset, batch_size, sampler=order, **how)

        def one_pass() -> Iterator[int]:
            for pixels, _ in items:
                yield len(pixels)

    return one_pass


def webdataset(clips: Manifest, batch_size: int, workers: int) -> Contestant:
    """Stock webdataset as its documentation has it: shuffle buffer, tuples, torch's batches."""
    import torch
    import webdataset as wds

    paths = [str(clips.shard_path(number)) for number in range(len(clips.shards))]
    workers = min(workers, len(paths))  # webdataset raises where a worker gets no shard

    def decode(sample: tuple[bytes, bytes]) -> tuple[Any, int]:
        return torch.from_numpy(np.load(io.BytesIO(sample[0]))), int(sample[1])

    dataset = (
        wds.WebDataset(paths, shardshuffle=len(paths), seed=1, handler=wds.reraise_exception)
        .shuffle(100)
        .to_tuple("npy", "cls")
        .map(decode)
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size, **workers_of(workers))

    def one_pass() -> Iterator[int]:
        for pixels, _ in loader:
            yield len(pixels)

    return one_pass


_opened = functools.cache(load_set)


def _litdata_sample(root: str, sample: int) -> dict[str, Any]:
    """Runs in litdata's own process."""
    import torch

    clips = _opened(root)
    pixels = ClipReader(clips).read(sample)
    return {"pixels": torch.from_numpy(pixels), "label": int(clips.index["label"][sample])}


def litdata(clips: Manifest, batch_size: int, workers: int, scratch: Path) -> Contestant:
    """LitData over the same clips in its own format. Raises ImportError where it is missing.

    Its `optimize` empties its cache folders, /tmp/data and /tmp/chunks unless told otherwise,
    whatever is in them: here they lie in `scratch`.
    """
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[name] = str(scratch / name.lower())
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    folder = scratch / "litdata"
    if not folder.exists():
        optimize(
            functools.partial(_litdata_sample, str(clips.root)), list(range(len(clips.index))),
            str(folder), chunk_bytes="64MB", num_workers=1, verbose=False,
        )  # fmt: skip
    loader = StreamingDataLoader(
        StreamingDataset(str(folder), shuffle=True),
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def one_pass() -> Iterator[int]:
        for batch in loader:
            yield len(batch["pixels"])

    return one_pass


def mosaicml(clips: Manifest, batch_size: int, workers: int, scratch: Path) -> Contestant:
    """MosaicML Streaming over the same clips. Raises ImportError where it is missing."""
    import torch
    from streaming import MDSWriter, StreamingDataset

    folder = scratch / "mds"
    if not folder.exists():
        shape = ",".join(map(str, clips.clip_shape))
        columns = {"pixels": f"ndarray:uint8:{shape}", "label": "int"}
        reader = ClipReader(clips)
        with MDSWriter(out=str(folder), columns=columns) as writer:
            for sample, label in enumerate(clips.index["label"].tolist()):
                writer.write({"pixels": reader.read(sample), "label": label})
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch_size)
    loader = torch.utils.data.DataLoader(dataset, batch_size, **workers_of(workers))

    def one_pass() -> Iterator[int]:
        for batch in loader:
            yield len(batch["pixels"])

    return one_pass


def memcpy(clips: Manifest, batch_size: int, workers: int) -> Contestant:
    """Copy as many bytes, clip by clip in random order, from memory as large as the set."""
    count, threads = len(clips.index), max(1, workers)
    source = np.empty((min(count, (2 << 30) // clips.clip_bytes + 1), clips.clip_bytes), np.uint8)
    source.fill(1)  # touched, or every page would be the kernel's one page of zeros
    ring = np.zeros((4, batch_size, clips.clip_bytes), np.uint8)
    order = np.random.default_rng(1).permutation(count) % len(source)
    pool = ThreadPoolExecutor(threads)

    def fill(first: int) -> int:
        rows = range(first, min(first + 8, count))
        for row in rows:
            np.copyto(ring[row // batch_size % 4, row % batch_size], source[order[row]])
        return len(rows)

    def one_pass() -> Iterator[int]:
        yield from pool.map(fill, range(0, count, 8))

    return one_pass

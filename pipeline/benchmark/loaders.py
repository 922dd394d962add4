"""The candidates of har-bench-loader that read a shard set, or the same clips in another format.

A candidate is a function without arguments: it starts one pass and yields the number of clips of
each batch. Workers stay alive between passes, so that no pass pays for starting them.

Notes:
- `memcpy` is the machine's limit: as many bytes as the set has, from memory that holds the whole
  set (a small source would stay in the cache and double the figure), into reused buffers like the
  loader's, with as many threads.
- LitData reads a format of its own, written from the same clips into a scratch folder; it takes
  part where it is installed.
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
import torch
import webdataset as wds
from torch.utils.data import DataLoader, Dataset, RandomSampler

from ...shards.format import ClipReader, Manifest, load_manifest
from ...shards.loading import (
    BatchSampler,
    ClipBatchDataset,
    Loader,
    LoaderOptions,
    StepSampler,
)
from ...shards.transforms.affine import Augmentation
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import ClipTransform

Candidate = Callable[[], Iterator[int]]


def worker_options(workers: int) -> dict[str, Any]:
    """DataLoader's options: forked (LitData changes the default for everyone), kept alive."""
    if workers == 0:
        return {"num_workers": 0}
    return {
        "num_workers": workers, "persistent_workers": True, "multiprocessing_context": "fork",
    }  # fmt: skip


def _sampler(manifest: Manifest, batch_size: int, *, shuffle: bool = True) -> BatchSampler:
    """Without padding, whose clips are read and not counted: 6% of the work in a set of 120 clips
    and batches of 32, 0.1% in UCF101. A set smaller than one batch is padded to one."""
    count = len(manifest.index)
    indices = np.arange(count - count % batch_size or count)
    return BatchSampler(indices, batch_size, seed=1, shuffle=shuffle)


def _transform(manifest: Manifest) -> ClipTransform:
    """To 112x112 with Kinetics' mean and std; smaller where the clips are."""
    T, H, W, _ = manifest.clip_shape
    side = min(ClipTransform().crop_size[0], H, W)
    return ClipTransform(T, (side, side), (H, W))


def har_loaders(manifest: Manifest, batch_size: int, workers: int) -> dict[str, Candidate]:
    """This loader: shuffled, in order, and augmented in its workers."""

    def candidate(*, shuffle: bool = True, processor: ClipProcessor | None = None) -> Candidate:
        sampler = _sampler(manifest, batch_size, shuffle=shuffle)
        loader = Loader(manifest, sampler, LoaderOptions(workers=workers), transform=processor)
        return lambda: (batch.num_valid for batch in loader.epoch())

    processor = ClipProcessor(_transform(manifest), Augmentation())
    return {
        "har": candidate(),
        "har_sequential": candidate(shuffle=False),
        "har_augmented": candidate(processor=processor),
    }


def torch_augmented(
    manifest: Manifest, batch_size: int, workers: int, device_name: str = "cpu"
) -> Candidate:
    """This loader, augmented by torch: in the user's thread, or on a CUDA device.

    A pass ends when the device has ended its work.
    """
    device, sampler = torch.device(device_name), _sampler(manifest, batch_size)
    options = LoaderOptions(workers=workers, pin_memory=device.type == "cuda")
    loader, processor = (
        Loader(manifest, sampler, options),
        ClipProcessor(_transform(manifest), Augmentation()),
    )

    def one_pass() -> Iterator[int]:
        for batch in loader.epoch():
            pixels = batch.pixels
            if device.type == "cuda":
                pixels = pixels.to(device, non_blocking=True)
                copied = torch.cuda.Event()
                copied.record()
                batch.release(copied)
            processor.process_batch(pixels, keys=batch.keys, seed=1, epoch=0)
            yield batch.num_valid
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return one_pass


class _ClipDataset(Dataset[tuple[torch.Tensor, int]]):
    """The plain way: a map-style dataset of single clips."""

    def __init__(self, manifest: Manifest) -> None:
        self._reader, self._labels = ClipReader(manifest), manifest.index["label"]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self._reader.read(index)), int(self._labels[index])


def dataloader_clips(manifest: Manifest, batch_size: int, workers: int) -> Candidate:
    """torch's DataLoader over the shards, one clip an item."""
    dataset = _ClipDataset(manifest)
    order = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(dataset, batch_size, sampler=order, **worker_options(workers))
    return lambda: (len(pixels) for pixels, _ in loader)


def dataloader_batches(manifest: Manifest, batch_size: int, workers: int) -> Candidate:
    """torch's DataLoader over the shards, whole batches made by its workers."""
    sampler = _sampler(manifest, batch_size)
    dataset = ClipBatchDataset(manifest, sampler)
    steps = StepSampler(sampler)
    loader = DataLoader(dataset, batch_size=None, sampler=steps, **worker_options(workers))
    return lambda: (batch.num_valid for batch in loader)


def webdataset(manifest: Manifest, batch_size: int, workers: int) -> Candidate:
    """Stock webdataset as its documentation has it: shuffle buffer, tuples, torch's batches."""
    paths = [str(manifest.shard_path(number)) for number in range(len(manifest.shards))]
    workers = min(workers, len(paths))  # webdataset raises where a worker gets no shard

    def decode(sample: tuple[bytes, bytes]) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(np.load(io.BytesIO(sample[0]))), int(sample[1])

    dataset = (
        wds.WebDataset(paths, shardshuffle=len(paths), seed=1, handler=wds.reraise_exception)
        .shuffle(100)
        .to_tuple("npy", "cls")
        .map(decode)
    )
    loader = DataLoader(dataset, batch_size, **worker_options(workers))
    return lambda: (len(pixels) for pixels, _ in loader)


_load_cached = functools.cache(load_manifest)


def _litdata_sample(root: str, index: int) -> dict[str, Any]:
    """Runs in LitData's own process."""
    pixels, label = _ClipDataset(_load_cached(root))[index]
    return {"pixels": pixels, "label": label}


def litdata(manifest: Manifest, batch_size: int, workers: int, scratch: Path) -> Candidate:
    """LitData over the same clips in its own format. Raises ImportError where it is missing.

    Its `optimize` empties its cache folders, `data` and `chunks` in the temporary folder unless
    told otherwise, whatever is in them: here they are below `scratch`.
    """
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[name] = str(scratch / name.lower())
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    folder = scratch / "litdata"
    if not folder.exists():
        optimize(
            functools.partial(_litdata_sample, str(manifest.root)),
            list(range(len(manifest.index))),
            str(folder), chunk_bytes="64MB", num_workers=1, verbose=False,
        )  # fmt: skip
    loader = StreamingDataLoader(
        StreamingDataset(str(folder), shuffle=True),
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: (len(batch["pixels"]) for batch in loader)


def memcpy(manifest: Manifest, batch_size: int, workers: int) -> Candidate:
    """Copy as many bytes, clip by clip in random order, from memory as large as the set."""
    num_clips, clip_bytes = len(manifest.index), manifest.clip_bytes
    source = np.empty((min(num_clips, (2 << 30) // clip_bytes + 1), clip_bytes), np.uint8)
    source.fill(1)  # touched, or every page would be the kernel's one page of zeros
    buffers = np.zeros((4, batch_size, clip_bytes), np.uint8)
    order = np.random.default_rng(1).permutation(num_clips) % len(source)
    pool = ThreadPoolExecutor(max(1, workers))

    def copy(first: int) -> int:
        clips = range(first, min(first + 8, num_clips))
        for clip in clips:
            np.copyto(buffers[clip // batch_size % 4, clip % batch_size], source[order[clip]])
        return len(clips)

    return lambda: pool.map(copy, range(0, num_clips, 8))

"""har-bench-loader: how fast clips come out of a shard set, beside what people use otherwise.

Every contestant gives the same thing, shuffled uint8 batches [B,T,H,W,C] in host memory, from the
same shards with the same number of workers. Rounds are interleaved (one pass of each, then again),
so that a noisy machine hurts all alike, and the figures to quote are the ratios.

Odd: `memcpy` is the machine's ceiling, the bytes of the same batches copied within memory by the
same number of threads into the same kind of reused buffers; nothing that hands out copies of clips
can be faster.
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from shards import augment, manifest
from shards.loader import Loader
from shards.manifest import Manifest
from shards.plan import Plan
from shards.reader import ClipReader

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # of Kinetics, torchvision
_TITLES = {
    "har": "har loader, raw uint8",
    "har_sequential": "har loader, in shard order",
    "har_augmented": "har loader + augmentation on the CPU",
    "dataloader": "torch DataLoader, one clip an item",
    "webdataset": "stock webdataset + DataLoader",
    "memcpy": "copying the same bytes in memory",
}
DEFAULT_SET = Path("data/shards")  # where 'make shards' puts it
Contestant = Callable[[], Iterator[int]]  # one pass; yields the clips of each batch


def run(
    shards: Path | None, *, workers: int = 2, batch_size: int = 32, rounds: int = 5,
    as_json: bool = False,
) -> str:  # fmt: skip
    """Measure and -> a table, or JSON.

    Without `shards` it measures what 'make shards' made (data/shards), and where there is none a
    small synthetic set.

    Raises the one-sentence errors of `shards` for a set that cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if shards is None and (DEFAULT_SET / manifest.MANIFEST).exists():
            shards = DEFAULT_SET
        root = shards or _synthetic(Path(scratch))
        clips = manifest.load(root)
        results = measure(clips, workers=workers, batch_size=batch_size, rounds=rounds)
    results["set"] = {
        "shards": "synthetic" if shards is None else str(shards),
        "clips": len(clips.index),
        "clip_shape": list(clips.clip_shape),
    }
    results |= {"workers": workers, "batch_size": batch_size, "rounds": rounds}
    return json.dumps(results, indent=1) if as_json else _table(results, clips)


def measure(clips: Manifest, *, workers: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """-> {"clips_per_s": {name: {"median", "low", "high"}}, "ratio.*", "first_batch_s"}."""
    order = np.arange(len(clips.index))
    shuffled = Plan(order, batch_size, seed=1, shuffle=True)
    contestants: dict[str, Contestant] = {
        "har": _loader_pass(Loader(clips, shuffled, workers=workers)),
        "har_sequential": _loader_pass(Loader(clips, Plan(order, batch_size), workers=workers)),
        "har_augmented": _augmented_pass(clips, shuffled, workers),
        "dataloader": _dataloader_pass(clips, batch_size, workers),
        "webdataset": _webdataset_pass(clips, batch_size, workers),
        "memcpy": _memcpy_pass(clips, batch_size, workers),
    }
    start = time.perf_counter()
    next(Loader(clips, shuffled, workers=workers).epoch()).release()
    first = time.perf_counter() - start
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):  # the first round warms the page cache and is not counted
        for name, contestant in contestants.items():
            rate = _rate(contestant)
            if number:
                rates[name].append(rate)
    return _summary(rates) | {"first_batch_s": first}


def _rate(contestant: Contestant) -> float:
    """Clips a second of one pass, start-up of its workers left out (timed from the first batch)."""
    batches = contestant()
    next(batches)
    start, clips = time.perf_counter(), 0
    for count in batches:
        clips += count
    return clips / (time.perf_counter() - start) if clips else float("nan")


def _summary(rates: dict[str, list[float]]) -> dict[str, Any]:
    figures = {
        name: {"median": statistics.median(values), "low": min(values), "high": max(values)}
        for name, values in rates.items()
    }
    ours = figures["har"]["median"]
    return {
        "clips_per_s": figures,
        "ratio.dataloader": ours / figures["dataloader"]["median"],
        "ratio.webdataset": ours / figures["webdataset"]["median"],
        "ratio.memcpy": ours / figures["memcpy"]["median"],
        "ratio.sequential": ours / figures["har_sequential"]["median"],
    }


def _table(results: dict[str, Any], clips: Manifest) -> str:
    size = clips.clip_bytes
    shape = "x".join(map(str, clips.clip_shape))
    lines = [
        f"{len(clips.index)} clips of {shape} uint8 ({size / 1e6:.2f} MB), batch "
        f"{results['batch_size']}, {results['workers']} workers, median of {results['rounds']}",
        f"{'':38s}{'clips/s':>10s}{'GB/s':>8s}   {'low - high':>17s}{'har is':>10s}",
    ]
    ours = results["clips_per_s"]["har"]["median"]
    for name, figure in results["clips_per_s"].items():
        rate = figure["median"]
        spread = f"{figure['low']:,.0f} - {figure['high']:,.0f}"
        lines.append(
            f"{_TITLES[name]:38s}{rate:10,.0f}{rate * size / 1e9:8.2f}   {spread:>17s}"
            f"{ours / rate:9.2f}x"
        )
    lines.append(f"first batch after {results['first_batch_s'] * 1000:.0f} ms")
    return "\n".join(lines)


def _loader_pass(loader: Loader) -> Contestant:
    def one_pass() -> Iterator[int]:
        for batch in loader.epoch():
            yield batch.counted

    return one_pass


def _augmented_pass(clips: Manifest, plan: Plan, workers: int) -> Contestant:
    """The random crop, rotation and normalisation of training, to 112x112 (or the frame's side)."""
    import torch

    loader = Loader(clips, plan, workers=workers)
    T, H, W, _ = clips.clip_shape
    side = min(112, H, W)
    rule = augment.Augmentation()

    def one_pass() -> Iterator[int]:
        for batch in loader.epoch():
            maps = augment.train_maps(
                rule, seed=1, epoch=0, keys=batch.keys, frames=T, source=(H, W), size=(side, side)
            )
            augment.apply(
                batch.pixels, torch.from_numpy(maps), size=(side, side), mean=MEAN, std=STD
            )
            yield batch.counted

    return one_pass


class _ClipDataset:
    """The plain way: a map-style dataset that returns one clip, collated by torch."""

    def __init__(self, clips: Manifest) -> None:
        self._reader = ClipReader(clips)
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips.index)

    def __getitem__(self, sample: int) -> tuple[Any, int]:
        import torch

        return torch.from_numpy(self._reader.read(sample)), int(self._clips.index["label"][sample])


def _dataloader_pass(clips: Manifest, batch_size: int, workers: int) -> Contestant:
    import torch
    from torch.utils.data import DataLoader

    dataset: Any = _ClipDataset(clips)
    generator = torch.Generator().manual_seed(1)

    def one_pass() -> Iterator[int]:
        for pixels, _ in DataLoader(
            dataset, batch_size, shuffle=True, num_workers=workers, generator=generator
        ):
            yield len(pixels)

    return one_pass


def _webdataset_pass(clips: Manifest, batch_size: int, workers: int) -> Contestant:
    """Stock webdataset as its documentation has it: shuffle buffer, tuples, torch's batches."""
    import torch
    import webdataset as wds

    paths = [str(clips.shard_path(number)) for number in range(len(clips.shards))]
    workers = min(workers, len(paths))  # webdataset raises where a worker gets no shard

    def decode(sample: tuple[bytes, bytes]) -> tuple[Any, int]:
        return torch.from_numpy(np.load(io.BytesIO(sample[0]))), int(sample[1])

    def one_pass() -> Iterator[int]:
        dataset = (
            wds.WebDataset(paths, shardshuffle=len(paths), seed=1, handler=wds.reraise_exception)
            .shuffle(100)
            .to_tuple("npy", "cls")
            .map(decode)
        )
        for pixels, _ in torch.utils.data.DataLoader(dataset, batch_size, num_workers=workers):
            yield len(pixels)

    return one_pass


def _memcpy_pass(clips: Manifest, batch_size: int, workers: int) -> Contestant:
    """Copy as many bytes, clip by clip, between buffers as large as the loader's ring."""
    source = np.ones((4 * batch_size, clips.clip_bytes), np.uint8)
    ring = np.zeros((4, batch_size, clips.clip_bytes), np.uint8)
    batches = -(-len(clips.index) // batch_size)

    def fill(batch: int) -> int:
        for row in range(batch_size):
            np.copyto(ring[batch % 4, row], source[(batch * batch_size + row * 7) % len(source)])
        return batch_size

    def one_pass() -> Iterator[int]:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            yield from pool.map(fill, range(batches))

    return one_pass


def _synthetic(scratch: Path) -> Path:
    """A shard set of synthetic videos at the default clip shape (16x128x171), about 130 MB."""
    from pipeline import build, synthetic

    synthetic.write(scratch / "videos")
    build.build(scratch / "videos", scratch / "shards")
    return scratch / "shards"

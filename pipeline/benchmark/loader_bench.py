"""har-bench-loader: how fast clips come out of a shard set, beside what people use otherwise.

The contestants are in `bench_loaders` (shards) and `bench_videos` (video files). Rounds are
interleaved (one pass of each, then again), so that a noisy machine hurts all alike, and the figures
to quote are the ratios of medians.

Odd: a pass over videos takes a few dozen clips only, a hundred times as slow as the others;
`--cold` asks the kernel to drop the shards from its page cache before each pass, which it may
decline, and says nothing about the cache of a disk or network share under it.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...shards.format import shard_set
from ...shards.format.shard_set import Manifest
from ...shards.loading.batch_sampler import BatchSampler
from ...shards.loading.loader import Loader
from . import loaders
from .loaders import Contestant

_TITLES = {
    "har": "har loader, raw uint8",
    "har_sequential": "har loader, in shard order",
    "har_augmented": "har loader, augmented in its workers",
    "har_torch": "har loader, augmented by torch",
    "har_device": "har loader, to the device, augmented there",
    "dataloader": "torch DataLoader, whole batches",
    "dataloader_items": "torch DataLoader, one clip an item",
    "webdataset": "stock webdataset",
    "litdata": "LitData",
    "mosaicml": "MosaicML Streaming",
    "memcpy": "copying the same bytes in memory",
    "paper": "paper's way: seek, PIL, frame by frame",
    "pyav": "PyAV on the fly, augmented",
}
_RATIOS = {  # name: (this, over that)
    "dataloader": ("har", "dataloader"),
    "webdataset": ("har", "webdataset"),
    "litdata": ("har", "litdata"),
    "mosaicml": ("har", "mosaicml"),
    "memcpy": ("har", "memcpy"),
    "sequential": ("har", "har_sequential"),
    "torch_augmented": ("har_augmented", "har_torch"),
    "paper_augmented": ("har_augmented", "paper"),
    "paper_raw": ("har", "paper"),
}
DEFAULT_SET = Path("data/shards")  # where 'make shards' puts it
_VIDEOS = 32  # videos in a pass of those that decode


def run(
    shards: Path | str | None, *, workers: int | Sequence[int] = 2, batch_size: int = 32,
    rounds: int = 5, as_json: bool = False, videos: Path | None = None, cold: bool = False,
    device: str = "cpu", plot: Path | None = None,
) -> str:  # fmt: skip
    """Measure and -> a table, or JSON; with several `workers` one after the other.

    Without `shards` it measures what 'make shards' made (data/shards), and where there is none a
    small synthetic set; without `videos` the paper's way reads synthetic ones. plot: where a bar
    chart goes. Raises the one-sentence errors of `shards` for a set that cannot be read.
    """
    counts = [workers] if isinstance(workers, int) else list(workers)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if shards is None and (DEFAULT_SET / shard_set.MANIFEST).exists():
            shards = DEFAULT_SET
        clips = shard_set.load(shards or _synthetic(scratch))
        paths = _some_videos(videos or _synthetic_videos(scratch))
        common = {
            "set": {
                "shards": "synthetic" if shards is None else str(shards),
                "clips": len(clips.index),
                "clip_shape": list(clips.clip_shape),
            },
            "videos": str(videos) if videos else "synthetic",
            "batch_size": batch_size, "rounds": rounds, "cold": cold, "device": device,
        }  # fmt: skip
        runs = [
            measure(
                clips, workers=count, batch_size=batch_size, rounds=rounds, paths=paths,
                scratch=scratch, cold=cold, device=device,
            ) | {"workers": count} | common
            for count in counts
        ]  # fmt: skip
    if plot is not None:
        _plot(runs, plot)
    if as_json:
        main = next((one for one in runs if one["workers"] == 2), runs[-1])
        return json.dumps(main | ({"by_workers": runs} if len(runs) > 1 else {}), indent=1)
    return "\n\n".join(_table(one) for one in runs)


def measure(
    clips: Manifest, *, workers: int, batch_size: int, rounds: int, paths: list[Path],
    scratch: Path, cold: bool = False, device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """-> {"clips_per_s": {name: {"median", "low", "high", "cpu"}}, "ratio.*", "first_batch_s",
    "peak_bytes", "missing"}. cpu: cores kept busy, all processes of the contestant together."""
    first = _first_batch(clips, workers, batch_size)
    contestants, missing = _contestants(clips, workers, batch_size, paths, scratch, device)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    busy: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):  # the first round starts workers, fills caches, is not counted
        for name, contestant in contestants.items():
            if cold:
                _drop_from_cache(clips)
            rate, cores = _rate(contestant)
            if number:
                rates[name].append(rate)
                busy[name].append(cores)
    return _summary(rates, busy) | {
        "first_batch_s": first,
        "peak_bytes": _peak_memory(),
        "missing": missing,
    }


def _contestants(
    clips: Manifest, workers: int, batch_size: int, paths: list[Path], scratch: Path, device: str
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """-> the contestants, and why others cannot take part."""
    from . import video_readers

    frames, small = clips.clip_shape[0], min(8, batch_size)
    makers: dict[str, Any] = {
        "har_torch": lambda: loaders.torch_augmented(clips, batch_size, workers),
        "dataloader": lambda: loaders.dataloader(clips, batch_size, workers, True),
        "dataloader_items": lambda: loaders.dataloader(clips, batch_size, workers, False),
        "webdataset": lambda: loaders.webdataset(clips, batch_size, workers),
        "litdata": lambda: loaders.litdata(clips, batch_size, workers, scratch),
        "mosaicml": lambda: loaders.mosaicml(clips, batch_size, workers, scratch),
        "memcpy": lambda: loaders.memcpy(clips, batch_size, workers),
        # of 8 clips, so that the few videos of a pass are shared out evenly among the workers
        "paper": lambda: video_readers.paper(paths, frames, small, workers),
        "pyav": lambda: video_readers.pyav(paths, frames, small, workers),
    }
    if device != "cpu":
        makers["har_device"] = lambda: loaders.on_device(clips, batch_size, workers, device)
    contestants, missing = loaders.ours(clips, batch_size, workers), {}
    for name, make in makers.items():
        try:
            contestants[name] = make()
        except ImportError as error:
            missing[name] = f"not installed ({error.name})"
    return contestants, missing


def _first_batch(clips: Manifest, workers: int, batch_size: int) -> float:
    """Seconds from nothing to the first batch: manifest, index, ring, threads; torch is there."""
    import torch  # noqa: F401

    start = time.perf_counter()
    again = shard_set.load(clips.root)
    plan = BatchSampler(np.arange(len(again.index)), batch_size, seed=1, shuffle=True)
    with Loader(again, plan, workers=workers) as loader:
        next(loader.epoch()).release()
        return time.perf_counter() - start


def _rate(contestant: Contestant) -> tuple[float, float]:
    """-> clips a second of passes of half a second or more in all, cores kept busy meanwhile."""
    start, used, clips, wall = time.perf_counter(), _cpu_seconds(), 0, 0.0
    while wall < 0.5:  # one pass of a fast one is over in 30 ms, less than a scheduler's whim
        clips += sum(contestant())
        wall = time.perf_counter() - start
    return clips / wall, (_cpu_seconds() - used) / wall


def _cpu_seconds() -> float:
    """CPU time of this process and of its living and ended children."""
    own = sum(os.times()[:4])
    ticks = os.sysconf("SC_CLK_TCK")
    for task in Path("/proc/self/task").glob("*/children"):
        for child in task.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
            own += (int(fields[11]) + int(fields[12])) / ticks
    return own


def _peak_memory() -> int:
    """Most bytes this process and its largest ended child ever had resident."""
    import resource

    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return 1024 * sum(resource.getrusage(kind).ru_maxrss for kind in kinds)


def _drop_from_cache(clips: Manifest) -> None:
    for number in range(len(clips.shards)):
        descriptor = os.open(clips.shard_path(number), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _summary(rates: dict[str, list[float]], busy: dict[str, list[float]]) -> dict[str, Any]:
    figures = {
        name: {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "cpu": statistics.median(busy[name]),
        }
        for name, values in rates.items()
    }
    ratios = {
        f"ratio.{name}": figures[this]["median"] / figures[that]["median"]
        if that in figures
        else None
        for name, (this, that) in _RATIOS.items()
    }
    return {"clips_per_s": figures, **ratios}


def _table(results: dict[str, Any]) -> str:
    shape = results["set"]["clip_shape"]
    size = int(np.prod(shape))
    lines = [
        f"{results['set']['clips']} clips of {'x'.join(map(str, shape))} uint8 "
        f"({size / 1e6:.2f} MB), batch {results['batch_size']}, {results['workers']} workers, "
        f"median of {results['rounds']}"
        + (", page cache dropped before each pass" if results["cold"] else ""),
        f"{'':42s}{'clips/s':>9s}{'GB/s':>7s}  {'low - high':>17s}{'cores':>7s}{'har is':>9s}",
    ]
    ours = results["clips_per_s"]["har"]["median"]
    for name, figure in results["clips_per_s"].items():
        rate = figure["median"]
        spread = f"{figure['low']:,.0f} - {figure['high']:,.0f}"
        lines.append(
            f"{_TITLES[name]:42s}{rate:9,.0f}{rate * size / 1e9:7.2f}  {spread:>17s}"
            f"{figure['cpu']:7.1f}{ours / rate:8.2f}x"
        )
    lines += [f"{_TITLES[name]}: {why}" for name, why in results["missing"].items()]
    lines.append(
        f"first batch after {results['first_batch_s'] * 1000:.0f} ms, "
        f"{results['ratio.memcpy']:.0%} of memory speed, peak memory of all this "
        f"{results['peak_bytes'] / 1e9:.1f} GB"
    )
    if results["ratio.paper_augmented"]:
        lines.append(
            f"augmented clips: {results['ratio.paper_augmented']:,.0f}x the paper's way "
            f"({results['videos']} videos)"
        )
    return "\n".join(lines)


def _plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Bars of clips/s on a logarithmic axis, one colour for each number of workers."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for one in runs for name in one["clips_per_s"]))[::-1]
    figure = Figure(figsize=(9, 0.5 * len(names) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(runs)
    for number, one in enumerate(runs):
        at = np.arange(len(names)) + number * height
        values = [one["clips_per_s"].get(name, {"median": 0})["median"] for name in names]
        bars = axes.barh(at, values, height, label=f"{one['workers']} workers")
        axes.bar_label(bars, [f" {value:,.0f}" for value in values], fontsize=8)
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, [_TITLES[name] for name in names])
    axes.set(xscale="log", xlabel="clips a second")
    axes.margins(x=0.15)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _some_videos(folder: Path) -> list[Path]:
    from . import video_readers

    found = video_readers.videos_in(folder)
    return found[:: max(1, len(found) // _VIDEOS)][:_VIDEOS]


def _synthetic_videos(scratch: Path) -> Path:
    """UCF101-shaped videos: 320x240, MPEG-4 part 2, 40 to 56 frames."""
    from .. import synthetic

    folder = scratch / "videos"
    if not folder.exists():
        synthetic.write_videos(folder)
    return folder


def _synthetic(scratch: Path) -> Path:
    """A shard set of synthetic videos at the default clip shape (16x128x171), about 130 MB."""
    from ..build.build import build_shard_set

    build_shard_set(_synthetic_videos(scratch), scratch / "shards")
    return scratch / "shards"

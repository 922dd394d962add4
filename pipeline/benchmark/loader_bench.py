"""har-bench-loader: how fast clips come out of a shard set, beside what people use otherwise.

The candidates are in `loaders` (shards) and `video_loaders` (video files). Rounds are interleaved
(one pass of each, then again), so that a noisy machine slows all alike, and the figures to quote
are ratios of medians.

Notes:
- A pass over videos takes a few dozen clips only: it is a hundred times as slow as the others.
- `--cold` asks the kernel to drop the shards from its page cache before each pass. It may decline,
  and the cache of a disk or a network share below is not touched.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...atomic import replacing
from ...shards.format import MANIFEST, Manifest, load_manifest
from ...shards.loading import BatchSampler, Loader, LoaderOptions
from .. import synthetic
from ..build import build_shard_set
from . import BenchError, loaders, video_loaders
from .loaders import Candidate

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
    "memcpy": "copying the same bytes in memory",
    "paper": "paper's way: seek, PIL, frame by frame",
    "pyav": "PyAV on the fly, augmented",
}
_RATIOS = {  # name: (candidate, baseline)
    "dataloader": ("har", "dataloader"),
    "webdataset": ("har", "webdataset"),
    "litdata": ("har", "litdata"),
    "memcpy": ("har", "memcpy"),
    "sequential": ("har", "har_sequential"),
    "torch_augmented": ("har_augmented", "har_torch"),
    "paper_augmented": ("har_augmented", "paper"),
    "paper_raw": ("har", "paper"),
}
DEFAULT_SET = Path("data/shards")  # where 'make shards' puts it
MIN_SECONDS = 0.5  # of a measurement: one pass of a fast candidate is over in 30 ms
_PLOTS = (".png", ".svg", ".pdf")
_MAX_VIDEOS = 32  # of a pass of those that decode


def run(
    shards: Path | str | None, *, workers: int | Sequence[int] = 2, batch_size: int = 32,
    rounds: int = 5, as_json: bool = False, videos: Path | None = None, cold: bool = False,
    device: str = "cpu", plot: Path | None = None,
) -> str:  # fmt: skip
    """Measure and -> a table, or JSON; with several `workers` one after the other.

    Without `shards` it measures what 'make shards' made (data/shards), and where there is none a
    small synthetic set; without `videos` the paper's way reads synthetic ones. plot: where a bar
    chart goes. Raises BenchError where that is no picture's place, and the errors of `shards` for a
    set that cannot be read.
    """
    if plot is not None and not (plot.suffix in _PLOTS and plot.parent.is_dir()):
        raise BenchError(
            f"--plot {plot} cannot be drawn: give a name that ends in {', '.join(_PLOTS)}, in a "
            "folder that is there."
        )
    worker_counts = [workers] if isinstance(workers, int) else list(workers)
    if shards is None and (DEFAULT_SET / MANIFEST).exists():
        shards = DEFAULT_SET
    with _scratch_folder() as scratch:
        manifest = load_manifest(shards or _synthetic_set(scratch))
        paths = video_loaders.find_videos(videos or _synthetic_videos(scratch), _MAX_VIDEOS)
        settings = {
            "set": {
                "shards": "synthetic" if shards is None else str(shards),
                "clips": len(manifest.index),
                "clip_shape": list(manifest.clip_shape),
            },
            "videos": str(videos) if videos else "synthetic",
            "batch_size": batch_size, "rounds": rounds, "cold": cold, "device": device,
        }  # fmt: skip
        results = [
            measure(manifest, count, batch_size, rounds, paths, scratch, cold=cold, device=device)
            | settings
            for count in worker_counts
        ]
    if plot is not None:
        _plot(results, plot)
    if as_json:
        main = next((result for result in results if result["workers"] == 2), results[-1])
        return json.dumps(main | ({"by_workers": results} if len(results) > 1 else {}), indent=1)
    return "\n\n".join(map(_table, results))


def _candidates(
    manifest: Manifest, workers: int, batch_size: int, paths: list[Path], scratch: Path, device: str
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """-> the candidates, and why others cannot take part."""
    arguments = (manifest, batch_size, workers)
    # Batches of 8 clips, so that the few videos of a pass are shared evenly among the workers.
    video_arguments = (paths, manifest.clip_shape[0], min(8, batch_size), workers)
    makers: dict[str, Callable[[], Candidate]] = {
        "har_torch": lambda: loaders.torch_augmented(*arguments),
        "dataloader": lambda: loaders.dataloader_batches(*arguments),
        "dataloader_items": lambda: loaders.dataloader_clips(*arguments),
        "webdataset": lambda: loaders.webdataset(*arguments),
        "litdata": lambda: loaders.litdata(*arguments, scratch),
        "memcpy": lambda: loaders.memcpy(*arguments),
        "paper": lambda: video_loaders.paper(*video_arguments),
        "pyav": lambda: video_loaders.pyav(*video_arguments),
    }
    if device != "cpu":
        makers["har_device"] = lambda: loaders.torch_augmented(*arguments, device)
    candidates, unavailable = loaders.har_loaders(*arguments), {}
    for name, make in makers.items():
        try:
            candidates[name] = make()
        except ImportError as error:
            unavailable[name] = f"not installed ({error.name})"
    return candidates, unavailable


def _check_semaphores() -> None:
    """Worker processes of a DataLoader and LitData need them; Linux keeps them in /dev/shm."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        raise BenchError(
            "The DataLoaders and LitData beside which this measures need semaphores, and the "
            f"system gives none ({error.strerror}): give this container a /dev/shm to write to."
        ) from error


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder for the files of this bench, which meanwhile is the temporary folder of all its
    libraries and children: workers of a DataLoader leave their sockets behind."""
    before = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="har-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            os.environ["TMPDIR"] = tempfile.tempdir = before


def measure(
    manifest: Manifest, workers: int, batch_size: int, rounds: int, paths: list[Path],
    scratch: Path, *, cold: bool = False, device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """-> {"clips_per_s": {name: {"median", "low", "high", "cpu"}}, "ratio.NAME", "first_batch_s",
    "peak_bytes", "unavailable", "workers"}.

    cpu: cores kept busy, all processes of the candidate together.
    """
    _check_semaphores()
    first_batch_s = _first_batch(manifest, workers, batch_size)
    candidates, unavailable = _candidates(manifest, workers, batch_size, paths, scratch, device)
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    cores: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):  # the first round starts workers, fills caches, is not counted
        for name, candidate in candidates.items():
            if cold:
                _drop_from_page_cache(manifest)
            rate, busy_cores = _clips_per_second(candidate)
            if number:
                rates[name].append(rate)
                cores[name].append(busy_cores)
    return summarize(rates, cores) | {
        "first_batch_s": first_batch_s, "peak_bytes": _peak_memory(),
        "unavailable": unavailable, "workers": workers,
    }  # fmt: skip


def summarize(rates: dict[str, list[float]], cores: dict[str, list[float]]) -> dict[str, Any]:
    """-> medians and ratios of medians, None where one of the two was not measured."""
    figures = {
        name: {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "cpu": statistics.median(cores[name]),
        }
        for name, values in rates.items()
    }
    ratios = {
        f"ratio.{name}": figures[candidate]["median"] / figures[baseline]["median"]
        if baseline in figures
        else None
        for name, (candidate, baseline) in _RATIOS.items()
    }
    return {"clips_per_s": figures, **ratios}


def _first_batch(manifest: Manifest, workers: int, batch_size: int) -> float:
    """Seconds from nothing to the first batch: manifest, index, buffers, threads."""
    start = time.perf_counter()
    manifest = load_manifest(manifest.root)
    sampler = BatchSampler(np.arange(len(manifest.index)), batch_size, seed=1, shuffle=True)
    with Loader(manifest, sampler, LoaderOptions(workers=workers)) as loader:
        next(loader.epoch()).release()
        return time.perf_counter() - start


def _clips_per_second(candidate: Candidate) -> tuple[float, float]:
    """-> clips a second of passes of MIN_SECONDS or more in all, cores kept busy meanwhile."""
    start, cpu_start, clips, seconds = time.perf_counter(), _cpu_seconds(), 0, 0.0
    while not clips or seconds < MIN_SECONDS:
        clips += sum(candidate())
        seconds = time.perf_counter() - start
    return clips / seconds, (_cpu_seconds() - cpu_start) / seconds


def _cpu_seconds() -> float:
    """CPU time of this process and of its living and ended children."""
    seconds = sum(os.times()[:4])
    ticks = os.sysconf("SC_CLK_TCK")
    for path in Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
            seconds += (int(fields[11]) + int(fields[12])) / ticks
    return seconds


def _peak_memory() -> int:
    """Most bytes this process and its largest ended child ever had resident."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return 1024 * sum(resource.getrusage(kind).ru_maxrss for kind in kinds)


def _drop_from_page_cache(manifest: Manifest) -> None:
    for number in range(len(manifest.shards)):
        descriptor = os.open(manifest.shard_path(number), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _table(result: dict[str, Any]) -> str:
    shape, rates = result["set"]["clip_shape"], result["clips_per_s"]
    clip_bytes = int(np.prod(shape))
    lines = [
        f"{result['set']['clips']} clips of {'x'.join(map(str, shape))} uint8 "
        f"({clip_bytes / 1e6:.2f} MB), batch {result['batch_size']}, {result['workers']} workers, "
        f"median of {result['rounds']}"
        + (", page cache dropped before each pass" if result["cold"] else ""),
        f"{'':42s}{'clips/s':>9s}{'GB/s':>7s}  {'low - high':>17s}{'cores':>7s}{'har is':>9s}",
    ]
    for name, figure in rates.items():
        rate = figure["median"]
        spread = f"{figure['low']:,.0f} - {figure['high']:,.0f}"
        lines.append(
            f"{_TITLES[name]:42s}{rate:9,.0f}{rate * clip_bytes / 1e9:7.2f}  {spread:>17s}"
            f"{figure['cpu']:7.1f}{rates['har']['median'] / rate:8.2f}x"
        )
    lines += [f"{_TITLES[name]}: {why}" for name, why in result["unavailable"].items()]
    lines.append(
        f"first batch after {result['first_batch_s'] * 1000:.0f} ms, "
        f"{result['ratio.memcpy']:.0%} of memory speed, peak memory of all this "
        f"{result['peak_bytes'] / 1e9:.1f} GB"
    )
    if result["ratio.paper_augmented"]:
        lines.append(
            f"augmented clips: {result['ratio.paper_augmented']:,.0f}x the paper's way "
            f"({result['videos']} videos)"
        )
    return "\n".join(lines)


def _plot(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of clips/s on a logarithmic axis, one color for each number of workers."""
    names = list(dict.fromkeys(name for result in results for name in result["clips_per_s"]))[::-1]
    figure = Figure(figsize=(9, 0.5 * len(names) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(results)
    for number, result in enumerate(results):
        positions = np.arange(len(names)) + number * height
        rates = [result["clips_per_s"].get(name, {"median": 0})["median"] for name in names]
        bars = axes.barh(positions, rates, height, label=f"{result['workers']} workers")
        axes.bar_label(bars, [f" {rate:,.0f}" for rate in rates], fontsize=8)
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, [_TITLES[name] for name in names])
    axes.set(xscale="log", xlabel="clips a second")
    axes.margins(x=0.15)
    axes.legend(loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def _synthetic_videos(scratch: Path) -> Path:
    """UCF101-shaped videos: 320x240, MPEG-4 part 2, 40 to 56 frames."""
    folder = scratch / "videos"
    if not folder.exists():
        synthetic.write_videos(folder)
    return folder


def _synthetic_set(scratch: Path) -> Path:
    """A shard set of synthetic videos at the default clip shape (16x128x171), about 130 MB."""
    build_shard_set(_synthetic_videos(scratch), scratch / "shards")
    return scratch / "shards"

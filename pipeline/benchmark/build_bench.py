"""har-shards bench: how fast videos become clips and shards, beside what people use otherwise.

The candidates are in `decoders`. Builds on one core and on two, and decoding alone, take turns as
well, with the videos of the largest group. The figures to quote are the ratios, medians over
rounds. `pip install .[bench]` brings torchcodec and OpenCV; what is missing is named as left out.

Notes: the timing runs in a child process, because torchcodec wants FFmpeg's libraries under their
plain names and finds them only in what LD_LIBRARY_PATH was at the start. PyAV brings such a set
under hashed names; links give them the plain ones, and all candidates but OpenCV share one FFmpeg.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import av
import torch

from ...shards.format import sample_bytes
from ..build import BuildOptions, RunOptions, build_shard_set
from ..dataset import find_videos, list_folder
from ..decode.decoder_process import ENVIRONMENT, freeze_imports
from . import BenchError, decoders

ROUNDS = 5
BUILD_ROUNDS = 3
BUILD_CLIPS = 2880  # 48 shards: that one worker ends before the other counts 1%
_BUILD_SECONDS = 40  # of one core: fewer clips where they take longer
_TITLES = {
    "har": "har: video to finished clip",
    "decode_only": "decoding the needed packets, nothing else",
    "torchcodec": "torchcodec, same frames, same resize",
    "torchcodec_resize": "torchcodec's own resize",
    "torchcodec_approximate": "torchcodec without its scan, same resize",
    "opencv_seek": "OpenCV as the paper calls it: seek, resize",
    "opencv_seek_one_thread": "the same, one thread",
}


def run(
    videos: Path, *, as_json: bool = False, rounds: int = ROUNDS, with_builds: bool = True
) -> str:
    """Measure in a child process and -> a table, or JSON. Raises BenchError, DatasetError."""
    if videos.is_file():
        dataset = find_videos(videos)
        paths = [str(Path(dataset.root, video.path)) for video in dataset.videos]
    else:
        paths = [str(path) for path in list_folder(videos)[0]]
    if not paths:
        raise BenchError(f"no video under {videos}: give a folder of videos, or a CSV of them.")
    with tempfile.TemporaryDirectory(prefix="har-shards-bench-") as scratch:
        if with_builds:
            _check_free_space(scratch)
        libraries = [_link_ffmpeg(Path(scratch)), os.environ.get("LD_LIBRARY_PATH", "")]
        environment = {  # for all candidates alike
            **os.environ, **ENVIRONMENT, "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        }  # fmt: skip
        request = {
            "paths": paths, "rounds": rounds, "scratch": scratch,
            "build_clips": BUILD_CLIPS if with_builds else 0,
        }  # fmt: skip
        child = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import child; child()"],
            input=json.dumps(request), env=environment, text=True, capture_output=True, check=False,
        )  # fmt: skip
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"the benchmark failed: {last}")
    results = json.loads(child.stdout.splitlines()[-1])
    return json.dumps(results, indent=1) if as_json else _table(results)


def _check_free_space(scratch: str) -> None:
    options = BuildOptions()
    needed = BUILD_CLIPS * sample_bytes(options.clip_shape) + options.shard_bytes
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise BenchError(
            f"the builds to be timed need {needed / 1e9:.1f} GB of scratch space and "
            f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB free: set TMPDIR to a folder with "
            "more free space."
        )


def _link_ffmpeg(scratch: Path) -> str:
    """Links from libavcodec.so.62 to PyAV's libavcodec-5e6b81c2.so.62.28.102; -> a search path."""
    spec = importlib.util.find_spec("av")
    libraries = Path(spec.origin or "").parent.with_name("av.libs") if spec else Path()
    links = scratch / "lib"
    links.mkdir()
    for path in libraries.glob("lib*.so*"):
        match = re.fullmatch(r"(lib(?:av|sw)\w+)-[0-9a-f]{8}\.so\.(\d+)[\d.]*", path.name)
        if match:
            (links / f"{match[1]}.so.{match[2]}").symlink_to(path)
    return f"{links}:{libraries}" if libraries.is_dir() else ""


def child() -> None:
    """Read the request, measure, print one line of JSON: the largest group's figures, and those of
    all groups under "groups"."""
    torch.set_num_threads(1)
    request = json.loads(sys.stdin.read())
    candidates, unavailable = decoders.find_candidates()
    groups, num_unreadable = decoders.make_groups([*map(Path, request["paths"])], candidates)
    freeze_imports()  # those of the candidates too, which are loaded by their first call
    decoders.measure(groups, request["rounds"])
    results: dict[str, Any] = {
        **groups[0].results(), "rounds": request["rounds"], "videos_unreadable": num_unreadable,
        "unavailable": unavailable, "groups": [group.results() for group in groups],
        "machine": _machine(), "versions": _versions(),
    }  # fmt: skip
    if request["build_clips"]:
        scratch, videos = Path(request["scratch"]), groups[0].videos
        affordable = int(_BUILD_SECONDS * results["clips_per_core_s"]["har"])
        count = max(len(videos), min(request["build_clips"], affordable))
        source = _link_repeatedly(videos, scratch / "videos", count)
        results |= measure_builds(videos, source, scratch, min(BUILD_ROUNDS, request["rounds"]))
    print(json.dumps(results))


def _machine() -> str:
    """Processor, cores that this process may use, system."""
    info = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{match[1] if match else platform.machine()}, {cores} cores, {platform.platform()}"


def _versions() -> dict[str, str]:
    """Of what is measured and was loaded for that."""
    loaded = ("av", "torch", "torchcodec", "cv2", "numpy")
    versions = {name: sys.modules[name].__version__ for name in loaded if name in sys.modules}
    avcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"python": platform.python_version(), "libavcodec": avcodec, **versions}


def measure_builds(
    videos: list[Path], source: Path, scratch: Path, rounds: int
) -> dict[str, float | None]:
    """Clips/s of whole builds of `source` on one core and on two, from the first finished video on,
    and of decoding and resizing `videos` alone on two, in turns.

    On a machine of one core the figures of two are None.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    rates: dict[str, list[float]] = {"build_1": [], "build_2": [], "decode_2": []}
    for number in range(rounds):
        with cpu_affinity(cores[:1]):
            rates["build_1"].append(_build_rate(source, scratch / f"set{number}-1", 1))
        if len(cores) != 1:
            with cpu_affinity(cores[:2]):
                rates["build_2"].append(_build_rate(source, scratch / f"set{number}-2", 2))
                rates["decode_2"].append(_decode_rate(videos, 2))
    return {
        **{name: statistics.median(some) if some else None for name, some in rates.items()},
        "scaling_2": _median_ratio(rates["build_2"], rates["build_1"]),
        "ratio.build_of_decode": _median_ratio(rates["build_2"], rates["decode_2"]),
    }


def _median_ratio(rates: list[float], baselines: list[float]) -> float | None:
    ratios = [rate / baseline for rate, baseline in zip(rates, baselines, strict=False)]
    return statistics.median(ratios) if ratios else None


@contextlib.contextmanager
def cpu_affinity(cores: list[int]) -> Iterator[None]:
    """This process and what it starts, on these cores only; where the system cannot, anywhere."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _decode_rate(videos: list[Path], num_processes: int) -> float:
    """Of processes that make clips at the same time and do nothing with them."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(num_processes)
    with ProcessPoolExecutor(num_processes, context, _prepare, (barrier, videos)) as pool:
        return sum(pool.map(_decode_all, [videos] * num_processes))


def _prepare(barrier: Barrier, videos: list[Path]) -> None:
    """At the start of a process: load and warm up, then wait for the other ones."""
    torch.set_num_threads(1)
    freeze_imports()
    for path in videos[: decoders.TURN]:
        decoders.har(path)
    barrier.wait(timeout=60)


def _decode_all(videos: list[Path]) -> float:
    start = time.perf_counter()
    for path in videos + videos:
        decoders.har(path)
    return 2 * len(videos) / (time.perf_counter() - start)


def _build_rate(source: Path, out: Path, workers: int) -> float:
    times: list[float] = []
    run_options = RunOptions(
        workers=workers, quiet=True, on_video=lambda: times.append(time.perf_counter())
    )
    build_shard_set(source, out, run_options=run_options)
    end = time.perf_counter()
    shutil.rmtree(out)
    first = 2 * workers  # the decoders have started by then
    return (len(times) - first) / (end - times[first - 1])


def _link_repeatedly(videos: list[Path], root: Path, num_clips: int) -> Path:
    """Links to the videos, so many that starting and ending a build do not count."""
    for repeat in range(-(-num_clips // len(videos))):
        for number, path in enumerate(videos):
            link = root / f"c{number % 3}" / f"{repeat:03d}-{number}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    return root


def _table(results: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"clips of 16x128x171, median of {results['rounds']} rounds",
        f"{results['machine']}; {versions}",
        *[f"left out: {_TITLES[name]}: {why}" for name, why in results["unavailable"].items()],
    ]
    if results["videos_unreadable"]:
        lines.append(f"left out: {results['videos_unreadable']} videos that cannot be opened")
    for group in results["groups"]:
        lines += ["", *_group_table(group)]
    if results.get("build_1"):
        lines += ["", f"{'whole build, 1 core':54s}{results['build_1']:9.1f}"]
    if results.get("build_2"):
        lines += [
            f"{'whole build, 2 cores':54s}{results['build_2']:9.1f}   {results['scaling_2']:.2f}x "
            "of 1 core",
            f"{'decoding and resizing alone, 2 cores':54s}{results['decode_2']:9.1f}",
            f"{'':54s}{'':9s}   the build reaches {results['ratio.build_of_decode']:.0%} of it",
        ]
    return "\n".join(lines)


def _group_table(group: dict[str, Any]) -> list[str]:
    kind = " ".join((group["codec"], group["container"], group["size"]))
    kind += f": {group['videos']} of {group['videos_found']} videos"
    lines = [f"{kind:54s}{'clips/s':>9s}{'a core':>9s}{'har is':>9s}"]
    for name, rate in group["clips_per_core_s"].items():
        ratio, clock = group["clips_per_core_s"]["har"] / rate, group["clips_per_s"][name]
        others = group["other_frames"].get(name, 0)
        note = f"  other frames in {others}" if others else ""
        lines.append(f"{_TITLES[name]:54s}{clock:9.1f}{rate:9.1f}{ratio:8.2f}x{note}")
    return lines + [f"{_TITLES[n]:54s}  left out: {why}" for n, why in group["unavailable"].items()]

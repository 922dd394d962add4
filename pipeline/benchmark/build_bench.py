"""har-shards bench: how fast videos become clips and shards, beside what people use otherwise.

The contestants are in `bench_decoders`. Builds on one core and on two, and decoding alone, take
turns as well. The figures to quote are the ratios, medians over rounds. `pip install .[bench]`
brings torchcodec and OpenCV; without them their lines are left out.

Odd: the timing runs in a child process, because torchcodec wants FFmpeg's libraries under their
plain names and finds them only in what LD_LIBRARY_PATH was at the start. PyAV brings such a set
under hashed names; links give them the plain ones, and all contestants but OpenCV share one FFmpeg.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...shards.format.writer import sample_bytes
from ..build.build import build_shard_set
from ..build.executor import RunOptions
from ..build.plan import BuildOptions
from ..dataset import find_videos
from ..decode.decoder_process import ENVIRONMENT, freeze_imports
from . import decoders
from .decoders import BenchError

ROUNDS = 5
BUILD_ROUNDS = 3
BUILD_CLIPS = 2880  # 48 shards: that one worker ends before the other counts 1%
_TITLES = {
    "har": "har: video to finished clip",
    "bare_decode": "decoding the needed packets, nothing else",
    "torchcodec": "torchcodec, same frames, same resize",
    "opencv_seek": "OpenCV as the paper calls it: seek, resize",
    "opencv_seek_one_thread": "the same, one thread",
}


def run(videos: Path, *, as_json: bool = False, rounds: int = ROUNDS) -> str:
    """Measure in a child process and -> a table, or JSON. Raises BenchError, DatasetError."""
    dataset = find_videos(videos)
    paths = [str(dataset.root / video.path) for video in dataset.videos]
    with tempfile.TemporaryDirectory() as scratch:
        _check_room(scratch)
        environment = {**os.environ, **ENVIRONMENT}  # for all contestants alike
        found = [_plain_names(Path(scratch)), os.environ.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = ":".join(part for part in found if part)
        program = "from har.pipeline.benchmark.build_bench import child; child()"
        request = json.dumps({"paths": paths, "rounds": rounds, "scratch": scratch})
        done = subprocess.run(
            [sys.executable, "-c", program], input=request, env=environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"the benchmark failed: {last}")
    results = json.loads(done.stdout.splitlines()[-1])
    return json.dumps(results, indent=1) if as_json else _table(results)


def _check_room(scratch: str) -> None:
    options = BuildOptions()
    needed = BUILD_CLIPS * sample_bytes(options.clip_shape) + options.shard_bytes
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise BenchError(
            f"the builds to be timed need {needed / 1e9:.1f} GB of scratch space and "
            f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB free: set TMPDIR to a folder with "
            "more room."
        )


def _plain_names(scratch: Path) -> str:
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
    """Read the request, measure, print one line of JSON."""
    import torch

    torch.set_num_threads(1)
    freeze_imports()
    request = json.loads(sys.stdin.read())
    paths = [Path(path) for path in request["paths"]]
    results, usable = decoders.measure(paths, request["rounds"])
    rounds = min(BUILD_ROUNDS, request["rounds"])
    results |= building(usable, Path(request["scratch"]), rounds)
    print(json.dumps(results))


def building(paths: list[Path], scratch: Path, rounds: int) -> dict[str, float | None]:
    """Clips/s of whole builds on one core and on two, from the first finished video on, and of
    decoding and resizing alone on two, in turns. On a machine of one core there is one figure."""
    source = _repeated(paths, scratch / "videos")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    rates: dict[str, list[float]] = {"build_1": [], "build_2": [], "decode_2": []}
    for turn in range(rounds):
        with _on(cores[:1]):
            rates["build_1"].append(_build_rate(source, scratch / f"set{turn}-1", 1))
        if len(cores) != 1:
            with _on(cores[:2]):
                rates["build_2"].append(_build_rate(source, scratch / f"set{turn}-2", 2))
                rates["decode_2"].append(_decode_rate(paths, 2))
    return {
        **{name: statistics.median(some) if some else None for name, some in rates.items()},
        "scaling_2": _median_ratio(rates["build_2"], rates["build_1"]),
        "ratio.build_of_decode": _median_ratio(rates["build_2"], rates["decode_2"]),
    }


def _median_ratio(these: list[float], those: list[float]) -> float | None:
    ratios = [this / that for this, that in zip(these, those, strict=False)]
    return statistics.median(ratios) if ratios else None


@contextlib.contextmanager
def _on(cores: list[int]) -> Iterator[None]:
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


def _decode_rate(paths: list[Path], processes: int) -> float:
    """Of processes that make clips at the same time and do nothing with them."""
    fresh = multiprocessing.get_context("spawn")
    start, rates = fresh.Barrier(processes), fresh.SimpleQueue()
    started = [
        fresh.Process(target=_decode_all, args=(paths, start, rates)) for _ in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    if any(process.exitcode for process in started):
        raise BenchError("a process that decodes for comparison died.")
    return sum(rates.get() for _ in started)


def _decode_all(paths: list[Path], start: Any, rates: Any) -> None:
    import torch

    torch.set_num_threads(1)
    freeze_imports()
    for path in paths[: decoders.TURN]:
        decoders.har(path)
    start.wait(timeout=60)
    begun = time.perf_counter()
    for path in paths + paths:
        decoders.har(path)
    rates.put(2 * len(paths) / (time.perf_counter() - begun))


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


def _repeated(paths: list[Path], root: Path) -> Path:
    """Links to the videos, often enough that starting and ending do not count."""
    for turn in range(-(-BUILD_CLIPS // len(paths))):
        for number, path in enumerate(paths):
            link = root / f"c{number % 3}" / f"{turn:03d}-{number}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    return root


def _table(results: dict[str, Any]) -> str:
    ours = results["clips_per_core_s"]["har"]
    lines = [
        f"{results['videos']} videos to 16x128x171 clips, median of {results['rounds']} rounds",
        f"{'clips/s':54s}{'':9s}{'a core':>9s}{'har is':>9s}",
    ]
    for name, rate in results["clips_per_core_s"].items():
        clock = results["clips_per_s"][name]
        lines.append(f"{_TITLES[name]:54s}{clock:9.1f}{rate:9.1f}{ours / rate:8.2f}x")
    lines += [f"{_TITLES[name]:54s}  {why}" for name, why in results["unable"].items()]
    lines.append(f"{'whole build, 1 core':54s}{results['build_1']:9.1f}")
    if results["build_2"]:
        lines.append(
            f"{'whole build, 2 cores':54s}{results['build_2']:9.1f}   {results['scaling_2']:.2f}x "
            f"of 1 core"
        )
        share = results["ratio.build_of_decode"]
        lines.append(f"{'decoding and resizing alone, 2 cores':54s}{results['decode_2']:9.1f}")
        lines.append(f"{'':54s}{'':9s}   the build reaches {share:.0%} of it")
    return "\n".join(lines)

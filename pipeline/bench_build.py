"""har-shards bench: how fast videos become clips, beside what people use otherwise.

Contestants take turns at each video, one thread each, so that a noisy machine hurts all alike; the
figures to quote are the ratios. `pip install .[bench]` brings torchcodec and OpenCV; without them
their lines are left out.

Odd: the timing runs in a child process, because torchcodec wants FFmpeg's libraries under their
plain names and finds them only in what LD_LIBRARY_PATH was at the start. PyAV brings such a set
under hashed names; links give them the plain ones, and all contestants share one FFmpeg.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import ucf101
from pipeline.decoder import ENVIRONMENT, settle

Contestant = Callable[[Path], int]
ROUNDS = 5
BUILD_CLIPS, BUILD_SHARD = 960, 16_000_000  # 64 shards: the last one's sync counts as little as in
# a build of UCF101 (220 shards)
_OPENCV = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": "threads;1"}
_TITLES = {
    "har": "har: video to finished clip",
    "bare_decode": "decoding the needed packets, nothing else",
    "torchcodec": "torchcodec, same frames, same resize",
    "opencv_seek": "OpenCV, seek to each frame, resize",
}


class BenchError(ValueError):
    """A benchmark that cannot run; the text is one sentence."""


def run(videos: Path, *, as_json: bool = False, rounds: int = ROUNDS) -> str:
    """Measure in a child process and -> a table, or JSON. Raises BenchError, DatasetError."""
    dataset = ucf101.find(videos)
    paths = [str(dataset.root / video.path) for video in dataset.videos]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, **ENVIRONMENT, **_OPENCV}  # for all contestants alike
        found = [_plain_names(Path(scratch)), os.environ.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = ":".join(part for part in found if part)
        program = "from pipeline.bench_build import child; child()"
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
    settle()
    request = json.loads(sys.stdin.read())
    paths = [Path(path) for path in request["paths"]]
    results = decoding(paths, request["rounds"])
    results |= building(paths, Path(request["scratch"]), results["clips_per_s"]["har"])
    print(json.dumps(results))


def contestants() -> tuple[dict[str, Contestant], dict[str, str]]:
    """-> those that can run here, and why the others cannot."""
    able: dict[str, Contestant] = {"har": _har, "bare_decode": _bare}
    unable = {}
    for name, make in (("torchcodec", _torchcodec), ("opencv_seek", _opencv)):
        try:
            able[name] = make()
        except (ImportError, RuntimeError, OSError) as error:
            unable[name] = str(error).strip().splitlines()[0]
    return able, unable


def decoding(paths: list[Path], rounds: int) -> dict[str, Any]:
    """Rates on one thread, and the ratio of ours to each; a video that one cannot read is out."""
    able, unable = contestants()
    usable = [path for path in paths if _all_can(able, path)]
    if not usable:
        raise BenchError("no video that every contestant can read.")
    seconds: dict[str, list[float]] = {name: [] for name in able}
    for _ in range(rounds):
        spent = dict.fromkeys(able, 0.0)
        for path in usable:
            for name, contestant in able.items():
                start = time.perf_counter()
                contestant(path)
                spent[name] += time.perf_counter() - start
        for name, value in spent.items():
            seconds[name].append(value)
    rate = {name: len(usable) / statistics.median(values) for name, values in seconds.items()}
    ratios = {
        f"ratio.{name}": statistics.median(
            other / ours for other, ours in zip(seconds[name], seconds["har"], strict=True)
        )
        for name in able
        if name != "har"
    }
    return {
        "videos": len(usable), "left_out": len(paths) - len(usable), "rounds": rounds,
        "clips_per_s": rate, "unable": unable, **ratios,
    }  # fmt: skip


def building(paths: list[Path], scratch: Path, alone: float) -> dict[str, float]:
    """Rates of whole builds by one and by two workers, from the first finished video on."""
    source = _repeated(paths, scratch / "videos")
    one, two = (_build_rate(source, scratch / f"set{workers}", workers) for workers in (1, 2))
    return {
        "build_1": one,
        "build_2": two,
        "scaling_2": two / one,
        "ratio.build_of_decode": two / (2 * alone),
    }


def _build_rate(source: Path, out: Path, workers: int) -> float:
    from pipeline import build
    from pipeline.plan import Options

    times: list[float] = []
    limits = build.Limits(
        workers=workers, quiet=True, step=lambda: times.append(time.perf_counter())
    )
    build.build(source, out, options=Options(shard_bytes=BUILD_SHARD), limits=limits)
    first = 2 * workers  # the decoders have started by then
    return (len(times) - first) / (time.perf_counter() - times[first - 1])


def _repeated(paths: list[Path], root: Path) -> Path:
    """Links to the videos, often enough that starting and ending do not count."""
    for turn in range(-(-BUILD_CLIPS // len(paths))):
        for number, path in enumerate(paths):
            link = root / f"c{number % 3}" / f"{turn:03d}-{number}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    return root


def _all_can(able: dict[str, Contestant], path: Path) -> bool:
    try:
        return all(contestant(path) == 16 for contestant in able.values())
    except (ValueError, RuntimeError, OSError):
        return False


def _har(path: Path) -> int:
    from pipeline import decode

    return len(decode.clip(path).pixels)


def _bare(path: Path) -> int:
    """The same packets through the same decoder; no conversion, no resize."""
    from pipeline import decode
    from pipeline.sampling import Sampling

    return decode.bare(path, Sampling())


def _torchcodec() -> Contestant:
    from torch.nn.functional import interpolate
    from torchcodec.decoders import VideoDecoder

    from pipeline.sampling import Sampling

    def fetch(path: Path) -> int:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
        (pick,) = Sampling().picks(decoder.metadata.num_frames or 0)
        frames = decoder.get_frames_at(list(pick.numbers)).data  # [T,C,H,W]
        return len(interpolate(frames, (128, 171), mode="bilinear", antialias=True))

    return fetch


def _opencv() -> Contestant:
    """As the paper does, section 3.2: `CAP_PROP_POS_FRAMES`, read, resize; one thread."""
    import cv2

    cv2.setNumThreads(1)

    def fetch(path: Path) -> int:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        step = max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) // 16)
        frames = []
        for number in range(16):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number * step)
            is_read, frame = capture.read()
            if is_read:
                frames.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (171, 128)))
        capture.release()
        return len(frames)

    return fetch


def _table(results: dict[str, Any]) -> str:
    ours = results["clips_per_s"]["har"]
    lines = [
        f"{results['videos']} videos to 16x128x171 clips, one thread, median of "
        f"{results['rounds']} rounds",
        f"{'':44s}{'clips/s':>9s}{'har is':>9s}",
    ]
    for name, rate in results["clips_per_s"].items():
        lines.append(f"{_TITLES[name]:44s}{rate:9.1f}{ours / rate:8.2f}x")
    lines += [f"{_TITLES[name]:44s}  {why}" for name, why in results["unable"].items()]
    lines.append(f"{'whole build, 1 worker':44s}{results['build_1']:9.1f}")
    share = results["ratio.build_of_decode"]
    lines.append(
        f"{'whole build, 2 workers':44s}{results['build_2']:9.1f}{results['scaling_2']:8.2f}x "
        f"of 1 worker, {share:.0%} of twice the decoding alone"
    )
    return "\n".join(lines)

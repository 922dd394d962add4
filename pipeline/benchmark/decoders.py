"""The contestants of har-shards bench that make clips of videos, and how they are timed.

They take turns at a few videos each, in an order that rotates: who comes first finds the files
cold; and one video each would show every contestant with cold caches, where a build runs on and on.
Rates are clips a second of one core (CPU time of all threads), so that a contestant with threads of
its own is charged for them. Those that are not installed are left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import HarError
from ..decode import decode_clip, decode_only
from ..sampling import ClipSampler

TURN = 10  # videos
Contestant = Callable[[Path], int]


class BenchError(HarError):
    """A benchmark that cannot run; the text is one sentence."""


def contestants() -> tuple[dict[str, Contestant], dict[str, str]]:
    """-> those that can run here, and why the others cannot."""
    able: dict[str, Contestant] = {"har": har, "bare_decode": _bare}
    unable = {}
    makers = {
        "torchcodec": _torchcodec,
        "opencv_seek": lambda: _opencv(None),
        "opencv_seek_one_thread": lambda: _opencv(1),
    }
    for name, make in makers.items():
        try:
            able[name] = make()
        except (ImportError, RuntimeError, OSError) as error:
            unable[name] = str(error).strip().splitlines()[0]
    return able, unable


def measure(paths: list[Path], rounds: int) -> tuple[dict[str, Any], list[Path]]:
    """-> rates of one core and the ratio of ours to each; and the videos that all could read.

    clips_per_core_s: by CPU time; clips_per_s: by the clock. Raises BenchError where none is left.
    """
    able, unable = contestants()
    usable = [path for path in paths if _all_can(able, path)]
    if not usable:
        raise BenchError("no video that every contestant can read.")
    busy: dict[str, list[float]] = {name: [] for name in able}
    wall: dict[str, list[float]] = {name: [] for name in able}
    for turn in range(rounds):
        for name, (cpu, clock) in _round(able, usable, turn).items():
            busy[name].append(cpu)
            wall[name].append(clock)
    ratios = {
        f"ratio.{name}": statistics.median(
            other / ours for other, ours in zip(busy[name], busy["har"], strict=True)
        )
        for name in able
        if name != "har"
    }
    return {
        "videos": len(usable), "left_out": len(paths) - len(usable), "rounds": rounds,
        "clips_per_core_s": {name: len(usable) / statistics.median(busy[name]) for name in able},
        "clips_per_s": {name: len(usable) / statistics.median(wall[name]) for name in able},
        "unable": unable, **ratios,
    }, usable  # fmt: skip


def _round(
    able: dict[str, Contestant], videos: list[Path], turn: int
) -> dict[str, tuple[float, float]]:
    """Every video once by each contestant; -> seconds of CPU and by the clock."""
    spent = dict.fromkeys(able, (0.0, 0.0))
    names = list(able)
    for number, at in enumerate(range(0, len(videos), TURN)):
        first = (turn + number) % len(names)
        for name in names[first:] + names[:first]:
            start, used = time.perf_counter(), time.process_time()
            for path in videos[at : at + TURN]:
                able[name](path)
            cpu, clock = time.process_time() - used, time.perf_counter() - start
            spent[name] = (spent[name][0] + cpu, spent[name][1] + clock)
    return spent


def _all_can(able: dict[str, Contestant], path: Path) -> bool:
    try:
        return all(contestant(path) == 16 for contestant in able.values())
    except (ValueError, RuntimeError, OSError):
        return False


def har(path: Path) -> int:
    return len(decode_clip(path).pixels)


def _bare(path: Path) -> int:
    """The same packets through the same decoder; no conversion, no resize."""
    return decode_only(path, ClipSampler())


def _torchcodec() -> Contestant:
    from torch.nn.functional import interpolate
    from torchcodec.decoders import VideoDecoder

    def fetch(path: Path) -> int:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
        (pick,) = ClipSampler().clip_indices(decoder.metadata.num_frames or 0)
        frames = decoder.get_frames_at(list(pick.frame_indices)).data  # [T,C,H,W]
        return len(interpolate(frames, (128, 171), mode="bilinear", antialias=True))

    return fetch


def _opencv(threads: int | None) -> Contestant:
    """As the paper does, section 3.2: `CAP_PROP_POS_FRAMES`, read, resize.

    threads: of FFmpeg; None = what `cv2.VideoCapture(path)`, the paper's call, takes: one a core.
    """
    import cv2

    cv2.setNumThreads(1)  # of the resize
    options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]

    def fetch(path: Path) -> int:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
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

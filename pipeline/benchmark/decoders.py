"""The candidates of har-shards bench that make clips of videos, and how they are timed.

They take turns at a few videos each, in an order that rotates: the first one finds the files cold,
and turns of one video each would show every candidate with cold caches, where a build runs on and
on. Rates are clips a second of one core (CPU time of all threads), so that a candidate with threads
of its own is charged for them. Those that are not installed are left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.nn.functional import interpolate

from ...errors import HarError
from ..decode import decode_clip, decode_only
from ..sampling import ClipSampler

TURN = 10  # videos
Candidate = Callable[[Path], int]  # video -> frames of its clip


class BenchError(HarError):
    """A benchmark that cannot run; the text is one sentence."""


def find_candidates() -> tuple[dict[str, Candidate], dict[str, str]]:
    """-> those that can run here, and why the others cannot."""
    makers: dict[str, Callable[[], Candidate]] = {
        "torchcodec": _torchcodec,
        "opencv_seek": lambda: _opencv(None),
        "opencv_seek_one_thread": lambda: _opencv(1),
    }
    candidates: dict[str, Candidate] = {"har": har, "decode_only": _decode_only}
    unavailable = {}
    for name, make in makers.items():
        try:
            candidates[name] = make()
        except (ImportError, RuntimeError, OSError) as error:
            unavailable[name] = str(error).strip().splitlines()[0]
    return candidates, unavailable


def measure(paths: list[Path], rounds: int) -> tuple[dict[str, Any], list[Path]]:
    """-> rates and the ratio of ours to each; and the videos that all candidates can read.

    clips_per_core_s: by CPU time; clips_per_s: by the clock. Raises BenchError where none is left.
    """
    candidates, unavailable = find_candidates()
    videos = [path for path in paths if _all_can_read(candidates, path)]
    if not videos:
        raise BenchError("no video that every candidate can read.")
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name, (cpu_seconds, wall_seconds) in time_round(candidates, videos, number).items():
            cpu[name].append(cpu_seconds)
            wall[name].append(wall_seconds)
    ratios = {
        f"ratio.{name}": statistics.median(
            baseline / ours for baseline, ours in zip(cpu[name], cpu["har"], strict=True)
        )
        for name in candidates
        if name != "har"
    }
    return {
        "videos": len(videos), "videos_left_out": len(paths) - len(videos), "rounds": rounds,
        "clips_per_core_s": {name: len(videos) / statistics.median(cpu[name]) for name in cpu},
        "clips_per_s": {name: len(videos) / statistics.median(wall[name]) for name in wall},
        "unavailable": unavailable, **ratios,
    }, videos  # fmt: skip


def time_round(
    candidates: dict[str, Candidate], videos: list[Path], round_number: int
) -> dict[str, tuple[float, float]]:
    """Every video once by each candidate; -> seconds of CPU and by the clock."""
    seconds = dict.fromkeys(candidates, (0.0, 0.0))
    names = list(candidates)
    for turn, start in enumerate(range(0, len(videos), TURN)):
        first = (round_number + turn) % len(names)
        for name in names[first:] + names[:first]:
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            for path in videos[start : start + TURN]:
                candidates[name](path)
            cpu, wall = time.process_time() - cpu_start, time.perf_counter() - wall_start
            seconds[name] = (seconds[name][0] + cpu, seconds[name][1] + wall)
    return seconds


def _all_can_read(candidates: dict[str, Candidate], path: Path) -> bool:
    try:
        return all(candidate(path) == 16 for candidate in candidates.values())
    except (ValueError, RuntimeError, OSError):
        return False


def har(path: Path) -> int:
    return len(decode_clip(path).pixels)


def _decode_only(path: Path) -> int:
    """The same packets through the same decoder; no conversion, no resize."""
    return decode_only(path, ClipSampler())


def _torchcodec() -> Candidate:
    from torchcodec.decoders import VideoDecoder

    def decode(path: Path) -> int:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
        (clip,) = ClipSampler().clip_indices(decoder.metadata.num_frames or 0)
        frames = decoder.get_frames_at(list(clip.frame_indices)).data  # [T,C,H,W]
        return len(interpolate(frames, (128, 171), mode="bilinear", antialias=True))

    return decode


def _opencv(threads: int | None) -> Candidate:
    """As the paper does, section 3.2: `CAP_PROP_POS_FRAMES`, read, resize.

    threads: of FFmpeg; None = what `cv2.VideoCapture(path)`, the paper's call, takes: one a core.
    """
    import cv2

    cv2.setNumThreads(1)  # of the resize
    options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]

    def decode(path: Path) -> int:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
        step = max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) // 16)
        frames = []
        for number in range(16):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number * step)
            is_read, bgr = capture.read()
            if is_read:
                frames.append(cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), (171, 128)))
        capture.release()
        return len(frames)

    return decode

"""The candidates of har-shards bench that make clips of videos, and how they are timed.

Videos are grouped by codec, container and size. In each group the candidates take turns at ten
videos, in an order that rotates: the first one finds the files cold, and turns of one video each
would show every candidate with cold caches, where a build runs on and on. Rates are clips a second
of one core (CPU time of all threads), so that a candidate with threads of its own is charged for
them. A candidate that is not installed, or can read none of a group, is named as left out.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from torch.nn.functional import interpolate

from ..decode import decode_clip, decode_only, open_video
from ..sampling import ClipSampler
from . import BenchError

TURN = 10  # videos
_TURN_SECONDS = 5.0  # of a candidate: a group of fewer videos is gone through several times a turn
_MOST_VIDEOS = 200  # of a group, evenly chosen
_SIZES = (144, 240, 360, 480, 720, 1080, 2160)  # of the shorter side, the upper ends of classes
_NUM_FRAMES, _SIZE = 16, (128, 171)
_OTHER_FRAMES = 8.0  # mean difference, of 255: another way to resize makes 1 to 3
_FAULTS = (ValueError, RuntimeError, OSError, IndexError)
Candidate = Callable[[Path], np.ndarray | None]  # video -> its clip, uint8 [16,128,171,3]


@dataclass
class Group:
    """Videos of one codec, container and size: who can read them, and how long each took.

    other_frames: how many clips of a candidate are plainly of other frames than ours. cpu, wall:
    seconds of each round.
    """

    codec: str
    container: str
    size: str
    videos: list[Path] = field(default_factory=list)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    other_frames: Counter[str] = field(default_factory=Counter)
    num_found: int = 0
    repeats: int = 1
    cpu: dict[str, list[float]] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)

    def results(self) -> dict[str, Any]:
        """Rates, and the ratio of ours to each. clips_per_core_s: by CPU time; clips_per_s: by the
        clock."""
        count = len(self.videos) * self.repeats
        ratios = {
            f"ratio.{name}": statistics.median(
                seconds / ours
                for seconds, ours in zip(self.cpu[name], self.cpu["har"], strict=True)
            )
            for name in self.candidates
            if name != "har"
        }
        return {
            "codec": self.codec, "container": self.container, "size": self.size,
            "videos": len(self.videos), "videos_found": self.num_found,
            "clips_per_core_s": {n: count / statistics.median(s) for n, s in self.cpu.items()},
            "clips_per_s": {n: count / statistics.median(s) for n, s in self.wall.items()},
            "other_frames": self.other_frames, "unavailable": self.unavailable, **ratios,
        }  # fmt: skip


def find_candidates() -> tuple[dict[str, Candidate], dict[str, str]]:
    """-> those that can run here, and why the others cannot."""
    makers: dict[str, Callable[[], Candidate]] = {
        "torchcodec": lambda: _torchcodec("exact"),
        "torchcodec_resize": lambda: _torchcodec("exact", resizes=True),
        "torchcodec_approximate": lambda: _torchcodec("approximate"),
        "opencv_seek": lambda: _opencv(None),
        "opencv_seek_one_thread": lambda: _opencv(1),
    }
    candidates: dict[str, Candidate] = {"har": har, "decode_only": _decode_only}
    unavailable = {}
    for name, make in makers.items():
        try:
            candidates[name] = make()
        except (ImportError, RuntimeError, OSError) as error:
            unavailable[name] = _first_line(error)
    return candidates, unavailable


def make_groups(paths: list[Path], candidates: dict[str, Candidate]) -> tuple[list[Group], int]:
    """-> groups of what all their candidates can read, the largest first; and how many videos
    cannot even be opened. Raises BenchError where no group is left."""
    groups: dict[tuple[str, str, str], Group] = {}
    num_unreadable = 0
    for path in paths:
        try:
            kind = _kind(path)
        except (*_FAULTS, av.FFmpegError):
            num_unreadable += 1
            continue
        groups.setdefault(kind, Group(*kind)).videos.append(path)
    for group in groups.values():
        _check(group, candidates)
    readable = sorted(groups.values(), key=lambda group: -len(group.videos))
    if not readable or not readable[0].videos:
        raise BenchError("no video that har can read.")
    return [group for group in readable if group.videos], num_unreadable


def _kind(path: Path) -> tuple[str, str, str]:
    with open_video(path) as (container, stream):
        names, suffix = container.format.name.split(","), path.suffix[1:].lower()
        context = stream.codec_context
        side = min(context.width, context.height)
        size = next((str(size) for size in _SIZES if side <= size), "more")
        codec = str(context.codec.canonical_name)
    return codec, suffix if suffix in names else names[0], f"up to {size}p"


def _check(group: Group, candidates: dict[str, Candidate]) -> None:
    """Let each candidate read each video: who can read none is left out, and so are the videos that
    not all of the others can read."""
    group.num_found = len(group.videos)
    group.videos = group.videos[:: -(-group.num_found // _MOST_VIDEOS)]
    readers: dict[str, set[Path]] = {name: set() for name in candidates}
    start = time.process_time()
    for path in group.videos:
        for name, candidate in candidates.items():
            try:
                clip = candidate(path)
            except (*_FAULTS, av.FFmpegError) as error:
                group.unavailable.setdefault(name, _first_line(error))
                if name == "har":  # the first
                    break
                continue
            readers[name].add(path)
            if name == "har":
                expected = clip
            elif clip is not None and expected is not None:
                difference = np.abs(clip.astype(np.int16) - expected).mean()
                group.other_frames[name] += bool(difference > _OTHER_FRAMES)
    seconds = (time.process_time() - start) / len(group.videos) / len(candidates)
    group.candidates = {name: candidates[name] for name, read in readers.items() if read}
    group.unavailable = {n: why for n, why in group.unavailable.items() if not readers[n]}
    group.videos = [p for p in group.videos if all(p in readers[n] for n in group.candidates)]
    if "har" not in group.candidates:
        group.videos = []
    missing = TURN // max(1, len(group.videos))
    group.repeats = max(1, min(missing, int(_TURN_SECONDS / seconds)))


def measure(groups: list[Group], rounds: int) -> None:
    """Time the candidates of each group, round by round."""
    for number in range(rounds):
        for group in groups:
            timed = time_round(group.candidates, group.videos * group.repeats, number)
            for name, (cpu, wall) in timed.items():
                group.cpu.setdefault(name, []).append(cpu)
                group.wall.setdefault(name, []).append(wall)


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


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"/\S*/", "", lines[0])  # no path of this machine


def har(path: Path) -> np.ndarray:
    return decode_clip(path).pixels


def _decode_only(path: Path) -> None:
    """The same packets through the same decoder; no conversion, no resize."""
    decode_only(path, ClipSampler())


def _torchcodec(seek_mode: Literal["exact", "approximate"], *, resizes: bool = False) -> Candidate:
    """resizes: by its own transform, which is swscale; else by torch, as ours. seek_mode: exact
    reads all packets first; approximate goes by what the header says."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    transforms = [Resize(_SIZE)] if resizes else None

    def decode(path: Path) -> np.ndarray:
        decoder = VideoDecoder(
            str(path), num_ffmpeg_threads=1, seek_mode=seek_mode, transforms=transforms
        )
        (clip,) = ClipSampler().clip_indices(decoder.metadata.num_frames or 0)
        frames = decoder.get_frames_at(list(clip.frame_indices)).data  # [T,C,H,W]
        if not resizes:
            frames = interpolate(frames, _SIZE, mode="bilinear", antialias=True)
        pixels: np.ndarray = frames.permute(0, 2, 3, 1).numpy()
        return pixels

    return decode


def _opencv(threads: int | None) -> Candidate:
    """As the paper does, section 3.2: `CAP_PROP_POS_FRAMES`, read, resize.

    threads: of FFmpeg; None = what `cv2.VideoCapture(path)`, the paper's call, takes: one a core.
    """
    import cv2

    cv2.setNumThreads(1)  # of the resize
    options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]

    def decode(path: Path) -> np.ndarray:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
        step = max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) // _NUM_FRAMES)
        frames = []
        for number in range(_NUM_FRAMES):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number * step)
            is_read, bgr = capture.read()
            if is_read:
                frames.append(cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), _SIZE[::-1]))
        capture.release()
        if len(frames) < _NUM_FRAMES:
            raise ValueError(f"OpenCV reads {len(frames)} of {_NUM_FRAMES} frames")
        return np.stack(frames)

    return decode

"""A video that a stranger sent: is it one, is it small enough, and then its clip.

Odd: FFmpeg also opens playlists, which make it read other files and addresses. Which container
formats and protocols it may use is therefore said before it opens the file, not looked at after.
Meant to run in a process of its own (`har.training.inference.sandbox`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HarError

# FFmpeg's demuxers for VIDEO_SUFFIXES, and nothing that points to other files
FORMATS = ("avi", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpeg", "mpegts", "asf", "flv")
_MOST_PIXELS = 4096 * 2304  # of a frame
_MOST_RATE = 120  # frames a second


class UploadError(HarError):
    """A file that is not taken; one sentence, without its path on this machine."""


@dataclass(frozen=True)
class Limits:
    """What is taken. megabytes: of the file. seconds: of the video, and of the work on it."""

    megabytes: int = 100
    seconds: int = 120
    work_seconds: int = 60

    def __post_init__(self) -> None:
        for name, value in (("--max-mb", self.megabytes), ("--max-seconds", self.seconds)):
            if value < 1:
                raise UploadError(f"{name} {value} does not work: give 1 or more.")


def check(path: Path, limits: Limits) -> None:
    """Raise UploadError for anything but a video of an allowed kind, length and frame size."""
    import av

    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    try:
        with av.open(str(path), options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise UploadError("it has no video stream.")
            stream = container.streams.video[0]
            if stream.width * stream.height > _MOST_PIXELS:
                raise UploadError(
                    f"its frames are {stream.width}x{stream.height}: 4096x2304 is the most."
                )
            if (container.duration or 0) / av.time_base > limits.seconds:
                raise UploadError(f"it is longer than {limits.seconds} s: send a shorter one.")
            _check_packets(container, stream, limits)
    except (av.FFmpegError, OSError, EOFError, UnicodeDecodeError, MemoryError) as error:
        raise UploadError("it is no video that can be read here.") from error


def _check_packets(container: Any, stream: Any, limits: Limits) -> None:
    """A header may say nothing, or lie: count the packets, and look at the last one's time."""
    count, first, last = 0, None, 0.0
    for packet in container.demux(stream):
        count += bool(packet.size)
        if packet.pts is not None:
            time = float(packet.pts * packet.time_base)
            first = time if first is None else min(first, time)
            last = max(last, time)
        too_long = last - (first or 0.0) > limits.seconds
        if too_long or count > limits.seconds * _MOST_RATE:
            raise UploadError(f"it is longer than {limits.seconds} s: send a shorter one.")
    if count == 0:
        raise UploadError("there is no picture in it.")


def read(path: Path, preprocessing: dict[str, Any], limits: Limits) -> NDArray[np.uint8]:
    """A stranger's file -> its clips uint8 [V,T,H,W,3], as `predict.read_clips`."""
    from . import predictor

    check(path, limits)
    try:
        return predictor.read_clips(path, preprocessing)
    except ValueError as error:
        if not predictor.is_video_fault(error):
            raise
        raise UploadError("it cannot be decoded.") from error

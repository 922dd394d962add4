"""A video file from elsewhere (a page's upload, a URL): is it one, is it small enough; its clips.

Notes: FFmpeg also opens playlists, which make it read other files and addresses. The container
formats and protocols that it may use are therefore named before it opens the file. `decode_upload`
runs in a child process with limits (`har.pipeline.decode.DecoderProcess`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import HarError
from ...pipeline.decode import (
    FILE_FAULTS,
    FrameClock,
    VideoDecodeError,
    describe_warnings,
    open_video,
)
from ...pipeline.decode.decoder_process import decode_into

# FFmpeg's demuxers for VIDEO_SUFFIXES; none of them refers to other files
FORMATS = (
    "avi", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpeg", "mpegts", "asf", "flv", "ogg", "mxf",
    "gif",
)  # fmt: skip
_MAX_PIXELS = 4096 * 2304  # of a frame


class UploadError(HarError):
    """A file that is not accepted; one sentence, in which "it" is the file."""


@dataclass(frozen=True)
class UploadLimits:
    """max_mb: of the file, 10^6 bytes. max_seconds: of the video. decode_seconds: of the work.
    silent_seconds: without a byte, after which a URL is given up."""

    max_mb: int = 100
    max_seconds: int = 120
    decode_seconds: int = 60
    silent_seconds: int = 30


def decode_upload(
    path: str, out: np.ndarray, max_seconds: int, sampler: dict[str, Any], size: tuple[int, int],
    fit: str = "squeeze",
) -> dict[str, Any]:  # fmt: skip
    """Check the file, then decode it: the function of a DecoderProcess.

    sampler: the fields of a ClipSampler; a file without its stream gives the main one. Fills `out`
    with V clips, uint8 [V,T,H,W,3]; -> num_clips: V; warnings: sentences, "it" is the file. Raises
    UploadError or VideoDecodeError.
    """
    texts, stream = [], sampler["stream"]
    try:
        check_video(Path(path), max_seconds, stream)
    except VideoDecodeError:
        if stream is None:
            raise
        check_video(Path(path), max_seconds)
        sampler = {**sampler, "stream": None}
        texts = [f"it has no video stream {stream}, of which the shards were: the main one counts."]
    clips = decode_into(path, out, sampler, size, False, fit)
    warnings = dict(clips[0]["warnings"])
    warnings.pop("no_length", None)  # browsers record such files
    streams = warnings.pop("streams", None)
    if streams:  # `describe_warnings` speaks of an option
        texts.append(f"it has several video streams: {streams['taken']} was taken.")
    return {"num_clips": len(clips), "warnings": texts + describe_warnings(warnings)}


def check_video(path: Path, max_seconds: float, index: int | None = None) -> None:
    """Raise UploadError for anything but a video of an allowed format, length and frame size.

    index: of the video stream, None = the one that a player shows. Raises VideoDecodeError where
    there is none.
    """
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    try:
        with open_video(path, options, index) as (container, stream):
            if stream.width * stream.height > _MAX_PIXELS:
                raise UploadError(
                    f"its frames are {stream.width}x{stream.height}: 4096x2304 is the most."
                )
            _check_times(container, stream, max_seconds)
    except FILE_FAULTS as error:
        raise UploadError("it is no video that can be read here.") from error


def _check_times(container: Any, stream: Any, max_seconds: float) -> None:
    """By the time stamps of all packets: the header may declare nothing, or lie."""
    clock = FrameClock.of_stream(container, stream)
    stamps = [clock.stamp(packet) for packet in container.demux(stream) if packet.size]
    if not stamps:
        raise UploadError("there is no picture in it.")
    clock.times(sorted(stamps, key=lambda stamp: (stamp is None, stamp)))
    if clock.seconds > max_seconds:
        raise UploadError(f"it is longer than {max_seconds:g} s: send a shorter one.")

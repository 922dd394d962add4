"""A video -> clips, uint8 [T,H,W,3], exactly the frames that a plain decode counted by hand gives.

`clips` looks at the packets (of a plain AVI by `har.pipeline.decode.avi`, else through libavformat) and then
takes one of two ways:
- MPEG-4 part 2 (UCF101, HMDB51): only the pictures that the chosen frames need are decoded, see
  `har.pipeline.decode.mpeg4`; damage in one of them sends the video the other way, damage in a picture that
  nothing needs is not seen;
- anything else: every frame is decoded, and only the chosen ones are converted. The number of
  packets is taken for the number of frames; where the decode shows another number, the frames are
  chosen anew and a second decode fetches them.

`har.pipeline.decode.frames` makes finished pixels of what comes out.
"""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ...errors import HarError
from ..sampling import ClipSampler
from . import avi, mpeg4
from .frames import Frames

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_IN_MEMORY = 256 << 20  # bytes of the largest file whose packets are held, to be decoded in part
_FAULTS = (av.FFmpegError, OSError, EOFError, UnicodeDecodeError, MemoryError)
logging.getLogger("libav").setLevel(logging.CRITICAL)  # a fault is an error of ours, said once


class VideoDecodeError(HarError):
    """A video that gives no clip; the text is one sentence that names the file."""


@dataclass(frozen=True)
class Clip:
    """One clip of a video.

    pixels: uint8 [T,H,W,3], RGB, upright. numbers: the frames taken, counted in presentation order.
    padded: how many of them repeat the last. decoded / declared: frames that decode, and that the
    header claims (0 = it says nothing). fps: 0.0 where unknown.
    """

    pixels: np.ndarray
    numbers: tuple[int, ...]
    padded: int
    decoded: int
    declared: int
    fps: float


def clip(
    path: Path | str,
    *,
    frames: int = 16,
    size: tuple[int, int] = (128, 171),
    rule: str = "paper",
    stride: int = 2,
    keep_partial: bool = False,
) -> Clip:
    """The one clip of a video that its shard would hold: same rule, same pixels.

    size: (H, W). Raises VideoDecodeError, and SamplingError for options that make no sense.
    """
    return clips(path, ClipSampler(rule, frames, stride), size, keep_partial=keep_partial)[0]


def clips(
    path: Path | str,
    sampling: ClipSampler,
    size: tuple[int, int],
    *,
    keep_partial: bool = False,
    whole: bool = False,
    room: np.ndarray | None = None,
) -> list[Clip]:
    """All clips that `sampling` takes of a video, resized straight to `size` (H, W).

    keep_partial: take what decoded before a fault, instead of raising. whole: decode every frame
    even where a short cut would do (the tests compare both). room: uint8 [K*T,H,W,3] to make the
    pixels in; those of a single clip without padding lie there, others may be copies. Raises
    VideoDecodeError.
    """
    path = Path(path)
    if room is None:
        room = np.empty((sampling.clips * sampling.frames, *size, 3), np.uint8)
    try:
        with contextlib.ExitStack() as opened:
            stream, decoder = _scan(path, opened, keep_partial)
            taken = None if whole else _by_pictures(stream, decoder, sampling, room)
        if taken is None:
            taken = _by_frames(path, stream, sampling, room, keep_partial)
    except _FAULTS as error:
        raise VideoDecodeError(f"{path} cannot be decoded ({_reason(error)}).") from error
    if taken.decoded == 0:
        raise VideoDecodeError(f"{path} has no frame that decodes.")
    return [
        Clip(
            pixels=taken.clip(pick.numbers),
            numbers=pick.numbers,
            padded=pick.padded,
            decoded=taken.decoded,
            declared=stream.declared,
            fps=stream.fps,
        )
        for pick in sampling.picks(taken.decoded)
    ]


def _reason(error: BaseException) -> str:
    """Without the path, which FFmpeg's own texts carry: rejects must read alike on any machine."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


@dataclass(frozen=True)
class _Stream:
    """What the packets tell. pictures: None where nothing can be left out."""

    packets: int
    declared: int
    fps: float
    pictures: mpeg4.Pictures | None


@dataclass(frozen=True)
class _Taken:
    """Finished frames, uint8 [n,H,W,3], their numbers, and how many frames the video has."""

    pixels: np.ndarray
    numbers: list[int]
    decoded: int

    def clip(self, numbers: tuple[int, ...]) -> np.ndarray:
        """uint8 [T,H,W,3]: without a copy where the clip is just what was taken."""
        if tuple(self.numbers) == numbers:
            return self.pixels
        place = {number: at for at, number in enumerate(self.numbers)}
        return self.pixels[[place[number] for number in numbers]]


def _open(path: Path) -> InputContainer:
    # HMDB51's titles are not UTF-8: without `replace` they alone make the file unreadable
    return av.open(str(path), metadata_errors="replace")


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if not container.streams.video:
        raise VideoDecodeError(f"{path} has no video stream.")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # the build runs one process a core
    return stream


def _scan(
    path: Path, opened: contextlib.ExitStack, keep_partial: bool = False
) -> tuple[_Stream, Any]:
    """What the packets tell, and a decoder that has seen none of them yet.

    A RIFF file that ends early is a fault: libavformat would take what is there for all.
    """
    data = _whole(path)
    layout = avi.read(data) if data else None
    if layout is not None:
        return _scan_chunks(data, layout), _decoder(layout)
    if data and not keep_partial and avi.size_said(data) > len(data):
        raise VideoDecodeError(
            f"{path} is cut off: {len(data):,} of {avi.size_said(data):,} bytes."
        )
    container = opened.enter_context(_open(path))
    video = _video_stream(container, path)
    return _scan_stream(container, video, path.stat().st_size), video.codec_context


def _whole(path: Path) -> bytes:
    """The bytes of a RIFF file that fits in memory; of others nothing."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, for ever
        raise VideoDecodeError(f"{path} is not a regular file.")
    with path.open("rb", buffering=0) as file:
        if file.read(4) != b"RIFF" or about.st_size > _IN_MEMORY:
            return b""
        file.seek(0)
        return file.readall()


def _scan_chunks(data: bytes, layout: avi.Layout) -> _Stream:
    found = mpeg4.pictures(data, layout.spans)
    return _Stream(len(layout.spans), layout.frames, layout.fps, found)


def _decoder(layout: avi.Layout) -> VideoCodecContext:
    """As libavformat sets it up: FFmpeg takes the encoder's inverse transform from the fourcc."""
    decoder: VideoCodecContext = av.CodecContext.create("mpeg4", "r")
    decoder.codec_tag = layout.fourcc.decode("ascii")
    decoder.width, decoder.height = layout.width, layout.height
    decoder.thread_count = 1
    return decoder


def _scan_stream(container: InputContainer, video: VideoStream, size: int) -> _Stream:
    """Read the packets of the stream, and look at those of MPEG-4 if the file fits in memory."""
    context = video.codec_context
    simple = context.name == "mpeg4" and size <= _IN_MEMORY
    packets, sizes = [], []
    for packet in container.demux(video):
        if packet.size:
            sizes.append(packet.size)
            if simple:
                packets.append(bytes(packet))
    found = None
    if simple and packets:
        ends = np.cumsum(sizes)
        spans = np.stack([ends - sizes, ends], 1)  # [n,2]
        found = mpeg4.pictures(b"".join(packets), spans, bytes(context.extradata or b""))
    return _Stream(
        packets=len(sizes),
        declared=int(video.frames),
        fps=float(video.average_rate or video.guessed_rate or 0),
        pictures=found,
    )


def _by_pictures(
    stream: _Stream, decoder: Any, sampling: ClipSampler, room: np.ndarray
) -> _Taken | None:
    """Decode only what the chosen frames need; None where that is not possible or goes wrong."""
    if stream.pictures is None:
        return None
    wanted = _wanted(sampling, len(stream.pictures))
    frames = Frames(room)
    try:
        for packet in _packets(stream.pictures, wanted):
            for frame in decoder.decode(packet):
                if frame.is_corrupt:  # what hides the damage depends on the frames before it
                    return None
                if frame.pts in wanted:
                    frames.add(frame.pts, frame)
    except _FAULTS:
        return None  # a plain decode says what is wrong
    if set(frames.numbers) != wanted:
        return None
    return _Taken(frames.done(), frames.numbers, len(stream.pictures))


def _packets(stream: mpeg4.Pictures, wanted: set[int]) -> Iterator[av.Packet | None]:
    """What the decoder needs for those frames, and the None that makes it give out its last.

    `Packet(bytes)` has no padding behind it, the decoder reads a little past the end, and frames
    came out wrong now and then: a packet made by size, then filled, has.
    """
    used = mpeg4.needed(stream, wanted)
    spans, numbers = stream.spans[used].tolist(), stream.numbers[used].tolist()
    for (at, end), number in zip(spans, numbers, strict=True):
        packet = av.Packet(end - at)
        packet.update(stream.data[at:end])
        packet.pts = number  # comes back with the frame
        yield packet
    yield None


def _by_frames(
    path: Path, stream: _Stream, sampling: ClipSampler, room: np.ndarray, keep_partial: bool
) -> _Taken:
    """Decode everything, convert what is chosen; twice where the first count was wrong."""
    guess = max(1, stream.packets)
    taken = _pass(path, _wanted(sampling, guess), room, keep_partial)
    if taken.decoded not in (0, guess):
        wanted = _wanted(sampling, taken.decoded)
        if not wanted <= set(taken.numbers):
            taken = _pass(path, wanted, room, keep_partial)
    return taken


def _pass(path: Path, wanted: set[int], room: np.ndarray, keep_partial: bool) -> _Taken:
    """One decode from the first frame to the last."""
    frames, number = Frames(room), 0
    with _open(path) as container:
        try:
            for frame in container.decode(_video_stream(container, path)):
                if number in wanted:
                    frames.add(number, frame)
                number += 1
        except _FAULTS:
            if not (keep_partial and number):
                raise
    return _Taken(frames.done(), frames.numbers, number)


def _wanted(sampling: ClipSampler, n: int) -> set[int]:
    return {number for pick in sampling.picks(n) for number in pick.numbers}


def bare(path: Path, sampling: ClipSampler) -> int:
    """Decode what `clips` would and keep nothing: the ceiling that a benchmark compares with.

    -> how many chosen frames came out. Raises VideoDecodeError for what is not MPEG-4 part 2.
    """
    with contextlib.ExitStack() as opened:
        stream, decoder = _scan(path, opened)
        if stream.pictures is None:
            raise VideoDecodeError(f"{path} has no pictures that could be left out.")
        wanted = _wanted(sampling, len(stream.pictures))
        packets = _packets(stream.pictures, wanted)
        return sum(frame.pts in wanted for packet in packets for frame in decoder.decode(packet))

"""What the packets of a video tell before any is decoded: how many frames, when, what is odd."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ..sampling import ClipSampler
from . import avi, container
from .container import FILE_FAULTS, open_video
from .packets import PacketIndex, index_mpeg4, index_packets
from .timestamps import FrameClock

_MAX_BYTES_IN_MEMORY = 256 << 20  # of a file whose packets are held, to decode only some of them
_MPEG4: Any = av.Codec("mpeg4", "r")
Warnings = dict[str, Any]


@dataclass(frozen=True)
class Scan:
    """What the packets tell.

    index: None where the stream is to be decoded whole. seconds: when each frame is shown, where
    that matters. clock: as it is after the last frame. duration: seconds that the header declares,
    0 = unknown. num_missing: bytes at the end of the file. stream, warnings: see `clips.Clip`.
    """

    num_packets: int
    num_declared: int
    fps: float
    index: PacketIndex | None
    seconds: list[float] | None
    clock: FrameClock
    duration: float = 0.0
    num_missing: int = 0
    stream: int | None = None
    warnings: Warnings = field(default_factory=dict)


def scan_video(
    path: Path,
    stack: contextlib.ExitStack,
    sampler: ClipSampler,
    keep_partial: bool = False,
) -> tuple[Scan, VideoCodecContext]:
    """What the packets tell, and a decoder that has seen none of them yet.

    A file that ends early is a fault: libavformat would take the part for the whole.
    """
    most_of_avi = _MAX_BYTES_IN_MEMORY if sampler.stream is None else 0
    header, num_bytes = container.read_header(path, most_of_avi)
    video = avi.read_avi(header) if len(header) == num_bytes else None
    if video is not None and sampler.stream is None:
        index, num_packets = index_mpeg4(header, video.spans, extradata=b""), len(video.spans)
        clock = FrameClock(1 / video.fps if video.fps else 0.0, video.fps, has_pts=False)
        seconds = None
        if sampler.fps is not None:
            seconds = clock.times(_frame_stamps(video.positions.tolist(), index, clock))
        scan = Scan(num_packets, video.num_frames, video.fps, index, seconds, clock)
        return scan, _avi_decoder(video)
    opened, stream = stack.enter_context(open_video(path, stream=sampler.stream))
    scan = _scan_stream(opened, stream, header, num_bytes, sampler.fps is not None, keep_partial)
    if not keep_partial:
        container.raise_if_cut(path, num_bytes, scan.num_missing)
    return scan, stream.codec_context


def _avi_decoder(video: avi.Avi) -> VideoCodecContext:
    """As libavformat sets it up: FFmpeg takes the encoder's inverse transform from the fourcc."""
    decoder: VideoCodecContext = av.CodecContext.create(_MPEG4, "r")
    decoder.codec_tag = video.fourcc.decode("ascii")
    decoder.width, decoder.height = video.width, video.height
    decoder.thread_count = 1
    return decoder


def _scan_stream(
    opened: InputContainer,
    stream: VideoStream,
    header: bytes,
    num_bytes: int,
    by_time: bool,
    keep_partial: bool,
) -> Scan:
    """Read the packets of the stream, and find out whether it can be decoded in part."""
    packets: list[av.Packet] = []
    is_whole = False
    with contextlib.suppress(*FILE_FAULTS if keep_partial else ()):
        packets.extend(packet for packet in opened.demux(stream) if packet.size)
        is_whole = True
    num_missing = container.missing_bytes(header, num_bytes, stream)
    clock, index = FrameClock.of_stream(opened, stream), None
    stamps = [clock.stamp(packet) for packet in packets]
    if num_bytes <= _MAX_BYTES_IN_MEMORY and is_whole and not num_missing:  # parts: all is counted
        index = index_packets(packets, stream.codec_context, opened.format.name)
    seconds = clock.times(_frame_stamps(stamps, index, clock)) if by_time else None
    has_length = container.says_its_length(header, opened)
    streams = container.describe_streams(opened, stream)
    return Scan(
        num_packets=len(packets),
        num_declared=int(stream.frames) % (1 << 30),  # 2^30: an AVI that was written to a pipe
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        index=index,
        seconds=seconds,
        clock=clock,
        duration=_declared_seconds(opened, stream) if has_length else 0.0,
        num_missing=num_missing,
        stream=stream.index if streams else None,
        warnings={**streams, "no_length": not has_length},
    )


def _declared_seconds(opened: InputContainer, stream: VideoStream) -> float:
    """How long the header says that the stream is; 0 where that is unknown."""
    if opened.format.name == "avi":  # libavformat's duration is a guess where the index is missing
        return float(stream.frames / (stream.average_rate or 1))
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    is_alone = len(opened.streams) == 1  # else the sound may be longer
    return (opened.duration or 0) / av.time_base if is_alone else 0.0


def _frame_stamps(
    stamps: Sequence[int | None], index: PacketIndex | None, clock: FrameClock
) -> Sequence[int | None]:
    """The stamps of the frames, in order of presentation, from those of all packets.

    In AVI a decoder that has B-pictures gives each frame out with the stamp of the next packet. So
    it does where times of decoding stand for those of presentation: they rise though the pictures
    change places. There only the first frame has its own stamp, see `FrameClock.stamp`.
    """
    num_frames = len(stamps) if index is None else index.num_frames
    known = sorted(stamp for stamp in stamps if stamp is not None)
    if len(known) < len(stamps):
        return [None] * num_frames
    is_rising = list(stamps) == known
    if index is not None:
        sources = {index.sources[at] for at in index.presentation}
        if len(sources) == num_frames:  # else a packet of two pictures was split
            known = sorted(stamps[source] or 0 for source in sources)
        is_reordered = list(index.presentation) != sorted(index.presentation)
        if not clock.has_pts and not all(index.is_reference):
            del known[0]
        elif clock.has_pts and is_rising and is_reordered:
            del known[1:2]
    return [*known, *[None] * num_frames][:num_frames]

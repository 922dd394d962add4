"""A video -> clips, uint8 [T,H,W,3], exactly the frames that a plain decode from the start gives.

`decode_clips` reads the packets and then goes one of two ways:
- Only the pictures that the chosen frames need are decoded (`packets`). Where one of them is
  damaged, or a frame does not come out, the second way is taken; damage in a picture that nothing
  needs is not seen.
- Every frame is decoded, and only the chosen ones are converted: streams that cannot be trusted in
  part, files too large to hold. The number of packets is taken for the number of frames; where the
  decode gives another number, the frames are chosen again, and a second decode fetches those that
  are missing.
"""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ...errors import HarError
from ..sampling import ClipSampler
from . import avi
from .frames import FrameResizer
from .mpeg4 import make_packet
from .packets import PacketIndex, decode_positions, index_packets

_MAX_BYTES_IN_MEMORY = 256 << 20  # of a file whose packets are held, to decode only some of them
_HEADER_BYTES = 64 << 10  # read of each file, to learn how long it must be
_FILE_FAULTS = (av.FFmpegError, OSError, EOFError, UnicodeDecodeError, MemoryError)
logging.getLogger("libav").setLevel(logging.CRITICAL)  # a fault is raised, and said once


class VideoDecodeError(HarError):
    """A video that gives no clip; the text is one sentence that names the file."""


@dataclass(frozen=True)
class Clip:
    """One clip of a video.

    pixels: uint8 [T,H,W,3], RGB, upright. frame_indices: the T frames, counted in presentation
    order; the last `num_padded` of them repeat the last frame. num_decoded: frames that decode;
    num_declared: that the header claims (0 = it says nothing). fps: 0.0 where unknown. stream: the
    index of the video stream, where the file has several.
    """

    pixels: np.ndarray
    frame_indices: tuple[int, ...]
    num_padded: int
    num_decoded: int
    num_declared: int
    fps: float
    stream: int | None = None


def decode_clip(
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
    sampler = ClipSampler(rule, frames, stride)
    return decode_clips(path, sampler, size, keep_partial=keep_partial)[0]


def decode_clips(
    path: Path | str,
    sampler: ClipSampler,
    size: tuple[int, int],
    *,
    keep_partial: bool = False,
    decode_all: bool = False,
    out: np.ndarray | None = None,
) -> list[Clip]:
    """All clips that `sampler` takes of a video, resized straight to `size` (H, W).

    keep_partial: take what decoded before a fault, instead of raising. decode_all: decode every
    frame even where some can be left out (tests compare both). out: uint8 [K*T,H,W,3] for the
    pixels; those of a single clip without padding lie there, others may be copies. Raises
    VideoDecodeError.
    """
    path = Path(path)
    if out is None:
        out = np.empty((sampler.clips * sampler.frames, *size, 3), np.uint8)
    try:
        with contextlib.ExitStack() as stack:
            scan, decoder = _scan(path, stack, keep_partial)
            decoded = None if decode_all else _decode_needed(scan, decoder, sampler, out)
        if decoded is None:
            decoded = _decode_all(path, scan, sampler, out, keep_partial)
    except _FILE_FAULTS as error:
        raise VideoDecodeError(f"{path} cannot be decoded ({reason(error)}).") from error
    if decoded.num_decoded == 0:
        raise VideoDecodeError(f"{path} has no frame that decodes.")
    return [
        Clip(
            pixels=decoded.select(clip.frame_indices),
            frame_indices=clip.frame_indices,
            num_padded=clip.num_padded,
            num_decoded=decoded.num_decoded,
            num_declared=scan.num_declared,
            fps=scan.fps,
            stream=scan.stream,
        )
        for clip in sampler.clip_indices(decoded.num_decoded)
    ]


def decode_only(path: Path, sampler: ClipSampler) -> int:
    """Decode what `decode_clips` would and convert nothing: the ceiling of a benchmark.

    -> how many chosen frames came out. Raises VideoDecodeError for what is decoded whole.
    """
    with contextlib.ExitStack() as stack:
        scan, decoder = _scan(path, stack)
        if scan.index is None:
            raise VideoDecodeError(f"{path} has no pictures that could be left out.")
        indices = _frame_indices(sampler, scan.index.num_frames)
        frames = _needed_frames(scan.index, decoder, indices)
        return sum(index in indices for index, _ in frames)


def reason(error: BaseException) -> str:
    """What went wrong, without the path that FFmpeg's texts carry: rejects read alike anywhere."""
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)


@dataclass(frozen=True)
class _Scan:
    """What the packets tell. index: None where the stream is to be decoded whole. stream: see
    `Clip`."""

    num_packets: int
    num_declared: int
    fps: float
    index: PacketIndex | None
    stream: int | None = None


@dataclass(frozen=True)
class _DecodedFrames:
    """Finished frames, uint8 [n,H,W,3], their indices, and how many frames the video has."""

    pixels: np.ndarray
    indices: list[int]
    num_decoded: int

    def select(self, frame_indices: tuple[int, ...]) -> np.ndarray:
        """uint8 [T,H,W,3]: no copy where the clip is exactly what was decoded."""
        if tuple(self.indices) == frame_indices:
            return self.pixels
        rows = {index: row for row, index in enumerate(self.indices)}
        return self.pixels[[rows[index] for index in frame_indices]]


def _frame_indices(sampler: ClipSampler, n: int) -> set[int]:
    return {index for clip in sampler.clip_indices(n) for index in clip.frame_indices}


@contextlib.contextmanager
def open_video(
    path: Path | str, options: dict[str, str] | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the stream that a player shows: FFmpeg's best one, never a cover picture.

    options: of libavformat. Raises VideoDecodeError, and what `av.open` raises.
    """
    # Absolute, for FFmpeg takes what stands before a colon for a protocol. HMDB51's titles are not
    # UTF-8: without `replace` they alone make the file unreadable.
    file = str(Path(path).absolute())
    with av.open(file, options=options, metadata_errors="replace") as container:
        videos = _video_streams(container)
        if not videos:
            has_cover = " but a cover picture" * bool(container.streams.video)
            raise VideoDecodeError(f"{path} has no video stream{has_cover}.")
        best = container.streams.best("video")
        stream = best if best in videos else videos[0]
        stream.codec_context.thread_count = 1  # the build runs one process a core
        yield container, stream


def _video_streams(container: InputContainer) -> list[VideoStream]:
    """Its streams of moving pictures."""
    is_cover = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & is_cover]


def _scan(
    path: Path, stack: contextlib.ExitStack, keep_partial: bool = False
) -> tuple[_Scan, VideoCodecContext]:
    """What the packets tell, and a decoder that has seen none of them yet.

    A file that ends early is a fault: libavformat would take the part for the whole.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
        raise VideoDecodeError(f"{path} is not a regular file.")
    header, data = _read_start(path, status.st_size)
    video = avi.read_avi(data) if data else None
    if video is not None:
        decoder = _avi_decoder(video)
        packets = [make_packet(packet) for packet in video.packets]
        index = index_packets(packets, decoder, "avi")
        return _Scan(len(packets), video.num_frames, video.fps, index), decoder
    container, stream = stack.enter_context(open_video(path))
    scan = _scan_stream(container, stream, status.st_size)
    ends = (entry.pos + entry.size for entry in stream.index_entries)
    declared = max(avi.movie_end(header), _segment_end(header), *ends, 0)
    if declared > status.st_size and not keep_partial:
        raise VideoDecodeError(
            f"{path} is cut off: {status.st_size:,} bytes of at least {declared:,}."
        )
    return scan, stream.codec_context


def _read_start(path: Path, num_bytes: int) -> tuple[bytes, bytes]:
    """The first bytes; and all of them, where it is a RIFF file that fits in memory."""
    with path.open("rb", buffering=0) as file:
        header = file.read(_HEADER_BYTES)
        if not avi.riff_size(header) or num_bytes > _MAX_BYTES_IN_MEMORY:
            return header, b""
        return header, header + file.readall()


def _segment_end(header: bytes) -> int:
    """Where the one segment of a Matroska file ends; 0 for other files and those made to a pipe."""
    start = header.find(b"\x18\x53\x80\x67", 4) + 4  # RFC 8794: its name, then its size
    if header[:4] != b"\x1a\x45\xdf\xa3" or start < 8 or start + 8 > len(header):
        return 0
    length = 9 - header[start].bit_length()
    size = int.from_bytes(header[start : start + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else start + length + size


def _avi_decoder(video: avi.Avi) -> VideoCodecContext:
    """As libavformat sets it up: FFmpeg takes the encoder's inverse transform from the fourcc."""
    decoder: VideoCodecContext = av.CodecContext.create("mpeg4", "r")
    decoder.codec_tag = video.fourcc.decode("ascii")
    decoder.width, decoder.height = video.width, video.height
    decoder.thread_count = 1
    return decoder


def _scan_stream(container: InputContainer, stream: VideoStream, num_bytes: int) -> _Scan:
    """Read the packets of the stream, and find out whether it can be decoded in part."""
    packets = [packet for packet in container.demux(stream) if packet.size]
    index = None
    if num_bytes <= _MAX_BYTES_IN_MEMORY:
        index = index_packets(packets, stream.codec_context, container.format.name)
    return _Scan(
        num_packets=len(packets),
        num_declared=int(stream.frames) % (1 << 30),  # 2^30: an AVI that was written to a pipe
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        index=index,
        stream=stream.index if len(_video_streams(container)) > 1 else None,
    )


def _decode_needed(
    scan: _Scan, decoder: VideoCodecContext, sampler: ClipSampler, out: np.ndarray
) -> _DecodedFrames | None:
    """Decode only what the chosen frames need; None where that is not possible or goes wrong."""
    if scan.index is None:
        return None
    indices = _frame_indices(sampler, scan.index.num_frames)
    resizer = FrameResizer(out)
    try:
        for index, frame in _needed_frames(scan.index, decoder, indices):
            if frame.is_corrupt:  # what FFmpeg conceals it with depends on the frames before
                return None
            if index in indices:
                resizer.add(index, frame)
    except _FILE_FAULTS:
        return None  # a plain decode says what is wrong
    if sorted(resizer.indices) != sorted(indices):
        return None
    return _DecodedFrames(resizer.finish(), resizer.indices, scan.index.num_frames)


def _needed_frames(
    index: PacketIndex, decoder: VideoCodecContext, indices: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(frame index, frame) of all that has to be decoded for those frames; -1: it is not chosen."""
    by_position = {index.presentation[number]: number for number in indices}
    for position, frame in decode_positions(index, decoder, set(by_position)):
        yield by_position.get(position, -1), frame


def _decode_all(
    path: Path, scan: _Scan, sampler: ClipSampler, out: np.ndarray, keep_partial: bool
) -> _DecodedFrames:
    """Decode everything, convert what is chosen; twice where the first count was wrong."""
    num_guessed = max(1, scan.num_packets)
    decoded = _decode_once(path, _frame_indices(sampler, num_guessed), out, keep_partial)
    if decoded.num_decoded not in (0, num_guessed):
        indices = _frame_indices(sampler, decoded.num_decoded)
        if not indices <= set(decoded.indices):
            decoded = _decode_once(path, indices, out, keep_partial)
    return decoded


def _decode_once(
    path: Path, indices: set[int], out: np.ndarray, keep_partial: bool
) -> _DecodedFrames:
    """One decode from the first frame to the last; keep_partial: past what does not decode."""
    resizer, num_decoded = FrameResizer(out), 0
    faults = contextlib.suppress(*_FILE_FAULTS if keep_partial else ())
    with open_video(path) as (container, stream), faults:
        for packet in container.demux(stream):  # the last one is empty: it gets what is held back
            with faults:
                for frame in packet.decode():
                    if num_decoded in indices:
                        resizer.add(num_decoded, frame)
                    num_decoded += 1
    return _DecodedFrames(resizer.finish(), resizer.indices, num_decoded)

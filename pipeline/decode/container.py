"""A video file opened: the stream that is decoded, and how much of the file is missing."""

from __future__ import annotations

import contextlib
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ...errors import HarError
from . import avi

_HEADER_BYTES = 64 << 10  # read of each file, to learn how long it must be
# What stands before the size: ASF's File Properties Object, FLV's number "filesize". Other programs
# than the one that wrote it may have changed the file a little; FFmpeg allows 5 % as well.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_FLV_SIZE = b"\0\x08filesize\0"
_SIZE_TOLERANCE = 0.95
FILE_FAULTS = (av.FFmpegError, OSError, EOFError, UnicodeDecodeError, MemoryError)


class VideoDecodeError(HarError):
    """A video that gives no clip; the text is one sentence that names the file."""


def reason(error: BaseException) -> str:
    """What went wrong, without the path that FFmpeg's texts carry: rejects read alike anywhere."""
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)


@contextlib.contextmanager
def open_video(
    path: Path | str, options: dict[str, str] | None = None, stream: int | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the stream that a player shows: FFmpeg's best one, never a cover picture.

    options: of libavformat. stream: the index in the file of the one to take instead. Raises
    VideoDecodeError, and what `av.open` raises.
    """
    with _open(path, options) as container:
        videos = {video.index: video for video in video_streams(container)}
        if not videos:
            has_cover = " but a cover picture" * bool(container.streams.video)
            raise VideoDecodeError(
                _unfinished(Path(path)) or f"{path} has no video stream{has_cover}."
            )
        best = container.streams.best("video")
        index = best.index if best and best.index in videos else next(iter(videos))
        if stream is not None and stream not in videos:
            raise VideoDecodeError(
                f"{path} has no video stream {stream}: give one of {', '.join(map(str, videos))} "
                "as --stream, or leave that out."
            )
        video = videos[index if stream is None else stream]
        if video.codec_context is None:
            raise VideoDecodeError(f"{path} has a video stream of an unknown codec.")
        video.codec_context.thread_count = 1  # the build runs one process a core
        yield container, video


def _open(path: Path | str, options: dict[str, str] | None) -> InputContainer:
    # Absolute, for FFmpeg takes what stands before a colon for a protocol. HMDB51's titles are not
    # UTF-8: without `replace` they alone make the file unreadable.
    file = Path(path).absolute()
    try:
        return av.open(str(file), options=options, metadata_errors="replace")
    except (av.InvalidDataError, EOFError) as error:  # FFmpeg says no more than "invalid data"
        if sentence := _unfinished(Path(path)):
            raise VideoDecodeError(sentence) from error
        raise


def _unfinished(path: Path) -> str | None:
    """What is said of a file without anything in it, or without the index of MP4 and MOV."""
    if not path.is_file():
        return None
    if path.stat().st_size == 0:
        return f"{path} is empty: 0 bytes."
    if _lacks_index(path):
        return f"{path} is cut off: its index (moov), which a camera writes last, is missing."
    return None


def _lacks_index(path: Path) -> bool:
    """Whether an MP4 or MOV file ends before its index, by its boxes (ISO/IEC 14496-12, 4.2)."""
    num_bytes, at = path.stat().st_size, 0
    with path.open("rb", buffering=0) as file:
        for _ in range(1000):  # before their index whole files have a few
            file.seek(at)
            header = file.read(16)
            if at >= num_bytes or len(header) < 16:
                break
            size, name = struct.unpack(">I4s", header[:8])
            if at == 0 and name not in (b"ftyp", b"wide", b"mdat"):
                return False
            if name == b"moov":
                return at + size > num_bytes
            size = int.from_bytes(header[8:]) if size == 1 else size
            at += size if size >= 8 else num_bytes  # 0: to the end of the file
    return at > 0


def video_streams(container: InputContainer) -> list[VideoStream]:
    """Its streams of moving pictures."""
    is_cover = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & is_cover]


def describe_streams(container: InputContainer, stream: VideoStream) -> dict[str, Any]:
    """The entry "streams" of `Clip.warnings`, where the file has several."""
    indices = [video.index for video in video_streams(container)]
    return {"streams": {"in_file": indices, "taken": stream.index}} if indices[1:] else {}


def read_header(path: Path, most_of_avi: int = 0) -> tuple[bytes, int]:
    """The first bytes of a file, all of an AVI of up to `most_of_avi`, and how many it has.

    Raises VideoDecodeError for a pipe or the like: reading it could wait for ever.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise VideoDecodeError(f"{path} is not a regular file.")
    with path.open("rb", buffering=0) as file:
        if status.st_size <= most_of_avi and avi.riff_size(file.read(8)):
            file.seek(0)
            return file.readall(), status.st_size
        file.seek(0)
        return file.read(_HEADER_BYTES), status.st_size


def missing_bytes(header: bytes, num_bytes: int, stream: VideoStream) -> int:
    """How many bytes of a file are missing at its end, as far as its sizes and index tell.

    libavformat would take the part for the whole.
    """
    ends = [entry.pos + entry.size for entry in stream.index_entries]
    stated = _stated_size(header)
    if num_bytes < stated * _SIZE_TOLERANCE:
        ends.append(stated)
    return max(avi.movie_end(header), _segment_end(header), num_bytes, *ends) - num_bytes


def check_whole(path: Path | str, stream: VideoStream) -> None:
    """Raise VideoDecodeError for a file that is cut off, as far as `missing_bytes` can tell."""
    header, num_bytes = read_header(Path(path))
    raise_if_cut(path, num_bytes, missing_bytes(header, num_bytes, stream))


def raise_if_cut(path: Path | str, num_bytes: int, num_missing: int) -> None:
    """Raise VideoDecodeError where bytes are missing."""
    if num_missing:
        raise VideoDecodeError(
            f"{path} is cut off: {num_bytes:,} bytes of at least {num_bytes + num_missing:,}."
        )


def says_its_length(header: bytes, container: InputContainer) -> bool:
    """Whether `missing_bytes` can tell a file of this kind that was cut off from a whole one."""
    names = container.format.name.split(",")
    sizes = (avi.movie_end(header), _segment_end(header), _stated_size(header))
    return "mov" in names or max(sizes) > 0


def _segment_end(header: bytes) -> int:
    """Where the one segment of a Matroska file ends; 0 for other files and those made to a pipe."""
    start = header.find(b"\x18\x53\x80\x67", 4) + 4  # RFC 8794: its name, then its size
    if header[:4] != b"\x1a\x45\xdf\xa3" or start < 8 or start + 8 > len(header):
        return 0
    length = 9 - header[start].bit_length()
    size = int.from_bytes(header[start : start + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else start + length + size


def _stated_size(header: bytes) -> int:
    """The size that the header of an ASF or FLV file says that it has; 0 where it says none."""
    if header.startswith(b"FLV"):
        at = header.find(_FLV_SIZE)
        value = header[at + len(_FLV_SIZE) :][:8]
        number = struct.unpack(">d", value)[0] if at >= 0 and len(value) == 8 else 0.0
        return int(number) if 0 < number < 1 << 62 else 0  # it may be no number at all
    at = header.find(_ASF_PROPERTIES)
    if at < 0 or len(header) < at + 92:
        return 0
    (size,), (flags,) = (
        struct.unpack_from(kind, header, at + offset) for kind, offset in (("<Q", 40), ("<I", 88))
    )
    return 0 if flags & 1 else int(size)  # 1: written to a pipe

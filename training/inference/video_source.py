"""What `har-predict` is given -> video files: files, folders, globs, URLs, standard input.

A URL and standard input are read into a temporary file first, for a video is decoded more than once
(clips, windows, its copy) and the index of an mp4 may stand at its end; with the limits that
`har-serve` has. What fsspec knows is fetched (http, https, s3, ...); live streams, which have no
end, are recorded by FFmpeg up to the limit of time.
"""

import contextlib
import glob
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import av

from ...errors import printable
from ...pipeline.dataset import list_folder
from ...pipeline.decode import FILE_FAULTS, VIDEO_SUFFIXES, VideoDecodeError, reason
from ...progress import note
from ...shards.storage import DISK_ERRORS, StorageError, TransferStopped, fetch_file, local_path
from .uploaded_video import UploadError, UploadLimits, check_video
from .windows import PredictionError

STDIN = "-"
_LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp")
_MAX_FETCH_SECONDS = 3600.0  # however fast the bytes come


def find_videos(names: Sequence[str | Path]) -> list[Path | str]:
    """Files, folders (searched to the bottom), globs, URLs and "-" (standard input) -> videos, URLs
    and "-", each once.

    A folder of numbered images is a video.
    A path that does not exist stays in the list, so that it is reported as a video that cannot be
    read. What is left out of folders is said, by kind, and how many were named twice. Raises
    PredictionError when a folder or a glob holds no video, DatasetError for a folder that cannot be
    read.
    """
    videos: dict[str, Path | str] = {}
    num_twice = 0
    for name in names:
        matches = _expand(name)
        if not matches:
            raise PredictionError(
                f"there is no video in {name}: give video files, or a folder with "
                f"{', '.join(VIDEO_SUFFIXES[:4])} or the like."
            )
        for match in matches:
            key = os.path.abspath(match) if isinstance(match, Path) else match
            num_twice += key in videos
            videos.setdefault(key, match)
    if num_twice:
        note(f"named twice, and predicted once: {num_twice} of the videos")
    return list(videos.values())


def _expand(name: str | Path) -> list[Path | str]:
    """What one argument stands for."""
    path = local_path(name)
    if str(name) == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise PredictionError(
                "- is standard input, and no file comes in there: har-predict RUN - < FILE."
            )
        return [STDIN]
    if path.is_dir():
        videos, left_out = list_folder(path)
        for line in left_out:
            note(printable(f"{path}: {line}"))
        return [*videos]
    if "://" in str(name) and not str(name).startswith("file:") and not path.exists():
        return [str(name)]
    if glob.has_magic(str(name)) and not path.exists():
        matches = sorted(glob.glob(str(name), recursive=True))
        return [video for match in matches for video in _expand(Path(match))]
    return [path]


def name_of(video: Path | str) -> str:
    """The name of a video without its suffix, for files that are made of it."""
    if isinstance(video, Path):
        return video.stem
    if video == STDIN:
        return "stdin"
    url = urlsplit(video)
    return Path(unquote(url.path)).stem or str(url.hostname)


@contextlib.contextmanager
def local_file(video: Path | str, limits: UploadLimits) -> Iterator[tuple[Path, list[str]]]:
    """The file of a video while the block lasts, and what is to be said of it, "it" is the video.

    Raises VideoDecodeError, in which a URL or "-" stands for its file.
    """
    if isinstance(video, Path):
        yield video, []
        return
    name = "standard input" if video == STDIN else video
    with tempfile.TemporaryDirectory(prefix="har-", ignore_cleanup_errors=True) as scratch:
        path, notes = _fetch(video, name, Path(scratch), limits)
        try:
            yield path, notes
        except VideoDecodeError as error:
            raise VideoDecodeError(str(error).replace(str(path), name)) from error


def _fetch(video: str, name: str, folder: Path, limits: UploadLimits) -> tuple[Path, list[str]]:
    path, notes = folder / f"video{Path(urlsplit(video).path).suffix}", []
    max_seconds: float = limits.max_seconds
    try:
        if video == STDIN:
            is_whole, max_seconds = _read_stdin(path, limits), float("inf")
        elif urlsplit(video).scheme in _LIVE:
            path, is_whole = path.with_suffix(".mkv"), True
            if not _record(video, path, limits):
                notes = ["only its beginning was recorded: --max-seconds and --max-mb set limits."]
        else:
            is_whole = _fetch_in_time(video, path, limits)
        if not is_whole:
            raise UploadError(f"it is larger than {limits.max_mb} MB (--max-mb).")
        check_video(path, max_seconds)
    except UploadError as error:
        raise VideoDecodeError(f"{name} was not predicted: {error}") from error
    except VideoDecodeError as error:
        raise VideoDecodeError(str(error).replace(str(path), name)) from error
    except StorageError as error:
        raise VideoDecodeError(str(error)) from error  # names the URL
    except FILE_FAULTS as error:
        text = reason(error)
        if getattr(error, "errno", None) in DISK_ERRORS:
            text += f", in the folder of temporary files {folder.parent}: TMPDIR sets another"
        raise VideoDecodeError(f"{name} cannot be read ({text}).") from error
    return path, notes


def _read_stdin(path: Path, limits: UploadLimits) -> bool:
    """Write standard input to `path`; -> whether that is all of it."""
    num_bytes = 0
    with path.open("wb") as file:
        while block := sys.stdin.buffer.read(1 << 20):
            num_bytes += file.write(block)
            if num_bytes > limits.max_mb * 1_000_000:
                return False
    return True


def _fetch_in_time(url: str, path: Path, limits: UploadLimits) -> bool:
    """`fetch_file` in a thread, which is left behind where no byte comes: each store has waits and
    tries of its own. -> False for a file that is too large."""
    start = last = time.monotonic()
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_given_up = False

    def heartbeat() -> None:
        nonlocal last
        last = time.monotonic()
        if is_given_up:
            raise TransferStopped

    def fetch() -> None:
        try:
            results.put(fetch_file(url, path, limits.max_mb * 1_000_000, heartbeat))
        except BaseException as error:
            results.put(error)

    threading.Thread(target=fetch, daemon=True).start()
    while True:
        deadline = min(last + limits.silent_seconds, start + _MAX_FETCH_SECONDS)
        with contextlib.suppress(queue.Empty):
            result = results.get(timeout=max(0.0, deadline - time.monotonic()))
            if isinstance(result, BaseException):
                raise result
            return bool(result)
        if last + limits.silent_seconds <= time.monotonic():
            is_given_up = True
            raise UploadError(_silence(limits))
        if start + _MAX_FETCH_SECONDS <= time.monotonic():
            is_given_up = True
            raise UploadError(f"it was not there after {_MAX_FETCH_SECONDS / 60:g} minutes.")


def _silence(limits: UploadLimits) -> str:
    return f"no byte of it came for {limits.silent_seconds} s (--timeout)."


def _record(url: str, path: Path, limits: UploadLimits) -> bool:
    """Write the video of a live stream to `path`, from a key picture on, until it ends or the
    limits are reached; -> whether it ended."""
    options, silence = {"rtsp_transport": "tcp"}, float(limits.silent_seconds)
    heard = [time.monotonic()]
    try:
        with (
            av.open(url, options=options, timeout=silence, metadata_errors="replace") as live,
            av.open(str(path), "w", format="matroska") as file,
        ):
            return _copy_stream(url, live, file, limits, heard)
    except av.FFmpegError as error:
        if time.monotonic() - heard[-1] < silence:
            raise
        raise UploadError(_silence(limits)) from error  # each protocol says it in its own way


def _copy_stream(url: str, live: Any, file: Any, limits: UploadLimits, heard: list[float]) -> bool:
    """heard: when it was opened; gets the time of each packet."""
    stream = live.streams.best("video")
    if stream is None:
        raise VideoDecodeError(f"{url} has no video stream.")
    copy, num_bytes = file.add_stream_from_template(stream), 0
    first: int | None = None
    for packet in live.demux(stream):
        heard.append(time.monotonic())
        if heard[-1] - heard[0] > limits.max_seconds + limits.silent_seconds:
            return False
        if packet.pts is None or packet.dts is None or (first is None and not packet.is_keyframe):
            continue
        first = packet.pts if first is None else first
        seconds = float((packet.pts - first) * packet.time_base)
        num_bytes += packet.size
        if seconds >= limits.max_seconds or num_bytes > limits.max_mb * 1_000_000:
            return False
        packet.stream = copy
        file.mux(packet)
    return True

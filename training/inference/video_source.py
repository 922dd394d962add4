"""What `har-predict` is given -> video files: files, folders, globs, URLs.

A URL is read into a file first, for a video is decoded more than once (clips, windows, its copy),
with the limits that `har-serve` has. What fsspec knows is fetched (http, https, s3, ...); live
streams, which have no end, are recorded by FFmpeg up to the limit of time.
"""

import contextlib
import glob
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av

from ...pipeline.decode import (
    FILE_FAULTS,
    VIDEO_SUFFIXES,
    VideoDecodeError,
    reason,
    videos_below,
)
from ...shards.storage import StorageError, fetch_file, local_path
from .uploaded_video import UploadError, UploadLimits, check_video
from .windows import PredictionError

_LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp")
_SILENCE = 30.0  # seconds without an answer after which a live stream is given up


def find_videos(names: Sequence[str | Path]) -> list[Path | str]:
    """Files, folders (searched to the bottom), globs and URLs -> videos and URLs, each once.

    A folder of numbered images is a video.
    A path that does not exist stays in the list, so that it is reported as a video that cannot be
    read. Raises PredictionError when a folder or a glob holds no video.
    """
    videos: dict[Path | str, None] = {}
    for name in names:
        path = local_path(name)
        matches: list[Path | str] = [path]
        if path.is_dir():
            matches = [*videos_below(path)]
        elif "://" in str(name) and not str(name).startswith("file:") and not path.exists():
            matches = [str(name)]
        elif glob.has_magic(str(name)) and not path.exists():
            matches = [Path(match) for match in sorted(glob.glob(str(name), recursive=True))]
        if not matches:
            raise PredictionError(
                f"there is no video in {name}: give video files, or a folder with "
                f"{', '.join(VIDEO_SUFFIXES[:4])} or the like."
            )
        videos.update(dict.fromkeys(matches))
    return list(videos)


def name_of(video: Path | str) -> str:
    """The name of a video without its suffix, for files that are made of it."""
    if isinstance(video, Path):
        return video.stem
    url = urlsplit(video)
    return Path(unquote(url.path)).stem or str(url.hostname)


@contextlib.contextmanager
def local_file(video: Path | str, limits: UploadLimits) -> Iterator[tuple[Path, list[str]]]:
    """The file of a video while the block lasts, and what is to be said of it, "it" is the video.

    Raises VideoDecodeError, in which a URL stands for its file.
    """
    if isinstance(video, Path):
        yield video, []
        return
    with tempfile.TemporaryDirectory(prefix="har-") as scratch:
        path, notes = _fetch(video, Path(scratch), limits)
        try:
            yield path, notes
        except VideoDecodeError as error:
            raise VideoDecodeError(str(error).replace(str(path), video)) from error


def _fetch(url: str, folder: Path, limits: UploadLimits) -> tuple[Path, list[str]]:
    path, notes = folder / f"video{Path(urlsplit(url).path).suffix}", []
    try:
        if urlsplit(url).scheme in _LIVE:
            path = path.with_suffix(".mkv")
            if not _record(url, path, limits):
                notes = ["only its beginning was recorded: --max-seconds and --max-mb set limits."]
        elif not fetch_file(url, path, limits.max_mb * 1_000_000):
            raise UploadError(f"it is larger than {limits.max_mb} MB (--max-mb).")
        check_video(path, limits.max_seconds)
    except UploadError as error:
        raise VideoDecodeError(f"{url} was not predicted: {error}") from error
    except StorageError as error:
        raise VideoDecodeError(str(error)) from error  # names the URL
    except FILE_FAULTS as error:
        raise VideoDecodeError(f"{url} cannot be read ({reason(error)}).") from error
    return path, notes


def _record(url: str, path: Path, limits: UploadLimits) -> bool:
    """Write the video of a live stream to `path`, from a key picture on, until it ends or the
    limits are reached; -> whether it ended."""
    options, start = {"rtsp_transport": "tcp"}, time.monotonic()
    with (
        av.open(url, options=options, timeout=_SILENCE, metadata_errors="replace") as live,
        av.open(str(path), "w", format="matroska") as file,
    ):
        stream = live.streams.best("video")
        if stream is None:
            raise VideoDecodeError(f"{url} has no video stream.")
        copy, num_bytes = file.add_stream_from_template(stream), 0
        first: int | None = None
        for packet in live.demux(stream):
            if (
                packet.pts is None
                or packet.dts is None
                or (first is None and not packet.is_keyframe)
            ):
                continue
            first = packet.pts if first is None else first
            seconds = float((packet.pts - first) * packet.time_base)
            num_bytes += packet.size
            is_late = time.monotonic() - start > limits.max_seconds + _SILENCE
            if seconds >= limits.max_seconds or num_bytes > limits.max_mb * 1_000_000 or is_late:
                return False
            packet.stream = copy
            file.mux(packet)
    return True

"""One task makes one shard: its videos decoded, written, synced, renamed, and its report beside it.

A task is plain data and `build_shard` a plain function, so that any `concurrent.futures` executor
can take them, on any machine that sees the same videos and output. The report
(`.build/shard-000000.json`) holds the shard's rows of the index and its rejects; it is written
after the tar has its name, so a shard with a report is whole.

`retry_rejects` looks again at videos that gave no clip, and `first_clips_differ` whether a shard
that nobody vouches for is what this task would make.

A decoder that dies gets a second try with the same video, since the system may have killed it for
want of memory; one that hangs does not.
"""

import contextlib
import json
import math
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xxhash

from ...errors import HarError, printable
from ...shards import storage
from ...shards.format import BUILD, ShardInfo, ShardWriter, make_index, write_shard
from ..dataset import Video
from ..decode.decoder_process import (
    DecoderDiedError,
    DecoderError,
    DecoderFunctionError,
    DecoderProcess,
)
from .decoder_pool import DecoderPool
from .plan import BuildOptions, describe_differences, package_versions
from .shapes import other_shape
from .video_rows import VideoRow, make_reject, make_row, may_decode_now

Report = dict[str, Any]
Clips = list[tuple[Any, dict[str, Any]]]  # pixels, uint8 [T,H,W,C], and facts of each
DECODERS = DecoderPool()


class TaskError(HarError):
    """A task that cannot be done here; the text says why."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to be. plan: the plan's `layout`. first_video: number of its first video.

    groups: number of each of its groups. root, out: absolute paths or URLs. versions: of what
    decodes, as the plan was made with.
    """

    number: int
    plan: str
    root: str
    out: str
    videos: tuple[Video, ...]
    first_video: int
    classes: tuple[str, ...]
    groups: dict[str, int]
    options: BuildOptions
    timeout: float
    versions: dict[str, str]

    @property
    def shard_name(self) -> str:
        return f"shard-{self.number:06d}.tar"

    @property
    def report_name(self) -> str:
        return f"{BUILD}/shard-{self.number:06d}.json"


def load_report(task: ShardTask, out: storage.Folder) -> Report | None:
    """The report of an earlier run, if its shard is there, whole, of the same plan, and none of the
    videos in it has another size now."""
    try:
        report: Report = json.loads(out.read(task.report_name))
        rejected = {reject["key"] for reject in report["rejects"]}
        is_valid = report["plan"] == task.plan and all(
            video.size == size or video.key in rejected
            for video, size in zip(task.videos, report["sizes"], strict=True)
        )
        if report["shard"] is not None:
            is_valid &= out.size(task.shard_name) == report["shard"]["bytes"]
    except storage.StorageError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return report if is_valid else None


def make_report(
    task: ShardTask,
    shard: dict[str, Any] | None,
    rows: list[list[Any]],
    rejects: list[VideoRow],
    shapes: dict[str, int],
) -> Report:
    """The report of a shard that is whole. shard: None where no video gave a clip.

    shapes: how many videos of another shape than the clips have which frame size ("640x480").
    """
    return {
        "plan": task.plan, "sizes": [video.size for video in task.videos], "shard": shard,
        "rows": rows, "rejects": rejects, "shapes": shapes,
    }  # fmt: skip


def build_shard(task: ShardTask, on_video: Callable[[], None] = lambda: None) -> Report:
    """Make the shard; -> its report. `on_video` is called after each video.

    Raises OSError (disk full, say), StorageError, TaskError and DecoderStoppedError; then nothing
    of the shard is left.
    """
    _check_versions(task)
    out = storage.open_folder(task.out)
    rows: list[list[Any]] = []
    warnings: list[VideoRow] = []
    shapes: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        # The decoder is given back before the shard is closed: another task may have it while the
        # disk takes this shard in.
        with _acquire_decoder(task) as decoder:
            writer = stack.enter_context(write_shard(out, task.shard_name))
            videos = stack.enter_context(storage.FileFetcher(task.root))

            def write(number: int, clips: Clips) -> None:
                video, facts = task.videos[number], clips[0][1]
                rows.extend(_write(writer, task, number, clips))
                if facts["warnings"]:
                    class_name = task.classes[video.label]
                    warnings.append(make_row(video, class_name, warnings=facts["warnings"]))
                if name := other_shape(facts["source_size"], task.options.size):
                    shapes[name] += 1

            rejects = _decode_videos(decoder, videos, task, write, on_video)
        shard = asdict(writer.close()) if rows else None
    if shard is None:
        out.remove(task.shard_name)
    report = {**make_report(task, shard, rows, rejects, shapes), "warnings": warnings}
    out.write(task.report_name, json.dumps(report).encode())
    return report


def retry_rejects(
    task: ShardTask, rejects: list[VideoRow], on_video: Callable[[], None] = lambda: None
) -> list[VideoRow]:
    """Look again at videos of the task that gave no clip; -> those that still give none.

    Only what changed, or failed for a reason that can pass, is decoded.
    """
    _check_versions(task)
    videos_by_key = {video.key: video for video in task.videos}
    kept, again = [], []
    with storage.FileFetcher(task.root) as files:
        for reject in rejects:
            video = videos_by_key[reject["key"]]
            if may_decode_now(reject, files.path(video.path)):
                again.append(video)
            else:
                kept.append(reject)
                on_video()
        if again:
            with _acquire_decoder(task) as decoder:
                part = replace(task, videos=tuple(again))
                kept += _decode_videos(decoder, files, part, lambda number, clips: None, on_video)
    order = [reject["key"] for reject in rejects]
    return sorted(kept, key=lambda reject: order.index(reject["key"]))


def first_clips_differ(
    task: ShardTask, checksum: int, key: str, on_video: Callable[[], None] = lambda: None
) -> bool:
    """Whether the video with this key gives another first clip than one with this xxh3_64."""
    _check_versions(task)
    checksums: list[int] = []
    part = replace(task, videos=tuple(video for video in task.videos if video.key == key))

    def compare(_: int, clips: Clips) -> None:
        checksums.append(xxhash.xxh3_64_intdigest(clips[0][0].tobytes()))

    with _acquire_decoder(task) as decoder, storage.FileFetcher(task.root) as files:
        _decode_videos(decoder, files, part, compare, on_video)
    return checksums != [checksum]


def _acquire_decoder(task: ShardTask) -> contextlib.AbstractContextManager[DecoderProcess]:
    options = task.options
    num_bytes = options.sampling.clips * math.prod(options.clip_shape)
    return DECODERS.acquire(num_bytes, task.timeout)


def _decode_videos(
    decoder: DecoderProcess,
    files: storage.FileFetcher,
    task: ShardTask,
    write: Callable[[int, Clips], None],
    on_video: Callable[[], None],
) -> list[VideoRow]:
    """Decode the videos of a task; -> those that give no clip. write: gets number and clips."""
    rejects = []
    for number, video in enumerate(task.videos):
        try:
            clips = _decode(decoder, files, task, number)
        except DecoderError as error:
            path = files.path(video.path)
            reason = files.faults.get(path, str(error))
            rejects.append(make_reject(video, task.classes[video.label], reason, path))
        else:
            write(number, clips)
        on_video()
    return rejects


def _check_versions(task: ShardTask) -> None:
    """Other versions may give other pixels: a cluster of two kinds of machines is refused."""
    versions = package_versions()
    if versions != task.versions:
        lines = describe_differences({"of": task.versions}, {"of": versions})
        raise TaskError(
            f"the worker on {socket.gethostname()} has other versions than the build "
            f"({'; '.join(lines)}): install the same on every machine."
        )


def _decode(
    decoder: DecoderProcess, videos: storage.FileFetcher, task: ShardTask, number: int
) -> Clips:
    """(pixels, facts) of each clip of a video. Keeps one video queued ahead.

    Raises DecoderError for what the file causes, TaskError for a fault of har.
    """
    options = task.options
    args = (asdict(options.sampling), options.size, options.keep_partial, options.fit)
    path = videos.path(task.videos[number].path)
    for attempt in (1, 2):
        try:
            if decoder.num_queued == 0:
                decoder.submit(path, *args)
            if attempt == 1 and decoder.num_queued == 1 and number + 1 < len(task.videos):
                decoder.submit(videos.path(task.videos[number + 1].path), *args)
            facts, out = decoder.result()
            break
        except DecoderDiedError:
            if attempt == 2:
                raise
        except DecoderFunctionError as error:
            raise TaskError(
                f"decoding {printable(task.videos[number].path)} failed by a fault of har, not of "
                f"the video: please report it with these lines; finished shards are kept.\n{error}"
            ) from error
    videos.done(path)
    return list(zip(out.reshape(-1, *options.clip_shape), facts, strict=False))


def _write(writer: ShardWriter, task: ShardTask, number: int, clips: Clips) -> list[list[Any]]:
    """Write the clips of one video; -> their rows, without the shard's number."""
    video, rows = task.videos[number], []
    group = task.groups.get(video.group, -1)
    for view, (pixels, facts) in enumerate(clips):
        key = video.key if view == 0 else f"{video.key}@{view}"
        metadata = {  # KEY.json
            "class": task.classes[video.label],
            "group": video.group or None,
            "source": printable(video.path),
            "view": view,
            "fps": round(facts["fps"], 6),
            "frames_decoded": facts["num_decoded"],
            "frames_declared": facts["num_declared"],
            "frame_numbers": facts["frame_indices"],
            "padded": facts["num_padded"],
        }
        if facts["stream"] is not None:  # the file has several
            metadata["stream"] = facts["stream"]
        if "lost" in facts["warnings"]:
            metadata["lost"] = facts["warnings"]["lost"]
        offset, checksum = writer.add(key, pixels, video.label, metadata)
        rows.append(
            [
                key, offset, video.label, group, task.first_video + number, view, video.subset,
                facts["num_decoded"], facts["num_padded"], checksum,
            ]
        )  # fmt: skip
    return rows


def join_reports(
    reports: Iterable[Report], first_shard: int = 0
) -> tuple[tuple[ShardInfo, ...], np.ndarray]:
    """-> the shards, and their rows of the index, in which they are numbered from `first_shard`."""
    with_shards = [report for report in reports if report["shard"]]
    rows = [
        (key, number, *map(int, values))
        for number, report in enumerate(with_shards, first_shard)
        for key, *values in report["rows"]
    ]
    return tuple(ShardInfo(**report["shard"]) for report in with_shards), make_index(rows)

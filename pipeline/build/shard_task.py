"""One task makes one shard: its videos decoded, written, synced, renamed, and its report beside it.

A task is plain data and `build_shard` a plain function, so that any `concurrent.futures` executor
can take them, on any machine that sees the same videos and output. The report
(`.build/shard-000000.json`) holds the shard's rows of the index and its rejects; it is written
after the tar has its name, so a shard with a report is whole.

A decoder that dies gets a second try with the same video, since the system may have killed it for
want of memory; one that hangs does not.
"""

import contextlib
import json
import math
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import HarError, printable
from ...shards import storage
from ...shards.format import BUILD, ShardWriter, write_shard
from ..dataset import Video
from ..decode.decoder_process import (
    DecoderDiedError,
    DecoderError,
    DecoderFunctionError,
    DecoderProcess,
)
from .decoder_pool import DecoderPool
from .plan import BuildOptions, describe_differences, package_versions
from .warning_rows import WarningRow, warning_rows

Report = dict[str, Any]
DECODERS = DecoderPool()


class TaskError(HarError):
    """A task that cannot be done here; the text says why."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to be. plan: hash of the plan. first_video: number of its first video.

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


def load_report(task: ShardTask, out: storage.LocalFolder | storage.RemoteFolder) -> Report | None:
    """The report of an earlier run, if its shard is there, whole, and of the same plan."""
    try:
        report: Report = json.loads(out.read(task.report_name))
        is_valid = report["plan"] == task.plan and (
            report["shard"] is None or out.size(task.shard_name) == report["shard"]["bytes"]
        )
    except storage.StorageError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return report if is_valid else None


def build_shard(task: ShardTask, on_video: Callable[[], None] = lambda: None) -> Report:
    """Make the shard; -> its report. `on_video` is called after each video.

    Raises OSError (disk full, say), StorageError, TaskError and DecoderStoppedError; then nothing
    of the shard is left.
    """
    _check_versions(task)
    out, options = storage.open_folder(task.out), task.options
    num_bytes = options.sampling.clips * math.prod(options.clip_shape)
    rows: list[list[Any]] = []
    rejects: list[dict[str, str]] = []
    warnings: list[WarningRow] = []
    with contextlib.ExitStack() as stack:
        # The decoder is given back before the shard is closed: another task may have it while the
        # disk takes this shard in.
        with DECODERS.acquire(num_bytes, task.timeout) as decoder:
            writer = stack.enter_context(write_shard(out, task.shard_name))
            videos = stack.enter_context(storage.FileFetcher(task.root))
            for number, video in enumerate(task.videos):
                try:
                    clips = _decode(decoder, videos, task, number)
                    rows += _write(writer, task, number, clips)
                    warnings += warning_rows(video, task.classes[video.label], clips[0][1])
                except DecoderError as error:
                    reject = {"path": printable(video.path), "class": task.classes[video.label]}
                    reason = str(error).removesuffix(".")
                    rejects.append({**reject, "key": video.key, "reason": reason})
                on_video()
        shard = asdict(writer.close()) if rows else None
    if shard is None:
        out.remove(task.shard_name)
    report = {
        "plan": task.plan, "shard": shard, "rows": rows, "rejects": rejects, "warnings": warnings
    }  # fmt: skip
    out.write(task.report_name, json.dumps(report).encode())
    return report


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
) -> list[tuple[Any, dict[str, Any]]]:
    """(pixels, facts) of each clip of a video. Keeps one video queued ahead.

    Raises DecoderError for what the file causes, TaskError for a fault of har.
    """
    options = task.options
    args = (asdict(options.sampling), options.size, options.keep_partial)
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


def _write(
    writer: ShardWriter, task: ShardTask, number: int, clips: list[tuple[Any, dict[str, Any]]]
) -> list[list[Any]]:
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


def index_rows(report: Report, shard: int) -> list[tuple[Any, ...]]:
    """Rows of a report in the order of `har.shards.format.index_dtype`."""
    return [(key, shard, *map(int, values)) for key, *values in report["rows"]]

"""One task makes one shard: its videos decoded, written, synced, renamed, and its report beside it.

A task is plain data and `run` a plain function, so that any `concurrent.futures` executor can take
them, on any machine that sees the same videos and output (`har.pipeline.build.storage`). The report
(`.build/shard-000000.json`) holds the shard's rows of the index and its rejects; it is written
after the tar has its name, so a shard with a report is whole.

Odd: decoders (child processes) are kept between tasks: starting one costs a second of imports.
A decoder that dies gets a second try with the same video, since the system may have killed it for
want of memory; one that hangs does not.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import HarError
from ...shards.format.writer import ShardWriter
from ..dataset import Video
from ..decode.decoder_process import (
    DecoderDiedError,
    DecoderError,
    DecoderProcess,
    DecoderStoppedError,
    decode_into,
)
from . import plan as planning
from . import storage
from .plan import Options

BUILD = ".build"  # folder for what only an unfinished build needs
Report = dict[str, Any]


class TaskError(HarError):
    """A task that cannot be done here; the text is one sentence."""


@dataclass(frozen=True)
class Task:
    """One shard to be. first: number of its first video. groups: number of each of its groups.

    root, out: absolute paths or URLs. versions: of what decodes, as the plan was made with.
    """

    number: int
    plan: str
    root: str
    out: str
    videos: tuple[Video, ...]
    first: int
    classes: tuple[str, ...]
    groups: dict[str, int]
    options: Options
    timeout: float
    versions: dict[str, str]

    @property
    def shard(self) -> str:
        return f"shard-{self.number:06d}.tar"

    @property
    def report(self) -> str:
        return f"{BUILD}/shard-{self.number:06d}.json"


def finished(task: Task, out: storage.LocalFolder | storage.RemoteFolder) -> Report | None:
    """The report of an earlier run, if its shard is there, whole, and of the same plan."""
    try:
        report: Report = json.loads(out.read(task.report))
        if report["plan"] != task.plan:
            return None
        if report["shard"] is None:
            return report
        return report if out.size(task.shard) == report["shard"]["bytes"] else None
    except storage.StoreError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run(task: Task, step: Callable[[], None] | None = None) -> Report:
    """Make the shard; -> its report. `step` is called after each video.

    Raises OSError (disk full, say), StoreError, TaskError and DecoderStoppedError; then nothing of the shard is
    left.
    """
    _check_versions(task)
    out, decoder = storage.open_folder(task.out), _DECODERS.take(task)
    with contextlib.ExitStack() as shard_open:
        try:
            writer = shard_open.enter_context(out.shard(task.shard))
            with storage.Fetcher(task.root) as videos:
                rows, rejects = _fill(task, writer, videos, decoder, step)
        except BaseException:
            decoder.kill()  # it may be in the middle of an answer
            raise
        finally:
            _DECODERS.give(decoder)  # another task may have it while the disk takes this shard in
        shard = asdict(writer.close()) if rows else None
    if shard is None:
        out.remove(task.shard)
    report = {"plan": task.plan, "shard": shard, "rows": rows, "rejects": rejects}
    out.write(task.report, json.dumps(report).encode())
    return report


def _check_versions(task: Task) -> None:
    """Other versions may give other pixels: a cluster of two kinds of machines is refused."""
    here = planning.versions()
    if here != task.versions:
        lines = planning.differences({"of": task.versions}, {"of": here})
        raise TaskError(
            f"the worker on {socket.gethostname()} has other versions than the build "
            f"({'; '.join(lines)}): install the same on every machine."
        )


def _fill(
    task: Task,
    writer: ShardWriter,
    videos: storage.Fetcher,
    decoder: DecoderProcess,
    step: Callable[[], None] | None,
) -> tuple[list[list[Any]], list[dict[str, str]]]:
    """Decode and write every video of the shard; -> rows and rejects."""
    rows: list[list[Any]] = []
    rejects: list[dict[str, str]] = []
    for at, video in enumerate(task.videos):
        answer = _decoded(decoder, videos, task, at)
        if isinstance(answer, str):
            name = task.classes[video.label]
            rejects.append({"path": video.path, "class": name, "key": video.key, "reason": answer})
        else:
            rows += _write(writer, task, at, answer)
        if step:
            step()
    return rows, rejects


def _decoded(
    decoder: DecoderProcess, videos: storage.Fetcher, task: Task, at: int
) -> list[Any] | str:
    """The clips of video `at`, or why there are none. Keeps one video queued ahead."""
    options = task.options
    args = (asdict(options.sampling), options.size, options.keep_partial)
    here = videos.path(task.videos[at].path)
    for attempt in (1, 2):
        try:
            if decoder.num_queued == 0:
                decoder.submit(here, *args)
            if decoder.num_queued == 1 and at + 1 < len(task.videos) and attempt == 1:
                decoder.submit(videos.path(task.videos[at + 1].path), *args)
            facts, out = decoder.result()
            videos.done(here)
            return list(zip(out.reshape(-1, *options.clip_shape), facts, strict=False))
        except DecoderError as error:
            if not isinstance(error, DecoderDiedError) or attempt == 2:
                return str(error).removesuffix(".")
    raise AssertionError("unreachable")


def _write(writer: ShardWriter, task: Task, at: int, clips: list[Any]) -> list[list[Any]]:
    """Write the views of one video; -> their rows, without the shard's number."""
    video, rows = task.videos[at], []
    for view, (pixels, facts) in enumerate(clips):
        key = video.key if view == 0 else f"{video.key}@{view}"
        offset, check = writer.add(key, pixels, video.label, _about(task, video, view, facts))
        group = task.groups.get(video.group, -1)
        # fmt: off
        rows.append(
            [key, offset, video.label, group, task.first + at, view, video.side,
             facts["num_decoded"], facts["num_padded"], check]
        )
        # fmt: on
    return rows


def _about(task: Task, video: Video, view: int, facts: dict[str, Any]) -> dict[str, Any]:
    """KEY.json."""
    return {
        "class": task.classes[video.label],
        "group": video.group or None,
        "source": video.path,
        "view": view,
        "fps": round(facts["fps"], 6),
        "frames_decoded": facts["num_decoded"],
        "frames_declared": facts["num_declared"],
        "frame_numbers": list(facts["frame_indices"]),
        "padded": facts["num_padded"],
    }


class _Decoders:
    """The decoders of this process: the idle ones by what they were started for.

    most: so many may be taken at a time, and who wants one more waits; None = any number.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self.most: int | None = None
        self._idle: dict[Any, queue.SimpleQueue[DecoderProcess]] = {}
        self._all: list[DecoderProcess] = []
        self.stopping = False

    def take(self, task: Task) -> DecoderProcess:
        with self._changed:
            self._changed.wait_for(
                lambda: self.stopping or self.most is None or self._taken < self.most
            )
            if self.stopping:
                raise DecoderStoppedError("the build was stopped.")
            self._taken += 1
            idle = self._idle.setdefault(self._kind(task), queue.SimpleQueue())
            if not idle.empty():
                return idle.get()
            options = task.options
            num_bytes = options.sampling.clips * math.prod(options.clip_shape)
            decoder = DecoderProcess(decode_into, num_bytes=num_bytes, timeout=task.timeout)
            decoder.key = self._kind(task)
            self._all.append(decoder)
            return decoder

    def give(self, decoder: DecoderProcess) -> None:
        with self._changed:
            self._taken -= 1
            self._idle[decoder.key].put(decoder)
            self._changed.notify()

    def stop(self) -> None:
        """End all children now; tasks that wait for one raise DecoderStoppedError."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()
            for decoder in self._all:
                decoder.stop()

    def close(self) -> None:
        """End all children of finished tasks, and forget them."""
        with self._changed:
            for decoder in self._all:
                decoder.kill()
            self._all, self._idle, self.stopping, self.most = [], {}, False, None

    def rest(self) -> None:
        """End the children that have nothing to do: a cluster's workers outlive the build."""
        with self._changed:
            for idle in self._idle.values():
                while not idle.empty():
                    decoder = idle.get()
                    decoder.kill()
                    self._all.remove(decoder)

    def _kind(self, task: Task) -> Any:
        return (task.options, task.timeout, os.getpid())


_DECODERS = _Decoders()


def limit(decoders: int) -> None:
    """So many children at a time in this process, whatever the number of threads."""
    _DECODERS.most = decoders


stop, close, rest = _DECODERS.stop, _DECODERS.close, _DECODERS.rest


def row_of(report: Report, shard: int) -> list[tuple[Any, ...]]:
    """Rows of a report in the order of `har.shards.format.shard_set.index_dtype`."""
    return [(key, shard, *map(int, rest)) for key, *rest in report["rows"]]

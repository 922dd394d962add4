"""One task makes one shard: its videos decoded, written, synced, renamed, and its report beside it.

A task is plain data and `run` a plain function, so that any `concurrent.futures` executor can take
them. The report (`.build/shard-000000.json`) holds the shard's rows of the index and its rejects;
it is written after the tar has its name, so a shard with a report is whole.

Odd: decoders (child processes) are kept between tasks: starting one costs a second of imports.
A decoder that dies gets a second try with the same video, since the system may have killed it for
want of memory; one that hangs does not.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.decoder import Decoder, DecoderDied, DecoderHung
from pipeline.plan import Options
from pipeline.ucf101 import Video
from shards.manifest import write_atomically
from shards.writer import ShardWriter

BUILD = ".build"  # folder for what only an unfinished build needs
Report = dict[str, Any]


class Stopped(ValueError):  # noqa: N818 - an event, said as one
    """The build was told to stop."""


@dataclass(frozen=True)
class Task:
    """One shard to be. first: number of its first video. groups: number of each of its groups."""

    number: int
    plan: str
    root: Path
    out: Path
    videos: tuple[Video, ...]
    first: int
    classes: tuple[str, ...]
    groups: dict[str, int]
    options: Options
    timeout: float

    @property
    def shard(self) -> Path:
        return self.out / f"shard-{self.number:06d}.tar"

    @property
    def report(self) -> Path:
        return self.out / BUILD / f"shard-{self.number:06d}.json"


def finished(task: Task) -> Report | None:
    """The report of an earlier run, if its shard is there, whole, and of the same plan."""
    try:
        report: Report = json.loads(task.report.read_bytes())
        if report["plan"] != task.plan:
            return None
        if report["shard"] is None:
            return report
        return report if task.shard.stat().st_size == report["shard"]["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run(task: Task, step: Callable[[], None] | None = None) -> Report:
    """Make the shard; -> its report. `step` is called after each video.

    Raises OSError (disk full, say) and Stopped; then nothing of the shard is left.
    """
    decoder = _DECODERS.take(task)
    rows: list[list[Any]] = []
    rejects: list[dict[str, str]] = []
    try:
        with ShardWriter(task.shard) as writer:
            for at, video in enumerate(task.videos):
                answer = _decoded(decoder, task, at)
                if isinstance(answer, str):
                    rejects.append(
                        {
                            "path": video.path,
                            "class": task.classes[video.label],
                            "key": video.key,
                            "reason": answer,
                        }
                    )
                else:
                    rows += _write(writer, task, at, answer)
                if step:
                    step()
            shard = asdict(writer.close()) if rows else None
    except BaseException:
        decoder.kill()  # it may be in the middle of an answer
        raise
    finally:
        _DECODERS.give(decoder)
    if shard is None:
        task.shard.unlink(missing_ok=True)
    report = {"plan": task.plan, "shard": shard, "rows": rows, "rejects": rejects}
    write_atomically(task.report, json.dumps(report).encode())
    return report


def _decoded(decoder: Decoder, task: Task, at: int) -> list[Any] | str:
    """The clips of video `at`, or why there are none. Keeps one video queued ahead."""
    here = task.root / task.videos[at].path
    for attempt in (1, 2):
        try:
            if decoder.queued == 0:
                decoder.ask(here)
            if decoder.queued == 1 and at + 1 < len(task.videos) and attempt == 1:
                decoder.ask(task.root / task.videos[at + 1].path)
            return decoder.answer()
        except (DecoderDied, DecoderHung) as error:
            if _DECODERS.stopping:
                raise Stopped("the build was stopped") from error
            if isinstance(error, DecoderHung) or attempt == 2:
                return str(error)
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
             facts["decoded"], facts["padded"], check]
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
        "frames_decoded": facts["decoded"],
        "frames_declared": facts["declared"],
        "frame_numbers": list(facts["numbers"]),
        "padded": facts["padded"],
    }


class _Decoders:
    """The idle decoders of this process, by what they were started for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Any, queue.SimpleQueue[Decoder]] = {}
        self._all: list[Decoder] = []
        self.stopping = False

    def take(self, task: Task) -> Decoder:
        with self._lock:
            if self.stopping:
                raise Stopped("the build was stopped")
            idle = self._idle.setdefault(self._kind(task), queue.SimpleQueue())
            if not idle.empty():
                return idle.get()
            options = task.options
            decoder = Decoder(
                options.sampling, options.size, keep_partial=options.keep_partial,
                timeout=task.timeout,
            )  # fmt: skip
            decoder.kind = self._kind(task)
            self._all.append(decoder)
            return decoder

    def give(self, decoder: Decoder) -> None:
        with self._lock:
            self._idle[decoder.kind].put(decoder)

    def stop(self) -> None:
        """End all children now; tasks that wait for one raise Stopped."""
        with self._lock:
            self.stopping = True
            for decoder in self._all:
                decoder.end()

    def close(self) -> None:
        """End all children of finished tasks, and forget them."""
        with self._lock:
            for decoder in self._all:
                decoder.kill()
            self._all, self._idle, self.stopping = [], {}, False

    def _kind(self, task: Task) -> Any:
        return (task.options, task.timeout, os.getpid())


_DECODERS = _Decoders()
stop, close = _DECODERS.stop, _DECODERS.close


def row_of(report: Report, shard: int) -> list[tuple[Any, ...]]:
    """Rows of a report in the order of `shards.manifest.index_dtype`."""
    return [(key, shard, *map(int, rest)) for key, *rest in report["rows"]]

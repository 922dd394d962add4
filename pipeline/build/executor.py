"""Hand the tasks of a build to an executor, wait for them, and say what goes wrong in one sentence.

Odd: here the executor is threads, since each drives a decoder process of its own; another one
(processes, a Dask cluster) gets the very same tasks, a thousand at a time.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...errors import HarError
from . import shard_task
from .progress import Progress
from .shard_task import Report, Task
from .storage import LocalFolder, RemoteFolder

TIMEOUT = 300.0
_AHEAD = 1000  # tasks handed over and not done: a million would fill a scheduler's memory
Folder = LocalFolder | RemoteFolder


class BuildError(HarError):
    """A build that cannot start or go on; the text is one sentence with the way out."""


@dataclass(frozen=True)
class Limits:
    """How a build runs; none of it changes the bytes of the set.

    workers: None = one a core. timeout: seconds a video may take. max_rejects: None = 1% of the
    videos, at least 10. step: called after each video, from any thread (not with an executor).
    """

    workers: int | None = None
    timeout: float = TIMEOUT
    max_rejects: int | None = None
    quiet: bool = False
    step: Callable[[], None] | None = None


def run(
    tasks: list[Task], out: Folder, limits: Limits, executor: Executor | None
) -> dict[int, Report]:
    """Run the tasks that are missing; -> their reports by number."""
    videos = sum(len(one.videos) for one in tasks)
    progress = Progress(videos, "build", quiet=limits.quiet)
    try:
        if executor is not None:

            def hand_over(one: Task) -> Future[Report]:
                return executor.submit(shard_task.run, one)

            reports = _collect(tasks, out, hand_over, progress)
            _check_there(reports, out)
            return reports
        return _run_here(tasks, out, limits, progress)
    finally:
        progress.close()
        shard_task.close()


def _run_here(
    tasks: list[Task], out: Folder, limits: Limits, progress: Progress
) -> dict[int, Report]:
    """In threads of this process: two a decoder, so that it goes on with the next shard while the
    last one is on its way to the disk (a quarter of the time, with shards of 64 MB)."""

    def step() -> None:
        progress.step()
        if limits.step:
            limits.step()

    workers = max(1, limits.workers or os.cpu_count() or 1)
    shard_task.limit(workers)
    with ThreadPoolExecutor(2 * workers, thread_name_prefix="shard") as pool:
        try:
            return _collect(tasks, out, lambda one: pool.submit(shard_task.run, one, step), None)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            shard_task.stop()
            raise


def _collect(
    tasks: list[Task],
    out: Folder,
    submit: Callable[[Task], Future[Report]],
    progress: Progress | None,
) -> dict[int, Report]:
    """Hand all over, a thousand at a time, and wait; the first error ends it."""
    number: dict[Future[Report], Task] = {}
    reports: dict[int, Report] = {}
    rest = iter(tasks)
    while True:
        number |= {submit(one): one for one in islice(rest, _AHEAD - len(number))}
        if not number:
            return reports
        ready, _ = wait(number, timeout=0.5, return_when="FIRST_COMPLETED")
        for future in ready:
            one = number.pop(future)
            reports[one.number] = guarded(out, future.result)
            if progress:
                progress.step(len(one.videos))


def _check_there(reports: dict[int, Report], out: Folder) -> None:
    """Workers elsewhere may have another folder under the same name."""
    for report in reports.values():
        shard = report["shard"]
        if shard and out.size(shard["name"]) != shard["bytes"]:
            raise BuildError(
                f"a worker wrote {shard['name']} and it is not in {out} here: give an --out that "
                "all machines share, or a URL."
            )


def guarded(out: Folder, act: Any, *given: Any) -> Any:
    """What the disk can say, as one sentence."""
    try:
        return act(*given)
    except OSError as error:
        scratch = f"the scratch space {tempfile.gettempdir()}"  # a URL gives no OSError
        where = str(out) if isinstance(out, LocalFolder) else scratch
        what = f"cannot be written ({error.strerror or error}): mend that"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where, what = f"the disk of {where}", "is full: make room"
        raise BuildError(
            f"{where} {what} and run the same command again, finished shards are kept."
        ) from error

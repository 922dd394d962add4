"""Hand the tasks of a build to an executor and wait for them; a full disk is one sentence.

The local executor is threads, since each drives a decoder process of its own; another one
(processes, a Dask cluster) gets the very same tasks.
"""

import errno
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...errors import HarError
from ...progress import ProgressBar
from ...shards.storage import LocalFolder, RemoteFolder
from . import shard_task
from .shard_task import DECODERS, Report, ShardTask

TIMEOUT = 300.0
_MAX_SUBMITTED = 1000  # tasks submitted and not done: a million would fill a scheduler's memory
Folder = LocalFolder | RemoteFolder


class BuildError(HarError):
    """A build that cannot start or go on; the text is one sentence with the way out."""


@dataclass(frozen=True)
class RunOptions:
    """How a build runs; none of it changes the bytes of the set.

    workers: None = one a core. timeout: seconds a video may take. max_rejects: None = 1% of the
    videos, at least 10. on_video: called after each video, from any thread (not with an executor).
    """

    workers: int | None = None
    timeout: float = TIMEOUT
    max_rejects: int | None = None
    quiet: bool = False
    on_video: Callable[[], None] = lambda: None


def run_tasks(
    tasks: list[ShardTask], out: Folder, run_options: RunOptions, executor: Executor | None
) -> dict[int, Report]:
    """Run the tasks; -> their reports by number."""
    num_videos = sum(len(task.videos) for task in tasks)
    with ProgressBar(num_videos, "build", quiet=run_options.quiet) as progress:
        if executor is None:
            return _run_in_threads(tasks, out, run_options, progress)

        def submit(task: ShardTask) -> Future[Report]:
            future = executor.submit(shard_task.build_shard, task)
            future.add_done_callback(lambda _: progress.advance(len(task.videos)))
            return future

        reports = _collect(tasks, out, submit)
        _check_shards_arrived(reports, out)
        return reports


def _run_in_threads(
    tasks: list[ShardTask], out: Folder, run_options: RunOptions, progress: ProgressBar
) -> dict[int, Report]:
    """Two threads a decoder, so that it goes on with the next shard while the last one is on its
    way to the disk (a quarter of the time, with shards of 64 MB)."""

    def on_video() -> None:
        progress.advance()
        run_options.on_video()

    workers = max(1, run_options.workers or os.cpu_count() or 1)
    DECODERS.max_decoders = workers
    try:
        with ThreadPoolExecutor(2 * workers, thread_name_prefix="shard") as pool:
            try:
                return _collect(
                    tasks, out, lambda task: pool.submit(shard_task.build_shard, task, on_video)
                )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                DECODERS.stop()
                raise
    finally:
        DECODERS.close()


def _collect(
    tasks: list[ShardTask], out: Folder, submit: Callable[[ShardTask], Future[Report]]
) -> dict[int, Report]:
    """Submit all, a thousand at a time, and wait; the first error ends it."""
    pending: dict[Future[Report], int] = {}
    reports: dict[int, Report] = {}
    remaining = iter(tasks)
    while True:
        pending |= {
            submit(task): task.number for task in islice(remaining, _MAX_SUBMITTED - len(pending))
        }
        if not pending:
            return reports
        done, _ = wait(pending, timeout=0.5, return_when="FIRST_COMPLETED")
        for future in done:
            reports[pending.pop(future)] = with_clear_errors(out, future.result)


def _check_shards_arrived(reports: dict[int, Report], out: Folder) -> None:
    """Workers elsewhere may have another folder under the same name."""
    for report in reports.values():
        shard = report["shard"]
        if shard and out.size(shard["name"]) != shard["bytes"]:
            raise BuildError(
                f"a worker wrote {shard['name']} and it is not in {out} here: give an --out that "
                "all machines share, or a URL."
            )


def with_clear_errors(out: Folder, function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), whose OSError becomes one sentence (BuildError)."""
    try:
        return function(*args)
    except OSError as error:
        scratch = f"the scratch space {tempfile.gettempdir()}"  # a URL gives no OSError
        place = str(out) if isinstance(out, LocalFolder) else scratch
        fault = f"cannot be written ({error.strerror or error}): mend that"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place, fault = f"the disk of {place}", "is full: make room"
        raise BuildError(
            f"{place} {fault} and run the same command again, finished shards are kept."
        ) from error

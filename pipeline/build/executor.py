"""Hand the tasks of a build to an executor and wait for them; a full disk is one sentence.

The local executor is threads, since each drives a decoder process of its own; another one
(processes, a Dask cluster) gets the very same tasks.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...errors import HarError
from ...progress import ProgressBar, note
from ...shards import storage
from ...shards.storage import Folder
from . import shard_task
from .estimate import TimeEstimate
from .shard_task import DECODERS, Report, ShardTask

TIMEOUT = 300.0
_MAX_SUBMITTED = 1000  # tasks submitted and not done: a million would fill a scheduler's memory


class BuildError(HarError):
    """A build that cannot start or go on; the text is one sentence with the way out."""


@dataclass(frozen=True)
class RunOptions:
    """How a build runs; none of it changes the bytes of the set.

    workers: None = one a core. timeout: seconds a video may take. max_rejects: None = 1% of the
    videos, at least 10. check: how a finished set is looked at, "quick" (files and their sizes) or
    "full" (every byte). on_video: called after each video, from any thread (not with an executor).
    """

    workers: int | None = None
    timeout: float = TIMEOUT
    max_rejects: int | None = None
    check: str = "quick"
    quiet: bool = False
    on_video: Callable[[], None] = lambda: None

    def say(self, text: str) -> None:
        """A line for the user, beside the progress bar."""
        if not self.quiet:
            note(text)


def run_tasks(
    tasks: list[ShardTask], out: Folder, run_options: RunOptions, executor: Executor | None
) -> dict[int, Report]:
    """Run the tasks; -> their reports by number. Decoders are left for the next call: who is done
    closes `DECODERS`."""
    calls = {task.number: (task,) for task in tasks}
    num_videos = {task.number: len(task.videos) for task in tasks}
    workers = None if executor else _num_workers(run_options)
    estimate = TimeEstimate(sum(num_videos.values()), workers, run_options.say)
    reports: dict[int, Report] = run_calls(
        shard_task.build_shard, calls, num_videos, "build", run_options, executor,
        on_video=estimate.advance,
    )  # fmt: skip
    if executor is not None:
        _check_shards_arrived(reports, out)
    return reports


def run_calls(
    function: Callable[..., Any],
    calls: Mapping[int, tuple[Any, ...]],
    num_videos: Mapping[int, int],
    what: str,
    run_options: RunOptions,
    executor: Executor | None,
    on_video: Callable[[], None] = lambda: None,
) -> dict[int, Any]:
    """function(*arguments) for each of `calls`, by number; here it also gets a last argument, which
    it calls after each video. num_videos: of each call. what: for the progress bar."""
    total = sum(num_videos[number] for number in calls)
    with ProgressBar(total, what, quiet=run_options.quiet) as progress:
        if executor is None:

            def advance() -> None:
                progress.advance()
                on_video()
                run_options.on_video()

            return _run_in_threads(function, calls, _num_workers(run_options), advance)

        def submit(number: int, arguments: tuple[Any, ...]) -> Future[Any]:
            future = executor.submit(function, *arguments)
            future.add_done_callback(lambda _: progress.advance(num_videos[number]))
            return future

        return _collect(calls, submit)


def _num_workers(run_options: RunOptions) -> int:
    return max(1, run_options.workers or os.cpu_count() or 1)


def _run_in_threads(
    function: Callable[..., Any],
    calls: Mapping[int, tuple[Any, ...]],
    workers: int,
    on_video: Callable[[], None],
) -> dict[int, Any]:
    """Two threads a decoder, so that it goes on with the next shard while the last one is on its
    way to the disk (a quarter of the time, with shards of 64 MB)."""
    DECODERS.max_decoders = workers
    with ThreadPoolExecutor(2 * workers, thread_name_prefix="shard") as pool:
        try:
            return _collect(calls, lambda _, args: pool.submit(function, *args, on_video))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            DECODERS.stop()
            raise


def _collect(
    calls: Mapping[int, tuple[Any, ...]],
    submit: Callable[[int, tuple[Any, ...]], Future[Any]],
) -> dict[int, Any]:
    """Submit all, a thousand at a time, and wait; the first error ends it."""
    pending: dict[Future[Any], int] = {}
    results: dict[int, Any] = {}
    remaining = iter(calls.items())
    while True:
        pending |= {
            submit(number, arguments): number
            for number, arguments in islice(remaining, _MAX_SUBMITTED - len(pending))
        }
        if not pending:
            return results
        done, _ = wait(pending, timeout=0.5, return_when="FIRST_COMPLETED")
        for future in done:
            results[pending.pop(future)] = future.result()


def _check_shards_arrived(reports: dict[int, Report], out: Folder) -> None:
    """Workers elsewhere may have another folder under the same name."""
    for report in reports.values():
        shard = report["shard"]
        if shard and out.size(shard["name"]) != shard["bytes"]:
            raise BuildError(
                f"a worker wrote {shard['name']} and it is not in {out} here: give an --out that "
                "all machines share, or a URL."
            )


def clear_errors(out: Folder) -> contextlib.AbstractContextManager[None]:
    """An OSError of the block becomes one sentence (BuildError)."""
    return storage.clear_errors(out, BuildError, "finished shards are kept")

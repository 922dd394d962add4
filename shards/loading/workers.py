"""The loader's threads: they take clips of a batch a few at a time, and each can be asked what it
is doing.

Odd:
- A batch is cut into pieces of a few clips, so that all workers fill the batch that is wanted next;
  one batch a worker leaves the user waiting while two batches are half done each.
- A worker that hangs in a read cannot be ended. It is named with its key and its stack, it is a
  daemon, and its batch is never handed out.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...errors import HarError


class StuckError(HarError):
    """A worker that hangs or died; the text says which, where, and shows its stack."""


@dataclass
class BatchJob:
    """One batch under way. fill: row -> nothing, called once for each row by some thread."""

    step: int
    rows: int
    fill: Callable[[int], None]
    name: Callable[[int], str]
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    cancelled: bool = False
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, start: int, stop: int, watch: Callable[[int], None] | None = None) -> None:
        """Fill rows start..stop-1, or none when another row failed or nobody wants the batch."""
        try:
            for row in range(start, stop):
                if self.cancelled or self.error is not None:
                    break
                if watch is not None:
                    watch(row)
                self.fill(row)
        except BaseException as error:  # it is raised again in the user's thread
            self.error = self.error or error
        finally:
            with self._lock:
                self._left -= stop - start
                if self._left == 0:
                    self.done.set()


class _Worker(threading.Thread):
    def __init__(self, number: int, tasks: queue.SimpleQueue[Any]) -> None:
        super().__init__(name=f"har-loader-{number}", daemon=True)
        self.tasks = tasks
        self.doing: tuple[BatchJob, int, float] | None = None  # job, row, since

    def run(self) -> None:
        while (task := self.tasks.get()) is not None:
            job, start, stop = task

            def watch(row: int, job: BatchJob = job) -> None:
                self.doing = (job, row, time.monotonic())

            job.run(start, stop, watch)
            self.doing = None


def alive() -> None:
    """Called by what a worker waits in, as long as that gets on: the worker is not stuck."""
    worker = threading.current_thread()
    if isinstance(worker, _Worker) and worker.doing is not None:
        job, row, _ = worker.doing
        worker.doing = (job, row, time.monotonic())


def _end(tasks: queue.SimpleQueue[Any], workers: list[_Worker]) -> None:
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        if worker is not threading.current_thread():
            worker.join(2.0)


class WorkerPool:
    """`workers` threads; with 0 the caller's thread does the work in `start`."""

    def __init__(self, workers: int) -> None:
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._workers = [_Worker(number, self._tasks) for number in range(workers)]
        for worker in self._workers:
            worker.start()
        # at the end of the process too, whoever forgot to close
        self._end = weakref.finalize(self, _end, self._tasks, self._workers)

    def start(self, job: BatchJob) -> None:
        """Cut the job into pieces and queue them."""
        job._left = job.rows
        if not self._workers:
            job.run(0, job.rows)
            return
        # 2 pieces a worker: one that is held up leaves at most half its share to wait for
        piece = max(1, -(-job.rows // (2 * len(self._workers))))
        for start in range(0, job.rows, piece):
            self._tasks.put((job, start, min(start + piece, job.rows)))

    def wait(self, job: BatchJob, timeout: float) -> None:
        """Until the job is done. Raises what its worker raised, or StuckError when a worker has
        been at one clip for `timeout` seconds, or is dead."""
        beat = min(1.0, timeout)
        while not job.done.wait(beat):
            for worker in self._workers:
                self._look_at(worker, timeout)
        if job.error is not None:
            raise job.error

    def settle(self, job: BatchJob, timeout: float) -> bool:
        """Stop working on the job; -> whether all workers have let go of it."""
        job.cancelled = True
        return job.done.wait(timeout)

    def close(self) -> None:
        """End the threads, waiting while they finish the clip in hand (a stuck one: 2 s).

        Waiting matters at the end of the process: a daemon that comes out of compiled code while
        Python shuts down makes the C++ runtime abort ("terminate called without ...").
        """
        self._end()

    def _look_at(self, worker: _Worker, timeout: float) -> None:
        doing = worker.doing
        if not worker.is_alive():
            raise StuckError(f"the loader's thread {worker.name} is dead: start the run again.")
        if doing is None or time.monotonic() - doing[2] < timeout:
            return
        job, row, since = doing
        frame = sys._current_frames().get(worker.ident or -1)
        stack = "".join(traceback.format_stack(frame)) if frame else "  (no stack)\n"
        raise StuckError(
            f"the loader's thread {worker.name} has been at {job.name(row)} (step {job.step}) for "
            f"{time.monotonic() - since:.1f} s, the limit is {timeout:g} s: the disk or network "
            f"share under it hangs. Its stack:\n{stack}"
        )

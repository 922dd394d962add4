"""The loader's threads: they fill a batch a few clips at a time; one that hangs is named.

Notes:
- A batch is cut into chunks of a few clips, so that all workers fill the batch that is needed next.
- A worker that hangs in a read cannot be ended. The error names its clip and shows its stack, the
  thread is a daemon, and its batch is never handed out.
"""

import queue
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from .options import LoaderError


@dataclass
class BatchJob:
    """One batch under way. fill_row: called once for each row. name_row: its name in an error."""

    step: int
    num_rows: int
    fill_row: Callable[[int], None]
    name_row: Callable[[int], str]
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    cancelled: bool = False
    is_stuck: bool = False  # a worker hangs in it: it is not waited for again
    _num_filled: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fill_rows(self, start: int, stop: int, worker: "_Worker | None" = None) -> None:
        """Fill rows start..stop-1; none when another row failed or the job was cancelled."""
        try:
            for row in range(start, stop):
                if self.cancelled or self.error is not None:
                    break
                if worker is not None:
                    worker.current = (self, row, time.monotonic())
                self.fill_row(row)
        except BaseException as error:  # `WorkerPool.wait` raises it in the caller's thread
            self.error = self.error or error
        finally:
            with self._lock:
                self._num_filled += stop - start
                if self._num_filled == self.num_rows:
                    self.done.set()


_Queue = queue.SimpleQueue[tuple[BatchJob, int, int] | None]


class _Worker(threading.Thread):
    def __init__(self, number: int, tasks: _Queue) -> None:
        super().__init__(name=f"har-loader-{number}", daemon=True)
        self.tasks = tasks
        self.current: tuple[BatchJob, int, float] | None = None  # job, row, since when

    def run(self) -> None:
        while (task := self.tasks.get()) is not None:
            job, start, stop = task
            job.fill_rows(start, stop, self)
            self.current = None


def heartbeat() -> None:
    """Called by what a worker waits for as long as that makes progress: it is not stuck."""
    worker = threading.current_thread()
    if isinstance(worker, _Worker) and worker.current is not None:
        job, row, _ = worker.current
        worker.current = (job, row, time.monotonic())


def _stop_workers(tasks: _Queue, workers: list[_Worker]) -> None:
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        if worker is not threading.current_thread():
            worker.join(2.0)


class WorkerPool:
    """`num_workers` threads; with 0 the caller's thread does the work in `submit`."""

    def __init__(self, num_workers: int) -> None:
        self._tasks: _Queue = queue.SimpleQueue()
        self._workers = [_Worker(number, self._tasks) for number in range(num_workers)]
        for worker in self._workers:
            worker.start()
        # at the end of the process too, if nobody calls `close`
        self._stop = weakref.finalize(self, _stop_workers, self._tasks, self._workers)

    def submit(self, job: BatchJob) -> None:
        """Cut the job into chunks and queue them."""
        if not self._workers:
            job.fill_rows(0, job.num_rows)
            return
        # 2 chunks a worker: a slow one leaves at most half its share to wait for
        chunk = max(1, -(-job.num_rows // (2 * len(self._workers))))
        for start in range(0, job.num_rows, chunk):
            self._tasks.put((job, start, min(start + chunk, job.num_rows)))

    def wait(self, job: BatchJob, timeout: float) -> None:
        """Until the job is done. Raises what its worker raised, or LoaderError when a worker has
        been at one clip for `timeout` seconds, or is dead; the text shows its stack."""
        while not job.done.wait(min(1.0, timeout)):
            if text := next(filter(None, (_fault(w, timeout) for w in self._workers)), None):
                job.is_stuck = True
                raise LoaderError(text)
        if job.error is not None:
            raise job.error

    def cancel(self, job: BatchJob, timeout: float) -> bool:
        """Stop working on the job; -> whether all workers have left it within `timeout` seconds."""
        job.cancelled = True
        return job.done.wait(0 if job.is_stuck else timeout)

    def close(self) -> None:
        """End the threads, waiting while they finish their clip (a stuck one: 2 s): a daemon that
        comes out of compiled code while Python shuts down makes the C++ runtime abort."""
        self._stop()


def _fault(worker: _Worker, timeout: float) -> str | None:
    """What is wrong with a worker; None where nothing is."""
    if not worker.is_alive():
        return f"the loader's thread {worker.name} is dead: start the run again."
    if worker.current is None or time.monotonic() - worker.current[2] < timeout:
        return None
    job, row, since = worker.current
    frame = sys._current_frames().get(worker.ident or -1)
    stack = "".join(traceback.format_stack(frame)) if frame else "  (no stack)\n"
    return (
        f"the loader's thread {worker.name} has been at {job.name_row(row)} (step {job.step}) for "
        f"{time.monotonic() - since:.1f} s, the limit is {timeout:g} s: the disk or network "
        f"share under it hangs. Its stack:\n{stack}"
    )

"""The loader: threads fill a fixed ring of batch slots from the shards, a step ahead of the user.

Odd:
- No allocation per batch. A fresh 33 MB buffer a batch costs more in page faults than the copy
  itself, so the ring's slots are made once (pinned once, when the batches go to CUDA) and reused.
- Threads, not processes: reading, checksum and sampling all run outside the GIL; two threads gave
  10,997 clips/s of 1.05 MB in a calm minute, and 6 to 14 times what torch's worker processes give
  with whole batches, in one run each (docs/benchmarks.md, "Loader"). There is nothing to pickle, no
  shared memory to leak, nothing left behind by a killed run.
- A batch is borrowed: its slot returns to the ring at `batch.release()`, at `batch.release(event)`
  once that CUDA event (the copy to the device) has happened, or, after `batch.lend()`, when the
  tensor and all its views are gone.
- A corrupt clip stops the run. With `max_bad` its place is taken by the next clip of the plan
  that reads well; it is kept in `Loader.bad` and warned about, and in an evaluation not counted.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterator

import numpy as np

from shards import augment
from shards.augment import Pixels
from shards.crew import Crew, Job, StuckError
from shards.manifest import Manifest, ShardSetError
from shards.plan import Plan, Rows
from shards.reader import ClipReader
from shards.ring import Batch, Event, Ring

__all__ = ["BadClipWarning", "Batch", "Event", "Loader", "LoaderError", "Ring"]


CACHES = ("none", "ram")


class LoaderError(ValueError):
    """More frames asked for than stored, an unknown cache, a stuck worker, a ring never given back;
    one sentence."""


class BadClipWarning(UserWarning):
    """A corrupt clip was replaced by another one."""


class Loader:
    """Batches of one side of a split, in the order of `plan`.

    frames: how many of the stored frames to give, evenly spaced; with `jitter` the phase is random
    per clip and epoch (temporal jitter). workers: threads; 0 reads in the caller's. depth: batches
    read ahead. pinned: page-lock the ring for copies to CUDA. timeout: seconds after which a
    worker that has not filled its batch is called stuck.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        *,
        frames: int | None = None,
        jitter: bool = False,
        workers: int = 2,
        depth: int = 2,
        pinned: bool = False,
        check: bool = True,
        pixels: Pixels | None = None,
        max_bad: int = 0,
        cache: str = "none",
        timeout: float = 30.0,
    ) -> None:
        if cache not in CACHES:
            raise LoaderError(f"unknown cache {cache!r}: choose one of {', '.join(CACHES)}.")
        stored, height, width, channels = manifest.clip_shape
        self.frames = stored if frames is None else frames
        if not 1 <= self.frames <= stored:
            raise LoaderError(
                f"{self.frames} frames asked for and the clips in {manifest.root} hold {stored}: "
                f"use --frames {stored} or fewer, or build shards with more frames."
            )
        self.manifest, self.plan, self.jitter, self.timeout = manifest, plan, jitter, timeout
        self.pixels, self.max_bad, self.depth = pixels, max_bad, max(1, depth)
        self.bad: dict[int, str] = {}  # sample id -> what is wrong with it
        self._bad_lock = threading.Lock()
        self._reader = ClipReader(manifest, check=check, keep=cache == "ram")
        share = plan.batch_size // plan.ranks
        size = (height, width) if pixels is None else pixels.size
        shape = (share, self.frames, *size, channels)
        # one slot is with the user, one may still be on its way to the device
        self._ring = Ring(self.depth + 2, shape, pinned, pixels is not None)
        self._crew = Crew(workers)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.plan.steps

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from step `start` on. A batch not released yet is released when
        the next one is asked for."""
        pending: deque[tuple[Job, Rows, int]] = deque()
        step, last = start, None
        try:
            while True:
                if last is not None:
                    last.release()
                while step < self.steps and len(pending) < self.depth:
                    slot = self._ring.take()
                    if slot is None:
                        break
                    pending.append(self._start(epoch, step, slot))
                    step += 1
                if not pending:
                    self._all_done(step)
                    return
                job, rows, slot = pending[0]
                self._wait(job)
                pending.popleft()
                last = self._batch(job.step, rows, slot)
                yield last
                del job, rows
        finally:
            if last is not None:
                last.release()
            for job, _, slot in pending:  # a slot that a stuck worker writes to is never reused
                if self._crew.settle(job, 0 if isinstance(job.error, StuckError) else self.timeout):
                    self._ring.give(slot, None)

    def close(self) -> None:
        """End the threads and close the shards."""
        self._crew.close()
        self._reader.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _all_done(self, step: int) -> None:
        if step < self.steps:
            raise LoaderError("every slot of the ring is lent out: release batches after use.")

    def _start(self, epoch: int, step: int, slot: int) -> tuple[Job, Rows, int]:
        rows = self.plan.rows(epoch, step)
        rows = Rows(rows.ids.copy(), rows.valid.copy(), rows.counted)  # a bad clip changes them
        ids = rows.ids
        job = Job(
            step,
            len(ids),
            lambda row: self._fill(epoch, rows, row, slot),
            lambda row: f"sample {self.manifest.keys(ids[row : row + 1])[0]}",
        )
        self._crew.start(job)
        return job, rows, slot

    def _wait(self, job: Job) -> None:
        try:
            self._crew.wait(job, self.timeout)
        except StuckError as error:
            job.error = error
            raise LoaderError(str(error)) from error

    def _batch(self, step: int, rows: Rows, slot: int) -> Batch:
        labels = self.manifest.index["label"][rows.ids].astype(np.int64)
        keys = self.manifest.keys(rows.ids)
        pixels = self._ring.pixels(slot)
        return Batch(
            step, pixels, labels, rows.ids, rows.valid, rows.counted, keys, slot, self._ring
        )

    def _fill(self, epoch: int, rows: Rows, row: int, slot: int) -> None:
        """Runs in a worker: one clip -> its row of the slot's memory."""
        out, first = self._ring.memory[slot][row], int(rows.ids[row])
        sample = first
        while True:
            try:
                self._put(epoch, sample, out)
                break
            except ShardSetError as error:
                self._count_bad(sample, error)
                sample = self._next_good(sample)
        if sample != first:
            rows.ids[row] = sample
            if not self.plan.shuffle:  # in an evaluation the other clip counts elsewhere
                rows.valid[row] = False

    def _put(self, epoch: int, sample: int, out: np.ndarray) -> None:
        whole = self.frames == self.manifest.clip_shape[0]
        if self.pixels is None and whole:
            self._reader.read_into(sample, out)
            return
        if self.pixels is None:
            self._reader.read_frames_into(sample, self._frame_numbers(epoch, sample), out)
            return
        clip = self._reader.scratch()
        self._reader.read_into(sample, clip)
        if not whole:
            clip = clip[self._frame_numbers(epoch, sample)]
        key = self.manifest.index["key"][sample].decode()
        self.pixels.put(clip, key, self.plan.seed, epoch, out)

    def _count_bad(self, sample: int, error: ShardSetError) -> None:
        """Note a corrupt clip; raise its error when there are more than `max_bad`."""
        with self._bad_lock:
            if sample in self.bad:
                return
            if len(self.bad) >= self.max_bad:
                if self.max_bad == 0:
                    raise error
                raise ShardSetError(
                    f"more than {self.max_bad} clips are corrupt, the last: {error}"
                ) from error
            self.bad[sample] = str(error)
        warnings.warn(f"replaced a corrupt clip: {error}", BadClipWarning, stacklevel=2)

    def _next_good(self, sample: int) -> int:
        """The clip after `sample` in the plan's own order that is not known to be bad."""
        ids = self.plan.ids
        at = int(np.flatnonzero(ids == sample)[0])
        for other in np.roll(ids, -at - 1)[:-1].tolist():
            if other not in self.bad:
                return int(other)
        raise ShardSetError(f"every clip of this side of {self.manifest.root} is corrupt.")

    def _frame_numbers(self, epoch: int, sample: int) -> np.ndarray:
        """Which stored frames: int64 [frames], evenly spaced, phase 0 or random (jitter)."""
        stored = self.manifest.clip_shape[0]
        phase = 0.0
        if self.jitter:
            key = self.manifest.index["key"][sample].decode()
            phase = augment.generator(self.plan.seed, epoch, f"{key}/phase").random()
        return ((np.arange(self.frames) + phase) * stored / self.frames).astype(np.int64)

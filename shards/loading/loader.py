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
  that reads well; it is kept in `Loader.bad` and warned about, and in an evaluation not counted
  (by its own rank: the others do not hear of it).
- Of a remote set the first batch waits for its own shards; the others come in the background, in
  the plan's order (`har.shards.storage.prefetch`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from ..format.shard_set import Manifest
from ..transforms.clip_processor import ClipProcessor
from . import workers as crew
from .batch_builder import CACHES, BadClipWarning, BatchBuilder, LoaderError
from .batch_sampler import BatchIndices, BatchSampler
from .buffers import Batch, BufferPool, Event
from .workers import BatchJob, StuckError, WorkerPool

__all__ = ["CACHES", "BadClipWarning", "Batch", "BufferPool", "Event", "Loader", "LoaderError"]


class Loader:
    """Batches of one side of a split, in the order of `plan`.

    frames: how many of the stored frames to give, evenly spaced; with `jitter` the phase is random
    per clip and epoch (temporal jitter). workers: threads; 0 reads in the caller's. depth: batches
    read ahead. pinned: page-lock the ring for copies to CUDA. timeout: seconds after which a
    worker that has been at one clip is called stuck. processor: augment or preprocess in the workers.
    max_bad: see above. cache: "ram" keeps in memory what was read. Several views of a clip:
    `BatchSampler.views`.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: BatchSampler,
        *,
        frames: int | None = None,
        jitter: bool = False,
        workers: int = 2,
        depth: int = 2,
        pinned: bool = False,
        check: bool = True,
        processor: ClipProcessor | None = None,
        max_bad: int = 0,
        cache: str = "none",
        timeout: float = 30.0,
    ) -> None:
        self.manifest, self.plan, self.timeout = manifest, plan, timeout
        self.depth = max(1, depth)
        self._filler = BatchBuilder(
            manifest, plan, frames=frames, jitter=jitter, check=check, processor=processor,
            max_bad=max_bad, cache=cache, beat=crew.alive,
        )  # fmt: skip
        self.frames, self.processor = self._filler.frames, processor
        self.max_bad, self.bad = max_bad, self._filler.bad
        self._supply = self._filler.reader.supply
        shape = (plan.batch_size // plan.ranks, *self._filler.shape)
        # one slot is with the user, one may still be on its way to the device
        self._ring = BufferPool(self.depth + 2, shape, pinned, self._filler.floats)
        self._crew = WorkerPool(workers)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.plan.steps

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from step `start` on. A batch not released yet is released when
        the next one is asked for."""
        pending: deque[tuple[BatchJob, BatchIndices, int]] = deque()
        step, last = start, None
        share = self.plan.batch_size // self.plan.ranks
        self._follow(epoch, start)
        try:
            while True:
                if last is not None:
                    last.release()
                if self._supply is not None:
                    oldest = pending[0][0].step if pending else step
                    self._supply.at((oldest - start) * share)
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
                last = self._batch(epoch, job.step, rows, slot)
                yield last
                del job, rows
        finally:
            if last is not None:
                last.release()
            for job, _, slot in pending:  # a slot that a stuck worker writes to is never reused
                if self._crew.settle(job, 0 if isinstance(job.error, StuckError) else self.timeout):
                    self._ring.give(slot, None)

    def frame_numbers(self, epoch: int, sample: int) -> np.ndarray:
        """Which stored frames of a clip a batch of `epoch` has (view 0): int64 [frames]."""
        return self._filler.frame_numbers(epoch, sample)

    def close(self) -> None:
        """End the threads and close the shards."""
        self._crew.close()
        self._filler.reader.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _all_done(self, step: int) -> None:
        if step < self.steps:
            raise LoaderError("every slot of the ring is lent out: release batches after use.")

    def _start(self, epoch: int, step: int, slot: int) -> tuple[BatchJob, BatchIndices, int]:
        rows = self._filler.rows(epoch, step)
        ids, memory = rows.ids, self._ring.memory[slot]
        job = BatchJob(
            step,
            len(ids),
            lambda row: self._filler.fill(epoch, rows, row, memory[row]),
            lambda row: f"sample {self.manifest.keys(ids[row : row + 1])[0]}",
        )
        self._crew.start(job)
        return job, rows, slot

    def _wait(self, job: BatchJob) -> None:
        try:
            self._crew.wait(job, self.timeout)
        except StuckError as error:
            job.error = error
            raise LoaderError(str(error)) from error

    def _batch(self, epoch: int, step: int, rows: BatchIndices, slot: int) -> Batch:
        labels = self.manifest.index["label"][rows.ids].astype(np.int64)
        keys = self.manifest.keys(rows.ids)
        counted = self._filler.counted(epoch, step, rows)
        pixels = self._ring.pixels(slot)
        return Batch(
            step, pixels, labels, rows.ids, rows.valid, counted, keys, slot, self._ring, rows.views
        )

    def _follow(self, epoch: int, start: int) -> None:
        """Tell the supply of a remote set what comes: this epoch, then the next one of training."""
        if self._supply is None:
            return
        ids = self.plan.sequence(epoch, start)
        if self.plan.shuffle:
            ids = np.concatenate([ids, self.plan.sequence(epoch + 1)])
        self._supply.follow(self.manifest.index["shard"][ids].astype(np.int64))

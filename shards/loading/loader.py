"""The loader: threads fill a fixed pool of batch buffers from the shards, ahead of the caller.

Notes:
- No allocation per batch. A fresh 33 MB buffer a batch costs more in page faults than the copy
  itself, so buffers are made once (pinned once, when the batches go to CUDA) and reused.
- Threads, not processes: reading, checksum and sampling all run outside the GIL; two threads give
  13 times the clips that torch's two worker processes give with whole batches (docs/benchmarks.md,
  "Loader"). Nothing is pickled; a killed run leaves no shared memory behind.
- A corrupt clip stops the run. With `max_corrupt` the next clip of the subset that reads well takes
  its place; it is kept in `Loader.corrupt` and warned about, and in an evaluation not counted (by
  its own rank: the others do not know of it).
- Of a remote set the first batch waits for its own shards; the others come in the background.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from ..format import Manifest
from .batch_builder import BatchBuilder, Transform
from .batch_sampler import BatchIndices, BatchSampler
from .buffers import Batch, BufferPool
from .options import LoaderError, LoaderOptions
from .workers import BatchJob, WorkerPool, heartbeat

# a batch under way: its job, its rows, its buffer
_Pending = tuple[BatchJob, BatchIndices, int]


class Loader:
    """The batches of `sampler`, in its order.

    transform: called in the workers, clip by clip. A `ClipProcessor` makes a network's input. Any
    other callable gets uint8 [T,H,W,C] (memory that is used again after the call) and returns an
    array or CPU tensor, of the same shape and dtype for every clip; it is called once with a black
    clip to learn these, and by several threads at once.
    batch_transform: called with each `Batch` in the caller's thread; the iterator gives what it
    returns. It may call `Batch.detach` to keep the pixels.
    """

    def __init__(
        self,
        manifest: Manifest,
        sampler: BatchSampler,
        options: LoaderOptions | None = None,
        *,
        transform: Transform | None = None,
        batch_transform: Callable[[Batch], Any] | None = None,
    ) -> None:
        self.manifest, self.sampler, self.options = manifest, sampler, options or LoaderOptions()
        self._batch_transform = batch_transform
        self._builder = BatchBuilder(manifest, sampler, self.options, transform, heartbeat)
        self.frames, self.corrupt = self._builder.frames, self._builder.corrupt
        self._prefetcher = self._builder.reader.prefetcher
        self._buffers = BufferPool(
            self.options.prefetch_batches + 2,  # one at the caller, one being copied to the device
            (sampler.rank_batch_size, *self._builder.shape),
            self._builder.dtype,
            pin_memory=self.options.pin_memory,
            channels_first=self._builder.channels_first,
        )
        self._workers = WorkerPool(self.options.workers)

    @property
    def num_batches(self) -> int:
        """Batches an epoch."""
        return self.sampler.num_batches

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` from step `start` on: `Batch`, or what `batch_transform` returns.

        A batch that is not released yet is released when the next one is asked for.
        """
        pending: deque[_Pending] = deque()
        step, batch = start, None
        self._schedule(epoch, start)
        try:
            while True:
                if batch is not None:
                    batch.release()
                if self._prefetcher is not None:
                    num_read = (pending[0][0].step if pending else step) - start
                    self._prefetcher.advance(num_read * self.sampler.rank_batch_size)
                while step < self.num_batches and len(pending) < self.options.prefetch_batches:
                    slot = self._buffers.acquire()
                    if slot is None:
                        break
                    pending.append(self._submit(epoch, step, slot))
                    step += 1
                if not pending and step < self.num_batches:
                    raise LoaderError(
                        "every buffer of the loader is in use: release batches after use."
                    )
                if not pending:
                    return
                self._workers.wait(pending[0][0], self.options.timeout)
                job, indices, slot = pending.popleft()
                pixels = self._buffers.pixels(slot)
                batch = self._builder.finish(epoch, job.step, indices, pixels, slot, self._buffers)
                yield batch if self._batch_transform is None else self._batch_transform(batch)
        finally:
            if batch is not None:
                batch.release()
            for job, _, slot in pending:  # a buffer that a stuck worker writes to is never reused
                if self._workers.cancel(job, self.options.timeout):
                    self._buffers.release(slot)

    def frame_indices(self, epoch: int, index: int, view: int = 0) -> np.ndarray:
        """Which stored frames of a clip a batch of `epoch` has: int64 [frames]."""
        return self._builder.frame_indices(epoch, index, view)

    def close(self) -> None:
        """End the threads and close the shards."""
        self._workers.close()
        self._builder.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _submit(self, epoch: int, step: int, slot: int) -> _Pending:
        indices, out = self.sampler.batch(epoch, step), self._buffers.arrays[slot]
        job = BatchJob(
            step,
            len(indices.indices),
            lambda row: self._builder.fill_row(epoch, indices, row, out[row]),
            lambda row: f"sample {self.manifest.keys(indices.indices[row : row + 1])[0]}",
        )
        self._workers.submit(job)
        return job, indices, slot

    def _schedule(self, epoch: int, start: int) -> None:
        """Tell the prefetcher of a remote set what comes: this epoch, then the next of training."""
        if self._prefetcher is None:
            return
        indices = self.sampler.epoch_indices(epoch, start)
        if self.sampler.shuffle:
            indices = np.concatenate([indices, self.sampler.epoch_indices(epoch + 1)])
        self._prefetcher.schedule(self.manifest.index["shard"][indices].astype(np.int64))

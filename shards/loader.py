"""The loader: threads fill a fixed ring of batch slots from the shards, a step ahead of the user.

Odd:
- No allocation per batch. A fresh 33 MB buffer a batch costs more in page faults than the copy
  itself, so the ring's slots are made once (pinned once, when the batches go to CUDA) and reused.
- Threads, not processes: a read is `preadv` into the slot plus one xxh3, both outside the GIL, so
  there is nothing to pickle, no shared memory to leak and no worker to lose.
- A batch is borrowed: its slot returns to the ring at `batch.release()`, or at
  `batch.release(event)` once that CUDA event (the copy to the device) has happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from shards.manifest import Manifest
from shards.plan import Plan, Rows
from shards.reader import ClipReader


class LoaderError(ValueError):
    """More frames asked for than stored, a stuck worker, a ring never given back; one sentence."""


class Event(Protocol):
    """What `Batch.release` waits for: a CUDA event, or anything with `synchronize`."""

    def synchronize(self) -> None: ...


@dataclass
class Batch:
    """One batch, borrowed from the ring until `release`.

    pixels: torch uint8 [b,T,H,W,C]. labels: int64 [b]. keys: the samples' keys. ids, valid,
    counted: see `plan.Rows`; rows that are not valid are fill-up and must not count.
    """

    step: int
    pixels: Any
    labels: np.ndarray
    ids: np.ndarray
    valid: np.ndarray
    counted: int
    keys: list[str]
    _slot: int = field(repr=False, default=-1)
    _ring: Ring | None = field(repr=False, default=None)

    def release(self, event: Event | None = None) -> None:
        """Give the slot back; with `event`, it is filled again only after the event."""
        if self._ring is not None:
            self._ring.give(self._slot, event)
            self._ring, self.pixels = None, None


class Ring:
    """A fixed number of batch buffers and the list of those that are free."""

    def __init__(self, slots: int, shape: tuple[int, ...], pinned: bool) -> None:
        import torch

        self.buffers = [
            torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for _ in range(slots)
        ]
        self._free: deque[tuple[int, Event | None]] = deque((slot, None) for slot in range(slots))

    def give(self, slot: int, event: Event | None) -> None:
        self._free.append((slot, event))

    def take(self) -> int | None:
        """-> a slot that nobody reads any more, or None when all are lent out."""
        if not self._free:
            return None
        slot, event = self._free.popleft()
        if event is not None:
            event.synchronize()
        return slot


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
        timeout: float = 30.0,
    ) -> None:
        stored, height, width, channels = manifest.clip_shape
        self.frames = stored if frames is None else frames
        if not 1 <= self.frames <= stored:
            raise LoaderError(
                f"{self.frames} frames asked for and the clips in {manifest.root} hold {stored}: "
                f"use --frames {stored} or fewer, or build shards with more frames."
            )
        self.manifest, self.plan, self.jitter, self.timeout = manifest, plan, jitter, timeout
        self.depth = max(1, depth)
        self._reader = ClipReader(manifest, check=check)
        share = plan.batch_size // plan.ranks
        # one slot is with the user, one may still be on its way to the device
        self._ring = Ring(self.depth + 2, (share, self.frames, height, width, channels), pinned)
        self._pool = ThreadPoolExecutor(workers, "har-loader") if workers > 0 else None

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.plan.steps

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from step `start` on. A batch not released yet is released when
        the next one is asked for."""
        pending: deque[tuple[int, Rows, int, Future[None] | None]] = deque()
        step, last = start, None
        try:
            while True:
                if last is not None:
                    last.release()
                while step < self.steps and len(pending) < self.depth:
                    slot = self._ring.take()
                    if slot is None:
                        break
                    rows = self.plan.rows(epoch, step)
                    pending.append((step, rows, slot, self._start(epoch, rows, slot)))
                    step += 1
                if not pending:
                    self._all_done(step)
                    return
                last = self._finish(*pending.popleft())
                yield last
        finally:
            if last is not None:
                last.release()
            self._drain(pending)

    def close(self) -> None:
        """End the threads and close the shards."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._reader.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _all_done(self, step: int) -> None:
        if step < self.steps:
            raise LoaderError("every slot of the ring is lent out: release batches after use.")

    def _start(self, epoch: int, rows: Rows, slot: int) -> Future[None] | None:
        if self._pool is None:
            self._fill(epoch, rows, slot)
            return None
        return self._pool.submit(self._fill, epoch, rows, slot)

    def _finish(self, step: int, rows: Rows, slot: int, future: Future[None] | None) -> Batch:
        try:
            if future is not None:
                future.result(self.timeout)
        except FutureTimeoutError as error:
            raise LoaderError(
                f"the batch of step {step} was not read within {self.timeout:g} s from "
                f"{self.manifest.root}: the disk or network share under it hangs."
            ) from error
        index = self.manifest.index
        labels = index["label"][rows.ids].astype(np.int64)
        keys = self.manifest.keys(rows.ids)
        pixels = self._ring.buffers[slot]
        return Batch(
            step, pixels, labels, rows.ids, rows.valid, rows.counted, keys, slot, self._ring
        )

    def _fill(self, epoch: int, rows: Rows, slot: int) -> None:
        """Runs in a worker: the clips of `rows` -> the slot's memory."""
        memory = self._ring.buffers[slot].numpy()
        whole = self.frames == self.manifest.clip_shape[0]
        for row, sample in enumerate(rows.ids.tolist()):
            if whole:
                self._reader.read_into(sample, memory[row])
            else:
                chosen = self._frame_numbers(epoch, sample)
                self._reader.read_frames_into(sample, chosen, memory[row])

    def _frame_numbers(self, epoch: int, sample: int) -> np.ndarray:
        """Which stored frames: int64 [frames], evenly spaced, phase 0 or random (jitter)."""
        stored = self.manifest.clip_shape[0]
        phase = 0.0
        if self.jitter:
            phase = np.random.default_rng([self.plan.seed, epoch, sample]).random()
        return ((np.arange(self.frames) + phase) * stored / self.frames).astype(np.int64)

    def _drain(self, pending: deque[tuple[int, Rows, int, Future[None] | None]]) -> None:
        """Give back the slots of batches that nobody will ask for; a stuck one is never reused."""
        for _, _, slot, future in pending:
            if future is None or future.cancel() or wait([future], self.timeout).done:
                self._ring.give(slot, None)

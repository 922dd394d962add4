"""The ring of batch buffers that the loader fills again and again, and the batch lent from it.

Odd: `Batch.lend` ties a slot to the life of a tensor (a finalizer on the numpy array under it), so
that a user who keeps a batch keeps its pixels, and no batch ever changes under its holder.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class Event(Protocol):
    """What `Batch.release` waits for: a CUDA event, or anything with `synchronize`."""

    def synchronize(self) -> None: ...


@dataclass
class Batch:
    """One batch, borrowed from the ring until `release`.

    pixels: torch uint8 [b,T,H,W,C]; of a loader with a `processor`, float32 [b,C,T,h,w] in
    channels_last_3d, ready for the model. labels: int64 [b]. keys: the samples' keys. ids, valid,
    counted, views: see `plan.BatchIndices`; rows that are not valid are fill-up and must not count.
    """

    step: int
    pixels: Any
    labels: np.ndarray
    ids: np.ndarray
    valid: np.ndarray
    counted: int
    keys: list[str]
    _slot: int = field(repr=False, default=-1)
    _ring: BufferPool | None = field(repr=False, default=None)
    views: np.ndarray | None = None

    def release(self, event: Event | None = None) -> None:
        """Give the slot back; with `event`, it is filled again only after the event."""
        if self._ring is not None:
            self._ring.give(self._slot, event)
            self._ring, self.pixels = None, None

    def lend(self) -> Any:
        """-> `pixels`; the slot goes back when nobody has that tensor or a view of it any more."""
        pixels = self._ring.lend(self._slot) if self._ring is not None else self.pixels
        self._ring, self.pixels = None, None
        return pixels


class BufferPool:
    """A fixed number of batch buffers and the list of those that are free.

    floats: float32 [b,T,h,w,C] given out as [b,C,T,h,w], instead of uint8 as it is.
    """

    def __init__(self, slots: int, shape: tuple[int, ...], pinned: bool, floats: bool) -> None:
        import torch

        self.floats = floats
        dtype = torch.float32 if floats else torch.uint8
        if pinned:
            self.buffers = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(slots)]
        else:  # numpy asks the kernel for huge pages, torch does not
            plain = np.float32 if floats else np.uint8
            self.buffers = [torch.from_numpy(np.empty(shape, plain)) for _ in range(slots)]
        for buffer in self.buffers:
            buffer.zero_()  # the pages are there before the first batch
        self.memory = [buffer.numpy() for buffer in self.buffers]
        self._free: deque[tuple[int, Event | None]] = deque((slot, None) for slot in range(slots))

    def give(self, slot: int, event: Event | None) -> None:
        self._free.append((slot, event))

    def pixels(self, slot: int) -> Any:
        """The slot as a batch shows it."""
        return self._shown(self.buffers[slot])

    def lend(self, slot: int) -> Any:
        """The same, in a tensor that gives the slot back when it dies."""
        import torch

        view = self.memory[slot].view()
        weakref.finalize(view, self.give, slot, None).atexit = False
        return self._shown(torch.from_numpy(view))

    def _shown(self, buffer: Any) -> Any:
        return buffer.permute(0, 4, 1, 2, 3) if self.floats else buffer

    def take(self) -> int | None:
        """-> a slot that nobody reads any more, or None when all are lent out."""
        if not self._free:
            return None
        slot, event = self._free.popleft()
        if event is not None:
            event.synchronize()
        return slot

"""The fixed pool of batch buffers that the loader fills again and again, and the batch on one."""

import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass
class Batch:
    """One batch; its buffer belongs to the loader again after `release`.

    pixels: torch uint8 [b,T,H,W,C]; of a loader with a `ClipProcessor`, float32 [b,C,T,h,w] in
    channels_last_3d, ready for the model; of one with another transform, its results, stacked.
    labels: int64 [b]. keys: of the clips. indices, valid, num_valid, views: see `BatchIndices`;
    rows that are not valid are padding and must not count.
    """

    step: int
    pixels: Any
    labels: np.ndarray
    indices: np.ndarray
    valid: np.ndarray
    num_valid: int
    keys: list[str]
    views: np.ndarray
    _slot: int = field(repr=False, default=-1)
    _pool: "BufferPool | None" = field(repr=False, default=None)

    def release(self, event: torch.cuda.Event | None = None) -> None:
        """Give the buffer back; with `event`, it is filled again only after the event."""
        if self._pool is not None:
            self._pool.release(self._slot, event)
            self._pool, self.pixels = None, None

    def detach(self) -> Any:
        """-> `pixels`; the buffer goes back when that tensor and all views of it are gone."""
        pixels = self._pool.detach(self._slot) if self._pool is not None else self.pixels
        self._pool, self.pixels = None, None
        return pixels


class BufferPool:
    """`num_slots` buffers of one shape [b,...] and dtype, and the list of those that are free.

    channels_first: buffers of [b,T,h,w,C] are shown as [b,C,T,h,w]. arrays: the buffers as numpy.
    """

    def __init__(
        self,
        num_slots: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        pin_memory: bool = False,
        channels_first: bool = False,
    ) -> None:
        self._channels_first = channels_first
        # numpy asks the kernel for huge pages, torch does not; zeros: the pages exist from now on
        buffers = [torch.from_numpy(np.empty(shape, dtype)).zero_() for _ in range(num_slots)]
        self._buffers = [b.pin_memory() for b in buffers] if pin_memory else buffers
        self.arrays = [buffer.numpy() for buffer in self._buffers]
        self._free: deque[tuple[int, torch.cuda.Event | None]] = deque(
            (s, None) for s in range(num_slots)
        )

    def acquire(self) -> int | None:
        """-> a slot that nobody reads any more, or None when all are in use."""
        if not self._free:
            return None
        slot, event = self._free.popleft()
        if event is not None:
            event.synchronize()
        return slot

    def release(self, slot: int, event: torch.cuda.Event | None = None) -> None:
        self._free.append((slot, event))

    def pixels(self, slot: int) -> torch.Tensor:
        """The buffer as a batch shows it."""
        return self._as_shown(self._buffers[slot])

    def detach(self, slot: int) -> torch.Tensor:
        """The same, in a tensor that releases the slot when it and all its views are gone."""
        view = self.arrays[slot].view()
        weakref.finalize(view, self.release, slot).atexit = False
        return self._as_shown(torch.from_numpy(view))

    def _as_shown(self, buffer: torch.Tensor) -> torch.Tensor:
        return buffer.permute(0, 4, 1, 2, 3) if self._channels_first else buffer

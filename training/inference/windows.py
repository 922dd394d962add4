"""Windows over a long video, and the timeline of labels they give: plain numbers, no video needed.

Odd: windows overlap, so a moment has several answers. The timeline is the mean of the windows that
cover it; between two window borders that mean does not change, so it is kept piece by piece.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import HarError

T = TypeVar("T")


class WindowError(HarError):
    """A window or hop that makes no sense; one sentence."""


@dataclass(frozen=True)
class Window:
    """One window's answer. start, end: seconds. frames: how many it covers. probabilities: [K]."""

    start: float
    end: float
    frames: int
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """A stretch of the timeline, in seconds, with one mean answer [K]."""

    start: float
    end: float
    probabilities: NDArray[np.float32]

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(self.probabilities.argmax())


def check(window: float, hop: float | None) -> float:
    """-> the hop in seconds (half a window unless given). Raises WindowError."""
    if not 0 < window < float("inf"):
        raise WindowError(f"--window {window:g} does not work: give seconds, more than 0.")
    step = window / 2 if hop is None else hop
    if not 0 < step <= window:
        raise WindowError(
            f"--hop {step:g} does not work: give seconds, more than 0 and at most the window's "
            f"{window:g}, so that no frame is left out."
        )
    return step


def slide(items: Iterable[T], length: int, hop: int) -> Iterator[list[T]]:
    """Windows of `length` items, one every `hop`; the last ends with the last item.

    Fewer items than `length` give one short window. Holds `length` items at a time.
    """
    held: deque[T] = deque(maxlen=length)
    seen, covered, due = 0, 0, length
    for item in items:
        held.append(item)
        seen += 1
        if seen == due:
            yield list(held)
            covered, due = seen, due + hop
    if seen > covered:
        yield list(held)


def moments(windows: Sequence[Window]) -> Iterator[Piece]:
    """Windows in order of time -> the stretches between their borders, with the mean answer of
    the windows that cover each; a stretch that none covers is left out."""
    borders = sorted({w.start for w in windows} | {w.end for w in windows})
    low = high = 0
    for start, end in pairwise(borders):
        while windows[low].end <= start:
            low += 1
        while high < len(windows) and windows[high].start <= start:
            high += 1
        if low < high:
            mean = np.mean([w.probabilities for w in windows[low:high]], axis=0)
            yield Piece(start, end, mean)


def timeline(windows: Sequence[Window]) -> list[Piece]:
    """Windows in order -> pieces without overlap; neighbours differ in their label."""
    pieces: list[Piece] = []
    for piece in moments(windows):
        _extend(pieces, piece)
    return pieces


def _extend(pieces: list[Piece], piece: Piece) -> None:
    """Append, or melt into the last piece of the same label (mean weighted by length)."""
    last = pieces[-1] if pieces else None
    if last is None or last.label != piece.label or last.end != piece.start:
        pieces.append(piece)
        return
    spans = [last.end - last.start, piece.end - piece.start]
    mean = np.average([last.probabilities, piece.probabilities], axis=0, weights=spans)
    pieces[-1] = Piece(last.start, piece.end, mean.astype(np.float32))


def at(pieces: Sequence[Piece], seconds: float) -> Piece:
    """The piece that covers a moment; the last one after the end."""
    number = bisect_right(pieces, seconds, key=lambda piece: piece.end)
    return pieces[min(number, len(pieces) - 1)]

"""Overlapping windows over a long video, and the timeline of labels that they give.

A moment is covered by several windows. The timeline is the mean of the windows that cover it; it
does not change between two window borders, so it is kept as segments.
"""

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
UNKNOWN = "unknown"  # the label of what reaches no threshold
_ONLY_ITEM = 0.04  # seconds that an item lasts where there is no other
_SHORTEST = 0.001  # seconds of a window, and from one to the next
_SAME = 1e-6  # seconds: moments that are no further apart are one


class PredictionError(HarError):
    """Videos, windows or pictures that are not possible as asked; one sentence."""


@dataclass(frozen=True)
class Segment:
    """A window, or a stretch of the timeline: start and end in seconds, its probabilities [K]."""

    start: float
    end: float
    probabilities: NDArray[np.float32]

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(self.probabilities.argmax())

    def reaches(self, threshold: float) -> bool:
        """Whether that class is as probable as `threshold`."""
        return float(self.probabilities.max()) >= threshold


def check_window(window: float, hop: float | None) -> float:
    """-> the hop in seconds (half a window if None). Raises PredictionError."""
    if not _SHORTEST <= window < float("inf"):
        raise PredictionError(
            f"--window {window:g} does not work: give seconds, {_SHORTEST} or more."
        )
    hop = max(_SHORTEST, window / 2) if hop is None else hop
    if not _SHORTEST <= hop <= window:
        raise PredictionError(
            f"--hop {hop:g} does not work: give seconds, {_SHORTEST} or more and at most the "
            f"window's {window:g}, so that no frame is left out."
        )
    return hop


def sliding_windows(
    items: Iterable[tuple[float, T]], window: float, hop: float
) -> Iterator[tuple[float, float, list[tuple[float, T]]]]:
    """Items with the seconds at which they begin, rising -> (start, end, items) of windows of
    `window` seconds, one every `hop`, from the first item's beginning.

    A window holds the items that begin in it; where none does, the one that is shown then. An item
    lasts until the next, the last one as long as the one before it. The last window ends with the
    last item; what is shorter than `window` gives one short window. Holds the items of `window`
    seconds at a time.
    """
    held: deque[tuple[float, T]] = deque()
    number, now, step = 0, 0.0, _ONLY_ITEM

    def whole_windows(end: float) -> Iterator[tuple[float, float, list[tuple[float, T]]]]:
        nonlocal number
        while number * hop + window <= end + _SAME:
            yield _cut_window(held, number * hop, number * hop + window)
            number += 1

    for seconds, item in items:
        yield from whole_windows(seconds)
        step, now = (seconds - now if held else step), seconds
        held.append((seconds, item))
        earliest = min(number * hop, seconds - window) + _SAME
        while len(held) > 1 and held[1][0] <= earliest:
            held.popleft()
    end = now + step
    yield from whole_windows(end if held else 0.0)
    if held and (number == 0 or now >= (number - 1) * hop + window - _SAME):
        yield _cut_window(held, max(0.0, end - window), end)


def _cut_window(
    held: Iterable[tuple[float, T]], start: float, end: float
) -> tuple[float, float, list[tuple[float, T]]]:
    items = [item for item in held if start - _SAME <= item[0] < end - _SAME]
    return start, end, items or [item for item in held if item[0] < start][-1:]


def mean_segments(windows: Sequence[Segment]) -> Iterator[Segment]:
    """Windows in order of time -> the stretches between their borders, each with the mean answer of
    the windows that cover it; a stretch that none covers is left out."""
    borders = sorted({w.start for w in windows} | {w.end for w in windows})
    low = high = 0
    for start, end in pairwise(borders):
        while windows[low].end <= start:
            low += 1
        while high < len(windows) and windows[high].start <= start:
            high += 1
        if low < high:
            mean = np.mean([w.probabilities for w in windows[low:high]], axis=0)
            yield Segment(start, end, mean)


def timeline(windows: Sequence[Segment], threshold: float = 0.0) -> list[Segment]:
    """Windows in order -> segments without overlap; neighbours differ in their label, or in whether
    that reaches `threshold` (others are merged, their mean weighted by length)."""
    segments: list[Segment] = []
    for segment in mean_segments(windows):
        last = segments[-1] if segments else None
        if (
            last is None
            or last.end != segment.start
            or (last.label, last.reaches(threshold)) != (segment.label, segment.reaches(threshold))
        ):
            segments.append(segment)
            continue
        spans = [last.end - last.start, segment.end - segment.start]
        mean = np.average([last.probabilities, segment.probabilities], axis=0, weights=spans)
        segments[-1] = Segment(last.start, segment.end, mean.astype(np.float32))
    return segments


def segment_at(segments: Sequence[Segment], seconds: float) -> Segment:
    """The segment that covers a moment; the last one after the end."""
    index = bisect_right(segments, seconds, key=lambda segment: segment.end)
    return segments[min(index, len(segments) - 1)]

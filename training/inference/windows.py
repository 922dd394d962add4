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


def check_window(window: float, hop: float | None) -> float:
    """-> the hop in seconds (half a window if None). Raises PredictionError."""
    if not 0 < window < float("inf"):
        raise PredictionError(f"--window {window:g} does not work: give seconds, more than 0.")
    hop = window / 2 if hop is None else hop
    if not 0 < hop <= window:
        raise PredictionError(
            f"--hop {hop:g} does not work: give seconds, more than 0 and at most the window's "
            f"{window:g}, so that no frame is left out."
        )
    return hop


def sliding_windows(items: Iterable[T], length: int, hop: int) -> Iterator[list[T]]:
    """Windows of `length` items, one every `hop`; the last ends with the last item.

    Fewer items than `length` give one short window. Holds `length` items at a time.
    """
    window: deque[T] = deque(maxlen=length)
    num_seen, num_covered, next_end = 0, 0, length
    for item in items:
        window.append(item)
        num_seen += 1
        if num_seen == next_end:
            yield list(window)
            num_covered, next_end = num_seen, next_end + hop
    if num_seen > num_covered:
        yield list(window)


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


def timeline(windows: Sequence[Segment]) -> list[Segment]:
    """Windows in order -> segments without overlap; neighbours differ in their label (segments of
    one label are merged, their mean weighted by length)."""
    segments: list[Segment] = []
    for segment in mean_segments(windows):
        last = segments[-1] if segments else None
        if last is None or last.label != segment.label or last.end != segment.start:
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

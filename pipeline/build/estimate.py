"""What a build will take, said before and soon after it starts."""

import os
import threading
import time
from collections.abc import Callable

_MIN_VIDEOS = 20  # fewer say nothing about the rest


def describe_bytes(num_bytes: int) -> str:
    """ "14.0 GB", "87.5 MB", "41.0 kB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes / 1e3:.1f} kB"


def describe_space(
    num_videos: int, num_classes: int, num_bytes: int, free_bytes: int | None
) -> str:
    """ "83 videos of 12 classes: about 87.5 MB, 60.2 GB free": a user sees before the decoding
    whether labels were read as they are meant. free_bytes: None where that is unknown."""
    videos = "1 video" if num_videos == 1 else f"{num_videos:,} videos"
    classes = "1 class" if num_classes == 1 else f"{num_classes:,} classes"
    free = "" if free_bytes is None else f", {describe_bytes(free_bytes)} free"
    return f"{videos} of {classes}: about {describe_bytes(num_bytes)}{free}"


class TimeEstimate:
    """Says once how long a build of `num_videos` will take, from the first 20 videos or, with more
    than five workers, four a worker. Their first round is left out: in it decoders start.

    workers: None = unknown, and nothing is said; nor for a build that is too small.
    """

    def __init__(self, num_videos: int, workers: int | None, say: Callable[[str], None]) -> None:
        self._num_videos, self._workers, self._say = num_videos, workers or 0, say
        self._sample = max(_MIN_VIDEOS, 4 * self._workers)
        self._is_wanted = workers is not None and num_videos > self._sample
        self._times: list[float] = []
        self._lock = threading.Lock()

    def advance(self) -> None:
        """A video is done. From any thread."""
        if not self._is_wanted:
            return
        with self._lock:
            self._times.append(time.monotonic())
            if not self._is_wanted or len(self._times) < self._sample:
                return
            self._is_wanted = False
        first = min(self._workers, self._sample // 2)
        pace = (self._times[self._sample - 1] - self._times[first]) / (self._sample - 1 - first)
        cores = min(self._workers, os.cpu_count() or 1)
        self._say(
            f"about {_describe_seconds(pace * self._num_videos)} on {cores} "
            f"core{'s' * (cores > 1)}, from the first {self._sample} videos"
        )


def _describe_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""Progress of a build: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

_PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


class Progress:
    """Counts finished pieces of work; `step` may be called from any thread."""

    def __init__(self, total: int, what: str, unit: str = "video", *, quiet: bool = False) -> None:
        self._total, self._what, self._unit, self._quiet = total, what, unit, quiet
        self._done, self._lock = 0, threading.Lock()
        self._start = self._told = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=what, unit=unit, leave=False)

    def step(self, count: int = 1) -> None:
        with self._lock:
            self._done += count
            if self._bar is not None:
                self._bar.update(count)
                return
            now = time.monotonic()
            if not self._quiet and now - self._told >= _PLAIN_EVERY:
                self._told = now
                rate = self._done / (now - self._start)
                print(
                    f"{self._what}: {self._done}/{self._total}, {rate:.1f} {self._unit}s/s, "
                    f"{(self._total - self._done) / rate:.0f} s left",
                    file=sys.stderr,
                )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

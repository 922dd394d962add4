"""Progress of a long job: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal


def track(items: Iterable[T], *, total: int, what: str, unit: str = "step") -> Iterator[T]:
    """Yield `items`, showing how far they are on standard error."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, unit=unit, leave=False)
        return
    start = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - told >= _PLAIN_EVERY:
            told = now
            rate = done / (now - start)
            left = (total - done) / rate
            print(
                f"{what}: {done}/{total}, {rate:.2f} {unit}s/s, {left:.0f} s left", file=sys.stderr
            )
        yield item

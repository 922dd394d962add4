"""Progress of a long loop by tqdm, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_LINE_EVERY = 30.0  # seconds between lines where there is no terminal


class _Lines:
    """Standard error for a bar where there is no terminal: each state becomes a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def track(
    items: Iterable[T],
    *,
    total: int,
    description: str,
    unit: str = "step",
    postfix: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yield `items` and show how far they are: a bar on a terminal, else a line every 30 s.

    postfix: gives more text for the bar.
    """
    terminal = sys.stderr.isatty()
    interval = 0.1 if terminal else _LINE_EVERY
    with tqdm(
        items, total=total, desc=description, unit=unit, leave=False, mininterval=interval,
        maxinterval=max(10.0, interval), delay=0.0 if terminal else _LINE_EVERY,
        file=sys.stderr if terminal else _Lines(), ncols=None if terminal else 79,
    ) as bar:  # fmt: skip
        for item in bar:
            if postfix is not None:
                bar.set_postfix_str(postfix(), refresh=False)
            yield item

"""SIGTERM and SIGINT ask a run to save and end after the step under way (preemptible machines).

The second one of the same kind ends it at once, as without us.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - an event, said as one
    """The run was asked to end and has saved; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Watch:
    """`number` is the signal that arrived, 0 while none has."""

    number = 0


@contextmanager
def watch() -> Iterator[Watch]:
    """While the block runs, signals set `Watch.number`; afterwards all is as it was."""
    seen = Watch()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: FrameType | None) -> None:
        seen.number = number
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""SIGTERM and SIGINT ask a run to save and end after the step under way (preemptible machines).

The second one of the same kind ends it at once, as without us.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - an event, named as one
    """The run was asked to end and has saved; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class SignalWatch:
    """`number` is the signal that arrived, 0 while none has."""

    number = 0


@contextmanager
def watch_signals() -> Iterator[SignalWatch]:
    """While the block runs, signals set `SignalWatch.number`; afterwards all is as it was."""
    watch = SignalWatch()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, _: FrameType | None) -> None:
        watch.number = number
        signal.signal(number, handlers[signal.Signals(number)])

    for number in handlers:
        signal.signal(number, handle)
    try:
        yield watch
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

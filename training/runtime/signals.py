"""SIGTERM and SIGINT ask a run to save and end after the step under way (preemptible machines).

The second one of the same kind ends it at once, as without us. Python hands signals to the main
thread only: a run in another one is not asked.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to end and has saved; `number` is the signal.

    A KeyboardInterrupt, so that a notebook or a script of many runs ends as it does on Ctrl-C.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class SignalWatch:
    """`number` is the signal that arrived, 0 while none has."""

    number = 0


@contextmanager
def watch_signals() -> Iterator[SignalWatch]:
    """While the block runs, signals set `SignalWatch.number`; afterwards all is as it was.

    Outside the main thread none does.
    """
    watch = SignalWatch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
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

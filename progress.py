"""Progress of a long task: tqdm on a terminal and in notebooks, a plain line every 30 s elsewhere
(log files).

Notes: where tqdm finds a notebook with ipywidgets, its class is a widget, whose `display` takes
more than that of the text bar; in a notebook without them the text bar stands in the cell.
"""

import io
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm import TqdmWarning

with warnings.catch_warnings():  # of a notebook without ipywidgets, where the text bar does
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_STATUS = 2.0  # where a bar is drawn, which moves more often
_LINE = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left{postfix}"
_STATUS_LINE = "{desc}: {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
_STATUS_BAR = "{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_STATUS_WIDGET = "{desc}{bar}{n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_IS_WIDGET = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
_is_silent: ContextVar[bool] = ContextVar("is_silent", default=False)


@contextmanager
def silence(quiet: bool = True) -> Iterator[None]:
    """In the block no bar and no line of `write` is shown, in this thread; nothing changes where
    `quiet` is False."""
    token = _is_silent.set(quiet or _is_silent.get())
    try:
        yield
    finally:
        _is_silent.reset(token)


def write(text: str) -> None:
    """A line on standard output, above a bar that is shown."""
    if not _is_silent.get():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def note(text: str) -> None:
    """A line on standard error, where it is no part of an answer."""
    if not _is_silent.get():
        tqdm.write(text, file=sys.stderr)


def _shows_bars() -> bool:
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel.")
    return _IS_WIDGET or in_notebook or sys.stderr.isatty()


class ProgressBar(tqdm):
    """`with ProgressBar(total, "build") as bar: bar.advance()`, from any thread.

    log_every: seconds between lines where there is no terminal; 0 for none. status: gives more text
    for so many done here, and is called only for what is shown: once a line, on a bar every 2 s.
    initial: done before, as in a resumed epoch.
    """

    def __init__(
        self,
        total: int,
        what: str,
        unit: str = "video",
        *,
        quiet: bool = False,
        log_every: float = _SECONDS_BETWEEN_LINES,
        status: Callable[[int], str] | None = None,
        initial: int = 0,
    ) -> None:
        self._is_bar, quiet = _shows_bars(), quiet or _is_silent.get()
        self._status, self._status_time = status, 0.0
        status_format = _STATUS_WIDGET if _IS_WIDGET else _STATUS_BAR
        options: dict[str, Any] = {"bar_format": status_format} if status else {}
        if not self._is_bar:  # file: takes tqdm's control characters
            options = {"mininterval": log_every, "miniters": 1, "file": io.StringIO()}
            options["bar_format"] = _STATUS_LINE if status else _LINE
            quiet = quiet or not log_every
        super().__init__(
            total=total,
            desc=what,
            unit=f" {unit}s",
            leave=False,
            disable=quiet,
            initial=initial,
            **options,
        )

    def advance(self, count: int = 1) -> None:
        with self.get_lock():
            self.update(count)

    def display(self, msg: str | None = None, pos: int | None = None, **signals: Any) -> Any:
        """Called by tqdm at its start, at updates that are due, and at its end with "".

        signals: of the widget, e.g. that it closes.
        """
        done = self.n - self.initial
        if self._status is not None and done and msg is None and not signals:
            now = time.monotonic()
            if not self._is_bar or now - self._status_time >= _SECONDS_BETWEEN_STATUS:
                self.postfix, self._status_time = self._status(done), now
        if self._is_bar:
            return super().display(msg, pos, **signals)
        if done and msg is None:
            print(str(self), file=sys.stderr, flush=True)
        return True


def track(items: Iterable[T], total: int, what: str, **options: Any) -> Iterator[T]:
    """Yield the steps of a loop and show how far it is. options: of `ProgressBar`."""
    with ProgressBar(total, what, "step", **options) as bar:
        for item in items:
            yield item
            bar.advance()

"""Progress of a long task: tqdm on a terminal, a plain line every 30 s elsewhere (log files)."""

import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_STATUS = 2.0  # on a terminal, whose bar moves more often
_LINE = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left{postfix}"
_STATUS_LINE = "{desc}: {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
_STATUS_BAR = "{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class ProgressBar(tqdm):
    """`with ProgressBar(total, "build") as bar: bar.advance()`, from any thread.

    log_every: seconds between lines where there is no terminal; 0 for none. status: gives more text
    for `n` done, and is called only for what is shown: once a line, on a terminal every 2 s.
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
    ) -> None:
        self._is_bar = sys.stderr.isatty()
        self._status, self._status_time = status, 0.0
        options: dict[str, Any] = {"bar_format": _STATUS_BAR} if status else {}
        if not self._is_bar:  # file: takes tqdm's control characters
            options = {"mininterval": log_every, "miniters": 1, "file": io.StringIO()}
            options["bar_format"] = _STATUS_LINE if status else _LINE
            quiet = quiet or not log_every
        super().__init__(
            total=total, desc=what, unit=f" {unit}s", leave=False, disable=quiet, **options
        )

    def advance(self, count: int = 1) -> None:
        with self.get_lock():
            self.update(count)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Called by tqdm at its start, at updates that are due, and at its end with ""."""
        if self._status is not None and self.n and msg is None:
            now = time.monotonic()
            if not self._is_bar or now - self._status_time >= _SECONDS_BETWEEN_STATUS:
                self.postfix, self._status_time = self._status(self.n), now
        if self._is_bar:
            return super().display(msg, pos)
        if self.n and msg is None:
            print(str(self), file=sys.stderr, flush=True)
        return True


def track(items: Iterable[T], total: int, what: str, **options: Any) -> Iterator[T]:
    """Yield the steps of a loop and show how far it is. options: of `ProgressBar`."""
    with ProgressBar(total, what, "step", **options) as bar:
        for item in items:
            yield item
            bar.advance()

"""Progress of a long task: tqdm on a terminal, a plain line every 30 s elsewhere (log files)."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 30.0
_LINE = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left{postfix}"


class ProgressBar(tqdm):
    """`with ProgressBar(total, "build") as bar: bar.advance()`, from any thread."""

    def __init__(self, total: int, what: str, unit: str = "video", *, quiet: bool = False) -> None:
        self._is_bar = sys.stderr.isatty()
        options: dict[str, Any] = {}
        if not self._is_bar:  # file: takes tqdm's control characters
            options = {"mininterval": _SECONDS_BETWEEN_LINES, "miniters": 1, "bar_format": _LINE}
            options["file"] = io.StringIO()
        super().__init__(
            total=total, desc=what, unit=f" {unit}s", leave=False, disable=quiet, **options
        )

    def advance(self, count: int = 1) -> None:
        with self.get_lock():
            self.update(count)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Called by tqdm at its start, at updates that are due, and at its end with ""."""
        if self._is_bar:
            return super().display(msg, pos)
        if self.n and msg is None:
            print(str(self), file=sys.stderr, flush=True)
        return True


def track(
    items: Iterable[T], total: int, what: str, postfix: Callable[[], str] = lambda: ""
) -> Iterator[T]:
    """Yield the steps of a loop and show how far it is. postfix: gives more text."""
    with ProgressBar(total, what, "step") as bar:
        for item in items:
            yield item
            bar.set_postfix_str(postfix(), refresh=False)
            bar.advance()

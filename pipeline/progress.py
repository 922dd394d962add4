"""Progress of a command: tqdm on a terminal, a plain line every 30 s elsewhere (log files)."""

from __future__ import annotations

import io
import sys
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0
_LINE = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left"


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

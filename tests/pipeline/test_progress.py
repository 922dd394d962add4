"""Progress without a terminal: plain lines, seldom; counts from any thread."""

from __future__ import annotations

import threading

import pytest

from har.pipeline import progress
from har.pipeline.progress import ProgressBar


def test_log_files_get_a_plain_line_at_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar(3, "build") as bar:
        bar.advance(3)  # within the first 30 s
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with ProgressBar(3, "build", quiet=True) as bar:
        bar.advance(2)
    assert capsys.readouterr().err == ""
    with ProgressBar(3, "verify", "shard") as bar:
        bar.advance(2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verify: 2/3, ")
    assert " shards/s, " in line
    assert line.endswith(" left")


def test_threads_lose_no_count() -> None:
    with ProgressBar(4000, "build") as bar:
        threads = [
            threading.Thread(target=lambda: [bar.advance() for _ in range(1000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bar.n == 4000

"""Progress without a terminal: plain lines, seldom; counts from any thread, every item once."""

import threading

import pytest

from har import progress
from har.progress import ProgressBar


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


def test_a_tracked_loop_gives_every_item_and_lines_only_when_it_is_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(progress.track(range(3), 3, "epoch 1")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    assert list(progress.track(range(3), 3, "epoch 1", lambda: "1% waiting")) == [0, 1, 2]
    text = capsys.readouterr().err
    assert "epoch 1: 2/3, " in text
    assert " left, 1% waiting" in text
    assert "\r" not in text


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

"""Progress without a terminal: plain lines, seldom; counts from any thread, every item once."""

import io
import sys
import threading
from types import SimpleNamespace

import pytest

from har import progress
from har.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_files_get_a_plain_line_at_times(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(3, "build") as bar:
        bar.advance(3)  # within the first 30 s
    for options in ({"quiet": True, "log_every": 1e-9}, {"log_every": 0}):
        with ProgressBar(3, "build", **options) as bar:
            bar.advance(2)
    assert capsys.readouterr().err == ""
    with ProgressBar(3, "verify", "shard", log_every=1e-9) as bar:
        bar.advance(2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verify: 2/3, ")
    assert " shards/s, " in line
    assert line.endswith(" left")


def test_a_tracked_loop_gives_every_item_and_lines_only_when_it_is_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(progress.track(range(3), 3, "epoch 1")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    status = {"log_every": 1e-9, "status": lambda n: f"loss of {n}"}
    assert list(progress.track(range(3), 3, "epoch 1", **status)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"epoch 1: {n}/3 steps" for n in (1, 2, 3)
    ]
    assert [line.rpartition(", ")[2] for line in lines] == [f"loss of {n}" for n in (1, 2, 3)]


def test_a_bar_on_a_terminal_asks_for_its_status_every_two_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asked = [100.0], []
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("har.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    bar = ProgressBar(9, "epoch 1", status=lambda n: asked.append(n) or f"loss of {n}")
    for seconds in (0.0, 0.5, 1.0, 0.4, 0.3, 2.0):
        now[0] += seconds
        bar.advance()
        bar.refresh()
    bar.close()
    assert asked == [1, 5, 6]
    assert "epoch 1 6/9 [" in terminal.getvalue()
    assert "loss of 6" in terminal.getvalue()


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

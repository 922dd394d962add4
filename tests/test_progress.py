"""Progress without a terminal: plain lines, seldom; counts from any thread, every item once."""

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
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
    assert list(progress.track(range(2, 4), 4, "epoch 1", initial=2, **status)) == [2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"epoch 1: {n}/4 steps" for n in (3, 4)]
    assert [line.rpartition(", ")[2] for line in lines] == ["loss of 1", "loss of 2"]


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


def test_a_silent_block_shows_neither_bars_nor_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.silence(), progress.silence(False):
        progress.write("a line")
        assert list(progress.track(range(3), 3, "epoch 1", log_every=1e-9)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    with progress.silence(False):
        progress.write("a line")
    assert capsys.readouterr().out == "a line\n"


WIDGETS = """
class Widget:
    def __init__(self, children=(), min=0, max=0):
        self.children, self.min, self.max, self.value = children, min, max, ""
        self.bar_style, self.closed = "", False
        self.layout, self.style = type("Layout", (), {})(), type("Style", (), {})()

    def close(self):
        self.closed = True

class HBox(Widget): pass
class HTML(Widget): pass
class FloatProgress(Widget): pass
"""
KERNEL = """
class Kernel:
    config = {"IPKernelApp": {}}  # what tqdm asks for before 4.67


def get_ipython():
    return Kernel()
"""
NOTEBOOK = """
import sys, warnings
warnings.simplefilter("error")
import ipykernel.zmqshell
import IPython.display
from har import progress

now = [0.0]
progress.time = type(progress)("time")
progress.time.monotonic = lambda: now[0]
asked = []
with progress.ProgressBar(4, "epoch 1", status=lambda n: asked.append(n) or f"loss <{n}>") as bar:
    bar.mininterval = 0
    for seconds in (2.0, 0.5, 2.0):
        now[0] += seconds
        bar.advance()
(box,) = IPython.display.shown
text, line, status = box.children
print(asked, line.max, line.value, box.closed, line.bar_style)
print((text.value + "|" + status.value).replace("\\u2007", " "))
assert list(progress.track("ab", 2, "short")) == ["a", "b"]
print(IPython.display.shown[1].closed)
progress.write("a line between")
with progress.silence(), progress.ProgressBar(1, "silent") as bar:
    bar.advance()
print(len(IPython.display.shown), sys.stdout is sys.__stdout__)
"""


def test_a_notebook_gets_a_bar_that_is_a_widget(tmp_path: Path) -> None:
    """With the modules that tqdm looks for in a notebook, and its widgets kept as they are told."""
    files = {
        "ipykernel/__init__.py": "",
        "ipykernel/zmqshell.py": "",
        "IPython/__init__.py": KERNEL,
        "IPython/display.py": "shown = []\ndisplay = shown.append\n",
        "ipywidgets.py": WIDGETS,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "[1, 3] 4 3 False danger"  # it stays, in red: one step was not done
    assert re.fullmatch(r"epoch 1\|3/4 \[\d\d:\d\d&lt;\d\d:\d\d, loss &lt;3&gt;\]", lines[1])
    assert lines[2:] == ["True", "a line between", "2 True"]


def test_in_a_notebook_without_widgets_the_bar_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutStream(io.StringIO):
        """The kernel's standard error, which is no terminal."""

    OutStream.__module__ = "ipykernel.iostream"
    monkeypatch.setattr(sys, "stderr", stream := OutStream())
    with ProgressBar(3, "build") as bar:
        bar.advance(3)
    assert "\rbuild:   0%" in stream.getvalue()
    kernel = (
        "import sys, types; app = types.SimpleNamespace(config={'IPKernelApp': {}});"
        "sys.modules |= {'IPython': types.SimpleNamespace(get_ipython=lambda: app),"
        "                'ipywidgets': None, 'IPython.html': None, 'IPython.html.widgets': None};"
        "import har.progress"
    )
    run = [sys.executable, "-c", kernel]  # tqdm would warn that "IProgress" was not found
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

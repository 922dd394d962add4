"""A process that has the libraries loaded and forks one process for each command of the project.

A command then starts in milliseconds, in the environment that the server was started with, and ends
as any process does (exit handlers run, signals arrive).
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from commands import load_command

_PRELOAD = ("torch", "torchvision", "av", "numba", "matplotlib.figure", "har.training.loop")


class CommandServer:
    """Runs commands in `cwd` with `environment` and nothing else of this process's environment."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import command_server; command_server.serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd,
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip

    def start(self, words: list[str], out: Path, settings: dict[str, object] | None = None) -> int:
        """Start `har-... words`, its output into the file `out`; -> its process id.

        settings: module constants to change first, {"har.pipeline.x.NAME": value}.
        """
        self._send({"words": words, "out": str(out), "settings": settings or {}})
        return int(self._receive())

    def wait(self) -> int:
        """-> the exit code of the command that was started last; -N where signal N ended it."""
        self._send({"wait": True})
        return int(self._receive())

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the command server died"
        return line


def serve() -> None:
    """Read requests, a line of JSON each, until the input ends; answer each with a number."""
    for name in _PRELOAD:
        importlib.import_module(name)
    child = 0
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            _exit(_run(**request))
        print(child, flush=True)


def _run(words: list[str], out: str, settings: dict[str, Any]) -> int:
    """Run the command `words` in this process; -> its exit code."""
    output = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(source, target)
    sys.stdin = open(0)  # noqa: SIM115
    sys.argv = words
    for name, value in settings.items():
        module, constant = name.rsplit(".", 1)
        setattr(importlib.import_module(module), constant, value)
    try:
        load_command(words[0])()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _exit(code: int) -> None:
    """End this process as the interpreter does, without freeing memory: that takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

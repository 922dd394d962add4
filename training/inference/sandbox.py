"""Run a function in a process of its own, with a time limit: for files that strangers send.

FFmpeg reads what nobody has checked; there it can crash or hang only the child. One child is kept
from call to call (it has imported what it needs), and replaced after a crash or a hang.

Odd: this is for `har-serve` alone. A build has `har.pipeline.decode.decoder_process`, which streams thousands of
videos through pipes; here one call at a time goes through the standard library's pool.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Lock
from typing import Any, TypeVar

from ...errors import HarError

T = TypeVar("T")


class SandboxError(HarError):
    """The child crashed, or took too long and was ended; one sentence."""


class Sandbox:
    """One child process. most_bytes: of its address space (Linux; elsewhere not limited)."""

    def __init__(self, most_bytes: int = 8 << 30) -> None:
        self._most_bytes, self._lock = most_bytes, Lock()
        self._pool: ProcessPoolExecutor | None = None

    def call(self, function: Callable[..., T], *args: Any, seconds: float) -> T:
        """function(*args) in the child -> its value; its own exceptions pass through.

        The function must be importable. Raises SandboxError when it takes longer than `seconds`.
        """
        with self._lock:
            pool = self._pool = self._pool or self._start()
            try:
                return pool.submit(function, *args).result(seconds)
            except TimeoutError as error:
                self._kill()
                raise SandboxError(f"it took longer than {seconds:g} s and was ended.") from error
            except BrokenProcessPool as error:
                self._kill()
                raise SandboxError("the decoder crashed on it.") from error

    def close(self) -> None:
        """End the child."""
        self._kill()

    def _start(self) -> ProcessPoolExecutor:
        # spawn: a forked child of a process with threads may hang in a lock that nobody holds
        return ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), _limit, (self._most_bytes,)
        )

    def _kill(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        children = list((pool._processes or {}).values())
        for child in children:
            child.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _limit(most_bytes: int) -> None:
    """In the child: no more memory than this, no core dump, no Ctrl-C of the terminal."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

"""Decoding in a child process, so that a file that hangs or crashes the decoder costs only itself.

FFmpeg reads files that nobody has checked: it can run for ever, take all memory or crash. A
`DecoderProcess` runs one function on one file after another in a child, with a time limit and a
memory limit, and replaces the child after a hang or a crash. Builds and `har-serve` use it.

Notes:
- The child is a plain subprocess, not one of multiprocessing: it works inside any executor's worker
  (Dask's are daemons, which may not have multiprocessing children).
- Nothing that the child sends is unpickled: an answer is JSON, and pixels come over in memory that
  both share, a file without a name. Through a pipe a clip of 1 MB was copied twice more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ...errors import HarError
from ..sampling import ClipSampler
from . import clips
from .container import FILE_FAULTS, reason

# One thread a process; and freed frames stay with the process instead of being unmapped and faulted
# in again for the next video (0.7 of 10.5 ms a video).
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
}
_START_SECONDS = 120.0
_MAX_ANSWER_BYTES = 64 << 20
_NUM_SLOTS = 2  # of shared memory: one is read while the child fills the next


class DecoderError(HarError):
    """The file gives nothing: one sentence, in which "it" is the file."""


class DecoderDiedError(DecoderError):
    """The child ended while it worked on the file."""


class DecoderStoppedError(HarError):
    """`stop` was called: there is no answer."""


class DecoderStartError(HarError):
    """The child cannot even be started; the text is one sentence."""


class DecoderFunctionError(RuntimeError):
    """The function itself failed, whatever the file; the text is the child's traceback."""


class DecoderProcess:
    """One child process, which calls `function(path, out, *args)` for one file after another.

    function: importable by name (no lambda, no closure). It decodes the file `path` (a str), may
    write into `out` (uint8 [num_bytes], shared memory) and returns JSON data; `args` are JSON data
    too. When it raises HarError or one of FILE_FAULTS, that is the file's fault (DecoderError);
    anything else is a fault of the function (DecoderFunctionError).
    timeout: seconds for one file. memory_limit: bytes of address space that the child may take
    beyond what its imports take (Linux; torch 2.10 maps 4.9 GB, 2.15 3.2); None = no limit.

    A web page, from any thread, one file at a time:

        process = DecoderProcess(decode_upload, num_bytes=..., timeout=60, memory_limit=5 << 30)
        value, out = process.call(path, argument)  # raises DecoderError: one sentence
        pixels = out.reshape(V, T, H, W, 3).copy()  # `out` is valid until the next call
        process.kill()  # at the end

    A build keeps the child busy with the next video: `submit` (at most two files at a time), then
    `result` for the oldest, both in one thread; `stop` may come from any.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        num_bytes: int,
        timeout: float,
        memory_limit: int | None = None,
    ) -> None:
        self._num_bytes, self._timeout, self._memory_limit = num_bytes, timeout, memory_limit
        self._function = (function.__module__, function.__name__)
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._memory = np.empty((0, 0), np.uint8)
        self._num_answers = 0  # of this child
        self._is_ready = self._is_stopped = False  # ready: the child's imports are done
        self._lock = threading.Lock()
        self.num_queued = 0  # files submitted and not answered

    def call(self, path: Path | str, *args: Any) -> tuple[Any, np.ndarray]:
        """`submit` and `result`; callers in several threads wait for each other."""
        with self._lock:
            self.submit(path, *args)
            return self.result()

    def submit(self, path: Path | str, *args: Any) -> None:
        """Queue a file. Starts the child if there is none."""
        if self._connection is None:
            self._connection = self._start()
        if self._is_stopped:  # looked at after the start: `stop` may come from another thread
            raise self._ended()
        try:
            self._connection.send_bytes(json.dumps([str(path), *args]).encode())
        except OSError as error:
            raise self._ended() from error
        self.num_queued += 1

    def result(self) -> tuple[Any, np.ndarray]:
        """(value, out) of the oldest file submitted; `out` stays as it is until the next `submit`.

        Raises DecoderError, DecoderFunctionError, DecoderStartError and DecoderStoppedError.
        """
        if not self._is_ready:  # the time of the imports is not the file's
            self._receive(_START_SECONDS)
            self._is_ready = True
        answer = json.loads(self._receive(self._timeout))
        out = self._memory[self._num_answers % _NUM_SLOTS]
        self.num_queued -= 1
        self._num_answers += 1
        if "error" in answer:
            raise DecoderFunctionError(answer["error"])
        if "fault" in answer:
            raise DecoderError(answer["fault"])
        return answer["value"], out

    def kill(self) -> None:
        """End the child at once, if there is one."""
        child, connection = self._child, self._connection
        self._child = self._connection = None
        self.num_queued, self._num_answers, self._is_ready = 0, 0, False
        if connection:
            connection.close()
        if child:
            child.kill()
            child.wait()

    def stop(self) -> None:
        """End the child, from any thread, for good: who waits gets DecoderStoppedError."""
        self._is_stopped = True
        child = self._child
        if child:
            child.kill()

    def _start(self) -> Connection:
        connection, child_end = Pipe()
        with child_end, _unnamed_file(_NUM_SLOTS * self._num_bytes) as memory:
            self._memory = _map_memory(memory.fileno(), self._num_bytes)
            descriptors = (child_end.fileno(), memory.fileno())
            arguments = (*descriptors, self._num_bytes, self._timeout, self._memory_limit)
            program = f"from {__name__} import main; main(*{(*self._function, *arguments)})"
            self._child = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,  # Ctrl-C is for the parent, which ends the child
                pass_fds=descriptors,
            )
        return connection

    def _receive(self, timeout: float) -> bytes:
        if self._connection is None:
            raise DecoderStoppedError("the decoder was stopped.")
        try:
            if self._connection.poll(timeout):
                return self._connection.recv_bytes(_MAX_ANSWER_BYTES)
        except (OSError, EOFError) as error:
            raise self._ended() from error
        raise self._ended(is_late=True)

    def _ended(self, is_late: bool = False) -> HarError:
        """End the child; -> what it means that it gave no answer."""
        code, is_ready = 0, self._is_ready
        if self._child and not is_late and not self._is_stopped:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._child.wait(timeout=5)  # it closed its end: it is on its way out
        self.kill()
        if self._is_stopped:
            return DecoderStoppedError("the decoder was stopped.")
        if not is_ready:
            return DecoderStartError(
                "the decoder process does not start: "
                f"'python -c \"import {self._function[0]}\"' says why."
            )
        if is_late:
            return DecoderError(f"no answer within {self._timeout:g} s.")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return DecoderDiedError(f"the decoder died of it ({how}).")


def _unnamed_file(num_bytes: int) -> IO[bytes]:
    """A file that only its holders know, in memory where the system has that."""
    file: IO[bytes]
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("har-decoder"), "w+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
    os.ftruncate(file.fileno(), num_bytes)
    return file


def _map_memory(descriptor: int, num_bytes: int) -> np.ndarray:
    """uint8 [slots, num_bytes], in memory shared by all who map that file."""
    shared = mmap.mmap(descriptor, _NUM_SLOTS * num_bytes)
    return np.frombuffer(shared, np.uint8).reshape(_NUM_SLOTS, num_bytes)


def main(
    module: str, name: str, socket: int, memory: int, num_bytes: int, timeout: float,
    memory_limit: int | None,
) -> None:  # fmt: skip
    """The child: answer until the parent closes its end. socket, memory: file descriptors."""
    connection, slots = Connection(socket), _map_memory(memory, num_bytes)
    function = getattr(importlib.import_module(module), name)
    _limit_memory(memory_limit)
    torch.set_num_threads(1)
    freeze_imports()
    connection.send_bytes(b"ready")
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        for number in itertools.count():
            path, *args = json.loads(connection.recv_bytes())
            # a parent that was killed cannot end a child that hangs: SIGALRM's default does
            signal.setitimer(signal.ITIMER_REAL, timeout * 1.5 + 5)
            answer = _answer(function, path, slots[number % _NUM_SLOTS], args)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(json.dumps(answer).encode())


def _answer(
    function: Callable[..., Any], path: str, out: np.ndarray, args: list[Any]
) -> dict[str, Any]:
    try:
        return {"value": function(path, out, *args)}
    except (HarError, *FILE_FAULTS) as error:
        text = str(error)
        if not isinstance(error, HarError):
            text = f"it cannot be decoded ({reason(error)})."
        return {"fault": text.replace(path, "it")}  # the same wherever the file lies
    except Exception:
        return {"error": traceback.format_exc()}


def _limit_memory(memory_limit: int | None) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system has these
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_limit is not None:
            num_pages = int(Path("/proc/self/statm").read_text().split()[0])
            memory_limit += num_pages * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))


def freeze_imports() -> None:
    """Leave what the imports made out of every later garbage collection.

    Hundreds of packets a video set it off often, and each time it went through all of torch. The
    process ends faster, too: 0.15 s of CPU time instead of 0.55.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def decode_into(
    path: str, out: np.ndarray, sampler: dict[str, Any], size: tuple[int, int], keep_partial: bool,
    fit: str = "squeeze",
) -> list[dict[str, Any]]:  # fmt: skip
    """`decode_clips` as the function of a DecoderProcess.

    sampler: the fields of a ClipSampler. Fills `out` with the pixels of K clips, uint8 [K,T,H,W,3];
    -> the other fields of each Clip.
    """
    T, pixels = sampler["frames"], out.reshape(-1, *size, 3)  # [K*T,H,W,3]
    decoded = clips.decode_clips(
        path, ClipSampler(**sampler), (size[0], size[1]),
        fit=fit, keep_partial=keep_partial, out=pixels,
    )  # fmt: skip
    for view, clip in enumerate(decoded):
        target = pixels[view * T : (view + 1) * T]
        if not np.may_share_memory(target, clip.pixels):  # else it was made there
            target[:] = clip.pixels
    return [
        {name: value for name, value in vars(clip).items() if name != "pixels"} for clip in decoded
    ]

"""Decoding in a process of its own, so that a video that hangs or crashes costs only itself.

FFmpeg reads files that nobody has checked: it can run forever or take the process with it. The
child decodes one video after the other; the parent asks by a line of JSON and gets a line of JSON
back, and pixels. `ask` may run one video ahead, so that the child decodes the next one while the
parent hashes and writes this one.

Odd:
- A plain subprocess and pipes, not multiprocessing: it works inside any executor's worker (Dask's
  are daemons, which may not have multiprocessing children), and nothing is pickled. The child sets
  an alarm clock that ends it, so that it does not outlive a parent that was killed.
- Pixels come over in memory that both share, a file without a name: nothing is left of it when both
  are gone. Through a pipe a clip of 1 MB was copied twice more, into fresh pages each time.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import HarError
from ..sampling import ClipSampler

# One thread a process; and freed frames stay with the process instead of being unmapped and faulted
# in again for the next video (0.7 of 10.5 ms a video).
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
}
_START_SECONDS = 120.0
_SLOTS = 2  # answers: one is being read while the child makes the next


class DecoderDied(HarError):  # noqa: N818 - an event, said as one
    """The child ended while it worked on a video."""


class DecoderHung(HarError):  # noqa: N818
    """The child gave no answer in time, and was killed."""


class DecoderBroken(HarError):  # noqa: N818
    """The child cannot even be started; the text is one sentence."""


class Decoder:
    """One child. `ask(path)`, then `answer()`; after a death the next `ask` starts another child.

    answer(): a list of (pixels uint8 [T,H,W,3], facts) with facts numbers, padded, decoded,
    declared, fps; or a str, the one sentence why the video gives none. The pixels are the child's
    memory: they stay as they are until the next `ask`. Raises DecoderDied and DecoderHung.
    """

    def __init__(
        self, sampling: ClipSampler, size: tuple[int, int], *, keep_partial: bool, timeout: float
    ) -> None:
        self._shape = (_SLOTS, sampling.clips, sampling.frames, *size, 3)
        self._timeout = timeout
        self._options = {
            "sampling": asdict(sampling),
            "size": size,
            "keep_partial": keep_partial,
            "timeout": timeout,
        }
        self._child: subprocess.Popen[bytes] | None = None
        self._shared = np.empty(0, np.uint8)  # of `_shape`
        self._answers = 0  # the child has given
        self._is_ready = False  # its imports are done
        self._is_ended = False  # for good
        self.queued = 0  # videos asked for and not answered
        self.kind: object = None  # for who keeps decoders to find one that fits

    def ask(self, path: Path) -> None:
        """Queue a video; at most two may be queued."""
        if self._child is None:
            self._start()
        if self._is_ended:  # looked at after the start: `end` may come from another thread
            self.kill()
            raise DecoderDied("the decoder was stopped")
        self._send(str(path))
        self.queued += 1

    def answer(self) -> list[tuple[np.ndarray, dict[str, Any]]] | str:
        """Of the oldest video asked for."""
        if not self._is_ready:  # imports are not the video's fault
            self._line(time.monotonic() + _START_SECONDS)
            self._is_ready = True
        deadline = time.monotonic() + self._timeout
        header = json.loads(self._line(deadline))
        self.queued -= 1
        slot = self._shared[self._answers % _SLOTS]
        self._answers += 1
        if "fault" in header:
            return str(header["fault"])
        return list(zip(slot, header["clips"], strict=False))

    def kill(self) -> None:
        """End the child at once; harmless where there is none."""
        child, self._child = self._child, None
        self.queued, self._is_ready = 0, False
        if child:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                _close(pipe)

    def end(self) -> None:
        """Make the child end, from any thread, and no other start; who waits gets DecoderDied."""
        self._is_ended = True
        child = self._child
        if child:
            child.kill()

    def _start(self) -> None:
        size = math.prod(self._shape)
        with _nameless(size) as memory:
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from har.pipeline.decode.decoder_process import serve; serve()",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,  # Ctrl-C is for the parent, which ends the child
                pass_fds=(memory.fileno(),),
            )
            self._shared = _mapped(memory.fileno(), self._shape)
            self._answers = 0
            self._send(json.dumps({**self._options, "memory": memory.fileno()}))

    def _send(self, text: str) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(text).encode() + b"\n")
        except OSError as error:
            raise self._died() from error

    def _line(self, deadline: float) -> bytes:
        """A header, length first: 8 hex digits, then as many bytes."""
        length = bytearray(8)
        self._fill(memoryview(length), deadline)
        line = bytearray(int(length, 16))
        self._fill(memoryview(line), deadline)
        return bytes(line)

    def _fill(self, room: memoryview, deadline: float) -> None:
        if self._child is None or self._child.stdout is None:
            raise DecoderDied("the decoder was stopped")
        pipe = self._child.stdout.fileno()
        while room:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                error = self._unstarted() or DecoderHung(f"no answer within {self._timeout:g} s")
                self.kill()
                raise error
            count = os.readv(pipe, [room])
            if count == 0:
                raise self._died()
            room = room[count:]

    def _unstarted(self) -> DecoderBroken | None:
        if self._is_ready or self._is_ended:
            return None
        return DecoderBroken(
            "the decoder process does not start: "
            "'python -c \"import torch, har.pipeline.decode.clips\"' says why."
        )

    def _died(self) -> DecoderDied | DecoderBroken:
        broken = self._unstarted()
        if broken:
            self.kill()
            return broken
        child = self._child
        code = child.wait() if child else 0
        self.kill()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return DecoderDied(f"the decoder died of it ({how})")


def _close(pipe: IO[bytes] | None) -> None:
    if pipe:
        with contextlib.suppress(OSError):  # what was still to be written is of no use any more
            pipe.close()


def _nameless(size: int) -> IO[bytes]:
    """A file of `size` bytes that only its holders know, in memory where the system has that."""
    file: IO[bytes]
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("har-decoder"), "w+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
    os.ftruncate(file.fileno(), size)
    return file


def _mapped(descriptor: int, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of `shape`, in memory shared by all who map that file."""
    return np.frombuffer(mmap.mmap(descriptor, math.prod(shape)), np.uint8).reshape(shape)


def serve() -> None:
    """The child: answer until the parent closes the pipe."""
    asked = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not land between the answers
    options = json.loads(json.loads(asked.readline()))
    import torch

    from . import clips as decode

    torch.set_num_threads(1)
    settle()
    _send_all(answers, _framed({"ready": True}))
    sampling, size = ClipSampler(**options["sampling"]), tuple(options["size"])
    shared = _mapped(options["memory"], (_SLOTS, sampling.clips, sampling.frames, *size, 3))
    for number, line in enumerate(asked):
        # a parent that was killed cannot stop a hanging decoder: SIGALRM's default ends us
        signal.setitimer(signal.ITIMER_REAL, options["timeout"] * 1.5 + 5)
        path, slot = json.loads(line), shared[number % _SLOTS]
        try:
            clips = decode.decode_clips(
                path, sampling, size, keep_partial=options["keep_partial"],
                out=slot.reshape(-1, *size, 3),
            )  # fmt: skip
        except Exception as error:
            _send_all(answers, _framed({"fault": _sentence(error, path)}))
        else:
            facts = [
                {name: value for name, value in vars(clip).items() if name != "pixels"}
                for clip in clips
            ]
            for place, clip in zip(slot, clips, strict=False):
                if not np.may_share_memory(place, clip.pixels):  # else it was made there
                    place[:] = clip.pixels
            _send_all(answers, _framed({"clips": facts}))
        signal.setitimer(signal.ITIMER_REAL, 0)


def settle() -> None:
    """Leave what the imports made out of every later garbage collection.

    Hundreds of packets a video set it off often, and each time it went through all of torch.
    """
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def _sentence(error: Exception, path: str) -> str:
    """Without the path: the same fault reads the same wherever the videos lie."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return text.replace(path, "it").removesuffix(".")


def _framed(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return b"%08x" % len(text) + text


def _send_all(pipe: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(pipe, rest) :]

"""The decoder processes of this process, kept between shard tasks: starting one costs a second."""

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterator

from ..decode.decoder_process import DecoderProcess, DecoderStoppedError, decode_into

_Key = tuple[int, float, int]  # what a decoder was started for, and by which process


class DecoderPool:
    """max_decoders: so many are in use at a time, who wants one more waits; None = any number."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._idle: dict[_Key, list[DecoderProcess]] = defaultdict(list)
        self._in_use: list[DecoderProcess] = []
        self._is_stopped = False
        self.max_decoders: int | None = None

    @contextlib.contextmanager
    def acquire(self, num_bytes: int, timeout: float) -> Iterator[DecoderProcess]:
        """A decoder of clips for the length of the block. Raises DecoderStoppedError."""
        key = (num_bytes, timeout, os.getpid())
        with self._changed:
            self._changed.wait_for(self._is_free)
            if self._is_stopped:
                raise DecoderStoppedError("the build was stopped.")
            if not self._idle[key]:
                new = DecoderProcess(decode_into, num_bytes=num_bytes, timeout=timeout)
                self._idle[key].append(new)
            decoder = self._idle[key].pop()
            self._in_use.append(decoder)
        try:
            yield decoder
        except BaseException:
            decoder.kill()  # it may be in the middle of an answer
            raise
        finally:
            with self._changed:
                self._in_use.remove(decoder)
                self._idle[key].append(decoder)
                self._changed.notify()

    def stop(self) -> None:
        """End all children now; tasks that use or wait for one get DecoderStoppedError."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
            for decoder in self._in_use:
                decoder.stop()

    def close(self) -> None:
        """End the children that have nothing to do; the pool can be used again."""
        with self._changed:
            for decoder in (decoder for idle in self._idle.values() for decoder in idle):
                decoder.kill()
            self._idle.clear()
            self._is_stopped, self.max_decoders = False, None

    def _is_free(self) -> bool:
        most = self.max_decoders
        return self._is_stopped or most is None or len(self._in_use) < most

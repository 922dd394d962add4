"""A new file, written once from its start to its end, past the page cache where that can be.

A shard set is larger than memory or soon will be. In the page cache, each new shard pushes out what
others need, and on a virtual machine whose host has to find the memory first, that took up to 3 ms
a clip. Written directly a clip takes 0.15 ms, and `verify` reads what the disk holds.

Odd: O_DIRECT wants whole blocks at aligned addresses, so bytes are gathered in a buffer of whole
pages, and the last ones go the ordinary way. A file system that takes no direct writes says so
at the open or at a write; the rest then goes the ordinary way, its pages are dropped at the end.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

_BUFFER = 1 << 20  # bytes; a decoder is two clips (2 MB) ahead, so a write need not hold it up
_BLOCK = 4096  # of most disks; the others have 512
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP)


class DirectFile:
    """`write` any bytes, `finish`, `close`. Raises OSError, of bytes taken earlier too.

    is_scratch: the file is read again at once and need not outlive the machine: it stays in the
    page cache and is not synced.
    """

    def __init__(self, path: Path, *, is_scratch: bool = False) -> None:
        self._is_scratch = is_scratch
        self._direct = 0 if is_scratch else getattr(os, "O_DIRECT", 0)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, flags | self._direct, 0o666)
        except OSError as error:
            if error.errno not in _REFUSALS or not self._direct:
                raise
            self._direct = 0
            self._descriptor = os.open(path, flags, 0o666)
        self._is_open = True
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER))
        self._used = 0

    def write(self, part: bytes | memoryview) -> None:
        """Take all of `part`, bytes one behind the other."""
        rest = memoryview(part)
        while rest:
            count = min(len(rest), _BUFFER - self._used)
            self._buffer[self._used : self._used + count] = rest[:count]
            self._used, rest = self._used + count, rest[count:]
            if self._used == _BUFFER:
                self._used = 0
                self._put(self._buffer)

    def finish(self) -> None:
        """All that was written is in the file, and on the disk; `write` no more."""
        whole = self._used - self._used % _BLOCK
        self._put(self._buffer[:whole])
        self._go_plain()
        self._put(self._buffer[whole : self._used])
        self._used = 0
        if not self._is_scratch:
            os.fsync(self._descriptor)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Without `finish` before, the last bytes are lost. Harmless when called again."""
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)

    def _put(self, part: memoryview) -> None:
        while part:
            try:
                part = part[os.write(self._descriptor, part) :]
            except OSError as error:
                if error.errno not in _REFUSALS or not self._direct:
                    raise
                self._go_plain()

    def _go_plain(self) -> None:
        if self._direct:
            import fcntl

            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~self._direct)
            self._direct = 0

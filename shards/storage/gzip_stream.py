"""A gzip file that is read through once, and then anywhere.

On the way the state of the decompressor is kept every few megabytes of content (40 kB each); a part
is read from the last one before it.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_POINT_BYTES = 4 << 20  # between two kept states, or a thousandth of the file
_GZIP = 31  # zlib's window size for gzip


class GzipStream:
    """A gzip file: `read` from the first byte on, and `blocks` of any part that has been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._interval = max(_POINT_BYTES, path.stat().st_size // 1000)
        self._points: list[tuple[int, int, Any]] = []  # (offset, place in the file, state)
        self._stream = self._decompress(0, 0, zlib.decompressobj(_GZIP), self._points)
        self._rest = b""

    def read(self, size: int) -> bytes:
        blocks, num_bytes = [self._rest], len(self._rest)
        while num_bytes < size and (block := next(self._stream, b"")):
            blocks.append(block)
            num_bytes += len(block)
        data = b"".join(blocks)
        self._rest = data[size:]
        return data[:size]

    def blocks(self, start: int, size: int) -> Iterator[bytes]:
        """The `size` bytes from offset `start` on, in pieces."""
        number = bisect_right(self._points, start, key=lambda point: point[0]) - 1
        offset, place, state = self._points[number]
        for block in self._decompress(offset, place, state.copy()):
            piece = block[max(0, start - offset) : start + size - offset]
            offset += len(block)
            if piece:
                yield piece
            if offset >= start + size:
                return

    def _decompress(
        self, offset: int, place: int, state: Any, points: list[Any] | None = None
    ) -> Iterator[bytes]:
        """Blocks from a state on. points: where to keep further states."""
        with self._path.open("rb", buffering=0) as file:
            while True:
                if points is not None and (not points or offset - points[-1][0] >= self._interval):
                    points.append((offset, place, state.copy()))
                file.seek(place)
                data = file.read(1 << 16)
                if not data and not state.eof:
                    raise EOFError("it ends early")
                if state.eof:  # the next of several gzip files, one behind the other
                    if not data.strip(b"\0"):
                        return
                    state = zlib.decompressobj(_GZIP)
                block = state.decompress(data)
                place += len(data) - len(state.unused_data)
                offset += len(block)
                if block:
                    yield block

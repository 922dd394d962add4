"""Write one shard: a plain tar of KEY.npy, KEY.cls and KEY.json, whole or not there.

The bytes are a function of the samples alone: times, owners and modes are fixed, JSON keys are
sorted. The tar goes under a temporary name; `close` syncs and renames it.

`KEY.json` carries a checksum of itself (`xxh3`), so that `verify` can name the sample with a wrong
bit, whichever member it is in.
"""

import contextlib
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from ...atomic import commit, temporary_name
from ..storage import Folder, writer_id
from .schema import ShardInfo

BLOCK = 512
_SORTED = json.JSONEncoder(sort_keys=True)
END = bytes(2 * BLOCK)  # a tar ends with two empty blocks


class ShardWriter:
    """`with ShardWriter(path) as shard: ... shard.close()`; without `close` there is no shard.

    writer: part of the temporary name, where two processes may write the same shard.
    """

    def __init__(self, path: Path, writer: str = "") -> None:
        self._path, self._temporary = path, temporary_name(path, writer)
        self._file = open(self._temporary, "wb")  # noqa: SIM115 - closed by __exit__
        self._checksum = xxhash.xxh3_128()
        self._offset = self._num_samples = 0

    def add(
        self, key: str, pixels: np.ndarray, label: int, metadata: dict[str, Any]
    ) -> tuple[int, int]:
        """Append one sample; -> (offset of its first pixel, xxh3_64 of its pixels).

        pixels: uint8 [T,H,W,C], C order. metadata: what KEY.json holds.
        """
        npy = npy_header(pixels.shape)
        data = np.ascontiguousarray(pixels).data.cast("B")
        start = self._offset + BLOCK + len(npy)
        size = len(npy) + len(data)
        rest = padding(size)
        rest += tar_member(f"{key}.cls", str(label).encode())
        rest += tar_member(f"{key}.json", encode_metadata(metadata))
        self._write(tar_header(f"{key}.npy", size) + npy, data, rest)
        self._num_samples += 1
        return start, xxhash.xxh3_64_intdigest(data)

    def close(self) -> ShardInfo:
        """End the tar, sync it and give it its name."""
        self._write(END)
        self._file.close()
        commit(self._temporary, self._path)
        digest = self._checksum.hexdigest()
        return ShardInfo(self._path.name, self._num_samples, self._offset, digest)

    @property
    def num_bytes(self) -> int:
        """What the tar takes so far."""
        return self._offset

    def _write(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            self._checksum.update(part)
            self._offset += len(part)
            self._file.write(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()  # a full disk is said here once more
        finally:
            self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def write_shard(folder: Folder, name: str) -> Iterator[ShardWriter]:
    """The writer of a shard in a folder or behind a URL, where it is put whole at the end."""
    with folder.staged(name) as path, ShardWriter(path, writer_id()) as writer:
        yield writer


def sample_bytes(shape: tuple[int, ...], json_bytes: int = 1024) -> int:
    """Most bytes a sample of `shape` takes in a shard, if its JSON has at most `json_bytes`."""
    size = len(npy_header(shape)) + int(np.prod(shape))
    return 3 * BLOCK + size + len(padding(size)) + BLOCK + json_bytes


@functools.cache
def npy_header(shape: tuple[int, ...]) -> bytes:
    """What stands before the pixels in a .npy of uint8, C order."""
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def encode_metadata(metadata: dict[str, Any]) -> bytes:
    """KEY.json: sorted, with the checksum of the rest of itself under "xxh3"."""
    rest = {name: value for name, value in metadata.items() if name != "xxh3"}
    checksum = xxhash.xxh3_64_hexdigest(_SORTED.encode(rest).encode())
    return _SORTED.encode({**rest, "xxh3": checksum}).encode()


def decode_metadata(body: bytes | memoryview) -> dict[str, Any] | None:
    """What a KEY.json holds; None where it is not what its checksum was made of."""
    try:
        metadata: dict[str, Any] = json.loads(bytes(body))
        return metadata if encode_metadata(metadata) == body else None
    except (ValueError, AttributeError):
        return None


def padding(size: int) -> bytes:
    """Up to the next whole block."""
    return bytes(-size % BLOCK)


def tar_member(name: str, body: bytes) -> bytes:
    """Header, body and padding of one file of a tar."""
    return tar_header(name, len(body)) + body + padding(len(body))


def tar_header(name: str, size: int) -> bytes:
    """A ustar header: mode 0644, time and owner zero. `name`: at most 100 ASCII bytes."""
    encoded = name.encode("ascii")
    if len(encoded) > 100 or size >= 8**11:
        raise ValueError(f"{name!r} of {size} bytes does not fit a ustar header.")
    fields = b"%-100s%07o\0%07o\0%07o\0%011o\0%011o\0        0" % (b"", 0o644, 0, 0, size, 0)
    header = bytearray(encoded.ljust(100, b"\0") + fields[100:])
    header += bytes(100) + b"ustar\x0000" + bytes(BLOCK - 265)
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)

"""Files written past the page cache hold what was written, whatever the file system says to it."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from har.shards.format import direct
from har.shards.format.direct import DirectFile

DIRECT = getattr(os, "O_DIRECT", 0)
SIZES = [0, 1, 511, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 5000]


def _parts(size: int) -> list[bytes]:
    """`size` random bytes, cut at odd places."""
    whole = np.random.default_rng(size).bytes(size)
    cuts = [0, size // 7, size // 7, size // 2, size]
    return [whole[a:b] for a, b in pairwise(cuts)]


def _write(path: Path, parts: list[bytes], *, is_scratch: bool = False) -> None:
    file = DirectFile(path, is_scratch=is_scratch)
    for part in parts:
        file.write(part)
    file.finish()
    file.close()
    file.close()


@pytest.mark.parametrize("is_scratch", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_all_bytes_are_there(tmp_path: Path, size: int, is_scratch: bool) -> None:
    _write(tmp_path / "file", _parts(size), is_scratch=is_scratch)
    assert (tmp_path / "file").read_bytes() == b"".join(_parts(size))


@pytest.mark.skipif(not DIRECT, reason="this system has no O_DIRECT")
@pytest.mark.parametrize("refuses", ["open", "write"])
def test_a_file_system_without_direct_writes_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    plain_open, plain_write, refused, dropped = os.open, os.write, [], []

    def opening(path: Path, flags: int, *mode: int) -> int:
        if refuses == "open" and flags & DIRECT:
            refused.append("open")
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain_open(path, flags, *mode)

    def writing(descriptor: int, part: memoryview) -> int:
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & DIRECT:
            refused.append("write")
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return plain_write(descriptor, part)

    monkeypatch.setattr(direct.os, "open", opening)
    if refuses == "write":
        monkeypatch.setattr(direct.os, "write", writing)
    monkeypatch.setattr(direct.os, "posix_fadvise", lambda *given: dropped.append(given[3]))
    _write(tmp_path / "file", _parts(3_000_001))
    assert (refused, dropped) == ([refuses], [os.POSIX_FADV_DONTNEED])
    assert (tmp_path / "file").read_bytes() == b"".join(_parts(3_000_001))


def test_writes_that_take_less_than_was_given_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.write
    monkeypatch.setattr(direct.os, "write", lambda at, part: plain(at, part[:300_000]))
    _write(tmp_path / "file", _parts(3_000_001))
    assert (tmp_path / "file").read_bytes() == b"".join(_parts(3_000_001))


def test_a_full_disk_is_said_and_not_taken_for_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = DirectFile(tmp_path / "file")
    file.write(b"x" * 5000)
    monkeypatch.setattr(direct.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        file.finish()
    file.close()

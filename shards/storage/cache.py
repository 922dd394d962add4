"""The folder in which a host keeps shards that came from far away, for all its processes.

    HAR_CACHE        the folder, ~/.cache/har unless told otherwise
    HAR_CACHE_SIZE   most bytes of shards in it, 100GB unless told otherwise

A shard's file is named by its checksum, so a shard set that changed, or lies at another URL, never
mixes with this one. It is there whole or not at all: fetched under a temporary name, checked,
renamed.

Odd: who uses what is told by `flock` alone, so that a killed process lets go of everything.
- A shared lock on a shard: somebody reads it or is about to; it is not thrown away.
- A lock on `locks/CHECKSUM`: somebody fetches that shard, all others wait for it.
- A lock on `locks/room`: somebody counts, evicts (least recently used first) and reserves. The size
  is part of the temporary name, so that room is taken before the bytes are.
- Network file systems may not keep such locks between hosts: give each host a folder of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..format.shard_set import ShardInfo
from .remote import DiskFullError, Remote, RemoteError

FOLDER, SIZE = "HAR_CACHE", "HAR_CACHE_SIZE"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_POLL = 0.05  # seconds between two looks at a lock


class NoRoomError(Exception):
    """Everything in the cache is in use."""


def folder() -> Path:
    """Where shards are kept: HAR_CACHE or ~/.cache/har."""
    return Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "har")


def limit() -> int:
    """HAR_CACHE_SIZE in bytes. Raises RemoteError."""
    text = os.environ.get(SIZE) or "100GB"
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise RemoteError(f"{SIZE}={text!r} is no size: give bytes, or as 500MB, 20GB, 1.5TB.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


class Cache:
    """The cache folder, made where it is not there. Raises RemoteError where it cannot be."""

    def __init__(self, at: Path | None = None, most: int | None = None) -> None:
        self.at, self.most = at or folder(), most or limit()
        try:
            for name in ("locks", "users"):
                (self.at / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RemoteError(
                f"the cache folder {self.at} cannot be made ({error.strerror}): set {FOLDER} to a "
                "folder that can be written."
            ) from error

    def path(self, shard: ShardInfo) -> Path:
        """Where the shard is, if it is."""
        return self.at / f"{shard.xxh3}.tar"

    def check(self, largest: ShardInfo) -> None:
        """Refuse a cache that cannot hold the largest shard."""
        if largest.bytes > self.most:
            raise RemoteError(
                f"the cache of {self.most:,} bytes cannot hold {largest.name} of {largest.bytes:,}:"
                f" set {SIZE} to more."
            )

    def trim(self) -> None:
        """Throw away what is more than the size allows now, and what killed processes left."""
        with _locked(self.at / "locks" / "room"):
            self._drop(self._used() - self.most)

    def get(
        self,
        remote: Remote,
        shard: ShardInfo,
        *,
        beat: Callable[[], None] = lambda: None,
    ) -> int:
        """-> an open descriptor of the whole shard, which is not evicted before that is closed.

        Fetched if need be, by one process of all; waits while another one does. beat: called now
        and then; what it raises ends this. Raises RemoteError, NoRoomError.
        """
        while (descriptor := self.here(shard)) is None:
            with _locked(self.at / "locks" / shard.xxh3, beat):
                if not self.path(shard).exists():
                    self._fetch(remote, shard, beat)
        return descriptor

    def users(self) -> int:
        """How many hold a place (`place`) in this cache; at least 1."""
        count = 0
        for path in (self.at / "users").iterdir():
            with contextlib.suppress(FileNotFoundError), open(path) as file:
                if _try_lock(file.fileno()):
                    path.unlink()  # its process has ended
                else:
                    count += 1
        return max(1, count)

    def place(self) -> int:
        """-> a descriptor that counts in `users` until it is closed."""
        while True:
            name = f"{os.getpid()}-{time.monotonic_ns()}"
            descriptor = os.open(self.at / "users" / name, os.O_CREAT | os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:  # nobody took it for a dead one's before the lock
                return descriptor
            os.close(descriptor)

    def here(self, shard: ShardInfo) -> int | None:
        """As `get`, but None where the shard would have to be fetched.

        It is marked as used now; a file of another size is thrown away.
        """
        path = self.path(shard)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # at most for the moment of an eviction
        about = os.fstat(descriptor)
        if about.st_nlink and about.st_size == shard.bytes:
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            return descriptor
        os.close(descriptor)
        if about.st_nlink:
            path.unlink(missing_ok=True)
        return None

    def _fetch(self, remote: Remote, shard: ShardInfo, beat: Callable[[], None]) -> None:
        part = self.at / f"{shard.xxh3}.{shard.bytes}.part"
        try:
            for again in (True, False):
                try:
                    self._reserve(shard, part)
                    remote.fetch(shard, part, beat=beat)
                    _sync(part)
                    os.replace(part, self.path(shard))
                    return
                except OSError as error:
                    # less room on the disk than we were told: the rest may still do
                    if not (again and self._evict(shard.bytes, beat)):
                        raise RemoteError(self._full(remote, shard, error)) from error
        finally:
            part.unlink(missing_ok=True)

    def _full(self, remote: Remote, shard: ShardInfo, error: OSError) -> str:
        why = error.strerror if isinstance(error, DiskFullError) else error
        return (
            f"the cache folder {self.at} cannot take {remote}/{shard.name} of {shard.bytes:,} bytes"
            f" ({why}): make room, or set {FOLDER} to a folder on another disk."
        )

    def _reserve(self, shard: ShardInfo, part: Path) -> None:
        """Make room and take it. Raises NoRoomError."""
        part.unlink(missing_ok=True)  # of an earlier try, or of a killed process
        with _locked(self.at / "locks" / "room"):
            over = self._used() + shard.bytes - self.most
            if over > 0 and self._drop(over) < over:
                raise NoRoomError
            part.touch()

    def _evict(self, size: int, beat: Callable[[], None]) -> bool:
        """Whether at least `size` bytes could be thrown away."""
        with _locked(self.at / "locks" / "room", beat):
            return self._drop(size) >= size

    def _used(self) -> int:
        """Bytes of all shards here and under way; what a killed process left is thrown away."""
        total = 0
        for path in self.at.iterdir():
            if path.suffix == ".tar":
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_size
            elif path.suffix == ".part":
                checksum, size = path.stem.split(".")
                with open(self.at / "locks" / checksum, "w") as lock:
                    if _try_lock(lock.fileno()):
                        path.unlink(missing_ok=True)
                    else:
                        total += int(size)
        return total

    def _drop(self, size: int) -> int:
        """Throw away unused shards, the least recently used first, until `size`; -> bytes."""
        found = []
        for path in self.at.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, path))
        done = 0
        for _, bytes_, path in sorted(found):
            if done >= size:
                break
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                if _try_lock(file.fileno()):
                    path.unlink()
                    done += bytes_
        return done


@contextlib.contextmanager
def _locked(path: Path, beat: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock `path`; looks again and again, so that `beat` may end the waiting."""
    with open(path, "w") as file:
        while not _try_lock(file.fileno()):
            beat()
            time.sleep(_POLL)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The folder in which a host keeps shards of remote sets, for all its processes.

    HAR_CACHE        the folder, ~/.cache/har by default
    HAR_CACHE_SIZE   most bytes of shards in it, 100GB by default

A shard's file is named by its checksum, so that two sets never mix. It is there whole or not at
all: fetched as `CHECKSUM.SIZE.part`, checked, renamed.

Notes:
- Counting, evicting (least recently used first) and reserving happen under one lock, `flock` on the
  file `lock`. A `.part` is locked by the process that fetches it; others wait for it, and one whose
  process was killed is removed.
- A shard may be evicted while it is read: its bytes stay until the last descriptor is closed.
- Network file systems may not keep such locks between hosts: give each host its own folder.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .place import ShardInfo, StorageError, lock, open_binary, parse_bytes, try_lock
from .remote_folder import DISK_ERRORS, Heartbeat, RemoteFolder

FOLDER_VARIABLE, SIZE_VARIABLE = "HAR_CACHE", "HAR_CACHE_SIZE"
_POLL = 0.05  # seconds between two looks at what another process fetches


def default_max_bytes() -> int:
    """HAR_CACHE_SIZE in bytes. Raises StorageError."""
    text = os.environ.get(SIZE_VARIABLE) or "100GB"
    num_bytes = parse_bytes(text)
    if not num_bytes:
        raise StorageError(
            f"{SIZE_VARIABLE}={text!r} is no size: give bytes, or as 500MB, 20GB, 1.5TB."
        )
    return num_bytes


class ShardCache:
    """The cache folder, made where it does not exist. Raises StorageError."""

    def __init__(self, folder: Path | None = None, max_bytes: int | None = None) -> None:
        default = os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "har"
        self.folder, self.max_bytes = Path(folder or default), max_bytes or default_max_bytes()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._make_room(0)  # the limit may be lower than it was
        except OSError as error:
            raise StorageError(
                f"the cache folder {self.folder} cannot be used ({error.strerror}): set "
                f"{FOLDER_VARIABLE} to a folder that can be written."
            ) from error

    def path(self, file: ShardInfo) -> Path:
        """Where the file lies if it is in the cache."""
        return self.folder / f"{file.xxh3}.tar"

    def check_fits(self, file: ShardInfo) -> None:
        """Raises StorageError for a file that the cache can never hold."""
        if file.bytes > self.max_bytes:
            raise StorageError(
                f"the cache of {self.max_bytes:,} bytes cannot hold {file.name} of "
                f"{file.bytes:,}: set {SIZE_VARIABLE} to more."
            )

    def open(self, file: ShardInfo) -> int | None:
        """-> an open descriptor of the whole file, marked as used now; None where it is absent."""
        path = self.path(file)
        try:
            descriptor = open_binary(path)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size == file.bytes:
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            return descriptor
        os.close(descriptor)  # a file of another size is not the shard
        path.unlink(missing_ok=True)
        return None

    def fetch(
        self, folder: RemoteFolder, file: ShardInfo, *, heartbeat: Heartbeat = lambda: None
    ) -> int:
        """-> an open descriptor of the whole file, fetched from `folder` if it is absent.

        heartbeat: called now and then; what it raises ends this. Raises StorageError.
        """
        self.check_fits(file)
        for is_last_try in (False, True):
            try:
                while (descriptor := self._fetch(folder, file, heartbeat)) is None:
                    heartbeat()
                    time.sleep(_POLL)
                return descriptor
            except OSError as error:
                with self._locked():  # the disk may have less room than HAR_CACHE_SIZE
                    can_retry = error.errno in DISK_ERRORS and self._evict(file.bytes)
                if is_last_try or not can_retry:
                    raise StorageError(
                        f"the cache folder {self.folder} cannot take {folder}/{file.name} of "
                        f"{file.bytes:,} bytes ({error.strerror or error}): make room, or set "
                        f"{FOLDER_VARIABLE} to a folder on another disk."
                    ) from error
        raise AssertionError  # the last try returns or raises

    def _fetch(self, folder: RemoteFolder, file: ShardInfo, heartbeat: Heartbeat) -> int | None:
        """As `fetch`; None where another process fetches the file, or room has to be waited for."""
        part = self.folder / f"{file.xxh3}.{file.bytes}.part"
        with self._locked():
            if (descriptor := self.open(file)) is not None:
                return descriptor
            reserved = os.open(part, os.O_CREAT | os.O_RDWR, 0o666)
            if not try_lock(reserved):  # another process fetches it
                os.close(reserved)
                return None
            if not self._make_room(file.bytes, part):
                part.unlink()
                os.close(reserved)
                return None
        try:
            folder.fetch(file, part, heartbeat=heartbeat)
            os.fsync(reserved)
            with self._locked():
                os.replace(part, self.path(file))
                return open_binary(self.path(file))
        except BaseException:
            with self._locked():
                part.unlink(missing_ok=True)
            raise
        finally:
            os.close(reserved)

    def _make_room(self, size: int, own: Path | None = None) -> bool:
        """Whether `size` more bytes fit, after evicting what is needed for that."""
        used = 0
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.suffix == ".tar":
                    used += path.stat().st_size
                elif path.suffix == ".part" and path != own:
                    used += _reserved_bytes(path)
        excess = used + size - self.max_bytes
        return excess <= 0 or self._evict(excess)

    def _evict(self, size: int) -> bool:
        """Remove the least recently used files of `size` bytes together; whether there were."""
        entries = []
        for path in self.folder.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        for _, file_bytes, path in sorted(entries):
            if size <= 0:
                break
            path.unlink(missing_ok=True)
            size -= file_bytes
        return size <= 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The cache's one lock; held for a look at the folder, never for a transfer."""
        with open(self.folder / "lock", "w") as file:
            lock(file.fileno())
            yield


def _reserved_bytes(part: Path) -> int:
    """The size that `part` will have; 0, and it is removed, where its process has ended."""
    with open(part, "rb") as file:
        if not try_lock(file.fileno()):
            return int(part.stem.split(".")[1])
    part.unlink(missing_ok=True)
    return 0

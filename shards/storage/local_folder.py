"""A folder of this machine: files are written under a temporary name, synced and renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...atomic import replacing
from .place import try_lock, writer_id


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, or one that it mounts."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def make(self) -> None:
        """Make it and its parents."""
        self.path.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Whether this process alone has the folder; the lock ends with the process."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            yield try_lock(descriptor)
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Sorted names of what lies directly in it; [] where there is no folder."""
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Two processes may write the same file at once: the last one's is there, whole."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, writer_id()) as temporary:
            temporary.write_bytes(data)

    def remove(self, name: str) -> None:
        """A file or a folder with all it holds; nothing happens where there is none."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """Where to write a large file; one that is there at the end of the block is kept."""
        yield self.path / name

    def free_bytes(self) -> int | None:
        """Bytes that still fit, None where that is unknown."""
        return shutil.disk_usage(self.path).free

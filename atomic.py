"""Write a file whole or not at all: temporary name, sync, rename, sync of the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def temporary_name(path: Path, writer: str = "") -> Path:
    """`.NAME.tmp`, or `.NAME.WRITER.tmp` where several processes may write the same file."""
    return path.with_name(f".{path.name}.{writer}.tmp" if writer else f".{path.name}.tmp")


@contextmanager
def replacing(path: Path, writer: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the block writes there becomes `path` at its end.

    Where the block or the sync fails, `path` is as it was and the temporary file is removed.
    Raises OSError.
    """
    temporary = temporary_name(path, writer)
    try:
        yield temporary
        commit(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno:
            with suppress(AttributeError):  # PyAV's errors keep theirs
                if error.filename in (None, str(temporary)):  # None: of a full disk
                    error.filename = str(path)
        with suppress(OSError):  # of a folder that is read-only
            temporary.unlink(missing_ok=True)
        raise


def commit(temporary: Path, path: Path) -> None:
    """Sync the file `temporary` and give it the name `path`. Raises OSError."""
    with open(temporary, "r+b") as file:  # "rb" cannot be synced on Windows
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; the file is whole or as it was before. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows does not open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

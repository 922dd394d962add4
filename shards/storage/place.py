"""Paths and URLs, what is known of a file, and the errors of storage."""

import contextlib
import hashlib
import os
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import xxhash

from ...errors import HarError

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows has none: nothing is locked there
    import fcntl

# A URL that went through `pathlib` has lost a slash (http:/host/set): it is restored.
_URL = re.compile(r"([a-z][a-z0-9+.\-]*):/{1,3}([^/].*)", re.DOTALL)


class StorageError(HarError):
    """A store that does not answer or gives wrong bytes, a cache that is too small or full."""


class MissingFileError(StorageError):
    """A file that should be in the store and is not."""


class TransferStopped(Exception):  # noqa: N818
    """Raised by a heartbeat: nobody needs the file any more."""


@dataclass(frozen=True)
class ShardInfo:
    """One tar of a shard set. bytes: the file's size. xxh3: its xxh3_128 in 32 hex digits.

    samples: its clips that the index names. removed: how many more are in the file. relabelled:
    whether KEY.cls and KEY.json may hold older labels and groups than the index, which counts.
    """

    name: str
    samples: int
    bytes: int
    xxh3: str
    removed: int = 0
    relabelled: bool = False


def shard_checksum(path: Path) -> str:
    """What `ShardInfo.xxh3` is of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def url_of(place: Path | str) -> str | None:
    """The URL that `place` is, without `/` at its end; None for a local path or `file://`."""
    match = _URL.fullmatch(str(place))
    if match is None or match[1] == "file":
        return None
    return f"{match[1]}://{match[2]}".rstrip("/")


def local_path(place: Path | str) -> Path:
    """A path, or the path of a `file://` URL."""
    text = str(place)
    return Path(unquote(urlsplit(text).path)) if text.startswith("file:/") else Path(place)


def normalize(place: Path | str) -> str:
    """An absolute path or a URL without `/` at its end: the same place from any folder."""
    return url_of(place) or str(local_path(place).absolute())


def join(root: str, path: str) -> str:
    """`path` below `root`; an absolute path or a URL is returned as it is."""
    if "://" in path:
        return path
    return f"{root}/{path}" if url_of(root) else str(Path(root) / path)


def parse_bytes(text: str) -> int | None:
    """ "64MB" -> 64000000 (KB, MB, GB, TB are powers of 1000; KiB, MiB, ... of 1024); None for what
    is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i)?B?", text.strip(), re.IGNORECASE)
    if match is None:
        return None
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


def writer_id() -> str:
    """Part of a temporary name: a cluster may run one task twice when it loses a worker."""
    return f"{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this descriptor alone, without waiting.

    The lock ends when the descriptor is closed or the process dies. True as well where there are
    no locks (some network shares, Windows).
    """
    return lock(descriptor, wait=False)


def lock(descriptor: int, *, wait: bool = True) -> bool:
    """As `try_lock`, after waiting for whoever holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


def open_binary(path: Path) -> int:
    """-> a descriptor to read a file's bytes (Windows would change line ends). Raises OSError."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

"""A folder of files on this machine or behind any URL that fsspec knows, behind one interface.

`s3://bucket/set`, `https://host/set`, `gs://`, `memory://`. A local file is written under a
temporary name, synced and renamed; a remote one is made in local scratch space and put in place
whole. A local folder raises OSError. A remote one raises StorageError, one sentence, after several
tries, and FileNotFoundError where a file that is read does not exist.

Notes:
- `file://` URLs are local folders; fsspec is imported for remote ones only.
- A URL that went through `pathlib` has lost a slash (`http:/host/set`); `url_of` restores it.
- A file is fetched in one request and never resumed: what arrives is checked as a whole.
- aiohttp ends any transfer after 5 minutes by default; here only `SILENCE` seconds without a byte
  do. Listings are never cached: another machine may have written since.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import xxhash

from ...atomic import replacing
from ...errors import HarError

TRIES = 5
PAUSE = 0.5  # seconds before the second try, doubled before each further one: 7.5 s in all
SILENCE = 30.0  # seconds without a byte that end a try
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_URL = re.compile(r"([a-z][a-z0-9+.\-]*):/{1,3}([^/].*)", re.DOTALL)
_Result = TypeVar("_Result")
Heartbeat = Callable[[], None]


class StorageError(HarError):
    """A store that does not answer or gives wrong bytes, a cache that is too small or full."""


class MissingFileError(StorageError):
    """A file that should be in the store and is not."""


class TransferStopped(Exception):  # noqa: N818
    """Raised by a heartbeat: nobody needs the file any more."""


@dataclass(frozen=True)
class FileInfo:
    """A file as it should be. bytes: its size. xxh3: its xxh3_128, 32 hex digits."""

    name: str
    bytes: int
    xxh3: str


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


def open_folder(place: Path | str) -> LocalFolder | RemoteFolder:
    """The folder at a path or a URL; it need not exist. Raises StorageError for a bad URL."""
    url = url_of(place)
    if url is None:
        return LocalFolder(local_path(place))
    _file_system(url)
    return RemoteFolder(url)


def read_bytes(url: str) -> bytes:
    """A whole file behind a URL. Raises StorageError, FileNotFoundError."""
    folder, name = url.rsplit("/", 1)
    return open_folder(folder).read(name)


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


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind `url`. Cheap to make and to pickle; nothing stays open."""

    url: str

    def __str__(self) -> str:
        return self.url

    def make(self) -> None:
        """Nothing to do: writing a file makes its folders."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Stores have no locks: always True."""
        yield True

    def names(self) -> list[str]:
        files, root = _file_system(self.url)
        try:
            paths = self._try("", "listed", lambda: files.ls(root, detail=False))
        except FileNotFoundError:
            return []
        return sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in paths} - {""})

    def find(self) -> dict[str, int]:
        """Every file below the folder: relative path -> bytes."""
        files, root = _file_system(self.url)
        found = self._try("", "listed", lambda: files.find(root, detail=True))
        return {
            path.removeprefix(f"{root}/"): int(entry.get("size") or 0)
            for path, entry in found.items()
            if path.startswith(f"{root}/")
        }

    def size(self, name: str) -> int | None:
        files, root = _file_system(self.url)
        try:
            return self._try(
                name, "fetched", lambda: int(files.info(f"{root}/{name}")["size"] or 0)
            )
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        files, root = _file_system(self.url)
        return self._try(name, "fetched", lambda: bytes(files.cat_file(f"{root}/{name}")))

    def write(self, name: str, data: bytes) -> None:
        files, root = _file_system(self.url)
        self._put(name, lambda: files.pipe_file(f"{root}/{name}", data))

    def remove(self, name: str) -> None:
        files, root = _file_system(self.url)
        with contextlib.suppress(FileNotFoundError):
            self._try(name, "removed", lambda: files.rm(f"{root}/{name}", recursive=True))

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        files, root = _file_system(self.url)
        with tempfile.TemporaryDirectory(prefix="har-") as scratch:
            path = Path(scratch) / name
            yield path
            if path.exists():
                self._put(name, lambda: files.put_file(str(path), f"{root}/{name}"))

    def free_bytes(self) -> int | None:
        return None

    def fetch(
        self,
        file: FileInfo,
        path: Path,
        *,
        heartbeat: Heartbeat = lambda: None,
        verify: bool = True,
    ) -> None:
        """Write `file` to `path`, whole and right, or raise.

        heartbeat: called for each piece that arrives; what it raises ends the transfer. verify:
        compare size and checksum; wrong bytes are fetched once more. Raises StorageError,
        MissingFileError, and OSError where the local disk refuses (DISK_ERRORS).
        """
        files, root = _file_system(self.url)

        def transfer() -> bool:
            callback = _callback(heartbeat)
            files.get_file(f"{root}/{file.name}", str(path), callback=callback)
            size = path.stat().st_size
            if verify and size < file.bytes:  # cut off by a server without Content-Length
                raise ConnectionError(f"{size:,} of {file.bytes:,} bytes arrived")
            return not verify or (size == file.bytes and _checksum(path, heartbeat) == file.xxh3)

        for _ in range(2):
            try:
                if self._try(file.name, "fetched", transfer):
                    return
            except FileNotFoundError as error:
                raise MissingFileError(
                    f"{self.url}/{file.name} is not there, and the manifest names it: upload the "
                    "whole set again."
                ) from error
        raise StorageError(
            f"{self.url}/{file.name} does not have the checksum of the manifest, fetched twice: "
            "upload that shard again."
        )

    def _put(self, name: str, operation: Callable[[], Any]) -> None:
        files, root = _file_system(self.url)

        def put() -> None:
            if "s3" not in files.protocol:  # a bucket is not made here: its name may be a typo
                files.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
            operation()

        try:
            self._try(name, "written", put)
        except FileNotFoundError as error:
            raise self._error(name, "written", error, 1) from error

    def _try(self, name: str, verb: str, operation: Callable[[], _Result]) -> _Result:
        """The result of `operation`, repeated with growing pauses where that may help."""
        for attempt in range(1, TRIES + 1):
            try:
                return operation()
            except (FileNotFoundError, TransferStopped):
                raise
            except Exception as error:  # each store raises its own
                if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                    raise
                if attempt == TRIES or not _is_transient(error):
                    raise self._error(name, verb, error, attempt) from error
            time.sleep(PAUSE * 2 ** (attempt - 1))
        raise AssertionError  # the last attempt returns or raises

    def _error(self, name: str, verb: str, error: Exception, tries: int) -> StorageError:
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        place = f"{self.url}/{name}" if name else self.url
        return StorageError(
            f"{place} cannot be {verb} ({text}; {tries} tries): correct that and run the same "
            "command again."
        )


class FileFetcher:
    """Gives files below `root` (a path or a URL) as local ones; copies are removed at the end.

    Local files are used where they lie. For one thread.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def path(self, name: str) -> Path:
        """A local file with the content of `name`; of a missing one, a path that does not exist.

        Raises StorageError.
        """
        place = join(self._root, name)
        if url_of(place) is None or (url_of(self._root) is None and "://" not in name):
            return Path(place)
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="har-")
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
        path = Path(self._scratch.name) / (digest + Path(name).suffix)
        if not path.exists():
            with contextlib.suppress(FileNotFoundError):
                path.write_bytes(read_bytes(place))
        return path

    def done(self, path: Path) -> None:
        """The file at `path` is no longer needed: a copy is removed now."""
        if self._scratch is not None and path.parent == Path(self._scratch.name):
            path.unlink(missing_ok=True)

    def __enter__(self) -> FileFetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()


def writer_id() -> str:
    """Part of a temporary name: a cluster may run one task twice when it loses a worker."""
    return f"{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this descriptor alone, without waiting.

    The lock ends when the descriptor is closed or the process dies. True as well on a file system
    without locks (some network shares).
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _checksum(path: Path, heartbeat: Heartbeat) -> str:
    state = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(8 << 20):
            state.update(block)
            heartbeat()
    return state.hexdigest()


def _is_transient(error: Exception) -> bool:
    """Whether another try may help: not for what a server forbids or never understands."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 429)
    return not isinstance(error, PermissionError | ImportError | NotImplementedError)


def _file_system(url: str) -> tuple[Any, str]:
    """-> the file system (fsspec keeps one a process), and the URL as a path in it."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url, use_listings_cache=False, **_fsspec_options(url))
    except ImportError as error:
        raise StorageError(
            f"{url} needs fsspec and what it uses for such URLs ({error}): "
            "'pip install .[cloud]' brings them for http, https and s3."
        ) from error
    except ValueError as error:
        text = str(error).rstrip(".")
        raise StorageError(f"{url} cannot be opened ({text}): give a path or a URL.") from error
    return files, str(path).rstrip("/")


def _fsspec_options(url: str) -> dict[str, Any]:
    if url.startswith(("http:", "https:")):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        return {"client_kwargs": {"timeout": timeout}}
    if url.startswith("s3:"):
        timeouts = {"connect_timeout": SILENCE, "read_timeout": SILENCE}
        return {"config_kwargs": {**timeouts, "retries": {"max_attempts": 1}}}  # we try again
    return {}


def _callback(heartbeat: Heartbeat) -> Any:
    from fsspec.callbacks import Callback

    class HeartbeatCallback(Callback):
        def relative_update(self, inc: int = 1) -> None:
            heartbeat()

    return HeartbeatCallback()

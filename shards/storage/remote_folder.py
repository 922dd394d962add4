"""A folder behind any URL that fsspec knows: s3://bucket/set, https://host/set, gs://, memory://.

Notes:
- A file is fetched in one request and checked as a whole, and put in place whole.
- aiohttp ends any transfer after 5 minutes by default; here only `SILENCE` seconds without a byte
  do. Listings are never cached: another machine may have written since.
"""

import contextlib
import errno
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .place import MissingFileError, ShardInfo, StorageError, TransferStopped, shard_checksum

TRIES = 5
PAUSE = 0.5  # seconds before the second try, doubled before each further one: 7.5 s in all
SILENCE = 30.0  # seconds without a byte that end a try
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
Heartbeat = Callable[[], None]


class _TooLargeError(TransferStopped):
    """More bytes than are allowed."""


@dataclass(frozen=True)
class RemoteFolder:
    """The folder behind `url`. Cheap to make and to pickle; nothing stays open.

    The methods are those of `LocalFolder`. They raise StorageError, one sentence, after several
    tries, and FileNotFoundError where a file that is read does not exist.
    """

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
        try:
            paths = self._try("", "listed", lambda files, root: files.ls(root, detail=False))
        except FileNotFoundError:
            return []
        return sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in paths} - {""})

    def find(self) -> dict[str, int]:
        """Every file below the folder: relative path -> bytes."""
        root = file_system(self.url)[1]
        entries = self._try("", "listed", lambda files, root: files.find(root, detail=True))
        return {
            path.removeprefix(f"{root}/"): int(entry.get("size") or 0)
            for path, entry in entries.items()
            if path.startswith(f"{root}/")
        }

    def size(self, name: str) -> int | None:
        try:
            info = self._try(name, "fetched", lambda files, path: files.info(path))
            return int(info["size"] or 0)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        return bytes(self._try(name, "fetched", lambda files, path: files.cat_file(path)))

    def write(self, name: str, data: bytes) -> None:
        self._put(name, lambda files, path: files.pipe_file(path, data))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._try(name, "removed", lambda files, path: files.rm(path, recursive=True))

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="har-") as scratch:
            local = Path(scratch) / name
            yield local
            if local.exists():
                self._put(name, lambda files, path: files.put_file(str(local), path))

    def free_bytes(self) -> int | None:
        return None

    def fetch(
        self, file: ShardInfo, path: Path, heartbeat: Heartbeat = lambda: None, verify: bool = True
    ) -> None:
        """Write `file` to `path`, whole and right, or raise.

        heartbeat: called for each piece that arrives; what it raises ends the transfer. verify:
        compare size and checksum; wrong bytes are fetched once more. Raises StorageError,
        MissingFileError, and OSError where the local disk refuses (DISK_ERRORS).
        """

        def transfer(files: Any, source: str) -> bool:
            _download(files, source, path, lambda size, value: heartbeat())
            size = path.stat().st_size
            if verify and size < file.bytes:  # cut off by a server without Content-Length
                raise ConnectionError(f"{size:,} of {file.bytes:,} bytes arrived")
            return not verify or (size == file.bytes and shard_checksum(path) == file.xxh3)

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

    def _put(self, name: str, operation: Callable[[Any, str], Any]) -> None:
        def put(files: Any, path: str) -> None:
            if "s3" not in files.protocol:  # a bucket is not made here: its name may be a typo
                files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            operation(files, path)

        try:
            self._try(name, "written", put)
        except FileNotFoundError as error:
            raise self._error(name, "written", error, 1) from error

    def _try(self, name: str, verb: str, operation: Callable[[Any, str], Any]) -> Any:
        """operation(file system, path of `name`), repeated with growing pauses where that may help.

        verb: what `operation` does, for the error.
        """
        files, root = file_system(self.url)
        path = f"{root}/{name}" if name else root
        for attempt in range(1, TRIES + 1):
            try:
                return operation(files, path)
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
        if isinstance(error, FileNotFoundError):  # its text is the URL, or nothing
            text = "not found"
        place = f"{self.url}/{name}" if name else self.url
        tried = f"; {tries} tries" if tries > 1 else ""
        return StorageError(
            f"{place} cannot be {verb} ({text}{tried}): correct that and run the same "
            "command again."
        )


def fetch_file(url: str, path: Path, max_bytes: int, heartbeat: Heartbeat = lambda: None) -> bool:
    """Write the file behind a URL to `path`; -> False where it has more than `max_bytes`, without
    the rest.

    heartbeat: called for each piece that arrives. Raises StorageError, what `heartbeat` raises, and
    OSError where the local disk refuses.
    """
    root, name = url.rsplit("/", 1)
    folder = RemoteFolder(root)

    def check(size: int | None, value: int) -> None:
        heartbeat()
        if max(size or 0, value) > max_bytes:
            raise _TooLargeError

    try:
        folder._try(name, "fetched", lambda files, source: _download(files, source, path, check))
        return path.stat().st_size <= max_bytes
    except _TooLargeError:
        return False
    except FileNotFoundError as error:
        raise folder._error(name, "fetched", error, 1) from error


def _download(
    files: Any, source: str, path: Path, on_piece: Callable[[int | None, int], None]
) -> None:
    """on_piece: called with the file's size, if known, and the bytes so far."""
    from fsspec.callbacks import Callback

    files.get_file(source, str(path), callback=Callback(hooks={"on_piece": on_piece}))


def _is_transient(error: Exception) -> bool:
    """Whether another try may help: not for what a server forbids or never understands."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 429)
    return not isinstance(error, PermissionError | ImportError | NotImplementedError)


def file_system(url: str) -> tuple[Any, str]:
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

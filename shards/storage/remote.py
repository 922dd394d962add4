"""A shard set behind a URL: its files through fsspec, each error of a store one sentence.

`s3://bucket/set`, `https://host/set`, `gs://`, `memory://`: whatever fsspec knows. Manifest and
index are read whole into memory each time a set is opened; shards go through the cache
(`har.shards.storage.cache`, `har.shards.storage.prefetch`).

Odd:
- A URL that went through `pathlib` has lost a slash (`http:/host/set`); `url_of` gives it back, so
  that a command line that takes paths takes URLs too.
- A file is fetched in one request and never resumed: what arrives is checked as a whole.
- aiohttp ends any transfer after 5 minutes unless told otherwise; here only 30 s without a byte do.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import xxhash

from ..format.shard_set import ShardInfo, ShardSetError

TRIES = 5
PAUSE = 0.5  # seconds before the second try, doubled before each further one: 7.5 s in all
SILENCE = 30.0  # seconds without a byte that end a try
_URL = re.compile(r"([a-z][a-z0-9+.\-]*):/{1,3}([^/].*)", re.DOTALL)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_Answer = TypeVar("_Answer")


class RemoteError(ShardSetError):
    """A store that does not answer or gives wrong bytes, a cache that is too small or full."""


class MissingError(RemoteError):
    """A file that the manifest names and the store does not have."""


class DiskFullError(OSError):
    """The disk under the cache is full, or cannot be written."""


class StoppedError(Exception):
    """Nobody wants the file any more."""


def url_of(place: Path | str) -> str | None:
    """The URL that `place` is, without `/` at its end; None for a local path or `file://`."""
    found = _URL.fullmatch(str(place))
    if found is None or found[1] == "file":
        return None
    return f"{found[1]}://{found[2]}".rstrip("/")


def local_path(place: Path | str) -> Path:
    """A path, or the path of a `file://` URL."""
    text = str(place)
    return Path(unquote(urlsplit(text).path)) if text.startswith("file:/") else Path(place)


@dataclass(frozen=True)
class Remote:
    """The folder of a shard set behind `url`. Cheap to make and to pickle; nothing stays open."""

    url: str

    def __str__(self) -> str:
        return self.url

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError, RemoteError."""
        files, root = _file_system(self.url)
        return self._tried(name, lambda: bytes(files.cat_file(f"{root}/{name}")))

    def size(self, name: str) -> int | None:
        """Bytes of a file as the store says, None where there is none. Raises RemoteError."""
        files, root = _file_system(self.url)
        try:
            return self._tried(name, lambda: int(files.info(f"{root}/{name}")["size"] or 0))
        except FileNotFoundError:
            return None

    def fetch(
        self,
        shard: ShardInfo,
        path: Path,
        *,
        beat: Callable[[], None] = lambda: None,
        check: bool = True,
    ) -> None:
        """Write the shard to `path`, whole and right, or raise.

        beat: called for each piece that arrives; what it raises ends the transfer. check: compare
        size and checksum with the manifest's; wrong bytes are fetched once more. Raises
        RemoteError, DiskFullError, StoppedError.
        """
        files, root = _file_system(self.url)

        def once() -> bool:
            files.get_file(f"{root}/{shard.name}", str(path), callback=_callback(beat))
            size = path.stat().st_size
            if check and size < shard.bytes:  # a server without Content-Length that was cut off
                raise ConnectionError(f"{size:,} of {shard.bytes:,} bytes arrived")
            return not check or (size == shard.bytes and checksum(path, beat) == shard.xxh3)

        for _ in range(2):
            try:
                if self._tried(shard.name, once):
                    return
            except FileNotFoundError as error:
                raise MissingError(
                    f"{self.url}/{shard.name} is not there, and the manifest names it: upload the "
                    "whole set again."
                ) from error
        raise RemoteError(
            f"{self.url}/{shard.name} does not have the checksum of the manifest, fetched twice: "
            "upload that shard again."
        )

    def _tried(self, name: str, ask: Callable[[], _Answer]) -> _Answer:
        """What `ask` gives; tried again, later and later, where another try may help."""
        for number in range(TRIES):
            try:
                return ask()
            except (FileNotFoundError, StoppedError):
                raise
            except Exception as error:  # each store raises its own
                if isinstance(error, OSError) and error.errno in _DISK:
                    raise DiskFullError(error.errno, error.strerror) from error
                if number == TRIES - 1 or not _may_pass(error):
                    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
                    raise RemoteError(
                        f"{self.url}/{name} cannot be fetched ({text}; {number + 1} tries): mend "
                        "that and run the same command again."
                    ) from error
            time.sleep(PAUSE * 2**number)
        raise AssertionError  # the last try returns or raises


def open_folder(url: str) -> Remote:
    """The folder behind a URL. Raises RemoteError, one sentence, where fsspec cannot open it."""
    _file_system(url)
    return Remote(url)


def checksum(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """The xxh3_128 of a file, in hex."""
    state = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(8 << 20):
            state.update(block)
            beat()
    return state.hexdigest()


def _may_pass(error: Exception) -> bool:
    """Whether it may be gone at the next try: not what a server forbids or never understands."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 429)
    return not isinstance(error, PermissionError | ImportError | NotImplementedError)


def _file_system(url: str) -> tuple[Any, str]:
    """-> the file system (fsspec keeps one a process), and the URL as a path in it."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url, use_listings_cache=False, **_options(url))
    except ImportError as error:
        raise RemoteError(
            f"{url} needs fsspec and what it uses for such URLs ({error}): "
            "'pip install .[cloud]' brings them for http, https and s3."
        ) from error
    except ValueError as error:
        text = str(error).rstrip(".")
        raise RemoteError(f"{url} cannot be opened ({text}): give a path or a URL.") from error
    return files, str(path).rstrip("/")


def _options(url: str) -> dict[str, Any]:
    if url.startswith(("http:", "https:")):
        from aiohttp import ClientTimeout

        silence = ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        return {"client_kwargs": {"timeout": silence}}
    if url.startswith("s3:"):
        limits = {"connect_timeout": SILENCE, "read_timeout": SILENCE}
        return {"config_kwargs": {**limits, "retries": {"max_attempts": 1}}}  # we try again
    return {}


def _callback(beat: Callable[[], None]) -> Any:
    """fsspec's name for it."""
    from fsspec.callbacks import Callback

    class Beat(Callback):
        def relative_update(self, inc: int = 1) -> None:
            beat()

    return Beat()

"""Where videos come from and a shard set goes to: a local folder, or any URL that fsspec knows.

A local folder keeps what it always had: temporary name, sync, rename. Elsewhere a shard is made in
local scratch space and put there whole, and the build keeps the order shard, report, index,
manifest: a set without a manifest is none, so nobody reads one that is half there.

Odd: `file://` is a local folder, nothing of fsspec is imported for it. Listings are never cached:
another machine may have written since. A video is fetched as a whole before it is decoded: the
decoder reads it twice, and one request a video (0.5 MB in UCF101) is what object stores are good
at.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ...atomic import sync_folder
from ...errors import HarError
from ...shards.format.writer import ShardWriter


class StoreError(HarError):
    """A place that does not answer or refuses; the text is one sentence."""


def is_url(place: Path | str) -> bool:
    """Whether `place` has to go through fsspec."""
    return "://" in str(place) and not str(place).startswith("file://")


def normal(place: Path | str) -> str:
    """An absolute path or a URL without `/` at its end: the same place from any folder."""
    text = str(place)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return text.rstrip("/") if is_url(text) else str(Path(text).absolute())


def join(root: str, path: str) -> str:
    """`path` below `root`; a path that is absolute or a URL stands for itself."""
    if is_url(path):
        return path
    return f"{root}/{path}" if is_url(root) else str(Path(root) / path)


def open_folder(place: Path | str) -> LocalFolder | RemoteFolder:
    """The folder at a path or a URL; it need not be there. Raises StoreError."""
    at = normal(place)
    return RemoteFolder(at) if is_url(at) else LocalFolder(Path(at))


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


class LocalFolder:
    """A folder of this machine or one it mounts. OSError passes: its text is understood."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def make(self) -> None:
        """Make it and its parents, where they are not there."""
        self.path.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Whether the folder could be locked for this process alone; a killed one lets go.

        True as well where the system has no such locks (some network shares).
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            yield _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """What lies directly in it; [] where there is no folder."""
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
        """The file is whole or not there; two processes that write the same one do no harm."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{own_suffix()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)

    def remove(self, name: str) -> None:
        """A file or a folder with all it holds; harmless where there is none."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def shard(self, name: str) -> ShardWriter:
        """A context that gives the writer of a new shard."""
        return ShardWriter(self.path / name, own_suffix())

    def free(self) -> int | None:
        """Bytes that still fit, None where nobody knows."""
        return shutil.disk_usage(self.path).free


class RemoteFolder:
    """A folder behind fsspec: s3://bucket/set, gs://..., memory://... Raises StoreError."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, self._root = _file_system(url)

    def __str__(self) -> str:
        return self.url

    def make(self) -> None:
        """Nothing to do: what is written makes its folders."""

    def names(self) -> list[str]:
        with _said(self.url):
            try:
                found = self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return sorted({one.rstrip("/").rsplit("/", 1)[-1] for one in found} - {""})

    def size(self, name: str) -> int | None:
        with _said(self.url):
            try:
                return int(self._files.info(self._at(name))["size"])
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes:
        """FileNotFoundError where there is none."""
        with _said(self.url, FileNotFoundError):
            return bytes(self._files.cat_file(self._at(name)))

    def write(self, name: str, data: bytes) -> None:
        with _said(self.url):
            self._make_parent(name)
            self._files.pipe_file(self._at(name), data)

    def remove(self, name: str) -> None:
        with _said(self.url), contextlib.suppress(FileNotFoundError):
            self._files.rm(self._at(name), recursive=True)

    @contextlib.contextmanager
    def shard(self, name: str) -> Iterator[ShardWriter]:
        """The writer of a shard in scratch space, which is put in its place whole at the end."""
        with tempfile.TemporaryDirectory(prefix="har-") as scratch:
            local = Path(scratch) / name
            with ShardWriter(local, is_synced=False) as writer:
                yield writer
            if local.exists():
                with _said(self.url):
                    self._make_parent(name)
                    self._files.put_file(str(local), self._at(name))

    def free(self) -> int | None:
        return None

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _make_parent(self, name: str) -> None:
        """For those that have folders; buckets are not made here, a name may be a slip."""
        if "s3" not in self._files.protocol:
            self._files.makedirs(self._at(name).rsplit("/", 1)[0], exist_ok=True)


def listing(url: str) -> dict[str, int]:
    """Every file below a URL -> its bytes, by path relative to it. Raises StoreError."""
    files, root = _file_system(url)
    with _said(url):
        found = files.find(root, detail=True)
    below = root.rstrip("/") + "/"
    return {
        name.removeprefix(below): int(about.get("size") or 0)
        for name, about in found.items()
        if name.startswith(below)
    }


def read_bytes(url: str) -> bytes:
    """A whole file behind a URL. Raises StoreError."""
    files, path = _file_system(url)
    with _said(url):
        return bytes(files.cat_file(path))


class Fetcher:
    """Gives videos as local files; what it fetched is gone at the end.

    Local ones are taken where they lie. Use one in one thread.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._folder = None if is_url(root) else Path(root)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def path(self, name: str) -> Path:
        """The local file of a video. Raises StoreError; a missing video gives a missing file."""
        if self._folder and not is_url(name):
            return self._folder / name
        place = join(self._root, name)
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="har-")
        short = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
        local = Path(self._scratch.name) / (short + Path(name).suffix)
        if not local.exists():
            files, path = _file_system(place)
            with _said(place), contextlib.suppress(FileNotFoundError):
                local.write_bytes(files.cat_file(path))
        return local

    def done(self, path: Path) -> None:
        """The video is decoded: what was fetched of it may go."""
        if self._scratch is not None and path.parent == Path(self._scratch.name):
            path.unlink(missing_ok=True)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()


def own_suffix() -> str:
    """Tells apart who writes: a cluster may run one task twice when it loses sight of a worker."""
    return f"{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"


def _file_system(url: str) -> tuple[Any, str]:
    """-> the file system, and the URL as a path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise StoreError(f"{url} needs fsspec: 'pip install .[cloud]' brings it.") from error
    try:
        files, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        text = str(error).rstrip(".")
        raise StoreError(f"{url} cannot be opened ({text}): give a path or a URL.") from error
    return files, str(path)


@contextlib.contextmanager
def _said(url: str, *passing: type[Exception]) -> Iterator[None]:
    """Whatever a store raises (each has its own errors), as one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (StoreError, *passing)):
            raise
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise StoreError(
            f"{url} cannot be used ({text}): mend that and run the same command again."
        ) from error

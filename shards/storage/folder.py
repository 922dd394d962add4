"""Folders at paths and URLs, behind one interface: `LocalFolder` and `RemoteFolder`."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...atomic import replacing
from ...errors import HarError
from .archive import Archive, ArchiveError, is_archive, open_archive
from .place import fcntl, join, local_path, try_lock, url_of, writer_id
from .remote_folder import RemoteFolder, file_system


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
        if fcntl is None:  # Windows does not even open folders
            yield True
            return
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


Folder = LocalFolder | RemoteFolder


def open_folder(place: Path | str) -> Folder:
    """The folder at a path or a URL; it need not exist. Raises StorageError for a bad URL."""
    url = url_of(place)
    if url is None:
        return LocalFolder(local_path(place))
    file_system(url)
    return RemoteFolder(url)


# None: a connection to a cluster was lost; the others: no process or file can be opened
_NOT_OF_A_FILE = (None, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def clear_errors(folder: Folder, error_type: type[HarError], kept: str) -> Iterator[None]:
    """An OSError of the block becomes one sentence, which ends with what is kept."""
    try:
        yield
    except OSError as error:
        place = str(folder)
        if isinstance(folder, RemoteFolder):  # a URL gives no OSError
            place = f"the scratch space {tempfile.gettempdir()}"
        fault = f"{place} cannot be written ({error.strerror}): mend that"
        elsewhere = error.filename and not str(error.filename).startswith(str(folder))
        if elsewhere or error.errno in _NOT_OF_A_FILE:
            fault = f"the work on {folder} broke off ({error}): mend that"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fault = f"the disk of {place} is full: make room"
        raise error_type(f"{fault} and run the same command again; {kept}.") from error


def read_bytes(place: Path | str) -> bytes:
    """A whole file at a path or a URL. Raises OSError, StorageError."""
    url = url_of(place)
    if url is None:
        return local_path(place).read_bytes()
    folder, name = url.rsplit("/", 1)
    return open_folder(folder).read(name)


class FileFetcher:
    """Gives files below `root` (a path, a URL or an archive) as local ones.

    Local files are used where they lie; copies are removed at the end. faults: path -> why the
    archive does not give that file. For one thread. Raises StorageError.
    """

    def __init__(self, root: str) -> None:
        self._root, self._scratch = root, tempfile.TemporaryDirectory(prefix="har-")
        self._archive = open_archive(root) if is_archive(root) else None
        self.faults: dict[Path, str] = {}

    def path(self, name: str) -> Path:
        """A local file with the content of `name`; of a missing one, a path that does not exist.

        A name that ends in `/` is a folder: the files that lie directly in it. Raises StorageError.
        """
        place = join(self._root, name)
        is_local = url_of(self._root) is None and "://" not in name
        if self._archive is None and (is_local or url_of(place) is None):
            return Path(place)
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
        path = Path(self._scratch.name) / (digest + Path(name).suffix)
        if path.exists() or path in self.faults:
            return path
        if name.endswith("/"):
            return self._fetch_folder(name, path)
        with contextlib.suppress(FileNotFoundError):
            if self._archive is None:
                path.write_bytes(read_bytes(place))
                return path
            try:
                self._archive.extract(name, path)
            except ArchiveError as error:
                path.unlink(missing_ok=True)
                self.faults[path] = str(error)
        return path

    def _fetch_folder(self, name: str, path: Path) -> Path:
        path.mkdir()
        place = self._archive or open_folder(join(self._root, name))
        names = place.names_in(name) if isinstance(place, Archive) else place.names()
        for file in names:
            try:
                (path / file.rpartition("/")[2]).write_bytes(place.read(file))
            except FileNotFoundError:  # a folder in it
                continue
            except ArchiveError as error:
                self.faults[path] = f"{file}: {error}"
        return path

    def done(self, path: Path) -> None:
        """The file at `path` is no longer needed: a copy is removed now."""
        if path.parent == Path(self._scratch.name):
            LocalFolder(path.parent).remove(path.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._scratch.cleanup()

"""Folders at paths and URLs, behind one interface: `LocalFolder` and `RemoteFolder`.

`file://` URLs are local folders; fsspec is imported for remote ones only.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from pathlib import Path

from .local_folder import LocalFolder
from .place import join, local_path, url_of
from .remote_folder import RemoteFolder, file_system


def open_folder(place: Path | str) -> LocalFolder | RemoteFolder:
    """The folder at a path or a URL; it need not exist. Raises StorageError for a bad URL."""
    url = url_of(place)
    if url is None:
        return LocalFolder(local_path(place))
    file_system(url)
    return RemoteFolder(url)


def read_bytes(url: str) -> bytes:
    """A whole file behind a URL. Raises StorageError, FileNotFoundError."""
    folder, name = url.rsplit("/", 1)
    return open_folder(folder).read(name)


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

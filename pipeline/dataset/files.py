"""The files of a data set behind one interface: a local folder, an archive, a folder at a URL.

Links are followed last, and none to what has been read: each real file has one name, its own where
it lies below the root.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ...shards import storage
from ..decode import IMAGE_SUFFIXES, VIDEO_SUFFIXES, order_images
from .records import WHERE, DatasetError

MEDIA_SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES


class Files(ABC):
    """All files below `root`, by names relative to it with `/`.

    root: absolute, for `storage.FileFetcher`. A subclass for another kind of place (an archive)
    gives `names`, `size` and `read`.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.left_out: dict[str, str] = {}  # name -> why it is none of `names`; known after these
        self._by_folder: dict[str, list[str]] | None = None

    @abstractmethod
    def names(self) -> list[str]:
        """Every file, sorted. A folder without files, or a hidden one, ends in `/`."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file; -1 where there is none, or a folder."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file. Raises OSError, StorageError."""

    def names_in(self, folder: str) -> list[str]:
        """Names of the files that lie directly in a folder; [] where there is none."""
        if self._by_folder is None:
            self._by_folder = defaultdict(list)
            for name in self.names():
                self._by_folder[name.rpartition("/")[0]].append(name)
        return self._by_folder.get(folder, [])

    def total_size(self, video: str) -> int:
        """Bytes of a video; of a folder of images (`folder/`) all of them; -1 where it is not."""
        if not video.endswith("/"):
            return self.size(video)
        return sum(map(self.size, order_images(self.names_in(video[:-1])))) or -1


def open_files(root: str) -> Files:
    """root: a normalized path or a URL. Raises DatasetError, StorageError."""
    if storage.is_archive(root):
        return StoredFiles(root, storage.open_archive(root))
    is_local = storage.url_of(root) is None
    return LocalFiles(root) if is_local else StoredFiles(root, storage.RemoteFolder(root))


class StoredFiles(Files):
    """What lies behind a URL or in an archive, by one listing."""

    def __init__(self, root: str, store: storage.RemoteFolder | storage.Archive) -> None:
        super().__init__(root)
        self._store, self._sizes = store, store.find()
        if isinstance(store, storage.Archive):
            reason = "files of the archive that are not read"
            self.left_out = {
                name: f"{reason} ({problem})" for name, problem in store.left_out.items()
            }
        if not self._sizes:
            raise DatasetError(f"there are no videos at {root}: {WHERE}.")

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def size(self, name: str) -> int:
        return self._sizes.get(name, -1)

    def read(self, name: str) -> bytes:
        return self._store.read(name)


_LINK = "links to what is read already"


class LocalFiles(Files):
    """A folder of this machine. What is no file (a broken link, a pipe) has a name as well: it
    becomes a reject."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._folders: set[str] = set()  # real paths of those that were read
        self._files: set[str] = set()  # real paths of those that a link led to
        self._links: list[str] = []

    def names(self) -> list[str]:
        self._folders.clear()
        self._files.clear()
        self.left_out.clear()
        names = list(self._walk("", os.path.realpath(self.root)))
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                names += self._follow(link)
        return sorted(names)

    def size(self, name: str) -> int:
        try:
            status = os.stat(Path(self.root, name))
        except OSError:
            return -1
        return -1 if stat.S_ISDIR(status.st_mode) else status.st_size

    def read(self, name: str) -> bytes:
        return Path(self.root, name).read_bytes()

    def names_in(self, folder: str) -> list[str]:
        try:
            return [f"{folder}/{name}" for name in os.listdir(Path(self.root, folder))]
        except OSError:
            return []

    def _walk(self, prefix: str, real: str) -> Iterator[str]:
        """Files below the folder `prefix` ("" or ending in `/`), whose real path is `real`."""
        pending = [(prefix, real)]
        while pending:
            prefix, real = pending.pop()
            if real in self._folders:  # a link led to a part of it before
                self.left_out[prefix] = _LINK
                continue
            self._folders.add(real)
            entries = self._scan(prefix)
            if not entries and prefix:
                yield prefix
            for entry in entries:
                name = prefix + entry.name
                if entry.is_symlink():
                    self._links.append(name)
                elif not entry.is_dir(follow_symlinks=False):
                    yield name
                elif entry.name.startswith("."):
                    yield f"{name}/"
                else:
                    pending.append((f"{name}/", f"{real}/{entry.name}"))

    def _scan(self, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(Path(self.root, prefix)) as entries:
                return list(entries)
        except OSError as error:
            raise DatasetError(
                f"the folder {Path(self.root, prefix)} cannot be read ({error.strerror}): mend its "
                "permissions, or move it away."
            ) from error

    def _follow(self, link: str) -> Iterator[str]:
        path = Path(self.root, link)
        real = os.path.realpath(path)
        if path.is_dir():
            if real in self._folders:
                self.left_out[f"{link}/"] = _LINK
            else:
                yield from self._walk(f"{link}/", real)
        elif path.exists() and (real in self._files or self._is_read(real)):
            self.left_out[link] = _LINK
        else:
            self._files.add(real)
            yield link

    def _is_read(self, real: str) -> bool:
        """Whether the file was found below the root: as a video, and in a class folder."""
        folder = os.path.dirname(real)
        is_media = real.lower().endswith(MEDIA_SUFFIXES)
        return is_media and folder in self._folders and folder != os.path.realpath(self.root)

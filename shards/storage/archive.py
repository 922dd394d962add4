"""Files in a zip, tar, tar.gz or rar, read one by one: an archive is never unpacked whole.

`open_archive` gives what a tree of the unpacked files would: names with `/` and sizes. One folder
around everything (`UCF-101/`) is left away. No name of an archive is ever used as a path.

Notes:
- A tar.gz is read through once, for its names (5 ms a MB), and then anywhere (`gzip_stream`).
- A video of UCF101 takes 0.3 ms of CPU time from a tar, 2.7 from a zip, 9.5 from a tar.gz; decoding
  it takes 9.
- A solid rar is refused: of that, each file is behind all files before it. Programs: unar reads the
  samples of rarfile's own tests; bsdtar 3.6 and Debian's 7zz fail on a third of them.
"""

import functools
import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from .gzip_stream import GzipStream
from .place import StorageError, url_of
from .remote_folder import DISK_ERRORS

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")
_MAX_RATIO, _RATIO_BYTES = 100, 64 << 20  # a larger file that was packed tighter is no video
_BLOCK = 1 << 20
_SUBSET_FOLDERS = (  # the words of har.pipeline.dataset.layout
    "train", "training", "val", "valid", "validate", "validation", "dev", "test", "testing",
)  # fmt: skip


class ArchiveError(StorageError):
    """An archive that cannot be read, or one file in it; the text is one sentence."""


@dataclass(frozen=True)
class _Entry:
    """name: as the archive has it. blocks: the content, anew. problem: why it is left out."""

    name: str
    size: int
    packed_size: int
    blocks: Callable[[], Iterator[bytes]]
    problem: str = ""


class Archive:
    """The files of an archive; from any number of threads.

    left_out: name -> why it is not among the files: links, names that lead out of the folder.
    Raises ArchiveError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: dict[str, str] = {}
        suffix = next(suffix for suffix in ARCHIVE_SUFFIXES if path.name.lower().endswith(suffix))
        try:
            entries = [self._checked(entry) for entry in _READERS[suffix](path)]
        except _FAULTS as error:
            raise ArchiveError(
                f"{path} is damaged or no {suffix[1:]} ({_reason(error)}): get it once more, whole."
            ) from error
        files = {entry.name: entry for entry in entries if entry is not None}
        top = _folder_around(list(files))
        self._files = {name.removeprefix(top): entry for name, entry in files.items()}

    def find(self) -> dict[str, int]:
        """Every file: its name -> bytes, as `RemoteFolder.find`."""
        return {name: entry.size for name, entry in self._files.items()}

    def names_in(self, folder: str) -> list[str]:
        """Names of the files that lie directly in `folder/`."""
        return self._by_folder.get(folder.rstrip("/"), [])

    @functools.cached_property
    def _by_folder(self) -> dict[str, list[str]]:
        by_folder: dict[str, list[str]] = {}
        for name in self._files:
            by_folder.setdefault(name.rpartition("/")[0], []).append(name)
        return by_folder

    def read(self, name: str) -> bytes:
        """A whole file. Raises ArchiveError, FileNotFoundError."""
        buffer = io.BytesIO()
        self._copy(name, buffer)
        return buffer.getvalue()

    def extract(self, name: str, path: Path) -> None:
        """Write a file to `path`. Raises ArchiveError, FileNotFoundError; OSError for the disk."""
        size, free = self._entry(name).size, shutil.disk_usage(path.parent).free
        if size > free:
            raise ArchiveError(
                f"it takes {size / 1e9:.2f} GB of scratch space and {path.parent} has "
                f"{free / 1e9:.2f} GB: set TMPDIR to a larger one."
            )
        with path.open("wb") as file:
            self._copy(name, file)

    def _entry(self, name: str) -> _Entry:
        try:
            return self._files[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def _copy(self, name: str, target: IO[bytes]) -> None:
        entry = self._entry(name)
        if entry.size > max(_RATIO_BYTES, _MAX_RATIO * entry.packed_size):
            raise ArchiveError(
                f"it would grow from {entry.packed_size:,} to {entry.size:,} bytes: that is no "
                "video, and it is not unpacked."
            )
        num_left = entry.size
        try:
            for block in entry.blocks():
                target.write(block[:num_left])
                num_left -= len(block)
            if num_left:
                raise EOFError("it ends early" if num_left > 0 else "it is longer than it says")
        except _FAULTS as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            raise ArchiveError(f"it is damaged in the archive ({_reason(error)}).") from error

    def _checked(self, entry: _Entry) -> _Entry | None:
        """The entry under the name it would have in a tree; None where it is left out."""
        name = entry.name.removeprefix("./")
        parts = name.split("/")
        problem = entry.problem
        if name.startswith("/") or parts[0].endswith(":") or ".." in parts:
            problem = "its name leads out of the folder"
        if problem:
            self.left_out[entry.name] = problem
            return None
        name = "/".join(part for part in parts if part not in ("", "."))
        return replace(entry, name=name)


def is_archive(place: Path | str) -> bool:
    """Whether it is an archive's name, and no folder of that name."""
    return str(place).lower().endswith(ARCHIVE_SUFFIXES) and not Path(place).is_dir()


def open_archive(path: Path | str) -> Archive:
    """The archive at a path; the same object while the file is the same. Raises ArchiveError."""
    if url_of(path) is not None:
        raise ArchiveError(
            f"{path} is an archive behind a URL: download it and give the file, or give the URL of "
            "a folder of videos."
        )
    status = os.stat(path)
    with _LOCK:
        return _open(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _open(path: str, size: int, mtime: int) -> Archive:
    return Archive(Path(path))


_LOCK = threading.Lock()  # the threads of a build ask for the same archive at once


def _folder_around(names: list[str]) -> str:
    """ "UCF-101/" where all folders lie in it; else "". Hidden files and loose ones do not count.

    The folder of a subset (`train/`) is none: it says something.
    """
    paths = [name.split("/") for name in names if not name.startswith("__MACOSX/")]
    paths = [parts for parts in paths if len(parts) > 1 and parts[-1][:1] != "."]
    tops = {parts[0] for parts in paths}
    is_around = len(tops) == 1 and any(len(parts) > 2 for parts in paths)
    top = next(iter(tops), "")
    return f"{top}/" if is_around and top.lower() not in _SUBSET_FOLDERS else ""


def _zip_entries(path: Path) -> Iterator[_Entry]:
    archive, lock = zipfile.ZipFile(path), threading.Lock()  # threads read from it at once

    def blocks(info: zipfile.ZipInfo) -> Iterator[bytes]:
        with lock:  # it counts its open files without one
            file = archive.open(info)
        try:
            yield from iter(functools.partial(file.read, _BLOCK), b"")
        finally:
            with lock:
                file.close()

    for info in archive.infolist():
        if info.is_dir():
            continue
        problem = "it is encrypted" * (info.flag_bits & 1)
        if stat.S_ISLNK(info.external_attr >> 16):
            problem = "a link"
        name = info.filename.replace("\\", "/")  # Windows programs
        content = functools.partial(blocks, info)
        yield _Entry(name, info.file_size, info.compress_size, content, problem)


def _tar_entries(path: Path) -> Iterator[_Entry]:
    def blocks(start: int, size: int) -> Iterator[bytes]:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while size and (block := file.read(min(_BLOCK, size))):
                yield block
                size -= len(block)

    with tarfile.open(path, "r:") as tar:
        yield from _entries_of_tar(tar, blocks)


def _tar_gz_entries(path: Path) -> Iterator[_Entry]:
    stream = GzipStream(path)
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", bufsize=_BLOCK) as tar:
        yield from _entries_of_tar(tar, stream.blocks)
    while stream.read(_BLOCK):  # to its end, where the checksum is
        pass


def _entries_of_tar(
    tar: tarfile.TarFile, blocks: Callable[[int, int], Iterator[bytes]]
) -> Iterator[_Entry]:
    """blocks: of the `size` bytes from an offset of the tar on."""
    for member in tar:
        if member.isdir():
            continue
        problem = "" if member.isreg() and not member.issparse() else "no plain file"
        problem = "a link" if member.issym() or member.islnk() else problem
        content = functools.partial(blocks, member.offset_data, member.size)
        yield _Entry(member.name, member.size, member.size, content, problem)


def _rar_entries(path: Path) -> Iterator[_Entry]:
    try:
        import rarfile
    except ImportError as error:
        raise ArchiveError(
            f"{path} needs rarfile and the program unrar or unar: 'pip install .[rar]' and your "
            "system's package of one of them, or unpack it and give the folder."
        ) from error
    try:
        archive = rarfile.RarFile(path, errors="strict")
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if any(info.compress_type != rarfile.RAR_M0 for info in infos):
            rarfile.tool_setup(bsdtar=False, sevenzip=False, sevenzip2=False, force=True)
        ends = [info.data_offset + info.compress_size for info in infos]
        if len(archive.volumelist()) == 1 and max(ends, default=0) > path.stat().st_size:
            raise EOFError("it ends early")
    except rarfile.RarCannotExec as error:
        raise ArchiveError(
            f"{path} needs the program unrar or unar: install your system's package of one of "
            "them, or unpack it elsewhere and give the folder."
        ) from error
    except rarfile.NeedFirstVolume as error:
        raise ArchiveError(f"{path} is a later part of a rar: give the first one.") from error
    except rarfile.Error as error:
        raise zipfile.BadZipFile(str(error)) from error
    if archive.is_solid() or (archive.needs_password() and not infos):
        kind = "solid rar, in which each video lies behind all others"
        kind = kind if archive.is_solid() else "rar with a password"
        raise ArchiveError(f"{path} is a {kind}: unpack it and give the folder.")
    for info in infos:
        problem = "a link" if info.is_symlink() else "it is encrypted" * info.needs_password()
        blocks = functools.partial(_blocks_of_rar, archive, info, rarfile.Error)
        name = info.filename.replace("\\", "/")
        yield _Entry(name, info.file_size, info.compress_size, blocks, problem)


def _blocks_of_rar(archive: Any, info: Any, error_type: type[Exception]) -> Iterator[bytes]:
    try:
        with archive.open(info) as file:
            yield from iter(functools.partial(file.read, _BLOCK), b"")
    except error_type as error:
        raise zipfile.BadZipFile(str(error)) from error


_READERS: dict[str, Callable[[Path], Iterator[_Entry]]] = {
    ".zip": _zip_entries,
    ".tar": _tar_entries,
    ".tar.gz": _tar_gz_entries,
    ".tgz": _tar_gz_entries,
    ".rar": _rar_entries,
}
_FAULTS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")

"""A class-folder tree, or a CSV, of videos -> `Video` records: class, group, subset, key.

UCF101's folder `HandstandPushups` holds files named `v_HandStandPushups_...`, so the class is the
folder's name, and class names are compared without case. A UCF101 group is (class, gNN): g01 of two
classes are two source videos. A group from a CSV or a regex may span classes.
"""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import HarError
from ..shards import storage
from ..shards.format import SUBSETS
from .decode import VIDEO_SUFFIXES

CLASS_LIST = "classInd.txt"
WHERE = (
    "UCF101 comes from UCF's Center for Research in Computer Vision (its UCF101 page) or from "
    "Kaggle, unpacked as one folder a class (UCF-101/YoYo/v_YoYo_g01_c01.avi); "
    "'make demo' needs none of it"
)
_UCF101_NAME = re.compile(r"v_(?P<name>\w+)_g(?P<group>\d+)_c(?P<clip>\d+)", re.ASCII)
_MAX_KEY = 80  # of the 90 characters that a key may have: views add a suffix


class DatasetError(HarError):
    """A dataset that is missing or does not make sense; the text is one sentence."""


@dataclass(frozen=True)
class Video:
    """One file. path: relative to the dataset, with `/`. label: class number. group: "" = none.

    clip: UCF101's cNN, else 0. subset: number in `SUBSETS`, 0 = none given. size: bytes.
    """

    path: str
    label: int
    group: str
    clip: int
    subset: int
    key: str
    size: int


@dataclass(frozen=True)
class Dataset:
    """Videos in order of their path. grouping: "ucf101", "regex", "csv" or None.

    root: the folder, an absolute path or a URL.
    """

    root: str
    classes: tuple[str, ...]
    grouping: str | None
    videos: tuple[Video, ...]


def find_videos(
    source: Path | str, *, classes: Path | None = None, group_regex: str | None = None
) -> Dataset:
    """Read a class-folder tree, or a CSV (`path,label[,group][,split]`, paths relative to it).

    source: a path or a URL. classes: a list of class names in their order, one a line, as UCF101's
    classInd.txt; one in the folder is found by itself; without, names are sorted. group_regex:
    searched in each path; its group named `group`, else its first, is the group. Raises
    DatasetError, and StorageError for a URL that gives nothing.
    """
    files = _Files(source)
    entries = _from_csv(files) if files.is_csv else _from_tree(files)
    names = _read_class_names(files, classes) or sorted({entry.class_name for entry in entries})
    grouping, entries = _add_groups(entries, group_regex)
    videos = _videos(files, entries, names, str(classes or CLASS_LIST), grouping)
    return Dataset(files.root, tuple(names), grouping, videos)


class _Files:
    """The files of a folder, or of the folder that a CSV lies in: a local one, or behind a URL."""

    def __init__(self, source: Path | str) -> None:
        self.source = storage.normalize(source)
        is_url = storage.url_of(source) is not None
        path = Path(self.source)
        if not is_url and not path.exists():
            raise DatasetError(f"there are no videos at {path}: {WHERE}.")
        self.is_csv = self.source.lower().endswith(".csv") and (is_url or path.is_file())
        if not is_url and path.is_file() and not self.is_csv:
            raise DatasetError(f"{path} is a file: give a folder of class folders, or a .csv.")
        self.root = self.source.rsplit("/", 1)[0] if self.is_csv else self.source
        self._sizes: dict[str, int] | None = None  # of what is behind a URL, by one listing
        if is_url:
            self._sizes = storage.RemoteFolder(self.root).find()
            if not self._sizes:
                raise DatasetError(f"there are no videos at {self.source}: {WHERE}.")

    def video_names(self) -> list[str]:
        """Paths relative to the root of what has a video's suffix; links are followed.

        What is no file (a broken link, a pipe) is named too: it becomes a reject.
        """
        names = _walk(Path(self.root)) if self._sizes is None else self._sizes
        return sorted(name for name in names if name.lower().endswith(VIDEO_SUFFIXES))

    def size(self, name: str) -> int:
        """Bytes; -1 for what is not there: a CSV may name it, and it becomes a reject."""
        if self._sizes is not None:
            return self._sizes.get(name, -1)
        try:
            return Path(self.root, name).stat().st_size
        except OSError:
            return -1

    def read(self, path: str) -> bytes:
        """path: the source, or one made by `storage.join`."""
        return Path(path).read_bytes() if self._sizes is None else storage.read_bytes(path)


def _walk(root: Path) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root, onerror=_raise, followlinks=True):
        here = Path(folder)
        subfolders[:] = [name for name in subfolders if not _is_link_to_parent(here / name)]
        yield from ((here / name).relative_to(root).as_posix() for name in files)


def _raise(error: OSError) -> None:
    raise DatasetError(
        f"the folder {error.filename} cannot be read ({error.strerror}): mend its permissions, or "
        "move it away."
    ) from error


def _is_link_to_parent(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in: following it would never end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _read_class_names(files: _Files, classes: Path | None) -> list[str] | None:
    """Those of the list given, else of the classInd.txt beside the videos, else None.

    A line is a number and a name (`1 ApplyEyeMakeup`, CRLF or not) or a name alone.
    """
    if classes is None and files.size(CLASS_LIST) < 0:
        return None
    path = storage.join(files.root, CLASS_LIST) if classes is None else str(classes)
    try:
        raw = files.read(path) if classes is None else Path(path).read_bytes()
        lines = raw.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the class list {path} cannot be read ({error}).") from error
    names = [re.sub(r"^\d+\s+", "", line.strip()) for line in lines if line.strip()]
    if not names or len(set(names)) != len(names):
        raise DatasetError(f"the class list {path} must name each class once, one a line.")
    return names


@dataclass(frozen=True)
class _Entry:
    """A video as the tree or the CSV names it. group: None where a CSV has no such column."""

    path: str
    class_name: str
    group: str | None = None
    subset: int = 0

    @property
    def stem(self) -> str:
        return self.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _from_tree(files: _Files) -> list[_Entry]:
    """Videos below the root; a class is a folder, train/, val/ and test/ on top are subsets."""
    entries = []
    for name in files.video_names():
        parts = name.split("/")
        if len(parts) > 1 and not any(part.startswith(".") for part in parts):
            is_subset = len(parts) > 2 and parts[0] in SUBSETS
            subset = SUBSETS.index(parts[0]) if is_subset else 0
            entries.append(_Entry(name, parts[-2], subset=subset))
    if not entries:
        raise DatasetError(f"there are no videos in class folders under {files.source}: {WHERE}.")
    return entries


def _from_csv(files: _Files) -> list[_Entry]:
    path = files.source
    rows = csv.DictReader(io.StringIO(files.read(path).decode("utf-8-sig"), newline=""))
    columns = set(rows.fieldnames or ())
    if not {"path", "label"} <= columns:
        raise DatasetError(
            f"{path} has the columns {sorted(columns)}: it needs path,label and may have group and "
            "split."
        )
    entries = [_from_row(path, line, row) for line, row in enumerate(rows, 2)]
    if not entries:
        raise DatasetError(f"{path} names no video.")
    (name, count), *_ = Counter(entry.path for entry in entries).most_common(1)
    if count > 1:
        raise DatasetError(f"{path} names {name} more than once.")
    return sorted(entries, key=lambda entry: entry.path)


def _from_row(path: str, line: int, row: dict[str, str | None]) -> _Entry:
    split = (row.get("split") or "").strip()
    subset = "val" if split in ("validate", "validation", "valid") else split
    if subset not in SUBSETS or not row["path"] or not row["label"]:
        raise DatasetError(
            f"{path}, line {line}: path and label must not be empty and split {split!r} must be "
            f"one of {', '.join(SUBSETS[1:])}, or empty."
        )
    group = (row["group"] or "").strip() if "group" in row else None
    return _Entry(row["path"], row["label"], group, SUBSETS.index(subset))


def _add_groups(entries: list[_Entry], regex: str | None) -> tuple[str | None, list[_Entry]]:
    """-> where groups come from, and the videos with them."""
    if regex is not None:
        return "regex", [replace(entry, group=_match_group(regex, entry.path)) for entry in entries]
    if entries[0].group is not None:
        return "csv", entries
    numbers = [int(name["group"]) for e in entries if (name := _UCF101_NAME.fullmatch(e.stem))]
    if len(numbers) < len(entries):
        return None, entries
    groups = (f"g{number:02d}" for number in numbers)
    return "ucf101", [replace(entry, group=next(groups)) for entry in entries]


def _match_group(regex: str, path: str) -> str:
    try:
        match = re.search(regex, path)
    except re.error as error:
        raise DatasetError(f"--group-regex '{regex}' is no regular expression: {error}.") from error
    if not match or not match.re.groups:
        raise DatasetError(
            f"--group-regex '{regex}' finds no group in {path}: it needs one pair of brackets that "
            "matches in every path, for example '_g(\\d+)_'."
        )
    return match.groupdict().get("group") or match[1] or ""


def _videos(
    files: _Files,
    entries: list[_Entry],
    class_names: Sequence[str],
    class_list: str,
    grouping: str | None,
) -> tuple[Video, ...]:
    labels = {name.casefold(): label for label, name in enumerate(class_names)}
    videos = []
    for entry, key in zip(entries, _keys(entries), strict=True):
        label = labels.get(entry.class_name.casefold())
        if label is None:
            raise DatasetError(
                f"class {entry.class_name!r} of {entry.path} is not in {class_list}."
            )
        group = entry.group or ""
        if grouping == "ucf101":
            group = f"{class_names[label]}/{group}"
        match = _UCF101_NAME.fullmatch(entry.stem)
        clip = int(match["clip"]) if match else 0
        size = files.size(entry.path)
        videos.append(Video(entry.path, label, group, clip, entry.subset, key, size))
    return tuple(videos)


def _keys(entries: list[_Entry]) -> list[str]:
    """The file's name as key; where two files would share one, each gets a hash of its path."""
    stems = [re.sub(r"[^A-Za-z0-9_\-+=]", "_", entry.stem)[:_MAX_KEY] or "_" for entry in entries]
    counts = Counter(stem.casefold() for stem in stems)  # tars are unpacked on any file system
    keys = []
    for stem, entry in zip(stems, entries, strict=True):
        if counts[stem.casefold()] > 1 or stem.startswith("_"):
            digest = hashlib.sha256(entry.path.encode(errors="surrogateescape")).hexdigest()
            stem = f"{stem[: _MAX_KEY - 9]}-{digest[:8]}"
        keys.append(stem)
    return keys

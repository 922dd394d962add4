"""A class-folder tree, or a CSV, of videos -> `Video` records: class, group, side, key.

Odd: UCF101's folder `HandstandPushups` holds files named `v_HandStandPushups_...`, so the class is
the folder's name and class names are compared without case. A UCF101 group is (class, gNN): g01 of
two classes are two source videos. A group from a CSV or a regex may span classes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import HarError
from ..shards.format.shard_set import SIDES
from .build import storage
from .decode import VIDEO_SUFFIXES

WHERE = (
    "UCF101 comes from UCF's Center for Research in Computer Vision (its UCF101 page) or from "
    "Kaggle, unpacked as one folder a class (UCF-101/YoYo/v_YoYo_g01_c01.avi); "
    "'make demo' needs none of it"
)
_NAME = re.compile(r"v_(?P<name>\w+)_g(?P<group>\d+)_c(?P<clip>\d+)", re.ASCII)
_KEY_MOST = 80  # of the 90 a key may have: views add a suffix


class DatasetError(HarError):
    """A dataset that is missing or does not make sense; the text is one sentence."""


@dataclass(frozen=True)
class Video:
    """One file. path: relative to the dataset, with `/`. label: class number. group: "" = none.

    clip: UCF101's cNN, else 0. side: number in `har.shards.format.shard_set.SIDES`. size: bytes.
    """

    path: str
    label: int
    group: str
    clip: int
    side: int
    key: str
    size: int


@dataclass(frozen=True)
class Dataset:
    """Videos in order of their path. grouping: "ucf101", "regex", "csv" or None.

    url: of the folder where that is no local one, and `root` means nothing.
    """

    root: Path
    classes: tuple[str, ...]
    grouping: str | None
    videos: tuple[Video, ...]
    url: str = ""

    @property
    def place(self) -> str:
        """The folder as `store.join` takes it."""
        return self.url or str(self.root.absolute())


def find(
    source: Path | str, *, classes: Path | None = None, group_regex: str | None = None
) -> Dataset:
    """Read a class-folder tree, or a CSV (`path,label[,group][,split]`, paths relative to it).

    source: a path or a URL. classes: a list of class names in their order, one a line, as UCF101's
    classInd.txt; one in the folder is found by itself; without, names are sorted. group_regex:
    searched in each path; its group named `group`, else its first, is the group. Raises
    DatasetError, and StoreError for a URL that gives nothing.
    """
    files = _Remote(str(source)) if storage.is_url(source) else _Local(Path(storage.normal(source)))
    found = _from_csv(files) if files.is_csv else _from_tree(files)
    names = _class_names(files, classes) or sorted({one.name for one in found})
    listed = classes or "classInd.txt"
    grouping, found = _grouped(found, group_regex)
    videos = _videos(files, found, names, listed, grouping)
    return Dataset(files.root, tuple(names), grouping, videos, files.url)


class _Local:
    """The files of a local folder, or of the folder that a CSV lies in."""

    url = ""

    def __init__(self, source: Path) -> None:
        if not source.exists():
            raise DatasetError(f"there are no videos at {source}: {WHERE}.")
        self.is_csv = source.is_file()
        if self.is_csv and source.suffix.lower() != ".csv":
            raise DatasetError(f"{source} is a file: give a folder of class folders, or a .csv.")
        self.source, self.root = str(source), source.parent if self.is_csv else source

    def names(self) -> list[str]:
        """Whatever has a video's suffix, by path relative to the root; links are followed.

        What is no file, a broken link or a pipe, is named too: it is a reject, later.
        """
        found = []
        for folder, inside, files in os.walk(self.root, onerror=_unread, followlinks=True):
            here = Path(folder)
            inside[:] = [name for name in inside if not _leads_back(here / name)]
            paths = (here / name for name in files)
            found += [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
        return [path.relative_to(self.root).as_posix() for path in found]

    def size(self, name: str) -> int:
        """Bytes; -1 for what is not there: a CSV may name it, and it is a reject, later."""
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return -1

    def read(self, name: str | None = None) -> bytes:
        """The source itself, or a file in the root."""
        return (self.root / name if name else Path(self.source)).read_bytes()


def _unread(error: OSError) -> None:
    raise DatasetError(
        f"the folder {error.filename} cannot be read ({error.strerror}): mend its permissions, or "
        "move it away."
    ) from error


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in: following it would never end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


class _Remote:
    """The same behind a URL, by one listing."""

    root = Path()

    def __init__(self, source: str) -> None:
        self.source = storage.normal(source)
        self.is_csv = self.source.lower().endswith(".csv")
        self.url = self.source.rsplit("/", 1)[0] if self.is_csv else self.source
        self._sizes = storage.listing(self.url)
        if not self._sizes:
            raise DatasetError(f"there are no videos at {self.source}: {WHERE}.")

    def names(self) -> list[str]:
        return [name for name in self._sizes if Path(name).suffix.lower() in VIDEO_SUFFIXES]

    def size(self, name: str) -> int:
        return self._sizes.get(name, -1)

    def read(self, name: str | None = None) -> bytes:
        return storage.read_bytes(storage.join(self.url, name) if name else self.source)


def _class_names(files: _Local | _Remote, classes: Path | None) -> list[str] | None:
    """Those of the list given, else of the classInd.txt beside the videos, else None."""
    if classes is not None:
        return read_classes(classes)
    if files.size("classInd.txt") < 0:
        return None
    return _parse_classes(files.read("classInd.txt"), storage.join(files.source, "classInd.txt"))


def read_classes(path: Path) -> list[str]:
    """classInd.txt (`1 ApplyEyeMakeup`, CRLF or not) or plain names, one a line, in their order."""
    try:
        return _parse_classes(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise DatasetError(f"the class list {path} cannot be read ({error}).") from error


def _parse_classes(raw: bytes, path: str) -> list[str]:
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"the class list {path} cannot be read ({error}).") from error
    names = [re.sub(r"^\d+\s+", "", line.strip()) for line in lines if line.strip()]
    if not names or len(set(names)) != len(names):
        raise DatasetError(f"the class list {path} must name each class once, one a line.")
    return names


def parse(name: str) -> tuple[str, int, int] | None:
    """ "v_YoYo_g07_c02" (with or without suffix) -> ("YoYo", 7, 2); None for other names."""
    match = _NAME.fullmatch(name.rsplit(".", 1)[0])
    return (match["name"], int(match["group"]), int(match["clip"])) if match else None


@dataclass(frozen=True)
class _Found:
    path: str
    name: str
    group: str = ""
    side: int = 0
    has_group: bool = False


def _from_tree(files: _Local | _Remote) -> list[_Found]:
    """Every video below the root; its class is its folder; train/, val/, test/ on top are sides."""
    found = []
    for name in sorted(files.names()):
        parts = name.split("/")
        if len(parts) > 1 and not any(part.startswith(".") for part in parts):
            side = SIDES.index(parts[0]) if len(parts) > 2 and parts[0] in SIDES else 0
            found.append(_Found(name, parts[-2], side=side))
    if not found:
        raise DatasetError(f"there are no videos in class folders under {files.source}: {WHERE}.")
    return found


def _from_csv(files: _Local | _Remote) -> list[_Found]:
    path = files.source
    rows = csv.DictReader(io.StringIO(files.read().decode("utf-8-sig"), newline=""))
    columns = set(rows.fieldnames or ())
    if not {"path", "label"} <= columns:
        raise DatasetError(
            f"{path} has the columns {sorted(columns)}: it needs path,label and may have group and "
            "split."
        )
    found = [_from_row(path, line, row, "group" in columns) for line, row in enumerate(rows, 2)]
    if not found:
        raise DatasetError(f"{path} names no video.")
    twice = [name for name, count in Counter(one.path for one in found).items() if count > 1]
    if twice:
        raise DatasetError(f"{path} names {twice[0]} more than once.")
    return sorted(found, key=lambda one: one.path)


def _from_row(path: str, line: int, row: dict[str, str], has_group: bool) -> _Found:
    split = (row.get("split") or "").strip()
    side = "val" if split in ("validate", "validation", "valid") else split
    if side not in SIDES or not row["path"] or not row["label"]:
        raise DatasetError(
            f"{path}, line {line}: path and label must not be empty and split {split!r} must be "
            f"one of {', '.join(SIDES[1:])}, or empty."
        )
    group = (row.get("group") or "").strip()
    return _Found(row["path"], row["label"], group, SIDES.index(side), has_group)


def _grouped(found: list[_Found], regex: str | None) -> tuple[str | None, list[_Found]]:
    """-> where groups come from, and the videos with them."""
    if regex is not None:
        return "regex", [replace(one, group=_by_regex(regex, one.path)) for one in found]
    if found[0].has_group:
        return "csv", found
    parsed = [parse(one.path.rsplit("/", 1)[-1]) for one in found]
    if any(one is None for one in parsed):
        return None, found
    return "ucf101", [
        replace(one, group=f"g{name[1]:02d}")
        for one, name in zip(found, parsed, strict=True)
        if name
    ]


def _by_regex(regex: str, path: str) -> str:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise DatasetError(f"--group-regex '{regex}' is no regular expression: {error}.") from error
    match = pattern.search(path)
    if not match or not match.re.groups:
        raise DatasetError(
            f"--group-regex '{regex}' finds no group in {path}: it needs one pair of brackets that "
            "matches in every path, for example '_g(\\d+)_'."
        )
    return match.groupdict().get("group") or match[1] or ""


def _videos(
    files: _Local | _Remote,
    found: list[_Found],
    names: Iterable[str],
    listed: Path | str,
    grouping: str | None,
) -> tuple[Video, ...]:
    labels = {name.casefold(): (number, name) for number, name in enumerate(names)}
    keys, videos = _keys(found), []
    for one, key in zip(found, keys, strict=True):
        if one.name.casefold() not in labels:
            raise DatasetError(f"class {one.name!r} of {one.path} is not in {listed}.")
        label, name = labels[one.name.casefold()]
        known = parse(one.path.rsplit("/", 1)[-1])
        group = f"{name}/{one.group}" if grouping == "ucf101" else one.group
        size = files.size(one.path)
        videos.append(Video(one.path, label, group, known[2] if known else 0, one.side, key, size))
    return tuple(videos)


def _keys(found: list[_Found]) -> list[str]:
    """The file's name as key; where two files would share one, each gets a hash of its path."""
    stems = []
    for one in found:
        stem = one.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        stems.append(re.sub(r"[^A-Za-z0-9_\-+=]", "_", stem)[:_KEY_MOST] or "_")
    counts = Counter(stem.casefold() for stem in stems)  # case-blind file systems unpack tars too
    return [
        stem
        if counts[stem.casefold()] == 1 and not stem.startswith("_")
        else f"{stem[: _KEY_MOST - 9]}-{_short_hash(one.path)}"
        for stem, one in zip(stems, found, strict=True)
    ]


def _short_hash(path: str) -> str:
    return hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:8]

"""A class-folder tree, or a CSV, of videos -> `Video` records: class, group, side, key.

Odd: UCF101's folder `HandstandPushups` holds files named `v_HandStandPushups_...`, so the class is
the folder's name and class names are compared without case. A UCF101 group is (class, gNN): g01 of
two classes are two source videos. A group from a CSV or a regex may span classes.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from shards.manifest import SIDES

SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v")
WHERE = (
    "UCF101 comes from UCF's Center for Research in Computer Vision (its UCF101 page) or from "
    "Kaggle, unpacked as one folder a class (UCF-101/YoYo/v_YoYo_g01_c01.avi); "
    "'make demo' needs none of it"
)
_NAME = re.compile(r"v_(?P<name>\w+)_g(?P<group>\d+)_c(?P<clip>\d+)", re.ASCII)
_KEY_MOST = 80  # of the 90 a key may have: views add a suffix


class DatasetError(ValueError):
    """A dataset that is missing or does not make sense; the text is one sentence."""


@dataclass(frozen=True)
class Video:
    """One file. path: relative to the dataset, with `/`. label: class number. group: "" = none.

    clip: UCF101's cNN, else 0. side: number in `shards.manifest.SIDES`. size: bytes.
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
    """Videos in order of their path. grouping: "ucf101", "regex", "csv" or None."""

    root: Path
    classes: tuple[str, ...]
    grouping: str | None
    videos: tuple[Video, ...]


def find(
    source: Path | str, *, classes: Path | None = None, group_regex: str | None = None
) -> Dataset:
    """Read a class-folder tree, or a CSV (`path,label[,group][,split]`, paths relative to it).

    classes: a list of class names in their order, one a line, as UCF101's classInd.txt; one in the
    folder is found by itself; without, names are sorted. group_regex: searched in each path; its
    group named `group`, else its first, is the group. Raises DatasetError.
    """
    source = Path(source)
    if not source.exists():
        raise DatasetError(f"there are no videos at {source}: {WHERE}.")
    if source.is_file() and source.suffix.lower() != ".csv":
        raise DatasetError(f"{source} is a file: give a folder of class folders, or a .csv.")
    found = _from_csv(source) if source.is_file() else _from_tree(source)
    root = source.parent if source.is_file() else source
    listed = classes or (root / "classInd.txt" if (root / "classInd.txt").is_file() else None)
    names = read_classes(listed) if listed else sorted({one.name for one in found})
    grouping, found = _grouped(found, group_regex)
    return Dataset(root, tuple(names), grouping, _videos(root, found, names, listed, grouping))


def read_classes(path: Path) -> list[str]:
    """classInd.txt (`1 ApplyEyeMakeup`, CRLF or not) or plain names, one a line, in their order."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
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


def _from_tree(root: Path) -> list[_Found]:
    """Every video below `root`; its class is its folder; train/, val/, test/ on top are sides."""
    found = []
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in parts):
            continue
        if len(parts) > 1 and path.is_file():
            side = SIDES.index(parts[0]) if len(parts) > 2 and parts[0] in SIDES else 0
            found.append(_Found("/".join(parts), parts[-2], side=side))
    if not found:
        raise DatasetError(f"there are no videos in class folders under {root}: {WHERE}.")
    return found


def _from_csv(path: Path) -> list[_Found]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = set(rows.fieldnames or ())
        if not {"path", "label"} <= columns:
            raise DatasetError(
                f"{path} has the columns {sorted(columns)}: it needs path,label and may have "
                "group and split."
            )
        found = []
        for line, row in enumerate(rows, 2):
            split = (row.get("split") or "").strip()
            side = "val" if split in ("validate", "validation", "valid") else split
            if side not in SIDES or not row["path"] or not row["label"]:
                raise DatasetError(
                    f"{path}, line {line}: path and label must not be empty and split {split!r} "
                    f"must be one of {', '.join(SIDES[1:])}, or empty."
                )
            group = (row.get("group") or "").strip()
            found.append(
                _Found(row["path"], row["label"], group, SIDES.index(side), "group" in columns)
            )
    if not found:
        raise DatasetError(f"{path} names no video.")
    twice = [name for name, count in Counter(one.path for one in found).items() if count > 1]
    if twice:
        raise DatasetError(f"{path} names {twice[0]} more than once.")
    return sorted(found, key=lambda one: one.path)


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
        raise DatasetError(f"--group-regex {regex!r} is no regular expression: {error}.") from error
    match = pattern.search(path)
    if not match or not match.re.groups:
        raise DatasetError(
            f"--group-regex {regex!r} finds no group in {path}: it needs one pair of brackets that "
            "matches in every path, for example '_g(\\d+)_'."
        )
    return match.groupdict().get("group") or match[1] or ""


def _videos(
    root: Path,
    found: list[_Found],
    names: Iterable[str],
    listed: Path | None,
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
        try:
            size = (root / one.path).stat().st_size
        except OSError:
            size = -1  # a CSV may name what is not there: a reject, later
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

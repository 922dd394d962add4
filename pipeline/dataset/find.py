"""A folder, a folder and lists, or a list -> the `Dataset`: class, group, subset and key of each
video.

UCF101's folder `HandstandPushups` holds files named `v_HandStandPushups_...`: a class is what its
folder is called. A UCF101 group is (class, gNN): g01 of two classes are two source videos. A group
from a list, a folder or a regex may span classes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ...errors import printable
from ...shards import storage
from .classes import CLASS_LIST, ClassList, clean_name, read_class_list, sort_names, unify_names
from .files import Files, open_files
from .labels import folder_entry, name_classes
from .layout import UCF101_NAME, describe_nothing, read_tree
from .list_formats import LIST_SUFFIXES
from .listing import list_videos
from .lists import expand_places, match_rows, read_lists
from .records import WHERE, Dataset, DatasetError, Entry, Remarks, Video, hash_path

_MAX_KEY = 80  # of the 90 characters that a key may have: views add a suffix


class FindOptions(TypedDict, total=False):
    """The options of `find_videos`, for functions that pass them on."""

    classes: Path | None
    group_regex: str | None
    layout: str | None
    lists: Sequence[str]
    merge_case: bool


def find_videos(
    source: Path | str,
    *,
    classes: Path | None = None,
    group_regex: str | None = None,
    layout: str | None = None,
    lists: Sequence[str] = (),
    merge_case: bool = False,
) -> Dataset:
    """Read a tree of class folders, or a list (`list_formats`) with paths relative to it.

    source: a path or a URL. classes: a list of class names in their order, one a line, as UCF101's
    classInd.txt; one in the folder is found by itself; without, names are sorted. group_regex:
    searched in each path; its group named `group`, else its first, is the group. layout: what the
    folders mean, one of `layout.LAYOUTS`; None = guess. lists: paths, URLs or patterns of lists
    that say which videos of the tree count, with their labels and subsets. merge_case: class names
    that differ by case alone are one. Raises DatasetError, and StorageError for a URL.
    """
    remarks, place = Remarks(), storage.normalize(source)
    is_list = _is_list(place)
    if is_list and lists:
        raise DatasetError(f"{place} is a list itself: with --list, give the folder of the videos.")
    places = [place] if is_list else expand_places(lists)
    files = open_files(place.rsplit("/", 1)[0] if is_list else place)
    if places:
        class_list, order, entries = _from_lists(files, places, is_list, classes, layout, remarks)
    else:
        order, names = None, list_videos(files, remarks, _class_places(classes))
        folders = {part for name in names for part in name.split("/")[:-1]}
        class_list = read_class_list(files, classes, folders)
        known = class_list.names if class_list else None
        entries = read_tree(names, layout, known, remarks)
        if not entries:
            raise DatasetError(describe_nothing(place, names, remarks))
    entries = unify_names(entries, class_list, merge_case, remarks)
    if class_list is not None:
        class_names: Sequence[str] = class_list.names
        _check_classes(entries, class_list)
    else:
        class_names = _order_names({entry.class_name for entry in entries}, order)
    grouping, entries = _add_groups(entries, group_regex, "csv" if places else "folder", remarks)
    videos = _videos(files, entries, class_names, grouping)
    return Dataset(
        files.root, tuple(class_names), grouping, videos, remarks.left_out(), tuple(remarks.notes)
    )


def _is_list(place: str) -> bool:
    """Whether the source is a list and not a folder. Raises DatasetError for what is neither."""
    is_list = place.lower().endswith(LIST_SUFFIXES)
    if storage.url_of(place) is not None:
        return is_list
    if not Path(place).exists():
        raise DatasetError(f"there are no videos at {place}: {WHERE}.")
    if Path(place).is_file() and not is_list and not storage.is_archive(place):
        suffixes = ", ".join((*LIST_SUFFIXES, *storage.ARCHIVE_SUFFIXES))
        raise DatasetError(
            f"{place} is a file: give a folder of class folders, a list or an archive ({suffixes})."
        )
    return is_list and Path(place).is_file()


def _from_lists(
    files: Files,
    places: list[str],
    is_source: bool,
    classes: Path | None,
    layout: str | None,
    remarks: Remarks,
) -> tuple[ClassList | None, Sequence[str] | None, list[Entry]]:
    """-> the list of class names, their order where numbers of labels give it, the videos."""
    lists = read_lists(places, is_source, remarks)
    names = None if is_source else list_videos(files, remarks, places + _class_places(classes))
    rows = match_rows(lists, files, names, remarks)
    paths = [row.path for row in rows]
    if layout is None:
        by_folder = {path: entry for path in paths if (entry := folder_entry(path))}
    else:
        by_folder = {entry.path: entry for entry in read_tree(paths, layout, None, remarks)}
    labels = {row.label or "" for row in rows}
    class_list = read_class_list(files, classes, labels)
    beside = f"{places[0].rpartition('/')[0]}/{CLASS_LIST}"  # as in UCF101's folder of lists
    if class_list is None and storage.url_of(beside) is None and Path(beside).is_file():
        class_list = read_class_list(files, Path(beside), labels)
        remarks.notes.append(f"classes: those of {beside}, beside the list")
    keep_numbers = all(video_list.has_paths for video_list in lists)
    entries, order = name_classes(rows, by_folder, class_list, keep_numbers, remarks)
    if not entries:
        raise DatasetError(f"{places[0]} gives no video with a label.")
    return class_list, order, entries


def _class_places(classes: Path | None) -> list[str]:
    return [] if classes is None else [storage.normalize(classes)]


def _order_names(names: set[str], order: Sequence[str] | None) -> list[str]:
    """Those in `order`, which may be spelled otherwise, then the others, sorted."""
    spelled = {name.casefold(): name for name in names}
    first = [
        spelled[key] for name in order or () if (key := clean_name(name).casefold()) in spelled
    ]
    return [*first, *sort_names(names - set(first))]


def _check_classes(entries: list[Entry], class_list: ClassList) -> None:
    names = set(class_list.names)
    for entry in entries:
        if entry.class_name not in names:
            raise DatasetError(
                f"class {entry.class_name!r} of {printable(entry.path)} is not in the class list "
                f"{class_list.place}: add its name there, or move its videos away."
            )


def _add_groups(
    entries: list[Entry], regex: str | None, source: str, remarks: Remarks
) -> tuple[str | None, list[Entry]]:
    """-> where groups come from, and the videos with them. source: of those that entries have."""
    if regex is not None:
        return "regex", [replace(entry, group=_match_group(regex, entry.path)) for entry in entries]
    if entries[0].group is not None:
        return source, entries
    matches = [UCF101_NAME.fullmatch(entry.stem) for entry in entries]
    if not all(matches):
        others = [entry.path for entry, match in zip(entries, matches, strict=True) if not match]
        if len(others) < len(entries):
            remarks.notes.append(
                f"{len(others)} of {len(entries)} videos are not named like UCF101's "
                f"({printable(others[0])}), so the names of the others give no groups"
            )
        return None, entries
    return "ucf101", [
        replace(entry, group=f"{entry.class_name}/g{int(match['group']):02d}")
        for entry, match in zip(entries, matches, strict=True)
        if match
    ]


def _match_group(regex: str, path: str) -> str:
    try:
        match = re.search(regex, path)
    except re.error as error:
        raise DatasetError(f"--group-regex '{regex}' is no regular expression: {error}.") from error
    if not match or not match.re.groups:
        raise DatasetError(
            f"--group-regex '{regex}' finds no group in {printable(path)}: it needs one pair of "
            "brackets that matches in every path, for example '_g(\\d+)_'."
        )
    return printable(match.groupdict().get("group") or match[1] or "")


def _videos(
    files: Files, entries: list[Entry], class_names: Sequence[str], grouping: str | None
) -> tuple[Video, ...]:
    labels = {name: label for label, name in enumerate(class_names)}
    videos = []
    for entry, key in zip(entries, _keys(entries), strict=True):
        match = UCF101_NAME.fullmatch(entry.stem)
        videos.append(
            Video(
                path=entry.path,
                label=labels[entry.class_name],
                group=entry.group or "",
                clip=int(match["clip"]) if match else 0,
                subset=entry.subset,
                key=key,
                size=files.total_size(entry.path),
            )
        )
    return tuple(videos)


def _keys(entries: list[Entry]) -> list[str]:
    """The file's name as key; where two files would share one, each gets a hash of its path."""
    stems = [re.sub(r"[^A-Za-z0-9_\-+=]", "_", entry.stem)[:_MAX_KEY] or "_" for entry in entries]
    counts = Counter(stem.casefold() for stem in stems)  # tars are unpacked on any file system
    keys = []
    for stem, entry in zip(stems, entries, strict=True):
        if counts[stem.casefold()] > 1 or stem.startswith("_"):
            stem = f"{stem[: _MAX_KEY - 9]}-{hash_path(entry.path)}"
        keys.append(stem)
    return keys

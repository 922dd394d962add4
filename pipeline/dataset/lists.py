"""Lists -> rows with their videos: which file a row means.

A row names a file by its path below the root, which may lack folders or the suffix, or be that of
another machine: the file is meant whose path ends like that. Only a CSV of paths that is the whole
data set means these very paths.
"""

import fnmatch
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from ...errors import printable
from ...shards import storage
from ...shards.format import SUBSETS
from ..decode import VIDEO_SUFFIXES
from .files import Files
from .list_formats import ListRow, VideoList, parse_list, subset_in_name
from .listing import list_videos
from .records import DatasetError, Remarks

_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, VIDEO_SUFFIXES))}|/)$", re.IGNORECASE)


def expand_places(places: Sequence[str]) -> list[str]:
    """Paths and URLs of lists, with `*` and `?` in the last part or without -> those that exist.

    Raises DatasetError, StorageError.
    """
    expanded = []
    for place in map(storage.normalize, places):
        folder, _, pattern = place.rpartition("/")
        if not {"*", "?"} & set(pattern):
            expanded.append(place)
            continue
        names = fnmatch.filter(storage.open_folder(folder).names(), pattern)
        names = [name for name in names if not name.startswith(".")]
        if not names:
            raise DatasetError(f"--list {place}: there is no such file.")
        expanded += [f"{folder}/{name}" for name in names]
    return expanded


def read_lists(places: Sequence[str], is_source: bool, remarks: Remarks) -> list[VideoList]:
    """The lists; each row has a subset: its own, else that which the list's name says, else None.

    is_source: the list is the whole data set; what its name says does not count for a CSV of paths.
    Raises DatasetError, StorageError.
    """
    lists = []
    for place in places:
        try:
            data = storage.read_bytes(place)
        except OSError as error:
            reason = error.strerror or "there is no such file"
            raise DatasetError(
                f"the list {place} cannot be read ({reason}): give a file, or a quoted pattern of "
                "several, as 'splits/*_test_split1.txt'."
            ) from error
        video_list = parse_list(place, data, remarks)
        if not video_list.rows:
            raise DatasetError(f"{place} names no video.")
        subset = None if is_source and video_list.has_paths else subset_in_name(place)
        if subset and any(row.subset is None for row in video_list.rows):
            name = PurePosixPath(place).name
            remarks.notes.append(f"list {name}: taken for the subset {SUBSETS[subset]}")
        rows = [
            replace(row, subset=subset if row.subset is None else row.subset)
            for row in video_list.rows
        ]
        lists.append(replace(video_list, rows=rows))
    return lists


def match_rows(
    lists: list[VideoList], files: Files, names: list[str] | None, remarks: Remarks
) -> list[ListRow]:
    """The rows with the paths of their files; those whose file is not there are left out.

    names: videos below the root, None where the list is the data set: then a path that is not there
    stays, for it becomes a reject. Raises DatasetError, StorageError.
    """
    is_source, finder = names is None, _Finder(files, names)
    rows, missing = [], []
    for video_list in lists:
        for row in video_list.rows:
            path = finder.find(row, may_search=not (is_source and video_list.has_paths))
            if path is None and video_list.has_paths and (is_source or "://" in row.names[0]):
                path = next(_spellings(row.names[0].strip(), files.root))
            if path is None:
                missing.append(row.names[0].strip())
            else:
                rows.append(replace(row, path=path))
    if not rows:
        raise DatasetError(
            f"none of the {len(missing)} videos of {lists[0].place} is in {files.root} (the first "
            f"is {missing[0]!r}): give the folder in which the videos lie, and the list as --list."
        )
    remarks.leave_out("videos that a list names and that are not there", missing)
    _check_once(rows)
    if names is not None:
        paths = {row.path for row in rows}
        remarks.leave_out("videos that no list names", [n for n in names if n not in paths])
    return rows


def _check_once(rows: list[ListRow]) -> None:
    first: dict[str, ListRow] = {}
    for row in rows:
        other = first.setdefault(row.path, row)
        if other is not row:
            raise DatasetError(
                f"{row.where} names {printable(row.path)} more than once: {other.where} names "
                "it too; keep one row, or give the lists of one split."
            )


class _Finder:
    """Files by what lists call them. names: videos below the root; None: found when needed."""

    def __init__(self, files: Files, names: list[str] | None) -> None:
        self._files = files
        self._names = None if names is None else frozenset(names)
        self._by_stem: dict[str, list[str]] | None = None

    def find(self, row: ListRow, may_search: bool) -> str | None:
        for name in row.names:
            for spelling in _spellings(name, self._files.root):
                for candidate in (spelling, f"{spelling}/"):
                    if self._exists(candidate):
                        return candidate
        for name in row.names if may_search else ():
            paths = self._search(name)
            if len(paths) > 1:
                raise DatasetError(
                    f"{row.where}: {name!r} may be {printable(paths[0])} or {printable(paths[1])}: "
                    "give the path in the list."
                )
            if paths:
                return paths[0]
        return None

    def _exists(self, name: str) -> bool:
        """Also a link to what has another name: the list says which of the two counts."""
        is_known = self._names is not None and name in self._names
        return is_known or self._files.total_size(name) >= 0

    def _search(self, name: str) -> list[str]:
        """Paths that end as `name` does, or the other way round; suffixes do not count."""
        if self._by_stem is None:
            names = list_videos(self._files, Remarks()) if self._names is None else self._names
            self._by_stem = defaultdict(list)
            for path in sorted(names):
                self._by_stem[_stem_path(path).rpartition("/")[2]].append(path)
        stem_path = _stem_path(next(_spellings(name.strip(), self._files.root)))
        return [
            path
            for path in self._by_stem.get(stem_path.rpartition("/")[2], ())
            if f"/{_stem_path(path)}".endswith(f"/{stem_path}")
            or f"/{stem_path}".endswith(f"/{_stem_path(path)}")
        ]


def _stem_path(path: str) -> str:
    return unicodedata.normalize("NFC", _SUFFIX.sub("", path)).lstrip("/")


def _spellings(name: str, root: str) -> Iterator[str]:
    """How the path of a row may be written below the root: without `./` and the root itself, with
    the `\\` of Windows as `/`, without blanks around, in Unicode's two forms."""
    for text in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
        path = text.removeprefix(f"{root}/")
        if "://" not in path:
            path = posixpath.normpath(path)
        yield path
        for form in ("NFC", "NFD"):
            if (other := unicodedata.normalize(form, path)) != path:
                yield other

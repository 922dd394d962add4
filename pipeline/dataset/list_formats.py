"""The lists of data sets and tools -> rows: which video, which label, group and subset.

- CSV with a header: `path,label[,group][,split]`; Kinetics' `label,youtube_id,time_start,time_end`.
- CSV without one: `path;label` or `id;label` (Jester, the answers of Something-Something).
- Lines: `path label`, `path frames label` (mmaction2, SlowFast), `path` (UCF101's testlist01.txt).
- `CLASS_test_split1.txt` of HMDB51: `name.avi 1`, where 1 is train, 2 test, 0 neither.
- JSON of Something-Something: a list of objects with `id`, `template` or `label`.
"""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...shards.format import SUBSETS
from ..decode import VIDEO_SUFFIXES
from .layout import SUBSET_WORDS, subset_number
from .records import DatasetError, Remarks
from .tables import (
    CODE_PAGE,
    TableRow,
    column_names,
    decode_text,
    find_delimiter,
    has_columns,
    is_code_page,
    name_fields,
    read_rows,
)

LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".list")
_PATH_COLUMNS = ("path", "label", "group", "split")
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split", "is_cc")
_HMDB51 = re.compile(r"(?P<class_name>.+)_test_split\d+\.txt", re.IGNORECASE)
_HMDB51_SUBSETS = {"0": 0, "1": 1, "2": 3}
_SUFFIX = "|".join(map(re.escape, VIDEO_SUFFIXES))
_WITH_SUFFIX = re.compile(rf"(.*?(?:{_SUFFIX}))(?:\s+(\S.*))?", re.IGNORECASE)
_WITHOUT_SUFFIX = re.compile(r"(\S.*?)(?:\s+\d+)?\s+(\d+)")  # frames stand before the label
_SUBSET_IN_NAME = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(SUBSET_WORDS, key=len, reverse=True))})"
    "(?:list|set|split)?(?![a-z])"
)


@dataclass(frozen=True)
class ListRow:
    """One video as a list names it.

    where: the list and the line. names: what its file may be called, with or without folders and
    suffix. label, group, subset: None where the list says nothing. path: of its file, once that is
    found.
    """

    where: str
    names: tuple[str, ...]
    label: str | None = None
    group: str | None = None
    subset: int | None = None
    path: str = ""


@dataclass(frozen=True)
class VideoList:
    """has_paths: the names are paths, by a column of that name."""

    place: str
    rows: list[ListRow]
    has_paths: bool = False


def parse_list(place: str, data: bytes, remarks: Remarks) -> VideoList:
    """place: path or URL of the list, for messages and its name. Raises DatasetError."""
    name = PurePosixPath(place).name
    text = decode_text(data, place)
    if is_code_page(data):
        remarks.notes.append(
            f"list {name}: read in the Windows code page {CODE_PAGE}, for it is no UTF-8"
        )
    if name.lower().endswith(".json"):
        return VideoList(place, _parse_json(place, text))
    if match := _HMDB51.fullmatch(name):
        return VideoList(place, _parse_hmdb51(place, text, match["class_name"]))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and all(map(_WITH_SUFFIX.fullmatch, lines)):  # commas may stand in the paths
        return VideoList(place, _parse_lines(place, text))
    delimiter = find_delimiter(text)
    rows = read_rows(text, delimiter, place) if delimiter else []
    if rows and has_columns(rows[0].fields):
        return _parse_table(place, rows, remarks)
    if rows and min(len(row.fields) for row in rows) > 1:
        parsed = [
            ListRow(
                _where(place, row.line), (row.fields[0].strip(),), row.fields[1].strip() or None
            )
            for row in rows
        ]
    else:
        parsed = _parse_lines(place, text)
    if parsed and not _is_name(parsed[0].names[0]):
        columns = column_names(rows[0].fields) if rows else [parsed[0].names[0]]
        raise DatasetError(
            f"{place} has the columns {sorted(columns)}: it needs path,label and may have group "
            "and split."
        )
    _check_fields(place, rows, remarks)
    return VideoList(place, parsed)


def subset_in_name(place: str) -> int | None:
    """ "trainlist01.txt" -> 1; None where the name of the list says no subset."""
    match = _SUBSET_IN_NAME.search(PurePosixPath(place).stem.casefold())
    return SUBSET_WORDS[match[1]] if match else None


def _where(place: str, line: int) -> str:
    return f"{place}, line {line}"


def _is_name(text: str) -> bool:
    """Whether it may mean a video, where no header says so: a path, a file, a number."""
    return "/" in text or text.isdigit() or text.lower().endswith(VIDEO_SUFFIXES)


def _check_fields(place: str, rows: list[TableRow], remarks: Remarks) -> None:
    """A CSV without a header is read as path and label. Raises DatasetError where it has more
    columns and the second may be something else: a number of frames, a time."""
    count = max((len(row.fields) for row in rows if any(map(str.strip, row.fields[2:]))), default=2)
    if count == 2:
        return
    if all(re.fullmatch(r"[\d.:]+", row.fields[1].strip()) for row in rows):
        raise DatasetError(
            f"{place} has {count} columns and no header, and the second holds numbers: say which "
            "column is the label by a first line of names, as in path,frames,label."
        )
    name = PurePosixPath(place).name
    remarks.notes.append(f"list {name}: no header, so read as path and label, of {count} columns")


def _parse_table(place: str, rows: list[TableRow], remarks: Remarks) -> VideoList:
    header = column_names(rows[0].fields)
    has_paths = "path" in header
    if "label" not in header:
        remarks.notes.append(f"{PurePosixPath(place).name} has no column label: folders give it")
    known = _PATH_COLUMNS if has_paths else _KINETICS_COLUMNS
    if unread := [column for column in header if column and column not in known]:
        name = PurePosixPath(place).name
        remarks.notes.append(f"list {name}: columns that are not read: {', '.join(unread)}")
    parsed = []
    for row, fields in zip(rows[1:], name_fields(header, rows[1:], place), strict=True):
        where = _where(place, row.line)
        names = (fields.get("path", ""),) if has_paths else _kinetics_names(where, fields)
        split = fields.get("split", "").strip()
        subset = subset_number(split)
        label = fields.get("label", "").strip() if "label" in header else None
        if split and subset is None:
            raise DatasetError(
                f"{where}: split {split!r} must be one of {', '.join(SUBSETS[1:])}, or empty."
            )
        if not names[0].strip() or label == "":
            raise DatasetError(f"{where}: path and label must not be empty.")
        group = fields.get("group" if has_paths else "youtube_id")
        group = group.strip() if group is not None else None
        subset = subset or 0 if "split" in header else None
        parsed.append(ListRow(where, names, label, group, subset))
    return VideoList(place, parsed, has_paths)


def _kinetics_names(where: str, fields: dict[str, str]) -> tuple[str, ...]:
    """ID_000001_000011, as its tools name the files, or ID alone."""
    try:
        start, end = (int(float(fields[name])) for name in ("time_start", "time_end"))
    except (KeyError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{where}: time_start and time_end must be seconds, as in Kinetics' lists."
        ) from error
    name = fields["youtube_id"].strip()
    return f"{name}_{start:06d}_{end:06d}", name


def _parse_lines(place: str, text: str) -> list[ListRow]:
    """`path`, `path label`, `path frames label`; paths and names of labels may hold blanks."""
    rows = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        match = _WITH_SUFFIX.fullmatch(line) or _WITHOUT_SUFFIX.fullmatch(line)
        if not line:
            continue
        name, label = match.groups() if match else (line, None)
        if label and re.fullmatch(r"\d+(\s+\d+)+", label):
            raise DatasetError(
                f"{_where(place, number)}: it gives several labels ({label}): a video has one."
            )
        rows.append(ListRow(_where(place, number), (name,), label))
    return rows


def _parse_hmdb51(place: str, text: str, class_name: str) -> list[ListRow]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        name, _, mark = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if mark not in _HMDB51_SUBSETS or not name:
            raise DatasetError(
                f"{_where(place, number)}: {line.strip()!r} is no line of a split file of HMDB51: "
                "a name and 0 (neither), 1 (train) or 2 (test)."
            )
        names = (f"{class_name}/{name.strip()}", name.strip())
        subset = _HMDB51_SUBSETS[mark]
        rows.append(ListRow(_where(place, number), names, class_name, subset=subset))
    return rows


def _parse_json(place: str, text: str) -> list[ListRow]:
    """Something-Something: the class is the template without brackets, as its own code has it."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{place} is no JSON ({error}).") from error
    if not isinstance(body, list):
        raise DatasetError(
            f"{place} is no list of videos; if it gives the numbers of classes, give it as "
            "--classes."
        )
    rows = []
    for number, entry in enumerate(body, 1):
        where = f"{place}, entry {number}"
        if not isinstance(entry, dict) or not {"id", "path"} & entry.keys():
            raise DatasetError(
                f"{where}: it needs id (or path) and template or label, as Something-Something's "
                "lists have them."
            )
        label = entry.get("template") or entry.get("label")
        label = re.sub(r"[\[\]]", "", str(label)) if label not in (None, "") else None
        rows.append(ListRow(where, (str(entry.get("path", entry.get("id"))),), label))
    return rows

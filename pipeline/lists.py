"""Lists of clips for other tools and from them: keys to choose, new labels, what a split is."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from ..atomic import write_atomically
from ..errors import HarError
from ..shards.format import NO_GROUP, SUBSETS, Manifest
from ..shards.splits import Split
from .dataset.classes import clean_name
from .dataset.layout import subset_number
from .dataset.tables import (
    TableRow,
    column_names,
    decode_text,
    find_delimiter,
    name_fields,
    read_rows,
)

_COLUMNS = ("key", "label", "group", "split")
_ALIASES = {"class": "label", "subset": "split"}  # as `write_keys` calls them


class ListError(HarError):
    """A list that cannot be read or written; the text is one sentence."""


def read_keys(path: Path) -> list[str]:
    """One key a line, or `key` of a .csv or .json. Raises ListError, DatasetError."""
    if path.suffix.lower() in (".csv", ".json"):
        keys = [row.get("key", "") for _, row in _read_rows(path)]
    else:
        keys = [line.strip() for line in _read_text(path).splitlines()]
    keys = list(dict.fromkeys(key for key in keys if key))
    if not keys:
        raise ListError(f"{path} names no key.")
    return keys


def read_labels(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV `key,label[,group][,split]`; an empty cell leaves things as they are.

    What `write_keys` wrote will do: `class` counts there, not the number in `label`. Raises
    ListError, DatasetError.
    """
    rows = _read_rows(path)
    for line, row in rows:
        number = subset_number(row.get("split", "")) or 0
        if not row.get("key") or (row.get("split") and not number):
            raise ListError(
                f"{path}, line {line}: key must not be empty and split {row.get('split', '')!r} "
                f"must be one of {', '.join(SUBSETS[1:])}, or empty."
            )
        row["split"] = SUBSETS[number]
    if not any(row.get(name) for _, row in rows for name in _COLUMNS[1:]):
        raise ListError(f"{path} changes nothing: it needs key and one of label, group and split.")
    return [row for _, row in rows]


def write_keys(manifest: Manifest, split: Split, path: Path) -> int:
    """Write key, subset, label, class and group of every clip, by key; -> how many clips.

    path: a .csv, or a .json (a list of objects). subset is "" for a clip in none, group for one
    without. Raises ListError.
    """
    subset_of = {
        index: name for name in SUBSETS[1:] for index in getattr(split, name).tolist()
    }  # fmt: skip
    order = sorted(range(len(manifest.index)), key=lambda index: manifest.index["key"][index])
    rows = [_describe_clip(manifest, index, subset_of.get(index, "")) for index in order]
    if path.suffix.lower() == ".json":
        text = json.dumps(rows, indent=1) + "\n"
    elif path.suffix.lower() == ".csv":
        text = _to_csv(rows)
    else:
        raise ListError(f"--keys {path}: its name must end in .csv or .json.")
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ListError(f"{path} cannot be written ({error.strerror}).") from error
    return len(rows)


def _to_csv(rows: list[dict[str, Any]]) -> str:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _json_to_csv(path: Path, text: str) -> str:
    try:
        return _to_csv(json.loads(text))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ListError(
            f"{path} is no JSON list of objects with key, as 'har-shards info --keys' writes it."
        ) from error


def _describe_clip(manifest: Manifest, index: int, subset: str) -> dict[str, Any]:
    row = manifest.index[index]
    return {
        "key": row["key"].decode(),
        "subset": subset,
        "label": int(row["label"]),
        "class": manifest.classes[row["label"]],
        "group": manifest.groups[row["group"]] if row["group"] != NO_GROUP else "",
    }


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, known columns) of each row of a CSV or of a JSON as `write_keys` gives it, stripped
    and in NFC."""
    text = _read_text(path)
    if path.suffix.lower() == ".json":
        text = _json_to_csv(path, text)
    header, *rows = read_rows(text, find_delimiter(text) or ",", str(path)) or [TableRow(1, [])]
    columns = column_names(header.fields)
    for name, meaning in _ALIASES.items():
        if name in columns:
            columns = [meaning if c == name else "" if c == meaning else c for c in columns]
    if "key" not in columns:
        raise ListError(
            f"{path} has the columns {', '.join(columns) or 'none'}: it needs key, and may have "
            f"{', '.join(_COLUMNS[1:])}."
        )
    named = name_fields(columns, rows, str(path))
    return [
        (
            row.line,
            {name: clean_name(field) for name, field in fields.items() if name in _COLUMNS},
        )
        for row, fields in zip(rows, named, strict=True)
    ]


def _read_text(path: Path) -> str:
    try:
        return decode_text(path.read_bytes(), f"the list {path}").removeprefix("\ufeff")
    except OSError as error:
        raise ListError(f"the list {path} cannot be read ({error.strerror}).") from error

"""`warnings.jsonl` of a set: the videos in it that are odd, a line each (`Clip.warnings`).

A line holds path, class, key and warnings. There is no such file where there is nothing to say.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import printable
from ...shards import storage
from ...shards.format import WARNINGS
from ..dataset import Video

WarningRow = dict[str, Any]


def warning_rows(video: Video, class_name: str, facts: Mapping[str, Any]) -> list[WarningRow]:
    """The line of a video; none where it is in order. facts: those of its first clip."""
    path = printable(video.path)
    row = {"path": path, "class": class_name, "key": video.key, "warnings": facts["warnings"]}
    return [row] if facts["warnings"] else []


def load_warnings(out: Path | str) -> list[WarningRow]:
    """The lines of a set; [] where there are none."""
    try:
        lines = storage.open_folder(out).read(WARNINGS).decode().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def save_warnings(
    out: storage.LocalFolder | storage.RemoteFolder, reports: Iterable[Mapping[str, Any]]
) -> None:
    """Write the lines of the shards that were made; those of the set's other videos stay.

    Raises OSError, StorageError.
    """
    made = [report for report in reports if "warnings" in report]
    keys = {row[0] for report in made for row in report["rows"]}
    before = load_warnings(str(out))
    rows = [row for row in before if row["key"] not in keys]
    rows += [row for report in made for row in report["warnings"]]
    rows.sort(key=lambda row: row["path"])
    if rows:
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        out.write(WARNINGS, lines.encode())
    elif before:
        out.remove(WARNINGS)

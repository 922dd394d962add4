"""Files of a set with a line of JSON a video: those that give no clip, and those that are odd.

`rejects.jsonl`: path, class, key, reason, size, xxh3. A reject is no result: where the file has
changed since, or where it failed for a reason that can pass (time, permissions, a read error,
memory), the same build decodes it again.
`warnings.jsonl`: path, class, key and warnings (`Clip.warnings`); only where there are such videos.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from ...errors import printable
from ...shards import storage
from ...shards.format import REJECTS, WARNINGS
from ..dataset import DatasetError, Video

VideoRow = dict[str, Any]
_PASSING_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENODEV, errno.EHOSTDOWN,
)  # fmt: skip
_LATE = "no answer within"
_PASSING = (
    _LATE, "the decoder died", "memory", "scratch space",
    *(os.strerror(number).lower() for number in _PASSING_ERRORS),
)  # fmt: skip


def load_rejects(out: Path | str) -> list[VideoRow]:
    """The rejects of a set, in the order of the plan."""
    return _load(out, REJECTS)


def load_warnings(out: Path | str) -> list[VideoRow]:
    """The odd videos of a set; [] where there are none."""
    return _load(out, WARNINGS)


def _load(out: Path | str, name: str) -> list[VideoRow]:
    try:
        lines = storage.open_folder(out).read(name).decode().splitlines()
        rows = [json.loads(line) for line in lines if line]
        if not all(isinstance(row, dict) and "key" in row for row in rows):
            raise ValueError("a line is no JSON object with a key")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{out}/{name} is damaged ({error}): remove it; it only names videos, and the same "
            "'har-shards build' looks again at those that are not in the set."
        ) from error
    return rows


def encode_rows(rows: Iterable[VideoRow]) -> bytes:
    """What the file of these rows holds."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()


def make_row(video: Video, class_name: str, **facts: Any) -> VideoRow:
    """The row of a video, with what there is to say of it."""
    return {"path": printable(video.path), "class": class_name, "key": video.key, **facts}


def make_reject(video: Video, class_name: str, reason: str, path: Path | None = None) -> VideoRow:
    """The row of a video that gives no clip. path: of the local file.

    size: as it was planned with. xxh3: of the file's bytes, None where they cannot be read.
    """
    return make_row(
        video,
        class_name,
        reason=reason.removesuffix("."),
        size=video.size,
        xxh3=path and checksum(path),
    )


def save_warnings(out: storage.Folder, reports: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows of the shards that were made; those of the set's other videos stay.

    Raises OSError, StorageError.
    """
    new = [report for report in reports if "warnings" in report]
    keys = {row[0] for report in new for row in report["rows"]}
    before = load_warnings(str(out))
    rows = [row for row in before if row["key"] not in keys]
    rows += [row for report in new for row in report["warnings"]]
    if rows:
        out.write(WARNINGS, encode_rows(sorted(rows, key=lambda row: row["path"])))
    elif before:
        out.remove(WARNINGS)


def describe_reasons(rejects: list[VideoRow]) -> list[str]:
    """A line a reason, the most frequent first: how many videos, and which is the first of them."""
    by_reason: dict[str, list[VideoRow]] = {}
    for reject in rejects:  # reasons that differ in their numbers only are one
        by_reason.setdefault(re.sub(r"[\d.,]*\d", "N", reject["reason"]), []).append(reject)
    lines = []
    for alike in sorted(by_reason.values(), key=len, reverse=True):
        first, others = alike[0], len(alike) - 1
        line = f"{first['path']}{f' and {others} more' * bool(others)}: {first['reason']}"
        if first["reason"].startswith(_LATE):
            line += " (give a larger --timeout)"
        lines.append(line)
    return lines


def may_decode_now(reject: VideoRow, path: Path) -> bool:
    """Whether a rejected video, now at `path`, is worth another look."""
    if any(text in reject["reason"].lower() for text in _PASSING):
        return True
    before = reject.get("xxh3")
    return before is None or before != checksum(path)


def checksum(path: Path) -> str | None:
    """xxh3_64 of a file in 16 hex digits; None for what cannot be read or is no regular file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()
    except OSError:
        return None

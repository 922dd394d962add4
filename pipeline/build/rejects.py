"""Videos that give no clip: why not, and whether another look at them may help.

A reject is no result: where the file has changed since, or where it failed for a reason that can
pass (time, permissions, a read error, memory), the same build decodes it again.
"""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import xxhash

from ...errors import printable
from ...shards import storage
from ...shards.format import REJECTS
from ..dataset import Video

Reject = dict[str, Any]  # path, class, key, reason, size, xxh3
_PASSING_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENODEV, errno.EHOSTDOWN,
)  # fmt: skip
_LATE = "no answer within"
_PASSING = (
    _LATE, "the decoder died", "memory", "scratch space",
    *(os.strerror(number).lower() for number in _PASSING_ERRORS),
)  # fmt: skip


def load_rejects(out: Path | str) -> list[Reject]:
    """The rejects of a set, in the order of the plan (see `describe_reject`)."""
    try:
        lines = storage.open_folder(out).read(REJECTS).decode().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line]


def encode_rejects(rejects: list[Reject]) -> bytes:
    """What the file of rejects holds."""
    return "".join(json.dumps(reject, sort_keys=True) + "\n" for reject in rejects).encode()


def describe_reject(video: Video, class_name: str, reason: str, path: Path | None = None) -> Reject:
    """What the file of rejects keeps of one. path: of the local file.

    size: as it was planned with. xxh3: of the file's bytes, None where they cannot be read.
    """
    return {
        "path": printable(video.path),
        "class": class_name,
        "key": video.key,
        "reason": reason.removesuffix("."),
        "size": video.size,
        "xxh3": path and checksum(path),
    }


def describe_reasons(rejects: list[Reject]) -> list[str]:
    """A line a reason, the most frequent first: how many videos, and which is the first of them."""
    by_reason: dict[str, list[Reject]] = {}
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


def may_decode_now(reject: Reject, path: Path) -> bool:
    """Whether a rejected video, now at `path`, is worth another look."""
    if any(text in reject["reason"].lower() for text in _PASSING):
        return True
    before = reject.get("xxh3")
    return before is None or before != checksum(path)


def checksum(path: Path) -> str | None:
    """xxh3_64 of a file in 16 hex digits; None for what cannot be read or is no regular file."""
    state = xxhash.xxh3_64()
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
    except OSError:
        return None
    return state.hexdigest()

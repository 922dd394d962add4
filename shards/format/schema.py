"""The schema of a shard set, which is a folder:

    manifest.json     written last; without it there is no set
    index.npy         one fixed-size row a sample (numpy structured array, no pickle)
    classes.txt       class names in order, for other tools
    shard-000000.tar  plain tar, WebDataset convention: KEY.npy, KEY.cls, KEY.json
    rejects.jsonl     the videos that are not in the set, each with its reason
    warnings.jsonl    the videos in the set that are odd, and how; only where there are such
    notes.json        what was left out, guessed or changed when the videos were found, if anything

docs/format.md describes every field and byte. No input or output here: see `manifest_io`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import HarError
from ..storage import ShardInfo

SCHEMA = 2
MANIFEST = "manifest.json"
INDEX = "index.npy"
CLASSES = "classes.txt"
REJECTS = "rejects.jsonl"
WARNINGS = "warnings.jsonl"
NOTES = "notes.json"
SUBSETS = ("", "train", "val", "test")  # of the index column `side`: a CSV's split, 0 = none
NO_GROUP = -1
MAX_CLIP_BYTES = 1 << 32
_COLUMNS = [  # behind the key
    ("shard", "<u4"), ("offset", "<u8"), ("label", "<u4"), ("group", "<i4"), ("video", "<u4"),
    ("view", "<u2"), ("side", "u1"), ("decoded", "<u4"), ("padded", "<u2"), ("xxh3", "<u8"),
]  # fmt: skip
SHARD_NAME = re.compile(r"shard-(\d{6,})\.tar")
INDEX_NAME = re.compile(r"index(-[0-9a-f]{16})?\.npy")
_UCF_GROUP = re.compile(r".*/g\d{1,9}")
_KEY = re.compile(r"[A-Za-z0-9_\-+@=]{1,90}")


class ShardSetError(HarError):
    """A shard set that is missing, half built, foreign or damaged; the text is one sentence."""


@dataclass(frozen=True)
class Edit:
    """One change of a finished set. digest: of the manifest before; the rest counts clips."""

    command: str
    digest: str
    added: int = 0
    removed: int = 0
    relabelled: int = 0

    def __str__(self) -> str:
        """ "3 clips added, 1 clip removed"; what an edit of no clip did to the shards."""
        texts = [
            f"{count} {'clip ' if count == 1 else 'clips '}{what}"
            for count, what in (
                (self.added, "added"), (self.removed, "removed"), (self.relabelled, "relabelled")
            )
            if count
        ]  # fmt: skip
        return ", ".join(texts) or "the same clips in other shards"


@dataclass(frozen=True)
class Manifest:
    """What a shard set holds. `index` has one row a sample, in shard order (see `index_dtype`).

    clip_shape: (T, H, W, C), the same for every clip. sampling / resize: the rules, as written by
    the builder. groups: group names, e.g. "YoYo/g01"; `grouping` says where they come from
    ("ucf101", "regex", "csv", "folder", "mixed") or is None: there are none. plan: hash of the
    build plan. edits: what was changed since, oldest first; index_file: the index has a name of its
    own then. root: the folder (Path), or the URL (str) of a remote set. digest: sha256 of
    manifest.json.
    """

    clip_shape: tuple[int, int, int, int]
    sampling: dict[str, Any]
    resize: dict[str, Any]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    grouping: str | None
    shards: tuple[ShardInfo, ...]
    plan: str
    versions: dict[str, str]
    rejects: int
    index_sha256: str
    index_file: str = INDEX
    edits: tuple[Edit, ...] = ()
    schema: int = SCHEMA
    root: Path | str = field(default=Path(), compare=False)
    digest: str = field(default="", compare=False)
    index: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)

    @property
    def clip_bytes(self) -> int:
        """Bytes of one clip's pixels: T*H*W*C."""
        return math.prod(self.clip_shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def num_videos(self) -> int:
        """Videos that the clips are of."""
        return len(np.unique(self.index["video"]))

    @property
    def removed_bytes(self) -> int:
        """About so many bytes of the shards are of clips that the index no longer names."""
        shards = (shard for shard in self.shards if shard.removed)
        return sum(s.bytes * s.removed // (s.samples + s.removed) for s in shards)

    def keys(self, indices: np.ndarray | slice = slice(None)) -> list[str]:
        """The keys of these samples."""
        return [key.decode() for key in self.index["key"][indices].tolist()]

    def changes_since(self, digest: str) -> Edit | None:
        """What the edits since the manifest with `digest` come to; None if that is no ancestor."""
        digests = [edit.digest for edit in self.edits]
        if digest not in digests:
            return None
        edits = self.edits[digests.index(digest) :]
        added, removed, relabelled = (
            sum(getattr(edit, name) for edit in edits)
            for name in ("added", "removed", "relabelled")
        )
        commands = ", ".join(dict.fromkeys(edit.command for edit in edits))
        return Edit(commands, digest, added, removed, relabelled)

    def describe_changes_since(self, digest: str) -> str:
        """What the user is told of the set with this digest: "" where it is this very one."""
        if digest == self.digest:
            return ""
        edit = self.changes_since(digest)
        return str(edit) if edit else f"its manifest is {self.digest[:12]}, was {digest[:12]}"

    def shard_path(self, number: int) -> Path:
        """The file of a shard of a local set."""
        return Path(self.root) / self.shards[number].name


def valid_key(key: str) -> bool:
    """A key is 1-90 letters, digits or _-+@= : a dot would make WebDataset merge samples."""
    return _KEY.fullmatch(key) is not None


def are_ucf101(groups: Iterable[str]) -> bool:
    """Whether all are named like UCF101's: "YoYo/g01"."""
    return all(map(_UCF_GROUP.fullmatch, groups))


def index_dtype(key_width: int) -> np.dtype:
    """The row of the index.

    key: ASCII. shard: number of the tar. offset: first pixel byte in it, behind the headers: a
    reader copies `clip_bytes` from there and parses nothing. label: class number.
    group: number in `Manifest.groups`, -1 without. video: number of the video the clip is of;
    view: which of that video's clips. side: number in `SUBSETS`. decoded: frames that decode in the
    video. padded: how many frames of the clip repeat the last one. xxh3: xxh3_64 of the pixels.
    """
    return np.dtype([("key", f"S{key_width}"), *_COLUMNS])


def make_index(rows: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """Rows in the order of `index_dtype`'s fields, keys as str -> the index array."""
    width = max((len(row[0]) for row in rows), default=1)
    return np.array([(row[0].encode("ascii"), *row[1:]) for row in rows], index_dtype(width))

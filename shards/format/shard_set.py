"""The schema of a shard set: what is in it, and the only thing a reader trusts.

A shard set is a folder:

    manifest.json     written last; without it there is no set
    index.npy         one fixed-size row a sample (numpy structured array, no pickle)
    shard-000000.tar  plain tar, WebDataset convention: KEY.npy, KEY.cls, KEY.json
    rejects.jsonl     the videos that are not in the set, each with its reason

The folder may lie behind a URL (`har.shards.storage.remote`): then manifest and index are fetched whole when
the set is opened, and shards one by one when they are read.

Odd: `offset` in the index points at the first *pixel*, behind the tar header and the npy header,
so that a reader copies `clip_bytes` bytes straight into a batch and parses nothing. Keys are stored
as fixed-width bytes, so that 100,000 rows are mapped, not parsed (start-up well under a second).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...atomic import write_atomically
from ...errors import HarError

if TYPE_CHECKING:
    from ..storage.remote import Remote

SCHEMA = 2
MANIFEST = "manifest.json"
INDEX = "index.npy"
REJECTS = "rejects.jsonl"
SIDES = ("", "train", "val", "test")  # the `side` column: a split given by a CSV, 0 = none given
NO_GROUP = -1
_KEY = re.compile(r"[A-Za-z0-9_\-+@=]{1,90}")


class ShardSetError(HarError):
    """A shard set that is missing, half built, foreign or damaged; the text is one sentence."""


@dataclass(frozen=True)
class ShardInfo:
    """One tar of the set. `bytes` is the file's size, `xxh3` its xxh3_128 in 32 hex digits."""

    name: str
    samples: int
    bytes: int
    xxh3: str


@dataclass(frozen=True)
class Manifest:
    """What a shard set holds. `index` has one row a sample, in shard order (see `index_dtype`).

    clip_shape: (T, H, W, C), the same for every clip. sampling / resize: the rules, as written by
    the builder. groups: group names, e.g. "YoYo/g01"; `grouping` says where they come from
    ("ucf101", "regex", "csv") or is None where the data set has none. plan: hash of the build plan.
    root: the folder, or the URL of a set that `remote` fetches.
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
    schema: int = SCHEMA
    root: Path | str = field(default=Path(), compare=False)
    remote: Remote | None = field(default=None, compare=False, repr=False)
    digest: str = field(default="", compare=False)
    index: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)

    @property
    def clip_bytes(self) -> int:
        """Bytes of one clip's pixels: T*H*W*C."""
        return math.prod(self.clip_shape)

    def keys(self, ids: np.ndarray | slice = slice(None)) -> list[str]:
        """Sample ids -> keys."""
        return [k.decode() for k in self.index["key"][ids].tolist()]

    def shard_name(self, number: int) -> str:
        """Path or URL of a shard, for messages."""
        return f"{self.root}/{self.shards[number].name}"

    def shard_path(self, number: int) -> Path:
        """The file of a shard; of a remote set its copy in the cache, fetched now if need be.

        Raises RemoteError. The copy may be evicted later; `ClipReader` holds on to what it reads.
        """
        if self.remote is None:
            return Path(self.root) / self.shards[number].name
        from ..storage.cache import Cache

        cache = Cache()
        cache.check(self.shards[number])
        os.close(cache.get(self.remote, self.shards[number]))
        return cache.path(self.shards[number])


def valid_key(key: str) -> bool:
    """A key is 1-90 letters, digits or _-+@= : a dot would make WebDataset merge samples."""
    return _KEY.fullmatch(key) is not None


def index_dtype(key_width: int) -> np.dtype:
    """The row of the index.

    key: ASCII. shard: number of the tar. offset: first pixel byte in it. label: class number.
    group: number in `Manifest.groups`, -1 without. video: number of the video the clip is of;
    view: which of that video's clips. side: number in `SIDES`. decoded: frames that decode in the
    video. padded: how many frames of the clip repeat the last one. xxh3: xxh3_64 of the pixels.
    """
    return np.dtype(
        [
            ("key", f"S{key_width}"),
            ("shard", "<u4"),
            ("offset", "<u8"),
            ("label", "<u4"),
            ("group", "<i4"),
            ("video", "<u4"),
            ("view", "<u2"),
            ("side", "u1"),
            ("decoded", "<u4"),
            ("padded", "<u2"),
            ("xxh3", "<u8"),
        ]
    )


def make_index(rows: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """Rows in the order of `index_dtype`'s fields, keys as str -> the index array."""
    width = max((len(row[0]) for row in rows), default=1)
    return np.array([(row[0].encode("ascii"), *row[1:]) for row in rows], index_dtype(width))


def save(manifest: Manifest, root: Path) -> Manifest:
    """Write index and manifest of `manifest` into `root`, the manifest last; -> the loaded set.

    Each file goes under a temporary name, is synced and renamed. `index_sha256` is computed here.
    """
    import io

    buffer = io.BytesIO()
    np.save(buffer, manifest.index, allow_pickle=False)
    raw = buffer.getvalue()
    write_atomically(root / INDEX, raw)
    body = {
        name: value
        for name, value in asdict(manifest).items()
        if name not in ("root", "remote", "digest", "index")
    }
    body["index_sha256"] = hashlib.sha256(raw).hexdigest()
    text = json.dumps(body, indent=1, sort_keys=True) + "\n"
    write_atomically(root / MANIFEST, text.encode())
    return load(root)


def load(root: Path | str) -> Manifest:
    """Read and check manifest and index of the shard set in `root` (folder or URL); no shard.

    Raises ShardSetError, one sentence, when the set is missing, half built, of another schema, or
    when manifest and index do not fit together or point outside the shards; for a URL RemoteError.
    """
    from ..storage.remote import local_path, open_folder, url_of
    from .validate import check_manifest

    url = url_of(root)
    remote = open_folder(url) if url else None
    root = url or local_path(root)
    path = f"{root}/{MANIFEST}"
    try:
        raw = remote.read(MANIFEST) if remote else Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ShardSetError(_missing(root)) from error
    try:
        body = json.loads(raw)
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            found = body.get("schema") if isinstance(body, dict) else None
            raise ShardSetError(
                f"{path} has schema {found!r}; this version reads schema {SCHEMA}: "
                "build the shards again with 'har-shards build'."
            )
        body["shards"] = tuple(ShardInfo(**shard) for shard in body["shards"])
        body["clip_shape"] = tuple(int(n) for n in body["clip_shape"])
        body["classes"], body["groups"] = tuple(body["classes"]), tuple(body["groups"])
        digest = hashlib.sha256(raw).hexdigest()
        manifest = Manifest(**body, root=root, remote=remote, digest=digest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ShardSetError):
            raise
        raise ShardSetError(f"{path} is not a shard set's manifest ({error}).") from error
    check_manifest(manifest)
    object.__setattr__(manifest, "index", _load_index(manifest))
    return manifest


def _missing(root: Path | str) -> str:
    if isinstance(root, str):
        return (
            f"there is no shard set at {root} (no {MANIFEST}): give the URL of the folder that "
            "'har-shards build --out' wrote or that was uploaded from there."
        )
    if not root.exists():
        return (
            f"there is no shard set at {root}: make one with 'make shards' or 'har-shards build'."
        )
    if any(root.glob("*.tar")) or any(root.glob(".*.tmp")) or any(root.glob("*.part")):
        return (
            f"the shard set at {root} is half built (no {MANIFEST}): "
            "run the same 'har-shards build' again, it goes on where it stopped."
        )
    return f"{root} is not a shard set (no {MANIFEST}): give the folder 'har-shards build' wrote."


def _load_index(manifest: Manifest) -> np.ndarray:
    path = f"{manifest.root}/{INDEX}"
    try:
        raw = manifest.remote.read(INDEX) if manifest.remote else Path(path).read_bytes()
    except OSError as error:
        raise ShardSetError(f"{path} cannot be read ({error.strerror}).") from error
    if hashlib.sha256(raw).hexdigest() != manifest.index_sha256:
        raise ShardSetError(f"{path} is not the index that {MANIFEST} was written with.")
    import io

    from .validate import check_index

    try:
        index = np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ShardSetError(f"{path} is damaged ({error}).") from error
    if index.ndim != 1 or index.dtype != index_dtype(max(index.dtype[0].itemsize, 1)):
        raise ShardSetError(f"{path} does not have the columns of schema {SCHEMA}.")
    check_index(manifest, index)
    return index

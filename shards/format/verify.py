"""Is a shard set what its manifest says? `quick`: names, sizes, counts. `full`: every byte.

`full` reads each shard once and compares it with what the writer must have written: tar and npy
headers are built again, pixels are checked by their xxh3 in the index, KEY.json by its own, so that
a single wrong bit is named with shard, key and offset. The shard's own checksum comes last: it says
whether manifest and index belong to these bytes.

Odd:
- Shards are mapped, not read: the check runs over the page cache itself.
- Of a set behind a URL `quick` asks the store for sizes (a server need not tell what else lies
  there), `full` fetches each shard anew into scratch space, one a worker, past the cache: what is
  checked is what the store has now.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from ..storage.remote import MissingError, RemoteError
from . import shard_set
from .shard_set import Manifest
from .writer import BLOCK, END, describe, npy_header, padding, tar_header


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. key: of the sample, or "". offset: in the shard, or -1."""

    shard: str
    what: str
    key: str = ""
    offset: int = -1

    def __str__(self) -> str:
        where = f", sample {self.key}" if self.key else ""
        at = f", byte {self.offset:,}" if self.offset >= 0 else ""
        return f"{self.shard}{where}{at}: {self.what}"


def quick(clips: Manifest) -> list[Fault]:
    """Missing, foreign, longer and shorter shards; opens none. `load` has checked the index."""
    faults = []
    known = {shard.name for shard in clips.shards}
    for shard in clips.shards:
        size = _size(clips, shard.name)
        if size is None:
            faults.append(Fault(shard.name, "is missing"))
        elif size != shard.bytes:
            faults.append(_wrong_size(clips, shard.name, size, shard.bytes))
    counts = np.bincount(clips.index["shard"], minlength=len(clips.shards))
    for number, shard in enumerate(clips.shards):
        if counts[number] != shard.samples:
            what = f"has {shard.samples} samples in the manifest and {counts[number]} in the index"
            faults.append(Fault(shard.name, what))
    if clips.remote is not None:
        return faults
    foreign = sorted({path.name for path in Path(clips.root).glob("*.tar")} - known)
    return faults + [
        Fault(name, "is not of this set: the manifest has no such") for name in foreign
    ]


def _size(clips: Manifest, name: str) -> int | None:
    if clips.remote is not None:
        return clips.remote.size(name)
    try:
        return (Path(clips.root) / name).stat().st_size
    except OSError:
        return None


def _wrong_size(clips: Manifest, name: str, size: int, wanted: int) -> Fault:
    """Named with the first sample that is not whole any more, if one is."""
    what = f"has {size:,} bytes, not {wanted:,}"
    number = [shard.name for shard in clips.shards].index(name)
    rows = clips.index[clips.index["shard"] == number]
    cut = rows[rows["offset"] + np.uint64(clips.clip_bytes) > size]
    return Fault(name, what, cut["key"][0].decode() if len(cut) else "", min(size, wanted))


def full(
    clips: Manifest,
    *,
    workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> list[Fault]:
    """Everything `quick` finds, and every byte of every shard. `progress` is called after each."""
    faults = quick(clips)
    broken = {fault.shard for fault in faults}
    numbers = [at for at, shard in enumerate(clips.shards) if shard.name not in broken]

    def check(number: int) -> list[Fault]:
        with tempfile.TemporaryDirectory(prefix="har-") as scratch:
            found = _check_shard(clips, number, Path(scratch))
        if progress:
            progress()
        return found

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for found in pool.map(check, numbers):
            faults += found
    return faults


def _check_shard(clips: Manifest, number: int, scratch: Path) -> list[Fault]:
    shard = clips.shards[number]
    try:
        path = scratch / shard.name
        if clips.remote is None:
            path = clips.shard_path(number)
        else:
            clips.remote.fetch(shard, path, check=False)
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except MissingError as error:
        return [Fault(shard.name, f"cannot be read ({error})")]
    except RemoteError:  # a store that refuses says nothing of the set
        raise
    except (OSError, ValueError) as error:
        return [Fault(shard.name, f"cannot be read ({error})")]
    with mapped, memoryview(mapped) as data:
        faults = list(_walk(clips, number, data))
        if not faults and xxhash.xxh3_128_hexdigest(data) != shard.xxh3:
            faults.append(Fault(shard.name, "does not have the checksum of the manifest"))
    return faults


def _walk(clips: Manifest, number: int, data: memoryview) -> Iterator[Fault]:
    """Sample by sample, in the order of the file; stops where it cannot tell what should follow."""
    name = clips.shards[number].name
    rows = clips.index[clips.index["shard"] == number]
    head = npy_header(clips.clip_shape)
    size = len(head) + clips.clip_bytes
    at = 0
    for row in rows[np.argsort(rows["offset"], kind="stable")]:
        key, label = row["key"].decode(), str(int(row["label"])).encode()
        if int(row["offset"]) != at + BLOCK + len(head):
            yield Fault(name, "does not begin where the index says", key, at)
            return
        front = tar_header(f"{key}.npy", size) + head
        behind = padding(size) + tar_header(f"{key}.cls", len(label)) + label + padding(len(label))
        yield from _compare(name, key, data, at, front, "a wrong byte in the header of the clip")
        at += len(front)
        if xxhash.xxh3_64_intdigest(data[at : at + clips.clip_bytes]) != int(row["xxh3"]):
            yield Fault(name, "pixels do not match their checksum", key, at)
        at += clips.clip_bytes
        yield from _compare(name, key, data, at, behind, "a wrong byte around the label")
        at += len(behind)
        length = _json_length(data, at, key)
        if length is None:
            yield Fault(name, "a wrong byte in the header of the JSON", key, at)
            return
        at += BLOCK
        if not _is_whole_json(bytes(data[at : at + length])):
            yield Fault(name, "the JSON does not match its checksum", key, at)
        at += length
        if any(data[at : at + -length % BLOCK]):
            yield Fault(name, "a wrong byte behind the JSON", key, at)
        at += -length % BLOCK
    if data[at:] != END:
        yield Fault(name, "a wrong byte in the end of the tar", "", at)


def _compare(
    name: str, key: str, data: memoryview, at: int, expected: bytes, what: str
) -> Iterator[Fault]:
    """One fault at the first byte that differs."""
    found = data[at : at + len(expected)]
    if found != expected:
        pairs = zip(found, expected, strict=False)
        wrong = next((place for place, (a, b) in enumerate(pairs) if a != b), len(found))
        yield Fault(name, what, key, at + wrong)


def _json_length(data: memoryview, at: int, key: str) -> int | None:
    """From the tar header, if that is the one the writer would have made."""
    header = bytes(data[at : at + BLOCK])
    try:
        length = int(header[124:135], 8)
        return length if header == tar_header(f"{key}.json", length) else None
    except ValueError:
        return None


def _is_whole_json(body: bytes) -> bool:
    try:
        about = json.loads(body)
        return isinstance(about, dict) and describe(about) == body
    except ValueError:
        return False


def is_whole(root: Path | str) -> bool:
    """Whether `quick` finds nothing. Raises ShardSetError where there is no set at all."""
    return not quick(shard_set.load(root))

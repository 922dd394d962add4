"""Is a shard set what its manifest says? `verify_quick`: names, sizes. `verify_full`: every byte.

`verify_full` reads each shard once and compares it with what the writer must have written: tar and
npy headers are built again, pixels are compared with their xxh3 in the index, KEY.json with its
own, so that a single wrong bit is named with shard, key and offset. The shard's own checksum comes
last: it says whether manifest and index belong to these bytes.

Notes: of a set behind a URL, `verify_quick` asks the store for sizes (a server need not tell what
else lies there), and `verify_full` fetches each shard into scratch space, past the cache: what is
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

from ..storage import MissingFileError, RemoteFolder, StorageError, open_folder
from .schema import Manifest
from .writer import BLOCK, END, encode_metadata, npy_header, padding, tar_header


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. key: of the sample, or "". offset: in the shard, or -1."""

    shard: str
    text: str
    key: str = ""
    offset: int = -1

    def __str__(self) -> str:
        sample = f", sample {self.key}" if self.key else ""
        byte = f", byte {self.offset:,}" if self.offset >= 0 else ""
        return f"{self.shard}{sample}{byte}: {self.text}"


def verify_quick(manifest: Manifest) -> list[Fault]:
    """Missing, foreign, longer and shorter shards; opens none. The index was checked by loading."""
    folder, faults = open_folder(manifest.root), []
    counts = np.bincount(manifest.index["shard"], minlength=len(manifest.shards))
    for number, shard in enumerate(manifest.shards):
        size = folder.size(shard.name)
        if size is None:
            faults.append(Fault(shard.name, "is missing"))
        elif size != shard.bytes:
            faults.append(_wrong_size(manifest, number, size))
        if counts[number] != shard.samples:
            text = f"has {shard.samples} samples in the manifest and {counts[number]} in the index"
            faults.append(Fault(shard.name, text))
    if isinstance(folder, RemoteFolder):
        return faults
    known = {shard.name for shard in manifest.shards}
    foreign = sorted({path.name for path in folder.path.glob("*.tar")} - known)
    text = "is not of this set: the manifest has no such"
    return faults + [Fault(name, text) for name in foreign]


def verify_full(
    manifest: Manifest,
    *,
    workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> list[Fault]:
    """What `verify_quick` finds, and every byte of every shard. `progress` is called after each.

    workers: threads, None = one a core. Raises StorageError where a store refuses.
    """
    faults = verify_quick(manifest)
    broken = {fault.shard for fault in faults}
    numbers = [n for n, shard in enumerate(manifest.shards) if shard.name not in broken]

    def verify_one(number: int) -> list[Fault]:
        with tempfile.TemporaryDirectory(prefix="har-") as scratch:
            shard_faults = _verify_shard(manifest, number, Path(scratch))
        if progress:
            progress()
        return shard_faults

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for shard_faults in pool.map(verify_one, numbers):
            faults += shard_faults
    return faults


def _wrong_size(manifest: Manifest, number: int, size: int) -> Fault:
    """Named with the first sample that is cut, if one is."""
    shard = manifest.shards[number]
    rows = manifest.index[manifest.index["shard"] == number]
    cut = rows[rows["offset"] + np.uint64(manifest.clip_bytes) > size]
    key = cut["key"][0].decode() if len(cut) else ""
    text = f"has {size:,} bytes, not {shard.bytes:,}"
    return Fault(shard.name, text, key, min(size, shard.bytes))


def _verify_shard(manifest: Manifest, number: int, scratch: Path) -> list[Fault]:
    shard, folder = manifest.shards[number], open_folder(manifest.root)
    try:
        if isinstance(folder, RemoteFolder):
            path = scratch / shard.name
            folder.fetch(shard.file, path, verify=False)
        else:
            path = manifest.shard_path(number)
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except MissingFileError as error:
        return [Fault(shard.name, f"cannot be read ({error})")]
    except StorageError:  # a store that refuses says nothing about the set
        raise
    except (OSError, ValueError) as error:
        return [Fault(shard.name, f"cannot be read ({error})")]
    with mapped, memoryview(mapped) as data:
        faults = list(_compare_samples(manifest, number, data))
        if not faults and xxhash.xxh3_128_hexdigest(data) != shard.xxh3:
            faults.append(Fault(shard.name, "does not have the checksum of the manifest"))
    return faults


def _compare_samples(manifest: Manifest, number: int, data: memoryview) -> Iterator[Fault]:
    """Sample by sample, in the order of the file; stops where what follows cannot be known."""
    name = manifest.shards[number].name
    rows = manifest.index[manifest.index["shard"] == number]
    npy = npy_header(manifest.clip_shape)
    npy_bytes = len(npy) + manifest.clip_bytes
    offset = 0
    for row in rows[np.argsort(rows["offset"], kind="stable")]:
        key, label = row["key"].decode(), str(int(row["label"])).encode()
        if int(row["offset"]) != offset + BLOCK + len(npy):
            yield Fault(name, "does not begin where the index says", key, offset)
            return
        before = tar_header(f"{key}.npy", npy_bytes) + npy
        cls = tar_header(f"{key}.cls", len(label)) + label + padding(len(label))
        after = padding(npy_bytes) + cls
        if (wrong := _first_difference(data, offset, before)) is not None:
            yield Fault(name, "a wrong byte in the header of the clip", key, wrong)
        offset += len(before)
        pixels = data[offset : offset + manifest.clip_bytes]
        if xxhash.xxh3_64_intdigest(pixels) != int(row["xxh3"]):
            yield Fault(name, "pixels do not match their checksum", key, offset)
        offset += manifest.clip_bytes
        if (wrong := _first_difference(data, offset, after)) is not None:
            yield Fault(name, "a wrong byte around the label", key, wrong)
        offset += len(after)
        length = _json_length(data, offset, key)
        if length is None:
            yield Fault(name, "a wrong byte in the header of the JSON", key, offset)
            return
        offset += BLOCK
        if not _is_valid_json(bytes(data[offset : offset + length])):
            yield Fault(name, "the JSON does not match its checksum", key, offset)
        offset += length
        if any(data[offset : offset + -length % BLOCK]):
            yield Fault(name, "a wrong byte behind the JSON", key, offset)
        offset += -length % BLOCK
    if data[offset:] != END:
        yield Fault(name, "a wrong byte in the end of the tar", "", offset)


def _first_difference(data: memoryview, offset: int, expected: bytes) -> int | None:
    actual = data[offset : offset + len(expected)]
    if actual == expected:
        return None
    pairs = enumerate(zip(actual, expected, strict=False))
    return offset + next((place for place, (a, b) in pairs if a != b), len(actual))


def _json_length(data: memoryview, offset: int, key: str) -> int | None:
    """From the tar header, if that is the one the writer would have made."""
    header = bytes(data[offset : offset + BLOCK])
    try:
        length = int(header[124:135], 8)
        return length if header == tar_header(f"{key}.json", length) else None
    except ValueError:
        return None


def _is_valid_json(body: bytes) -> bool:
    try:
        metadata = json.loads(body)
        return isinstance(metadata, dict) and encode_metadata(metadata) == body
    except ValueError:
        return False

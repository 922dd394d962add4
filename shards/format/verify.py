"""Is a shard set what its manifest says? `verify_quick`: names, sizes. `verify_full`: every byte.

`verify_full` compares each shard with what the writer must have written: headers are built again,
pixels compared with their xxh3 in the index, KEY.json with its own, so that a single wrong bit is
named with shard, key and offset. The shard's own checksum comes last: it says whether manifest and
index belong to these bytes.

Of a set behind a URL, `verify_quick` asks the store for sizes, and `verify_full` fetches each shard
into scratch space, past the cache: what is checked is what the store has now.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from ..storage import LocalFolder, MissingFileError, RemoteFolder, StorageError, open_folder
from .schema import Manifest
from .writer import BLOCK, END, encode_metadata, npy_header, padding, tar_header, tar_member


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
    for number, (shard, count) in enumerate(zip(manifest.shards, counts, strict=True)):
        size = folder.size(shard.name)
        if size is None:
            faults.append(Fault(shard.name, "is missing"))
        elif size != shard.bytes:  # named with the first sample that is cut, if one is
            rows = manifest.index[manifest.index["shard"] == number]
            cut = rows[rows["offset"] + np.uint64(manifest.clip_bytes) > size]
            key = cut["key"][0].decode() if len(cut) else ""
            text = f"has {size:,} bytes, not {shard.bytes:,}"
            faults.append(Fault(shard.name, text, key, min(size, shard.bytes)))
        if count != shard.samples:
            text = f"has {shard.samples} samples in the manifest and {count} in the index"
            faults.append(Fault(shard.name, text))
    if isinstance(folder, RemoteFolder):
        return faults
    foreign = {path.name for path in folder.path.glob("*.tar")}
    foreign -= {shard.name for shard in manifest.shards}
    text = "is not of this set: the manifest has no such"
    return faults + [Fault(name, text) for name in sorted(foreign)]


def verify_full(
    manifest: Manifest, *, workers: int | None = None, progress: Callable[[], None] = lambda: None
) -> list[Fault]:
    """What `verify_quick` finds, and every byte of every shard. `progress` is called after each.

    workers: threads, None = one a core. Raises StorageError where a store refuses.
    """
    faults = verify_quick(manifest)
    broken = {fault.shard for fault in faults}
    numbers = [n for n, shard in enumerate(manifest.shards) if shard.name not in broken]

    def verify_shard(number: int) -> list[Fault]:
        shard_faults = _verify_shard(manifest, number)
        progress()
        return shard_faults

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return sum(pool.map(verify_shard, numbers), faults)


def _verify_shard(manifest: Manifest, number: int) -> list[Fault]:
    shard, folder = manifest.shards[number], open_folder(manifest.root)
    with tempfile.TemporaryDirectory(prefix="har-") as scratch:
        try:
            path = Path(str(folder if isinstance(folder, LocalFolder) else scratch)) / shard.name
            if isinstance(folder, RemoteFolder):
                folder.fetch(shard, path, verify=False)
            with open(path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            if isinstance(error, StorageError) and not isinstance(error, MissingFileError):
                raise  # a store that refuses says nothing about the set
            return [Fault(shard.name, f"cannot be read ({error})")]
        with mapped, memoryview(mapped) as data:
            faults = _compare_samples(manifest, number, data)
            if not faults and xxhash.xxh3_128_hexdigest(data) != shard.xxh3:
                faults.append(Fault(shard.name, "does not have the checksum of the manifest"))
    return faults


def _compare_samples(manifest: Manifest, number: int, data: memoryview) -> list[Fault]:
    """Sample by sample, in the order of the file; stops where what follows cannot be known."""
    faults, offset, key = [], 0, ""
    npy = npy_header(manifest.clip_shape)
    npy_bytes = len(npy) + manifest.clip_bytes

    def add(text: str, position: int) -> None:
        faults.append(Fault(manifest.shards[number].name, text, key, position))

    def compare(expected: bytes, place: str) -> int:
        """-> the offset behind `expected`, which should come next."""
        actual = bytes(data[offset : offset + len(expected)])
        if actual != expected:
            pairs = enumerate(zip(actual, expected, strict=False))
            first = next((number for number, (a, b) in pairs if a != b), len(actual))
            add(f"a wrong byte {place}", offset + first)
        return offset + len(expected)

    rows = manifest.index[manifest.index["shard"] == number]
    for row in rows[np.argsort(rows["offset"], kind="stable")]:
        key, label = row["key"].decode(), str(int(row["label"])).encode()
        if int(row["offset"]) != offset + BLOCK + len(npy):
            add("does not begin where the index says", offset)
            return faults
        offset = compare(tar_header(f"{key}.npy", npy_bytes) + npy, "in the header of the clip")
        pixels = data[offset : offset + manifest.clip_bytes]
        if xxhash.xxh3_64_intdigest(pixels) != int(row["xxh3"]):
            add("pixels do not match their checksum", offset)
        offset += manifest.clip_bytes
        offset = compare(padding(npy_bytes) + tar_member(f"{key}.cls", label), "around the label")
        length = _json_length(bytes(data[offset : offset + BLOCK]), key)
        if length is None:
            add("a wrong byte in the header of the JSON", offset)
            return faults
        offset += BLOCK
        if not _is_valid_json(bytes(data[offset : offset + length])):
            add("the JSON does not match its checksum", offset)
        offset += length
        offset = compare(padding(length), "behind the JSON")
    key = ""
    compare(END, "in the end of the tar")
    return faults


def _json_length(header: bytes, key: str) -> int | None:
    """From the tar header, if that is the one the writer would have made."""
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

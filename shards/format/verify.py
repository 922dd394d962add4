"""Is a shard set what its manifest says? `verify_quick`: names, sizes. `verify_full`: every byte.

`verify_full` compares each shard with what the writer must have written: headers are built again,
pixels compared with their xxh3 in the index, KEY.json with its own, so that a single wrong bit is
named with shard, key and offset. The shard's own checksum comes last: it says whether manifest and
index belong to these bytes. Clips that were removed from an edited set are passed over by their
headers, and a label that was changed since may differ from the one in the tar; the checksum of the
shard holds for both.

Of a set behind a URL, `verify_quick` asks the store for sizes, and `verify_full` fetches each shard
into scratch space, past the cache: what is checked is what the store has now.
"""

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
from .journal import read_journal
from .schema import Manifest
from .writer import BLOCK, END, decode_metadata, npy_header, padding, tar_header, tar_member


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. key: of the sample, or "". offset: in the shard, or -1.

    is_foreign: the shard is not of this set, and building the set again does nothing about it.
    """

    shard: str
    text: str
    key: str = ""
    offset: int = -1
    is_foreign: bool = False

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
    if journal := read_journal(folder):  # an edit that runs, or was killed: it leaves no fault
        foreign = {name for name in foreign if not journal.names(name)}
    text = "is not of this set: the manifest has no such"
    return faults + [Fault(name, text, is_foreign=True) for name in sorted(foreign)]


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
            faults = _SampleCheck(manifest, number, data).run()
            if not faults and xxhash.xxh3_128_hexdigest(data) != shard.xxh3:
                faults.append(Fault(shard.name, "does not have the checksum of the manifest"))
    return faults


class _SampleCheck:
    """Compares a shard sample by sample, in the order of the file, with what must be in it."""

    def __init__(self, manifest: Manifest, number: int, data: memoryview) -> None:
        self._manifest, self._data, self._shard = manifest, data, manifest.shards[number]
        rows = manifest.index[manifest.index["shard"] == number]
        self._rows = rows[np.argsort(rows["offset"], kind="stable")]
        self._npy = npy_header(manifest.clip_shape)
        self._offset, self._key, self._num_removed = 0, "", 0
        self.faults: list[Fault] = []

    def run(self) -> list[Fault]:
        """Stops where what follows cannot be known."""
        for row in self._rows:
            self._key = row["key"].decode()
            self._skip_removed(int(row["offset"]) - BLOCK - len(self._npy))
            if not self._compare_sample(row):
                return self.faults
        self._key = ""
        self._skip_removed(len(self._data) - len(END))
        if self._num_removed != self._shard.removed:
            self._add(f"holds {self._num_removed} removed clips, not {self._shard.removed}")
        self._compare(END, "in the end of the tar")
        return self.faults

    def _compare_sample(self, row: np.void) -> bool:
        """Whether it is known where the next one begins."""
        if int(row["offset"]) != self._offset + BLOCK + len(self._npy):
            self._add("does not begin where the index says")
            return False
        npy_bytes, name = len(self._npy) + self._manifest.clip_bytes, f"{self._key}.npy"
        self._compare(tar_header(name, npy_bytes) + self._npy, "in the header of the clip")
        pixels = self._data[self._offset : self._offset + self._manifest.clip_bytes]
        if xxhash.xxh3_64_intdigest(pixels) != int(row["xxh3"]):
            self._add("pixels do not match their checksum")
        self._offset += self._manifest.clip_bytes
        gap = padding(npy_bytes)
        label = self._label_member(int(row["label"]), self._offset + len(gap))
        self._compare(gap + label, "around the label")
        length = _member_length(self._data, self._offset, f"{self._key}.json")
        if length is None:
            self._add("a wrong byte in the header of the JSON")
            return False
        self._offset += BLOCK
        if decode_metadata(self._data[self._offset : self._offset + length]) is None:
            self._add("the JSON does not match its checksum")
        self._offset += length
        self._compare(padding(length), "behind the JSON")
        return True

    def _label_member(self, label: int, position: int) -> bytes:
        """What KEY.cls at `position` must be. Where labels were changed since, it may be the number
        of the class in KEY.json, which has a checksum of its own."""
        name = f"{self._key}.cls"
        if self._shard.relabelled:
            start = position + 3 * BLOCK  # header and text of the label, header of the JSON
            length = _member_length(self._data, start - BLOCK, f"{self._key}.json") or 0
            metadata = decode_metadata(self._data[start : start + length]) or {}
            classes = self._manifest.classes
            if metadata.get("class") in classes:
                stored = tar_member(name, str(classes.index(metadata["class"])).encode())
                if self._data[position : position + len(stored)] == stored:
                    return stored
        return tar_member(name, str(label).encode())

    def _skip_removed(self, end: int) -> None:
        """Pass over the removed samples that come next, of those that lie before `end`."""
        while self._offset < end and self._num_removed < self._shard.removed:
            key = bytes(self._data[self._offset : self._offset + BLOCK]).split(b".npy\0")[0]
            position = self._offset
            for suffix in ("npy", "cls", "json"):
                name = f"{key.decode(errors='replace')}.{suffix}"
                length = _member_length(self._data, position, name)
                if length is None:
                    return
                position += BLOCK + length + len(padding(length))
            self._offset = position
            self._num_removed += 1

    def _add(self, text: str, position: int | None = None) -> None:
        offset = self._offset if position is None else position
        self.faults.append(Fault(self._shard.name, text, self._key, offset))

    def _compare(self, expected: bytes, place: str) -> None:
        """`expected` should come next; goes on behind it."""
        actual = bytes(self._data[self._offset : self._offset + len(expected)])
        if actual != expected:
            pairs = enumerate(zip(actual, expected, strict=False))
            first = next((number for number, (a, b) in pairs if a != b), len(actual))
            self._add(f"a wrong byte {place}", self._offset + first)
        self._offset += len(expected)


def _member_length(data: memoryview, position: int, name: str) -> int | None:
    """From the tar header at `position`, if that is the one the writer would have made."""
    header = bytes(data[position : position + BLOCK])
    try:
        length = int(header[124:135], 8)
        return length if header == tar_header(name, length) else None
    except ValueError:
        return None

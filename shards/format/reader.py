"""Reads clips out of a shard set: straight from the tar, at a known offset, into a given buffer.

Notes: `os.preadv` copies from the page cache into the caller's memory without the GIL, so threads
read at about 0.7 of the speed of copying (docs/benchmarks.md, "Loader"); each read is checked with
the sample's xxh3 while it is in the CPU's cache. Mapped files are no faster, and a file that is cut
short under a mapping kills the process.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import xxhash

from ..storage import RemoteFolder, ShardPrefetcher, open_binary, open_folder
from .schema import Manifest, ShardSetError
from .writer import BLOCK, decode_metadata


class ClipReader:
    """Random access to the clips of one shard set, from any number of threads.

    verify_checksums: compare each read with the index. keep: hold every clip that was read in
    memory from then on, checked once. heartbeat: called 10 times a second while a remote shard is
    waited for.
    Local files are opened at first use and stay open (one descriptor a shard). Raises ShardSetError
    naming shard, key and offset when a shard is missing, short, or its pixels do not match, and
    StorageError when a remote one cannot be fetched.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        verify_checksums: bool = True,
        keep: bool = False,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self.manifest, self.verify_checksums = manifest, verify_checksums
        folder = open_folder(manifest.root)
        self.prefetcher: ShardPrefetcher | None = None  # of a remote set
        if isinstance(folder, RemoteFolder):
            self.prefetcher = ShardPrefetcher(manifest.shards, folder)
        self._heartbeat = heartbeat
        self._clips: dict[int, np.ndarray] | None = {} if keep else None
        index = manifest.index  # columns of their own: a row of the index takes 1 us to look at
        self._shards = np.ascontiguousarray(index["shard"])
        self._offsets = np.ascontiguousarray(index["offset"])
        self._checksums = np.ascontiguousarray(index["xxh3"])
        self._num_bytes = manifest.clip_bytes
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()
        self._scratch = threading.local()

    def read(self, sample: int) -> np.ndarray:
        """-> the clip of a sample, a new uint8 array [T,H,W,C]."""
        clip = np.empty(self.manifest.clip_shape, np.uint8)
        self.read_into(sample, clip)
        return clip

    def read_metadata(self, sample: int) -> dict[str, Any]:
        """KEY.json of a sample, compared with its own checksum."""
        shard = self._shards.item(sample)
        with (
            contextlib.nullcontext(self._descriptor(shard))
            if self.prefetcher is None
            else self.prefetcher.use(shard, self._heartbeat)
        ) as descriptor:
            end = self._offsets.item(sample) + self._num_bytes
            header = -(-end // BLOCK) * BLOCK + 2 * BLOCK  # behind those of pixels and KEY.cls
            try:
                size = int(os.pread(descriptor, BLOCK, header)[124:135], 8)
                metadata = decode_metadata(os.pread(descriptor, size, header + BLOCK))
            except (OSError, ValueError):
                metadata = None
        if metadata is None:
            raise self._error(sample, "has a KEY.json that does not match its checksum")
        return metadata

    def read_into(self, sample: int, out: np.ndarray) -> None:
        """Fill `out` (uint8 [T,H,W,C], C-contiguous) with the clip of a sample."""
        if self._clips is None:
            self._read_into(sample, out)
            return
        clip = self._clips.get(sample)
        if clip is None:
            clip = np.empty(self.manifest.clip_shape, np.uint8)
            self._read_into(sample, clip)
            self._clips[sample] = clip
        np.copyto(out, clip)

    def scratch(self) -> np.ndarray:
        """A clip's worth of memory of the calling thread: uint8 [T,H,W,C], reused."""
        memory = getattr(self._scratch, "clip", None)
        if memory is None:
            memory = self._scratch.clip = np.empty(self.manifest.clip_shape, np.uint8)
        return memory

    def close(self) -> None:
        """Close the shards; the reader of a local set opens them again if it is used again."""
        if self.prefetcher is not None:
            self.prefetcher.close()
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def _read_into(self, sample: int, out: np.ndarray) -> None:
        shard = self._shards.item(sample)
        if self.prefetcher is None:
            self._copy(self._descriptor(shard), sample, out)
            return
        with self.prefetcher.use(shard, self._heartbeat) as descriptor:
            self._copy(descriptor, sample, out)

    def _copy(self, descriptor: int, sample: int, out: np.ndarray) -> None:
        offset, size = self._offsets.item(sample), self._num_bytes
        view = memoryview(out.data).cast("B")
        done = 0
        while done < size:  # the kernel may return less than asked for
            try:
                count = _read_at(descriptor, view[done:] if done else view, offset + done)
            except OSError as error:
                raise self._error(sample, f"cannot be read ({error.strerror})") from error
            if count == 0:
                raise self._error(sample, f"ends after {done:,} of {size:,} bytes")
            done += count
        if self.verify_checksums and xxhash.xxh3_64_intdigest(view) != self._checksums.item(sample):
            raise self._error(sample, "has pixels that do not match their checksum")

    def _descriptor(self, shard: int) -> int:
        descriptor = self._descriptors.get(shard)
        if descriptor is not None:
            return descriptor
        with self._lock:
            if shard not in self._descriptors:
                self._descriptors[shard] = open_shard(self.manifest, shard)
            return self._descriptors[shard]

    def _error(self, sample: int, fault: str) -> ShardSetError:
        row = self.manifest.index[sample]
        shard, remedy = int(row["shard"]), "the same 'har-shards build' with --check full"
        if self.prefetcher is not None:  # it was right when it arrived
            remedy = f"remove its copy {self.prefetcher.cached_path(shard)}"
        return ShardSetError(
            f"sample {row['key'].decode()} in {self.manifest.root}/"
            f"{self.manifest.shards[shard].name} at byte {int(row['offset']):,} {fault}: "
            f"run 'har-shards verify {self.manifest.root}' and {remedy}."
        )


_LOCK = threading.Lock()  # of a descriptor's position, where there is no preadv


def _read_at(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset` of a file on; -> how many bytes that gave. Raises OSError."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], offset)
    with _LOCK:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)


def open_shard(manifest: Manifest, number: int) -> int:
    """-> a descriptor of a shard of a local set. Raises ShardSetError."""
    path = manifest.shard_path(number)
    try:
        return open_binary(path)
    except OSError as error:
        raise ShardSetError(
            f"shard {path} cannot be opened ({error.strerror}): run 'har-shards verify "
            f"{manifest.root}' to see what else is missing."
        ) from error

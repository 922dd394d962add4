"""Reads clips out of a shard set: straight from the tar, at a known offset, into a given buffer.

Odd: `os.preadv` copies from the page cache into the caller's memory without a Python object for
the pixels and without the GIL, so threads read at memory speed; and every read is checked against
the sample's xxh3 while it is still in cache. Two threads, clips of 1.05 MB, machine A: copying in
memory 13,970 clips/s, preadv 14,540, preadv and xxh3 12,900, the same in pieces of 256 KB 12,310.
Mapped files are no faster (14,720) and a file cut short under a mapping kills the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
import xxhash

from ..storage.prefetch import ShardPrefetcher
from .shard_set import Manifest, ShardSetError


class ClipReader:
    """Random access to the clips of one shard set, from any number of threads.

    keep: hold every clip that was read in memory from then on, checked once (the page cache does
    the same while nobody else needs the memory; this holds on to it, and on a network share it
    saves the network).
    beat: of a remote set, called twice a second while a shard is waited for (`har.shards.storage.prefetch`).
    Files are opened at first use and stay open (one descriptor a shard). Raises ShardSetError
    naming shard, key and offset when a shard is missing, short, or its pixels do not match, and
    RemoteError (a ShardSetError) when a remote one cannot be fetched.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        check: bool = True,
        keep: bool = False,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.manifest = manifest
        self.supply = ShardPrefetcher(manifest, manifest.remote) if manifest.remote else None
        self._beat = beat
        self._kept: dict[int, np.ndarray] | None = {} if keep else None
        self.check = check
        index = manifest.index  # columns of their own: a row of the index takes 1 us to look at
        self._shards = np.ascontiguousarray(index["shard"])
        self._offsets = np.ascontiguousarray(index["offset"])
        self._sums = np.ascontiguousarray(index["xxh3"])
        self._size = manifest.clip_bytes
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()
        self._scratch = threading.local()

    def read_into(self, sample: int, out: np.ndarray) -> None:
        """Fill `out` (uint8 [T,H,W,C], C-contiguous) with the clip of sample id `sample`."""
        if self._kept is None:
            self._read_into(sample, out)
            return
        kept = self._kept.get(sample)
        if kept is None:
            kept = np.empty(self.manifest.clip_shape, np.uint8)
            self._read_into(sample, kept)
            self._kept[sample] = kept
        np.copyto(out, kept)

    def _read_into(self, sample: int, out: np.ndarray) -> None:
        shard = self._shards.item(sample)
        if self.supply is None:
            self._copy(self._descriptor(shard), sample, out)
            return
        with self.supply.use(shard, self._beat) as descriptor:
            self._copy(descriptor, sample, out)

    def _copy(self, descriptor: int, sample: int, out: np.ndarray) -> None:
        offset, size = self._offsets.item(sample), self._size
        view = memoryview(out.data).cast("B")
        got = 0
        while got < size:  # the kernel may return less than asked for
            try:
                count = os.preadv(descriptor, [view[got:] if got else view], offset + got)
            except OSError as error:
                what = f"cannot be read ({error.strerror})"
                raise ShardSetError(self._at(sample, what)) from error
            if count == 0:
                raise ShardSetError(self._at(sample, f"ends after {got:,} of {size:,} bytes"))
            got += count
        if self.check and xxhash.xxh3_64_intdigest(view) != self._sums.item(sample):
            raise ShardSetError(self._at(sample, "has pixels that do not match their checksum"))

    def scratch(self) -> np.ndarray:
        """A clip's worth of memory of the calling thread: uint8 [T,H,W,C], reused."""
        memory = getattr(self._scratch, "clip", None)
        if memory is None:
            memory = self._scratch.clip = np.empty(self.manifest.clip_shape, np.uint8)
        return memory

    def read_frames_into(self, sample: int, frames: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (uint8 [t,H,W,C]) with the given stored frames of the clip, in that order.

        The whole clip is read into scratch first, because the checksum covers the whole clip.
        """
        scratch = self.scratch()
        self.read_into(sample, scratch)
        np.take(scratch, frames, axis=0, out=out)

    def read(self, sample: int) -> np.ndarray:
        """-> the clip of sample id `sample`, a new uint8 array [T,H,W,C]."""
        clip = np.empty(self.manifest.clip_shape, np.uint8)
        self.read_into(sample, clip)
        return clip

    def close(self) -> None:
        """Close the shards; the reader of a local set opens them again if it is used again."""
        if self.supply is not None:
            self.supply.close()
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def _descriptor(self, shard: int) -> int:
        descriptor = self._descriptors.get(shard)
        if descriptor is not None:
            return descriptor
        with self._lock:
            if shard not in self._descriptors:
                path = self.manifest.shard_path(shard)
                try:
                    self._descriptors[shard] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise ShardSetError(
                        f"shard {path} cannot be opened ({error.strerror}): run 'har-shards verify "
                        f"{self.manifest.root}' to see what else is missing."
                    ) from error
            return self._descriptors[shard]

    def _at(self, sample: int, what: str) -> str:
        row = self.manifest.index[sample]
        number = int(row["shard"])
        shard, do = self.manifest.shard_name(number), "build that shard again"
        if self.supply is not None:  # it was right when it arrived
            do = f"remove its copy {self.supply.copy_of(number)}"
        return (
            f"sample {row['key'].decode()} in {shard} at byte {int(row['offset']):,} {what}: "
            f"run 'har-shards verify {self.manifest.root}' and {do}."
        )

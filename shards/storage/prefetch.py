"""Threads that bring the shards of a remote set into the cache in the sampler's order, ahead of it.

Notes:
- Readers never fetch. A reader that lacks a shard puts it at the head of the queue and waits; its
  heartbeat tells the loader that the worker is not stuck while bytes arrive. A transfer without
  bytes ends by itself (`remote_folder.SILENCE`).
- A shard that was waited for is handed over as an open descriptor, so that it is read even where a
  small cache evicts it at once: each wait makes progress, whatever other processes do.
- Of a set that is larger than the cache, half of the cache is filled ahead; the rest is for what
  is being read, and for other processes.
"""

import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .cache import ShardCache
from .place import ShardInfo, StorageError, TransferStopped
from .remote_folder import Heartbeat, RemoteFolder

THREADS = 4  # transfers at once: one stream of an object store gives 50-100 MB/s
_LOOK_AHEAD = 16_384  # clips; more would take longer at each step than it saves
_REFRESH = 10.0  # seconds after which all shards to come are marked as used again


class ShardPrefetcher:
    """Descriptors of the shards of one remote set, for any number of threads.

    files: the shards, in the order of their numbers. Raises StorageError: the store's or the
    cache's.
    """

    def __init__(
        self, files: Sequence[ShardInfo], folder: RemoteFolder, cache: ShardCache | None = None
    ) -> None:
        self._files, self._folder, self._cache = files, folder, cache or ShardCache()
        self._cache.check_fits(max(files, key=lambda file: file.bytes))
        self._sizes = np.array([file.bytes for file in files], np.int64)
        self._fits = int(self._sizes.sum()) <= self._cache.max_bytes
        self._order = np.empty(0, np.int64)  # the shard of each clip to come
        self._changed = threading.Condition()
        self._window: frozenset[int] = frozenset()  # shards to have in the cache now
        self._queue: deque[int] = deque()  # those of them still to fetch, soonest first
        self._refreshed = 0.0
        self._waiting: Counter[int] = Counter()  # readers that wait for a shard
        self._arrived: dict[int, int] = {}  # shard that readers wait for -> its descriptor
        self._busy: set[int] = set()
        self._failed: dict[int, BaseException] = {}
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def cached_path(self, shard: int) -> Path:
        """Where the cache keeps the shard."""
        return self._cache.path(self._files[shard])

    def schedule(self, order: np.ndarray) -> None:
        """From now on clips of these shards are read, in this order: int64 [N]."""
        with self._changed:
            self._order, self._window = order, frozenset()
            self._failed.clear()
        self._fill_queue(0)

    def advance(self, position: int) -> None:
        """The clips before `position` of the scheduled order have been read."""
        if not self._fits:  # else all of them are queued already
            self._fill_queue(position)

    @contextlib.contextmanager
    def use(self, shard: int, heartbeat: Heartbeat = lambda: None) -> Iterator[int]:
        """A descriptor of the whole shard. heartbeat: called 10 times a second while waiting."""
        descriptor = self._cache.open(self._files[shard])
        if descriptor is None:
            descriptor = self._wait_for(shard, heartbeat)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End the threads; what is in the cache stays there."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(2.0)

    def _fill_queue(self, position: int) -> None:
        order = self._order[position:][: None if self._fits else _LOOK_AHEAD]
        shards, first = np.unique(order, return_index=True)
        soonest = shards[np.argsort(first)]
        budget = self._cache.max_bytes if self._fits else self._cache.max_bytes // 2
        window = soonest[np.cumsum(self._sizes[soonest]) <= budget].tolist()
        with self._changed:
            if time.monotonic() - self._refreshed > _REFRESH:
                self._window, self._refreshed = frozenset(), time.monotonic()
            queued = set(self._queue)
            self._queue = deque(s for s in window if s in queued or s not in self._window)
            self._window = frozenset(window)
            self._start_threads()
            self._changed.notify_all()

    def _wait_for(self, shard: int, heartbeat: Heartbeat) -> int:
        with self._changed:
            self._waiting[shard] += 1
            self._start_threads()
            self._changed.notify_all()
            try:
                while shard not in self._arrived:
                    if self._is_closed:
                        raise StorageError(f"{self._folder} is read after its loader was closed.")
                    if shard in self._failed:
                        raise self._failed[shard]
                    self._changed.wait(0.1)
                    heartbeat()
                return os.dup(self._arrived[shard])
            finally:
                self._waiting[shard] -= 1
                if not self._waiting[shard]:
                    del self._waiting[shard]
                    if shard in self._arrived:
                        os.close(self._arrived.pop(shard))

    def _start_threads(self) -> None:
        if not self._threads and not self._is_closed:
            for number in range(THREADS):
                thread = threading.Thread(
                    target=self._work, name=f"har-fetch-{number}", daemon=True
                )
                thread.start()
                self._threads.append(thread)

    def _work(self) -> None:
        while (shard := self._next()) is not None:
            try:
                descriptor = self._cache.fetch(
                    self._folder, self._files[shard], heartbeat=self._check_open
                )
            except TransferStopped:
                return
            except BaseException as error:  # raised again where a reader waits for the shard
                with self._changed:
                    self._failed[shard] = error
                    self._busy.discard(shard)
                    self._changed.notify_all()
                continue
            with self._changed:
                self._busy.discard(shard)
                if shard in self._waiting and shard not in self._arrived:
                    self._arrived[shard] = descriptor
                else:
                    os.close(descriptor)
                self._changed.notify_all()

    def _next(self) -> int | None:
        """The next shard to fetch, now marked as busy; None when closed."""
        with self._changed:
            while not self._is_closed:
                skip = self._busy | self._failed.keys() | self._arrived.keys()
                shard = next((shard for shard in self._waiting if shard not in skip), None)
                while shard is None and self._queue:
                    queued = self._queue.popleft()
                    shard = None if queued in skip else queued
                if shard is not None:
                    self._busy.add(shard)
                    return shard
                self._changed.wait()
        return None

    def _check_open(self) -> None:
        if self._is_closed:
            raise TransferStopped

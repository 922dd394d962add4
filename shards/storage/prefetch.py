"""Brings the shards of a remote set to this machine before the loader asks for them.

A few threads fetch shards into the cache (`har.shards.storage.cache`) in the order in which the plan needs
them; the first batch waits for its own shards only. What the plan needs soonest is held open, as
much as fits in this loader's part of the cache, so that nobody evicts it; the rest may go.

Odd:
- Readers never fetch. They put what they lack at the head of the queue and wait, saying that they
  live, so that the loader takes nobody for stuck while bytes arrive; a transfer without bytes ends
  by itself (`remote.SILENCE`).
- Looking further ahead than `_AHEAD` clips would cost more time a step than it saves.
- A reader that waits for room makes its own loader let go of all that it does not read just now;
  otherwise two loaders could each hold what the other waits for.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..format.shard_set import Manifest
from .cache import SIZE, Cache, NoRoomError
from .remote import Remote, RemoteError, StoppedError

THREADS = 4  # transfers at once: one stream of an object store gives 50-100 MB/s
PATIENCE = 60.0  # seconds that a reader waits for others to let go of room
_AHEAD = 16_384  # clips


@dataclass
class _Held:
    """An open shard, and how many read it now."""

    descriptor: int
    readers: int = 0


class ShardPrefetcher:
    """Descriptors of the shards of one remote set, fetched ahead; for any number of threads.

    Raises RemoteError: the store's, or the cache's.
    """

    def __init__(self, manifest: Manifest, remote: Remote, cache: Cache | None = None) -> None:
        self._shards, self._remote = manifest.shards, remote
        self._cache = cache or Cache()
        self._cache.check(max(self._shards, key=lambda shard: shard.bytes))
        self._cache.trim()
        self._sizes = np.array([shard.bytes for shard in self._shards], np.int64)
        self._place = self._cache.place()
        self._changed = threading.Condition()
        self._held: dict[int, _Held] = {}
        self._busy: set[int] = set()
        self._asked: dict[int, float] = {}  # shard that a reader waits for -> since
        self._failed: dict[int, BaseException] = {}
        self._share = self._cache.most
        self._wanted: dict[int, None] = {}  # soonest first, together no more than our share
        self._later = np.empty(0, np.int64)  # shard of each clip to come
        self._at = 0
        self._looked = 0.0
        self._full = False  # no room at the last try; until something changes
        self._closed = False
        self._threads: list[threading.Thread] = []

    def copy_of(self, shard: int) -> Path:
        """Where the cache has the shard."""
        return self._cache.path(self._shards[shard])

    def follow(self, shards: np.ndarray) -> None:
        """From now on clips of these shards are read, in this order."""
        self._share, self._looked = self._cache.most // self._cache.users(), time.monotonic()
        with self._changed:
            self._later, self._at = shards, 0
            self._failed.clear()
            self._choose()

    def at(self, clip: int) -> None:
        """The clips before `clip` of what `follow` was told are read."""
        if clip == self._at:
            return
        with self._changed:
            self._at = clip
            self._look_around()
            if self._full or self._sizes.sum() > self._share:  # else all is wanted, as before
                self._choose()

    @contextlib.contextmanager
    def use(self, shard: int, beat: Callable[[], None] = lambda: None) -> Iterator[int]:
        """A descriptor of the whole shard. beat: called twice a second while waiting."""
        with self._changed:
            held = self._held.get(shard) or self._here(shard) or self._await(shard, beat)
            held.readers += 1
        try:
            yield held.descriptor
        finally:
            with self._changed:
                held.readers -= 1
                if not held.readers and shard not in self._wanted:
                    self._let_go(shard)

    def close(self) -> None:
        """End the threads, let go of all shards; what is in the cache stays there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(2.0)
        with self._changed:
            for shard in [shard for shard, held in self._held.items() if not held.readers]:
                self._let_go(shard)
        if self._place >= 0:
            os.close(self._place)
            self._place = -1

    def _here(self, shard: int) -> _Held | None:
        """A shard that is in the cache already."""
        descriptor = self._cache.here(self._shards[shard])
        if descriptor is None:
            return None
        return self._held.setdefault(shard, _Held(descriptor))

    def _await(self, shard: int, beat: Callable[[], None]) -> _Held:
        """Ask for the shard and wait. Called with the lock, gives it up while waiting."""
        self._start()
        try:
            while shard not in self._held:
                if self._closed:
                    raise RemoteError(f"{self._remote} is read after its loader was closed.")
                self._asked.setdefault(shard, time.monotonic())
                self._changed.notify_all()
                self._changed.wait(0.5)
                beat()
                if shard in self._failed and shard not in self._held:
                    raise self._failed[shard]  # to all that ask, until `follow`
        finally:
            self._asked.pop(shard, None)
        return self._held[shard]

    def _choose(self) -> None:
        """What to hold and to fetch now, and what to let go."""
        everything = self._sizes.sum() <= self._share
        ahead = self._later[self._at :][: None if everything else _AHEAD]
        shards, first = np.unique(ahead, return_index=True)
        soonest = shards[np.argsort(first)]
        fits = np.cumsum(self._sizes[soonest]) <= self._share
        self._wanted = dict.fromkeys(soonest[fits].tolist())
        for shard in set(self._held) - set(self._wanted) - set(self._asked):
            if not self._held[shard].readers:
                self._let_go(shard)
        self._full = False
        self._start()
        self._changed.notify_all()

    def _look_around(self) -> None:
        """Once a second: our part of the cache is less when others came, even if we stand still."""
        now = time.monotonic()
        if now - self._looked < 1 or self._closed:
            return
        self._looked, share = now, self._cache.most // self._cache.users()
        if share != self._share:
            self._share = share
            self._choose()

    def _let_go(self, shard: int) -> None:
        os.close(self._held.pop(shard).descriptor)

    def _start(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._work, name=f"har-fetch-{n}", daemon=True)
                for n in range(THREADS)
            ]
            for thread in self._threads:
                thread.start()

    def _work(self) -> None:
        """A thread: fetch what is asked for, then what is wanted soonest."""
        while True:
            with self._changed:
                while (shard := self._next()) is None and not self._closed:
                    self._changed.wait(1.0)
                    self._look_around()
                if self._closed or shard is None:
                    return
                self._busy.add(shard)
            try:
                self._bring(shard)
            except StoppedError:
                return
            except NoRoomError:
                self._without_room(shard)
            except BaseException as error:  # it is raised again where somebody asks for the shard
                with self._changed:
                    self._failed[shard] = error
            finally:
                with self._changed:
                    self._busy.discard(shard)
                    self._changed.notify_all()

    def _next(self) -> int | None:
        """What to fetch; nothing ahead of time while the cache is full."""
        for shard in self._asked if self._full else [*self._asked, *self._wanted]:
            if shard not in self._held and shard not in self._busy and shard not in self._failed:
                return shard
        return None

    def _bring(self, shard: int) -> None:
        def beat() -> None:
            if self._closed:
                raise StoppedError

        descriptor = self._cache.get(self._remote, self._shards[shard], beat=beat)
        with self._changed:
            if shard in self._held or self._closed:
                os.close(descriptor)
            else:
                self._held[shard] = _Held(descriptor)

    def _without_room(self, shard: int) -> None:
        """Ahead of time: wait until something changes. Asked for: let go, and try again."""
        with self._changed:
            self._full, self._share = True, self._cache.most // self._cache.users()
            since = self._asked.get(shard)
            if since is None:
                return
            for one in [one for one, held in self._held.items() if not held.readers]:
                if one not in self._asked:
                    self._let_go(one)
            if time.monotonic() - since > PATIENCE:
                self._failed[shard] = RemoteError(
                    f"the cache {self._cache.at} of {self._cache.most:,} bytes is full of shards "
                    f"that others read, for {PATIENCE:g} s: set {SIZE} to more."
                )
        time.sleep(0.05)

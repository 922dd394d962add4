"""The plan: which samples make the batch at (seed, epoch, step). A pure function, no state.

A train epoch is one permutation of the split (for sets larger than memory a windowed one, see
`BatchSampler`); an evaluation goes through it in order. The last
batch is filled up with samples from the start of the same order, marked as not `valid`: shapes
never change (no recompilation, no odd batch for the batch norm), every rank gets the same number
of batches, and each clip still counts exactly once.

Worker, rank and shard counts do not enter: a rank takes its rows of the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...errors import HarError
from ..format.shard_set import Manifest


class BatchSamplerError(HarError):
    """A batch size that does not fit the ranks, a step outside the epoch, another shard set than
    before; one sentence."""


@dataclass(frozen=True)
class BatchIndices:
    """One rank's part of one global batch. ids: int64 [b]; valid: bool [b], False = fill-up.

    counted: clips of the whole global batch that count, the number to divide a summed loss by.
    views: int64 [b], which view of its clip a row is; only the valid rows of view 0 are counted.
    """

    ids: np.ndarray
    valid: np.ndarray
    counted: int
    views: np.ndarray


@dataclass(frozen=True)
class BatchSampler:
    """The batches of one side of a split. ids: its sample ids, int64 [N].

    window: 0 for a true permutation; else clips are read nearly in stored order, at most about
    `window` clips of them open at a time, so that a disk or a small cache is read once and in long
    runs: the split is cut into runs of window/8 neighbours, the runs are shuffled, then the clips
    within each `window` of them. `quality` says what that costs.

    views: in an evaluation, each clip comes so many times in a row, view 0 to `views` - 1 (the
    loader gives view k of K the frames of phase k/K), and is counted once.
    """

    ids: np.ndarray
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    rank: int = 0
    ranks: int = 1
    window: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        if len(self.ids) == 0:
            raise BatchSamplerError("there is no clip to make batches of: choose another split.")
        if self.batch_size < 1 or self.batch_size % self.ranks:
            raise BatchSamplerError(
                f"batch size {self.batch_size} does not divide among {self.ranks} ranks: "
                "give a positive multiple of the number of ranks."
            )
        if self.window < 0:
            raise BatchSamplerError(
                f"a shuffle window of {self.window} clips is none: give 0 or more."
            )
        if self.views < 1 or (self.views > 1 and self.shuffle):
            raise BatchSamplerError(
                f"{self.views} views a clip: give 1 or, without shuffling, more."
            )

    @property
    def steps(self) -> int:
        """Batches an epoch, the same on every rank."""
        return -(-len(self.ids) * self.views // self.batch_size)

    def rows(self, epoch: int, step: int) -> BatchIndices:
        """This rank's rows of the global batch at (epoch, step)."""
        if not 0 <= step < self.steps:
            raise BatchSamplerError(f"step {step} is outside the epoch's {self.steps} steps.")
        total = len(self.ids) * self.views
        at = step * self.batch_size + np.arange(self.batch_size)
        mine, order = at[self._share], self._order(epoch)
        ids = self.ids[order[mine % total // self.views]]
        counted = int(np.count_nonzero((at < total) & (at % self.views == 0)))
        return BatchIndices(ids, mine < total, counted, mine % total % self.views)

    def sequence(self, epoch: int, start: int = 0) -> np.ndarray:
        """Ids of all rows of this rank from step `start` of the epoch on, in order: int64."""
        at = np.arange(start * self.batch_size, self.steps * self.batch_size)
        at = at.reshape(-1, self.batch_size)[:, self._share].ravel()
        total = len(self.ids) * self.views
        return self.ids[self._order(epoch)[at % total // self.views]]

    @property
    def _share(self) -> slice:
        """This rank's rows of a global batch."""
        share = self.batch_size // self.ranks
        return slice(self.rank * share, (self.rank + 1) * share)

    def quality(self, epoch: int = 0) -> float:
        """How well the epoch is shuffled: the mean distance in it between clips that are neighbours
        in `ids`, over the (N + 1) / 3 that a true permutation has. 1 = true, near 0 = as stored."""
        total = len(self.ids)
        if total < 2:
            return 1.0
        place = np.empty(total, np.int64)
        place[self._order(epoch)] = np.arange(total)
        return float(np.abs(np.diff(place)).mean() / ((total + 1) / 3))

    def _order(self, epoch: int) -> np.ndarray:
        """The order of an epoch: places in `ids`, int64 [N]."""
        total = len(self.ids)
        if not self.shuffle:
            return np.arange(total)
        return _shuffled(total, self.seed, epoch, self.window if self.window < total else 0)


def check_resume(digest: str, manifest: Manifest) -> None:
    """Refuse to go on with a run on a shard set that is not the one it began with.

    digest: the manifest's digest as the run's checkpoint has it. Raises BatchSamplerError.
    """
    if digest != manifest.digest:
        raise BatchSamplerError(
            f"the shard set at {manifest.root} has changed since the run began (manifest "
            f"{manifest.digest[:12]}, was {digest[:12]}): restore it or start a new run."
        )


@lru_cache(maxsize=4)
def _shuffled(total: int, seed: int, epoch: int, window: int) -> np.ndarray:
    """The permutation of an epoch, int64 [total]; true, or with `window` a windowed one."""
    random = np.random.default_rng([seed, epoch])
    if window == 0:
        order = random.permutation(total)
    else:
        runs = np.split(np.arange(total), np.arange(0, total, max(1, window // 8))[1:])
        order = np.concatenate([runs[number] for number in random.permutation(len(runs))])
        for start in range(0, total, window):
            random.shuffle(order[start : start + window])
    order.setflags(write=False)
    return order

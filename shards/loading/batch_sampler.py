"""Which clips make the batch at (seed, epoch, step): a pure function, no state.

A train epoch is one permutation of the subset; an evaluation goes through it in order. The last
batch is padded with clips from the start of the same order, marked as not `valid`: shapes never
change, every rank gets the same number of batches, and each clip counts once. Workers and shards do
not enter, and a rank takes its rows of the global batch.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...errors import HarError
from ..format import Manifest


class BatchSamplerError(HarError):
    """An option that does not fit, a step outside the epoch, another shard set than before."""


@dataclass(frozen=True)
class BatchIndices:
    """One rank's rows of one global batch.

    indices: int64 [b], rows of the manifest's index. valid: bool [b], False for padding.
    num_valid: clips of the whole global batch that count, the divisor of a summed loss.
    views: int64 [b], which view of its clip a row is; `num_valid` counts valid rows of view 0.
    """

    indices: np.ndarray
    valid: np.ndarray
    num_valid: int
    views: np.ndarray


@dataclass(frozen=True)
class BatchSampler:
    """The batches of one subset of a split. indices: its rows of the manifest's index, int64 [N].

    block_size: 0 for a true permutation. Else clips are read nearly in stored order, from about
    `block_size` clips at a time, so that a disk or a small cache is read once and in long runs: the
    subset is cut into runs of block_size/8 neighbours, the runs are shuffled, then the clips within
    each block. `shuffle_quality` measures what that costs.

    views: each clip comes so many times in a row, as view 0 to `views` - 1 (their frames:
    `temporal_sampling.view_frames`), and is counted once. With `shuffle` (pretraining) each view
    has an augmentation of its own, and all views of a clip are on one rank.
    """

    indices: np.ndarray
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    rank: int = 0
    world_size: int = 1
    block_size: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        if len(self.indices) == 0:
            raise BatchSamplerError("there is no clip to make batches of: choose another split.")
        clip_rows = self.views if self.shuffle else 1  # that stay together
        if self.views < 1:
            raise BatchSamplerError(f"{self.views} views a clip: give 1 or more.")
        if self.batch_size < 1 or self.batch_size % (self.world_size * clip_rows):
            rows = f" ({self.batch_size} rows, {clip_rows} of each clip)" if clip_rows > 1 else ""
            raise BatchSamplerError(
                f"batch size {self.batch_size // clip_rows}{rows} does not divide among "
                f"{self.world_size} ranks: give a positive multiple of the number of ranks."
            )
        if self.block_size < 0:
            raise BatchSamplerError(f"a shuffle block of {self.block_size} clips: give 0 or more.")

    @property
    def num_batches(self) -> int:
        """Batches an epoch, the same on every rank."""
        return -(-self._num_rows // self.batch_size)

    @property
    def rank_batch_size(self) -> int:
        """This rank's rows of a global batch."""
        return self.batch_size // self.world_size

    def batch(self, epoch: int, step: int) -> BatchIndices:
        """This rank's rows of the global batch at (epoch, step), in new arrays."""
        if not 0 <= step < self.num_batches:
            raise BatchSamplerError(f"step {step} is outside the epoch's {self.num_batches} steps.")
        rows = step * self.batch_size + np.arange(self.batch_size)  # of the epoch, padding included
        num_valid = int(np.count_nonzero((rows < self._num_rows) & (rows % self.views == 0)))
        rows = rows[self._rank_rows]
        clips, views = np.divmod(rows % self._num_rows, self.views)
        indices = self.indices[self._order(epoch)[clips]]
        return BatchIndices(indices, rows < self._num_rows, num_valid, views)

    def epoch_indices(self, epoch: int, start: int = 0) -> np.ndarray:
        """Indices of all rows of this rank from step `start` of the epoch on, in order: int64."""
        rows = np.arange(start * self.batch_size, self.num_batches * self.batch_size)
        rows = rows.reshape(-1, self.batch_size)[:, self._rank_rows].ravel()
        return self.indices[self._order(epoch)[rows % self._num_rows // self.views]]

    def shuffle_quality(self, epoch: int = 0) -> float:
        """How well the epoch is shuffled: the mean distance in it between clips that are neighbours
        in `indices`, over the (N + 1) / 3 of a true permutation. 1 = true, near 0 = as stored."""
        total = len(self.indices)
        if total < 2:
            return 1.0
        position = np.empty(total, np.int64)
        position[self._order(epoch)] = np.arange(total)
        return float(np.abs(np.diff(position)).mean() / ((total + 1) / 3))

    @property
    def _num_rows(self) -> int:
        return len(self.indices) * self.views

    @property
    def _rank_rows(self) -> slice:
        return slice(self.rank * self.rank_batch_size, (self.rank + 1) * self.rank_batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        """The order of an epoch: positions in `indices`, int64 [N]."""
        total = len(self.indices)
        if not self.shuffle:
            return np.arange(total)
        block_size = self.block_size if self.block_size < total else 0
        return _permutation(total, self.seed, epoch, block_size)


def check_resume(digest: str, manifest: Manifest) -> None:
    """Raise BatchSamplerError if a checkpoint's manifest `digest` is not that of this set.

    A set that was only compacted since has the same clips in the same order.
    """
    edit = manifest.changes_since(digest)
    if digest != manifest.digest and (edit is None or edit.command != "compact"):
        raise BatchSamplerError(
            f"the shard set at {manifest.root} has changed since the run began "
            f"({manifest.describe_changes_since(digest)}): give the run's own with "
            "--shards, restore it or start a new run."
        )


@lru_cache(maxsize=4)
def _permutation(total: int, seed: int, epoch: int, block_size: int) -> np.ndarray:
    """The permutation of an epoch, int64 [total]; true, or with `block_size` a blockwise one."""
    random = np.random.default_rng([seed, epoch])
    if block_size == 0:
        order = random.permutation(total)
    else:
        runs = np.split(np.arange(total), np.arange(0, total, max(1, block_size // 8))[1:])
        order = np.concatenate([runs[number] for number in random.permutation(len(runs))])
        for start in range(0, total, block_size):
            random.shuffle(order[start : start + block_size])
    order.setflags(write=False)
    return order

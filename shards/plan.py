"""The plan: which samples make the batch at (seed, epoch, step). A pure function, no state.

A train epoch is one permutation of the split; an evaluation goes through it in order. The last
batch is filled up with samples from the start of the same order, marked as not `valid`: shapes
never change (no recompilation, no odd batch for the batch norm), every rank gets the same number
of batches, and each clip still counts exactly once.

Worker, rank and shard counts do not enter: a rank takes its rows of the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.manifest import Manifest


class PlanError(ValueError):
    """A batch size that does not fit the ranks, a step outside the epoch, another shard set than
    before; one sentence."""


@dataclass(frozen=True)
class Rows:
    """One rank's part of one global batch. ids: int64 [b]; valid: bool [b], False = fill-up.

    counted: valid rows of the whole global batch, the number to divide a summed loss by.
    """

    ids: np.ndarray
    valid: np.ndarray
    counted: int


@dataclass(frozen=True)
class Plan:
    """The batches of one side of a split. ids: its sample ids, int64 [N]."""

    ids: np.ndarray
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if len(self.ids) == 0:
            raise PlanError("there is no clip to make batches of: choose another split.")
        if self.batch_size < 1 or self.batch_size % self.ranks:
            raise PlanError(
                f"batch size {self.batch_size} does not divide among {self.ranks} ranks: "
                "give a positive multiple of the number of ranks."
            )

    @property
    def steps(self) -> int:
        """Batches an epoch, the same on every rank."""
        return -(-len(self.ids) // self.batch_size)

    def rows(self, epoch: int, step: int) -> Rows:
        """This rank's rows of the global batch at (epoch, step)."""
        if not 0 <= step < self.steps:
            raise PlanError(f"step {step} is outside the epoch's {self.steps} steps.")
        total = len(self.ids)
        at = step * self.batch_size + np.arange(self.batch_size)
        share = self.batch_size // self.ranks
        mine = slice(self.rank * share, (self.rank + 1) * share)
        order = _order(total, self.seed, epoch) if self.shuffle else np.arange(total)
        counted = min(self.batch_size, total - step * self.batch_size)
        return Rows(self.ids[order[at[mine] % total]], at[mine] < total, counted)


def check_resume(digest: str, manifest: Manifest) -> None:
    """Refuse to go on with a run on a shard set that is not the one it began with.

    digest: the manifest's digest as the run's checkpoint has it. Raises PlanError.
    """
    if digest != manifest.digest:
        raise PlanError(
            f"the shard set at {manifest.root} has changed since the run began (manifest "
            f"{manifest.digest[:12]}, was {digest[:12]}): restore it or start a new run."
        )


@lru_cache(maxsize=4)
def _order(total: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch, int64 [total]."""
    order = np.random.default_rng([seed, epoch]).permutation(total)
    order.setflags(write=False)
    return order

"""What an edit means for splits, which are computed from the clips that are there."""

from __future__ import annotations

import numpy as np

from .. import splits
from ..format import Manifest

_TRAIN, _VAL, _TEST = 1, 2, 3


def count_moved_clips(before: Manifest, after: Manifest) -> dict[str, tuple[int, int]]:
    """Split scheme -> (clips in both sets that change their subset, those that go from test to
    train).

    Only of schemes that both sets can give; "paper" with seed 0.
    """
    _, rows_before, rows_after = np.intersect1d(
        before.index["key"], after.index["key"], assume_unique=True, return_indices=True
    )
    moved = {}
    for name in splits.SPLIT_SCHEMES:
        try:
            old, new = (_subsets(manifest, name) for manifest in (before, after))
        except splits.SplitError:
            continue
        old, new = old[rows_before], new[rows_after]
        left_test = (old == _TEST) & (new == _TRAIN)
        moved[name] = (int((old != new).sum()), int(left_test.sum()))
    return moved


def _subsets(manifest: Manifest, name: str) -> np.ndarray:
    """uint8 [N], the subset of each clip by the scheme `name`, 0 = none."""
    split = splits.make_split(manifest, name)
    subsets = np.zeros(len(manifest.index), np.uint8)
    for number, indices in ((_TRAIN, split.train), (_VAL, split.val), (_TEST, split.test)):
        subsets[indices] = number
    return subsets

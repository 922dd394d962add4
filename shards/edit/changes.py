"""What an edit means for splits, which are computed from the clips that are there."""

from .. import splits
from ..format import SUBSETS, Manifest


def count_moved_clips(before: Manifest, after: Manifest) -> dict[str, tuple[int, int]]:
    """Split scheme -> (clips in both sets that change their subset, those that go from test to
    train).

    Only of schemes that both sets can give; "paper" with seed 0.
    """
    in_both, moved = set(before.keys()) & set(after.keys()), {}
    for name in splits.SPLIT_SCHEMES:
        try:
            old, new = (_subset_of_keys(manifest, name) for manifest in (before, after))
        except splits.SplitError:
            continue
        pairs = [(old.get(key), new.get(key)) for key in in_both]
        moved[name] = (sum(a != b for a, b in pairs), pairs.count(("test", "train")))
    return moved


def _subset_of_keys(manifest: Manifest, name: str) -> dict[str, str]:
    split = splits.make_split(manifest, name)
    return {key: s for s in SUBSETS[1:] for key in manifest.keys(split.subset(s))}

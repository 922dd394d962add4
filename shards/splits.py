"""Splits: from a manifest, by scheme, to the samples of train, val and test.

grouped     class by class, its groups in order: 64/16/20 of them (UCF101: g01-16/g17-20/g21-25).
official-i  UCF101's own lists, which are whole group numbers: test = g01-07, g08-14 or g15-21;
            val = g22-25, which no list tests, taken out of train.
paper       random 64/16/20 of the videos by seed (paper, section 3), which puts clips cut from one
            long video into train and test: see `Split.leak`.
csv         the `split` column of the CSV that the set was built from.

A split works on videos: all views of a video go to one subset. It is computed from sorted keys, so
the same videos give the same split whatever the shards look like.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from ..errors import HarError
from .format import NO_GROUP, SUBSETS, Manifest

SPLIT_SCHEMES = ("grouped", "official-1", "official-2", "official-3", "paper", "csv")
_TRAIN, _VAL, _TEST = 1, 2, 3  # as in SUBSETS
_OFFICIAL_TEST = {
    "official-1": range(1, 8), "official-2": range(8, 15), "official-3": range(15, 22)
}  # fmt: skip
_OFFICIAL_VAL = range(22, 26)


class SplitError(HarError):
    """A split that this shard set cannot give; the text is one sentence with the way out."""


@dataclass(frozen=True)
class Split:
    """Sample indices (int64, in key order) of the three subsets.

    name: the scheme. digest: of scheme and keys, the same wherever the same videos are split alike.
    leak: share of test clips that have a group mate in train; None where the set has no groups.
    """

    name: str
    seed: int
    digest: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    leak: float | None

    def subset(self, name: str) -> np.ndarray:
        """Sample indices of "train", "val" or "test"."""
        if name not in SUBSETS[1:]:
            raise SplitError(f"unknown subset {name!r}: choose one of {', '.join(SUBSETS[1:])}.")
        indices: np.ndarray = getattr(self, name)
        return indices

    def describe(self) -> dict[str, object]:
        """What a checkpoint or report keeps of a split."""
        return {"name": self.name, "seed": self.seed, "digest": self.digest, "leak": self.leak}


def make_split(manifest: Manifest, name: str, seed: int = 0) -> Split:
    """-> the split `name` (one of SPLIT_SCHEMES) of the set; `seed` matters to "paper" only.

    Raises SplitError for an unknown name, and where the set lacks what the rule needs.
    """
    if name not in SPLIT_SCHEMES:
        raise SplitError(f"unknown split {name!r}: choose one of {', '.join(SPLIT_SCHEMES)}.")
    subsets = _subsets(manifest, name, seed)
    order = np.argsort(manifest.index["key"], kind="stable")
    train, val, test = (order[subsets[order] == subset] for subset in (_TRAIN, _VAL, _TEST))
    if len(train) == 0:
        raise SplitError(
            f"split {name!r} leaves no train clip of the {len(order)} in {manifest.root}: "
            f"choose another of {', '.join(SPLIT_SCHEMES)} or build a larger set."
        )
    digest = hashlib.sha256(name.encode())
    for indices in (train, val, test):
        digest.update(b"\n\n" + b"\n".join(manifest.index["key"][indices].tolist()))
    leak = compute_leak(manifest, train, test)
    seed = seed if name == "paper" else 0
    return Split(name, seed, digest.hexdigest()[:16], train, val, test, leak)


def compute_leak(manifest: Manifest, train: np.ndarray, test: np.ndarray) -> float | None:
    """Share of the clips `test` with a clip of the same group in `train`; None without groups."""
    if manifest.grouping is None or len(test) == 0:
        return None
    groups = manifest.index["group"]
    has_mate = np.isin(groups[test], groups[train]) & (groups[test] != NO_GROUP)
    return float(has_mate.mean())


def _subsets(manifest: Manifest, name: str, seed: int) -> np.ndarray:
    """-> uint8 [N], the subset of every sample, 0 = in none."""
    if name == "paper":
        return _paper_subsets(manifest, seed)
    if name == "csv":
        if not manifest.index["side"].any():
            raise SplitError(
                f"split 'csv' needs a split column and {manifest.root} was built without one: use "
                f"'--split grouped', or build from a CSV with a column split ({SUBSETS[1:]})."
            )
        return manifest.index["side"]
    if manifest.grouping is None:
        raise SplitError(
            f"split {name!r} needs groups and {manifest.root} has none: use '--split paper', or "
            "build with '--group-regex' or a CSV with a group column."
        )
    is_grouped = name == "grouped"
    subsets = _grouped_subsets(manifest) if is_grouped else _official_subsets(manifest, name)
    return np.append(subsets, np.uint8(_TRAIN))[manifest.index["group"]]  # group -1 trains


def _paper_subsets(manifest: Manifest, seed: int) -> np.ndarray:
    """20 % of the videos test; 20 % of the rest val (paper, section 3: 8:2, then 8:2)."""
    videos, first_sample, video_of_sample = np.unique(
        manifest.index["video"], return_index=True, return_inverse=True
    )
    by_key = np.argsort(manifest.index["key"][first_sample], kind="stable")
    shuffled = np.random.default_rng(seed).permutation(by_key)
    num_test = round(0.2 * len(shuffled))
    num_val = round(0.2 * (len(shuffled) - num_test))
    subsets = np.full(len(videos), _TRAIN, np.uint8)
    subsets[shuffled[:num_test]] = _TEST
    subsets[shuffled[num_test : num_test + num_val]] = _VAL
    return subsets[video_of_sample]


def _grouped_subsets(manifest: Manifest) -> np.ndarray:
    """-> the subset of every group; of one that spans classes, as its first class decides."""
    subsets = np.zeros(len(manifest.groups), np.uint8)
    labels, groups = manifest.index["label"], manifest.index["group"]
    for label in range(len(manifest.classes)):
        in_class = [g for g in np.unique(groups[labels == label]).tolist() if g != NO_GROUP]
        in_class.sort(key=lambda group: _natural(manifest.groups[group]))
        left = _quota(len(in_class))
        for subset in left:
            left[subset] -= int((subsets[in_class] == subset).sum())
        for group in in_class:
            if subsets[group] == 0:
                subsets[group] = next((s for s in left if left[s] > 0), _TRAIN)
                left[subsets[group]] -= 1
    return subsets


def _quota(num_groups: int) -> dict[int, int]:
    """How many of a class's groups go to each subset: 64/16/20, at least one each from three on."""
    if num_groups < 3:
        return {_TRAIN: min(num_groups, 1), _VAL: 0, _TEST: max(num_groups - 1, 0)}
    test, val = max(1, round(0.2 * num_groups)), max(1, round(0.16 * num_groups))
    return {_TRAIN: num_groups - test - val, _VAL: val, _TEST: test}


def _official_subsets(manifest: Manifest, name: str) -> np.ndarray:
    """-> the subset of every group; `name` is official-1, -2 or -3."""
    if manifest.grouping != "ucf101":
        raise SplitError(
            f"split {name!r} is UCF101's and the groups of {manifest.root} are not "
            "UCF101's (v_Class_g01_c01): use '--split grouped'."
        )
    numbers = [int(group.rsplit("/g", 1)[1]) for group in manifest.groups]
    subset_of = dict.fromkeys(_OFFICIAL_VAL, _VAL) | dict.fromkeys(_OFFICIAL_TEST[name], _TEST)
    return np.array([subset_of.get(number, _TRAIN) for number in numbers], np.uint8)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which g9 comes before g10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

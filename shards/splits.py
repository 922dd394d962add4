"""Splits: from a manifest, by rule, to the samples of train, val and test. Nothing is baked in.

grouped     class by class, its groups in order: 64/16/20 of them (UCF101: g01-16/g17-20/g21-25).
official-i  UCF101's own lists, which are whole group numbers: test = g01-07, g08-14 or g15-21;
            val = g22-25, which no list tests, taken out of train.
paper       random 64/16/20 of the videos by seed (paper, section 3), which puts clips cut from one
            long video on both sides: see `Split.leak`.
csv         the `split` column of the CSV that the set was built from.

A split works on videos: all views of a video go to one side. It is computed from sorted keys, so
the same videos give the same split whatever the shards look like.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import HarError
from .format.shard_set import NO_GROUP, SIDES, Manifest

NAMES = ("grouped", "official-1", "official-2", "official-3", "paper", "csv")
_TRAIN, _VAL, _TEST = 1, 2, 3  # as in manifest.SIDES
_OFFICIAL_TEST = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}
_OFFICIAL_VAL = range(22, 26)


class SplitError(HarError):
    """A split that this shard set cannot give; the text is one sentence with the way out."""


@dataclass(frozen=True)
class Split:
    """Sample ids (int64, in key order) of the three sides.

    digest: of rule and keys, the same wherever the same videos are split alike. leak: share of
    test clips that have a group mate in train; None where the set has no groups.
    """

    name: str
    seed: int
    digest: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    leak: float | None

    def side(self, name: str) -> np.ndarray:
        """Sample ids of "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def describe(self) -> dict[str, object]:
        """What a checkpoint or report keeps of a split."""
        return {"name": self.name, "seed": self.seed, "digest": self.digest, "leak": self.leak}


def make(manifest: Manifest, name: str, seed: int = 0) -> Split:
    """-> the split `name` (one of NAMES) of the set; `seed` matters to "paper" only.

    Raises SplitError for an unknown name, and where the set lacks what the rule needs.
    """
    if name not in NAMES:
        raise SplitError(f"unknown split {name!r}: choose one of {', '.join(NAMES)}.")
    sides = _sides(manifest, name, seed)
    order = np.argsort(manifest.index["key"], kind="stable")
    train, val, test = (order[sides[order] == side] for side in (_TRAIN, _VAL, _TEST))
    if len(train) == 0:
        raise SplitError(
            f"split {name!r} leaves no train clip of the {len(order)} in {manifest.root}: "
            f"choose another of {', '.join(NAMES)} or build a larger set."
        )
    digest = _digest(manifest, name, (train, val, test))
    kept_seed = seed if name == "paper" else 0
    return Split(name, kept_seed, digest, train, val, test, leak(manifest, train, test))


def leak(manifest: Manifest, train: np.ndarray, test: np.ndarray) -> float | None:
    """Share of the clips `test` with a clip of the same group in `train`; None without groups."""
    if manifest.grouping is None or len(test) == 0:
        return None
    groups = manifest.index["group"]
    mates = np.isin(groups[test], groups[train]) & (groups[test] != NO_GROUP)
    return float(mates.mean())


def _sides(manifest: Manifest, name: str, seed: int) -> np.ndarray:
    """-> uint8 [N], the side of every sample, 0 = on none."""
    if name == "csv":
        return _csv_sides(manifest)
    if name == "paper":
        return _paper_sides(manifest, seed)
    if manifest.grouping is None:
        raise SplitError(
            f"split {name!r} needs groups and {manifest.root} has none: use '--split paper', or "
            "build with '--group-regex' or a CSV with a group column."
        )
    if name == "grouped":
        sides = _grouped_sides(manifest)
    else:
        sides = _official_sides(manifest, int(name[-1]))
    return np.append(sides, np.uint8(_TRAIN))[manifest.index["group"]]  # group -1 trains


def _csv_sides(manifest: Manifest) -> np.ndarray:
    sides = manifest.index["side"]
    if not sides.any():
        raise SplitError(
            f"split 'csv' needs a split column and {manifest.root} was built without one: "
            f"use '--split grouped', or build from a CSV with a column split ({SIDES[1:]})."
        )
    return sides


def _paper_sides(manifest: Manifest, seed: int) -> np.ndarray:
    """20 % of the videos test; 20 % of the rest val (paper, section 3: 8:2, then 8:2)."""
    videos, first, of_sample = np.unique(
        manifest.index["video"], return_index=True, return_inverse=True
    )
    by_key = np.argsort(manifest.index["key"][first], kind="stable")
    shuffled = np.random.default_rng(seed).permutation(by_key)
    tests = round(0.2 * len(shuffled))
    vals = round(0.2 * (len(shuffled) - tests))
    sides = np.full(len(videos), _TRAIN, np.uint8)
    sides[shuffled[:tests]] = _TEST
    sides[shuffled[tests : tests + vals]] = _VAL
    return sides[of_sample]


def _grouped_sides(manifest: Manifest) -> np.ndarray:
    """-> the side of every group. A group that spans classes keeps what its first class gave it."""
    sides = np.zeros(len(manifest.groups), np.uint8)
    labels, groups = manifest.index["label"], manifest.index["group"]
    for label in range(len(manifest.classes)):
        here = [g for g in np.unique(groups[labels == label]).tolist() if g != NO_GROUP]
        here.sort(key=lambda group: _natural(manifest.groups[group]))
        quota = _quota(len(here))
        for side in (_TRAIN, _VAL, _TEST):
            quota[side] -= sum(1 for group in here if sides[group] == side)
        for group in here:
            if sides[group] == 0:
                side = next((s for s in (_TRAIN, _VAL, _TEST) if quota[s] > 0), _TRAIN)
                sides[group] = side
                quota[side] -= 1
    return sides


def _quota(groups: int) -> dict[int, int]:
    """How many of a class's groups go to each side: 64/16/20, at least one each from three on."""
    if groups < 3:
        return {_TRAIN: min(groups, 1), _VAL: 0, _TEST: max(groups - 1, 0)}
    test, val = max(1, round(0.2 * groups)), max(1, round(0.16 * groups))
    return {_TRAIN: groups - test - val, _VAL: val, _TEST: test}


def _official_sides(manifest: Manifest, which: int) -> np.ndarray:
    if manifest.grouping != "ucf101":
        raise SplitError(
            f"split 'official-{which}' is UCF101's and the groups of {manifest.root} are not "
            "UCF101's (v_Class_g01_c01): use '--split grouped'."
        )
    numbers = [int(name.rsplit("/g", 1)[1]) for name in manifest.groups]
    side = dict.fromkeys(_OFFICIAL_TEST[which], _TEST) | dict.fromkeys(_OFFICIAL_VAL, _VAL)
    return np.array([side.get(number, _TRAIN) for number in numbers], np.uint8)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which g9 comes before g10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _digest(manifest: Manifest, name: str, sides: Iterable[np.ndarray]) -> str:
    state = hashlib.sha256(name.encode())
    for ids in sides:
        state.update(b"\n\n" + b"\n".join(manifest.index["key"][ids].tolist()))
    return state.hexdigest()[:16]

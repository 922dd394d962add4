"""Splits: from a manifest, by scheme, to the samples of train, val and test.

grouped     class by class, its groups in order: 64/16/20 of them (UCF101: g01-16/g17-20/g21-25);
            where a group spans classes, groups dealt out so that each class comes near 64/16/20.
official-i  UCF101's own lists, which are whole group numbers: test = g01-07, g08-14 or g15-21;
            val = g22-25, which no list tests, taken out of train.
paper       random 64/16/20 of the videos by seed (paper, section 3), which puts clips cut from one
            long video into train and test: see `Split.leak`.
csv         the `split` column of the CSV that the set was built from.
fold-I/K    test = the I-th of K parts of all groups, val = a fifth of the other groups, each class
            in even shares as far as whole groups allow (`group_balance`); groups in order by seed.

A split works on videos: all views of a video go to one subset. It is computed from sorted keys, so
the same videos give the same split whatever the shards look like.
"""

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from ..errors import HarError
from .format import NO_GROUP, SUBSETS, Manifest
from .group_balance import balance_groups, choose_part

SPLIT_SCHEMES = ("grouped", "official-1", "official-2", "official-3", "paper", "csv")
FOLD_NAME = re.compile(r"fold-([1-9][0-9]*)/([1-9][0-9]*)")
ALL_SCHEMES = f"{', '.join(SPLIT_SCHEMES)} or fold-I/K (e.g. fold-1/5)"
_TRAIN, _VAL, _TEST = 1, 2, 3  # as in SUBSETS
_OFFICIAL_TEST = {
    "official-1": range(1, 8), "official-2": range(8, 15), "official-3": range(15, 22)
}  # fmt: skip
_OFFICIAL_VAL = range(22, 26)
# One of so many parts is test, one of as many of the rest is val: 20 and 16 %. Small sets are cut
# into down to three, where only then val or test has clips of every class.
_NUM_PARTS, _MIN_PARTS = 5, 3
_MAX_NAMES = 5  # classes that a sentence names


class SplitError(HarError):
    """A split that this shard set cannot give; the text is one sentence with the way out."""


@dataclass(frozen=True)
class Split:
    """Sample indices (int64, in key order) of the three subsets.

    name: the scheme. digest: of scheme and keys, the same wherever the same videos are split alike.
    leak: share of test clips that have a group mate in train; None where the set has no groups.
    notes: what the rule had to assume, as sentences.
    """

    name: str
    seed: int
    digest: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    leak: float | None
    notes: tuple[str, ...] = ()

    def subset(self, name: str) -> np.ndarray:
        """Sample indices of "train", "val" or "test"."""
        if name not in SUBSETS[1:]:
            raise SplitError(f"unknown subset {name!r}: choose one of {', '.join(SUBSETS[1:])}.")
        indices: np.ndarray = getattr(self, name)
        return indices

    def describe(self) -> dict[str, object]:
        """What a checkpoint or report keeps of a split."""
        clips = {subset: len(self.subset(subset)) for subset in SUBSETS[1:]}
        return {
            "name": self.name, "seed": self.seed, "digest": self.digest, "leak": self.leak,
            "clips": clips,
        }  # fmt: skip


def make_split(manifest: Manifest, name: str, seed: int = 0, val_from_train: float = 0.0) -> Split:
    """-> the split `name` (one of SPLIT_SCHEMES, or fold-I/K) of the set.

    seed: of "paper" and the folds. val_from_train: about this share of the train videos, in whole
    groups, is val, where the scheme gives no val.

    Raises SplitError for an unknown name, and where the set lacks what the rule needs.
    """
    is_fold = FOLD_NAME.fullmatch(name) is not None
    if name not in SPLIT_SCHEMES and not is_fold:
        raise SplitError(f"unknown split {name!r}: choose one of {ALL_SCHEMES}.")
    subsets = _subsets(manifest, name, seed)
    if val_from_train:
        subsets = _hold_out_val(manifest, subsets, name, val_from_train)
    notes = _describe_ungrouped(manifest) if is_fold or val_from_train else ()
    notes += _describe_own_subsets(manifest, name)
    order = np.argsort(manifest.index["key"], kind="stable")
    train, val, test = (order[subsets[order] == subset] for subset in (_TRAIN, _VAL, _TEST))
    if len(train) == 0:
        raise SplitError(
            f"split {name!r} leaves no train clip of the {len(order)} in {manifest.root}: "
            f"choose another of {ALL_SCHEMES}, or build a larger set."
        )
    digest = hashlib.sha256(name.encode())
    for indices in (train, val, test):
        digest.update(b"\n\n" + b"\n".join(manifest.index["key"][indices].tolist()))
    leak = compute_leak(manifest, train, test)
    seed = seed if name == "paper" or is_fold else 0
    return Split(name, seed, digest.hexdigest()[:16], train, val, test, leak, notes)


def compute_leak(manifest: Manifest, train: np.ndarray, test: np.ndarray) -> float | None:
    """Share of the clips `test` with a clip of the same group in `train`; None without groups."""
    if manifest.grouping is None or len(test) == 0:
        return None
    groups = manifest.index["group"]
    has_mate = np.isin(groups[test], groups[train]) & (groups[test] != NO_GROUP)
    return float(has_mate.mean())


def list_gaps(manifest: Manifest, split: Split) -> list[str]:
    """For each subset without a clip of some class one line, which names the first few."""
    lines = []
    for subset in SUBSETS[1:]:
        indices = split.subset(subset)
        present = np.isin(np.arange(len(manifest.classes)), manifest.index["label"][indices])
        missing = [manifest.classes[label] for label in np.flatnonzero(~present).tolist()]
        if len(indices) == 0:
            lines.append(f"no {subset} clips")
        elif missing:
            names = ", ".join(missing[:_MAX_NAMES]) + ", ..." * (len(missing) > _MAX_NAMES)
            effect = ", which cannot be learned" if subset == "train" else ""
            lines.append(
                f"no {subset} clip of {len(missing)} of {len(present)} classes{effect}: {names}"
            )
    return lines


def _subsets(manifest: Manifest, name: str, seed: int) -> np.ndarray:
    """-> uint8 [N], the subset of every sample, 0 = in none."""
    if name == "paper":
        return _paper_subsets(manifest, seed)
    if fold := FOLD_NAME.fullmatch(name):
        return _fold_subsets(manifest, int(fold[1]), int(fold[2]), seed)
    if name == "csv":
        if not manifest.index["side"].any():
            raise SplitError(
                f"split 'csv' needs a split column and {manifest.root} was built without one: use "
                "another split, build from a CSV with a column split, or give 'har-shards relabel' "
                "a CSV of key,split."
            )
        return manifest.index["side"]
    if manifest.grouping is None:
        has_subsets = manifest.index["side"].any()
        own = "'--split csv' (the subsets it was built with), " if has_subsets else ""
        raise SplitError(
            f"split {name!r} needs groups and {manifest.root} has none: use {own}'--split paper' "
            "or '--split fold-1/5', or build with '--group-regex' or a CSV with a group column."
        )
    if name == "grouped" and _groups_span_classes(manifest):
        return _balanced_subsets(manifest)
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
    """-> the subset of every group. No group may span classes."""
    subsets = np.zeros(len(manifest.groups), np.uint8)
    labels, groups = manifest.index["label"], manifest.index["group"]
    for label in range(len(manifest.classes)):
        in_class = [g for g in np.unique(groups[labels == label]).tolist() if g != NO_GROUP]
        in_class.sort(key=lambda group: _natural(manifest.groups[group]))
        quota = _quota(len(in_class))
        subsets[in_class] = np.repeat(list(quota), list(quota.values()))
    return subsets


def _quota(num_groups: int) -> dict[int, int]:
    """How many of a class's groups go to each subset: 64/16/20, at least one each from three on."""
    if num_groups < 3:
        return {_TRAIN: min(num_groups, 1), _VAL: 0, _TEST: max(num_groups - 1, 0)}
    test, val = max(1, round(0.2 * num_groups)), max(1, round(0.16 * num_groups))
    return {_TRAIN: num_groups - test - val, _VAL: val, _TEST: test}


def _groups_span_classes(manifest: Manifest) -> bool:
    labels, groups = manifest.index["label"].astype(np.int64), manifest.index["group"]
    labels, groups = labels[groups != NO_GROUP], groups[groups != NO_GROUP]
    pairs = np.unique(groups * len(manifest.classes) + labels)
    return len(pairs) > len(np.unique(groups))


def _balanced_subsets(manifest: Manifest) -> np.ndarray:
    """20 % of the groups' videos test, 16 % val, each class alike; videos without a group train."""
    labels, groups, video_of_sample = _list_videos(manifest)
    subsets = np.full(len(labels), _TRAIN, np.uint8)
    is_grouped = np.zeros(len(labels), bool)
    is_grouped[video_of_sample] = manifest.index["group"] != NO_GROUP
    subsets[choose_part(groups, labels, is_grouped, _NUM_PARTS, _MIN_PARTS)] = _TEST
    is_rest = is_grouped & (subsets == _TRAIN)
    subsets[choose_part(groups, labels, is_rest, _NUM_PARTS, _MIN_PARTS)] = _VAL
    return subsets[video_of_sample]


def _fold_subsets(manifest: Manifest, fold: int, num_folds: int, seed: int) -> np.ndarray:
    """Fold `fold` (from 1) of `num_folds`."""
    if not 1 <= fold <= num_folds or num_folds < 2:
        last = max(2, num_folds)
        raise SplitError(
            f"there is no split 'fold-{fold}/{num_folds}': give fold-1/{last} to "
            f"fold-{last}/{last}, or another number of folds of 2 or more."
        )
    labels, groups, video_of_sample = _list_videos(manifest)
    num_groups = int(groups.max()) + 1
    if num_folds > num_groups:
        raise SplitError(
            f"{num_folds} folds need as many groups and {manifest.root} has {num_groups}: give "
            f"fewer folds, at most {num_groups}."
        )
    groups = np.random.default_rng(seed).permutation(num_groups)[groups]
    subsets = np.full(len(labels), _TRAIN, np.uint8)
    subsets[balance_groups(groups, labels, num_folds)[groups] == fold - 1] = _TEST
    subsets[choose_part(groups, labels, subsets == _TRAIN, _NUM_PARTS, _MIN_PARTS)] = _VAL
    return subsets[video_of_sample]


def _hold_out_val(manifest: Manifest, subsets: np.ndarray, name: str, share: float) -> np.ndarray:
    """`subsets` (uint8 [N]) with about `share` of the train videos, in whole groups, as val."""
    num_val = int(np.count_nonzero(subsets == _VAL))
    if num_val:
        raise SplitError(
            f"--val-from-train {share:g} is for splits without val, and split {name!r} of "
            f"{manifest.root} has {num_val} val clips: leave it out."
        )
    labels, groups, video_of_sample = _list_videos(manifest)
    subset_of_video = np.zeros(len(labels), np.uint8)
    subset_of_video[video_of_sample] = subsets
    is_train = subset_of_video == _TRAIN
    num_parts = round(1 / share)
    subset_of_video[choose_part(groups, labels, is_train, num_parts, num_parts)] = _VAL
    return subset_of_video[video_of_sample]


def _list_videos(manifest: Manifest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (int [V] label of each video, int [V] its group, int [N] the video of each sample).

    Groups are numbered in order of their names; a video without one is a group of its own.
    """
    index = manifest.index
    _, first, video_of_sample = np.unique(index["video"], return_index=True, return_inverse=True)
    names = [
        f"video {key.decode()}" if group == NO_GROUP else f"group {manifest.groups[group]}"
        for group, key in zip(
            index["group"][first].tolist(), index["key"][first].tolist(), strict=True
        )
    ]
    groups = np.unique(names, return_inverse=True)[1]
    return index["label"][first].astype(np.int64), groups, video_of_sample


def _describe_ungrouped(manifest: Manifest) -> tuple[str, ...]:
    """The sentence that videos without a group count as groups, where there are any."""
    index = manifest.index
    num_ungrouped = len(np.unique(index["video"][index["group"] == NO_GROUP]))
    if num_ungrouped == 0:
        return ()
    which = "each video" if manifest.grouping is None else f"each of {num_ungrouped} videos"
    return (
        f"{which} without a group is a group of its own: videos cut from one source may lie in two "
        "subsets.",
    )


def _describe_own_subsets(manifest: Manifest, name: str) -> tuple[str, ...]:
    """The sentence that a rule other than "csv" deals clips out anew, where lists or folders gave
    subsets; for "csv" how many clips they leave out."""
    num_given = int(np.count_nonzero(manifest.index["side"]))
    num_others = len(manifest.index) - num_given
    if name != "csv" and num_given:
        return (f"split {name!r} does not keep the set's own subsets, as --split csv does.",)
    if name == "csv" and num_others:
        return (f"{num_others} of {len(manifest.index)} clips are in no subset.",)
    return ()


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

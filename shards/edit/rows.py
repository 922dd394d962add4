"""Edits of the index alone: clips removed and relabelled, at once, whatever the set's size.

The shards stay as they are: they keep the bytes of removed clips, and KEY.cls and KEY.json of
relabelled ones, until `compact_set` writes them anew. Until then the index counts.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..format import SUBSETS, Manifest, are_ucf101, remove_leftovers
from .names import common_grouping, number_classes, number_names
from .transaction import EditError, commit_edit, locked_set


def find_clips(manifest: Manifest, names: Sequence[str]) -> list[np.ndarray]:
    """-> for each of `names` the indices of its clips: a key, in which `*` and `?` work.

    The key of a video names all of its clips, KEY@1 only that one. Raises EditError for a name that
    no clip has.
    """
    places: dict[str, list[int]] = {}
    for index, key in enumerate(manifest.keys()):
        places.setdefault(key, []).append(index)
        if "@" in key:
            places.setdefault(key.split("@")[0], []).append(index)

    def find(name: str) -> np.ndarray:
        matches = places.get(name, [])
        if "*" in name or "?" in name:
            pattern = re.compile(fnmatch.translate(name))
            matches = [i for key, indices in places.items() if pattern.match(key) for i in indices]
        return np.unique(np.array(matches, np.int64))

    found = [find(name) for name in names]
    unknown = [name for name, indices in zip(names, found, strict=True) if len(indices) == 0]
    if unknown:
        others = f" and {len(unknown) - 1} more of those named" if len(unknown) > 1 else ""
        raise EditError(
            f"no clip of {manifest.root} has the key {unknown[0]!r}{others}: keys are like "
            f"{manifest.keys(slice(1))[0]}; nothing was changed."
        )
    return found


def remove_clips(root: Path | str, names: Sequence[str]) -> Manifest:
    """Take the clips that `names` name (see `find_clips`) out of the set; -> what is left.

    Class numbers stay, also those of classes without a clip. Raises EditError, ShardSetError,
    StorageError.
    """

    def remove(manifest: Manifest) -> tuple[Manifest, dict[str, int]]:
        is_removed = np.zeros(len(manifest.index), bool)
        is_removed[np.concatenate(find_clips(manifest, names))] = True
        counts = np.bincount(manifest.index["shard"][is_removed], minlength=len(manifest.shards))
        shards = [
            replace(shard, samples=shard.samples - count, removed=shard.removed + count)
            for shard, count in zip(manifest.shards, counts.tolist(), strict=True)
        ]
        new = replace(manifest, index=manifest.index[~is_removed], shards=tuple(shards))
        return new, {"removed": int(is_removed.sum())}

    return _edit_index(root, "remove", remove)


def relabel_clips(
    root: Path | str, rows: Sequence[dict[str, str]], *, merge_case: bool = False
) -> Manifest:
    """Give clips other classes, groups or subsets; -> the changed set.

    rows: "key" (see `find_clips`) and any of "label", "group", "split"; what is missing or ""
    stays. New classes get the next numbers, in the order of the rows. merge_case: class names that
    differ by case alone are one. Raises EditError, ShardSetError, StorageError.
    """

    def relabel(manifest: Manifest) -> tuple[Manifest, dict[str, int]]:
        index = manifest.index.copy()
        names = list(dict.fromkeys(row["label"] for row in rows if row.get("label")))
        classes, numbers = number_classes(manifest.classes, names, merge_case)
        label_of = dict(zip(names, numbers, strict=True))
        names = list(dict.fromkeys(row["group"] for row in rows if row.get("group")))
        groups, numbers = number_names(manifest.groups, names)
        group_of = dict(zip(names, numbers, strict=True))
        for row, indices in zip(rows, _find_rows(manifest, rows), strict=True):
            if name := row.get("label"):
                index["label"][indices] = label_of[name]
            if name := row.get("group"):
                index["group"][indices] = group_of[name]
            if name := row.get("split"):
                index["side"][indices] = SUBSETS.index(name)
        return _relabelled(manifest, index, classes, groups)

    return _edit_index(root, "relabel", relabel)


def _find_rows(manifest: Manifest, rows: Sequence[dict[str, str]]) -> list[np.ndarray]:
    """The clips that each row names, none of them named by two."""
    found = find_clips(manifest, [row["key"] for row in rows])
    clips, counts = np.unique(np.concatenate(found), return_counts=True)
    if (counts > 1).any():
        (key,) = manifest.keys(clips[counts > 1][:1])
        raise EditError(f"the clip {key} is named more than once: leave all but one line out.")
    return found


def _relabelled(
    manifest: Manifest, index: np.ndarray, classes: tuple[str, ...], groups: tuple[str, ...]
) -> tuple[Manifest, dict[str, int]]:
    old = manifest.index
    in_shards = (index["label"] != old["label"]) | (index["group"] != old["group"])
    stale = set(old["shard"][in_shards].tolist())
    shards = tuple(
        replace(shard, relabelled=True) if number in stale else shard
        for number, shard in enumerate(manifest.shards)
    )
    grouping = manifest.grouping
    if (index["group"] != old["group"]).any():
        grouping = common_grouping(groups, grouping, "ucf101" if are_ucf101(groups) else "csv")
    new = replace(
        manifest, index=index, classes=classes, groups=groups, grouping=grouping, shards=shards
    )
    return new, {"relabelled": int((in_shards | (index["side"] != old["side"])).sum())}


def _edit_index(
    root: Path | str,
    command: str,
    change: Callable[[Manifest], tuple[Manifest, dict[str, int]]],
) -> Manifest:
    """Commit what `change` makes of the set, unless it changes no clip."""
    with locked_set(root) as (folder, manifest):
        new, counts = change(manifest)
        if not any(counts.values()):
            return manifest
        remove_leftovers(folder, manifest)
        return commit_edit(folder, manifest, new, command, **counts)

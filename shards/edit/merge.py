"""Two sets of clips of one kind in one: classes and groups by name, keys unique."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..format import NO_GROUP, Edit, Manifest
from ..storage import normalize
from .names import common_grouping, number_classes, number_names
from .new_set import new_set, read_rejects, write_set
from .rewrite import Part
from .transaction import EditError, locked_set


def merge_sets(
    first: Path | str,
    second: Path | str,
    out: Path | str,
    *,
    groups: str = "unite",
    skip_existing: bool = False,
    merge_case: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Manifest:
    """The clips of two sets in a new one, those of `first` before those of `second`; -> it.

    Classes are united by name (merge_case: also where the case differs); those of `first` keep
    their numbers. groups: "unite" (groups of one name are one), "apart" (they are two), "none".
    skip_existing: leave out clips of `second` whose keys `first` has, instead of refusing.
    progress: called after each shard. Raises EditError, ShardSetError, StorageError.
    """
    if normalize(first) == normalize(second):
        raise EditError(f"{first} cannot be merged with itself: name two sets.")
    with (
        locked_set(first) as (_, a),
        locked_set(second) as (_, b),
        new_set(out, "merge") as folder,
    ):
        check_same_clips(a, b)
        kept = _choose(a, b, skip_existing)
        classes, labels = number_classes(a.classes, b.classes, merge_case)
        group_names, grouping, group_numbers = _merge_groups(a, b, groups)
        index_a, index_b = a.index.copy(), b.index[kept]
        if groups == "none":
            index_a["group"] = NO_GROUP
        index_b["label"] = np.array(labels, np.uint32)[index_b["label"]]
        index_b["group"] = group_numbers[index_b["group"]]
        index_b["video"] += index_a["video"].max() + 1
        new = replace(
            a,
            classes=classes,
            groups=group_names,
            grouping=grouping,
            rejects=len(read_rejects(a)) + len(read_rejects(b)),
            versions=common_versions(a.versions, b.versions),
            plan=hashlib.sha256(f"{a.digest} {b.digest}".encode()).hexdigest(),
            edits=(*a.edits, Edit("merge", a.digest, added=len(kept))),
        )
        parts = [Part(a, np.arange(len(index_a)), index_a), Part(b, kept, index_b)]
        return write_set(folder, new, parts, progress)


def check_same_clips(a: Manifest, b: Manifest) -> None:
    """Raises EditError, which names the difference, where clips of two sets are not alike."""
    facts = [("clip shape", a.clip_shape, b.clip_shape)]
    for name in ("sampling", "resize"):
        x, y = getattr(a, name), getattr(b, name)
        facts += [(f"{name} {key}", x.get(key), y.get(key)) for key in sorted(x.keys() | y.keys())]
    differences = [f"{name} {x} and {y}" for name, x, y in facts if x != y]
    if differences:
        raise EditError(
            f"the clips of {a.root} and {b.root} are not alike ({'; '.join(differences)}): build "
            "one of them again with the options of the other."
        )


def common_versions(a: dict[str, str], b: dict[str, str]) -> dict[str, str]:
    """The version of each library, "1.0, 2.0" where there are two."""
    versions: dict[str, list[str]] = {}
    for origin in (a, b):
        for name, text in origin.items():
            versions.setdefault(name, []).extend(text.split(", "))
    return {name: ", ".join(dict.fromkeys(texts)) for name, texts in versions.items()}


def _choose(a: Manifest, b: Manifest, skip_existing: bool) -> np.ndarray:
    """The clips of `b` that go into the merged set; tars may be unpacked where case is ignored."""
    keys_a, keys_b = a.keys(), b.keys()
    taken = {key.casefold() for key in keys_a}
    common = [key for key in keys_b if key.casefold() in taken]
    if common and not skip_existing:
        raise EditError(
            f"{len(common)} clips of {b.root} have keys that {a.root} has too (first {common[0]}): "
            "add --skip-existing to leave them out, or remove them from one of the two."
        )
    return np.flatnonzero([key.casefold() not in taken for key in keys_b])


def _merge_groups(
    a: Manifest, b: Manifest, rule: str
) -> tuple[tuple[str, ...], str | None, np.ndarray]:
    """-> group names, grouping, and the number of each group of `b`, of NO_GROUP at the end."""
    if rule == "none":
        return (), None, np.full(len(b.groups) + 1, NO_GROUP, np.int32)
    if (a.grouping is None) != (b.grouping is None):
        having, lacking = (b, a) if a.grouping is None else (a, b)
        raise EditError(
            f"{having.root} has groups and {lacking.root} has none: give it some with 'har-shards "
            "relabel' and a CSV of key,group, or add '--groups none'."
        )
    names = list(b.groups)
    if rule == "apart":
        taken = {*a.groups, *b.groups}
        for number, name in enumerate(names):
            suffix = 2
            while names[number] in a.groups or (suffix > 2 and names[number] in taken):
                names[number], suffix = f"{name}+{suffix}", suffix + 1
    united, numbers = number_names(a.groups, names)
    grouping = common_grouping(united, a.grouping, b.grouping)
    return united, grouping, np.array([*numbers, NO_GROUP], np.int32)

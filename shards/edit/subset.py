"""Some clips of a set as a set of their own."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..format import ClipReader, Edit, Manifest, ShardSetError
from .new_set import new_set, write_set
from .rewrite import Part
from .rows import find_clips
from .transaction import EditError, locked_set


def subset_set(
    root: Path | str,
    out: Path | str,
    *,
    classes: Sequence[str] = (),
    per_class: int | None = None,
    keys: Sequence[str] | None = None,
    intact: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Manifest:
    """A new set of some clips of a set, in their order; -> it.

    classes: only these. keys: only these clips (see `find_clips`). per_class: at most so many
    videos of each class, from each of its groups in turn. intact: only clips whose pixels and
    KEY.json have their checksums, which saves what is left of a damaged set. Classes that lose all
    clips are left out, the others numbered anew. progress: called after each shard. Raises
    EditError, ShardSetError, StorageError.
    """
    with locked_set(root) as (_, source), new_set(out, "subset") as folder:
        index = source.index
        is_kept = np.ones(len(index), bool)
        if intact:
            is_kept = _are_intact(source)
        if keys is not None:
            is_kept &= np.isin(np.arange(len(index)), np.concatenate(find_clips(source, keys)))
        if classes:
            is_kept &= np.isin(index["label"], _class_numbers(source, classes))
        if per_class is not None:
            is_kept &= _is_among_first(source, is_kept, per_class)
        samples = np.flatnonzero(is_kept)
        if len(samples) == 0:
            raise EditError(f"no clip of {source.root} is chosen: name other keys or classes.")
        rows = index[samples]
        labels, rows["label"] = np.unique(rows["label"], return_inverse=True)
        chosen = "\n".join([source.digest, *source.keys(samples)])
        new = replace(
            source,
            classes=tuple(source.classes[label] for label in labels.tolist()),
            rejects=0,
            plan=hashlib.sha256(chosen.encode()).hexdigest(),
            edits=(
                *source.edits, Edit("subset", source.digest, removed=len(index) - len(samples))
            ),
        )  # fmt: skip
        return write_set(folder, new, [Part(source, samples, rows)], progress, copy=intact)


def _are_intact(manifest: Manifest) -> np.ndarray:
    """bool [N]: whether each clip can be read and is as it was written."""
    is_intact = np.ones(len(manifest.index), bool)
    with closing(ClipReader(manifest)) as reader:
        for sample in range(len(is_intact)):
            try:
                reader.read_into(sample, reader.scratch())
                reader.read_metadata(sample)
            except ShardSetError:
                is_intact[sample] = False
    return is_intact


def _class_numbers(manifest: Manifest, names: Sequence[str]) -> list[int]:
    numbers = {name: number for number, name in enumerate(manifest.classes)}
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise EditError(
            f"{manifest.root} has no class {unknown[0]!r}: its classes are "
            f"{', '.join(manifest.classes[:10])}{', ...' if len(manifest.classes) > 10 else ''}."
        )
    return [numbers[name] for name in names]


def _is_among_first(manifest: Manifest, is_kept: np.ndarray, per_class: int) -> np.ndarray:
    """Whether each clip is of one of the videos taken: the first of each group, then the second
    ones, until there are enough; so a small subset can still be split by groups."""
    index = manifest.index
    first_clips = np.flatnonzero(is_kept)[np.unique(index["video"][is_kept], return_index=True)[1]]
    by_key = first_clips[np.argsort(index["key"][first_clips], kind="stable")]
    num_of_group: Counter[tuple[int, int]] = Counter()
    ranked: dict[int, list[tuple[int, int, int]]] = {}
    for place, clip in enumerate(by_key.tolist()):
        label, group = int(index["label"][clip]), int(index["group"][clip])
        rank = num_of_group[label, group]
        num_of_group[label, group] += 1
        ranked.setdefault(label, []).append((rank, place, int(index["video"][clip])))
    taken = [video for videos in ranked.values() for _, _, video in sorted(videos)[:per_class]]
    return np.isin(index["video"], taken)

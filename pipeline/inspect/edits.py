"""What an edit did to a set, in words: counts, classes, splits that moved, what `compact` frees."""

from collections import Counter

import numpy as np

from ...shards.edit import count_moved_clips
from ...shards.format import REJECTS, Manifest, read_journal
from ...shards.storage import open_folder
from ..build import Added
from ..dataset import note_lines
from ..decode import summarize_warnings

_MAX_NAMES = 10


def describe_edit(before: Manifest, after: Manifest) -> str:
    """before, after: the set in one folder, before and after a command."""
    if before.digest == after.digest:
        return f"{after.root}: nothing to change."
    changes = after.describe_changes_since(before.digest)
    lines = [
        f"{after.root}: {changes}; now {describe_size(after)}",
        *_describe_classes(before, after),
        *_describe_splits(before, after),
        *describe_leftovers(after),
    ]
    return "\n".join(lines)


def describe_new_set(manifest: Manifest, num_skipped: int = 0) -> str:
    """A set that was made of others. num_skipped: clips left out, since both sets have them."""
    lines = [f"{manifest.root}: {describe_size(manifest)}"]
    if num_skipped:
        lines.append(f"left out: {_count(num_skipped, 'clip')} with a key that is in both sets")
    lines += describe_empty_classes(manifest)
    if manifest.grouping is None:
        lines.append("no groups: the split 'grouped' is not possible; use '--split paper'")
    return "\n".join(lines)


def describe_add(added: Added) -> str:
    """As `describe_edit`, and the videos that were left out or got another key."""
    lines = [describe_edit(added.before, added.after), *note_lines(added.notes)]
    lines += summarize_warnings(list(added.warnings))
    if added.num_skipped:
        lines.append(
            f"left out: {_count(added.num_skipped, 'video')} with a key that is in the set"
        )
    if added.num_renamed:
        lines.append(f"renamed: {_count(added.num_renamed, 'video')} by a hash of the path")
    lines += [
        f"not in the set: {row['path']}: {row['reason']}" for row in added.rejects[:_MAX_NAMES]
    ]
    if len(added.rejects) > _MAX_NAMES:
        lines.append(f"and {len(added.rejects) - _MAX_NAMES} more, see {REJECTS}")
    return "\n".join(lines)


def describe_size(manifest: Manifest) -> str:
    """ "83 clips of 83 videos in 9 shards, 87.5 MB, 3 classes"."""
    return (
        f"{len(manifest.index)} clips of {manifest.num_videos} videos in {len(manifest.shards)} "
        f"shards, {manifest.num_bytes / 1e6:.1f} MB, {len(manifest.classes)} classes"
    )


def describe_empty_classes(manifest: Manifest) -> list[str]:
    """A line that names the classes without a clip; none where there are no such."""
    counts = np.bincount(manifest.index["label"], minlength=len(manifest.classes))
    names = [name for name, count in zip(manifest.classes, counts, strict=True) if not count]
    if not names:
        return []
    return [f"no clip: {len(names)} of the {len(counts)} classes: {_names(names)}"]


def describe_leftovers(manifest: Manifest) -> list[str]:
    """What the shards hold that the index overrules, and what an edit that did not end left."""
    lines, command = [], f"'har-shards compact {manifest.root}'"
    if removed := sum(shard.removed for shard in manifest.shards):
        shards = sum(shard.removed > 0 for shard in manifest.shards)
        lines.append(
            f"removed: {_count(removed, 'clip')} still in {_count(shards, 'shard')}, {command} "
            f"frees about {manifest.removed_bytes / 1e6:.1f} MB"
        )
    if shards := sum(shard.relabelled for shard in manifest.shards):
        lines.append(
            f"relabelled: KEY.cls and KEY.json are as they were in {_count(shards, 'shard')}, for "
            f"readers without the index; {command} writes them anew"
        )
    if journal := read_journal(open_folder(manifest.root)):
        lines.append(
            f"unfinished: 'har-shards {journal.command}' runs or was stopped; run it again, or any "
            "other change removes what it left"
        )
    return lines


def _describe_classes(before: Manifest, after: Manifest) -> list[str]:
    """New classes, those that have lost their last clip, and how many clips changed class."""
    lines = []
    if new := after.classes[len(before.classes) :]:
        lines.append(f"new classes: {_names(new)}")
    counts = [np.bincount(m.index["label"], minlength=len(after.classes)) for m in (before, after)]
    if emptied := [
        n for n, old, now in zip(after.classes, *counts, strict=True) if old and not now
    ]:
        lines.append(
            f"no clip is left of {_names(emptied)}: the class keeps its number, and a network an "
            "output for it"
        )
    labels = dict(zip(before.keys(), before.index["label"].tolist(), strict=True))
    moved = Counter(
        (labels[key], label)
        for key, label in zip(after.keys(), after.index["label"].tolist(), strict=True)
        if labels.get(key, label) != label
    )
    for (old, new_label), count in sorted(moved.items())[:_MAX_NAMES]:
        lines.append(
            f"{before.classes[old]} -> {after.classes[new_label]}: {_count(count, 'clip')}"
        )
    return lines


def _describe_splits(before: Manifest, after: Manifest) -> list[str]:
    moved = count_moved_clips(before, after)
    lines = [
        f"split {name}: {count} of the clips that were there change subset, {leaked} of them from "
        "test to train"
        for name, (count, leaked) in moved.items()
        if count
    ]
    if lines:
        lines.append("to keep a split whatever comes: 'A set that lives' in docs/data.md")
    if same := [name for name, (count, _) in moved.items() if not count]:
        lines.append(f"splits in which the clips that were there stay: {', '.join(same)}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _names(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more

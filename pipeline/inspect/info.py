"""What a shard set is, in words: the text of `har-shards info` and of the end of a build."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ...shards import splits
from ...shards.format import REJECTS, WARNINGS, Manifest, load_manifest
from ..build import describe_reasons, load_rejects, load_warnings
from ..dataset import load_notes, note_lines
from ..decode import summarize_warnings
from .edits import describe_empty_classes, describe_leftovers, describe_size


def describe_build(manifest: Manifest, out: Path | str) -> str:
    """The summary of a build: what is there, what is not, and what to do next."""
    lines = [
        f"{out}: {describe_size(manifest)}",
        *_describe_rejects(out, manifest),
        *note_lines(load_notes(out)),
        *describe_oddities(out, manifest),
        *describe_empty_classes(manifest),
    ]
    if manifest.grouping is None:
        split = "csv" if manifest.index["side"].any() else "paper"
        lines.append(
            "no groups: the videos are not named like UCF101's, and no --group-regex, --layout or "
            f"list gives any, so the split 'grouped' is not possible; use '--split {split}'."
        )
    return "\n".join(lines)


def describe_set(root: Path | str) -> str:
    """Shape, rules, sizes, versions, rejects, and clips of each class."""
    manifest = load_manifest(root)
    index = manifest.index
    T, H, W, C = manifest.clip_shape
    lines = [
        f"shard set    {root}",
        f"clips        {len(index)} of {manifest.num_videos} videos, "
        f"{np.count_nonzero(index['padded'])} of them padded",
        f"shape        {T} frames of {H}x{W}x{C}, uint8, {manifest.clip_bytes / 1e6:.2f} MB a clip",
        f"sampling     {_pairs(manifest.sampling)}",
        f"resize       {_pairs(manifest.resize)}",
        f"shards       {len(manifest.shards)}, {manifest.num_bytes / 1e6:.1f} MB",
        f"groups       {len(manifest.groups)} ({manifest.grouping or 'none'})",
        f"made with    {_pairs(manifest.versions)}",
        f"plan         {manifest.plan[:16]}",
        f"rejects      {manifest.rejects}",
        *_describe_rejects(root, manifest)[1:],
        *note_lines(load_notes(root)),
        *describe_oddities(root, manifest),
        *describe_empty_classes(manifest),
        *(f"{'edits':13s}{edit.command}: {edit}" for edit in manifest.edits),
        *describe_leftovers(manifest),
        f"splits       {', '.join(_possible_splits(manifest)) or 'none'}",
        "",
        "class                         clips  groups",
    ]
    for label, name in enumerate(manifest.classes):
        rows = index[index["label"] == label]
        num_groups = len(np.unique(rows["group"][rows["group"] >= 0]))
        lines.append(f"{name:28s} {len(rows):6d} {num_groups:7d}")
    return "\n".join(lines)


def describe_split(root: Path | str, name: str, seed: int = 0) -> str:
    """Clips of each class in each subset and their share of the class; what the subsets lack, and
    how many test clips have a group mate in train."""
    manifest = load_manifest(root)
    split = splits.make_split(manifest, name, seed)
    subsets = (split.train, split.val, split.test)
    labels, num_classes = manifest.index["label"], len(manifest.classes)
    counts = [np.bincount(labels[indices], minlength=num_classes) for indices in subsets]
    lines = [
        f"split {split.name}, digest {split.digest}",
        f"{'class':28s}        train          val         test",
    ]
    totals = np.bincount(labels, minlength=num_classes)
    for label, class_name in enumerate(manifest.classes):
        cells = _columns((count[label] for count in counts), totals[label])
        lines.append(f"{class_name:28s} {cells}")
    lines.append(f"{'all':28s} {_columns(map(len, subsets), len(labels))}")
    lines += [f"warning: {gap}" for gap in splits.list_gaps(manifest, split)]
    lines += [f"note: {note}" for note in split.notes]
    if split.leak is None:
        lines.append("leak: unknown, the set has no groups or the split no test clips")
    else:
        lines.append(
            f"leak: {split.leak:.1%} of the test clips have a clip of their group in train"
        )
    return "\n".join(lines)


def _columns(counts: Iterable[int], total: int) -> str:
    return " ".join(f"{int(count):6d} {count / max(1, total):5.1%}" for count in counts)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _describe_rejects(out: Path | str, manifest: Manifest) -> list[str]:
    rejects = load_rejects(out)[: manifest.rejects]  # behind them: of an `add` that did not end
    if not rejects:
        return []
    subject = "1 video is" if len(rejects) == 1 else f"{len(rejects)} videos are"
    return [
        f"{subject} not in the set, see {out}/{REJECTS}; mended, the same build takes them in:",
        *(f"  {line}" for line in describe_reasons(rejects)),
    ]


def describe_oddities(root: Path | str, manifest: Manifest) -> list[str]:
    """What is odd about videos of the set: a line for each kind, with how many they are."""
    rows = load_warnings(root)
    keys = set(manifest.keys()) if rows else set()  # videos may have been removed since
    lines = summarize_warnings([row for row in rows if row["key"] in keys])
    return [*lines, f"each of them: {root}/{WARNINGS}"] if lines else []


def _possible_splits(manifest: Manifest) -> list[str]:
    possible = []
    for name in splits.SPLIT_SCHEMES:
        with contextlib.suppress(splits.SplitError):
            possible.append(splits.make_split(manifest, name).name)
    return [*possible, "fold-I/K"]

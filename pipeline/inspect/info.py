"""What a shard set is, in words: the text of `har-shards info` and of the end of a build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ...shards import splits
from ...shards.format import shard_set
from ...shards.format.shard_set import Manifest
from ..build import build

_REJECTS_SHOWN = 5


def built(clips: Manifest, out: Path | str) -> str:
    """The summary of a build: what is there, what is not, and what to do next."""
    size = sum(shard.bytes for shard in clips.shards)
    videos = len(np.unique(clips.index["video"]))
    lines = [
        f"{out}: {len(clips.index)} clips of {videos} videos in {len(clips.shards)} shards, "
        f"{size / 1e6:.1f} MB, {len(clips.classes)} classes"
    ]
    lines += _rejects(out)
    if clips.grouping is None:
        lines.append(
            "no groups: the videos are not named like UCF101's and no --group-regex was given, so "
            "the split 'grouped' is not possible; use '--split paper'."
        )
    return "\n".join(lines)


def set(root: Path | str) -> str:
    """Shape, rules, sizes, versions, rejects, and clips of each class."""
    clips = shard_set.load(root)
    size = sum(shard.bytes for shard in clips.shards)
    T, H, W, C = clips.clip_shape
    videos = len(np.unique(clips.index["video"]))
    padded = int((clips.index["padded"] > 0).sum())
    lines = [
        f"shard set    {root}",
        f"clips        {len(clips.index)} of {videos} videos, {padded} of them padded",
        f"shape        {T} frames of {H}x{W}x{C}, uint8, {clips.clip_bytes / 1e6:.2f} MB a clip",
        f"sampling     {_pairs(clips.sampling)}",
        f"resize       {_pairs(clips.resize)}",
        f"shards       {len(clips.shards)}, {size / 1e6:.1f} MB",
        f"groups       {len(clips.groups)} ({clips.grouping or 'none'})",
        f"made with    {_pairs(clips.versions)}",
        f"plan         {clips.plan[:16]}",
        f"rejects      {clips.rejects}",
        *_rejects(root)[1:],
        f"splits       {', '.join(_possible(clips)) or 'none'}",
        "",
        "class                         clips  groups",
    ]
    for label, name in enumerate(clips.classes):
        mine = clips.index[clips.index["label"] == label]
        groups = len(np.unique(mine["group"][mine["group"] >= 0]))
        lines.append(f"{name:28s} {len(mine):6d} {groups:7d}")
    return "\n".join(lines)


def split(root: Path | str, name: str, seed: int = 0) -> str:
    """Sizes of each side by class, and how many test clips have a group mate in train."""
    clips = shard_set.load(root)
    made = splits.make(clips, name, seed)
    sides = (made.train, made.val, made.test)
    counts = [np.bincount(clips.index["label"][ids], minlength=len(clips.classes)) for ids in sides]
    lines = [f"split {made.name}, digest {made.digest}", f"{'class':28s}  train    val   test"]
    for label, of_class in enumerate(clips.classes):
        lines.append(f"{of_class:28s} {_row(count[label] for count in counts)}")
    lines.append(f"{'all':28s} {_row(len(ids) for ids in sides)}")
    if made.leak is None:
        lines.append("leak: unknown, the set has no groups or the split no test clips")
    else:
        lines.append(f"leak: {made.leak:.1%} of the test clips have a clip of their group in train")
    return "\n".join(lines)


def _row(counts: Iterable[int]) -> str:
    return " ".join(f"{int(count):6d}" for count in counts)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _rejects(out: Path | str) -> list[str]:
    rejects = build.rejects_of(out)
    if not rejects:
        return []
    what = "1 video is" if len(rejects) == 1 else f"{len(rejects)} videos are"
    lines = [f"{what} not in the set, see {out}/{shard_set.REJECTS}:"]
    lines += [f"  {one['path']}: {one['reason']}" for one in rejects[:_REJECTS_SHOWN]]
    if len(rejects) > _REJECTS_SHOWN:
        lines.append(f"  and {len(rejects) - _REJECTS_SHOWN} more")
    return lines


def _possible(clips: Manifest) -> list[str]:
    """The splits this set can give."""
    possible = []
    for name in splits.NAMES:
        try:
            splits.make(clips, name)
        except splits.SplitError:
            continue
        possible.append(name)
    return possible

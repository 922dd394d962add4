"""What a build will do: which videos go to which shard, in which order. Pure, and hashed.

The order follows group numbers, not classes: all of g01, then all of g02. A leak-free split of
UCF101 takes whole group numbers, so each of its subsets is a run of shards, and every run of clips
holds many classes. Shards are cut between groups where that is possible. A small set is cut into 8
shards even if one could hold it all, so that the work can be spread; the number of workers has no
part in the plan.
"""

import functools
import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import accumulate, groupby
from typing import Any

import numpy as np

from ...errors import HarError
from ...shards import storage
from ...shards.format import MAX_CLIP_BYTES, Manifest, ShardInfo, sample_bytes
from ..dataset import Dataset, Video
from ..decode import FITS, RESIZE
from ..sampling import ClipSampler

MIN_SHARDS = 8
MIN_SHARD_BYTES = 1 << 10


class PlanError(HarError):
    """Options that make no plan; the text is one sentence."""


@dataclass(frozen=True)
class BuildOptions:
    """What the bytes of a set depend on. size: (H, W). shard_bytes: most bytes of a shard. fit: see
    `har.pipeline.decode.FITS`."""

    sampling: ClipSampler = field(default_factory=ClipSampler)
    size: tuple[int, int] = (128, 171)
    shard_bytes: int = 64_000_000
    keep_partial: bool = False
    fit: str = "squeeze"

    def __post_init__(self) -> None:
        if not all(1 <= side <= 4096 for side in self.size):
            raise PlanError(f"--size {self.size[0]}x{self.size[1]}: each side must be in 1..4096.")
        if math.prod(self.clip_shape) > MAX_CLIP_BYTES:
            raise PlanError(
                f"--frames {self.sampling.frames} of --size {self.size[0]}x{self.size[1]}: a clip "
                "may take 4 GiB at most."
            )
        if self.shard_bytes < MIN_SHARD_BYTES:
            raise PlanError(f"--shard-size {self.shard_bytes} bytes: give at least 1KB.")
        if self.fit not in FITS:
            raise PlanError(f"--fit {self.fit!r}: choose one of {', '.join(FITS)}.")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return (self.sampling.frames, *self.size, 3)


@dataclass(frozen=True)
class BuildPlan:
    """shards: the videos of each. first_videos: number of the first video of each shard.

    groups: group names in the order of their numbers. facts: all that the bytes depend on but the
    videos' contents; `hash` is the digest of facts and videos, `layout` the same without the sizes
    of the videos: where only those differ, the shards of the others can be kept.
    """

    dataset: Dataset
    options: BuildOptions
    shards: tuple[tuple[Video, ...], ...]
    first_videos: tuple[int, ...]
    groups: tuple[str, ...]
    facts: dict[str, Any]
    hash: str
    layout: str

    @property
    def max_bytes(self) -> int:
        """Most bytes the finished set takes, its index left out."""
        num_clips = len(self.dataset.videos) * self.options.sampling.clips
        return num_clips * sample_bytes(self.options.clip_shape) + len(self.shards) * 1024

    def manifest(self, shards: tuple[ShardInfo, ...], index: np.ndarray, rejects: int) -> Manifest:
        """What the manifest of the finished set says. rejects: how many videos gave no clip."""
        return Manifest(
            clip_shape=self.options.clip_shape,
            sampling=self.facts["sampling"],
            resize=self.facts["resize"],
            classes=self.dataset.classes,
            groups=self.groups,
            grouping=self.dataset.grouping,
            shards=shards,
            plan=self.hash,
            versions=self.facts["versions"],
            rejects=rejects,
            index_sha256="",
            index=index,
        )


def make_plan(dataset: Dataset, options: BuildOptions, min_shards: int = MIN_SHARDS) -> BuildPlan:
    """A pure function of the videos (names, sizes, classes, groups) and the options."""
    videos = sorted(dataset.videos, key=lambda video: _sort_key(video, dataset.grouping))
    video_bytes = sample_bytes(options.clip_shape) * options.sampling.clips
    videos_per_shard = min(options.shard_bytes // video_bytes, -(-len(videos) // min_shards))
    shards = _cut_into_shards(videos, max(1, videos_per_shard))
    facts = _facts(dataset, options)
    fields = [_hashed_fields(video) for video in videos]
    hash_with_sizes = _digest([facts, fields])
    for entry in fields:
        del entry["size"]
    layout = {name: value for name, value in facts.items() if name != "listing"}
    return BuildPlan(
        dataset=dataset,
        options=options,
        shards=tuple(shards),
        first_videos=tuple(accumulate(map(len, shards[:-1]), initial=0)),
        groups=tuple(sorted({video.group for video in videos} - {""}, key=_natural_sort_key)),
        facts=facts,
        hash=hash_with_sizes,
        layout=_digest([layout, fields]),
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@functools.cache  # each shard asks, and reading a package's metadata takes a millisecond
def package_versions() -> dict[str, str]:
    """What decodes, resizes and checks: other versions may give other pixels."""
    return {name: version(name) for name in ("av", "numpy", "torch", "xxhash", "har-ucf101")}


def describe_differences(there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """ "sampling frames: 16 there, 8 now" for each fact in which two plans differ."""
    lines = []
    for name in sorted(there.keys() | now.keys()):
        old, new = there.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{name} {line}" for line in describe_differences(old, new)]
        elif old != new:
            lines.append(f"{name}: {_shorten(old)} there, {_shorten(new)} now")
    return lines


def _shorten(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _facts(dataset: Dataset, options: BuildOptions) -> dict[str, Any]:
    listing = json.dumps([[video.path, video.size] for video in dataset.videos])
    fit = {} if options.fit == "squeeze" else {"fit": options.fit}
    return {
        "sampling": options.sampling.describe(),
        "resize": {**RESIZE, "size": list(options.size), **fit},
        "shard_bytes": options.shard_bytes,
        "keep_partial": options.keep_partial,
        "classes": list(dataset.classes),
        "grouping": dataset.grouping,
        "videos": len(dataset.videos),
        "listing": hashlib.sha256(listing.encode()).hexdigest()[:16],
        "versions": package_versions(),
    }


def _hashed_fields(video: Video) -> dict[str, Any]:
    """`side`: so the subset is called in shard sets and in the hashes of their plans."""
    fields = asdict(video)
    fields["side"] = fields.pop("subset")
    return fields


def _sort_key(video: Video, grouping: str | None) -> tuple[Any, ...]:
    """Group number, then class, then key; without groups a fixed shuffle, to mix the classes."""
    if grouping is None:
        return (hashlib.sha256(video.key.encode()).hexdigest(),)
    group = video.group.rsplit("/", 1)[-1] if grouping == "ucf101" else video.group
    return (_natural_sort_key(group), video.label, video.key)


def _natural_sort_key(name: str) -> list[tuple[int, str]]:
    """g9 comes before g10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _cut_into_shards(videos: list[Video], max_videos: int) -> list[tuple[Video, ...]]:
    """Runs of at most `max_videos`, cut between groups where that is possible."""
    shards: list[list[Video]] = [[]]
    for name, members in groupby(videos, key=lambda video: video.group):
        group = list(members)
        if shards[-1] and name and len(shards[-1]) + len(group) > max_videos:
            shards.append([])
        for video in group:
            if len(shards[-1]) == max_videos:
                shards.append([])
            shards[-1].append(video)
    return [tuple(shard) for shard in shards]


def parse_size(text: str) -> tuple[int, int]:
    """ "128x171" -> (128, 171), height first. Raises PlanError."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip())
    if not match:
        raise PlanError(f"--size {text!r}: give height x width, as in 128x171.")
    return int(match[1]), int(match[2])


def parse_bytes(text: str) -> int:
    """ "64MB" -> 64000000, see `storage.parse_bytes`. Raises PlanError."""
    num_bytes = storage.parse_bytes(text)
    if num_bytes is None:
        raise PlanError(f"--shard-size {text!r}: give a size as in 64MB or 8MB.")
    return num_bytes

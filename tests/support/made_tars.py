"""Small shard sets of real tars, the same clips cut into any number of shards."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from har.shards.format import ClipReader, Manifest, ShardWriter, make_index, save_manifest
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform

SHAPE = (4, 12, 14, 3)
PROCESSOR = ClipProcessor(
    ClipTransform(2, (8, 8), (10, 12), (0.4,) * 3, (0.2,) * 3), Augmentation(hflip=0.5)
)


def make_manifest(rows: list[tuple[Any, ...]], **fields: Any) -> Manifest:
    """A manifest in memory with an index of `rows` (see `index_dtype`)."""
    defaults = {
        "clip_shape": SHAPE, "sampling": {}, "resize": {}, "classes": ("A", "B"), "groups": (),
        "grouping": None, "shards": (), "plan": "", "versions": {}, "rejects": 0,
        "index_sha256": "",
    }  # fmt: skip
    return Manifest(**{**defaults, **fields}, index=make_index(rows))


def make_tars(
    root: Path,
    shards: int = 1,
    clips: int = 34,
    shape: tuple[int, int, int, int] = SHAPE,
    first: int = 0,
) -> Manifest:
    """`clips` clips of noise, two to a group, four to a class; its key decides a clip's pixels.

    first: number of the first clip, a multiple of four.
    """
    root.mkdir()
    rows, written = [], []
    groups = [f"c{n // 4:03d}/g{n // 2:02d}" for n in range(first, first + clips)]
    names = sorted(set(groups))
    for number, members in enumerate(np.array_split(np.arange(clips), shards)):
        with ShardWriter(root / f"shard-{number:06d}.tar") as shard:
            for video in members.tolist():
                n, label = first + video, video // 4
                name = f"c{n // 4:03d}"
                key = f"v_{name}_g{n // 2:02d}_c{n % 2:02d}"
                pixels = np.random.default_rng(n).integers(0, 256, shape, np.uint8)
                metadata = {"class": name, "group": groups[video]}
                offset, digest = shard.add(key, pixels, label, metadata)
                group = names.index(groups[video])
                rows.append((key, number, offset, label, group, video, 0, 0, 16, 0, digest))
            written.append(shard.close())
    classes = tuple(f"c{first // 4 + n:03d}" for n in range(-(-clips // 4)))
    made = make_manifest(
        rows, clip_shape=shape, sampling={"rule": "paper"}, classes=classes, groups=tuple(names),
        grouping="regex", shards=tuple(written),
    )  # fmt: skip
    return save_manifest(made, root)


def stored_clips(manifest: Manifest) -> dict[str, np.ndarray]:
    """Key -> pixels of every clip."""
    with closing(ClipReader(manifest)) as reader:
        return {key: reader.read(number) for number, key in enumerate(manifest.keys())}


def flip_bit(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 4
    path.write_bytes(raw)

"""A shard set as one object: what it holds, its splits, and loaders to iterate over."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..errors import HarError
from ..notebook import encode_strip, html_properties, html_strip, html_table
from .format import ClipReader, Manifest, load_manifest
from .loading import Batch, BatchSampler, Loader, LoaderOptions, Transform
from .splits import Split, make_split

_SHOWN_CLASSES = 4  # in a notebook


def open_shard_set(root: Path | str) -> "ShardSet":
    """The shard set at a folder or a URL (s3://, https://, gs://, memory://).

    Reads manifest and index, no shard. Raises ShardSetError where there is no such set or it is
    damaged, StorageError where a URL cannot be read; each one sentence.
    """
    return ShardSet(load_manifest(root))


class ShardSet:
    """An open shard set. manifest: all that is known of it, `manifest.index` a row for each clip.

    `len` is the number of clips.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def __len__(self) -> int:
        return len(self.manifest.index)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.manifest.clip_shape))
        return (
            f"ShardSet({str(self.manifest.root)!r}, {len(self)} clips of {shape}, "
            f"{len(self.classes)} classes)"
        )

    def _repr_html_(self) -> str:
        """A table, and a clip each of the first classes; a set behind a URL is not read for it."""
        manifest, index = self.manifest, self.manifest.index
        shape = "x".join(map(str, manifest.clip_shape))
        size = manifest.num_bytes / 1e6
        values = {
            "clips": f"{len(self)} of {manifest.num_videos} videos, {shape} uint8",
            "classes": f"{len(self.classes)}: {', '.join(self.classes[:5])}"
            + ", ..." * (len(self.classes) > 5),
            "groups": len(manifest.groups) if manifest.grouping else "none",
            "shards": f"{len(manifest.shards)}, {size:,.1f} MB",
        }
        rows: list[list[object]] = []
        if isinstance(manifest.root, Path):
            _, firsts = np.unique(index["label"], return_index=True)
            with closing(ClipReader(manifest)) as reader:
                for number in firsts[:_SHOWN_CLASSES].tolist():
                    try:
                        strip = html_strip(encode_strip(reader.read(number)))
                    except (HarError, OSError):  # a damaged shard; har-shards verify tells it
                        continue
                    rows.append([self.classes[index["label"][number]], strip])
        strips = html_table(["class", "frames"], rows) if rows else ""
        return html_properties(f"Shard set {manifest.root}", values, strips)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a place in them."""
        return self.manifest.classes

    def split(self, name: str = "grouped", seed: int = 0) -> Split:
        """The clips of train, val and test by the scheme `name` (one of `splits.SPLIT_SCHEMES`, or
        "fold-1/5" ... "fold-5/5", which test each clip once).

        seed: of "paper" and the folds. Raises SplitError where the set lacks what the scheme needs.
        """
        return make_split(self.manifest, name, seed)

    def loader(
        self,
        subset: str = "train",
        batch_size: int = 16,
        *,
        split: str = "grouped",
        split_seed: int = 0,
        shuffle: bool | None = None,
        seed: int = 0,
        block_size: int = 0,
        rank: int = 0,
        world_size: int = 1,
        transform: Transform | None = None,
        batch_transform: Callable[[Batch], Any] | None = None,
        **options: Any,
    ) -> "SubsetLoader":
        """Batches of "train", "val" or "test"; each `for` over the loader is one epoch.

        shuffle: None for train only; the order depends on `seed` and the epoch. batch_size: of all
        ranks together. block_size: see `BatchSampler`. transform, batch_transform: see `Loader`.
        options: the fields of `LoaderOptions` (frames, temporal_jitter, workers, ...).

        Without a transform `batch.pixels` is a uint8 tensor [B,T,H,W,C]. A batch is valid until the
        next one is asked for (`batch.detach()` keeps its pixels); one that a loop is left with by
        `break` stays valid. The last batch of an epoch is padded: `batch.valid` tells which rows
        count.

        Raises SplitError, BatchSamplerError, LoaderError; while iterating ShardSetError for a
        corrupt clip, StorageError for a store that does not answer.
        """
        indices = self.split(split, split_seed).subset(subset)
        shuffle = subset == "train" if shuffle is None else shuffle
        sampler = BatchSampler(indices, batch_size, seed, shuffle, rank, world_size, block_size)
        return SubsetLoader(
            Loader(
                self.manifest,
                sampler,
                LoaderOptions(**options),
                transform=transform,
                batch_transform=batch_transform,
            )
        )


class SubsetLoader:
    """Iterates over the epochs of a `Loader`, each in its own order; `len` is batches an epoch.

    epoch: number of the next one; set it to repeat or skip. Threads and files are given back by
    `close`, at the end of a `with` block, or when nobody holds the object any more.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader, self.epoch = loader, 0
        self.close = weakref.finalize(self, loader.close)

    def __len__(self) -> int:
        return self.loader.num_batches

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for batch in self.loader.epoch(epoch):
            try:
                yield batch
            except GeneratorExit:
                if isinstance(batch, Batch):
                    batch.pixels = batch.detach()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

"""A shard set as a pipeline of the `webdataset` library, for programs written for that.

    pipeline = wds_pipeline("data/shards", subset="train").shuffle(1000).to_tuple("npy", "cls")
    loader = webdataset.WebLoader(pipeline, batch_size=16, num_workers=2)

The stages are webdataset's own but for opening and decoding: shards come from the manifest (a
folder, or a URL through the cache of this host), a short one is an error, nothing is unpickled. In
a set that was edited the index counts: removed clips do not come, labels and groups are today's.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from .format import NO_GROUP, Manifest, ShardSetError, load_manifest, open_shard
from .format.writer import encode_metadata
from .splits import make_split
from .storage import RemoteFolder, ShardCache, open_folder


class ShardSetPipeline(webdataset.DataPipeline, webdataset.FluidInterface):
    """A webdataset pipeline, with `shuffle`, `map`, `to_tuple`, `batched` and the like."""


def wds_pipeline(
    root: Path | str,
    *,
    subset: str | None = None,
    split: str = "grouped",
    split_seed: int = 0,
) -> ShardSetPipeline:
    """Samples {"__key__": str, "npy": uint8 [T,H,W,C], "cls": int, "json": dict, "__url__": str}.

    root: folder or URL. subset: "train", "val" or "test" of the scheme `split`; None for all clips.
    Clips come in stored order; shards are shared out among ranks and DataLoader workers, so these
    get unequal numbers of clips. Checksums are not compared: see `ShardSet.loader` and
    'har-shards verify'. Raises ShardSetError, SplitError, StorageError.
    """
    manifest = load_manifest(root)
    indices = np.arange(len(manifest.index))
    if subset is not None:
        indices = make_split(manifest, split, split_seed).subset(subset)
    numbers = np.unique(manifest.index["shard"][indices]).tolist()
    is_whole = subset is None and not any(s.removed or s.relabelled for s in manifest.shards)
    rows = None if is_whole else _rows_by_place(manifest, indices)
    return ShardSetPipeline(
        partial(iter, tuple(numbers)),
        webdataset.split_by_node,
        webdataset.split_by_worker,
        partial(_open_shards, manifest),
        tar_file_expander,
        group_by_keys,
        partial(_select, manifest, rows),
        webdataset.map(_decode),
    )


def _open_shards(manifest: Manifest, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    folder = open_folder(manifest.root)
    for number in numbers:
        shard = manifest.shards[number]
        url = f"{manifest.root}/{shard.name}"
        if isinstance(folder, RemoteFolder):
            descriptor = ShardCache().fetch(folder, shard)
        else:
            descriptor = open_shard(manifest, number)
        with open(descriptor, "rb") as stream:
            size = os.fstat(descriptor).st_size
            if size != shard.bytes:
                raise ShardSetError(
                    f"shard {url} has {size:,} bytes, not {shard.bytes:,}: run 'har-shards verify "
                    f"{manifest.root}' and the same 'har-shards build' again."
                )
            yield {"url": url, "stream": stream}


def _rows_by_place(manifest: Manifest, indices: np.ndarray) -> dict[tuple[str, str], int]:
    """(URL of the shard, key) -> index of the sample. A key that was removed may be in two."""
    urls = [f"{manifest.root}/{shard.name}" for shard in manifest.shards]
    shards, keys = manifest.index["shard"][indices].tolist(), manifest.keys(indices)
    return {
        (urls[shard], key): index
        for shard, key, index in zip(shards, keys, indices.tolist(), strict=True)
    }


def _select(
    manifest: Manifest,
    indices: dict[tuple[str, str], int] | None,
    samples: Iterable[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The samples that are asked for (None: all), with label, class and group as in the index."""
    if indices is None:
        yield from samples
        return
    for sample in samples:
        index = indices.get((sample["__url__"], sample["__key__"]))
        if index is None:
            continue
        row = manifest.index[index]
        if manifest.shards[row["shard"]].relabelled:
            group = manifest.groups[row["group"]] if row["group"] != NO_GROUP else None
            names = {"class": manifest.classes[row["label"]], "group": group}
            metadata = encode_metadata({**json.loads(sample["json"]), **names})
            sample = {**sample, "cls": str(row["label"]).encode(), "json": metadata}
        yield sample


def _decode(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        **sample,
        "npy": np.load(io.BytesIO(sample["npy"]), allow_pickle=False),
        "cls": int(sample["cls"]),
        "json": json.loads(sample["json"]),
    }

"""What a set holds, read in several ways, for the tests of edits."""

import gc
import io
import json
import warnings
from contextlib import closing
from typing import Any

import numpy as np
import webdataset

from har.shards import wds_pipeline
from har.shards.format import NO_GROUP, ClipReader, Manifest, load_manifest, verify_full

Clips = dict[str, tuple[str, str | None, bytes]]


def clips_of(manifest: Manifest) -> Clips:
    """Key -> class, group, pixels, by the index."""
    with closing(ClipReader(manifest)) as reader:
        return {
            key: (
                manifest.classes[row["label"]],
                manifest.groups[row["group"]] if row["group"] != NO_GROUP else None,
                reader.read(number).tobytes(),
            )
            for number, (key, row) in enumerate(zip(manifest.keys(), manifest.index, strict=True))
        }


def stock_samples(manifest: Manifest) -> list[dict[str, Any]]:
    """What webdataset's own pipeline reads from the tars; it knows of no index."""
    paths = [str(manifest.shard_path(number)) for number in range(len(manifest.shards))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the collector
        samples = list(webdataset.WebDataset(paths, shardshuffle=False))
        gc.collect()
    return samples


def stock_clips(manifest: Manifest) -> Clips:
    """The clips of `stock_samples`."""
    samples = stock_samples(manifest)
    return {sample["__key__"]: _read(manifest, sample) for sample in samples}


def _read(manifest: Manifest, sample: dict[str, Any]) -> tuple[str, str | None, bytes]:
    metadata, pixels = json.loads(sample["json"]), np.load(io.BytesIO(sample["npy"]))
    assert manifest.classes[int(sample["cls"])] == metadata["class"]
    return metadata["class"], metadata.get("group"), pixels.tobytes()


def check_set(manifest: Manifest) -> Clips:
    """It has no fault, its files agree, and `wds_pipeline` gives what the index says; -> clips."""
    loaded = load_manifest(manifest.root)
    assert (loaded, loaded.digest) == (manifest, manifest.digest)
    assert verify_full(manifest, workers=1) == []
    assert len(set(manifest.keys())) == len(manifest.index)
    names = {path.name for path in manifest.root.iterdir()}
    shards = {shard.name for shard in manifest.shards}
    files = {"manifest.json", manifest.index_file, "classes.txt"}
    assert (
        shards | files
        <= names
        <= shards | files | {"rejects.jsonl", "notes.json", "warnings.jsonl"}
    )
    assert (manifest.root / "classes.txt").read_text().splitlines() == list(manifest.classes)
    clips = clips_of(manifest)
    samples = list(wds_pipeline(manifest.root))
    piped = {
        sample["__key__"]: (
            manifest.classes[sample["cls"]], sample["json"].get("group"), sample["npy"].tobytes()
        )
        for sample in samples
    }  # fmt: skip
    assert [sample["__key__"] for sample in samples] == manifest.keys()
    assert piped == clips
    assert all(sample["json"]["class"] == clips[sample["__key__"]][0] for sample in samples)
    return clips

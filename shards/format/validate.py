"""What manifest and index must be before anybody uses a number of theirs.

Offsets outside the shards, sizes that overflow, names that climb out of the folder or the cache are
refused when the set is opened, and no reader checks again.
"""

import math
import re
from itertools import chain

import numpy as np

from . import schema
from .schema import MANIFEST, MAX_CLIP_BYTES, NO_GROUP, SUBSETS, Manifest, ShardSetError

_CHECKSUM = re.compile(r"[0-9a-f]{32}")  # it names a file of the cache
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_manifest(manifest: Manifest) -> None:
    """Refuse what a hostile or damaged manifest could use: paths that climb out, absurd sizes."""
    where = f"{manifest.root}/{MANIFEST}"
    shape = manifest.clip_shape
    if len(shape) != 4 or min(shape) < 1 or math.prod(shape) > MAX_CLIP_BYTES:
        raise ShardSetError(f"{where}: clip shape {shape} is not a sensible [T, H, W, C].")
    names = [shard.name for shard in manifest.shards]
    if not all(_is_like(schema.SHARD_NAME, name) for name in names) or len(set(names)) < len(names):
        raise ShardSetError(f"{where}: shard names must be distinct and like shard-000000.tar.")
    sizes = ((shard.samples, shard.bytes, shard.removed) for shard in manifest.shards)
    if not all(map(_is_size, chain.from_iterable(sizes))):
        raise ShardSetError(f"{where}: a shard has a negative or absurd size.")
    if not all(_is_like(_CHECKSUM, shard.xxh3) for shard in manifest.shards):
        raise ShardSetError(f"{where}: a shard's xxh3 is not 32 hex digits.")
    if any(type(shard.relabelled) is not bool for shard in manifest.shards):
        raise ShardSetError(f"{where}: a shard's relabelled is not true or false.")
    if not _is_like(schema.INDEX_NAME, manifest.index_file):
        raise ShardSetError(f"{where}: {manifest.index_file!r} is no name of an index.")
    for edit in manifest.edits:
        counts = (edit.added, edit.removed, edit.relabelled)
        if not _is_like(_DIGEST, edit.digest) or not all(map(_is_size, counts)):
            raise ShardSetError(f"{where}: {edit} is no edit of a shard set.")
    if not manifest.classes or any(not isinstance(name, str) for name in manifest.classes):
        raise ShardSetError(f"{where}: it names no classes.")
    if any(not isinstance(name, str) for name in manifest.groups):
        raise ShardSetError(f"{where}: a group's name is not text.")
    if manifest.grouping == "ucf101" and not schema.are_ucf101(manifest.groups):
        raise ShardSetError(f"{where}: its groups are not UCF101's, as it says they are.")
    if not isinstance(manifest.sampling, dict) or not isinstance(manifest.resize, dict):
        raise ShardSetError(f"{where}: its sampling and resize rules are not JSON objects.")


def _is_like(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def check_index(manifest: Manifest, index: np.ndarray) -> None:
    """Every number in the index must point at something that exists."""
    path = f"{manifest.root}/{manifest.index_file}"
    if len(index) != sum(shard.samples for shard in manifest.shards):
        raise ShardSetError(f"{path} and {MANIFEST} disagree on the number of samples.")
    if len(index) == 0:
        raise ShardSetError(f"the shard set at {manifest.root} holds no clip.")
    if np.frombuffer(index["key"].tobytes(), np.uint8).max() >= 128:
        raise ShardSetError(f"{path} has a key that is not ASCII.")
    if index["shard"].max() >= len(manifest.shards):
        raise ShardSetError(f"{path} names a shard that {MANIFEST} does not.")
    if index["label"].max() >= len(manifest.classes):
        raise ShardSetError(f"{path} has a label outside the {len(manifest.classes)} classes.")
    if index["group"].max() >= len(manifest.groups) or index["group"].min() < NO_GROUP:
        raise ShardSetError(f"{path} has a group outside the {len(manifest.groups)} groups.")
    if index["side"].max() >= len(SUBSETS):
        raise ShardSetError(f"{path} has a split side outside {SUBSETS}.")
    sizes = np.array([shard.bytes for shard in manifest.shards], np.uint64)[index["shard"]]
    clip = np.uint64(manifest.clip_bytes)
    if (sizes < clip).any() or (index["offset"] > sizes - clip).any():
        bad = int(np.argmax((sizes < clip) | (index["offset"] > sizes - clip)))
        raise ShardSetError(
            f"{path}: sample {index['key'][bad].decode(errors='replace')} lies outside its shard."
        )

"""The format of a shard set (docs/format.md): schema, manifest, writing, reading, verification."""

from .manifest_io import load_manifest, save_manifest
from .reader import ClipReader, open_shard
from .schema import (
    INDEX,
    MANIFEST,
    NO_GROUP,
    NOTES,
    REJECTS,
    SCHEMA,
    SUBSETS,
    Manifest,
    ShardInfo,
    ShardSetError,
    index_dtype,
    make_index,
    valid_key,
)  # fmt: skip
from .verify import Fault, verify_full, verify_quick
from .writer import ShardWriter, sample_bytes, write_shard

__all__ = [
    "INDEX", "MANIFEST", "NOTES", "NO_GROUP", "REJECTS", "SCHEMA", "SUBSETS", "ClipReader", "Fault",
    "Manifest", "ShardInfo", "ShardSetError", "ShardWriter", "index_dtype", "load_manifest",
    "make_index", "open_shard", "sample_bytes", "save_manifest", "valid_key", "verify_full",
    "verify_quick", "write_shard",
]  # fmt: skip

"""The format of a shard set (docs/format.md): schema, manifest, writing, reading, verification."""

from .journal import (
    BUILD,
    Journal,
    next_shard_number,
    read_journal,
    remove_leftovers,
    remove_temporary_files,
    write_journal,
)
from .manifest_io import encode_classes, load_manifest, save_manifest
from .reader import ClipReader, open_shard
from .schema import (
    CLASSES,
    INDEX,
    MANIFEST,
    MAX_CLIP_BYTES,
    NO_GROUP,
    NOTES,
    REJECTS,
    SCHEMA,
    SUBSETS,
    WARNINGS,
    Edit,
    Manifest,
    ShardInfo,
    ShardSetError,
    are_ucf101,
    index_dtype,
    make_index,
    valid_key,
)  # fmt: skip
from .verify import Fault, verify_full, verify_quick
from .writer import ShardWriter, sample_bytes, write_shard

__all__ = [
    "BUILD", "CLASSES", "INDEX", "MANIFEST", "MAX_CLIP_BYTES", "NOTES", "NO_GROUP", "REJECTS",
    "SCHEMA", "SUBSETS", "WARNINGS", "ClipReader", "Edit", "Fault", "Journal", "Manifest",
    "ShardInfo", "ShardSetError", "ShardWriter", "are_ucf101", "encode_classes", "index_dtype",
    "load_manifest", "make_index", "next_shard_number", "open_shard", "read_journal",
    "remove_leftovers", "remove_temporary_files", "sample_bytes", "save_manifest", "valid_key",
    "verify_full", "verify_quick", "write_journal", "write_shard",
]  # fmt: skip

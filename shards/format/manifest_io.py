"""Save and load a shard set's index and manifest, in a folder or behind a URL."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import LocalFolder, RemoteFolder, open_folder
from .schema import INDEX, MANIFEST, SCHEMA, Manifest, ShardInfo, ShardSetError, index_dtype
from .validate import check_index, check_manifest

_NOT_SAVED = ("root", "digest", "index")


def save_manifest(manifest: Manifest, root: Path | str) -> Manifest:
    """Write index and manifest into `root` (folder or URL), the manifest last; -> the loaded set.

    `index_sha256` is computed here. Raises OSError, or StorageError for a URL.
    """
    folder, buffer = open_folder(root), io.BytesIO()
    np.save(buffer, manifest.index, allow_pickle=False)
    folder.write(INDEX, buffer.getvalue())
    body = {name: value for name, value in asdict(manifest).items() if name not in _NOT_SAVED}
    body["index_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    folder.write(MANIFEST, (json.dumps(body, indent=1, sort_keys=True) + "\n").encode())
    return load_manifest(root)


def load_manifest(root: Path | str) -> Manifest:
    """Read and check manifest and index of the shard set in `root` (folder or URL); no shard.

    Raises ShardSetError, one sentence, when the set is missing, half built, of another schema, or
    when manifest and index do not fit together or point outside the shards; for a URL StorageError.
    """
    folder = open_folder(root)
    try:
        raw = folder.read(MANIFEST)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ShardSetError(_explain_missing(folder)) from error
    path = f"{folder}/{MANIFEST}"
    try:
        body = json.loads(raw)
        schema = body.get("schema") if isinstance(body, dict) else None
        if schema != SCHEMA:
            raise ShardSetError(
                f"{path} has schema {schema!r}; this version reads schema {SCHEMA}: "
                "build the shards again with 'har-shards build'."
            )
        manifest = _parse(body, folder, hashlib.sha256(raw).hexdigest())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ShardSetError):
            raise
        raise ShardSetError(f"{path} is not a shard set's manifest ({error}).") from error
    check_manifest(manifest)
    index = _load_index(manifest, folder)
    check_index(manifest, index)
    return replace(manifest, index=index)


def _parse(body: dict[str, Any], folder: LocalFolder | RemoteFolder, digest: str) -> Manifest:
    if unknown := body.keys() & set(_NOT_SAVED):
        raise TypeError(f"unexpected field {sorted(unknown)[0]!r}")
    fields = {
        **body,
        "shards": tuple(ShardInfo(**shard) for shard in body["shards"]),
        "clip_shape": tuple(int(size) for size in body["clip_shape"]),
        "classes": tuple(body["classes"]),
        "groups": tuple(body["groups"]),
    }
    root = folder.path if isinstance(folder, LocalFolder) else folder.url
    return Manifest(**fields, root=root, digest=digest)


def _explain_missing(folder: LocalFolder | RemoteFolder) -> str:
    missing = f"there is no shard set at {folder}"
    if isinstance(folder, RemoteFolder):
        return (
            f"{missing} (no {MANIFEST}): give the URL of the folder that 'har-shards build --out' "
            "wrote or that was uploaded from there."
        )
    if not folder.path.exists():
        return f"{missing}: make one with 'make shards' or 'har-shards build'."
    if any(folder.path.glob("*.tar")) or any(folder.path.glob(".*.tmp")):
        return (
            f"the shard set at {folder} is half built (no {MANIFEST}): "
            "run the same 'har-shards build' again, it goes on where it stopped."
        )
    return f"{folder} is not a shard set (no {MANIFEST}): give the folder 'har-shards build' wrote."


def _load_index(manifest: Manifest, folder: LocalFolder | RemoteFolder) -> np.ndarray:
    path = f"{folder}/{INDEX}"
    try:
        raw = folder.read(INDEX)
    except OSError as error:
        raise ShardSetError(f"{path} cannot be read ({error.strerror or 'missing'}).") from error
    if hashlib.sha256(raw).hexdigest() != manifest.index_sha256:
        raise ShardSetError(f"{path} is not the index that {MANIFEST} was written with.")
    try:
        index = np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ShardSetError(f"{path} is damaged ({error}).") from error
    if index.ndim != 1 or index.dtype != index_dtype(max(index.dtype[0].itemsize, 1)):
        raise ShardSetError(f"{path} does not have the columns of schema {SCHEMA}.")
    return index

"""Save and load a shard set's index and manifest, in a folder or behind a URL."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import Folder, LocalFolder, RemoteFolder, open_folder
from .journal import BUILD, read_journal
from .schema import (
    CLASSES,
    INDEX,
    MANIFEST,
    SCHEMA,
    Edit,
    Manifest,
    ShardInfo,
    ShardSetError,
    index_dtype,
)
from .validate import check_index, check_manifest

_REMEDY = "run the same 'har-shards build' again, or take the file from a copy of the set"
_NOT_SAVED = ("root", "digest", "index")


def save_manifest(
    manifest: Manifest, root: Path | str, *, replaces_another: bool = False
) -> Manifest:
    """Write classes, index and manifest into `root` (folder or URL), the manifest last; -> the
    loaded set.

    `index_sha256` is computed here. replaces_another: the set is there already and stays whole
    until the new manifest takes the old one's place: its index is left, and the new one gets
    another name. Raises OSError, or StorageError for a URL.
    """
    folder, buffer = open_folder(root), io.BytesIO()
    np.save(buffer, manifest.index, allow_pickle=False)
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    index_file = f"index-{sha256[:16]}.npy" if replaces_another else INDEX
    manifest = replace(manifest, index_sha256=sha256, index_file=index_file)
    body = json.dumps(_saved_fields(manifest), indent=1, sort_keys=True) + "\n"
    folder.write(CLASSES, encode_classes(manifest.classes))
    folder.write(index_file, buffer.getvalue())
    folder.write(MANIFEST, body.encode())
    return load_manifest(root)


def encode_classes(classes: Sequence[str]) -> bytes:
    """What `classes.txt` holds: the names in the order of their numbers, one a line."""
    return "".join(f"{name}\n" for name in classes).encode(errors="surrogateescape")


def _saved_fields(manifest: Manifest) -> dict[str, Any]:
    """What manifest.json holds: fields that only an edited set needs where they say something."""
    body = {name: value for name, value in asdict(manifest).items() if name not in _NOT_SAVED}
    optional = {"index_file": INDEX, "edits": (), "removed": 0, "relabelled": False}
    for entry in (body, *body["shards"]):
        for name, default in optional.items():
            if name in entry and entry[name] == default:
                del entry[name]
    return body


def load_manifest(root: Path | str) -> Manifest:
    """Read and check manifest and index of the shard set in `root` (folder or URL); no shard.

    Raises ShardSetError, one sentence, when the set is missing, half built, of another schema, or
    when manifest and index do not fit together or point outside the shards; for a URL StorageError.
    """
    folder = open_folder(root)
    raw = _read_manifest(folder)
    while True:
        manifest = _check(raw, folder)
        try:
            index = _load_index(manifest, folder)
        except ShardSetError:  # it may have been edited between the two reads
            raw, read_before = _read_manifest(folder), raw
            if raw == read_before:
                raise
        else:
            check_index(manifest, index)
            return replace(manifest, index=index)


def _read_manifest(folder: Folder) -> bytes:
    try:
        return folder.read(MANIFEST)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ShardSetError(_explain_missing(folder)) from error


def _check(raw: bytes, folder: Folder) -> Manifest:
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
        raise ShardSetError(
            f"{path} is not a shard set's manifest ({error}): {_REMEDY}."
        ) from error
    check_manifest(manifest)
    return manifest


def _parse(body: dict[str, Any], folder: Folder, digest: str) -> Manifest:
    if unknown := body.keys() & set(_NOT_SAVED):
        raise TypeError(f"unexpected field {sorted(unknown)[0]!r}")
    fields = {
        **body,
        "shards": tuple(ShardInfo(**shard) for shard in body["shards"]),
        "clip_shape": tuple(int(size) for size in body["clip_shape"]),
        "classes": tuple(body["classes"]),
        "groups": tuple(body["groups"]),
        "edits": tuple(Edit(**edit) for edit in body.get("edits", ())),
    }
    root = folder.path if isinstance(folder, LocalFolder) else folder.url
    return Manifest(**fields, root=root, digest=digest)


def _explain_missing(folder: Folder) -> str:
    missing = f"there is no shard set at {folder}"
    if folder.size(INDEX) is not None and folder.size(f"{BUILD}/plan.json") is None:
        return (
            f"the shard set at {folder} has lost its {MANIFEST}: run the same 'har-shards build' "
            f"again, it makes it from {INDEX}."
        )
    if isinstance(folder, RemoteFolder):
        return (
            f"{missing} (no {MANIFEST}): give the URL of the folder that 'har-shards build --out' "
            "wrote or that was uploaded from there."
        )
    if not folder.path.exists():
        return f"{missing}: make one with 'make shards' or 'har-shards build'."
    if not folder.path.is_dir():
        return f"{folder} is a file: give the folder 'har-shards build' wrote."
    journal = read_journal(folder)
    if journal is not None:
        return (
            f"'har-shards {journal.command}' to {folder} did not end (no {MANIFEST}): run the same "
            "command again."
        )
    if (folder.path / BUILD).exists():
        return (
            f"the shard set at {folder} is half built (no {MANIFEST}): "
            "run the same 'har-shards build' again, it goes on where it stopped."
        )
    if any(folder.path.glob("*.tar")):
        return (
            f"{folder} holds shards, and neither {MANIFEST} nor {INDEX} says what is in them: take "
            "both from a copy of the set, or build it again with another --out."
        )
    return f"{folder} is not a shard set (no {MANIFEST}): give the folder 'har-shards build' wrote."


def _load_index(manifest: Manifest, folder: Folder) -> np.ndarray:
    path = f"{folder}/{manifest.index_file}"
    try:
        raw = folder.read(manifest.index_file)
    except OSError as error:
        raise ShardSetError(
            f"{path} cannot be read ({error.strerror or 'missing'}): {_REMEDY}."
        ) from error
    if hashlib.sha256(raw).hexdigest() != manifest.index_sha256:
        raise ShardSetError(f"{path} is not the index that {MANIFEST} was written with: {_REMEDY}.")
    try:
        index = np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ShardSetError(f"{path} is damaged ({error}).") from error
    if index.ndim != 1 or index.dtype != index_dtype(max(index.dtype[0].itemsize, 1)):
        raise ShardSetError(f"{path} does not have the columns of schema {SCHEMA}.")
    return index

"""A new set made of clips of others: whole, or not there; a killed command starts over."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ..format import (
    BUILD,
    MANIFEST,
    REJECTS,
    WARNINGS,
    Journal,
    Manifest,
    read_journal,
    remove_leftovers,
    save_manifest,
    verify_quick,
    write_journal,
)
from ..storage import Folder, open_folder
from .rewrite import Part, ShardRewriter
from .transaction import EditError, clear_errors, prune_groups


@contextlib.contextmanager
def new_set(out: Path | str, command: str) -> Iterator[Folder]:
    """An empty folder for the set, which nobody else writes. Raises EditError, StorageError."""
    folder = open_folder(out)
    with clear_errors(folder):
        if folder.size(MANIFEST) is not None:  # perhaps the one that clips are taken from
            raise EditError(f"{folder} is a shard set already: give another -o.")
        folder.make()
        with folder.locked() as is_ours:
            if not is_ours:
                raise EditError(f"another command is writing {folder}: wait for it.")
            if read_journal(folder) is not None:
                remove_leftovers(folder, None)
            foreign = [name for name in folder.names() if name != BUILD]
            if foreign:
                raise EditError(f"{folder} is not empty ({foreign[0]}): give another -o.")
            write_journal(folder, Journal(command, 0))
            yield folder


def write_set(
    folder: Folder,
    new: Manifest,
    parts: Sequence[Part],
    progress: Callable[[], None],
    *,
    copy: bool = False,
) -> Manifest:
    """Write the set `new`, whose clips are those of the parts; -> it as it was saved.

    copy: write every clip anew, link no shard.
    """
    rewriter = ShardRewriter(
        folder, new, first_number=0, progress=progress,
        max_bytes=max(shard.bytes for part in parts for shard in part.source.shards),
    )  # fmt: skip
    with closing(rewriter):
        for part in parts:
            rewriter.add(part, copy=copy)
        shards, index = rewriter.finish()
    new = prune_groups(replace(new, shards=shards, index=index, root=str(folder)))
    if faults := verify_quick(new):
        raise EditError(f"{folder} is not as it was written ({faults[0]}): run the command again.")
    _write_sidecars(folder, parts, new.rejects)
    saved = save_manifest(new, str(folder))
    remove_leftovers(folder, saved)
    return saved


def read_rejects(manifest: Manifest) -> list[bytes]:
    """The lines of the videos that are not in the set; behind them may be those of an `add` that
    did not end."""
    return _read(manifest, REJECTS).splitlines(keepends=True)[: manifest.rejects]


def _write_sidecars(folder: Folder, parts: Sequence[Part], num_rejects: int) -> None:
    """What is known of videos: the rejects of all sets or of none, what is odd about the others."""
    rejects = [line for part in parts for line in read_rejects(part.source)]
    folder.write(REJECTS, b"".join(rejects if num_rejects else []))
    warnings = []
    for part in parts:
        keys = {key.split("@")[0] for key in part.source.keys(part.samples)}
        lines = _read(part.source, WARNINGS).splitlines(keepends=True)
        warnings += [line for line in lines if json.loads(line)["key"] in keys]
    if warnings:
        folder.write(WARNINGS, b"".join(warnings))


def _read(manifest: Manifest, name: str) -> bytes:
    try:
        return open_folder(manifest.root).read(name)
    except FileNotFoundError:
        return b""

"""One edit of a set at a time, and the moment at which the old set becomes the new one.

New shards and the new index are written beside the old ones, under names of their own; then the new
manifest takes the place of the old one in one step; then what only the old one named is removed.
Whatever kills an edit, the set is the old one or the new one.

Notes: a store behind a URL has no locks: there it is up to the user that nobody else edits the set.
A program that has a set open keeps reading the old one, but for shards that `compact` removed.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import HarError
from .. import storage
from ..format import (
    NO_GROUP,
    Edit,
    Manifest,
    load_manifest,
    remove_leftovers,
    save_manifest,
    verify_quick,
)
from ..storage import Folder, open_folder


class EditError(HarError):
    """An edit that cannot be done as asked; the text is one sentence. The set is as it was."""


def clear_errors(folder: Folder) -> contextlib.AbstractContextManager[None]:
    """An OSError of the block becomes one sentence (EditError)."""
    return storage.clear_errors(folder, EditError, "no set was changed")


@contextlib.contextmanager
def locked_set(root: Path | str) -> Iterator[tuple[Folder, Manifest]]:
    """The set at `root`, which nobody else builds or edits meanwhile where locks exist.

    Raises EditError, ShardSetError, StorageError.
    """
    load_manifest(root)  # says in which way there is no set
    folder = open_folder(root)
    with folder.locked() as is_ours:
        if not is_ours:
            raise EditError(f"another command is writing {folder}: wait for it.")
        yield folder, load_manifest(root)


def commit_edit(
    folder: Folder, old: Manifest, new: Manifest, command: str, **counts: int
) -> Manifest:
    """Make `new` the set in `folder`, which is `old` so far; -> `new` as it was saved.

    counts: see `Edit`. Groups that have lost their last clip are left out. Raises EditError where a
    shard of the new set is not as it should be or the disk refuses, and StorageError; the set is
    `old` then.
    """
    edit = Edit(command, old.digest, **counts)
    new = replace(prune_groups(new), edits=(*old.edits, edit))
    if len(new.index) == 0:
        raise EditError(f"nothing would be left in {folder}: remove the folder instead.")
    if faults := verify_quick(new):
        raise EditError(
            f"{folder} is as it was, since a shard is not as it should be ({faults[0]}): mend that "
            f"first, as 'har-shards verify {folder}' says."
        )
    with clear_errors(folder):
        saved = save_manifest(new, str(folder), replaces_another=True)
    remove_leftovers(folder, saved)
    return saved


def prune_groups(manifest: Manifest) -> Manifest:
    """Without the groups that no clip is of."""
    used = np.unique(manifest.index["group"])
    used = used[used != NO_GROUP]
    number = np.full(len(manifest.groups) + 1, NO_GROUP, np.int32)  # the last is that of NO_GROUP
    number[used] = np.arange(len(used))
    index = manifest.index.copy()
    index["group"] = number[index["group"]]
    groups = tuple(manifest.groups[group] for group in used.tolist())
    return replace(
        manifest, index=index, groups=groups, grouping=manifest.grouping if groups else None
    )

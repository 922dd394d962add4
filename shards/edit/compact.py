"""Write anew the shards that hold removed clips or old labels."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..format import Journal, Manifest, next_shard_number, remove_leftovers, write_journal
from .rewrite import Part, ShardRewriter
from .transaction import clear_errors, commit_edit, locked_set


def compact_set(root: Path | str, progress: Callable[[], None] = lambda: None) -> Manifest:
    """-> the set without the bytes of removed clips: the same clips in the same order.

    Shards that follow each other are united up to the size of the largest. The old ones are removed
    at the end. progress: called after each shard. Raises EditError, ShardSetError, StorageError.
    """
    with locked_set(root) as (folder, manifest), clear_errors(folder):
        remove_leftovers(folder, manifest)
        stale = tuple(s.name for s in manifest.shards if s.removed or s.relabelled)
        if not stale:
            return manifest
        first = next_shard_number(manifest)
        write_journal(folder, Journal("compact", first, stale))
        rewriter = ShardRewriter(
            folder, manifest, first_number=first, progress=progress,
            max_bytes=max(shard.bytes for shard in manifest.shards),
        )  # fmt: skip
        with closing(rewriter):
            samples = np.arange(len(manifest.index))
            rewriter.add(Part(manifest, samples, manifest.index), in_place=True)
            shards, index = rewriter.finish()
        new = replace(manifest, shards=shards, index=index)
        return commit_edit(folder, manifest, new, "compact")

"""Shards of a changed set: linked or copied whole where nothing in them changes, else the clips of
several copied into a new one, with label, class and group as the index has them now.

Every copied clip is compared with its checksum, and every copied shard with its own. Nothing is
decoded.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...atomic import replacing
from ..format import (
    NO_GROUP,
    ClipReader,
    Manifest,
    ShardInfo,
    ShardWriter,
    sample_bytes,
    write_shard,
)
from ..format.writer import BLOCK, END
from ..storage import Folder, LocalFolder, RemoteFolder, open_folder, shard_checksum
from .transaction import EditError


@dataclass(frozen=True)
class Part:
    """Clips of one set that go into another. samples: their indices in `source`, rising.

    index: their rows, with label, group and video of the new set; shard and offset are set later.
    """

    source: Manifest
    samples: np.ndarray
    index: np.ndarray


class ShardRewriter:
    """Writes the shards of a new set into `folder`; classes, groups: those of the new set.

    first_number: of the first shard that is written. max_bytes: of one. progress: called after each
    shard that was read. Raises EditError, ShardSetError, StorageError.
    """

    def __init__(
        self,
        folder: Folder,
        new: Manifest,
        *,
        first_number: int,
        max_bytes: int,
        progress: Callable[[], None],
    ) -> None:
        self._folder, self._number, self._max_bytes = folder, first_number, max_bytes
        self._progress = progress
        self._classes = np.array(new.classes, object)
        self._groups = np.array([*new.groups, None], object)  # the last is that of NO_GROUP
        self._shards: list[ShardInfo] = []
        self._rows: list[np.ndarray] = []
        self._writer: ShardWriter | None = None
        self._stack = ExitStack()

    def add(self, part: Part, *, in_place: bool = False, copy: bool = False) -> None:
        """Write the clips of a part. in_place: it is of this very folder, whole shards stay. copy:
        write them anew as well."""
        source, classes = part.source, np.array(part.source.classes, object)
        groups = np.array([*source.groups, None], object)
        old = source.index[part.samples]
        is_same = (
            (old["label"] == part.index["label"])
            & (classes[old["label"]] == self._classes[part.index["label"]])
            & (groups[old["group"]] == self._groups[part.index["group"]])
        )
        with closing(ClipReader(source)) as reader:
            for number, shard in enumerate(source.shards):
                positions = np.flatnonzero(old["shard"] == number)
                is_whole = len(positions) == shard.samples and bool(is_same[positions].all())
                is_whole &= len(positions) > 0 and not (copy or shard.removed or shard.relabelled)
                if is_whole:
                    self._end_shard()
                    self._shards.append(shard if in_place else self._place(source, shard))
                    self._keep_rows(part.index[positions], old["offset"][positions])
                else:
                    self._copy_clips(reader, part, positions)
                self._progress()

    def finish(self) -> tuple[tuple[ShardInfo, ...], np.ndarray]:
        """-> the shards and the index of the new set."""
        self._end_shard()
        return tuple(self._shards), np.concatenate(self._rows)

    def close(self) -> None:
        """A shard that was not ended is removed."""
        self._stack.close()

    def _copy_clips(self, reader: ClipReader, part: Part, positions: np.ndarray) -> None:
        size = sample_bytes(part.source.clip_shape, json_bytes=BLOCK) + len(END)
        pixels = reader.scratch()
        for position in positions.tolist():
            sample, row = int(part.samples[position]), part.index[position]
            reader.read_into(sample, pixels)
            metadata = reader.read_metadata(sample)
            metadata["class"] = self._classes[row["label"]]
            if "group" in metadata or row["group"] != NO_GROUP:
                metadata["group"] = self._groups[row["group"]]
            if self._writer is not None and self._writer.num_bytes + size > self._max_bytes:
                self._end_shard()
            if self._writer is None:
                self._writer = self._stack.enter_context(write_shard(self._folder, self._name()))
            offset, _ = self._writer.add(row["key"].decode(), pixels, int(row["label"]), metadata)
            self._keep_rows(part.index[position : position + 1], np.array([offset], np.uint64))

    def _keep_rows(self, rows: np.ndarray, offsets: np.ndarray) -> None:
        """Rows of the shard that is being written, else of the last one."""
        rows = rows.copy()
        rows["shard"] = len(self._shards) - (self._writer is None)
        rows["offset"] = offsets
        self._rows.append(rows)

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._shards.append(self._writer.close())
            self._writer = None
            self._stack.close()

    def _name(self) -> str:
        self._number += 1
        return f"shard-{self._number - 1:06d}.tar"

    def _place(self, source: Manifest, shard: ShardInfo) -> ShardInfo:
        """The whole shard under a new name: a hard link where the file system can."""
        name, origin = self._name(), open_folder(source.root)
        with self._folder.staged(name) as path:
            if isinstance(origin, LocalFolder) and isinstance(self._folder, LocalFolder):
                with contextlib.suppress(OSError):
                    os.link(origin.path / shard.name, path)
                    return replace(shard, name=name)
            with replacing(path) as temporary:
                if isinstance(origin, RemoteFolder):
                    origin.fetch(shard, temporary)
                else:
                    _copy(origin.path / shard.name, temporary, shard)
        return replace(shard, name=name)


def _copy(source: Path, target: Path, shard: ShardInfo) -> None:
    shutil.copyfile(source, target)
    if shard_checksum(target) != shard.xxh3:
        raise EditError(
            f"{source} does not have the checksum of its manifest: run 'har-shards verify "
            f"{source.parent}'."
        )

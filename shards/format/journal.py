"""What an edit of a set will write and make obsolete, so that a killed one leaves no waste.

The journal is written before the first shard of an edit and removed after the manifest. Files that
it names and the manifest does not are of no use, and no fault: the next edit removes them. They are
found by name, since a tar that somebody else put there is not ours to remove.
"""

import json
import re
from dataclasses import asdict, dataclass

from ..storage import Folder
from . import schema
from .schema import CLASSES, INDEX, MANIFEST, NOTES, REJECTS, WARNINGS, Manifest, ShardSetError

BUILD = ".build"  # folder for what only an unfinished build or edit needs
_JOURNAL = f"{BUILD}/edit.json"
_SIDECARS = (CLASSES, NOTES, REJECTS, WARNINGS)  # files that no reader needs
_FILES = "|".join(map(re.escape, (INDEX, MANIFEST, *_SIDECARS)))
_TEMPORARY = re.compile(rf"\.(shard-\d+\.tar|index-[0-9a-f]+\.npy|{_FILES})\..*tmp")


@dataclass(frozen=True)
class Journal:
    """first_new: number of the first shard that the edit writes. obsolete: shards that it replaces.

    plan: hash of what an `add` builds, which another run of the same command goes on with.
    """

    command: str
    first_new: int
    obsolete: tuple[str, ...] = ()
    plan: str = ""

    def names(self, shard: str) -> bool:
        """Whether the edit writes or replaces this shard."""
        match = schema.SHARD_NAME.fullmatch(shard)
        return shard in self.obsolete or (match is not None and int(match[1]) >= self.first_new)


def next_shard_number(manifest: Manifest) -> int:
    """No shard of the set has this number or a higher one."""
    return 1 + max((int(shard.name[6:-4]) for shard in manifest.shards), default=-1)


def write_journal(folder: Folder, journal: Journal) -> None:
    """Raises OSError, StorageError."""
    folder.write(_JOURNAL, json.dumps(asdict(journal)).encode())


def read_journal(folder: Folder) -> Journal | None:
    """That of an edit that runs or was killed; None without one.

    Raises StorageError, and ShardSetError where it is damaged.
    """
    try:
        body = json.loads(folder.read(_JOURNAL))
        return Journal(**{**body, "obsolete": tuple(body["obsolete"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ShardSetError(
            f"{folder}/{_JOURNAL} is damaged ({error!r}): remove it; what a killed edit left stays "
            "then beside the set, which does not need it."
        ) from error


def remove_leftovers(folder: Folder, manifest: Manifest | None) -> None:
    """Remove what ended or killed builds and edits left beside `manifest` (None: there is none)."""
    journal, names = read_journal(folder), folder.names()
    kept = set(_SIDECARS) if manifest else set()
    if manifest is not None:
        kept |= {manifest.index_file, *(shard.name for shard in manifest.shards)}
    for name in names:
        is_shard = journal is not None and journal.names(name)
        is_other = name in _SIDECARS or schema.INDEX_NAME.fullmatch(name)
        if name not in kept and (is_shard or (is_other and (journal or manifest))):
            folder.remove(name)
    remove_temporary_files(folder)
    if BUILD in names:
        folder.remove(BUILD)


def remove_temporary_files(folder: Folder) -> None:
    """Those of a build or edit that was killed, and no other file of that kind."""
    for name in folder.names():
        if _TEMPORARY.fullmatch(name):
            folder.remove(name)

"""What finding videos gives: videos, classes, and what has to be said about them.

Nothing that is left out, guessed or changed goes without a word: it is collected in `Remarks` while
the videos are found, kept in the set's `notes.json`, and said by the build and by `info`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import HarError, printable
from ...shards.format import NOTES
from ...shards.storage import Folder, open_folder

WHERE = (
    "UCF101 comes from UCF's Center for Research in Computer Vision (its UCF101 page) or from "
    "Kaggle, unpacked as one folder a class (UCF-101/YoYo/v_YoYo_g01_c01.avi); "
    "'make demo' needs none of it"
)
_MAX_NAMES = 5  # of what is left out for one reason
Notes = dict[str, Any]  # the content of a set's `notes.json`


class DatasetError(HarError):
    """A dataset that is missing or does not make sense; the text is one sentence."""


@dataclass(frozen=True)
class Video:
    """One file, or one folder of numbered images.

    path: relative to the dataset, with `/`; that of a folder ends in `/`. label: class number.
    group: "" = none. clip: UCF101's cNN, else 0. subset: number in `SUBSETS`, 0 = none given.
    size: bytes.
    """

    path: str
    label: int
    group: str
    clip: int
    subset: int
    key: str
    size: int


def hash_path(path: str) -> str:
    """Eight hex digits, which a key gets where two videos would share it."""
    return hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:8]


@dataclass(frozen=True)
class LeftOut:
    """What is not taken for one reason. reason: says what it is. names: the first of them."""

    reason: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """Videos in order of their path. grouping: "ucf101", "regex", "csv", "folder" or None.

    root: the folder, an absolute path or a URL. left_out: files that are no part of it. notes:
    sentences about what was guessed or changed.
    """

    root: str
    classes: tuple[str, ...]
    grouping: str | None
    videos: tuple[Video, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def describe(
        self, note: str | None = None, shapes: dict[str, dict[str, int]] | None = None
    ) -> Notes:
        """What is to be said of it; {} for nothing.

        note: one more. shapes: of the videos of each shard, where they are not the clips'.
        """
        notes = [*self.notes, *filter(None, [note])]
        if not self.left_out and not notes:
            return {}
        left_out = [{**asdict(entry), "names": list(entry.names)} for entry in self.left_out]
        return {"left_out": left_out, "notes": notes, **({"shapes": shapes} if shapes else {})}


@dataclass(frozen=True)
class Entry:
    """A video as the tree or a list names it. group: None where nothing says one."""

    path: str
    class_name: str
    group: str | None = None
    subset: int = 0

    @property
    def stem(self) -> str:
        """The name of the file without its suffix, or of the folder of images."""
        if self.path.endswith("/"):
            return self.path[:-1].rsplit("/", 1)[-1]
        return self.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def load_notes(root: Path | str) -> Notes:
    """Those of a set (folder or URL); {} where it has none. Raises DatasetError."""
    try:
        notes: Notes = json.loads(open_folder(root).read(NOTES))
        if not isinstance(notes, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{root}/{NOTES} is damaged ({error}): remove it; it only says what was left out or "
            "guessed when the set was built."
        ) from error
    return notes


def save_notes(folder: Folder, notes: Notes) -> None:
    """Make these the notes of a set. Raises OSError, StorageError."""
    if notes:
        folder.write(NOTES, (json.dumps(notes, indent=1) + "\n").encode())
    else:
        folder.remove(NOTES)


def note_lines(notes: Notes) -> list[str]:
    """A line for each entry."""
    lines = [f"note: {text}" for text in notes.get("notes", ())]
    return lines + describe_left_out([LeftOut(**entry) for entry in notes.get("left_out", ())])


def describe_left_out(left_out: Iterable[LeftOut]) -> list[str]:
    """A line for each kind."""
    return [
        f"left out: {entry.reason}, {entry.count} in all: {', '.join(entry.names)}"
        + ", ..." * (entry.count > len(entry.names))
        for entry in left_out
    ]


class Remarks:
    """Collects what was left out, by reason, and notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._left_out: dict[str, list[str]] = {}

    def leave_out(self, reason: str, names: list[str]) -> None:
        """reason: says what they are, in the plural."""
        if names:
            self._left_out.setdefault(reason, []).extend(names)

    def left_out(self) -> tuple[LeftOut, ...]:
        return tuple(
            LeftOut(reason, len(names), tuple(map(printable, sorted(names)[:_MAX_NAMES])))
            for reason, names in self._left_out.items()
        )

"""What finding videos gives: videos, classes, and what has to be said about them.

Nothing that is left out, guessed or changed goes without a word: it is collected in `Remarks` while
the videos are found, kept in the set's `notes.json`, and said by the build and by `info`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import HarError, printable
from ...shards.format import NOTES
from ...shards.storage import open_folder

WHERE = (
    "UCF101 comes from UCF's Center for Research in Computer Vision (its UCF101 page) or from "
    "Kaggle, unpacked as one folder a class (UCF-101/YoYo/v_YoYo_g01_c01.avi); "
    "'make demo' needs none of it"
)
_MAX_NAMES = 5  # of what is left out for one reason


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

    def notes_json(
        self, note: str | None = None, shapes: dict[str, dict[str, int]] | None = None
    ) -> bytes | None:
        """The content of a set's `notes.json`; None where there is nothing to say.

        note: one more. shapes: of the videos of each shard, where they are not the clips'.
        """
        notes = [*self.notes, *filter(None, [note])]
        if not self.left_out and not notes:
            return None
        body = {"left_out": list(map(asdict, self.left_out)), "notes": notes}
        if shapes:
            body["shapes"] = shapes
        return (json.dumps(body, indent=1) + "\n").encode()


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


def describe_notes(root: Path | str) -> list[str]:
    """The lines of a set's `notes.json` (folder or URL): what was left out, guessed or changed."""
    try:
        return note_lines(open_folder(root).read(NOTES))
    except FileNotFoundError:
        return []


def note_lines(notes_json: bytes | None) -> list[str]:
    """A line for each entry of a `notes.json`, or of what `Dataset.notes_json` gives."""
    if notes_json is None:
        return []
    body = json.loads(notes_json)
    lines = [f"note: {text}" for text in body["notes"]]
    return lines + describe_left_out([LeftOut(**entry) for entry in body["left_out"]])


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

    def describe_left_out(self) -> str:
        """ " (left out: hidden files, 3 in all)", or "" where nothing was."""
        parts = [f"{entry.reason}, {entry.count} in all" for entry in self.left_out()]
        return f" (left out: {'; '.join(parts)})" if parts else ""

"""Names of classes: how they are written, in which order, and the lists of them.

Names are compared in Unicode's NFC form and without blanks around (macOS writes NFD, people write
blanks). UCF101 writes HandstandPushups in two ways, so a list of class names decides on the case;
without a list, names that differ by case alone are an error: they may be one class or two.
"""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import printable
from ...shards import storage
from .files import Files
from .records import DatasetError, Entry, Remarks
from .tables import decode_text

CLASS_LIST = "classInd.txt"
_NUMBERED = re.compile(r"(\d+)(?:\s+|\s*[,;]\s*)(\S.*)")
_HEADER = re.compile(r"[A-Za-z_]+\s*[,;]\s*[A-Za-z_]+")


def clean_name(name: str) -> str:
    """One line: a line end, which a folder or a cell in quotes may hold, counts as a blank."""
    return unicodedata.normalize("NFC", " ".join(printable(name).splitlines())).strip()


@dataclass(frozen=True)
class ClassList:
    """Class names in order. numbers: that of each in the list, as `1 ApplyEyeMakeup` gives them;
    else from 0. place: of the file."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    place: str


def read_class_list(
    files: Files, classes: Path | None, found: Collection[str] = ()
) -> ClassList | None:
    """The list given, else the classInd.txt in the top folder, else None.

    A line is a name, or a number and a name (`1 ApplyEyeMakeup`, or `1,ApplyEyeMakeup` below a line
    of two names of columns); a JSON object gives each name's number. found: names of folders or
    labels, which decide what `1 person`, `2 persons` means.
    Raises DatasetError.
    """
    if classes is None and files.size(CLASS_LIST) < 0:
        return None
    place = str(classes or f"{files.root}/{CLASS_LIST}")
    try:
        data = files.read(CLASS_LIST) if classes is None else storage.read_bytes(place)
    except OSError as error:
        reason = error.strerror or "there is no such file"
        raise DatasetError(f"the class list {place} cannot be read ({reason}).") from error
    text = decode_text(data, f"the class list {place}")
    if text.lstrip().startswith("{"):
        numbered = _parse_json(text, place)
    else:
        numbered = _parse_lines([clean_name(line) for line in text.splitlines()], found)
    names = [name for _, name in numbered]
    if not names or len({name.casefold() for name in names}) != len(names):
        twice = [name for name, count in Counter(map(str.casefold, names)).items() if count > 1]
        example = f" ({twice[0]!r})" if twice else ""
        raise DatasetError(
            f"the class list {place} must name each class once, one a line{example}."
        )
    return ClassList(tuple(names), tuple(number for number, _ in numbered), place)


def _parse_json(text: str, place: str) -> list[tuple[int, str]]:
    try:
        return sorted((int(number), clean_name(name)) for name, number in json.loads(text).items())
    except (ValueError, TypeError) as error:
        raise DatasetError(
            f"the class list {place} is no JSON object of names and numbers ({error})."
        ) from error


def _parse_lines(lines: list[str], found: Collection[str]) -> list[tuple[int, str]]:
    """The lines have numbers if all of them begin with one, and these count from 0 or 1 or what
    stands behind them is a class; and if the whole line is not what the classes are called."""
    lines = [line for line in lines if line]
    if lines[1:] and _HEADER.fullmatch(lines[0]) and all(map(_NUMBERED.fullmatch, lines[1:])):
        del lines[0]
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = sorted((int(match[1]), clean_name(match[2])) for match in matches if match)
    counted = [number for number, _ in numbered]
    is_count = counted in (list(range(len(lines))), list(range(1, len(lines) + 1)))
    classes = {clean_name(name).casefold() for name in found}
    is_class = len(set(counted)) == len(lines) and any(
        name.casefold() in classes or str(number) in classes for number, name in numbered
    )
    if (is_count or is_class) and classes.isdisjoint(map(str.casefold, lines)):
        return numbered
    return list(enumerate(lines))


def unify_names(
    entries: list[Entry], class_list: ClassList | None, merge_case: bool, remarks: Remarks
) -> list[Entry]:
    """The entries with one spelling for each class: the list's, else the only one.

    merge_case: names that differ by case alone are one class, in its most frequent spelling.
    Raises DatasetError.
    """
    written: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        written[clean_name(entry.class_name)][entry.class_name] += 1
    spelled: dict[str, Counter[str]] = defaultdict(Counter)
    for name, raw in written.items():
        spelled[name.casefold()][name] = raw.total()
    listed = {name.casefold(): name for name in class_list.names} if class_list else {}
    chosen: dict[str, str] = {}
    for folded, counts in sorted(spelled.items()):
        if folded not in listed and len(counts) > 1 and not merge_case:
            raise DatasetError(_describe_case(counts))
        most_frequent = min(counts, key=lambda name: (-counts[name], name))
        chosen[folded] = listed.get(folded, most_frequent)
        raw_names = {raw for name in counts for raw in written[name]}
        others = sorted({*counts, *raw_names} - {chosen[folded]})
        if len(raw_names) > 1:
            texts = ", ".join(repr(printable(name)) for name in others)
            remarks.notes.append(f"class {chosen[folded]!r}: also written {texts}")
    return [
        replace(entry, class_name=chosen[clean_name(entry.class_name).casefold()])
        for entry in entries
    ]


def _describe_case(counts: Counter[str]) -> str:
    first, second = sorted(counts)[:2]
    return (
        f"classes {first!r} ({counts[first]} videos) and {second!r} ({counts[second]}) differ only "
        "in upper and lower case: give --merge-case to take such names for one class, or rename "
        "one of the two."
    )


def sort_names(names: Collection[str]) -> list[str]:
    """Sorted by characters; as numbers where all are."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)

"""What the folders of a tree mean: subset, class, group.

A video's class is the folder that it lies in, unless the folders there are groups
(`class/group/clip`, as in UCF11) or subsets. That is guessed where names say it plainly; where two
readings make sense, the user is asked with both.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ...errors import printable
from ...shards.format import SUBSETS
from .records import WHERE, DatasetError, Entry, Remarks

LAYOUTS = ("class/clip", "class/group/clip", "split/class/clip", "split/class/group/clip")
_TRAIN, _VAL, _TEST = 1, 2, 3  # as in SUBSETS
SUBSET_WORDS = {
    "train": _TRAIN, "training": _TRAIN, "val": _VAL, "validation": _VAL, "validate": _VAL,
    "valid": _VAL, "dev": _VAL, "test": _TEST, "testing": _TEST,
}  # fmt: skip
UCF101_NAME = re.compile(r"v_(?P<name>\w+)_g(?P<group>\d+)_c(?P<clip>\d+)", re.ASCII)
_NO_LABEL = "test videos without a class folder, which have no label"


def subset_number(word: str) -> int | None:
    """ "Validation" -> 2; None for what is no subset."""
    return SUBSET_WORDS.get(word.strip().casefold())


@dataclass(frozen=True)
class _Place:
    """A video, its folders below the subset's (where there is one), and the subset."""

    name: str
    folders: tuple[str, ...]
    subset: int = 0

    @property
    def example(self) -> str:
        return printable(self.name.rstrip("/"))


def read_tree(
    names: Sequence[str], layout: str | None, known: Collection[str] | None, remarks: Remarks
) -> list[Entry]:
    """Names of videos -> videos with class, subset and group.

    layout: one of LAYOUTS, or None to guess. known: class names that a list gives. Raises
    DatasetError.
    """
    if layout is not None and layout not in LAYOUTS:
        raise DatasetError(f"--layout {layout!r} is none of {', '.join(LAYOUTS)}.")
    loose = [name for name in names if "/" not in name.rstrip("/")]
    remarks.leave_out("videos in the top folder, in no class folder", loose)
    folders = {name: tuple(name.rstrip("/").split("/")[:-1]) for name in names}
    places = [_Place(name, path) for name, path in folders.items() if path]
    if not places:
        return []
    places = _drop_wrapper(places, 1 + (layout or "class").count("/") - (layout is not None))
    if layout is None:
        places = _guess_subsets(places, remarks)
        has_groups = _guess_groups(places, known, remarks)
    else:
        has_groups = "group" in layout
        if layout.startswith("split"):
            places = [_take_subset(place, layout) for place in places]
    return [_entry(place, has_groups) for place in places]


def _drop_wrapper(places: list[_Place], min_folders: int) -> list[_Place]:
    """Without the folders that all videos share above the classes: what an archive adds."""
    paths = [place.folders for place in places]
    common = 0
    while (
        min(map(len, paths)) - common > min_folders
        and len({path[common] for path in paths}) == 1
        and subset_number(paths[0][common]) is None
    ):
        common += 1
    return [_Place(place.name, place.folders[common:]) for place in places]


def _guess_subsets(places: list[_Place], remarks: Remarks) -> list[_Place]:
    """Take top folders named as subsets for that, where the others do not speak against it; others
    beside them that hold class folders are in no subset."""
    tops = {place.folders[0] for place in places}
    with_classes = {place.folders[0] for place in places if len(place.folders) > 1}
    words = {top: number for top in tops if (number := subset_number(top)) is not None}
    is_split = (
        words.keys() == tops
        or not with_classes.isdisjoint(SUBSETS[1:])
        or (len(set(words.values())) > 1 and not with_classes.isdisjoint(words))
    )
    if not is_split:
        if words:
            remarks.notes.append(
                f"top folders that are read as classes, not as subsets: {', '.join(sorted(words))}"
            )
        return places
    _check_labels([p for p in places if p.folders[0] in words and len(p.folders) == 1], remarks)
    others = sorted(tops & with_classes - words.keys())
    kept = [
        _Place(place.name, place.folders[1:], words.get(place.folders[0], 0))
        if len(place.folders) > 1
        else place
        for place in places
        if place.folders[0] not in words or len(place.folders) > 1
    ]
    renamed = [
        f"{top}/ is the subset {SUBSETS[number]}"
        for top, number in sorted(words.items())
        if top != SUBSETS[number]
    ]
    if renamed:
        remarks.notes.append(f"top folders: {', '.join(renamed)}")
    if others:
        remarks.notes.append(f"top folders that are in no subset: {', '.join(others)}")
    return kept


def _check_labels(places: list[_Place], remarks: Remarks) -> None:
    """places: videos right below a subset's folder. Those of a test set are left out."""
    is_test = [subset_number(place.folders[0]) == _TEST for place in places]
    if not all(is_test):
        place = places[is_test.index(False)]
        top = place.folders[0]
        count = sum(other.folders[0] == top for other in places)
        raise DatasetError(
            f"{top}/ holds videos in no class folder, which have no label ({place.example}, "
            f"{count} in all): sort them into {top}/CLASS/, give their labels with --list, or move "
            "them away."
        )
    remarks.leave_out(_NO_LABEL, [place.name for place in places])


def _take_subset(place: _Place, layout: str) -> _Place:
    number = subset_number(place.folders[0])
    if number is None:
        raise DatasetError(
            f"--layout {layout}: the top folder {place.folders[0]!r} of {place.example} is no "
            f"subset: name it {', '.join(SUBSETS[1:])} or one of {', '.join(SUBSET_WORDS)}."
        )
    return _Place(place.name, place.folders[1:], number)


def _guess_groups(places: list[_Place], known: Collection[str] | None, remarks: Remarks) -> bool:
    """Whether the folders that videos lie in are groups, below those of the classes."""
    deep = [place for place in places if len(place.folders) > 1]
    if not deep or all(_is_named_as_in_ucf101(place) for place in deep):
        return False
    is_uniform = {len(place.folders) for place in places} == {2}
    if known:
        names = {name.casefold() for name in known}
        by_parent = all(place.folders[-1].casefold() in names for place in places)
        by_group = is_uniform and all(place.folders[-2].casefold() in names for place in places)
        if by_parent != by_group:
            return by_group
    example = deep[0]
    prefix = "split/" if example.subset else ""
    if is_uniform and all(map(_is_numbered_group, places)):
        remarks.notes.append(
            f"groups: read as {prefix}class/group/clip, as {example.example} is named (class "
            f"{printable(example.folders[-2])}, group {printable(example.folders[-1])}); another "
            "reading: --layout"
        )
        return True
    outer, inner = (printable(name) for name in example.folders[-2:])
    raise DatasetError(
        f"the folders of {example.example} can be read in two ways: as class '{outer}' and group "
        f"'{inner}' (--layout {prefix}class/group/clip), or as class '{inner}' (--layout "
        f"{prefix}class/clip): give one of the two"
        + ("." if prefix else "; top folders that are subsets are called train, val and test.")
    )


def _is_named_as_in_ucf101(place: _Place) -> bool:
    match = UCF101_NAME.fullmatch(Entry(place.name, "").stem)
    return match is not None and match["name"].casefold() == place.folders[-1].casefold()


def _is_numbered_group(place: _Place) -> bool:
    """UCF11: the folder `v_shooting_01` holds `v_shooting_01_01.mpg`."""
    folder, stem = place.folders[-1], Entry(place.name, "").stem
    return folder[-1:].isdigit() and stem.startswith(folder) and stem[len(folder) :][:1] in "_-"


def _entry(place: _Place, has_groups: bool) -> Entry:
    needed = 1 + has_groups
    if len(place.folders) < needed:
        raise DatasetError(
            f"{place.example} lies in fewer folders than --layout says: move it, or give another "
            f"of {', '.join(LAYOUTS)}."
        )
    group = printable(place.folders[-1]) if has_groups else None
    return Entry(place.name, place.folders[-needed], group, place.subset)


def describe_nothing(source: str, names: Sequence[str], remarks: Remarks) -> str:
    """The error of a tree without a video that has a class. names: of its videos."""
    parts = [f"{entry.reason}, {entry.count} in all" for entry in remarks.left_out()]
    left_out = f" (left out: {'; '.join(parts)})" if parts else ""
    advice = "sort them into CLASS/ folders, or give their labels with --list" if names else WHERE
    return f"there are no videos in class folders under {source}{left_out}: {advice}."

"""Labels of lists -> names of classes: by name, or by number in a class list or of a folder."""

from collections import Counter
from dataclasses import replace

from ...errors import printable
from .classes import ClassList, clean_name
from .layout import subset_number
from .list_formats import ListRow
from .records import DatasetError, Entry, Remarks

_TEST = 3  # as in SUBSETS


def name_classes(
    rows: list[ListRow],
    by_folder: dict[str, Entry],
    class_list: ClassList | None,
    keep_numbers: bool,
    remarks: Remarks,
) -> tuple[list[Entry], list[str] | None]:
    """-> the videos with the names of their classes, and the order of these where numbers gave it.

    Labels that are numbers are named by the class list, else by the folders of their videos where
    each has one of its own (not with keep_numbers), else they are names themselves. A row without a
    label takes the folder, where the labels of the others show that folders are classes. by_folder:
    what the folders say, by path. Raises DatasetError.
    """
    labels = {row.label for row in rows if row.label is not None}
    names: dict[str, str] = {}
    if labels and all(label.isascii() and label.isdigit() for label in labels):
        if class_list is not None:
            names = _names_in_list(rows, labels, by_folder, class_list, remarks)
        elif not keep_numbers:
            names = _names_of_folders(rows, by_folder, remarks)
    class_folders = _class_folders(rows, by_folder, names)
    entries, unlabelled = [], []
    for row in rows:
        folder = by_folder.get(row.path)
        group = row.group if row.group is not None else folder.group if folder else None
        class_name = folder.class_name if folder and folder.class_name in class_folders else None
        if row.label is not None:
            class_name = names.get(row.label, row.label)
        subset = row.subset if row.subset is not None else folder.subset if folder else 0
        if class_name is not None:
            entries.append(Entry(row.path, class_name, group, subset))
        elif subset == _TEST:
            unlabelled.append(row.path)
        else:
            raise DatasetError(
                f"{row.where} gives no label, and {printable(row.path)} lies in no class folder."
            )
    remarks.leave_out("test videos without a label", unlabelled)
    if all(row.subset is None for row in rows) and not any(entry.subset for entry in entries):
        _note_subset_folders(rows, remarks)
    if any(entry.group is not None for entry in entries):
        entries = [replace(entry, group=entry.group or "") for entry in entries]
    order = [names[label] for label in sorted(names, key=int)] if names else None
    return sorted(entries, key=lambda entry: entry.path), None if class_list else order


def _note_subset_folders(rows: list[ListRow], remarks: Remarks) -> None:
    """Say which folders are called as subsets and are not read as such."""
    folders = {part for row in rows for part in row.path.split("/")[:-1]}
    if called := sorted(filter(subset_number, folders)):
        remarks.notes.append(
            f"the folders {', '.join(map(printable, called))} give no subset, as the videos are "
            "those of a list: give it a column split, or --layout split/class/clip"
        )


def _class_folders(
    rows: list[ListRow], by_folder: dict[str, Entry], names: dict[str, str]
) -> set[str]:
    """The names of folders that are classes: all, unless videos with a label lie in folders that
    are not called like it (`videos/x.mp4`); then those that are called as a label."""

    def fold(name: str) -> str:
        return clean_name(name).casefold()

    folders = {path: entry.class_name for path, entry in by_folder.items()}
    pairs = {(row.label, folders.get(row.path, "")) for row in rows if row.label is not None}
    folded = [(fold(names.get(label, label)), fold(folder)) for label, folder in pairs]
    labels = {label for label, _ in folded}
    are_classes = all(label == folder for label, folder in folded)
    return {name for name in set(folders.values()) if are_classes or fold(name) in labels}


def _names_in_list(
    rows: list[ListRow],
    labels: set[str],
    by_folder: dict[str, Entry],
    class_list: ClassList,
    remarks: Remarks,
) -> dict[str, str]:
    """Label -> name. Both lists count from 0 or from 1, and need not count alike: that count is
    taken in which folders that are called as a class hold videos of that class."""
    if labels <= set(class_list.names):
        return {}
    listed = {name.casefold() for name in class_list.names}
    pairs = {
        (int(row.label), folder.class_name.casefold())
        for row in rows
        if row.label is not None and (folder := by_folder.get(row.path))
    }
    pairs = {(number, name) for number, name in pairs if name in listed}
    fits = []
    for shift in (0, 1, -1):
        shifted = (number + shift for number in class_list.numbers)
        names = dict(zip(shifted, class_list.names, strict=True))
        if set(map(int, labels)) <= names.keys():
            num_wrong = sum(names[number].casefold() != name for number, name in pairs)
            fits.append((num_wrong, shift != 0, shift, names))
    if not fits:
        numbers = class_list.numbers
        row = next(row for row in rows if row.label and int(row.label) not in numbers)
        raise DatasetError(
            f"{row.where}: label {row.label} is not in {class_list.place}, which has "
            f"{min(numbers)} to {max(numbers)}."
        )
    *_, names = min(fits, key=lambda fit: fit[:2])
    first = min(map(int, labels))
    remarks.notes.append(f"labels: numbers of {class_list.place}, {first} is {names[first]}")
    return {label: names[int(label)] for label in labels}


def _names_of_folders(
    rows: list[ListRow], by_folder: dict[str, Entry], remarks: Remarks
) -> dict[str, str]:
    """{} where labels and folders do not belong together one by one."""
    folders = {path: entry.class_name for path, entry in by_folder.items()}
    pairs = {(row.label, folders.get(row.path, "")) for row in rows if row.label is not None}
    labels, names = Counter(label for label, _ in pairs), Counter(name for _, name in pairs)
    if len(pairs) == 1 or "" in names or max(labels.values()) > 1 or max(names.values()) > 1:
        return {}
    named = {label: name for label, name in pairs if label is not None}
    first = min(named, key=int)
    remarks.notes.append(f"labels: numbers, named by the folders ({first} is {named[first]} ...)")
    return named


def folder_entry(path: str) -> Entry | None:
    """What the folder of a video says where no layout is given: its class."""
    parts = path.rstrip("/").split("/")
    is_class = len(parts) > 1 and subset_number(parts[-2]) is None
    return Entry(path, parts[-2]) if is_class else None

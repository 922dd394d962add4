"""Classes and groups of two sets under common numbers: the old ones keep theirs."""

from collections.abc import Iterable

from ..format import are_ucf101
from .transaction import EditError


def number_names(old: tuple[str, ...], new: Iterable[str]) -> tuple[tuple[str, ...], list[int]]:
    """-> `old` with what is not in it of `new` behind, and the number of each of `new`."""
    numbers = {name: number for number, name in enumerate(old)}
    of_new = [numbers.setdefault(name, len(numbers)) for name in new]
    return tuple(numbers), of_new


def number_classes(
    old: tuple[str, ...], new: Iterable[str], merge_case: bool
) -> tuple[tuple[str, ...], list[int]]:
    """As `number_names`; names that differ by case alone are one class with `merge_case`.

    Raises EditError without.
    """
    spelling = {name.casefold(): name for name in reversed(old)} | {name: name for name in old}
    spelled = []
    for name in new:
        known = spelling.get(name) or spelling.get(name.casefold())
        if known not in (None, name) and not merge_case:
            raise EditError(
                f"the classes {known!r} and {name!r} differ by case alone: add --merge-case to "
                "make them one, or rename one."
            )
        spelled.append(known or name)
        spelling.setdefault(name.casefold(), name)
    return number_names(old, spelled)


def common_grouping(groups: Iterable[str], *groupings: str | None) -> str | None:
    """Where groups of several origins come from: "mixed" unless all come from the same, and where
    those of UCF101 are not all named like that."""
    kinds = set(groupings) - {None}
    if len(kinds) > 1 or (kinds == {"ucf101"} and not are_ucf101(groups)):
        return "mixed"
    return next(iter(kinds), None)

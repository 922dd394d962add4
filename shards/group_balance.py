"""Whole groups dealt out to parts, so that every part has nearly the same share of each class."""

import numpy as np


def balance_groups(groups: np.ndarray, labels: np.ndarray, num_parts: int) -> np.ndarray:
    """Deal groups out to `num_parts` parts; -> int64 [G], the part of each group.

    groups, labels: int [V], of each video; groups are numbered from 0 without gaps, and those of
    equal counts are dealt out in the order of their numbers.

    The rule of scikit-learn's StratifiedGroupKFold: the groups whose counts differ most between
    classes come first, and each goes to the part with which the shares of its classes then vary
    least over the parts, of several to the one with the fewest videos.
    """
    num_classes = int(labels.max()) + 1
    pairs, counts = np.unique(groups.astype(np.int64) * num_classes + labels, return_counts=True)
    group_of_pair, label_of_pair = np.divmod(pairs, num_classes)
    num_groups = int(group_of_pair[-1]) + 1
    # num_classes^2 times the variance of each group's counts, in whole numbers: no rounding
    sums, squares = np.zeros((2, num_groups), np.int64)
    np.add.at(sums, group_of_pair, counts)
    np.add.at(squares, group_of_pair, counts**2)
    order = np.argsort(sums**2 - len(np.unique(labels)) * squares, kind="stable")
    starts = np.searchsorted(group_of_pair, np.arange(num_groups + 1)).tolist()
    totals = np.bincount(labels, minlength=num_classes)
    filled = np.zeros((num_classes, num_parts), np.int64)
    sizes = [0] * num_parts
    parts = np.empty(num_groups, np.int64)
    for group in order.tolist():
        rows = slice(starts[group], starts[group + 1])
        classes = label_of_pair[rows]
        if len(classes) == 1:  # the least variation: the part with the fewest videos of the class
            scores = filled[classes[0]].tolist()
        else:
            scores = _variation(filled[classes], counts[rows], totals[classes])
        part = min(range(num_parts), key=lambda p: (scores[p], sizes[p]))
        parts[group] = part
        filled[classes, part] += counts[rows]
        sizes[part] += int(sums[group])
    return parts


def choose_part(
    groups: np.ndarray, labels: np.ndarray, among: np.ndarray, num_parts: int, min_parts: int
) -> np.ndarray:
    """bool [V]: one of `num_parts` balanced parts of the videos `among` (bool [V]), in whole
    groups: the one that lacks fewest classes and whose shares are nearest to 1 / `num_parts`.

    `num_parts` goes down, to `min_parts` at most, where the part then lacks fewer classes. There
    are no more parts than groups; a single group stays whole, no part.
    """
    chosen = np.zeros(len(groups), bool)
    _, group_of_row = np.unique(groups[among], return_inverse=True)
    _, label_of_row = np.unique(labels[among], return_inverse=True)
    num_parts = min(num_parts, int(group_of_row.max(initial=0)) + 1)
    if num_parts < 2:
        return chosen
    fewest = len(labels)
    for number in range(num_parts, min(num_parts, min_parts) - 1, -1):
        parts = balance_groups(group_of_row, label_of_row, number)[group_of_row]
        counts = np.zeros((number, int(label_of_row.max()) + 1))
        np.add.at(counts, (parts, label_of_row), 1)
        lacking = (counts == 0).sum(axis=1)
        distance = np.abs(counts / counts.sum(axis=0) - 1 / number).sum(axis=1).round(9)
        best = np.lexsort((distance, lacking))[0]
        if lacking[best] < fewest:
            fewest = lacking[best]
            chosen[among] = parts == best
        if fewest == 0:
            break
    return chosen


def _variation(filled: np.ndarray, counts: np.ndarray, totals: np.ndarray) -> list[float]:
    """For each part: how much the shares of the classes vary over the parts if a group goes there.

    filled: int [k,P], videos of the group's k classes in each part; counts: int [k], the group's;
    totals: int [k], all. Sums of standard deviations, rounded so that equal ones are equal.
    """
    added = np.eye(filled.shape[1]) * counts[:, None, None]  # [k,P,P]
    shares = (filled[:, None, :] + added) / totals[:, None, None]  # [class,candidate,part]
    rounded: list[float] = shares.std(axis=2).sum(axis=0).round(9).tolist()
    return rounded

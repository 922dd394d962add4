"""Curves of precision over recall, a small panel for each class.

All panels lie in one pair of axes: a hundred of their own take matplotlib a minute.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from .style import Style, add_legend, new_figure, text_width

Curve = tuple[NDArray[np.floating], NDArray[np.floating]]  # precision and recall, recall rising

_COLUMNS = 6
_SIDE = 1.25  # inches of a panel with its margin; longer names make it larger
_WIDTH, _HEIGHT, _TOP = 0.86, 0.6, 0.34  # of the curves in a panel of 1 x 1, and where they begin
_FONTSIZE = 7


def plot_precision_recall(
    path: Path,
    classes: Sequence[str],
    curves: Mapping[str, Sequence[Curve]],
    areas: Mapping[str, Sequence[float]],
    styles: Mapping[str, Style],
) -> Path:
    """Draw the curves of K classes, the class with the least area first, from left to right.

    curves, areas: label -> K curves, K average precisions, nan where the class has no video.
    styles: of each label.
    """
    table = np.array(list(areas.values()))  # [labels,K]
    is_tested = ~np.isnan(table).any(axis=0)
    order = np.argsort(np.where(is_tested, table.mean(axis=0), np.inf), kind="stable").tolist()
    columns, step = min(_COLUMNS, len(classes)), min(0.25, 1 / len(areas))
    rows = -(-len(classes) // columns)
    with new_figure(path, _SIDE * columns, _SIDE * rows) as figure:
        side = max(_SIDE, text_width(figure, classes, _FONTSIZE) / 0.95)
        figure.set_size_inches(max(side * columns, 2.6), _SIDE * rows + 0.7)
        axes = figure.subplots()
        for label, of_classes in curves.items():
            lines = [_place(of_classes[k], *divmod(n, columns)) for n, k in enumerate(order)]
            color, _ = styles[label]
            axes.add_collection(LineCollection(lines, colors=color, linewidths=1.2, label=label))
        for n, k in enumerate(order):
            row, column = divmod(n, columns)
            axes.text(column, row + 0.14, classes[k], fontsize=_FONTSIZE)
            for i, (label, values) in enumerate(areas.items()):
                text = f"{values[k]:.2f}" if is_tested[k] else "no video" * (i == 0)
                color, _ = styles[label]
                axes.text(column + step * i, row + 0.28, text, fontsize=_FONTSIZE, color=color)
        frames = [_frame(*divmod(n, columns)) for n in range(len(order))]
        axes.add_collection(LineCollection(frames, colors="#888888", linewidths=0.8, zorder=0))
        axes.set_xlim(-0.02, columns)
        axes.set_ylim(rows, 0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_xlabel("Across: recall from 0 to 1; upwards: precision from 0 to 1", fontsize=8)
        if len(curves) > 1:
            add_legend(figure, 8)
    return path


def _place(curve: Curve, row: int, column: int) -> NDArray[np.float64]:
    """The steps of a curve as points [P,2] in the panel at `row` and `column`; [0,2] for a class
    without a video. The precision at a recall holds from the recall before, as in the area."""
    precision, recall = curve
    rises = np.diff(recall, prepend=0.0) > 0
    recall, precision = recall[rises], precision[rises]
    x = np.concatenate([[0.0], recall.repeat(2)[:-1]]) if len(recall) else recall
    points = np.stack([x, precision.repeat(2)], axis=1)
    return points * [_WIDTH, -_HEIGHT] + [column, row + _TOP + _HEIGHT]


def _frame(row: int, column: int) -> list[tuple[float, float]]:
    """The axes of a panel: up, and across."""
    bottom = row + _TOP + _HEIGHT
    return [(column, row + _TOP), (column, bottom), (column + _WIDTH, bottom)]

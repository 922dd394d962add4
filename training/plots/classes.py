"""Pictures of predictions: confusion matrix, accuracy by class, and examples as strips of frames.

The first two grow with the number of classes and the length of their names instead of shrinking
their text, so that 101 classes are as readable as 3; a page that shows them lets the large ones
scroll.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from .style import Style, add_legend, new_figure, text_width

_NAMES_WIDTH = 1.3  # inches that the pictures keep for names; longer ones make them larger
_MAX_COUNTS = 25  # classes; above, a cell is too small for its count
_EXAMPLE_FRAMES = 6  # of a clip in a strip


def plot_confusion(path: Path, matrix: NDArray, classes: Sequence[str], title: str) -> Path:
    """Confusion [K,K] (row = true class) as shares of each row; every class is named.

    Up to 25 classes the counts stand in the cells; above, the picture grows with K (2,900 pixels
    wide at 101 classes).
    """
    matrix = np.asarray(matrix, np.int64)
    K = len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.4, 2.6 + (0.42 if K <= _MAX_COUNTS else 0.115) * K)  # inches
    fontsize = 9 if K <= _MAX_COUNTS else 6.5
    with new_figure(path, side, side) as figure:
        names_width = text_width(figure, classes, fontsize)
        upright = K > 4 or max(map(len, classes)) > 8 or names_width > 0.7
        more = max(0.0, names_width - _NAMES_WIDTH)
        figure.set_size_inches(side + more, side * (0.94 if upright else 0.8) + more * upright)
        axes = figure.subplots()
        # square root: one clip of 25 is 0.04, which a linear scale would show as white as 0
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
        axes.set_title(title)
        axes.set_xlabel("Predicted class")
        axes.set_ylabel("True class")
        rotation = 90 if upright else 0
        axes.set_xticks(range(K), classes, fontsize=fontsize, rotation=rotation, ha="center")
        axes.set_yticks(range(K), classes, fontsize=fontsize)
        axes.tick_params(length=0)
        _draw_cell_lines(axes, K)
        if K <= _MAX_COUNTS:
            _draw_counts(axes, matrix, shares)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, pad=0.02)
        bar.set_label("Share of the true class\n(square-root scale)")
        bar.outline.set_visible(False)
    return path


def _draw_cell_lines(axes: Axes, K: int) -> None:
    """Thin lines between the cells lead the eye from a cell to its names."""
    edges = np.arange(-0.5, K)
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(False)
    axes.grid(True, which="minor", color="#e6ebf1", linewidth=0.8 if K <= _MAX_COUNTS else 0.3)
    axes.tick_params(which="minor", length=0)


def _draw_counts(axes: Axes, matrix: NDArray, shares: NDArray) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shares[row, column] > 0.35 else "#222222"
        text = str(matrix[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)


def plot_class_accuracy(
    path: Path,
    classes: Sequence[str],
    recalls: Mapping[str, Sequence[float]],
    styles: Mapping[str, Style],
) -> Path:
    """Accuracy of each class (its recall), one marker a label; hardest class on top.

    recalls: label -> K values; styles: of each label.
    """
    order = np.argsort(np.mean(list(recalls.values()), axis=0), kind="stable")
    rows = np.arange(len(classes))
    is_short = len(rows) <= 30
    row_height = max(0.2, 0.1 * len(recalls)) if is_short else max(0.17, 0.06 * len(recalls))
    # equal values would hide each other: each label has its own height within the row
    offsets = np.linspace(-0.33, 0.33, len(recalls)) if len(recalls) > 1 else [0.0]
    fontsize = 9 if is_short else 8
    with new_figure(path, 4.8, 1.4 + row_height * len(rows)) as figure:
        more = max(0.0, text_width(figure, classes, fontsize) - _NAMES_WIDTH)
        figure.set_figwidth(4.8 + more)
        axes = figure.subplots()
        for (label, values), offset in zip(recalls.items(), offsets, strict=True):
            color, marker = styles[label]
            style: dict[str, Any] = {"linestyle": "none", "marker": marker, "color": color}
            axes.plot(np.asarray(values)[order], rows + offset, label=label, **style)
        axes.set_yticks(rows, [classes[i] for i in order], fontsize=fontsize)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("Accuracy of the class (recall)")
        axes.grid(False, axis="y")
        for edge in rows[:-1] + 0.5:
            axes.axhline(edge, color="#e4e4e4", linewidth=0.8, zorder=0)
        add_legend(figure, 10)
    return path


def choose_examples(predictions: Sequence[Mapping[str, Any]], count: int = 3) -> list[dict]:
    """Of eval.json's predictions: the surest correct ones, of different classes, then the surest
    wrong ones; up to `count` of both."""
    surest = sorted(predictions, key=lambda row: (-row["probability"], row["key"]))
    correct: dict[str, dict] = {}
    for row in surest:
        if row["true"] == row["predicted"]:
            correct.setdefault(row["true"], dict(row))
    wrong = [dict(row) for row in surest if row["true"] != row["predicted"]]
    return list(correct.values())[:count] + wrong[:count]


def plot_examples(
    path: Path, predictions: Sequence[Mapping[str, Any]], clips: Sequence[NDArray[np.uint8]]
) -> Path:
    """One strip of frames a prediction (clips uint8 [T,H,W,C]) under its predicted class."""
    T, H, W, _ = clips[0].shape
    strip_height = 6.4 * H / (W * min(_EXAMPLE_FRAMES, T))
    titles = [_title_example(row) for row in predictions]
    with new_figure(path, 6.4, len(predictions) * (strip_height + 0.28)) as figure:
        if text_width(figure, titles, 9, fontweight="bold") > 6.2:  # inches: a second line, and
            # smaller letters where that is not enough
            titles = [title.replace(", is ", ",\nis ") for title in titles]
            figure.set_figheight(len(predictions) * (strip_height + 0.44))
        fontsize = 9 * min(1.0, 6.2 / text_width(figure, titles, 9, fontweight="bold"))
        rows = np.ravel(figure.subplots(len(predictions), 1))
        for axes, row, title, clip in zip(rows, predictions, titles, clips, strict=True):
            indices = np.linspace(0, T - 1, min(_EXAMPLE_FRAMES, T)).round().astype(int)
            gap = ((0, 0), (0, 0), (0, 3), (0, 0))  # white, between frames
            frames = np.pad(clip[indices], gap, constant_values=255)  # [F,H,W+3,C]
            axes.imshow(np.concatenate(list(frames), axis=1)[:, :-3])
            axes.set_axis_off()
            color = "#1b6e3c" if row["true"] == row["predicted"] else "#a8321f"
            axes.set_title(title, fontsize=fontsize, color=color)
    return path


def _title_example(row: Mapping[str, Any]) -> str:
    answer = f"{row['predicted']} ({row['probability']:.0%})"
    if row["true"] == row["predicted"]:
        return f"right: {answer}"
    return f"wrong: {answer}, is {row['true']}"

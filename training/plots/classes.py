"""Pictures of answers: confusion matrix, accuracy by class, and examples as strips of frames.

Odd: the first two grow with the number of classes instead of shrinking their text, so that they
are read as well at 101 classes as at 3; a page that shows them lets the large ones scroll.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .curves import look, write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_FRAMES = 6  # of a clip in a strip


def confusion(path: Path, matrix: NDArray, classes: Sequence[str], title: str) -> Path:
    """Confusion [K,K] (row = true class) as shares of each row; every class is named.

    Counts are written into the cells up to 25 classes; above, the picture grows with K so that
    the names stay readable (2,900 pixels wide at 101 classes).
    """
    matrix = np.asarray(matrix, np.int64)
    number = len(classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.6 + (0.42 if number <= 25 else 0.115) * number
    side = max(side, 4.4)
    small = 9 if number <= 25 else 6.5
    upright = number > 4 or max(map(len, classes)) > 8
    from matplotlib.colors import PowerNorm

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        # one clip of 25 wrong is 0.04: on a linear scale it would be as white as none
        picture = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
        axes.set_title(title)
        axes.set_xlabel("Predicted class")
        axes.set_ylabel("True class")
        axes.set_xticks(
            range(number), classes, fontsize=small, rotation=90 if upright else 0, ha="center"
        )
        axes.set_yticks(range(number), classes, fontsize=small)
        axes.tick_params(length=0)
        axes.grid(False)
        _cell_lines(axes, number)
        if number <= 25:
            _counts(axes, matrix, share)
        bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=25, pad=0.02)
        bar.set_label("Share of the true class\n(square-root scale)")
        bar.outline.set_visible(False)

    return write_picture(path, (side, side * (0.94 if upright else 0.8)), draw)


def _cell_lines(axes: Axes, number: int) -> None:
    """Thin lines between the cells lead the eye from a cell to its names."""
    edges = np.arange(-0.5, number)
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(True, which="minor", color="#e6ebf1", linewidth=0.3 if number > 25 else 0.8)
    axes.tick_params(which="minor", length=0)


def _counts(axes: Axes, matrix: NDArray, share: NDArray) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if share[row, column] > 0.35 else "#222222"
        text = str(matrix[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)


def per_class(
    path: Path,
    classes: Sequence[str],
    recalls: Mapping[str, Sequence[float]],
    models: Sequence[str],
) -> Path:
    """Accuracy of each class (its recall), one mark a run; hardest class on top.

    recalls: label of the run -> K values; models: the model of each run, in the same order.
    """
    order = np.argsort(np.mean(list(recalls.values()), axis=0), kind="stable")
    rows = np.arange(len(classes))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        # runs that agree would hide each other: each gets its own height within the row
        offsets = np.linspace(-0.24, 0.24, len(recalls)) if len(recalls) > 1 else [0.0]
        for (label, values), model, offset in zip(recalls.items(), models, offsets, strict=True):
            colour, marker = look(model)
            at = np.asarray(values)[order]
            axes.plot(at, rows + offset, linestyle="none", marker=marker, color=colour, label=label)
        axes.set_yticks(rows, [classes[i] for i in order], fontsize=9 if len(rows) <= 30 else 8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("Test accuracy of the class")
        axes.grid(False, axis="y")
        for edge in rows[:-1] + 0.5:
            axes.axhline(edge, color="#e4e4e4", linewidth=0.8, zorder=0)
        figure.legend(loc="outside lower center", ncols=2)

    height = max(0.2, 0.07 * len(recalls)) if len(classes) <= 30 else 0.17
    return write_picture(path, (4.8, 1.4 + height * len(classes)), draw)


def choose_examples(predictions: Sequence[Mapping[str, Any]], each: int = 3) -> list[dict]:
    """Of eval.json's predictions: the surest right ones, of different classes, then the surest
    wrong ones; up to `each` of both."""
    surest = sorted(predictions, key=lambda one: (-one["probability"], one["key"]))
    right: dict[str, dict] = {}
    for one in surest:
        if one["true"] == one["predicted"]:
            right.setdefault(one["true"], dict(one))
    wrong = [dict(one) for one in surest if one["true"] != one["predicted"]]
    return list(right.values())[:each] + wrong[:each]


def examples(
    path: Path, predictions: Sequence[Mapping[str, Any]], pixels: Sequence[NDArray[np.uint8]]
) -> Path:
    """One strip of frames a prediction (clips uint8 [T,H,W,C]), its answer above it."""

    def draw(figure: Figure) -> None:
        rows = np.ravel(figure.subplots(len(predictions), 1))
        for axes, one, clip in zip(rows, predictions, pixels, strict=True):
            chosen = np.linspace(0, len(clip) - 1, min(_FRAMES, len(clip))).round().astype(int)
            gap = ((0, 0), (0, 0), (0, 3), (0, 0))  # white, between frames
            frames = np.pad(clip[chosen], gap, constant_values=255)  # [F,H,W+3,C]
            axes.imshow(np.concatenate(list(frames), axis=1)[:, :-3])
            axes.set_axis_off()
            good = one["true"] == one["predicted"]
            said = f"{one['predicted']} ({one['probability']:.0%})"
            text = f"right: {said}" if good else f"wrong: {said}, is {one['true']}"
            axes.set_title(text, fontsize=9, color="#1b6e3c" if good else "#a8321f")

    clip = pixels[0]
    strip = 6.4 * clip.shape[1] / (clip.shape[2] * min(_FRAMES, len(clip)))
    return write_picture(path, (6.4, len(predictions) * (strip + 0.28)), draw)

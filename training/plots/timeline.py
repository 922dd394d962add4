"""The timeline of a long video as a picture: one row a class, its height the probability there."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from .style import new_figure, text_width

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#E69F00")


def leading_classes(
    borders: ArrayLike, probabilities: ArrayLike, max_classes: int = 12
) -> list[int]:
    """The classes that are most probable somewhere, in the order of their first lead.

    borders [P+1] in seconds, probabilities [P,K]. Of more than `max_classes`, those that lead
    longest.
    """
    labels = np.argmax(probabilities, axis=1)
    seconds = np.bincount(labels, weights=np.diff(borders))
    leading = list(dict.fromkeys(labels.tolist()))
    longest = sorted(leading, key=lambda label: -seconds[label])[:max_classes]
    return [label for label in leading if label in longest]


def plot_timeline(
    path: Path, borders: ArrayLike, probabilities: ArrayLike, classes: list[str], title: str
) -> Path:
    """Draw probabilities [P,K] over the stretches between `borders` [P+1], in seconds."""
    borders, probabilities = np.asarray(borders), np.asarray(probabilities)
    rows = leading_classes(borders, probabilities)
    names = [classes[label] for label in rows]
    with new_figure(path, 7.2, 1.3 + 0.42 * len(rows)) as figure:
        names_width = text_width(figure, names, 10)
        title_width = text_width(figure, [title], 11, fontweight="bold")  # starts behind the names
        figure.set_figwidth(max(7.2, 5.2 + names_width, 0.3 + names_width + title_width))
        axes = figure.subplots()
        for row, label in enumerate(rows):
            base = len(rows) - 1 - row
            top = base + 0.92 * probabilities[:, label]
            color = _COLORS[row % len(_COLORS)]
            axes.stairs(top, borders, baseline=base, fill=True, color=color)
            axes.axhline(base, color="#e4e4e4", linewidth=0.8, zorder=0)
        axes.set_yticks(np.arange(len(rows))[::-1] + 0.46, names)
        axes.set_ylim(0, len(rows))
        axes.set_xlim(borders[0], borders[-1])
        axes.set_xlabel("Seconds. A full row is probability 1.")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_title(title)
    return path

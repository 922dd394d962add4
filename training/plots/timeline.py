"""The timeline of a long video as a picture: what was said when, and how surely.

Odd: one row a class, only classes that lead somewhere in the video; a row's height at a moment is
the probability there, so that doubt between two classes shows as two half-high rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import HarError
from ..inference.windows import Piece, Window, moments
from .curves import write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 12  # rows
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#E69F00")


class TimelineError(HarError):
    """A name that is no picture's; one sentence."""


def check_name(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".svg"):
        raise TimelineError(f"--timeline {path} is no picture's name: end it in .png or .svg.")


def leading(pieces: Sequence[Piece], most: int = _MOST) -> list[int]:
    """The classes that lead somewhere, in the order of their first lead; of more than `most`
    those that lead longest."""
    time: dict[int, float] = {}
    for piece in pieces:
        time[piece.label] = time.get(piece.label, 0.0) + piece.end - piece.start
    kept = sorted(time, key=lambda label: -time[label])[:most]
    return [label for label in time if label in kept]


def write(
    path: Path,
    found: Sequence[Window],
    pieces: Sequence[Piece],
    classes: Sequence[str],
    title: str,
) -> Path:
    """Draw the timeline of `found` (its merged form is `pieces`) as PNG or SVG; -> path."""
    check_name(path)
    rows = leading(pieces)
    parts = list(moments(found))  # not merged: a row shows every change
    borders = np.array([parts[0].start, *(part.end for part in parts)])
    heights = np.array([part.probabilities for part in parts])  # [P,K]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, label in enumerate(rows):
            colour = _COLOURS[row % len(_COLOURS)]
            base = len(rows) - 1 - row
            top = base + 0.92 * heights[:, label]
            axes.stairs(top, borders, baseline=base, fill=True, color=colour)
        _frame(axes, [classes[label] for label in rows], borders)
        axes.set_title(title)

    return write_picture(path, (7.2, 1.3 + 0.42 * len(rows)), draw)


def _frame(axes: Axes, names: Sequence[str], borders: np.ndarray) -> None:
    axes.set_yticks(np.arange(len(names))[::-1] + 0.46, names)
    axes.set_ylim(0, len(names))
    axes.set_xlim(borders[0], borders[-1])
    axes.set_xlabel("Seconds. A full row is probability 1.")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    for base in range(1, len(names)):
        axes.axhline(base, color="#e4e4e4", linewidth=0.8, zorder=0)

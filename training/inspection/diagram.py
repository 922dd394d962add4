"""The drawing of `har-models show --plot`: a network as in the paper's figure 1 or figures 3 and 4.

Residual networks: two blocks to a group, the shortcut of every block an arc over it, with a box
where the shortcut has a convolution (the first block of layers 2-4). ConvLSTM: a row a layer, a
column a step, time to the right.

Notes: matplotlib's objects only, never pyplot, which keeps figures alive and asks for a screen. A
unit of the drawing is an inch, so that text keeps its size whatever the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..config import ConfigError
from .model_summary import Row, Sheet

FORMATS = (".png", ".svg", ".pdf")
INK, ARROW = "#222222", "#555555"
FILL = {
    "input": "#eeeeee",
    "stem": "#fde0c5",
    "conv": "#cfe3f5",
    "skip": "#f9d9e4",
    "state": "#d9ead3",
    "head": "#e4dcf1",
}
GROUPS = ("#f6f9fc", "#eef4fa")


def save(sheet: Sheet, path: Path) -> None:
    """Draw the network of a sheet into a .png, .svg or .pdf file. ConfigError for other names."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"--plot {path}: the name must end in {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}; make it first.")
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    draw = _recurrent if hasattr(sheet.network, "layers") else _residual
    width, height = draw(axes, sheet)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    figure.set_size_inches(width, height)
    figure.savefig(path, dpi=150)


def _residual(axes: Axes, sheet: Sheet) -> tuple[float, float]:
    """Groups in two lines (1 and 2 above, 3 and 4 below) -> width and height in inches."""
    rows = {row.name: row for row in sheet.rows}
    names = _group_names(sheet.network)
    top, low, left = 5.35, 2.05, 0.35
    _title(axes, sheet, left, 7.45)
    x = _box(axes, left, top, 1.0, f"clip\n{_shape(sheet.input)}", "input")
    stem = [row for row in sheet.rows if row.name.startswith("stem") and row.kernel]
    text = "\n".join(f"{_kernel(row)}, {row.shape[1]}" for row in stem)
    end = _box(axes, x + 0.4, top, 1.3, f"stem\n{text}\nnorm, ReLU", "stem", stem[-1].shape)
    _arrow(axes, x, x + 0.4, top)
    width = 0.0
    for n, name in enumerate(names):
        y = top if n < 2 else low
        if n == 2:  # on to the second line
            turn = end + 0.3
            axes.plot([end, turn, turn, left, left], [top, top, 3.9, 3.9, low], color=ARROW, lw=1.2)
            end = left
        end = _group(axes, end, y, n, sheet.network.get_submodule(name), name, rows)
        width = max(width, end + 0.6)
    head = rows["fc"]
    last = _box(axes, end + 0.4, low, 1.1, "mean over\ntime, space", "head")
    _arrow(axes, end, end + 0.4, low)
    _arrow(axes, last, last + 0.3, low)
    done = _box(axes, last + 0.3, low, 0.9, f"FC\n{head.shape[1]} classes", "head")
    return max(width, done + 0.35), 7.8


def _group_names(network: Any) -> list[str]:
    return [f"layer{n}" for n in range(1, 5)]


def _group(
    axes: Axes, start: float, y: float, number: int, group: Any, name: str, rows: dict[str, Row]
) -> float:
    """One residual group on its background; -> where its last block ends."""
    x = start + 0.45
    left = x
    for index, block in enumerate(group):
        _arrow(axes, x - 0.45, x, y)
        x = _block(axes, x, y, f"{name}.{index}", block, rows)
        x += 0.45
    end = x - 0.45
    back = FancyBboxPatch(
        (left - 0.3, y - 1.3),
        end - left + 0.44,
        3.0,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=GROUPS[number % 2],
        edgecolor="#b8c7d6",
        zorder=0,
    )
    axes.add_patch(back)
    shape = next(row for key, row in reversed(rows.items()) if key.startswith(name)).shape
    axes.text(left - 0.2, y - 1.2, f"group {number + 1}", fontsize=10, weight="bold", color=INK)
    axes.text(end + 0.05, y - 1.2, f"out {_shape(shape)}", fontsize=8, ha="right", color=INK)
    return end


def _block(axes: Axes, x: float, y: float, name: str, block: Any, rows: dict[str, Row]) -> float:
    """Two convolutions, the sum, and the skip over them; -> where the sum's circle ends."""
    start = x - 0.2
    for part in ("conv1", "conv2"):
        inside = [row for key, row in rows.items() if key.startswith(f"{name}.{part}") and row.macs]
        text = "\n".join(f"{_kernel(row)}, {row.shape[1]}" for row in inside)
        tail = "norm, ReLU" if part == "conv1" else "norm"
        x = _box(axes, x, y, 1.2, f"{text}\n{tail}", "conv")
        _arrow(axes, x, x + 0.25, y)
        x += 0.25
    centre = x + 0.13
    axes.text(
        centre,
        y,
        "+",
        ha="center",
        va="center",
        fontsize=11,
        color=INK,
        bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": INK},
    )
    axes.text(centre, y - 0.32, "ReLU", ha="center", fontsize=7, color=INK)
    _skip(axes, start, centre, y, _projection(name, rows))
    return centre + 0.17


def _skip(axes: Axes, start: float, end: float, y: float, projection: Row | None) -> None:
    """The line over a block, and the box of its convolution, if it has one."""
    above = y + 1.25
    axes.plot([start, start, end], [y, above, above], color=ARROW, lw=1.2, zorder=1)
    axes.annotate(
        "",
        (end, y + 0.17),
        (end, above + 0.006),
        arrowprops={"arrowstyle": "-|>", "color": ARROW, "shrinkA": 0, "shrinkB": 0},
    )
    if projection is not None:
        text = f"{_kernel(projection)}, {projection.shape[1]}; norm"
        middle = (start + end) / 2
        _box(axes, middle - 0.95, above, 1.9, text, "skip", height=0.3)


def _projection(name: str, rows: dict[str, Row]) -> Row | None:
    found = [
        row for key, row in rows.items() if row.macs and (key.startswith(f"{name}.downsample"))
    ]
    return found[0] if found else None


def _recurrent(axes: Axes, sheet: Sheet) -> tuple[float, float]:
    """A row a layer, the last on top, a column a step; -> width and height in inches."""
    network: Any = sheet.network
    steps = sheet.input[2]
    columns = [1, 2, 3, steps] if steps > 4 else list(range(1, steps + 1))
    place = [2.6 + 1.75 * n + (0.75 if steps > 4 and n == 3 else 0) for n in range(len(columns))]
    depth, stem = len(network.layers), 1.95
    heights = [stem + 1.25 + 1.25 * n for n in range(depth)]
    rows = {row.name: row for row in sheet.rows}
    for x, step in zip(place, columns, strict=True):
        _column(axes, x, step, heights, stem, rows)
    for n, y in enumerate(heights):
        row = rows[f"layers.{n}.state"]
        hidden = row.shape[1] // 4
        text = f"ConvLSTM {n + 1}\n{hidden} channels, {_kernel(row)}\n{row.shape[3]}x{row.shape[4]}"
        axes.text(0.3, y, text, va="center", fontsize=9, color=INK)
        for k in range(len(place) - 1):
            gap = place[k + 1] - place[k] > 2
            _arrow(axes, place[k] + 1.15, place[k + 1], y, dotted=gap)
            middle = (place[k] + 1.15 + place[k + 1]) / 2
            axes.text(middle, y + 0.08, "h, c", ha="center", fontsize=7)
    row = rows["layers.0.stem"]
    pooled = "\n2x2 pool" if network.layers[0].plan.stem_pool != "none" else ""
    text = f"stem\n{_kernel(row)}, {row.shape[1]}\nReLU{pooled}"
    axes.text(0.3, stem, text, va="center", fontsize=9, color=INK)
    axes.text(0.3, 0.85, f"frames\n{sheet.input[3]}x{sheet.input[4]}", va="center", fontsize=9)
    high = _heads(axes, network, place, heights[-1], rows["fc"])
    _title(axes, sheet, 0.3, high + 0.55)
    return max(place[-1] + 1.6, 9.2), high + 0.95


def _column(
    axes: Axes, x: float, step: int, heights: list[float], stem: float, rows: dict[str, Row]
) -> None:
    """One step: its frame, the stem and all layers, with arrows up."""
    _box(axes, x, 0.85, 1.15, f"frame {step}", "input", height=0.5)
    _up(axes, x + 0.575, 1.1, stem - 0.25)
    _box(axes, x, stem, 1.15, "stem", "stem", height=0.5)
    below = stem
    for n, y in enumerate(heights):
        _up(axes, x + 0.575, below + 0.25, y - 0.25)
        sides = rows[f"layers.{n}.state"].shape[3:]
        if n > 0 and sides != rows[f"layers.{n - 1}.state"].shape[3:]:
            axes.text(x + 0.64, (below + y) / 2, "2x2 pool", fontsize=7, va="center", color=INK)
        _box(axes, x, y, 1.15, f"cell {n + 1}", "state", height=0.5)
        below = y


def _heads(axes: Axes, network: Any, place: list[float], top: float, row: Row) -> float:
    """What the head reads: the last step (figure 4) or all steps (figure 3); -> its height."""
    y = top + 1.15
    if network.return_sequences:
        for x in place:
            _up(axes, x + 0.575, top + 0.25, y - 0.3)
        start, text = place[0], f"norm, mean over time and space, FC, {row.shape[1]} classes"
    else:
        _up(axes, place[-1] + 0.575, top + 0.25, y - 0.3)
        start, text = place[-1] - 1.6, f"norm, mean over space, FC,\n{row.shape[1]} classes"
    _box(axes, start, y, place[-1] + 1.15 - start, text, "head", height=0.6)
    return y + 0.3


def _title(axes: Axes, sheet: Sheet, x: float, y: float) -> None:
    count = sum(row.parameters for row in sheet.rows)
    macs = sum(row.macs for row in sheet.rows) / sheet.input[0]
    text = f"{sheet.model}: {count / 1e6:.2f} M parameters, {macs / 1e9:.2f} G multiply-adds a clip"
    axes.text(x, y, text, fontsize=12, weight="bold", color=INK, va="center")


def _box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    text: str,
    kind: str,
    shape: tuple[int, ...] | None = None,
    height: float = 1.1,
) -> float:
    """A box around the line at y, with the shape that leaves it below; -> its right edge."""
    patch = FancyBboxPatch(
        (x, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=FILL[kind],
        edgecolor=INK,
        linewidth=0.9,
        zorder=2,
    )
    axes.add_patch(patch)
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=8, color=INK, zorder=3)
    if shape is not None:
        under = y - height / 2 - 0.16
        axes.text(x + width / 2, under, _shape(shape), ha="center", va="center", fontsize=8)
    return x + width


def _arrow(axes: Axes, start: float, end: float, y: float, dotted: bool = False) -> None:
    style = {
        "arrowstyle": "-|>",
        "color": ARROW,
        "shrinkA": 0,
        "shrinkB": 0,
        "linestyle": ":" if dotted else "-",
    }
    axes.annotate("", (end, y), (start, y), arrowprops=style, zorder=1)


def _up(axes: Axes, x: float, start: float, end: float) -> None:
    style = {"arrowstyle": "-|>", "color": ARROW, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x, end), (x, start), arrowprops=style, zorder=1)


def _kernel(row: Row) -> str:
    """1x7x7 as it is written in the paper's figures, with its stride where it has one."""
    text = "x".join(map(str, row.kernel))
    if any(step > 1 for step in row.stride):
        text += " /" + ",".join(map(str, row.stride))
    return text


def _shape(shape: tuple[int, ...]) -> str:
    """Batch x channels x time x height x width -> without the batch."""
    return "x".join(map(str, shape[1:]))

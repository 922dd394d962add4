"""The drawing of `har-models show --plot`: a network as in the paper's figure 1 or figures 3 and 4.

Residual networks: two blocks to a group, the shortcut of every block an arc over it, with a box
where the shortcut has a convolution (the first block of layers 2-4). ConvLSTM: a row a layer, a
column a step, time to the right.

Notes: matplotlib's objects only, never pyplot, which keeps figures alive and asks for a screen. A
unit of the drawing is an inch, so that text keeps its size whatever the network.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ... import models
from ...atomic import replacing
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
GROUPS = ("#eef4fa", "#f6f9fc")


def check_plot(model: str, path: Path) -> None:
    """Raise ConfigError where `save` could not draw `model` into `path`."""
    if models.is_custom(model):
        raise ConfigError(f"--plot {path}: only the four models have a drawing, {model} not.")
    if path.suffix not in FORMATS:
        raise ConfigError(f"--plot {path}: the name must end in {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}; make it first.")


def save(sheet: Sheet, path: Path) -> None:
    """Draw the network of a sheet into a .png, .svg or .pdf file, as `check_plot` allows it."""
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    draw = _recurrent if hasattr(sheet.network, "layers") else _residual
    width, height = draw(axes, sheet)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    figure.set_size_inches(width, height)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def _residual(axes: Axes, sheet: Sheet) -> tuple[float, float]:
    """Groups in two lines (1 and 2 above, 3 and 4 below) -> width and height in inches."""
    top, low, left = 5.35, 2.05, 0.35
    _title(axes, sheet, left, 7.45)
    stem = [row for row in sheet.rows if row.name.startswith("stem") and row.kernel]
    x = _box(axes, left, top, 1.0, f"clip\n{_shape(sheet.input)}", "input")
    x = _next_box(axes, x, top, 0.4, 1.3, f"stem\n{_kernels(stem)}\nnorm, ReLU", "stem")
    _text(axes, x - 0.65, top - 0.71, _shape(stem[-1].shape), ha="center")
    x = top_end = _group(axes, _group(axes, x, top, 1, sheet), top, 2, sheet)
    turn = x + 0.3  # on to the second line
    axes.plot([x, turn, turn, left, left], [top, top, 3.9, 3.9, low], color=ARROW, lw=1.2)
    x = _group(axes, _group(axes, left, low, 3, sheet), low, 4, sheet)
    x = _next_box(axes, x, low, 0.4, 1.1, "mean over\ntime, space", "head")
    x = _next_box(axes, x, low, 0.3, 0.9, f"FC\n{sheet.rows[-1].shape[1]} classes", "head")
    return max(top_end + 0.6, x + 0.35), 7.8


def _group(axes: Axes, start: float, y: float, number: int, sheet: Sheet) -> float:
    """One residual group on its background; -> where its last block ends."""
    name, end = f"layer{number}", start
    for index, _ in enumerate(sheet.network.get_submodule(name).children()):
        end = _block(axes, end, y, f"{name}.{index}", sheet)
    _rectangle(
        axes, start + 0.15, y - 1.3, end - start - 0.01, 3.0, rounding=0.12,
        facecolor=GROUPS[number % 2], edgecolor="#b8c7d6", zorder=0,
    )  # fmt: skip
    shape = [row for row in sheet.rows if row.name.startswith(name)][-1].shape
    _text(axes, start + 0.25, y - 1.15, f"group {number}", fontsize=10, weight="bold")
    _text(axes, end + 0.05, y - 1.15, f"out {_shape(shape)}", ha="right")
    return end


def _block(axes: Axes, start: float, y: float, name: str, sheet: Sheet) -> float:
    """Two convolutions, their sum with the shortcut; -> where the sum's circle ends."""
    conv1, conv2, downsample = (
        [row for row in sheet.rows if row.macs and row.name.startswith(f"{name}.{part}")]
        for part in ("conv1", "conv2", "downsample")
    )
    x = _next_box(axes, start, y, 0.45, 1.2, f"{_kernels(conv1)}\nnorm, ReLU", "conv")
    x = _next_box(axes, x, y, 0.25, 1.2, f"{_kernels(conv2)}\nnorm", "conv")
    _arrow(axes, (x, y), (x + 0.25, y))
    fork, center, above = start + 0.25, x + 0.38, y + 1.25
    circle = {"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": INK}
    _text(axes, center, y, "+", ha="center", fontsize=11, bbox=circle)
    _text(axes, center, y - 0.29, "ReLU", ha="center", fontsize=7)
    axes.plot([fork, fork, center], [y, above, above], color=ARROW, lw=1.2, zorder=1)
    _arrow(axes, (center, above + 0.006), (center, y + 0.17))
    if downsample:
        text = f"{_kernels(downsample)}; norm"
        _box(axes, (fork + center) / 2 - 0.95, above, 1.9, text, "skip", height=0.3)
    return center + 0.17


def _recurrent(axes: Axes, sheet: Sheet) -> tuple[float, float]:
    """A row a layer, the last on top, a column a step; -> width and height in inches."""
    steps = sheet.input[2]
    columns = [1, 2, 3, steps] if steps > 4 else list(range(1, steps + 1))
    xs = [2.6 + 1.75 * n + (0.75 if steps > 4 and n == 3 else 0) for n in range(len(columns))]
    levels = _levels(sheet)
    for n, (kind, y, name, caption, pool) in enumerate(levels):
        _text(axes, 0.3, y, caption, fontsize=9)
        for x, step in zip(xs, columns, strict=True):
            _box(axes, x, y, 1.15, name.format(step=step), kind, height=0.5)
            if n > 0:
                below = levels[n - 1][1]
                _arrow(axes, (x + 0.575, below + 0.25), (x + 0.575, y - 0.25))
                _text(axes, x + 0.64, (below + y) / 2, pool, fontsize=7)
        for x, after in pairwise(xs if kind == "state" else ()):
            _arrow(axes, (x + 1.15, y), (after, y), linestyle=":" if after - x > 2 else "-")
            _text(axes, (x + 1.15 + after) / 2, y + 0.13, "h, c", ha="center", fontsize=7)
    top = levels[-1][1]
    _head(axes, sheet, xs, top)
    _title(axes, sheet, 0.3, top + 2.0)
    return max(xs[-1] + 1.6, 9.2), top + 2.4


def _levels(sheet: Sheet) -> list[tuple[str, float, str, str, str]]:
    """(kind, height, text of its boxes, caption, pooling below it) of frames, stem and layers."""
    rows, layers = {row.name: row for row in sheet.rows}, cast(Any, sheet.network).layers
    has_pool = layers[0].plan.stem_pool != "none"
    stem = f"stem\n{_kernels([rows['layers.0.stem']])}\nReLU" + ("\n2x2 pool" if has_pool else "")
    H, W = sheet.input[3:]
    levels = [("input", 0.85, "frame {step}", f"frames\n{H}x{W}", "")]
    levels.append(("stem", 1.95, "stem", stem, ""))
    states = [rows[f"layers.{n}.state"] for n in range(len(layers))]
    for n, row in enumerate(states):
        H, W = row.shape[3:]
        is_pooled = n > 0 and states[n - 1].shape[3:] != (H, W)
        text = f"ConvLSTM {n + 1}\n{row.shape[1] // 4} channels, {_kernel(row)}\n{H}x{W}"
        pool = "2x2 pool" if is_pooled else ""
        levels.append(("state", 3.2 + 1.25 * n, f"cell {n + 1}", text, pool))
    return levels


def _head(axes: Axes, sheet: Sheet, xs: list[float], top: float) -> None:
    """What the head reads: the last step (figure 4) or all steps (figure 3)."""
    start, end, num_classes = xs[-1] - 1.6, xs[-1] + 1.15, sheet.rows[-1].shape[1]
    text = f"norm, mean over space, FC,\n{num_classes} classes"
    if cast(Any, sheet.network).return_sequences:
        start, text = xs[0], f"norm, mean over time and space, FC, {num_classes} classes"
    else:
        xs = xs[-1:]
    for x in xs:
        _arrow(axes, (x + 0.575, top + 0.25), (x + 0.575, top + 0.85))
    _box(axes, start, top + 1.15, end - start, text, "head", height=0.6)


def _title(axes: Axes, sheet: Sheet, x: float, y: float) -> None:
    count, macs = sheet.parameters / 1e6, sheet.macs / sheet.input[0] / 1e9
    text = f"{sheet.model}: {count:.2f} M parameters, {macs:.2f} G multiply-adds a clip"
    _text(axes, x, y, text, fontsize=12, weight="bold")


def _next_box(
    axes: Axes, x: float, y: float, gap: float, width: float, text: str, kind: str
) -> float:
    """An arrow of length `gap` and a box behind it; -> its right edge."""
    _arrow(axes, (x, y), (x + gap, y))
    return _box(axes, x + gap, y, width, text, kind)


def _box(
    axes: Axes, x: float, y: float, width: float, text: str, kind: str, height: float = 1.1
) -> float:
    """A box around the line at y; -> its right edge."""
    bottom = y - height / 2
    _rectangle(
        axes, x, bottom, width, height, facecolor=FILL[kind], edgecolor=INK, linewidth=0.9, zorder=2
    )
    _text(axes, x + width / 2, y, text, ha="center", zorder=3)
    return x + width


def _rectangle(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    rounding: float = 0.06,
    **style: Any,
) -> None:
    shape = f"round,pad=0,rounding_size={rounding}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, **style))


def _text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, **{"color": INK, "fontsize": 8, "va": "center", **style})


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], linestyle: str = "-"
) -> None:
    style = {"arrowstyle": "-|>", "color": ARROW, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops={**style, "linestyle": linestyle}, zorder=1)


def _kernels(rows: list[Row]) -> str:
    """A line for each convolution: its kernel and its channels."""
    return "\n".join(f"{_kernel(row)}, {row.shape[1]}" for row in rows)


def _kernel(row: Row) -> str:
    """1x7x7 as it is written in the paper's figures, with its stride where it has one."""
    text = "x".join(map(str, row.kernel))
    if any(step > 1 for step in row.stride):
        text += " /" + ",".join(map(str, row.stride))
    return text


def _shape(shape: tuple[int, ...]) -> str:
    """Batch x channels x time x height x width -> without the batch."""
    return "x".join(map(str, shape[1:]))

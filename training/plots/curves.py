"""Curves over the epochs (paper Figs 6-15), bars of what training took, and the common style.

Odd: only matplotlib's object API (Figure + Agg canvas), never pyplot, so that nothing global is
opened, leaked or shown; and matplotlib is imported inside the functions, because the command line
imports this module and must answer `--help` at once. Pictures of classes are in
`training/plots/classes.py`, filters (Fig 16) in `training/plots/filters.py`.

One style: a model keeps its colour and its marker in every picture (Okabe-Ito colours, safe for
colour-blind readers; the marker tells them apart without colour). Training is dashed and light,
validation solid. Widths are chosen for a phone: text stays readable at 360 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
NAMES = {"r3d": "R3D", "r2plus1d": "R2Plus1D", "resnet3d": "ResNet3D", "convlstm": "ConvLSTM"}
_LOOKS = {
    "r3d": ("#0072B2", "o"),
    "r2plus1d": ("#D55E00", "s"),
    "resnet3d": ("#009E73", "^"),
    "convlstm": ("#AA4499", "D"),
}
_SVG_TOO: ContextVar[bool] = ContextVar("svg_too", default=False)
_OTHER_LOOK = ("#555555", "v")
_QUANTITIES = {"loss": "Loss", "acc": "Accuracy"}
_SIDES = {"train": "Training", "val": "Validation"}
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a class may be called "a$b$c"
    "svg.hashsalt": "har",  # else the ids in an SVG are drawn anew each time
    "svg.fonttype": "none",  # text stays text: it can be searched, read out and edited
}


@dataclass(frozen=True)
class Curve:
    """One run's curves; the lists are one value an epoch. best: epoch of the best checkpoint."""

    model: str
    label: str
    epochs: Sequence[int]
    loss_train: Sequence[float]
    loss_val: Sequence[float]
    acc_train: Sequence[float]
    acc_val: Sequence[float]
    best: int | None = None

    def values(self, quantity: str, side: str) -> Sequence[float]:
        """quantity "loss" or "acc", side "train" or "val" -> one value an epoch."""
        values: Sequence[float] = getattr(self, f"{quantity}_{side}")
        return values


def curve(model: str, label: str, lines: Sequence[Mapping[str, Any]], best: int | None) -> Curve:
    """The lines of a run's metrics.jsonl (parsed) -> its curves."""
    columns = {
        f"{quantity}_{side}": [float(line[f"{side}_{quantity}"]) for line in lines]
        for quantity in _QUANTITIES
        for side in ("train", "val")
    }
    return Curve(model, label, [int(line["epoch"]) for line in lines], best=best, **columns)


def look(model: str) -> tuple[str, str]:
    """A model's colour and marker, the same in every picture."""
    return _LOOKS.get(model, _OTHER_LOOK)


def model_curves(path: Path, curves: Sequence[Curve], quantity: str) -> Path:
    """Training and validation of one model over the epochs (Figs 6-9 loss, 11-14 accuracy).

    Several curves are several seeds of that model: all are drawn, named once.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, run in enumerate(curves):
            _plot(axes, run, quantity, "train", "Training" if number == 0 else "_")
            _plot(axes, run, quantity, "val", "Validation" if number == 0 else "_")
            several = "s" if len(curves) > 1 else f" (epoch {run.best})"
            _mark_best(axes, run, quantity, "_" if number else f"Best checkpoint{several}")
        seeds = f" ({len(curves)} runs)" if len(curves) > 1 else ""
        name = NAMES.get(curves[0].model, curves[0].model)
        axes.set_title(f"{name}: {_QUANTITIES[quantity].lower()}{seeds}")
        _frame(axes, curves, quantity)
        axes.legend(loc="best")

    return write_picture(path, (4.8, 3.3), draw)


def all_curves(path: Path, curves: Sequence[Curve], quantity: str) -> Path:
    """All models together, training above validation on one scale (Fig 10 loss, 15 accuracy)."""

    def draw(figure: Figure) -> None:
        panels = np.ravel(figure.subplots(2, 1, sharex=True, sharey=True))
        for axes, (side, word) in zip(panels, _SIDES.items(), strict=True):
            named: set[str] = set()
            for run in curves:
                name = run.label if run.label not in named else "_"
                _plot(axes, run, quantity, side, name, dashed=False)
                named.add(run.label)
            axes.set_title(f"{word} {_QUANTITIES[quantity].lower()}")
            _frame(axes, curves, quantity)
        panels[0].set_xlabel("")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))

    return write_picture(path, (5.4, 6.2), draw)


def _plot(
    axes: Axes, run: Curve, quantity: str, side: str, name: str, *, dashed: bool = True
) -> None:
    colour, marker = look(run.model)
    light = side == "train" and dashed
    axes.plot(
        run.epochs,
        run.values(quantity, side),
        color=colour,
        linestyle="--" if light else "-",
        alpha=0.65 if light else 1.0,
        # a marker at every epoch of a long run would be a caterpillar
        marker=marker,
        markevery=max(1, len(run.epochs) // 15),
        markerfacecolor="white" if light else colour,
        label=name,
    )


def _mark_best(axes: Axes, run: Curve, quantity: str, label: str) -> None:
    """A ring around the validation value of the checkpoint that is tested."""
    if run.best is None or run.best not in run.epochs:
        return
    value = run.values(quantity, "val")[list(run.epochs).index(run.best)]
    axes.plot(
        [run.best],
        [value],
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor="#222222",
        markeredgewidth=1.3,
        label=label,
    )


def _frame(axes: Axes, curves: Sequence[Curve], quantity: str) -> None:
    """Axes that start where the quantity does; whole epochs; log where a first loss explodes.

    That is 100 times the least loss, or 10 times the middle one: on a linear axis the rest of the
    curves would lie on its ground.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlabel("Epoch")
    axes.set_ylabel(_QUANTITIES[quantity])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    last = max(max(run.epochs) for run in curves)
    margin = max(0.4, 0.02 * last)
    axes.set_xlim(1 - margin, last + margin)
    if quantity == "acc":
        axes.set_ylim(0, 1.03)
        return
    values = np.array(
        [v for run in curves for s in ("train", "val") for v in run.values("loss", s)]
    )
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() > min(100 * values.min(), 10 * np.median(values)):
        axes.set_yscale("log")
        # plain numbers: the default writes powers as formulas, which are switched off here
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("Loss (log scale)")
    elif len(values):
        axes.set_ylim(0, 1.06 * values.max())


def costs(
    path: Path, labels: Sequence[str], models: Sequence[str], bars: Mapping[str, list]
) -> Path:
    """What training took: a panel of bars for each quantity, a bar for each run.

    bars: title with its unit -> one value a run, or None where the run did not measure it.
    """

    def draw(figure: Figure) -> None:
        panels = np.atleast_1d(figure.subplots(len(bars), 1))
        for axes, (title, values) in zip(panels, bars.items(), strict=True):
            known = [value or 0.0 for value in values]
            colours = [look(model)[0] for model in models]
            axes.barh(range(len(labels)), known, color=colours, height=0.62)
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.set_title(title)
            axes.set_xlim(0, 1.22 * (max(known) or 1.0))
            axes.grid(False)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            for row, value in enumerate(values):
                text = " not measured" if value is None else f" {value:,.4g}"
                axes.text(known[row], row, text, va="center", color="#333333")

    return write_picture(path, (4.8, len(bars) * (0.5 + 0.3 * len(labels))), draw)


@contextmanager
def svg_too() -> Iterator[None]:
    """Within it every PNG gets an SVG of the same name beside it: a report is printed and cut up,
    a run's curves, drawn anew each epoch, are only looked at."""
    token = _SVG_TOO.set(True)
    try:
        yield
    finally:
        _SVG_TOO.reset(token)


def write_picture(path: Path, inches: tuple[float, float], draw: Callable[[Figure], None]) -> Path:
    """Draw on a fresh figure in the common style and write it as PNG or SVG; -> path.

    No date and no version go into the file, so the same numbers give the same bytes.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=inches, dpi=DPI)
        FigureCanvasAgg(figure)
        draw(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        both = [path.with_suffix(".svg")] if _SVG_TOO.get() else []
        for file in dict.fromkeys((path, *both)):
            vector = file.suffix.lower() == ".svg"
            figure.savefig(file, metadata={"Date": None} if vector else {"Software": None})
    return path

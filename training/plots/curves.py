"""Curves over the epochs (paper, figures 6-15) and bars of what training took.

Training is dashed and light, validation solid.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .style import (
    DISPLAY_NAMES,
    Figure,
    Style,
    add_legend,
    label_styles,
    new_figure,
    text_width,
)

_QUANTITIES = {"loss": "Loss", "acc": "Accuracy"}
_SUBSETS = {"train": "Training", "val": "Validation"}


@dataclass(frozen=True)
class Curves:
    """The curves of one run. metrics: the lines of metrics.jsonl, parsed, one an epoch; in a run
    without a val subset val_loss and val_acc are None. style: None for the model's."""

    model: str
    label: str
    metrics: Sequence[Mapping[str, Any]]
    best_epoch: int | None  # of the best checkpoint
    style: Style | None = None

    @property
    def epochs(self) -> list[int]:
        return [line["epoch"] for line in self.metrics]

    def values(self, subset: str, quantity: str) -> list[float]:
        """subset "train" or "val", quantity "loss" or "acc" -> one value an epoch, or none."""
        values = [line[f"{subset}_{quantity}"] for line in self.metrics]
        return [float(value) for value in values if value is not None]


def plot_model_curves(path: Path, runs: Sequence[Curves], quantity: str) -> Path:
    """Training and validation of one model (paper, figures 6-9 loss, 11-14 accuracy).

    runs: of that model; the legend names each of their labels once, if there are several.
    """
    with new_figure(path, 4.8, 3.3) as figure:
        _draw_model_curves(figure.subplots(), runs, quantity)
        if len({run.label for run in runs}) > 1:
            add_legend(figure, 9)
    return path


def plot_run(runs: Sequence[Curves]) -> Figure:
    """Loss and accuracy of one model side by side, not written. runs: of one label."""
    with new_figure(None, 9.6, 3.3) as figure:
        for axes, quantity in zip(figure.subplots(1, 2), _QUANTITIES, strict=True):
            _draw_model_curves(axes, runs, quantity)
    return figure


def _draw_model_curves(axes: Axes, runs: Sequence[Curves], quantity: str) -> None:
    several, differ = len(runs) > 1, len({run.label for run in runs}) > 1
    best = "Best checkpoints" if several else f"Best checkpoint (epoch {runs[0].best_epoch})"
    for run in runs:
        _plot(axes, run, quantity, "val", run.label if differ else "Validation")
    for run in runs:
        label = "Training (dashed)" if differ else "Training"
        if differ and not run.values("val", quantity):
            label = run.label
        _plot(axes, run, quantity, "train", label, dashed=True)
    for run in runs:
        _mark_best(axes, run, quantity, best)
    name = DISPLAY_NAMES.get(runs[0].model, runs[0].model)
    seeds = f" ({len(runs)} runs)" if several else ""
    axes.set_title(f"{name}: {_QUANTITIES[quantity].lower()}{seeds}")
    _set_axes(axes, runs, quantity)
    if not differ:
        axes.legend(loc="best")


def plot_all_curves(path: Path, runs: Sequence[Curves], quantity: str) -> Path:
    """All models, training above validation on one scale (paper, figures 10 loss, 15 accuracy)."""
    with new_figure(path, 5.4, 6.2) as figure:
        panels = figure.subplots(2, 1, sharex=True, sharey=True)
        for axes, (subset, word) in zip(panels, _SUBSETS.items(), strict=True):
            for run in runs:
                _plot(axes, run, quantity, subset, run.label if subset == "train" else "_")
            axes.set_title(f"{word} {_QUANTITIES[quantity].lower()}")
            _set_axes(axes, runs, quantity)
        panels[0].set_xlabel("")
        add_legend(figure, 10)
    return path


def _plot(
    axes: Axes, run: Curves, quantity: str, subset: str, label: str, *, dashed: bool = False
) -> None:
    color, marker = run.style or label_styles({run.label: run.model})[run.label]
    style: dict[str, Any] = {"marker": marker, "color": color, "label": _label_once(axes, label)}
    if dashed:
        style |= {"linestyle": "--", "alpha": 0.65, "markerfacecolor": "white"}
    step = max(1, len(run.epochs) // 15)  # about 15 markers a curve
    if values := run.values(subset, quantity):
        axes.plot(run.epochs, values, markevery=step, **style)


def _label_once(axes: Axes, label: str) -> str:
    """`label`, or what keeps a line out of the legend where another has it."""
    return "_" if label in axes.get_legend_handles_labels()[1] else label


def _mark_best(axes: Axes, run: Curves, quantity: str, label: str) -> None:
    """A ring around the validation value of the checkpoint that is tested."""
    values = run.values("val", quantity)
    if run.best_epoch not in run.epochs or not values:
        return
    value = values[run.epochs.index(run.best_epoch)]
    ring: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
    edge: dict[str, Any] = {"markeredgecolor": "#222222", "markeredgewidth": 1.3}
    label = _label_once(axes, label)
    axes.plot([run.best_epoch], [value], linestyle="none", label=label, **ring, **edge)


def _set_axes(axes: Axes, runs: Sequence[Curves], quantity: str) -> None:
    """Whole epochs; accuracy from 0 to 1; a log scale where one loss is far above the rest.

    That is 100 times the least loss, or 10 times the median: on a linear scale the other values
    would lie on the x axis.
    """
    axes.set_xlabel("Epoch")
    axes.set_ylabel(_QUANTITIES[quantity])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    last = max(max(run.epochs) for run in runs)
    margin = max(0.4, 0.02 * last)
    axes.set_xlim(1 - margin, last + margin)
    if quantity == "acc":
        axes.set_ylim(0, 1.03)
        return
    losses = np.concatenate([run.values(s, "loss") for run in runs for s in _SUBSETS])
    losses = losses[np.isfinite(losses) & (losses > 0)]
    if len(losses) and losses.max() > min(100 * losses.min(), 10 * np.median(losses)):
        axes.set_yscale("log")
        # plain numbers: the defaults write formulas, which the style switches off
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(_format_minor_tick))
        axes.set_ylabel("Loss (log scale)")
    elif len(losses):
        axes.set_ylim(0, 1.06 * losses.max())


def _format_minor_tick(value: float, _: int) -> str:
    """2 and 5 times a power of ten are labelled, which is enough within one decade."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def plot_costs(path: Path, styles: Mapping[str, Style], bars: Mapping[str, list]) -> Path:
    """What training took: a panel for each quantity, a bar for each label of `styles`.

    bars: title with its unit -> one value a label, or None where it was not measured.
    """
    labels, colors = list(styles), [color for color, _ in styles.values()]
    wrapped = [textwrap.fill(label, 40) for label in labels]
    row_height = 0.15 + 0.15 * max(label.count("\n") + 1 for label in wrapped)  # inches
    with new_figure(path, 4.8, len(bars) * (0.5 + row_height * len(labels))) as figure:
        figure.set_figwidth(max(4.8, 3.6 + text_width(figure, wrapped, 10)))
        panels = np.ravel(figure.subplots(len(bars), 1))
        for axes, (title, values) in zip(panels, bars.items(), strict=True):
            widths = [value or 0.0 for value in values]
            rows = axes.barh(range(len(labels)), widths, color=colors, height=0.62)
            texts = ["not measured" if value is None else f"{value:,.4g}" for value in values]
            axes.bar_label(rows, texts, padding=3, color="#333333")
            axes.set_yticks(range(len(labels)), wrapped)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.set_title(title)
            axes.set_xlim(0, 1.22 * (max(widths) or 1.0))
            axes.grid(False)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(axis="y", length=0)
    return path

"""The tables of a report: the paper's Table 1 in both readings, seeds, cost, test figures.

Odd: the paper's Table 1 can be read in two ways. Section 9 says "best saved models", its note says
"minimum over all epochs"; the first is the main one here (`at_best`), the second (`over_epochs`)
mixes epochs and is given beside it. The test accuracy is the best checkpoint's in both.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from ...atomic import write_atomically
from ..evaluation.scores import leak_text
from .runs import Run

COLUMNS = (
    "Model",
    "Train Loss",
    "Train Acc",
    "Val Loss",
    "Val Acc",
    "Test Acc",
    "Avg Acc",
)


@dataclass(frozen=True)
class Row:
    """One row of Table 1. Losses and accuracies (0..1) of train, val, test."""

    model: str
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    test_acc: float

    @property
    def avg_acc(self) -> float:
        """Mean of train, val and test accuracy (paper, section 9)."""
        return (self.train_acc + self.val_acc + self.test_acc) / 3

    def numbers(self) -> list[float]:
        """The row's numbers in the order of COLUMNS."""
        return [*astuple(self)[1:], self.avg_acc]

    def cells(self) -> list[str]:
        return [self.model, *(f"{number:.4f}" for number in self.numbers())]


PAPER = (
    Row("R3D", 0.1918, 0.9608, 0.3018, 0.8788, 0.8652),
    Row("R2Plus1D", 0.2589, 0.9248, 0.4195, 0.8422, 0.8256),
    Row("ResNet3D", 0.2418, 0.8377, 0.5218, 0.7805, 0.7621),
    Row("ConvLSTM", 0.5103, 0.7483, 0.6192, 0.6601, 0.6482),
)


def at_best(run: Run) -> Row:
    """Every figure at the checkpoint that was tested."""
    line = run.best
    return Row(
        run.label,
        line["train_loss"],
        line["train_acc"],
        line["val_loss"],
        line["val_acc"],
        run.evaluation["video@1"],
    )


def over_epochs(run: Run) -> Row:
    """Lowest loss and highest accuracy over all epochs, each of an epoch of its own."""
    return Row(
        run.label,
        min(line["train_loss"] for line in run.lines),
        max(line["train_acc"] for line in run.lines),
        min(line["val_loss"] for line in run.lines),
        max(line["val_acc"] for line in run.lines),
        run.evaluation["video@1"],
    )


def seeds(runs: Sequence[Run]) -> list[list[str]]:
    """For each model with several runs: mean +- sample deviation of `at_best`, as cells."""
    rows = []
    for model in dict.fromkeys(run.model for run in runs):
        same = [run for run in runs if run.model == model]
        if len(same) < 2:
            continue
        columns = zip(*(at_best(run).numbers() for run in same), strict=True)
        cells = [f"{statistics.mean(c):.4f} ± {statistics.stdev(c):.4f}" for c in columns]
        rows.append([f"{same[0].display} ({len(same)} runs)", *cells])
    return rows


COST_COLUMNS = (
    "Model",
    "Parameters",
    "Multiply-adds a clip",
    "Epochs",
    "Best epoch",
    "Time",
    "Clips/s",
    "Waiting for data",
    "Peak memory",
    "Stopped because",
)


def cost(run: Run) -> list[str]:
    """What the paper never reports. Clips/s and waiting are medians over the epochs."""
    macs = run.evaluation.get("multiply_adds")
    return [
        run.label,
        f"{run.summary['parameters']:,}",
        multiply_adds(macs) if macs else "not counted",
        str(run.summary["epochs"]),
        str(run.summary["best_epoch"]),
        format_duration(run.summary["seconds"]),
        f"{run.median('clips_per_s'):,.1f}",
        f"{run.median('data_wait'):.1%}",
        f"{run.peak_bytes / 2**30:,.2f} GiB" if run.peak_bytes else "not measured",
        str(run.summary["stop_reason"]),
    ]


TEST_COLUMNS = (
    "Model",
    "Video@1",
    "95 % interval",
    "Video@5",
    "Clip@1",
    "Mean class acc",
    "Loss",
    "ECE",
    "Split",
    "Leak",
    "Views",
)


def test(run: Run) -> list[str]:
    """The test side in detail, split and leak in the row."""
    found = run.evaluation
    low, high = found["interval"]
    return [
        run.label,
        f"{found['video@1']:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{found['video@5']:.4f}",
        f"{found['clip@1']:.4f}",
        f"{found['mean_class_acc']:.4f}",
        f"{found['loss']:.4f}",
        f"{found['ece']:.4f}",
        str(found["split"]["name"]),
        leak_text(found["split"]["leak"]).removeprefix("leak "),
        str(found["views"]),
    ]


CONFUSED_COLUMNS = ("Model", "True class", "Predicted as", "Videos")


def confused(run: Run, most: int = 5) -> list[list[str]]:
    """The most frequent mistakes of a run."""
    return [
        [run.label, pair["true"], pair["predicted"], str(pair["count"])]
        for pair in run.evaluation["confused"][:most]
    ]


def multiply_adds(count: float) -> str:
    """40.70 G, or 22.5 M below 0.1 G."""
    return f"{count / 1e9:,.2f} G" if count >= 1e8 else f"{count / 1e6:,.1f} M"


def format_duration(seconds: float) -> str:
    """41 s, 12.3 min or 4.6 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    """Write a table as CSV, whole or not at all; -> path."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
    return path

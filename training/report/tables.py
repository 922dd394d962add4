"""The tables of a report: the paper's Table 1 in both readings, seeds, cost, test figures.

The paper's Table 1 can be read in two ways: section 9 says "best saved models"
(`best_checkpoint_row`), its note "minimum over all epochs" (`best_over_epochs_row`, which mixes
epochs). The test accuracy is the best checkpoint's in both.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from ...atomic import write_atomically
from ..evaluation import describe_folds, drop_top5, leak_text
from .comparison import group_seeds
from .runs import Run

TABLE1_COLUMNS = (
    "Model", "Train Loss", "Train Acc", "Val Loss", "Val Acc", "Test Acc", "Avg Acc",
)  # fmt: skip


def is_ucf101(classes: Sequence[str]) -> bool:
    """Whether these are all of UCF101's classes, by their number and two of their names."""
    return len(classes) == 101 and {"ApplyEyeMakeup", "YoYo"} <= set(classes)


@dataclass(frozen=True)
class Table1Row:
    """One row of Table 1. Losses and accuracies (0..1) of train, val, test; None without val."""

    model: str
    train_loss: float
    train_acc: float
    val_loss: float | None
    val_acc: float | None
    test_acc: float

    def numbers(self) -> list[float | None]:
        """In the order of TABLE1_COLUMNS; the last is the mean accuracy (paper, section 9)."""
        mean = None
        if self.val_acc is not None:
            mean = (self.train_acc + self.val_acc + self.test_acc) / 3
        return [*astuple(self)[1:], mean]

    def cells(self) -> list[str]:
        return [self.model, *("-" if n is None else f"{n:.4f}" for n in self.numbers())]


PAPER_TABLE1 = (
    Table1Row("R3D", 0.1918, 0.9608, 0.3018, 0.8788, 0.8652),
    Table1Row("R2Plus1D", 0.2589, 0.9248, 0.4195, 0.8422, 0.8256),
    Table1Row("ResNet3D", 0.2418, 0.8377, 0.5218, 0.7805, 0.7621),
    Table1Row("ConvLSTM", 0.5103, 0.7483, 0.6192, 0.6601, 0.6482),
)


def best_checkpoint_row(run: Run) -> Table1Row:
    """Every figure at the checkpoint that was tested."""
    names = ("train_loss", "train_acc", "val_loss", "val_acc")
    values = {name: run.best_metrics[name] for name in names}
    return Table1Row(run.label, **values, test_acc=run.evaluation["video@1"])


def best_over_epochs_row(run: Run) -> Table1Row:
    """Lowest loss and highest accuracy over all epochs, each of its own epoch."""
    return Table1Row(run.label, **run.best_over_epochs, test_acc=run.evaluation["video@1"])


def seed_rows(runs: Sequence[Run]) -> list[list[str]]:
    """For runs that differ in the seed alone: mean, sample deviation of `best_checkpoint_row`."""
    rows = []
    for label, group in group_seeds(runs).items():
        if len(group) > 1:
            columns = zip(*(best_checkpoint_row(run).numbers() for run in group), strict=True)
            rows.append([f"{label} ({len(group)} runs)", *map(_mean_cell, columns)])
    return rows


def _mean_cell(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "-"
    return f"{statistics.mean(numbers):.4f} ± {statistics.stdev(numbers):.4f}"


def fold_row(run: Run) -> dict[str, str]:
    """The accuracy over the videos of all folds with its interval, and how the folds spread."""
    low, high = run.evaluation["interval"]
    return {
        "Model": run.label,
        "Folds": f"{len(run.folds)} of {len(run.folds) + len(run.missing_folds)}",
        "Videos": str(run.evaluation["videos"]),
        "Video@1 of all": f"{run.evaluation['video@1']:.4f}",
        "95 % interval": f"{low:.4f} to {high:.4f}",
        "Of the folds": describe_folds(run.evaluation["folds"]),
        "Each fold": ", ".join(f"{row['video@1']:.4f}" for row in run.evaluation["folds"]),
    }


def cost_row(run: Run) -> dict[str, str]:
    """What the paper never reports, by column. Clips/s and waiting are medians over the epochs."""
    return {
        "Model": run.label,
        "Parameters": f"{run.summary['parameters']:,}",
        "Multiply-adds a clip": format_multiply_adds(run.evaluation.get("multiply_adds")),
        "Epochs": " + ".join(str(part.summary["epochs"]) for part in run.parts),
        "Best epoch": ", ".join(str(part.summary["best_epoch"]) for part in run.parts),
        "Time": format_duration(run.summary["seconds"]),
        "Clips/s": f"{run.median('clips_per_s'):,.1f}",
        "Waiting for data": f"{run.median('data_wait'):.1%}",
        "Peak memory": f"{run.peak_gib:,.2f} GiB" if run.peak_gib else "not measured",
        "Stopped because": "; ".join(
            dict.fromkeys(str(part.summary["stop_reason"]) for part in run.parts)
        ),
    }


_OPTIONAL_COLUMNS = {"video@5": "Video@5", "map": "mAP"}  # left out where no run has them


def test_rows(results: Mapping[str, dict[str, Any]]) -> list[dict[str, str]]:
    """The test subset in detail, by column, with split and leak. results: label -> evaluation."""
    rows = [_test_row(label, drop_top5(result)) for label, result in results.items()]
    empty = [name for name in _OPTIONAL_COLUMNS.values() if all(row[name] == "-" for row in rows)]
    return [{name: cell for name, cell in row.items() if name not in empty} for row in rows]


def _test_row(label: str, result: dict[str, Any]) -> dict[str, str]:
    def cell(name: str) -> str:
        return f"{result[name]:.4f}" if name in result else "-"

    low, high = result["interval"]
    return {
        "Model": label,
        "Video@1": cell("video@1"),
        "95 % interval": f"{low:.4f} to {high:.4f}",
        "Video@5": cell("video@5"),
        "Clip@1": cell("clip@1"),
        "Mean class acc": cell("mean_class_acc"),
        "mAP": cell("map"),
        "Loss": cell("loss"),
        "ECE": cell("ece"),
        "Split": str(result["split"]["name"]),
        "Leak": leak_text(result["split"]["leak"]).removeprefix("leak "),
        "Views": str(result["views"]),
    }


def format_multiply_adds(count: float | None) -> str:
    """40.70 G, or 22.5 M below 0.1 G."""
    if not count:
        return "not counted"
    return f"{count / 1e9:,.2f} G" if count >= 1e8 else f"{count / 1e6:,.1f} M"


def format_duration(seconds: float) -> str:
    """41 s, 12.3 min or 4.6 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue().encode())

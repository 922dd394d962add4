"""The tables of a report: the paper's Table 1 in both readings, seeds, cost, test figures.

The paper's Table 1 can be read in two ways: section 9 says "best saved models"
(`best_checkpoint_row`), its note "minimum over all epochs" (`best_over_epochs_row`, which mixes
epochs). The test accuracy is the best checkpoint's in both.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from ...atomic import write_atomically
from .runs import Run, group_by_model

UCF101_CLASSES = 101
TABLE1_COLUMNS = (
    "Model", "Train Loss", "Train Acc", "Val Loss", "Val Acc", "Test Acc", "Avg Acc",
)  # fmt: skip


@dataclass(frozen=True)
class Table1Row:
    """One row of Table 1. Losses and accuracies (0..1) of train, val, test."""

    model: str
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    test_acc: float

    def numbers(self) -> list[float]:
        """In the order of TABLE1_COLUMNS; the last is the mean accuracy (paper, section 9)."""
        return [*astuple(self)[1:], (self.train_acc + self.val_acc + self.test_acc) / 3]

    def cells(self) -> list[str]:
        return [self.model, *(f"{number:.4f}" for number in self.numbers())]


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
    best = {"train_loss": min, "train_acc": max, "val_loss": min, "val_acc": max}
    values = {name: choose(line[name] for line in run.metrics) for name, choose in best.items()}
    return Table1Row(run.label, **values, test_acc=run.evaluation["video@1"])


def seed_rows(runs: Sequence[Run]) -> list[list[str]]:
    """For each model with several runs: mean and sample deviation of `best_checkpoint_row`."""
    rows = []
    for group in group_by_model(runs).values():
        if len(group) > 1:
            columns = zip(*(best_checkpoint_row(run).numbers() for run in group), strict=True)
            cells = [f"{statistics.mean(c):.4f} ± {statistics.stdev(c):.4f}" for c in columns]
            rows.append([f"{group[0].display_name} ({len(group)} runs)", *cells])
    return rows


def cost_row(run: Run) -> dict[str, str]:
    """What the paper never reports, by column. Clips/s and waiting are medians over the epochs."""
    return {
        "Model": run.label,
        "Parameters": f"{run.summary['parameters']:,}",
        "Multiply-adds a clip": format_multiply_adds(run.evaluation.get("multiply_adds")),
        "Epochs": str(run.summary["epochs"]),
        "Best epoch": str(run.summary["best_epoch"]),
        "Time": format_duration(run.summary["seconds"]),
        "Clips/s": f"{run.median('clips_per_s'):,.1f}",
        "Waiting for data": f"{run.median('data_wait'):.1%}",
        "Peak memory": f"{run.peak_gib:,.2f} GiB" if run.peak_gib else "not measured",
        "Stopped because": str(run.summary["stop_reason"]),
    }


def test_row(run: Run) -> dict[str, str]:
    """The test subset in detail, by column, with split and leak."""
    result = run.evaluation
    low, high = result["interval"]
    return {
        "Model": run.label,
        "Video@1": f"{result['video@1']:.4f}",
        "95 % interval": f"{low:.4f} to {high:.4f}",
        "Video@5": f"{result['video@5']:.4f}",
        "Clip@1": f"{result['clip@1']:.4f}",
        "Mean class acc": f"{result['mean_class_acc']:.4f}",
        "Loss": f"{result['loss']:.4f}",
        "ECE": f"{result['ece']:.4f}",
        "Split": str(result["split"]["name"]),
        "Leak": run.leak_text.removeprefix("leak "),
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

"""Every number of the report's tables, recomputed by code that is not ours.

scikit-learn (extra `dev`), which brings scipy, counts again from the predictions; the paper's own
table is parsed from `fixtures/paper_table1.txt`, the passage as it stands in the paper's text.
"""

import json
import statistics
from pathlib import Path

import pytest
from made_runs import SPEEDS, best_line, make, read_csv
from tiny_train import metrics_of

from har.training.report import format_duration, load_runs, write_report
from har.training.report.document import Table
from har.training.report.tables import PAPER_TABLE1, TABLE1_COLUMNS

pytestmark = pytest.mark.usefixtures("unrendered")

metrics = pytest.importorskip("sklearn.metrics")
binomtest = pytest.importorskip("scipy.stats").binomtest
FIXTURE = Path(__file__).parent / "fixtures" / "paper_table1.txt"


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """Model -> column -> cell; models in the order of the rows."""
    return {row["Model"]: row for row in read_csv(path)}


def read_predictions(folder: Path) -> list[dict]:
    return json.loads((folder / "eval.json").read_text())["predictions"]


def accuracy(predictions: list[dict]) -> float:
    return metrics.accuracy_score(*([row[k] for row in predictions] for k in ("true", "predicted")))


def table1_row(values: dict[str, float], test: float) -> list[str]:
    """train_loss, train_acc, val_loss, val_acc -> the cells of Table 1 after the model."""
    average = (values["train_acc"] + values["val_acc"] + test) / 3
    numbers = [values[k] for k in ("train_loss", "train_acc", "val_loss", "val_acc")]
    return [f"{number:.4f}" for number in (*numbers, test, average)]


def test_table1_has_the_papers_columns_and_order_in_both_readings(four: tuple[list[Path], Path]):
    runs, out = four
    best, over_epochs = (read_rows(out / name) for name in ("table1.csv", "table1_over_epochs.csv"))
    for rows in (best, over_epochs):
        assert list(rows) == ["R3D", "R2Plus1D", "ResNet3D", "ConvLSTM"]
        assert tuple(rows["R3D"]) == TABLE1_COLUMNS
    for run, name in zip(runs, reversed(best), strict=True):
        lines, test = metrics_of(run), accuracy(read_predictions(run))
        assert list(best[name].values())[1:] == table1_row(best_line(run), test)
        picks = {"train_loss": min, "train_acc": max, "val_loss": min, "val_acc": max}
        values = {key: pick(line[key] for line in lines) for key, pick in picks.items()}
        assert list(over_epochs[name].values())[1:] == table1_row(values, test)


def test_the_papers_table_in_the_code_is_the_one_in_the_paper():
    lines = [line.split("\t") for line in FIXTURE.read_text().splitlines() if "\t" in line]
    assert lines[0] == list(TABLE1_COLUMNS)
    assert len(lines) == 5
    for line, row in zip(lines[1:], PAPER_TABLE1, strict=True):
        cells = row.cells()
        assert cells[0].lower() == line[0].lower()  # the paper writes Resnet3d, ConvLstm there
        assert cells[1:] == line[1:]  # the average, which is computed, too


def test_the_test_table_is_recomputed_from_the_predictions(four: tuple[list[Path], Path]):
    rows = read_rows(four[1] / "test.csv")
    for run, row in zip(four[0], reversed(rows.values()), strict=True):
        predictions = read_predictions(run)
        true, predicted = ([row[k] for row in predictions] for k in ("true", "predicted"))
        test = accuracy(predictions)
        assert row["Video@1"] == f"{test:.4f}"
        assert row["Mean class acc"] == f"{metrics.balanced_accuracy_score(true, predicted):.4f}"
        low, high = (float(end) for end in row["95 % interval"].split(" to "))
        num_right = sum(t == p for t, p in zip(true, predicted, strict=True))
        interval = binomtest(num_right, len(true)).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((interval.low, interval.high), abs=5e-5)
        assert (row["Split"], row["Leak"]) == ("grouped", "0.0%")


def test_the_cost_table_has_medians_and_peaks(four: tuple[list[Path], Path]):
    rows = read_rows(four[1] / "cost.csv")
    for run, row in zip(four[0], reversed(rows.values()), strict=True):
        lines, best = metrics_of(run), best_line(run)
        assert row["Clips/s"] == f"{statistics.median(line['clips_per_s'] for line in lines):.1f}"
        assert row["Peak memory"] == f"{SPEEDS[run.name]:.2f} GiB"
        assert row["Time"] == f"{SPEEDS[run.name]:.1f} min"
        assert (row["Epochs"], row["Best epoch"]) == (str(len(lines)), str(best["epoch"]))
        assert row["Multiply-adds a clip"] == "40.70 G"


def test_seeds_of_one_model_are_given_as_mean_and_sample_deviation(tmp_path: Path):
    runs = [make(tmp_path / f"s{seed}", "r3d", seed=seed) for seed in range(3)]
    write_report(runs, tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "table1.csv")
    assert list(rows) == ["R3D, seed 0", "R3D, seed 1", "R3D, seed 2"]
    (row,) = read_rows(tmp_path / "out" / "table1_seeds.csv").values()
    assert row.pop("Model") == "R3D (3 runs)"
    values: dict[str, list[float]] = {column: [] for column in TABLE1_COLUMNS[1:]}
    for run in runs:
        best = best_line(run)
        for column, key in zip(list(values)[:4], list(best)[1:5], strict=True):
            values[column].append(best[key])
        values["Test Acc"].append(accuracy(read_predictions(run)))
        parts = (best["train_acc"], best["val_acc"], values["Test Acc"][-1])
        values["Avg Acc"].append(statistics.mean(parts))
    assert row == {
        column: f"{statistics.mean(v):.4f} ± {statistics.stdev(v):.4f}"
        for column, v in values.items()
    }


def test_two_runs_of_one_model_and_seed_are_named_by_folder(tmp_path: Path):
    runs = load_runs([make(tmp_path / name, "r3d") for name in ("a", "b")])
    assert [run.label for run in runs] == ["R3D, seed 0, a", "R3D, seed 0, b"]
    folders = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    runs = load_runs([make(folder, "r3d") for folder in folders])
    assert [run.label for run in runs] == [f"R3D, seed 0, {folder}" for folder in folders]


def test_columns_of_numbers_are_set_flush_right():
    table = Table("c", ["a", "b", "c"], [["1", "2.5", "x"], ["2", "−1", "3"]])
    assert table.is_numeric == [False, True, False]


@pytest.mark.parametrize(
    ("seconds", "text"), [(41.2, "41 s"), (119.9, "120 s"), (738, "12.3 min"), (16560, "4.6 h")]
)
def test_durations_are_given_in_a_fitting_unit(seconds: float, text: str):
    assert format_duration(seconds) == text

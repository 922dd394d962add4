"""The runs of a report: read from their folders, checked, put into the paper's order and named.

Odd: what may not be compared silently is refused here, before anything is drawn: runs of other
classes, another split or another number of views, and an eval.json that is not of the checkpoint
the run says is its best.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import HarError
from ..evaluation.scores import leak_text
from ..plots import DISPLAY_NAMES, Curves

ORDER = tuple(DISPLAY_NAMES)  # the paper's: R3D, R2Plus1D, ResNet3D, ConvLSTM


class ReportError(HarError):
    """Runs that cannot be reported, alone or together; one sentence with the way out."""


@dataclass(frozen=True)
class Run:
    """One finished and evaluated run. lines: metrics.jsonl; the rest: the files of those names.

    label: how tables name it; unique in a report.
    """

    folder: Path
    lines: list[dict[str, Any]]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    label: str = ""

    @property
    def model(self) -> str:
        return str(self.summary["model"])

    @property
    def display(self) -> str:
        """The paper's name of the model."""
        return DISPLAY_NAMES.get(self.model, self.model)

    @property
    def best(self) -> dict[str, Any]:
        """The metrics line of the checkpoint that was tested."""
        return next(line for line in self.lines if line["epoch"] == self.summary["best_epoch"])

    @property
    def curves(self) -> Curves:
        best_epoch = self.summary["best_epoch"]
        return Curves.from_metrics(self.model, self.display, self.lines, best_epoch)

    @property
    def peak_bytes(self) -> int:
        """The most memory of all epochs."""
        return max(int(line["peak_bytes"] or 0) for line in self.lines)

    @property
    def on_cpu(self) -> bool:
        """Whether `peak_bytes` is of a process, not of a device's allocator."""
        return str(self.environment.get("device", "")).startswith("cpu")

    def median(self, field: str) -> float:
        """Median over the epochs of a field of metrics.jsonl."""
        values = sorted(float(line[field]) for line in self.lines)
        middle = len(values) // 2
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2

    def split_text(self) -> str:
        """The split that was tested on, its digest and its leak."""
        split = self.evaluation["split"]
        return f"{split['name']} ({split['digest']}), {leak_text(split['leak'])}"


def load_all(folders: Sequence[Path], *, allow_mixed: bool = False) -> list[Run]:
    """Read the run folders -> runs in the paper's order, each with a label of its own.

    Raises ReportError for a folder that is no finished, evaluated run, and unless `allow_mixed`
    for runs that differ in classes, split or views.
    """
    if not folders:
        raise ReportError("there is no run to report: give one or more run folders of har-train.")
    twice = [
        str(f) for f, count in Counter(Path(f).resolve() for f in folders).items() if count > 1
    ]
    if twice:
        raise ReportError(f"the run {twice[0]} is given twice: give each run once.")
    runs = [load(Path(folder)) for folder in folders]
    if not allow_mixed:
        _check_alike(runs)
    place = {model: number for number, model in enumerate(ORDER)}
    runs.sort(key=lambda run: place.get(run.model, len(place)))
    return _name(runs)


def load(folder: Path) -> Run:
    """Read one run folder. Raises ReportError, saying what to run where a file is missing."""
    if not (folder / "metrics.jsonl").is_file():
        raise ReportError(f"{folder} is not a run: give folders that har-train wrote.")
    if not (folder / "summary.json").is_file():
        raise ReportError(
            f"{folder} has no summary.json, so its training has not ended: let har-train finish."
        )
    if not (folder / "eval.json").is_file():
        raise ReportError(f"{folder} has no eval.json: run 'har-eval {folder}' first.")
    run = Run(
        folder,
        _read(folder / "metrics.jsonl", lambda text: [json.loads(s) for s in text.splitlines()]),
        _read(folder / "summary.json", json.loads),
        _read(folder / "eval.json", json.loads),
        _read(folder / "config.toml", tomllib.loads),
        _read(folder / "environment.json", json.loads),
    )
    _check_whole(run)
    return run


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read ({error}): train this run again.") from error


def _check_whole(run: Run) -> None:
    best, tested = run.summary["best_epoch"], run.evaluation["epoch"]
    if not any(line["epoch"] == best for line in run.lines):
        raise ReportError(
            f"{run.folder}: metrics.jsonl has no line of the best epoch {best}: "
            "train this run again."
        )
    if tested != best:
        raise ReportError(
            f"{run.folder}: eval.json is of epoch {tested} and the best is {best}: "
            f"run 'har-eval {run.folder}' again."
        )


def _check_alike(runs: Sequence[Run]) -> None:
    """All runs must be tested on the same classes, split and views as the first, as trained."""
    first = runs[0]
    for run in runs:
        trained, tested = run.summary["split"], run.evaluation["split"]
        differences = {
            "classes": (run.summary["classes"], first.summary["classes"]),
            "split": (run.split_text(), first.split_text()),
            "number of views": (run.evaluation["views"], first.evaluation["views"]),
        }
        for what, (its, others) in differences.items():
            if its != others:
                raise ReportError(
                    f"{run.folder} and {first.folder} are not comparable, they differ in {what}"
                    f"{_versus(what, its, others)}: report them apart, or add --allow-mixed."
                )
        if trained["digest"] != tested["digest"]:
            raise ReportError(
                f"{run.folder} was trained on split {trained['name']} ({trained['digest']}) and "
                f"evaluated on {tested['name']} ({tested['digest']}): "
                f"run 'har-eval {run.folder}' on its own split, or add --allow-mixed."
            )


def _versus(what: str, its: Any, others: Any) -> str:
    return f" ({len(its)} and {len(others)})" if what == "classes" else f" ({its} and {others})"


def _name(runs: list[Run]) -> list[Run]:
    """Labels: the model; its split where splits are mixed; its seed, or its folder, where a model
    comes more than once."""
    labels = [run.display for run in runs]
    if len({(run.split_text(), len(run.summary["classes"])) for run in runs}) > 1:
        labels = [
            f"{label} [{run.evaluation['split']['name']}, {len(run.summary['classes'])} classes]"
            for label, run in zip(labels, runs, strict=True)
        ]
    for more in ("seed {seed}", "{name}"):
        count = Counter(labels)
        labels = [
            label
            if count[label] == 1
            else f"{label}, " + more.format(seed=run.config.get("seed"), name=run.folder.name)
            for label, run in zip(labels, runs, strict=True)
        ]
    return [replace(run, label=label) for label, run in zip(labels, runs, strict=True)]

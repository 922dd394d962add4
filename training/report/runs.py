"""The runs of a report: read from their folders, checked, sorted as in the paper, and labelled.

What may not be compared silently is refused here, before anything is drawn: runs of other classes,
another split or another number of views, and an eval.json that is not of the run's best checkpoint.
"""

import json
import statistics
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import HarError
from ..evaluation import leak_text
from ..plots import DISPLAY_NAMES, Curves

MODEL_ORDER = tuple(DISPLAY_NAMES)  # of the paper's Table 1
_MISSING_FILES = {
    "metrics.jsonl": "{} is not a run: give folders that har-train wrote.",
    "summary.json": "{} has no summary.json, so its training has not ended: let har-train finish.",
    "eval.json": "{0} has no eval.json: run 'har-eval {0}' first.",
}


class ReportError(HarError):
    """Runs that cannot be reported, alone or together; one sentence with the way out."""


@dataclass(frozen=True)
class Run:
    """One finished and evaluated run: its files, parsed. metrics: the lines of metrics.jsonl.

    label: how tables name the run; unique in a report.
    """

    folder: Path
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    label: str = ""

    @property
    def model(self) -> str:
        return str(self.summary["model"])

    @property
    def display_name(self) -> str:
        """The paper's name of the model."""
        return DISPLAY_NAMES.get(self.model, self.model)

    @property
    def classes(self) -> list[str]:
        return list(self.summary["classes"])

    @property
    def best_metrics(self) -> dict[str, Any]:
        """The metrics of the checkpoint that was tested."""
        return next(line for line in self.metrics if line["epoch"] == self.summary["best_epoch"])

    @property
    def curves(self) -> Curves:
        return Curves(self.model, self.display_name, self.metrics, self.summary["best_epoch"])

    @property
    def peak_gib(self) -> float:
        """The most memory of all epochs, in GiB; 0 where it was not measured."""
        return max(int(line["peak_bytes"] or 0) for line in self.metrics) / 2**30

    @property
    def on_cpu(self) -> bool:
        """Whether `peak_gib` is of a process, not of a device's allocator."""
        return str(self.environment.get("device", "")).startswith("cpu")

    @property
    def split_text(self) -> str:
        """The split that was tested on, its digest and its leak."""
        split = self.evaluation["split"]
        return f"{split['name']} ({split['digest']}), {self.leak_text}"

    @property
    def leak_text(self) -> str:
        return leak_text(self.evaluation["split"]["leak"])

    def median(self, name: str) -> float:
        """Median over the epochs of a field of metrics.jsonl."""
        return statistics.median(float(line[name]) for line in self.metrics)


def group_by_model(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of each model, in the order they come."""
    models = dict.fromkeys(run.model for run in runs)
    return {model: [run for run in runs if run.model == model] for model in models}


def load_runs(folders: Sequence[Path], *, allow_mixed: bool = False) -> list[Run]:
    """Read the run folders -> runs in the paper's order, each with its label.

    Raises ReportError for a folder that is no finished, evaluated run, and unless `allow_mixed`
    for runs that differ in classes, split or views.
    """
    if not folders:
        raise ReportError("there is no run to report: give one or more run folders of har-train.")
    path, count = Counter(Path(folder).resolve() for folder in folders).most_common(1)[0]
    if count > 1:
        raise ReportError(f"the run {path} is given twice: give each run once.")
    runs = [load_run(Path(folder)) for folder in folders]
    if not allow_mixed:
        _check_comparable(runs)
    runs.sort(key=lambda run: (*MODEL_ORDER, run.model).index(run.model))
    return _add_labels(runs)


def load_run(folder: Path) -> Run:
    """Read one run folder. Raises ReportError, saying what to run where a file is missing."""
    for name, message in _MISSING_FILES.items():
        if not (folder / name).is_file():
            raise ReportError(message.format(folder))
    run = Run(
        folder,
        _read(folder / "metrics.jsonl", lambda text: [json.loads(s) for s in text.splitlines()]),
        _read(folder / "summary.json", json.loads),
        _read(folder / "eval.json", json.loads),
        _read(folder / "config.toml", tomllib.loads),
        _read(folder / "environment.json", json.loads),
    )
    best, tested = run.summary["best_epoch"], run.evaluation["epoch"]
    if not any(line["epoch"] == best for line in run.metrics):
        raise ReportError(
            f"{folder}: metrics.jsonl has no line of the best epoch {best}: train this run again."
        )
    if tested != best:
        raise ReportError(
            f"{folder}: eval.json is of epoch {tested} and the best is {best}: "
            f"run 'har-eval {folder}' again."
        )
    return run


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read ({error}): train this run again.") from error


def _check_comparable(runs: Sequence[Run]) -> None:
    """All runs must be tested on the same classes, split and views as the first, as trained."""
    first = runs[0]
    for run in runs:
        difference = None
        if run.classes != first.classes:
            difference = f"classes ({len(run.classes)} and {len(first.classes)})"
        elif run.split_text != first.split_text:
            difference = f"split ({run.split_text} and {first.split_text})"
        elif run.evaluation["views"] != first.evaluation["views"]:
            views = run.evaluation["views"], first.evaluation["views"]
            difference = f"number of views ({views[0]} and {views[1]})"
        if difference:
            raise ReportError(
                f"{run.folder} and {first.folder} are not comparable, they differ in {difference}: "
                "report them apart, or add --allow-mixed."
            )
        trained, tested = run.summary["split"], run.evaluation["split"]
        if trained["digest"] != tested["digest"]:
            raise ReportError(
                f"{run.folder} was trained on split {trained['name']} ({trained['digest']}) and "
                f"evaluated on {tested['name']} ({tested['digest']}): "
                f"run 'har-eval {run.folder}' on its own split, or add --allow-mixed."
            )


def _add_labels(runs: Sequence[Run]) -> list[Run]:
    """Labels: the model; its split where splits are mixed; its seed, or its folder, where a model
    comes more than once."""
    labels = [run.display_name for run in runs]
    if len({(run.split_text, len(run.classes)) for run in runs}) > 1:
        labels = [
            f"{run.display_name} [{run.evaluation['split']['name']}, {len(run.classes)} classes]"
            for run in runs
        ]
    seeds = [f"seed {run.config.get('seed')}" for run in runs]
    for details in (seeds, [run.folder.name for run in runs]):
        counts = Counter(labels)
        labels = [
            label if counts[label] == 1 else f"{label}, {detail}"
            for label, detail in zip(labels, details, strict=True)
        ]
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]

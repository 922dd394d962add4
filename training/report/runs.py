"""One run of a report, read from its folder, with the evaluation that is asked for.

An evaluation that is not of the run's best checkpoint is refused.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import HarError
from ..evaluation import (
    Probabilities,
    examples_path,
    join_probabilities,
    leak_text,
    list_evaluations,
    load_probabilities,
    metrics,
    parse_fold,
    probabilities_path,
)
from ..plots import DISPLAY_NAMES
from ..runtime.run_dir import read_file

MODEL_ORDER = tuple(DISPLAY_NAMES)  # of the paper's Table 1
_MISSING_FILES = {
    "metrics.jsonl": "{} is not a run: give folders that har-train wrote{}.",
    "summary.json": "{} has no summary.json, so its training has not ended: let har-train finish.",
}


class ReportError(HarError):
    """Runs that cannot be reported, alone or together; one sentence with the way out."""


@dataclass(frozen=True)
class Run:
    """One finished and evaluated run: its files, parsed. metrics: the lines of metrics.jsonl.

    evaluation_path: the eval.json. label: how tables name the run, unique in a report;
    row_label: how they name it and the runs that differ from it in the seed alone. folds: the run
    of each fold that is there, in order, where it stands for several.
    """

    folder: Path
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    evaluation_path: Path
    label: str = ""
    row_label: str = ""
    folds: tuple["Run", ...] = ()

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
    def parts(self) -> Sequence["Run"]:
        """The run itself; of several folds as one row, each fold."""
        return self.folds or (self,)

    @property
    def missing_folds(self) -> list[int]:
        """Numbers of the folds that are not there; [] of a single run."""
        folds = [parse_fold(run.evaluation["split"]["name"]) or (1, 1) for run in self.folds]
        count = folds[0][1] if folds else 0
        return sorted(set(range(1, count + 1)) - {fold for fold, _ in folds})

    @property
    def best_metrics(self) -> dict[str, Any]:
        """The metrics of the checkpoint that was tested; those of train by `train_measure`."""
        if self.folds:
            return _means([fold.best_metrics for fold in self.folds])
        best = self.summary["best_epoch"]
        line = next(line for line in self.metrics if line["epoch"] == best)
        names = ("train_loss", "train_acc")
        return line | {name: self.summary.get(f"best_{name}", line[name]) for name in names}

    @property
    def best_over_epochs(self) -> dict[str, Any]:
        """Lowest loss and highest accuracy over all epochs, each of its own epoch; None where the
        run has no val subset."""
        if self.folds:
            return _means([fold.best_over_epochs for fold in self.folds])
        best = {"train_loss": min, "train_acc": max, "val_loss": min, "val_acc": max}
        columns = {name: [line[name] for line in self.metrics] for name in best}
        return {
            name: None if None in values else best[name](values) for name, values in columns.items()
        }

    @property
    def examples_path(self) -> Path:
        """The strips of frames that har-eval drew."""
        return examples_path(self.evaluation_path)

    @property
    def has_probabilities(self) -> bool:
        """False where the evaluation is of an earlier version."""
        return all(probabilities_path(part.evaluation_path).is_file() for part in self.parts)

    @property
    def probabilities(self) -> Probabilities:
        """Of every clip of its evaluation, or of those of its folds."""
        return read_probabilities(self.parts)

    @property
    def running_measure(self) -> str:
        """What `train_loss` and `train_acc` of its epochs are of."""
        if not (self.config.get("mixup_alpha") or self.config.get("cutmix_alpha")):
            return "means over the epoch's steps, of clips as they were trained on"
        if "eval_train" in self.config:
            return (
                "means over the epoch's steps, of mixed clips: loss against their mixed labels, "
                "accuracy as the share of the predicted class in them"
            )
        return (
            "means over the epoch's steps, of mixed clips: loss against their mixed labels, "
            "accuracy against one of the two labels (a run of an earlier version)"
        )

    @property
    def train_measure(self) -> str:
        """What the train figures at its best checkpoint are of."""
        if "best_train_acc" in self.summary:
            return "measured at the end, of the best checkpoint on the train clips, not augmented"
        return self.running_measure

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

    @property
    def val_accuracy(self) -> float:
        """Of the best checkpoint; -1 without a val subset."""
        accuracy = self.summary["best_val_acc"]
        return -1.0 if accuracy is None else float(accuracy)

    def median(self, name: str) -> float:
        """Median over the epochs of a field of metrics.jsonl."""
        return statistics.median(float(line[name]) for line in self.metrics)


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number; None where a row has none."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: None if None in values else statistics.mean(values)
        for name, values in columns.items()
        if not isinstance(values[0], (str, list))
    }


def load_run(folder: Path, subset: str | None = None, views: int | None = None) -> Run:
    """Read one run folder with its evaluation on `subset` of `views` views.

    None: on test (on val where the run's split has no test clips), of one view, or the fewest that
    there are. Raises ReportError or RunError, saying what to run where a file is missing.
    """
    for name, message in _MISSING_FILES.items():
        if not (folder / name).is_file():
            if name == "metrics.jsonl" and (folder / "config.toml").is_file():
                message = "{} has no metrics.jsonl, so no epoch of it has ended well: leave it out."
            inside = sorted(str(path.parent) for path in folder.glob("*/metrics.jsonl"))
            raise ReportError(message.format(folder, f", as {' '.join(inside[:2])}" * bool(inside)))
    resume = f"har-train --resume {folder}"
    summary_names = ("model", "split", "classes", "best_epoch")
    summary = read_file(folder / "summary.json", resume, *summary_names)
    config = read_file(folder / "config.toml", resume)
    if "temporal_weight" in config:
        raise ReportError(
            f"{folder} is a run of har-pretrain, which has no accuracy to report: leave it out."
        )
    evaluation, path = _choose_evaluation(folder, summary, subset, views)
    videos = evaluation["videos"]  # evaluations of earlier versions have another interval
    evaluation["interval"] = metrics.wilson_interval(round(evaluation["video@1"] * videos), videos)
    run = Run(
        folder,
        read_file(folder / "metrics.jsonl", resume, "epoch"),
        summary,
        evaluation,
        config,
        read_file(folder / "environment.json", resume),
        path,
    )
    best, tested = run.summary["best_epoch"], run.evaluation["epoch"]
    if not any(line["epoch"] == best for line in run.metrics):
        raise ReportError(
            f"{folder}: metrics.jsonl has no line of the best epoch {best}: run '{resume}', which "
            "writes it anew."
        )
    if tested != best:
        raise ReportError(
            f"{folder}: {path.relative_to(folder)} is of epoch {tested} and the best is {best}: "
            f"run 'har-eval {folder}' again."
        )
    return run


def read_probabilities(parts: Sequence[Run]) -> Probabilities:
    """Of the clips of all `parts`, which are tested on different ones.

    Raises ReportError where one has none, and ProbabilitiesError where a file is damaged.
    """
    for part in parts:
        if not part.has_probabilities:
            raise ReportError(
                f"the evaluation of {part.folder} is of an earlier version and kept no "
                f"probabilities: run 'har-eval {part.folder}' again."
            )
    paths = [probabilities_path(part.evaluation_path) for part in parts]
    return join_probabilities([load_probabilities(path) for path in paths])


def _choose_evaluation(
    folder: Path, summary: dict[str, Any], subset: str | None, views: int | None
) -> tuple[dict[str, Any], Path]:
    """(content, path) of the evaluation that is asked for, of best.pt, and if there is one of the
    run's own split and shards.

    summary: the content of summary.json.
    """
    trained, digest = summary["split"], summary.get("manifest_digest")
    clips = trained.get("clips", {"test": 1})  # runs of earlier versions all had test clips
    subset = subset or next((name for name in ("test", "val") if clips.get(name)), None)
    if subset is None:
        raise ReportError(
            f"the split of {folder} has neither test nor val clips to report on: leave it out, or "
            "give --subset train."
        )
    paths = list_evaluations(folder)
    names = ("on", "views", "checkpoint", "epoch", "split")
    found = [(read_file(path, f"har-eval {folder}", *names), path) for path in paths]
    fitting = [
        (result, path)
        for result, path in reversed(found)  # those of earlier versions last
        if result["on"] == subset
        and views in (None, result["views"])
        and result["checkpoint"] == "best.pt"
    ]
    if not fitting:
        options = (f" --subset {subset}" if subset != "test" else "") + (
            f" --views {views}" if views else ""
        )
        there = ", ".join(str(path.relative_to(folder)) for path in paths)
        raise ReportError(
            f"{folder} has no evaluation on {subset}{f' of {views} views' if views else ''}"
            f"{f' (it has {there})' if there else ''}: run 'har-eval {folder}{options}' first."
        )
    return min(
        fitting,
        key=lambda one: (
            one[0]["split"]["digest"] != trained["digest"],
            one[0].get("manifest_digest", digest) != digest,
            one[0]["views"],
        ),
    )

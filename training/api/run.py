"""A run as an object: its metrics, curves and evaluations, and predictions with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...notebook import as_table, html_properties, html_table
from ...progress import ProgressBar, note, silence, write
from .. import config as configs
from ..config import Config, ConfigError
from ..evaluation import (
    describe_evaluation,
    describe_folds,
    evaluate_run,
    join_probabilities,
    leak_text,
    list_evaluations,
    load_probabilities,
    pool_folds,
)
from ..optim import BestEpoch
from ..plots import Curves, Figure, plot_run
from ..prediction import Prediction, iterate_predictions
from ..pretrain.config import PretrainConfig
from ..runtime import checkpoint, fold_dir, run_dir
from .arguments import check_options, check_path


def load_run(path: Run | Path | str) -> Run:
    """The run in a folder that `train` or `har-train` wrote, finished or not; of a checkpoint in it
    (RUN/last.pt) the run, which evaluates and predicts with that one.

    Raises CheckpointError where there is none.
    """
    if isinstance(path, Run):
        return path
    folder = check_path("path", path)
    if folder.suffix == ".pt" and folder.is_file():
        return Run(folder.parent, checkpoint=folder)
    if not any((folder / name).is_file() for name in ("config.toml", "best.pt", "folds.json")):
        raise checkpoint.CheckpointError(
            f"there is no checkpoint at {checkpoint.find_checkpoint(folder)}: give a run folder of "
            "har-train, or a .pt file in one."
        )
    return Run(folder)


class Run:
    """A run folder, or a folder of folds. Its files are read when they are asked for, so that a run
    in another thread or process shows how far it is.

    path: the folder; a run stands for it wherever a path is taken (`har.train(weights=run)`).
    checkpoint: the file that evaluates and predicts, None for best.pt. Made by `train`, `resume`
    and `load_run`.
    """

    def __init__(
        self, path: Path, finite: bool | None = None, checkpoint: Path | None = None
    ) -> None:
        self.path, self.checkpoint = path, checkpoint
        self._finite = finite

    def __fspath__(self) -> str:
        return str(self.checkpoint or self.path)

    @property
    def folds(self) -> list[Run]:
        """The finished runs of a folder of folds; [] of a single run, or where none is finished."""
        if not fold_dir.is_fold_dir(self.path):
            return []
        with suppress(fold_dir.FoldError):
            return [Run(folder) for folder in fold_dir.list_run_folders(self.path)]
        return []

    @property
    def config(self) -> Config:
        """The settings of the run; of folds, those that they share."""
        if fold_dir.is_fold_dir(self.path):
            return fold_dir.load_fold_dir(self.path).config
        if (file := self.path / "config.toml").is_file():
            return configs.load(file, PretrainConfig)
        return configs.from_mapping(checkpoint.load(self.path / "best.pt")["config"])

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json: why the run stopped, its best epoch, its split ...; {} while it is not
        finished, and of folds."""
        path = self.path / "summary.json"
        resume = f"har-train --resume {self.path}"
        return run_dir.read_file(path, resume) if path.is_file() else {}

    @property
    def finite(self) -> bool:
        """False where the loss became nan or infinite."""
        if self._finite is not None:
            return self._finite
        return all(bool(run.summary.get("finite", True)) for run in [self, *self.folds])

    @property
    def best_epoch(self) -> int:
        """The epoch of best.pt; 0 before the first is finished, and of folds."""
        best = BestEpoch()
        for row in [] if self.folds else self._read_metrics():
            best.update(row["epoch"], row["val_acc"], row["val_loss"])
        return best.epoch

    @property
    def metrics(self) -> Any:
        """A row for each epoch (metrics.jsonl): a pandas DataFrame, or a list of dicts without
        pandas. Of folds the rows of all, with the column "fold"."""
        return as_table(self._read_metrics())

    @property
    def evaluations(self) -> list[Evaluation]:
        """What `evaluate` and har-eval have written of this run so far."""
        paths, command = list_evaluations(self.path), f"har-eval {self.path}"
        return [Evaluation(run_dir.read_file(path, command)) for path in paths]

    def evaluate(self, *, quiet: bool = False, **options: Any) -> Evaluation:
        """Evaluate the best checkpoint, or that of each fold, as `har-eval` does; -> eval.json.

        options: those of `har.training.evaluation.evaluate_run` (subset, views, threshold, split,
        shards, batch_size, device, allow_other_split ...). Test subsets of folds come back as one
        evaluation, as every video was tested once. Raises HarError, one sentence.
        """
        check_options(Run.evaluate, {"quiet": quiet})
        options = check_options(evaluate_run, options)
        with silence(quiet):
            folders = fold_dir.list_run_folders(self.path)
            if folders == [self.path]:
                return Evaluation(evaluate_run(self.checkpoint or self.path, **options))
            results = []
            for folder in folders:
                results.append(evaluate_run(folder, **options))
                accuracy, videos = results[-1]["video@1"], results[-1]["videos"]
                write(f"{folder}: video@1 {accuracy:.4f} of {videos} videos")
        if options.get("subset", "test") == "test" and options.get("split") is None:
            files = [Path(one["run"], one["folder"], "probabilities.npz") for one in results]
            probabilities = join_probabilities([load_probabilities(file) for file in files])
            return Evaluation(pool_folds(results, str(self.path), probabilities))
        return Evaluation(folds=results)

    def predict(
        self, videos: Path | str | Iterable[Path | str], *, quiet: bool = False, **options: Any
    ) -> Prediction:
        """The answers of the best checkpoint to videos, as `har-predict` gives them.

        videos: one or several files, folders, globs or URLs. options: those of
        `har.training.prediction.iterate_predictions` (window, hop, stream, device, cam ...). A
        video that cannot be read is an answer with an `error`, which is printed, too, unless
        `quiet`. Raises HarError, one sentence.
        """
        check_options(Run.predict, {"quiet": quiet})
        options = check_options(iterate_predictions, {"with_strips": True, **options})
        if isinstance(videos, str) or not isinstance(videos, Iterable):
            videos = [videos]
        names = list(videos)
        for name in names:
            check_path("videos", name)
        prediction = Prediction()
        with silence(quiet):
            names = [os.path.expanduser(name) for name in names]  # a URL stays as it is
            sources, answers = iterate_predictions(self.checkpoint or self.path, names, **options)
            count = len(sources)
            with ProgressBar(count, "predict", quiet=count < 2) as bar:
                for answer in answers:
                    for text in answer.messages:
                        note(text)
                    prediction.append(answer)
                    bar.advance()
        return prediction

    def plot(self) -> Figure:
        """Loss and accuracy over the epochs so far, as a figure of matplotlib.

        Raises HarError where no epoch is finished.
        """
        model = self.config.model
        curves = [
            Curves(model, model, run._read_metrics(), run.best_epoch)
            for run in self.folds or [self]
            if run.best_epoch
        ]
        if not curves:
            raise ConfigError(f"no epoch of {self.path} is finished: there is nothing to draw yet.")
        return plot_run(curves)

    def _read_metrics(self) -> list[dict[str, Any]]:
        if folds := self.folds:
            numbered = [(int(run.path.name.removeprefix("fold-")), run) for run in folds]
            return [{"fold": n, **row} for n, run in numbered for row in run._read_metrics()]
        path = self.path / "metrics.jsonl"
        resume = f"har-train --resume {self.path}"
        return run_dir.read_file(path, resume, "epoch") if path.is_file() else []

    def _describe(self) -> dict[str, str]:
        """What a run is, in a few words each; {} where its folder is gone or damaged."""
        try:
            settings, rows, best = self.config, self._read_metrics(), self.best_epoch
            state = self.summary.get("stop_reason", "not finished")
        except (OSError, ValueError):
            return {}
        if fold_dir.is_fold_dir(self.path):
            return {"model": settings.model, "folds": f"{len(self.folds)} finished"}
        values = {"model": settings.model, "epochs": f"{len(rows)} of {settings.epochs}, {state}"}
        if best:
            accuracy = rows[best - 1]["val_acc"]
            quality = f", validation accuracy {accuracy:.4f}" if accuracy is not None else ""
            values["best"] = f"epoch {best}{quality}"
        return {**values, "shards": settings.shards, "split": settings.split}

    def __repr__(self) -> str:
        values = self._describe()
        words = [f", {name} {values[name]}" for name in values if name not in ("shards", "split")]
        return f"Run({str(self.path)!r}{''.join(words)})"

    def _repr_html_(self) -> str:
        best, tests = self.best_epoch, {}
        for e in self.evaluations:
            name = f"{e['on']} of {e['split']['name']}, views {e['views']}"
            old = e["checkpoint"] != "best.pt" or e["epoch"] != best  # trained further since
            tests[f"{name}, epoch {e['epoch']}" if old else name] = e._short()
        return html_properties(f"Run {self.path}", {**self._describe(), **tests})


class Evaluation(dict[str, Any]):
    """The content of eval.json; `print` shows what har-eval shows."""

    def __str__(self) -> str:
        if "video@1" in self:
            return describe_evaluation(self)
        return f"video@1 of the folds {describe_folds(self['folds'])}"

    def _short(self) -> str:
        if "video@1" not in self:
            return str(self)
        low, high = self["interval"]
        return (
            f"video@1 {self['video@1']:.4f} [{low:.4f}, {high:.4f}] of {self['videos']} videos, "
            f"{leak_text(self['split']['leak'])}"
        )

    def __repr__(self) -> str:
        return f"Evaluation({self.get('on', 'folds')}: {self._short()})"

    def _repr_html_(self) -> str:
        if "video@1" not in self:
            return html_properties("Evaluation", {"folds": self._short()})
        values = {"video@1": self._short(), "mean class accuracy": f"{self['mean_class_acc']:.4f}"}
        confused = [[row["true"], row["predicted"], row["count"]] for row in self["confused"][:5]]
        table = html_table(["true class", "predicted", "videos"], confused) if confused else ""
        split = self["split"]["name"]
        title = f"{self['model']} on {self['on']} of split {split}"
        return html_properties(title, values, table)

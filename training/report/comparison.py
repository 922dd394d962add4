"""Which runs may stand in one report, which of them are one row, and what each is called.

What may not be compared silently is refused here, before anything is drawn: runs of other classes,
another shard set or split, another subset or number of views. Runs are one row only if their
settings differ in nothing but the seed, and one row is called by what sets it apart from others.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..config import PRESETS, Config
from ..evaluation import parse_fold, pool_folds
from ..runtime.fold_dir import list_run_folders
from ..values import upgrade_settings
from .runs import MODEL_ORDER, ReportError, Run, load_run, read_probabilities

# Settings that say where and how fast a run is computed, not what.
_NOT_COMPARED = (
    "seed", "shards", "workers", "device", "cache", "save_every_minutes", "rank_timeout",
    "tensorboard", "eval_train", "log_every",
)  # fmt: skip
# Settings that belong to the model, and the preset, which is nothing but a name for others.
_OF_MODEL = ("model", "model_options", "weights", "freeze", "recompute", "preset")
_MAX_SETTINGS = 4  # that a label names


def load_runs(
    folders: Sequence[Path],
    *,
    allow_mixed: bool = False,
    subset: str | None = None,
    views: int | None = None,
    any_views: bool = False,
) -> list[Run]:
    """Read the run folders -> runs in the paper's order, each with its label; folds as one run.

    subset, views: which evaluation of each run (see `load_run`). Raises ReportError for a folder
    that is no finished, evaluated run, and unless `allow_mixed` for runs that differ in classes,
    shard set, split, subset or (unless `any_views`) views.
    """
    if not folders:
        raise ReportError("there is no run to report: give one or more run folders of har-train.")
    folders = [run for folder in folders for run in list_run_folders(Path(folder))]
    path, count = Counter(folder.resolve() for folder in folders).most_common(1)[0]
    if count > 1:
        raise ReportError(f"the run {path} is given twice: give each run once.")
    runs = _pool_folds([load_run(folder, subset, views) for folder in folders])
    if not allow_mixed:
        _check_comparable(runs, any_views)
    runs.sort(key=lambda run: (*MODEL_ORDER, run.model).index(run.model))
    return _add_labels(runs)


def settings_of(run: Run) -> dict[str, Any]:
    """The settings that decide what is computed, but for the seed; old files lack some defaults."""
    settings = {**asdict(Config()), **upgrade_settings(run.config)}
    return {name: value for name, value in settings.items() if name not in _NOT_COMPARED}


def recipe_of(run: Run) -> tuple[str, ...]:
    """The settings but for the model and what belongs to it; lr and augment are in it only where
    they are not what the model has by itself. Runs of one recipe compare models."""
    settings = settings_of(run)
    own = Config(model=run.model, weights=settings["weights"]).resolve()
    for name in ("lr", "augment"):
        if settings[name] == getattr(own, name):
            settings[name] = None
    return tuple(f"{name} {value!r}" for name, value in settings.items() if name not in _OF_MODEL)


def group_by_model(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of each model, in the order they come."""
    models = dict.fromkeys(run.model for run in runs)
    return {model: [run for run in runs if run.model == model] for model in models}


def group_seeds(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Row label -> the runs that differ in nothing but the seed, in the order they come."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_row_key(run), []).append(run)
    counts = Counter(group[0].row_label for group in groups.values())
    return {
        group[0].row_label if counts[group[0].row_label] == 1 else group[0].label: group
        for group in groups.values()
    }


def _row_key(run: Run) -> tuple[str, ...]:
    evaluation = (run.split_text, run.evaluation["on"], run.evaluation["views"], run.classes)
    return (run.model, *map(repr, (*evaluation, run.summary.get("manifest_digest"))),
            *map(repr, settings_of(run).items()))  # fmt: skip


def _pool_folds(runs: Sequence[Run]) -> list[Run]:
    """Runs of the folds of one split, alike in all settings and the seed, become one."""
    rows: list[Run] = []
    folds: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        fold = parse_fold(run.evaluation["split"]["name"])
        if fold is None:
            rows.append(run)
            continue
        settings = {**settings_of(run), "split": fold[1], "seed": run.config.get("seed")}
        digest = run.summary.get("manifest_digest")
        key = (run.model, repr(digest), *map(repr, settings.items()))
        folds.setdefault(key, []).append(run)
    return [*rows, *map(_pool_runs, folds.values())]


def _pool_runs(folds: Sequence[Run]) -> Run:
    """Runs that differ in their fold alone -> one. Raises ReportError or FoldError.

    metrics: the lines of all folds; summary: seconds are their sum, accuracies their mean; config
    and environment are the first fold's.
    """
    folds = sorted(folds, key=lambda run: parse_fold(run.evaluation["split"]["name"]) or (0, 0))
    first, folder = folds[0], folds[0].folder.parent
    if first.evaluation["on"] != "test":
        raise ReportError(
            f"the folds in {folder} are one row on their test clips only: leave out "
            f"--subset {first.evaluation['on']}."
        )
    results = [run.evaluation for run in folds]
    evaluation = pool_folds(results, str(folder), read_probabilities(folds))
    accuracies = [run.summary["best_val_acc"] for run in folds]
    summary = {
        **first.summary,
        "split": evaluation["split"],
        "seconds": sum(run.summary["seconds"] for run in folds),
        "best_val_acc": None if None in accuracies else statistics.mean(accuracies),
    }
    return Run(
        folder,
        [line for run in folds for line in run.metrics],
        summary,
        evaluation,
        {**first.config, "split": evaluation["split"]["name"]},
        first.environment,
        first.evaluation_path,
        folds=tuple(folds),
    )


def _check_comparable(runs: Sequence[Run], any_views: bool) -> None:
    """All runs must be tested on the same clips as the first, in the same way, as trained."""
    for run in runs:
        difference = find_difference(run, runs[0], any_views)
        if difference:
            raise ReportError(
                f"{run.folder} and {runs[0].folder} are not comparable, they differ in "
                f"{difference}: report them apart, or add --allow-mixed."
            )
        for part in run.parts:
            trained, tested = part.summary["split"], part.evaluation["split"]
            if trained["digest"] != tested["digest"]:
                raise ReportError(
                    f"{part.folder} was trained on split {trained['name']} ({trained['digest']}) "
                    f"and evaluated on {tested['name']} ({tested['digest']}): "
                    f"run 'har-eval {part.folder}' on its own split, or add --allow-mixed."
                )


def find_difference(run: Run, first: Run, any_views: bool = False) -> str | None:
    """What keeps two runs from being compared, with both values."""
    sets = [_set_digest(one)[:16] for one in (run, first)]
    if run.classes != first.classes:
        return f"classes ({len(run.classes)} and {len(first.classes)})"
    if run.split_text != first.split_text:
        return f"split ({run.split_text} and {first.split_text})"
    if all(sets) and sets[0] != sets[1]:
        return f"shard set (manifests {sets[0]} and {sets[1]})"
    for name, word in (("on", "subset"), ("views", "number of views")):
        values = run.evaluation[name], first.evaluation[name]
        if values[0] != values[1] and not (any_views and name == "views"):
            return f"{word} ({values[0]} and {values[1]})"
    return None


def _set_digest(run: Run) -> str:
    """Of the shard set that the run was tested on; "" where it is unknown."""
    tested = run.parts[0].evaluation.get("manifest_digest")
    return str(tested or run.summary.get("manifest_digest") or "")


def are_mixed(runs: Sequence[Run]) -> bool:
    """Whether there are runs that compare only because of `allow_mixed`."""
    return any(find_difference(run, runs[0]) for run in runs)


def _add_labels(runs: Sequence[Run]) -> list[Run]:
    """Labels: the model; its split where splits are mixed; the settings that set it apart from
    other runs of the model; its seed, or its folder, where these do not."""
    labels = [run.display_name for run in runs]
    if len({(run.split_text, len(run.classes)) for run in runs}) > 1:
        labels = [
            f"{run.display_name} [{run.evaluation['split']['name']}, {len(run.classes)} classes]"
            for run in runs
        ]
    elif any(len(run.parts) > 1 for run in runs):
        labels = [f"{run.display_name} ({run.evaluation['split']['name']})" for run in runs]
    for group in group_by_model(runs).values():
        indices = [runs.index(run) for run in group]
        for index, variant in zip(indices, _describe_variants(group), strict=True):
            labels[index] += f", {variant}" * bool(variant)
    rows = list(labels)
    seeds = [f"seed {run.config.get('seed')}" for run in runs]
    names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    for details in (seeds, names):
        counts = Counter(labels)
        labels = [
            label if counts[label] == 1 else f"{label}, {detail}"
            for label, detail in zip(labels, details, strict=True)
        ]
    return [
        replace(run, label=label, row_label=row)
        for run, label, row in zip(runs, labels, rows, strict=True)
    ]


def _describe_variants(runs: Sequence[Run]) -> list[str]:
    """For each run of one model the settings that set it apart from the others; "" where none."""
    every = [settings_of(run) for run in runs]
    varying = [
        name
        for name in every[0]
        if name != "split" and len({repr(one.get(name)) for one in every}) > 1
    ]
    if "preset" in varying:  # what the presets themselves make different need not be listed
        defaults = [{**asdict(Config()), **PRESETS.get(one["preset"], {})} for one in every]
        pairs = list(zip(every, defaults, strict=True))
        varying = [n for n in varying if any(one.get(n) != own.get(n) for one, own in pairs)]
    texts = []
    for one in every:
        values = [f"{name} {_format(one.get(name))}" for name in varying[:_MAX_SETTINGS]]
        texts.append(", ".join(values + ["..."] * (len(varying) > _MAX_SETTINGS)))
    return texts


def _format(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()

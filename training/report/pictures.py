"""The pictures of a report, drawn into its folder, each with caption and text alternative.

Where a model has several runs, curves show them all, and pictures of one network (filters,
confusion, precision over recall, examples) show the run with the best validation accuracy, never
the best test accuracy.
File names carry the paper's figure numbers.
"""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...atomic import write_atomically
from .. import plots
from ..evaluation import metrics
from ..runtime import checkpoint
from .comparison import group_by_model, group_seeds
from .document import Picture
from .render import png_size
from .runs import MODEL_ORDER, ReportError, Run
from .tables import write_csv

_MAX_COLUMN_WIDTH = 1400  # pixels; a wider picture keeps its size and scrolls
_FIGURES = {"loss": (6, 10), "acc": (11, 15)}  # the paper's: of the first model, of all models
_QUANTITIES = {"loss": "loss", "acc": "accuracy"}


def choose_runs(runs: Sequence[Run]) -> list[Run]:
    """For each model the run that stands for it: the best by validation accuracy."""
    return [max(group, key=lambda run: run.val_accuracy) for group in group_by_model(runs).values()]


def _choose_part(run: Run) -> Run:
    """Of several folds the one whose network is shown: the best by validation accuracy."""
    return max(run.parts, key=lambda part: part.val_accuracy)


def _file_name(model: str) -> str:
    """A model's name in that of a file: one of the user's own has a colon, which a link takes for
    the end of a scheme, and Windows for the end of a drive."""
    return model.replace(":", "-")


def _choose_styles(runs: Sequence[Run]) -> dict[str, plots.Style]:
    """Color and marker of each row and of the runs in it, the same in all pictures of a report."""
    groups = group_seeds(runs)
    styles = plots.label_styles({label: group[0].model for label, group in groups.items()})
    return styles | {run.label: styles[label] for label in groups for run in groups[label]}


def draw_curves(out: Path, runs: Sequence[Run], quantity: str) -> list[Picture]:
    """Figures 6-9 and 10 (quantity "loss") or 11-14 and 15 ("acc")."""
    first, all_models = _FIGURES[quantity]
    word = _QUANTITIES[quantity]
    pictures, styles = [], _choose_styles(runs)
    curves = [
        plots.Curves(run.model, label, part.metrics, part.summary["best_epoch"], styles[label])
        for label, group in group_seeds(runs).items()
        for run in group
        for part in run.parts
    ]
    for model, group in group_by_model(runs).items():
        prefix, caption = "", f"{word} of {group[0].display_name} over the epochs"
        if model in MODEL_ORDER:
            figure = first + MODEL_ORDER.index(model)
            prefix, caption = f"fig{figure:02d}-", f"As the paper's figure {figure}: {caption}"
        path = out / f"{prefix}{word}-{_file_name(model)}.png"
        own = [curve for curve in curves if curve.model == model]
        plots.plot_model_curves(path, own, quantity)
        seeds = f", {len(own)} runs" if len(own) > 1 else ""
        pictures.append(Picture(path, f"{caption}{seeds}.", _describe_curves(own, quantity)))
    if len({curve.label for curve in curves}) == 1:  # it would be the same picture again
        return pictures
    path = out / f"fig{all_models}-{word}-all.png"
    plots.plot_all_curves(path, curves, quantity)
    caption = f"As the paper's figure {all_models}: {word} of all models, training and validation."
    return [*pictures, Picture(path, caption, _describe_curves(curves, quantity))]


def _describe_curves(curves: Sequence[plots.Curves], quantity: str) -> str:
    """The ends of the curves in words."""
    texts = []
    for curve in curves:
        ends = [
            f"{name} {values[0]:.3f} to {values[-1]:.3f}"
            for name, subset in (("training", "train"), ("validation", "val"))
            if (values := curve.values(subset, quantity))
        ]
        texts.append(f"{curve.label}: {', '.join(ends)} in {len(curve.metrics)} epochs")
    return f"{_QUANTITIES[quantity].capitalize()} of {'; '.join(texts)}."


def draw_costs(out: Path, runs: Sequence[Run]) -> Picture:
    """Training time, speed and memory side by side; seeds of one setting as their mean."""
    groups = group_seeds(runs)
    is_short = max(run.summary["seconds"] for run in runs) < 300
    divisor, unit = (1, "seconds") if is_short else (60, "minutes")

    def means(value: Callable[[Run], float]) -> list[float]:
        return [statistics.mean(float(value(run)) for run in group) for group in groups.values()]

    bars: dict[str, list] = {
        f"Training time ({unit})": means(lambda run: run.summary["seconds"] / divisor),
        "Clips per second (median epoch)": means(lambda run: run.median("clips_per_s")),
        "Peak memory (GiB)": [peak or None for peak in means(lambda run: run.peak_gib)],
    }
    styles = _choose_styles(runs)
    path = plots.plot_costs(out / "costs.png", {label: styles[label] for label in groups}, bars)
    return Picture(path, "What training took.", "Bars of the figures in the table above.")


def draw_class_results(out: Path, runs: Sequence[Run]) -> list[Picture]:
    """Accuracy by class, where the classes are the same, and a confusion matrix for each model."""
    pictures = []
    if all(run.classes == runs[0].classes for run in runs):
        pictures.append(_draw_class_accuracy(out, runs))
    for run in choose_runs(runs):
        on = run.evaluation["on"]
        path = out / f"confusion-{_file_name(run.model)}.png"
        matrix = np.array(run.evaluation["confusion"])
        plots.plot_confusion(path, matrix, run.classes, f"{run.display_name} on {on}")
        mistakes = ", ".join(
            f"{pair['true']} taken for {pair['predicted']} ({pair['count']})"
            for pair in run.evaluation["confused"][:3]
        )
        alt = f"{np.trace(matrix)} of {matrix.sum()} videos on the diagonal; " + (
            f"most often {mistakes}" if mistakes else "no video is taken for another class"
        )
        caption = f"Confusion matrix of {run.label}, {on} videos. Split: {run.split_text}."
        pictures.append(Picture(path, caption, alt, wide=_is_wide(path)))
    return pictures


def _draw_class_accuracy(out: Path, runs: Sequence[Run]) -> Picture:
    classes, groups = runs[0].classes, group_seeds(runs)
    recalls = {
        label: np.mean([_class_recalls(run) for run in group], axis=0).tolist()
        for label, group in groups.items()
    }
    styles = _choose_styles(runs)
    path = plots.plot_class_accuracy(out / "per-class.png", classes, recalls, styles)
    mean = np.mean(list(recalls.values()), axis=0)
    hard, easy = int(np.nanargmin(mean)), int(np.nanargmax(mean))
    alt = (
        f"Hardest class {classes[hard]} with {mean[hard]:.2f} on average, "
        f"easiest {classes[easy]} with {mean[easy]:.2f}."
    )
    untested = [classes[index] for index in np.flatnonzero(np.isnan(mean))]
    note = f" Without a test video: {', '.join(untested)}." if untested else ""
    return Picture(path, f"Accuracy by class, the hardest on top.{note}", alt)


def _class_recalls(run: Run) -> list[float]:
    """Recall of each class; nan where no test video is of it, which is not an accuracy of 0."""
    rows = run.evaluation["per_class"]
    return [float(row["recall"]) if row.get("support") != 0 else float("nan") for row in rows]


def draw_precision_recall(out: Path, runs: Sequence[Run]) -> list[Picture]:
    """The curves of each class, for a run of each model that kept probabilities, and their areas in
    average_precision.csv."""
    classes = runs[0].classes
    areas: dict[str, list[float]] = {}
    curves: dict[str, list[plots.Curve]] = {}
    drawn = []
    for run in choose_runs(runs):
        if not run.has_probabilities or run.classes != classes:
            continue
        _, labels, scores = run.probabilities.average_clips()
        areas[run.label] = metrics.class_average_precision(scores, labels).tolist()
        curves[run.label] = [
            metrics.precision_recall(scores[:, k], labels == k) for k in range(len(classes))
        ]
        drawn.append(run)
    if not areas:
        return []
    styles = _choose_styles(runs)
    path = plots.plot_precision_recall(out / "precision-recall.png", classes, curves, areas, styles)
    rows = zip(classes, *(map(str, values) for values in areas.values()), strict=True)
    write_csv(out / "average_precision.csv", ["Class", *areas], rows)
    means = "; ".join(f"{label} {np.nanmean(values):.4f}" for label, values in areas.items())
    caption = (
        "Precision over recall of each class against all others, by its probability, and the area "
        f"under the steps (average precision); the hardest class first. Their mean (mAP): {means}. "
        f"Split: {'; '.join(dict.fromkeys(run.split_text for run in drawn))}."
    )
    alt = f"A small panel for each of {len(classes)} classes, the hardest first."
    return [Picture(path, caption, alt, wide=_is_wide(path))]


def copy_examples(out: Path, runs: Sequence[Run]) -> list[Picture]:
    """The strips that har-eval drew, where it did."""
    pictures = []
    for run in choose_runs(runs):
        part = _choose_part(run)
        if part.examples_path.is_file():
            path = out / f"examples-{_file_name(run.model)}.png"
            try:
                png_size(part.examples_path)
            except OSError as error:
                raise ReportError(
                    f"{part.examples_path} cannot be read as a PNG ({error}): run 'har-eval "
                    f"{part.folder}' again, which draws it anew."
                ) from error
            write_atomically(path, part.examples_path.read_bytes())
            examples = plots.choose_examples(part.evaluation["predictions"])
            alt = "; ".join(f"{row['true']} predicted as {row['predicted']}" for row in examples)
            caption = f"{run.label}: its surest right and its surest wrong answers."
            pictures.append(Picture(path, caption, alt))
    return pictures


def draw_filters(out: Path, runs: Sequence[Run]) -> list[Picture]:
    """Figure 16 and the other models' first-layer filters, of the runs that kept best.pt."""
    pictures = []
    for run in choose_runs(runs):
        path = _choose_part(run).folder / "best.pt"
        if not path.is_file():
            continue
        state_dict = checkpoint.load(path)["model"]
        name = f"filters-{_file_name(run.model)}.png"
        caption = f"First-layer filters of {run.label}."
        if run.model == "r2plus1d":
            name = f"fig16-{name}"
            caption = (
                "As the paper's figure 16: learned filters of R(2+1)D's first layer, (a) spatial, "
                "(b) temporal; weights in [-0.3, 0.3] shown as [-1, 1]."
            )
        if plots.plot_filters(out / name, run.model, state_dict) is not None:
            alt = (
                f"Grid of the learned first-layer weights of {run.display_name} as small color "
                "images."
            )
            pictures.append(Picture(out / name, caption, alt))
    return pictures


def copy_contact_sheet(out: Path, source: Path | None) -> list[Picture]:
    """The sheet of clips that is given, or that lies in `out`; none where there is none."""
    path = out / "contact_sheet.png"
    if source is not None:
        try:
            png_size(source)
            picture = source.read_bytes()
        except OSError as error:
            raise ReportError(
                f"--contact-sheet {source} is not a PNG that can be used ({error}): give one as "
                "'har-shards preview' draws it."
            ) from error
        write_atomically(path, picture)
    if not path.is_file():
        return []
    caption = "Clips as they lie in the shards."
    alt = "Contact sheet: frames of some clips of each class, in rows."
    return [Picture(path, caption, alt, wide=_is_wide(path))]


def _is_wide(path: Path) -> bool:
    return png_size(path)[0] > _MAX_COLUMN_WIDTH

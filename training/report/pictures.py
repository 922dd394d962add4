"""The pictures of a report, drawn into its folder, each with caption and text alternative.

Odd: where a model has several runs, curves show them all, and pictures of one network (filters,
confusion, examples) show the run with the best validation accuracy, never the best test accuracy.
File names carry the paper's figure numbers.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from ..runtime import checkpoint
from .document import Picture
from .html import png_size
from .runs import ORDER, ReportError, Run

CONTACT_SHEET = "contact_sheet.png"
_WIDE = 1400  # pixels; above, a picture keeps its size and scrolls
_NUMBERS = {"loss": (6, 10), "acc": (11, 15)}  # first of the models' figures, and that of all
_WORDS = {"loss": "loss", "acc": "accuracy"}


def by_model(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of each model, in the order they come."""
    return {
        m: [run for run in runs if run.model == m] for m in dict.fromkeys(r.model for r in runs)
    }


def chosen(runs: Sequence[Run]) -> list[Run]:
    """For each model the run that stands for it: the best by validation accuracy."""
    return [
        max(same, key=lambda run: float(run.summary["best_val_acc"]))
        for same in by_model(runs).values()
    ]


def curves(out: Path, runs: Sequence[Run], quantity: str) -> list[Picture]:
    """Figs 6-9 and 10 (quantity "loss") or 11-14 and 15 ("acc")."""
    first, together = _NUMBERS[quantity]
    word = _WORDS[quantity]
    pictures = []
    for model, same in by_model(runs).items():
        number = f"fig{first + ORDER.index(model):02d}-" if model in ORDER else ""
        path = out / f"{number}{word}-{model}.png"
        plots.plot_model_curves(path, [run.curves for run in same], quantity)
        pictures.append(
            Picture(path, _curve_caption(number, same, word), _curve_alt(same, quantity))
        )
    path = out / f"fig{together}-{word}-all.png"
    plots.plot_all_curves(path, [run.curves for run in runs], quantity)
    ends = [f"{run.label} {run.lines[-1][f'val_{quantity}']:.3f}" for run in runs]
    alt = f"Validation {word} of the last epoch: {', '.join(ends)}."
    caption = f"As the paper's figure {together}: {word} of all models, training and validation."
    return [*pictures, Picture(path, caption, alt)]


def _curve_caption(number: str, same: Sequence[Run], word: str) -> str:
    figure = f"As the paper's figure {int(number[3:5])}: " if number else ""
    runs = f", {len(same)} runs" if len(same) > 1 else ""
    return f"{figure}{word} of {same[0].display} over the epochs{runs}."


def _curve_alt(same: Sequence[Run], quantity: str) -> str:
    """The ends of the curves in words."""
    parts = []
    for run in same:
        values = [f"{run.lines[n][f'{side}_{quantity}']:.3f}" for side in ("train", "val")
                  for n in (0, -1)]  # fmt: skip
        parts.append(
            f"{run.label}: training {_WORDS[quantity]} from {values[0]} to {values[1]}, "
            f"validation from {values[2]} to {values[3]} in {len(run.lines)} epochs"
        )
    return "; ".join(parts)


def costs(out: Path, runs: Sequence[Run]) -> Picture:
    """Training time, speed and memory side by side; seeds of a model as their mean."""
    groups = by_model(runs)
    seeds = list(groups.values())
    short = max(run.summary["seconds"] for run in runs) < 300
    unit, name = (1, "seconds") if short else (60, "minutes")
    bars: dict[str, list] = {
        f"Training time ({name})": [_mean(s, lambda r: r.summary["seconds"] / unit) for s in seeds],
        "Clips per second (median epoch)": [
            _mean(s, lambda r: r.median("clips_per_s")) for s in seeds
        ],
        "Peak memory (GiB)": [_mean(s, lambda r: r.peak_bytes / 2**30) or None for s in seeds],
    }
    names = [same[0].display for same in seeds]
    path = plots.plot_costs(out / "costs.png", names, list(groups), bars)
    alt = "; ".join(
        f"{title}: " + ", ".join(f"{n} {_said(v)}" for n, v in zip(names, values, strict=True))
        for title, values in bars.items()
    )
    return Picture(path, "What training took.", alt)


def _mean(runs: Sequence[Run], value: Callable[[Run], float]) -> float:
    return statistics.mean(float(value(run)) for run in runs)


def _said(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.4g}"


def classes(out: Path, runs: Sequence[Run]) -> list[Picture]:
    """Accuracy by class, and a confusion matrix for each model, where classes are the same."""
    pictures = []
    names = runs[0].summary["classes"]
    if all(run.summary["classes"] == names for run in runs):
        pictures.append(_per_class(out, runs, names))
    for run in chosen(runs):
        path = out / f"confusion-{run.model}.png"
        matrix = np.array(run.evaluation["confusion"])
        title = f"{run.display} on {run.evaluation['on']}"
        plots.plot_confusion(path, matrix, run.summary["classes"], title)
        right = int(np.diagonal(matrix).sum())
        alt = f"{right} of {matrix.sum()} videos on the diagonal; " + _worst(run)
        caption = f"Confusion matrix of {run.label}, test videos. {run.split_text()}."
        pictures.append(Picture(path, caption, alt, wide=_is_wide(path)))
    return pictures


def _worst(run: Run) -> str:
    pairs = run.evaluation["confused"][:3]
    said = ", ".join(f"{p['true']} taken for {p['predicted']} ({p['count']})" for p in pairs)
    return f"most often {said}" if said else "no video is taken for another class"


def _per_class(out: Path, runs: Sequence[Run], names: Sequence[str]) -> Picture:
    recalls, models = {}, []
    for model, same in by_model(runs).items():
        values = [[_recall(c) for c in run.evaluation["per_class"]] for run in same]
        recalls[same[0].display] = np.mean(values, axis=0).tolist()
        models.append(model)
    path = plots.plot_class_accuracy(out / "per-class.png", names, recalls, models)
    mean = np.mean(list(recalls.values()), axis=0)
    hard, easy = int(np.nanargmin(mean)), int(np.nanargmax(mean))
    alt = (
        f"Hardest class {names[hard]} with {mean[hard]:.2f} on average, "
        f"easiest {names[easy]} with {mean[easy]:.2f}."
    )
    untested = [name for name, value in zip(names, mean, strict=True) if np.isnan(value)]
    more = f" Without a test video: {', '.join(untested)}." if untested else ""
    return Picture(path, f"Test accuracy by class, the hardest on top.{more}", alt)


def _recall(row: Mapping[str, Any]) -> float:
    """A class's recall; nan where no test video is of it, which is not an accuracy of 0."""
    return float(row["recall"]) if row.get("support") != 0 else float("nan")


def examples(out: Path, runs: Sequence[Run]) -> list[Picture]:
    """The strips that har-eval drew, where it did."""
    pictures = []
    for run in chosen(runs):
        if not (run.folder / "examples.png").is_file():
            continue
        path = out / f"examples-{run.model}.png"
        shutil.copyfile(run.folder / "examples.png", path)
        found = plots.choose_examples(run.evaluation["predictions"])
        alt = "; ".join(f"{p['true']} predicted as {p['predicted']}" for p in found)
        pictures.append(
            Picture(path, f"{run.label}: its surest right and its surest wrong answers.", alt)
        )
    return pictures


def first_layers(out: Path, runs: Sequence[Run]) -> list[Picture]:
    """Figure 16 and the other models' first-layer filters, of the runs that kept best.pt."""
    pictures = []
    for run in chosen(runs):
        if not (run.folder / "best.pt").is_file():
            continue
        state = checkpoint.load(run.folder / "best.pt")["model"]
        own = run.model == "r2plus1d"
        path = out / f"{'fig16-' if own else ''}filters-{run.model}.png"
        if plots.plot_filters(path, run.model, state) is None:
            continue
        caption = f"First-layer filters of {run.label}"
        if own:
            caption = (
                "As the paper's figure 16: learned filters of R(2+1)D's first layer, (a) spatial, "
                "(b) temporal; weights in [-0.3, 0.3] shown as [-1, 1]"
            )
        alt = f"Grid of the learned first-layer weights of {run.display} as small colour images."
        pictures.append(Picture(path, f"{caption}.", alt))
    return pictures


def contact_sheet(out: Path, given: Path | None) -> list[Picture]:
    """The sheet of clips that was given, or that lies in `out`; none where there is none."""
    path = out / CONTACT_SHEET
    if given is not None:
        try:
            data = given.read_bytes()
            png_size(data)
        except (OSError, ValueError) as error:
            raise ReportError(
                f"--contact-sheet {given} cannot be used ({error}): give a PNG as "
                "'har-shards preview' draws it."
            ) from error
        path.write_bytes(data)
    if not path.is_file():
        return []
    caption = "Clips as they lie in the shards."
    alt = "Contact sheet: frames of some clips of each class, in rows."
    return [Picture(path, caption, alt, wide=_is_wide(path))]


def _is_wide(path: Path) -> bool:
    return png_size(path.read_bytes())[0] > _WIDE

"""`MODEL_CARD.md` of a run: what it is, how it was trained, how well it does, where it fails."""

from pathlib import Path
from typing import Any

from ...atomic import write_atomically
from ..evaluation import drop_top5
from .document import code
from .render import render
from .runs import Run, load_run
from .tables import format_duration, format_multiply_adds, is_ucf101

CARD_NAME = "MODEL_CARD.md"
_FEW_VIDEOS = 500  # in test; the interval of an accuracy of 0.8 is then 0.07 wide
_SETTINGS = (
    "weights", "model_options", "input", "optimizer", "lr", "lr_head", "batch_size", "epochs",
    "class_weights", "augment", "patience", "epsilon_increment", "monitor", "seed",
)  # fmt: skip


def write_model_card(folder: Path, subset: str | None = None, views: int | None = None) -> Path:
    """Write the card of a finished, evaluated run into its folder; -> path.

    subset, views: of which evaluation (see `load_run`). Raises ReportError.
    """
    run = load_run(Path(folder), subset, views)
    tested = [row for row in run.evaluation["per_class"] if row.get("support") != 0]
    hard = [row for row in tested if row["recall"] < 1]
    multiply_adds = run.evaluation.get("multiply_adds")
    card = render(
        "model_card.md.j2",
        run=run,
        is_ucf101=is_ucf101(run.classes),
        multiply_adds=format_multiply_adds(multiply_adds) if multiply_adds else "",
        protocol=_list_protocol(run),
        results=_list_results(run),
        hardest=sorted(hard, key=lambda row: (row["recall"], row["class"]))[:5],
        limits=_list_limits(run),
    )
    write_atomically(run.folder / CARD_NAME, card)
    return run.folder / CARD_NAME


def _list_protocol(run: Run) -> list[tuple[str, Any]]:
    values = ((name, run.config.get(name)) for name in _SETTINGS)
    return [
        *((name, value) for name, value in values if value not in (None, "")),
        ("stopped because", run.summary["stop_reason"]),
        (
            "best checkpoint by",
            "validation accuracy" if run.val_accuracy >= 0 else "the last epoch",
        ),
        ("training time", format_duration(run.summary["seconds"])),
        ("device", run.environment.get("device", "unknown")),
        ("torch", run.environment.get("versions", {}).get("torch", "unknown")),
        ("commit", run.environment.get("commit") or "unknown"),
    ]


def _list_results(run: Run) -> list[tuple[str, str]]:
    result = drop_top5(run.evaluation)
    low, high = result["interval"]
    figures = {"video@5": "Video@5", "clip@1": "Clip@1", "mean_class_acc": "Mean class accuracy",
               "map": "Mean average precision (mAP)", "loss": "Loss",
               "ece": "Calibration error (ECE, 15 bins)"}  # fmt: skip
    return [
        ("Video@1", f"{result['video@1']:.4f}, 95 % interval {low:.4f} to {high:.4f}"),
        *((text, f"{result[name]:.4f}") for name, text in figures.items() if name in result),
        ("Validation accuracy", f"{run.val_accuracy:.4f}" if run.val_accuracy >= 0 else "no clips"),
    ]


def _list_limits(run: Run) -> list[str]:
    """What the figures do not show, as sentences that follow from them."""
    result = run.evaluation
    (low, high), leak = result["interval"], result["split"]["leak"]
    untested = [row["class"] for row in result["per_class"] if row.get("support") == 0]
    limits = [
        f"It always answers with one of its {len(run.classes)} classes, also where none fits.",
        f"Each test video shows one action: accuracy on long videos ({code('--window')}) was not "
        "measured.",
        "These are figures of one seed: those of another may lie outside the interval.",
    ]
    if result["videos"] < _FEW_VIDEOS:
        limits.append(
            f"Only {result['videos']} test videos: the accuracy is known to lie between {low:.2f} "
            f"and {high:.2f}, no closer (95 % interval)."
        )
    if leak is None:
        limits.append("It is unknown how many test clips have a clip of their group in train.")
    elif leak > 0:
        limits.append(
            f"{leak:.1%} of the test clips have a clip of the same long video in train, so the "
            "accuracy is too high for videos that it has never seen."
        )
    if result["ece"] > 0.05:
        limits.append(
            f"Its probabilities are off by {result['ece']:.2f} on average: read them as a ranking."
        )
    if untested:
        limits.append(f"Not tested, as there are no clips of it: {', '.join(untested)}.")
    return limits

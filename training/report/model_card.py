"""`MODEL_CARD.md` of a run: what it is, what it was trained on, how well it does, where it fails.

Nothing is written by hand. Every sentence is a figure of the run's own files, or follows from one;
the limits too (few test videos, clips of one group in train and test, a single seed).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...atomic import write_atomically
from ..evaluation.scores import leak_text
from .runs import Run, load_run
from .tables import format_duration, format_multiply_adds

CARD_NAME = "MODEL_CARD.md"
_UCF101_CLASSES = 101
_FEW_VIDEOS = 500  # in test; the interval of an accuracy of 0.8 is then 0.07 wide
_DATA_LICENCE = (
    "UCF101 (Soomro, Zamir, Shah, 2012) was collected from YouTube for research; no licence of it "
    "is known to this project, and the rights to the videos are with those who made them. "
    "Whether weights trained on it may be used for another purpose is for the user to decide."
)
_KINETICS = (
    "It started from torchvision's weights, which were trained on Kinetics-400, videos from "
    "YouTube, too: their terms come on top."
)
_SETTINGS = (
    "weights", "model_options", "optimizer", "lr", "batch_size", "epochs", "class_weights",
    "augment", "patience", "epsilon_increment", "monitor", "seed",
)  # fmt: skip


def write_model_card(folder: Path) -> Path:
    """Write the card of a finished, evaluated run into its folder; -> path. Raises ReportError."""
    run = load_run(Path(folder))
    parts = [
        f"# Model card: {run.display_name}, {len(run.classes)} classes",
        _describe_model(run),
        "## Data",
        _describe_data(run),
        "## Split and leak",
        _describe_split(run),
        "## Protocol",
        _format_table(("Setting", "Value"), _protocol_rows(run)),
        "## Figures",
        _describe_results(run),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _list_limits(run)),
        "## Licence of the data",
        _describe_licence(run),
        "## Use",
        f"    har-predict {run.folder.name} VIDEO\n    har-export {run.folder.name} -o model.onnx",
    ]
    path = run.folder / CARD_NAME
    write_atomically(path, ("\n\n".join(parts) + "\n").encode())
    return path


def _describe_model(run: Run) -> str:
    multiply_adds = run.evaluation.get("multiply_adds")
    cost = f", {format_multiply_adds(multiply_adds)} multiply-adds a clip" if multiply_adds else ""
    size = run.config.get("size")
    return (
        f"{run.display_name} (`{run.model}`), a network that says which of "
        f"{len(run.classes)} actions a short video shows. "
        f"{run.summary['parameters']:,} parameters{cost}; it sees {run.config.get('frames')} "
        f"frames of {f'{size}x{size}' if size else 'its own size'} pixels. "
        f"These figures are of `{run.evaluation['checkpoint']}`, epoch {run.evaluation['epoch']} "
        f"of {run.summary['epochs']}. The card is written by `har-report --cards` from the run's "
        "own files."
    )


def _describe_data(run: Run) -> str:
    count, digest = len(run.classes), run.summary.get("manifest_digest")
    text = (
        "All 101 classes of UCF101."
        if count == _UCF101_CLASSES
        else f"{count} classes, not UCF101's 101: figures of UCF101 do not compare."
    )
    if count <= 20:
        text += f" Classes: {', '.join(run.classes)}."
    return text + (f" Manifest of the shard set: `{digest}`." if digest else "")


def _describe_split(run: Run) -> str:
    split, trained = run.evaluation["split"], run.summary["split"]
    text = (
        f"Split `{split['name']}` ({split['digest']}), {leak_text(split['leak'])}: the share of "
        f"the {run.evaluation['clips']} test clips with a clip of the same group (cut from the "
        "same long video) in train."
    )
    if split["digest"] != trained["digest"]:
        text += f" **It was trained on another split, `{trained['name']}` ({trained['digest']}).**"
    return text


def _protocol_rows(run: Run) -> list[tuple[str, Any]]:
    values = ((name, run.config.get(name)) for name in _SETTINGS)
    return [
        *((name, value) for name, value in values if value not in (None, "")),
        ("stopped because", run.summary["stop_reason"]),
        ("best checkpoint by", "validation accuracy"),
        ("training time", format_duration(run.summary["seconds"])),
        ("device", run.environment.get("device", "unknown")),
        ("torch", run.environment.get("versions", {}).get("torch", "unknown")),
        ("commit", run.environment.get("commit") or "unknown"),
    ]


def _describe_results(run: Run) -> str:
    result = run.evaluation
    low, high = result["interval"]
    rows = [
        ("Video@1", f"{result['video@1']:.4f}, 95 % interval {low:.4f} to {high:.4f}"),
        ("Video@5", f"{result['video@5']:.4f}"),
        ("Clip@1", f"{result['clip@1']:.4f}"),
        ("Mean class accuracy", f"{result['mean_class_acc']:.4f}"),
        ("Loss", f"{result['loss']:.4f}"),
        ("Calibration error (ECE, 15 bins)", f"{result['ece']:.4f}"),
        ("Validation accuracy", f"{run.summary['best_val_acc']:.4f}"),
    ]
    views = "1 clip a video" if result["views"] == 1 else f"up to {result['views']} clips a video"
    tested = [row for row in result["per_class"] if row.get("support") != 0]
    hardest = sorted(tested, key=lambda row: (row["recall"], row["class"]))[:5]
    pairs = result["confused"][:5]
    parts = [
        f"On {result['videos']} videos of the subset `{result['on']}`, {views}; "
        f"{leak_text(result['split']['leak'])}. Interval: bootstrap over videos.",
        _format_table(("Figure", "Value"), rows),
        "Hardest classes: " + _join(f"{row['class']} ({row['recall']:.2f})" for row in hardest),
    ]
    if pairs:
        mistakes = _join(
            f"{pair['true']} as {pair['predicted']} ({pair['count']})" for pair in pairs
        )
        parts.append(f"Most frequent mistakes: {mistakes}")
    return "\n\n".join(parts)


def _list_limits(run: Run) -> list[str]:
    result = run.evaluation
    (low, high), leak = result["interval"], result["split"]["leak"]
    untested = [row["class"] for row in result["per_class"] if row.get("support") == 0]
    limits = [
        f"It always answers with one of its {len(run.classes)} classes, also where none fits.",
        "It was tested on trimmed clips with one action each; on long videos (`--window`) no "
        "figure was measured.",
        "One seed: another gives other figures by more than the interval may say.",
    ]
    if result["videos"] < _FEW_VIDEOS:
        limits.append(
            f"Only {result['videos']} test videos: all that can be said of the accuracy is that it "
            f"lies in {low:.2f} to {high:.2f}, and that in 95 of 100 cases."
        )
    if leak is None:
        limits.append("How many test clips have a group mate in train is unknown.")
    elif leak > 0:
        limits.append(
            f"{leak:.1%} of the test clips have a clip of the same long video in train, so the "
            "accuracy is too high for videos that it has never seen."
        )
    if result["ece"] > 0.05:
        limits.append(
            f"Its probabilities are off by {result['ece']:.2f} on average: read them as an order."
        )
    if untested:
        limits.append(f"Not tested, for want of clips: {', '.join(untested)}.")
    return limits


def _describe_licence(run: Run) -> str:
    is_ucf101 = len(run.classes) == _UCF101_CLASSES
    prefix = (
        "" if is_ucf101 else "The run does not know where its clips come from. If from UCF101: "
    )
    suffix = f" {_KINETICS}" if run.config.get("weights") == "kinetics400" else ""
    return f"{prefix}{_DATA_LICENCE}{suffix}"


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts) + "."


def _format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

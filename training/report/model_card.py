"""`MODEL_CARD.md` of a run: what it is, what it was trained on, how well it does, where it fails.

Odd: nothing is written by hand. Every sentence is a figure of the run's own files, or follows from
one; the limits too (few test videos, clips of one group on both sides, a single seed).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...atomic import write_atomically
from ..evaluation.scores import leak_text
from .runs import Run, load
from .tables import format_duration, multiply_adds

NAME = "MODEL_CARD.md"
_UCF101 = 101  # classes
_FEW = 500  # test videos; the interval of an accuracy of 0.8 is then 0.07 wide
_DATA_LICENCE = (
    "UCF101 (Soomro, Zamir, Shah, 2012) was collected from YouTube for research; no licence of it "
    "is known to this project, and the rights to the videos are with those who made them. "
    "Whether weights trained on it may be used for another purpose is for the user to settle."
)
_KINETICS = (
    "It started from torchvision's weights, which were trained on Kinetics-400, videos from "
    "YouTube, too: their terms come on top."
)


def write(folder: Path) -> Path:
    """Write the card of a finished, evaluated run into its folder; -> path. Raises ReportError."""
    run = load(Path(folder))
    parts = [
        f"# Model card: {run.display}, {len(run.summary['classes'])} classes",
        _what(run),
        "## Data",
        _data(run),
        "## Split and leak",
        _split(run),
        "## Protocol",
        _table(("Setting", "Value"), _protocol(run)),
        "## Figures",
        _figures(run),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(run)),
        "## Licence of the data",
        _licence(run),
        "## Use",
        f"    har-predict {run.folder.name} VIDEO\n    har-export {run.folder.name} -o model.onnx",
    ]
    path = run.folder / NAME
    write_atomically(path, ("\n\n".join(parts) + "\n").encode())
    return path


def _what(run: Run) -> str:
    macs = run.evaluation.get("multiply_adds")
    size = run.config.get("size") or "its own size"
    cost = f", {multiply_adds(macs)} multiply-adds a clip" if macs else ""
    return (
        f"{run.display} (`{run.model}`), a network that says which of "
        f"{len(run.summary['classes'])} actions a short video shows. "
        f"{run.summary['parameters']:,} parameters{cost}; it sees {run.config.get('frames')} "
        f"frames of {size}{'' if isinstance(size, str) else f'x{size}'} pixels. "
        f"These figures are of `{run.evaluation['checkpoint']}`, epoch {run.evaluation['epoch']} "
        f"of {run.summary['epochs']}. The card is written by `har-report --cards` from the run's "
        "own files."
    )


def _data(run: Run) -> str:
    names, digest = run.summary["classes"], run.summary.get("manifest_digest")
    whole = (
        "All 101 classes of UCF101."
        if len(names) == _UCF101
        else f"{len(names)} classes, not UCF101's 101: figures of UCF101 do not compare."
    )
    listed = f" Classes: {', '.join(names)}." if len(names) <= 20 else ""
    known = f" Manifest of the shard set: `{digest}`." if digest else ""
    return f"{whole}{listed}{known}"


def _split(run: Run) -> str:
    split = run.evaluation["split"]
    text = (
        f"Split `{split['name']}` ({split['digest']}), {leak_text(split['leak'])}: the share of "
        f"the {run.evaluation['clips']} test clips with a clip of the same group (cut from the "
        "same long video) in train."
    )
    if split["digest"] != run.summary["split"]["digest"]:
        trained = run.summary["split"]
        text += f" **It was trained on another split, `{trained['name']}` ({trained['digest']}).**"
    return text


def _protocol(run: Run) -> list[tuple[str, Any]]:
    names = (
        "weights", "model_options", "optimizer", "lr", "batch_size", "epochs", "class_weights",
        "augment", "patience", "epsilon_increment", "monitor", "seed",
    )  # fmt: skip
    rows = [(name, run.config[name]) for name in names if run.config.get(name) not in (None, "")]
    return [
        *rows,
        ("stopped because", run.summary["stop_reason"]),
        ("best checkpoint by", "validation accuracy"),
        ("training time", format_duration(run.summary["seconds"])),
        ("device", run.environment.get("device", "unknown")),
        ("torch", run.environment.get("versions", {}).get("torch", "unknown")),
        ("commit", run.environment.get("commit") or "unknown"),
    ]


def _figures(run: Run) -> str:
    found = run.evaluation
    low, high = found["interval"]
    rows = [
        ("Video@1", f"{found['video@1']:.4f}, 95 % interval {low:.4f} to {high:.4f}"),
        *((name, f"{found[name.lower()]:.4f}") for name in ("Video@5", "Clip@1")),
        ("Mean class accuracy", f"{found['mean_class_acc']:.4f}"),
        ("Loss", f"{found['loss']:.4f}"),
        ("Calibration error (ECE, 15 bins)", f"{found['ece']:.4f}"),
        ("Validation accuracy", f"{run.summary['best_val_acc']:.4f}"),
    ]
    views = "1 clip a video" if found["views"] == 1 else f"up to {found['views']} clips a video"
    said = f"On {found['videos']} videos of the side `{found['on']}`, {views}; "
    said += f"{leak_text(found['split']['leak'])}. Interval: bootstrap over videos."
    tested = [one for one in found["per_class"] if one.get("support") != 0]
    hardest = sorted(tested, key=lambda one: (one["recall"], one["class"]))[:5]
    worst = "Hardest classes: " + _listed((c["class"], f"{c['recall']:.2f}") for c in hardest)
    pairs = ((f"{c['true']} as {c['predicted']}", c["count"]) for c in found["confused"][:5])
    wrong = f"\n\nMost frequent mistakes: {_listed(pairs)}" if found["confused"] else ""
    return f"{said}\n\n{_table(('Figure', 'Value'), rows)}\n\n{worst}{wrong}"


def _limits(run: Run) -> list[str]:
    found, classes = run.evaluation, run.summary["classes"]
    low, high = found["interval"]
    limits = [
        f"It always answers with one of its {len(classes)} classes, also where none fits.",
        "It was tested on trimmed clips with one action each; on long videos (`--window`) no "
        "figure was measured.",
        "One seed: another gives other figures by more than the interval may say.",
    ]
    if found["videos"] < _FEW:
        limits.append(
            f"Only {found['videos']} test videos: all that can be said of the accuracy is that it "
            f"lies in {low:.2f} to {high:.2f}, and that in 95 of 100 cases."
        )
    leak = found["split"]["leak"]
    if leak is None:
        limits.append("How many test clips have a group mate in train is unknown.")
    elif leak > 0:
        limits.append(
            f"{leak:.1%} of the test clips have a clip of the same long video in train, so the "
            "accuracy is too high for videos that it has never seen."
        )
    if found["ece"] > 0.05:
        limits.append(
            f"Its probabilities are off by {found['ece']:.2f} on average: read them as an order."
        )
    unseen = [c["class"] for c in found["per_class"] if c.get("support") == 0]
    if unseen:
        limits.append(f"Not tested, for want of clips: {', '.join(unseen)}.")
    return limits


def _licence(run: Run) -> str:
    whole = len(run.summary["classes"]) == _UCF101
    other = "" if whole else "The run does not know where its clips come from. If from UCF101: "
    more = f" {_KINETICS}" if run.config.get("weights") == "kinetics400" else ""
    return f"{other}{_DATA_LICENCE}{more}"


def _listed(pairs: Any) -> str:
    return ", ".join(f"{name} ({value})" for name, value in pairs) + "."


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""`har-predict`: the answers to videos as text, CSV or JSON.

Notes: an answer is printed before the next video is opened; only JSON is one document and comes at
the end.
"""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import printable
from ..inference.windows import PredictionError
from .predict import iterate_predictions


def predict_videos(
    run_dir: Path,
    videos: Sequence[str | Path],
    *,
    top: int = 5,
    as_json: bool = False,
    as_csv: bool = False,
    **options: Any,
) -> int:
    """Predict `videos` and print; -> exit code, 1 when any failed. options: of
    `iterate_predictions`.

    Raises PredictionError or CheckpointError, each one sentence.
    """
    if as_json and as_csv:
        raise PredictionError("--json and --csv exclude each other: give one of them.")
    answers = iterate_predictions(run_dir, videos, **options)
    if as_csv:
        _print_csv([["video", "start", "end", "rank", "class", "probability", "error"]])
    entries = []
    for answer in answers:
        for text in answer.warnings:
            print(f"{printable(str(answer.path))}: {text}", file=sys.stderr)
        if answer.error:
            print(answer.error, file=sys.stderr)
        entry = answer.to_dict(top)
        entries.append(entry)
        if as_csv:
            _print_csv(_csv_rows(entry))
        elif not as_json and not answer.error:
            _print_text(entry)
    if as_json:
        _print_json(entries)
    return 1 if any("error" in entry for entry in entries) else 0


def _print_csv(rows: Sequence[Sequence[Any]]) -> None:
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    sys.stdout.flush()


def _csv_rows(entry: dict[str, Any]) -> list[list[Any]]:
    """A row for each of the top classes; start and end are empty for a whole video."""
    if "error" in entry:
        return [[entry["video"], "", "", "", "", "", entry["error"]]]
    rows = []
    for part in entry.get("windows", [entry]):
        span = [f"{part[name]:.3f}" if name in part else "" for name in ("start", "end")]
        for rank, row in enumerate(part["top"], 1):
            probability = f"{row['probability']:.6f}"
            rows.append([entry["video"], *span, rank, row["class"], probability, ""])
    return rows


def _print_text(entry: dict[str, Any]) -> None:
    """The table of a video, then its timeline."""
    print(entry["video"])
    width = max(len(row["class"]) for row in entry["top"])
    for row in entry["top"]:
        print(f"  {row['class']:<{width}}  {row['probability']:.4f}")
    for row in entry.get("timeline", ()):
        print(
            f"  {row['start']:7.2f} to {row['end']:7.2f} s  {row['class']}  "
            f"{row['probability']:.4f}"
        )
    sys.stdout.flush()


def _print_json(entries: Sequence[dict[str, Any]]) -> None:
    for entry in entries:
        for span in (*entry.get("windows", ()), *entry.get("timeline", ())):
            span |= {name: round(span[name], 3) for name in ("start", "end")}
    print(json.dumps(entries, indent=1))

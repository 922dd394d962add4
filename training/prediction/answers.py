"""The answers of `har-predict` as text, CSV, JSON or JSON lines, on standard output or in a file.

Notes: text, CSV and JSON lines are written video by video; JSON is one document, and comes at the
end. A file (`-o`) is there when it is whole, or it is as it was before.
"""

import contextlib
import csv
import errno
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ...atomic import commit, temporary_name
from ..inference.windows import UNKNOWN, PredictionError
from .results import STAGES

FILE_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl"}
_COLUMNS = ("video", "start", "end", "rank", "class", "probability", "error")
Entry = dict[str, Any]


def choose_format(as_json: bool, as_csv: bool, out: Path | None) -> str:
    """-> "text", "csv", "json" or "jsonl". Raises PredictionError."""
    if as_json and as_csv:
        raise PredictionError("--json and --csv exclude each other: give one of them.")
    asked = "json" if as_json else "csv" if as_csv else None
    if out is None:
        return asked or "text"
    if out.suffix.lower() not in FILE_FORMATS:
        raise PredictionError(f"-o {out} cannot be written: end it in .csv, .json or .jsonl.")
    file_format = FILE_FORMATS[out.suffix.lower()]
    if asked not in (None, file_format):
        raise PredictionError(f"-o {out} is {file_format}: leave --{asked} out.")
    return file_format


@contextlib.contextmanager
def open_answers(
    file_format: str, out: Path | None, *, has_label: bool = False, has_timing: bool = False
) -> Iterator[Callable[[Entry], None]]:
    """-> a function that writes the entry of a video; all is written when the block ends.

    out: None for standard output. has_label, has_timing: CSV has a column `label`, and one for each
    of STAGES. Raises PredictionError where the file or standard output cannot be written, and
    BrokenPipeError where nobody reads standard output any more.
    """
    labels = ["label"] * has_label
    columns = [*_COLUMNS, *labels, *(f"{stage}_ms" for stage in STAGES if has_timing)]
    entries: list[Entry] = []
    with _open_file(out) as file:

        def write(text: str) -> None:
            with _one_sentence(out):
                file.write(text)
                file.flush()

        def add(entry: Entry) -> None:
            if file_format == "json":
                entries.append(entry)
            elif file_format == "jsonl":
                write(json.dumps(entry) + "\n")
            elif file_format == "csv":
                write(_csv(_csv_rows(entry), columns))
            elif "error" not in entry:
                write(_text(entry))

        if file_format == "csv":
            write(_csv([dict(zip(columns, columns, strict=True))], columns))
        yield add
        if file_format == "json":
            write(json.dumps(entries, indent=1) + "\n")


@contextlib.contextmanager
def _open_file(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    temporary = temporary_name(out)
    with _one_sentence(out):
        if out.parent.exists() and not out.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{out.parent} is no folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        file = temporary.open("w", encoding="utf-8", newline="")
    try:
        try:
            yield file
        finally:
            with _one_sentence(out):
                file.close()
        with _one_sentence(out):
            commit(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _one_sentence(out: Path | None) -> Iterator[None]:
    """Faults of the file; `har.errors.one_sentence` says those of standard output."""
    try:
        yield
    except OSError as error:
        if out is None:
            raise
        raise PredictionError(
            f"-o {out} cannot be written ({error.strerror or error}): give a place with room that "
            "may be written."
        ) from error


def _csv(rows: Sequence[Entry], columns: Sequence[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _csv_rows(entry: Entry) -> list[Entry]:
    """A row for each of the top classes; start and end are empty for a whole video."""
    video = {"video": entry["video"]}
    if "error" in entry:
        return [video | {"error": entry["error"]}]
    video |= {f"{stage}_ms": f"{ms:.2f}" for stage, ms in entry.get("milliseconds", {}).items()}
    rows = []
    for part in entry.get("windows", [entry]):
        row = video | {name: f"{part[name]:.3f}" for name in ("start", "end") if name in part}
        row |= {"label": part["label"]} if "label" in part else {}
        for rank, top in enumerate(part["top"], 1):
            values = {"class": top["class"], "probability": f"{top['probability']:.6f}"}
            rows.append(row | {"rank": rank} | values)
    return rows


def _text(entry: Entry) -> str:
    """The table of a video, then its timeline."""
    lines = [entry["video"]]
    if entry.get("label") == UNKNOWN:
        lines.append(f"  {UNKNOWN}")
    width = max(len(row["class"]) for row in entry["top"])
    lines += [f"  {row['class']:<{width}}  {row['probability']:.4f}" for row in entry["top"]]
    lines += [
        f"  {row['start']:7.2f} to {row['end']:7.2f} s  {row.get('label', row['class'])}  "
        f"{row['probability']:.4f}"
        for row in entry.get("timeline", ())
    ]
    if "milliseconds" in entry:
        lines.append(f"  {describe_milliseconds(entry['milliseconds'])}")
    return "\n".join(lines) + "\n"


def describe_milliseconds(milliseconds: Mapping[str, float]) -> str:
    """ "open 1.2 ms, decode 20.1 ms, model 33.0 ms"."""
    return ", ".join(f"{stage} {milliseconds[stage]:.1f} ms" for stage in STAGES)

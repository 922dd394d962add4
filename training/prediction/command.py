"""`har-predict`: videos in, answers as text, CSV or JSON out, and pictures on request.

Notes: every video is finished (its answer printed, its pictures written) before the next is opened,
so that a long list can be stopped at any time; only JSON is one document and comes at the end.
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic import write_atomically
from ...errors import printable
from ...pipeline.decode import VideoDecodeError, describe_warnings
from ..inference import annotate, grad_cam
from ..inference.frames import read_frames
from ..inference.predictor import Predictor
from ..inference.uploaded_video import UploadLimits
from ..inference.video_source import find_videos, local_file, name_of
from ..inference.windows import PredictionError, Segment, check_window, mean_segments, timeline
from ..plots import plot_timeline

# the options that write a picture, and what its file may be; the first is chosen in a folder
_SUFFIXES = {
    "timeline": (".png", ".svg"),
    "annotate": tuple(annotate.CONTAINER_FORMATS),
    "cam": (".gif",),
}


def predict_videos(
    run_dir: Path,
    videos: Sequence[str | Path],
    *,
    device: str | None = None,
    top: int = 5,
    as_json: bool = False,
    as_csv: bool = False,
    window: float | None = None,
    hop: float | None = None,
    stream: int | None = None,
    max_mb: int = 100,
    max_seconds: int = 120,
    **pictures: Path | None,
) -> int:
    """Predict `videos` (files, folders, globs, URLs) and print; -> exit code, 1 when any failed.

    window, hop: seconds. stream: see `ClipSampler`; None = the run's. max_mb, max_seconds: of a
    video behind a URL. pictures: timeline, annotate, cam, each a file, or a folder for several
    videos. Raises PredictionError or CheckpointError, each one sentence.
    """
    if as_json and as_csv:
        raise PredictionError("--json and --csv exclude each other: give one of them.")
    if window is not None:
        hop = check_window(window, hop)
    elif hop is not None or pictures.get("timeline") is not None:
        name = "--hop" if hop is not None else "--timeline"
        raise PredictionError(f"{name} is about windows: add --window SECONDS.")
    if not videos:
        raise PredictionError("there is nothing to predict: give video files, folders or globs.")
    sources = find_videos(videos)
    targets = _picture_paths(pictures, sources)
    predictor = Predictor(run_dir, device)
    if stream is not None:
        predictor.sampler = replace(predictor.sampler, stream=stream)
    if as_csv:
        _print_csv([["video", "start", "end", "rank", "class", "probability", "error"]])
    entries = []
    for source, files in zip(sources, targets, strict=True):
        try:
            with local_file(source, UploadLimits(max_mb, max_seconds)) as (path, notes):
                name = source.name if isinstance(source, Path) else name_of(source)
                entry = _predict_video(predictor, path, printable(name), top, window, hop, files)
            if texts := notes + entry.pop("warnings"):
                entry["warnings"] = texts
        except VideoDecodeError as error:
            entry = {"error": printable(str(error))}  # names the file
            print(entry["error"], file=sys.stderr)
        for text in entry.get("warnings", ()):
            print(f"{printable(str(source))}: {text}", file=sys.stderr)
        entry = {"video": printable(str(source)), **entry}
        entries.append(entry)
        if as_csv:
            _print_csv(_csv_rows(entry))
        elif not as_json and "error" not in entry:
            _print_text(entry)
    if as_json:
        _print_json(entries)
    return 1 if any("error" in entry for entry in entries) else 0


def _picture_paths(
    pictures: Mapping[str, Path | None], videos: Sequence[Path | str]
) -> list[dict[str, Path]]:
    """The pictures to write for each video: the file named, or one a video in the folder named."""
    targets: list[dict[str, Path]] = [{} for _ in videos]
    for option, out in pictures.items():
        if out is None:
            continue
        suffixes = _SUFFIXES[option]
        if len(videos) > 1 and out.suffix:
            raise PredictionError(
                f"--{option} {out} is one file for {len(videos)} videos: give a folder."
            )
        files = [out if out.suffix else out / (name_of(video) + suffixes[0]) for video in videos]
        if len(set(files)) < len(files):
            raise PredictionError(
                f"--{option}: two of the videos have the same name: predict them apart."
            )
        sources = {video.resolve() for video in videos if isinstance(video, Path)}
        overwritten = next((file for file in files if file.resolve() in sources), None)
        if overwritten is not None:
            raise PredictionError(
                f"--{option} {overwritten} is one of the videos: give another name."
            )
        if files[0].suffix.lower() not in suffixes:
            raise PredictionError(
                f"--{option} {out} cannot be written: end it in {' or '.join(suffixes)}."
            )
        for target, file in zip(targets, files, strict=True):
            target[option] = file
    return targets


def _predict_video(
    predictor: Predictor,
    path: Path,
    name: str,
    top: int,
    window: float | None,
    hop: float | None,
    files: dict[str, Path],
) -> dict[str, Any]:
    """-> the answer to one video as JSON has it, and its warnings; its pictures are written.

    name: of the video, for its pictures. Raises VideoDecodeError.
    """

    def top_classes(probabilities: np.ndarray, k: int = top) -> list[dict[str, Any]]:
        pairs = predictor.top_classes(probabilities, k)
        return [{"class": name, "probability": value} for name, value in pairs]

    windows: list[Segment] = []
    warnings: dict[str, Any] = {}
    if window is None or hop is None:
        mean = predictor.predict_video(path, warnings)
        segments = [Segment(0.0, float("inf"), mean)]
    else:
        frames = read_frames(path, predictor.sampler.stream, warnings)
        windows = list(predictor.predict_windows(frames, window, hop))
        mean = np.mean([window.probabilities for window in windows], axis=0)
        segments = timeline(windows)
    _write_pictures(predictor, path, name, segments, windows, files)
    warnings.pop("no_length", None)  # it is in order, and what is there is predicted
    entry: dict[str, Any] = {"top": top_classes(mean), "warnings": describe_warnings(warnings)}
    if windows:
        entry["windows"] = [
            {"start": w.start, "end": w.end, "top": top_classes(w.probabilities)} for w in windows
        ]
        entry["timeline"] = [
            {"start": s.start, "end": s.end, **top_classes(s.probabilities, 1)[0]} for s in segments
        ]
    return entry


def _write_pictures(
    predictor: Predictor,
    path: Path,
    name: str,
    segments: list[Segment],
    windows: list[Segment],
    files: dict[str, Path],
) -> None:
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    if "timeline" in files:
        means = list(mean_segments(windows))  # not merged: a row shows every change
        borders = [means[0].start, *(segment.end for segment in means)]
        probabilities = [segment.probabilities for segment in means]
        plot_timeline(files["timeline"], borders, probabilities, predictor.classes, name)
    if "annotate" in files:
        frames = read_frames(path, predictor.sampler.stream)
        annotate.write_annotated(files["annotate"], frames, segments, predictor.classes)
    if "cam" in files:
        panels = grad_cam.animate_clip(predictor, predictor.decode_video(path)[0])
        write_atomically(files["cam"], grad_cam.encode_gif(panels))


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

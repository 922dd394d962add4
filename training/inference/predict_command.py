"""`har-predict`: videos in, answers as text, CSV or JSON out, and pictures on request.

Notes: every video is finished (its answer printed, its pictures written) before the next is opened,
so that a long list can be stopped at any time; only JSON is one document and comes at the end.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.decode import VideoDecodeError
from ..plots import check_timeline_path, plot_timeline
from . import annotate, grad_cam
from .predictor import Prediction, PredictionError, Predictor, find_videos, read_frames
from .windows import Segment, Window, check_window, mean_segments, timeline

_PICTURES = {
    "timeline": (".png", check_timeline_path),
    "annotate": (".mp4", annotate.check_video_path),
    "cam": (".gif", grad_cam.check_gif_path),
}


@dataclass(frozen=True)
class PredictOptions:
    """What `har-predict` prints and writes. Raises one-sentence errors.

    output: "text", "json" or "csv". window, hop: seconds. timeline, annotate, cam: files, or
    folders for several videos.
    """

    top: int = 5
    output: str = "text"
    window: float | None = None
    hop: float | None = None
    timeline: Path | None = None
    annotate: Path | None = None
    cam: Path | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise PredictionError(f"--top {self.top} does not work: give 1 or more.")
        if self.window is not None:
            check_window(self.window, self.hop)
        elif self.hop is not None or self.timeline is not None:
            name = "--hop" if self.hop is not None else "--timeline"
            raise PredictionError(f"{name} is about windows: add --window SECONDS.")


def predict_videos(
    run_dir: Path,
    videos: Sequence[str | Path],
    *,
    device: str | None = None,
    as_json: bool = False,
    as_csv: bool = False,
    **options: Any,
) -> int:
    """Predict `videos` (files, folders, globs) and print; -> exit code, 1 when any video failed.

    options: of `PredictOptions`. Raises PredictionError, WindowError, AnnotateError, GradCamError
    or CheckpointError, each one sentence.
    """
    if as_json and as_csv:
        raise PredictionError("--json and --csv exclude each other: give one of them.")
    output = "json" if as_json else "csv" if as_csv else "text"
    opts = PredictOptions(output=output, **options)
    if not videos:
        raise PredictionError("there is nothing to predict: give video files, folders or globs.")
    paths = find_videos(videos)
    targets = _picture_paths(opts, paths)
    predictions: list[Prediction] = []
    predictor = Predictor(run_dir, device)
    for path, pictures in zip(paths, targets, strict=True):
        prediction = _predict_video(predictor, path, opts, pictures)
        _print_prediction(prediction, opts, predictor, is_first=not predictions)
        predictions.append(prediction)
    if opts.output == "json":
        print(json.dumps([_to_json(p, opts, predictor) for p in predictions], indent=1))
    return 1 if any(prediction.error for prediction in predictions) else 0


def _picture_paths(opts: PredictOptions, videos: Sequence[Path]) -> list[dict[str, Path]]:
    """The pictures to write for each video: the file named, or one a video in the folder named."""
    targets: list[dict[str, Path]] = [{} for _ in videos]
    for option, (suffix, check_path) in _PICTURES.items():
        out: Path | None = getattr(opts, option)
        if out is None:
            continue
        if len(videos) > 1 and out.suffix:
            raise PredictionError(
                f"--{option} {out} is one file for {len(videos)} videos: give a folder."
            )
        files = [out if out.suffix else out / f"{video.stem}{suffix}" for video in videos]
        if len(set(files)) < len(files):
            raise PredictionError(
                f"--{option}: two of the videos have the same name: predict them apart."
            )
        sources = {video.resolve() for video in videos}
        overwritten = next((file for file in files if file.resolve() in sources), None)
        if overwritten is not None:
            raise PredictionError(
                f"--{option} {overwritten} is one of the videos: give another name."
            )
        check_path(files[0])
        for target, file in zip(targets, files, strict=True):
            target[option] = file
    return targets


def _predict_video(
    predictor: Predictor, path: Path, opts: PredictOptions, pictures: dict[str, Path]
) -> Prediction:
    """The answer to one video, its pictures written; a fault of the video is part of the answer."""
    windows: list[Window] = []
    try:
        if opts.window is None:
            mean = predictor.predict_video(path)
            segments = [Segment(0.0, float("inf"), mean)]
        else:
            hop = check_window(opts.window, opts.hop)
            windows = list(predictor.predict_windows(read_frames(path), opts.window, hop))
            mean = np.mean([window.probabilities for window in windows], axis=0)
            segments = timeline(windows)
        _write_pictures(predictor, path, segments, windows, pictures)
    except VideoDecodeError as error:
        return Prediction(str(path), [], str(error))
    return Prediction(str(path), predictor.top_classes(mean, opts.top), None, windows)


def _write_pictures(
    predictor: Predictor,
    path: Path,
    segments: list[Segment],
    windows: list[Window],
    pictures: dict[str, Path],
) -> None:
    if "timeline" in pictures:
        means = list(mean_segments(windows))  # not merged: a row shows every change
        borders = [means[0].start, *(segment.end for segment in means)]
        probabilities = [segment.probabilities for segment in means]
        plot_timeline(pictures["timeline"], borders, probabilities, predictor.classes, path.name)
    if "annotate" in pictures:
        frames = read_frames(path)
        annotate.write_annotated(pictures["annotate"], frames, segments, predictor.classes)
    if "cam" in pictures:
        panels = grad_cam.animate_clip(predictor, predictor.decode_video(path)[0])
        grad_cam.write_gif(pictures["cam"], panels)


def _print_prediction(
    prediction: Prediction, opts: PredictOptions, predictor: Predictor, *, is_first: bool
) -> None:
    """Print one answer as text or CSV; an error goes to standard error, too."""
    if prediction.error:
        print(prediction.error, file=sys.stderr)  # names the file
    if opts.output == "csv":
        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        if is_first:
            writer.writerow(["video", "start", "end", "rank", "class", "probability", "error"])
        writer.writerows(_csv_rows(prediction, opts, predictor))
        print(table.getvalue(), end="", flush=True)
    elif opts.output == "text" and not prediction.error:
        print("\n".join(_text_lines(prediction, predictor)), flush=True)


def _csv_rows(
    prediction: Prediction, opts: PredictOptions, predictor: Predictor
) -> Iterator[list[Any]]:
    """A row for each of the top classes; start and end are empty for a whole video."""
    if prediction.error:
        yield [prediction.video, "", "", "", "", "", prediction.error]
    spans: list[tuple[str, str, list[tuple[str, float]]]] = [("", "", prediction.top)]
    if prediction.windows:
        spans = [
            (f"{w.start:.3f}", f"{w.end:.3f}", predictor.top_classes(w.probabilities, opts.top))
            for w in prediction.windows
        ]
    for start, end, top in spans:
        for rank, (name, probability) in enumerate(top, 1):
            yield [prediction.video, start, end, rank, name, f"{probability:.6f}", ""]


def _text_lines(prediction: Prediction, predictor: Predictor) -> Iterator[str]:
    """The table of a video, then its timeline."""
    yield prediction.video
    width = max(len(name) for name, _ in prediction.top)
    yield from (f"  {name:<{width}}  {value:.4f}" for name, value in prediction.top)
    for segment in timeline(prediction.windows):
        name, value = predictor.classes[segment.label], segment.probabilities[segment.label]
        yield f"  {segment.start:7.2f} to {segment.end:7.2f} s  {name}  {value:.4f}"


def _to_json(prediction: Prediction, opts: PredictOptions, predictor: Predictor) -> dict[str, Any]:
    """A video's entry: its answer, or the error in its place."""
    if prediction.error:
        return {"video": prediction.video, "error": prediction.error}
    entry: dict[str, Any] = {"video": prediction.video, "top": _name_pairs(prediction.top)}
    if prediction.windows:
        entry["windows"] = [
            {
                **_round_span(window),
                "top": _name_pairs(predictor.top_classes(window.probabilities, opts.top)),
            }
            for window in prediction.windows
        ]
        entry["timeline"] = [
            _round_span(segment) | _name_pairs(predictor.top_classes(segment.probabilities, 1))[0]
            for segment in timeline(prediction.windows)
        ]
    return entry


def _round_span(span: Window | Segment) -> dict[str, Any]:
    return {"start": round(span.start, 3), "end": round(span.end, 3)}


def _name_pairs(top: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "probability": value} for name, value in top]

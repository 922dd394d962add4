"""`har-predict`: the body of the command: which answers are wanted, and how they are written.

Odd: every video is finished (its answer printed, its pictures written) before the next is opened,
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

from ..plots import check_timeline_path, plot_timeline
from . import annotate, camera, windows
from . import grad_cam as cam
from . import predictor as predict
from .predictor import Prediction, PredictionError, Predictor

_CAMERA_WINDOW = 2.0  # seconds


@dataclass(frozen=True)
class Wanted:
    """What `har-predict` is asked for beside the classes. Raises one-sentence errors.

    window, hop: seconds. timeline, annotate, cam: files, or folders for several videos.
    """

    top: int = 5
    form: str = "text"  # or "json", "csv"
    window: float | None = None
    hop: float | None = None
    timeline: Path | None = None
    annotate: Path | None = None
    cam: Path | None = None

    def __post_init__(self) -> None:
        predict.check_top(self.top)
        if self.window is not None:
            windows.check(self.window, self.hop)
        elif self.hop is not None or self.timeline is not None:
            name = "--hop" if self.hop is not None else "--timeline"
            raise PredictionError(f"{name} is about windows: add --window SECONDS.")


def run(
    run: Path,
    videos: Sequence[str | Path],
    *,
    device: str | None = None,
    camera_number: int | None = None,
    as_json: bool = False,
    as_csv: bool = False,
    **options: Any,
) -> int:
    """Predict `videos` (files, folders, globs), or a camera, and print; -> the exit code.

    options: of `Wanted`. 0, or 1 when any video failed. Raises PredictionError, WindowError,
    AnnotateError, GradCamError, CameraError or CheckpointError, each one sentence.
    """
    if as_json and as_csv:
        raise PredictionError("--json and --csv exclude each other: give one of them.")
    wanted = Wanted(form="json" if as_json else "csv" if as_csv else "text", **options)
    if camera_number is not None:
        return _watch(run, videos, camera_number, device, wanted)
    if not videos:
        raise PredictionError("there is nothing to predict: give videos, or --camera 0.")
    paths = predict.find(videos)
    targets = _targets(wanted, paths)
    answers: list[Prediction] = []
    predictor = Predictor(run, device)
    for path, files in zip(paths, targets, strict=True):
        answer = _answer(predictor, path, wanted, files)
        _say(answer, wanted, predictor, first=not answers)
        answers.append(answer)
    if wanted.form == "json":
        print(json.dumps([_plain(answer, wanted, predictor) for answer in answers], indent=1))
    return 1 if any(answer.error for answer in answers) else 0


def _targets(wanted: Wanted, paths: Sequence[Path]) -> list[dict[str, Path]]:
    """The files to write for each video: the one named, or one a video in the folder named."""
    targets: list[dict[str, Path]] = [{} for _ in paths]
    for option, suffix in (("timeline", ".png"), ("annotate", ".mp4"), ("cam", ".gif")):
        given: Path | None = getattr(wanted, option)
        if given is None:
            continue
        if len(paths) > 1 and given.suffix:
            raise PredictionError(
                f"--{option} {given} is one file for {len(paths)} videos: give a folder."
            )
        for path, files in zip(paths, targets, strict=True):
            files[option] = given if given.suffix else given / f"{path.stem}{suffix}"
        _check_free(option, [files[option] for files in targets], paths)
    return targets


def _check_free(option: str, files: Sequence[Path], videos: Sequence[Path]) -> None:
    """No two videos in one file, no video over itself, and a name that can be written."""
    if len(set(files)) < len(files):
        raise PredictionError(
            f"--{option}: two of the videos have the same name: predict them apart."
        )
    sources = {video.resolve() for video in videos}
    over = next((file for file in files if file.resolve() in sources), None)
    if over is not None:
        raise PredictionError(f"--{option} {over} is one of the videos: give another name.")
    check = {"timeline": check_timeline_path, "annotate": annotate.check_name}
    check.get(option, cam.check_name)(files[0])


def _answer(predictor: Predictor, path: Path, wanted: Wanted, files: dict[str, Path]) -> Prediction:
    """One video's answer and its pictures; an error of the video in the answer."""
    found: list[windows.Window] = []
    try:
        if wanted.window is None:
            mean = predictor.of_video(path)
            pieces = [windows.Piece(0.0, float("inf"), mean)]
        else:
            hop = windows.check(wanted.window, wanted.hop)
            found = list(predictor.of_windows(predict.read_frames(path), wanted.window, hop))
            mean = np.mean([one.probabilities for one in found], axis=0)
            pieces = windows.timeline(found)
        _draw(predictor, path, pieces, found, files)
    except ValueError as error:
        if not predict.is_video_fault(error):
            raise
        return Prediction(str(path), [], str(error))
    return Prediction(str(path), predictor.top(mean, wanted.top), None, found)


def _draw(
    predictor: Predictor,
    path: Path,
    pieces: list[windows.Piece],
    found: list[windows.Window],
    files: dict[str, Path],
) -> None:
    if "timeline" in files:
        moments = list(windows.moments(found))  # not merged: a row shows every change
        borders = [moments[0].start, *(moment.end for moment in moments)]
        probabilities = [moment.probabilities for moment in moments]
        plot_timeline(files["timeline"], borders, probabilities, predictor.classes, path.name)
    if "annotate" in files:
        frames = predict.read_frames(path)
        annotate.write(files["annotate"], frames, pieces, predictor.classes)
    if "cam" in files:
        cam.write_gif(files["cam"], cam.of_video(predictor, path))


def _watch(
    run: Path, videos: Sequence[Any], number: int, device: str | None, wanted: Wanted
) -> int:
    """A line for each window of a camera, until it ends or Ctrl-C."""
    if videos or wanted.timeline or wanted.annotate or wanted.cam:
        raise PredictionError("--camera goes alone: no videos, --timeline, --annotate or --cam.")
    predictor = Predictor(run, device)
    window = wanted.window or _CAMERA_WINDOW
    hop = windows.check(window, wanted.hop)
    first = True
    try:
        for one in predictor.of_windows(camera.frames(number), window, hop):
            answer = Prediction(f"camera {number}", [], None, [one])
            if wanted.form == "json":  # a line each: there is no end to wait for
                print(json.dumps(_plain_window(one, wanted, predictor)), flush=True)
            else:
                _say(answer, wanted, predictor, first=first)
            first = False
    except KeyboardInterrupt:
        print("stopped by Ctrl-C.", file=sys.stderr)
    return 0


def _say(answer: Prediction, wanted: Wanted, predictor: Predictor, *, first: bool) -> None:
    """Print one answer as text or CSV; an error goes to standard error, too."""
    if answer.error:
        print(answer.error, file=sys.stderr)  # names the file
    if wanted.form == "csv":
        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        if first:
            writer.writerow(["video", "start", "end", "rank", "class", "probability", "error"])
        writer.writerows(_rows(answer, wanted, predictor))
        print(table.getvalue(), end="", flush=True)
    elif wanted.form == "text" and not answer.error:
        print("\n".join(_lines(answer, wanted, predictor)), flush=True)


def _rows(answer: Prediction, wanted: Wanted, predictor: Predictor) -> Iterator[list[Any]]:
    """CSV: a row for each class that is told; start and end are empty for a whole video."""
    if answer.error:
        yield [answer.video, "", "", "", "", "", answer.error]
    parts: list[tuple[Any, Any, list[tuple[str, float]]]] = [("", "", answer.top)]
    if answer.windows:
        parts = [
            (f"{w.start:.3f}", f"{w.end:.3f}", predictor.top(w.probabilities, wanted.top))
            for w in answer.windows
        ]
    for start, end, top in parts:
        for rank, (name, probability) in enumerate(top, 1):
            yield [answer.video, start, end, rank, name, f"{probability:.6f}", ""]


def _lines(answer: Prediction, wanted: Wanted, predictor: Predictor) -> Iterator[str]:
    """Text: the table of a video, then its timeline; of a camera's window, one line."""
    if answer.top:
        yield answer.video
        width = max(len(name) for name, _ in answer.top)
        yield from (f"  {name:<{width}}  {value:.4f}" for name, value in answer.top)
    for piece in windows.timeline(answer.windows):
        name, value = predictor.classes[piece.label], piece.probabilities[piece.label]
        yield f"  {piece.start:7.2f} to {piece.end:7.2f} s  {name}  {value:.4f}"


def _plain(answer: Prediction, wanted: Wanted, predictor: Predictor) -> dict[str, Any]:
    """For JSON: an error instead of an empty list."""
    if answer.error:
        return {"video": answer.video, "error": answer.error}
    values: dict[str, Any] = {"video": answer.video, "top": _named(answer.top)}
    if answer.windows:
        values["windows"] = [_plain_window(one, wanted, predictor) for one in answer.windows]
        values["timeline"] = [
            {
                "start": round(piece.start, 3),
                "end": round(piece.end, 3),
                **_named(predictor.top(piece.probabilities, 1))[0],
            }
            for piece in windows.timeline(answer.windows)
        ]
    return values


def _plain_window(one: windows.Window, wanted: Wanted, predictor: Predictor) -> dict[str, Any]:
    top = _named(predictor.top(one.probabilities, wanted.top))
    return {"start": round(one.start, 3), "end": round(one.end, 3), "top": top}


def _named(top: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "probability": value} for name, value in top]

"""Videos in, an answer to each out, and its pictures: what har-predict and `har.predict` share.

Notes: every video is finished (its pictures written) before the next is opened, so that a long list
can be stopped at any time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic import write_atomically
from ...errors import printable
from ...notebook import encode_strip
from ...pipeline.decode import VideoDecodeError, describe_warnings
from ...progress import note
from ..inference import annotate, grad_cam
from ..inference.frames import read_frames
from ..inference.predictor import Predictor
from ..inference.uploaded_video import UploadLimits
from ..inference.video_source import find_videos, local_file, name_of
from ..inference.windows import PredictionError, Segment, check_window, mean_segments, timeline
from ..plots import plot_timeline
from .results import VideoPrediction

# the options that write a picture, and what its file may be; the first is chosen in a folder
_SUFFIXES = {
    "timeline": (".png", ".svg"),
    "annotate": tuple(annotate.CONTAINER_FORMATS),
    "cam": (".gif",),
}


def iterate_predictions(
    run_dir: Path,
    videos: Sequence[str | Path],
    *,
    device: str | None = None,
    window: float | None = None,
    hop: float | None = None,
    stream: int | None = None,
    views: int | None = None,
    max_mb: int = 100,
    max_seconds: int = 120,
    timeline: Path | None = None,
    annotate: Path | None = None,
    cam: Path | None = None,
    with_strips: bool = False,
) -> Iterator[VideoPrediction]:
    """The answers to `videos` (files, folders, globs, URLs), one after the other.

    window, hop: seconds. stream: see `ClipSampler`; None = the run's. views: see `Predictor`.
    max_mb, max_seconds: of a video behind a URL. timeline, annotate, cam: pictures to write, each a
    file, or a folder for several videos. with_strips: keep some frames of the clip that the model
    saw, a few KB a video, for notebooks. A video that cannot be read is an answer with an error.

    Raises PredictionError or CheckpointError, each one sentence, before the first video is opened.
    """
    if window is not None and views is not None:
        raise PredictionError("--views is about whole videos: leave it out, or --window.")
    if window is not None:
        hop = check_window(window, hop)
    elif hop is not None or timeline is not None:
        name = "--hop" if hop is not None else "--timeline"
        raise PredictionError(f"{name} is about windows: add --window SECONDS.")
    if not videos:
        raise PredictionError("there is nothing to predict: give video files, folders or globs.")
    sources = find_videos(videos)
    pictures = {"timeline": timeline, "annotate": annotate, "cam": cam}
    targets = _picture_paths(pictures, sources)
    predictor = Predictor(run_dir, device, views)
    note(f"checkpoint: {predictor.describe()}")
    if stream is not None:
        predictor.sampler = replace(predictor.sampler, stream=stream)
    limits = UploadLimits(max_mb, max_seconds)
    return (
        _predict_source(predictor, source, limits, window, hop, files, with_strips)
        for source, files in zip(sources, targets, strict=True)
    )


def _predict_source(
    predictor: Predictor,
    source: Path | str,
    limits: UploadLimits,
    window: float | None,
    hop: float | None,
    files: dict[str, Path],
    with_strip: bool,
) -> VideoPrediction:
    try:
        with local_file(source, limits) as (path, notes):
            name = printable(source.name if isinstance(source, Path) else name_of(source))
            answer = _predict_video(predictor, path, name, window, hop, files, with_strip)
        return replace(answer, path=source, warnings=[*notes, *answer.warnings])
    except VideoDecodeError as error:
        text = printable(str(error))  # names the file
        return VideoPrediction(source, predictor.classes, np.empty(0, np.float32), error=text)


def _predict_video(
    predictor: Predictor,
    path: Path,
    name: str,
    window: float | None,
    hop: float | None,
    files: dict[str, Path],
    with_strip: bool,
) -> VideoPrediction:
    """The answer to a file; its pictures are written. name: of the video, for its pictures.

    Raises VideoDecodeError.
    """
    windows: list[Segment] = []
    warnings: dict[str, Any] = {}
    strip = b""
    if window is None or hop is None:
        clips = predictor.decode_video(path, warnings)
        mean = np.asarray(predictor.predict_clips(clips).mean(0), np.float32)
        strip = encode_strip(clips[0]) if with_strip else b""
        segments = [Segment(0.0, float("inf"), mean)]
    else:
        frames = read_frames(path, predictor.sampler.stream, warnings)
        windows = list(predictor.predict_windows(frames, window, hop))
        mean = np.mean([window.probabilities for window in windows], axis=0)
        segments = timeline(windows)
    _write_pictures(predictor, path, name, segments, windows, files)
    warnings.pop("no_length", None)  # it is in order, and what is there is predicted
    return VideoPrediction(
        path, predictor.classes, mean, windows, segments if windows else (),
        describe_warnings(warnings), strip=strip,
    )  # fmt: skip


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

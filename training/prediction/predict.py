"""Videos in, an answer to each out, and its pictures: what har-predict and `har.predict` share.

Notes: every video is finished (its pictures written) before the next is opened, so that a long list
can be stopped at any time.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import printable
from ...notebook import encode_strip
from ...pipeline.decode import VideoDecodeError, describe_warnings
from ...progress import note
from ..inference.frames import read_frames
from ..inference.predictor import Predictor
from ..inference.uploaded_video import UploadLimits
from ..inference.video_source import find_videos, local_file, name_of
from ..inference.windows import PredictionError, Segment, check_window, timeline
from .pictures import picture_paths, write_pictures
from .results import STAGES, VideoPrediction


@dataclass(frozen=True)
class _Options:
    """See `iterate_predictions`. Raises PredictionError for what makes no sense."""

    window: float | None
    hop: float | None
    threshold: float | None
    timing: bool
    limits: UploadLimits
    with_strip: bool

    def __post_init__(self) -> None:
        if self.window is not None:
            object.__setattr__(self, "hop", check_window(self.window, self.hop))
        elif self.hop is not None:
            raise PredictionError("--hop is about windows: add --window SECONDS.")
        if not 0 <= (self.threshold or 0.0) <= 1:
            raise PredictionError(
                f"--threshold {self.threshold:g} is no probability: give one from 0 to 1."
            )


def iterate_predictions(
    run_dir: Path,
    videos: Sequence[str | Path],
    *,
    device: str | None = None,
    window: float | None = None,
    hop: float | None = None,
    threshold: float | None = None,
    timing: bool = False,
    stream: int | None = None,
    views: int | None = None,
    max_mb: int = UploadLimits.max_mb,
    max_seconds: int = UploadLimits.max_seconds,
    timeout: int = UploadLimits.silent_seconds,
    timeline: Path | None = None,
    annotate: Path | None = None,
    cam: Path | None = None,
    with_strips: bool = False,
) -> tuple[list[Path | str], Iterator[VideoPrediction]]:
    """-> the videos that `videos` stand for (files, folders, globs, URLs, "-" for standard input),
    and the answers to them, each made when it is asked for.

    window, hop: seconds. threshold: a label of a lower probability is "unknown". timing: answers
    have the milliseconds of each stage. stream: see `ClipSampler`; None = the run's. views: see
    `Predictor`. max_mb, max_seconds, timeout: limits of a video behind a URL, `UploadLimits`; of
    standard input only the first. timeline, annotate, cam: pictures to write, each a file, or a
    folder for several videos. with_strips: keep some frames of the clip that the model saw, a few
    KB a video, for notebooks. A video that cannot be read is an answer with an error.

    Raises PredictionError or CheckpointError, each one sentence, before the first video is opened.
    """
    if window is not None and views is not None:
        raise PredictionError("--views is about whole videos: leave it out, or --window.")
    limits = UploadLimits(max_mb, max_seconds, silent_seconds=timeout)
    options = _Options(window, hop, threshold, timing, limits, with_strips)
    if window is None and timeline is not None:
        raise PredictionError("--timeline is about windows: add --window SECONDS.")
    if not videos:
        raise PredictionError("there is nothing to predict: give video files, folders or globs.")
    sources = find_videos(videos)
    pictures = {"timeline": timeline, "annotate": annotate, "cam": cam}
    targets = picture_paths(pictures, sources)
    predictor = Predictor(run_dir, device, views)
    note(f"checkpoint: {predictor.describe()}")
    if stream is not None:
        predictor.sampler = replace(predictor.sampler, stream=stream)
    if timing:  # the first clip is slower than those behind it
        shape = (1, predictor.transform.frames, *predictor.frame_size, 3)
        predictor.predict_clips(np.zeros(shape, np.uint8))
    answers = (
        _predict_source(predictor, source, options, files)
        for source, files in zip(sources, targets, strict=True)
    )
    return sources, answers


def _predict_source(
    predictor: Predictor, source: Path | str, options: _Options, files: dict[str, Path]
) -> VideoPrediction:
    watch = _Stopwatch()
    try:
        with local_file(source, options.limits) as (path, notes):
            watch.lap("open")
            name = printable(source.name if isinstance(source, Path) else name_of(source))
            answer = _predict_video(predictor, path, name, options, files, watch)
        return replace(answer, path=source, warnings=[*notes, *answer.warnings])
    except VideoDecodeError as error:
        text = printable(str(error))  # names the file
        return VideoPrediction(source, predictor.classes, np.empty(0, np.float32), error=text)


class _Stopwatch:
    """milliseconds: of each of STAGES."""

    def __init__(self) -> None:
        self.milliseconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap was that of `stage`."""
        now = time.perf_counter()
        self.milliseconds[stage] += 1000 * (now - self._last)
        self._last = now


def _predict_video(
    predictor: Predictor,
    path: Path,
    name: str,
    options: _Options,
    files: dict[str, Path],
    watch: _Stopwatch,
) -> VideoPrediction:
    """The answer to a file; its pictures are written. name: of the video, for its pictures.

    Raises VideoDecodeError, PredictionError.
    """
    windows: list[Segment] = []
    warnings: dict[str, Any] = {}
    threshold, strip = options.threshold or 0.0, b""
    if options.window is None or options.hop is None:
        clips = predictor.decode_video(path, warnings, watch.lap)
        mean = np.asarray(predictor.predict_clips(clips).mean(0), np.float32)
        watch.lap("model")
        strip = encode_strip(clips[0]) if options.with_strip else b""
        segments = [Segment(0.0, float("inf"), mean)]
    else:
        stream = predictor.sampler.stream
        frames = read_frames(path, stream, warnings, lambda: watch.lap("open"))
        windows = list(predictor.predict_windows(frames, options.window, options.hop, watch.lap))
        mean = np.mean([window.probabilities for window in windows], axis=0)
        segments = timeline(windows, threshold)
    milliseconds = dict(watch.milliseconds) if options.timing else {}
    notes = write_pictures(predictor, path, name, segments, windows, files, threshold)
    warnings.pop("no_length", None)  # it is in order, and what is there is predicted
    return VideoPrediction(
        path, predictor.classes, mean, windows, segments if windows else (),
        describe_warnings(warnings) + notes,
        threshold=options.threshold, strip=strip, milliseconds=milliseconds,
    )  # fmt: skip

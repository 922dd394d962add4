"""The files that `har-predict` draws of a video: timeline, copy with labels, attention."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...atomic import write_atomically
from ..inference import annotate, grad_cam
from ..inference.frames import read_frames
from ..inference.predictor import Predictor
from ..inference.video_source import name_of
from ..inference.windows import PredictionError, Segment, mean_segments
from ..plots import plot_timeline

# the options that write a picture, and what its file may be; the first is chosen in a folder
_SUFFIXES = {
    "timeline": (".png", ".svg"),
    "annotate": tuple(annotate.CONTAINER_FORMATS),
    "cam": (".gif",),
}


def picture_paths(
    pictures: Mapping[str, Path | None], videos: Sequence[Path | str]
) -> list[dict[str, Path]]:
    """The pictures to write for each video: the file named, or one a video in the folder named.

    Raises PredictionError.
    """
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
        refuse_videos(f"--{option}", files, videos)
        if files[0].suffix.lower() not in suffixes:
            raise PredictionError(
                f"--{option} {out} cannot be written: end it in {' or '.join(suffixes)}."
            )
        for target, file in zip(targets, files, strict=True):
            target[option] = file
    return targets


def refuse_videos(option: str, files: Iterable[Path], videos: Sequence[Path | str]) -> None:
    """Raise PredictionError where one of the files to write is one of the videos."""
    sources = {video.resolve() for video in videos if isinstance(video, Path)}
    overwritten = next((file for file in files if file.resolve() in sources), None)
    if overwritten is not None:
        raise PredictionError(f"{option} {overwritten} is one of the videos: give another name.")


def write_pictures(
    predictor: Predictor,
    path: Path,
    name: str,
    segments: list[Segment],
    windows: list[Segment],
    files: dict[str, Path],
    threshold: float,
) -> list[str]:
    """Write `files`, as `picture_paths` gives them; -> what is to be said of them.

    Raises VideoDecodeError, PredictionError.
    """
    notes: list[str] = []
    for option, file in files.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if option == "timeline":
                means = list(mean_segments(windows))  # not merged: a row shows every change
                borders = [means[0].start, *(segment.end for segment in means)]
                probabilities = [segment.probabilities for segment in means]
                plot_timeline(file, borders, probabilities, predictor.classes, name)
            elif option == "annotate":
                frames = read_frames(path, predictor.sampler.stream)
                notes += annotate.write_annotated(
                    file, frames, segments, predictor.classes, sound=path, threshold=threshold
                )
            else:
                panels = grad_cam.animate_clip(predictor, predictor.decode_video(path)[0])
                write_atomically(file, grad_cam.encode_gif(panels))
        except OSError as error:
            raise PredictionError(
                f"--{option} {file} cannot be written ({error.strerror or error}): give a place "
                "with room that may be written."
            ) from error
    return notes

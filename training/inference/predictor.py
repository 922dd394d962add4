"""Video files -> probabilities of classes, by a run's best checkpoint; the command's body is in
`training/inference/predict_command.py`.

Odd: nothing here is configured. Frame rule, stored size, crop and normalisation all come from the
checkpoint, and the pixels take the same way as an evaluated clip's (decode as the shards were
built, then `har.shards.transforms.affine`), in float32; so a video file gives the probabilities that its clip
in the shards gives. A video that cannot be read is reported and the others go on. Everything in
`training` that reads a video reads it here.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HarError
from ...pipeline.decode import VIDEO_SUFFIXES, VideoDecodeError, decode_clips
from ...pipeline.sampling import ClipSampler
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import ClipTransform
from ..runtime import checkpoint, device
from .windows import Window, slide

if TYPE_CHECKING:
    import torch


class PredictionError(HarError):
    """Nothing to predict, or options that make no sense together; one sentence."""


@dataclass(frozen=True)
class Prediction:
    """One video's answer. top: (class, probability) pairs, the most probable first, sums to at
    most 1; empty when `error` says in one sentence why there is no answer. windows: of a
    prediction by windows, in order of time."""

    video: str
    top: list[tuple[str, float]]
    error: str | None = None
    windows: list[Window] = field(default_factory=list)


@dataclass(frozen=True)
class Frame:
    """One decoded frame. seconds: since the first; fps: of the stream."""

    number: int
    seconds: float
    fps: float
    picture: Any

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 [H,W,3], RGB, upright."""
        pixels = self.picture.to_ndarray(format="rgb24")
        turns = round((self.picture.rotation or 0) / 90)  # both count anticlockwise
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


class Predictor:
    """A run's best checkpoint, ready to answer. Raises CheckpointError or DeviceError."""

    def __init__(self, run: Path, device_name: str | None = None) -> None:
        self.state = checkpoint.load(Path(run) / "best.pt")
        self.classes: list[str] = list(self.state["classes"])
        self.model_name = str(self.state["model_name"])
        self.wanted = ClipTransform.from_dict(self.state["preprocessing"])
        self.device = device.select_device(device_name or "auto")
        self.model = checkpoint.restore_model(self.state).to(self.device)

    def input(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 [V,T,H,W,C] as stored -> float32 [V,C,T,h,w] as the model takes it."""
        return to_input(pixels, self.wanted, self.device)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [V,T,H,W,C] as stored -> softmax of each clip, float32 [V,K]."""
        import torch

        clips = self.input(pixels)
        with torch.inference_mode():
            result: NDArray[np.float32] = self.model(clips).float().softmax(1).cpu().numpy()
        return result

    def of_video(self, path: Path) -> NDArray[np.float32]:
        """-> float32 [K], the mean over the clips that the video's shard would hold."""
        mean: NDArray[np.float32] = self.probabilities(
            read_clips(path, self.state["preprocessing"])
        ).mean(0)
        return mean

    def of_windows(self, frames: Iterable[Frame], window: float, hop: float) -> Iterator[Window]:
        """Answers over a stream of frames: windows of `window` seconds, one every `hop`.

        Within a window frames are chosen by the rule that the shards were built with, as if the
        window were the whole video. Holds one window of small frames at a time.
        """
        first = next(iter(frames := iter(frames)), None)
        if first is None:
            return
        length, step = (max(1, round(s * first.fps)) for s in (window, hop))
        small = ((f, self.resize(f.rgb())) for f in _again(first, frames))
        for held in slide(small, length, step):
            clip = np.stack([held[number][1] for number in self.choose(len(held))])
            end = held[-1][0].seconds + 1 / first.fps
            yield Window(held[0][0].seconds, end, len(held), self.probabilities(clip[None])[0])

    def resize(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame [H,W,3] -> [h,w,3] as the shards store it: bilinear with antialias, uint8."""
        import torch
        from torch.nn.functional import interpolate

        height, width = self.state["preprocessing"]["clip_shape"][1:3]
        planes = torch.from_numpy(rgb).permute(2, 0, 1)[None]  # [1,C,H,W]
        small = interpolate(planes, (height, width), mode="bilinear", antialias=True)
        return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())  # [h,w,C]

    def choose(self, n: int) -> list[int]:
        """Which of `n` frames make a clip: T numbers, by the rule of the shards, one view."""
        made = self.state["preprocessing"]
        numbers = np.array(_sampling(made, clips=1).clip_indices(n)[0].frame_indices)
        return [int(number) for number in numbers[_stored(made)]]

    def top(self, probabilities: NDArray[np.float32], most: int) -> list[tuple[str, float]]:
        """[K] -> the `most` most probable (class, probability) pairs."""
        order = np.argsort(-probabilities, kind="stable")[:most].tolist()
        return [(self.classes[k], float(probabilities[k])) for k in order]


def predict(
    run: Path, videos: Sequence[str | Path], *, top: int = 5, device_name: str | None = None
) -> Iterator[Prediction]:
    """One Prediction a video, in the order given; folders and globs in name order."""
    check_top(top)
    predictor = Predictor(run, device_name)
    for path in find(videos):
        try:
            yield Prediction(str(path), predictor.top(predictor.of_video(path), top))
        except ValueError as error:
            if not is_video_fault(error):
                raise
            yield Prediction(str(path), [], str(error))


def check_top(top: int) -> None:
    if top < 1:
        raise PredictionError(f"--top {top} does not work: give 1 or more.")


def find(given: Sequence[str | Path]) -> list[Path]:
    """Files, folders (searched to the bottom) and globs -> video files, each once.

    A path that does not exist stays in the list, so that it is reported as a video that cannot be
    read. Raises PredictionError when a folder or a glob holds no video.
    """
    found: dict[Path, None] = {}
    for item in given:
        path = Path(item)
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES]
        elif glob.has_magic(str(item)) and not path.exists():
            inside = [Path(name) for name in sorted(glob.glob(str(item), recursive=True))]
        else:
            inside = [path]
        if not inside:
            raise PredictionError(
                f"there is no video in {item}: give video files, or a folder with "
                f"{', '.join(VIDEO_SUFFIXES[:4])} or the like."
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def read_clips(path: Path, preprocessing: dict[str, Any]) -> NDArray[np.uint8]:
    """A video -> the clips that its shard would hold, uint8 [V,T,H,W,C], as the model takes them.

    preprocessing: of the checkpoint. V is 1 but for the rule "dense", whose windows all count, as
    in `har-eval --views V`. Raises har.pipeline.decode.VideoDecodeError.
    """
    height, width = preprocessing["clip_shape"][1:3]
    sampling = _sampling(preprocessing)
    clips = np.stack([clip.pixels for clip in decode_clips(path, sampling, (height, width))])
    return clips[:, _stored(preprocessing)]


def read_frames(source: Path | str, *, format: str | None = None) -> Iterator[Frame]:
    """Every frame of a video file, or of a device of FFmpeg's input `format`, in order.

    Raises har.pipeline.decode.VideoDecodeError.
    """
    import av

    number, seconds = 0, 0.0
    try:
        with av.open(str(source), format=format, metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoDecodeError(f"{source} has no video stream.")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            begin: float | None = None
            for picture in container.decode(stream):
                time = picture.time
                begin = time if begin is None else begin
                # a frame without a time of its own comes one step after the one before
                late = seconds + 1 / fps if number else 0.0
                seconds = late if time is None or begin is None else max(seconds, time - begin)
                yield Frame(number, seconds, fps, picture)
                number += 1
    except (av.FFmpegError, OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoDecodeError(f"{source} cannot be decoded ({reason}).") from error
    if number == 0:
        raise VideoDecodeError(f"{source} has no frame that decodes.")


def to_input(pixels: NDArray[np.uint8], wanted: ClipTransform, on: torch.device) -> torch.Tensor:
    """uint8 [V,T,H,W,C] -> float32 [V,C,T,h,w] on the device: resize, centre crop, normalise."""
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(on)  # [V,T,H,W,C]
    return ClipProcessor(wanted).process_batch(batch)


def is_video_fault(error: ValueError) -> bool:
    """Whether an error is about one video, so that the others can go on."""
    return isinstance(error, VideoDecodeError)


def _sampling(preprocessing: dict[str, Any], clips: int | None = None) -> Any:
    """The rule that the shards were built with; `clips` instead of its number of views."""
    made = preprocessing["sampling"]
    return ClipSampler(
        made["rule"],
        frames=preprocessing["clip_shape"][0],
        stride=made.get("stride", 1),
        clips=clips or made.get("clips", 1),
    )


def _stored(preprocessing: dict[str, Any]) -> NDArray[np.int64]:
    """The loader's choice among stored frames, at phase 0 (`BatchBuilder.frame_indices`)."""
    frames, stored = preprocessing["frames"], preprocessing["clip_shape"][0]
    return (np.arange(frames) * stored / frames).astype(np.int64)


def _again(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest

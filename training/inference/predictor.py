"""Class probabilities of video files, by the best checkpoint of a run.

Notes:
- Nothing is configured here. Sampling, stored frame size, crop and normalisation come from the
  checkpoint, and the pixels take the way of an evaluated clip (decode as the shards were built,
  then `har.shards.transforms`), in float32: a video file gives the probabilities that its clip in
  the shards gives.
- A video that cannot be read is reported, and the others go on.
"""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from ...pipeline.decode import (
    VIDEO_SUFFIXES,
    VideoDecodeError,
    decode_clips,
    open_video,
    resize,
    upright,
)
from ...pipeline.sampling import ClipSampler
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import ClipTransform
from ..runtime import checkpoint, device
from .windows import PredictionError, Segment, sliding_windows


@dataclass(frozen=True)
class Frame:
    """One decoded frame. seconds: since the first; fps: of the stream."""

    seconds: float
    fps: float
    av_frame: av.VideoFrame

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 [H,W,3], RGB, upright."""
        pixels = np.asarray(self.av_frame.to_ndarray(format="rgb24"), np.uint8)
        return np.ascontiguousarray(upright(pixels, self.av_frame))


class Predictor:
    """The best checkpoint of a run, on a device. Raises CheckpointError or ConfigError.

    sampler: the rule that the shards were built with. frame_size: (height, width) as stored.
    fit: what became of frames of another shape. frame_subset: which of the stored frames the model
    takes (the loader's choice at phase 0).
    """

    def __init__(self, run_dir: Path, device_name: str | None = None) -> None:
        self.state = checkpoint.load(Path(run_dir) / "best.pt")
        self.classes: list[str] = list(self.state["classes"])
        self.model_name = str(self.state["model_name"])
        preprocessing = self.state["preprocessing"]
        self.transform = ClipTransform.from_dict(preprocessing)
        num_stored, height, width = preprocessing["clip_shape"][:3]
        sampling = preprocessing["sampling"]
        options = {name: sampling[name] for name in ("stride", "clips") if name in sampling}
        self.sampler = ClipSampler(sampling["rule"], num_stored, **options)
        self.frame_size, self.fit = (height, width), str(preprocessing.get("fit", "squeeze"))
        frames = self.transform.frames
        self.frame_subset = (np.arange(frames) * num_stored / frames).astype(np.int64)
        self.device = device.select_device(device_name or "auto")
        self.model = checkpoint.restore_model(self.state).to(self.device)

    def preprocess(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 [V,T,H,W,C] as stored -> float32 [V,C,T,h,w] on the device: resize, crop,
        normalise."""
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)  # [V,T,H,W,C]
        return ClipProcessor(self.transform).process_batch(batch)

    def predict_clips(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [V,T,H,W,C] as stored -> softmax of each clip, float32 [V,K]."""
        clips = self.preprocess(pixels)
        with torch.inference_mode():
            return np.asarray(self.model(clips).float().softmax(1).cpu(), np.float32)

    def predict_video(self, path: Path) -> NDArray[np.float32]:
        """float32 [K]: the mean over the clips of `decode_video`. Raises VideoDecodeError."""
        return np.asarray(self.predict_clips(self.decode_video(path)).mean(0), np.float32)

    def decode_video(self, path: Path) -> NDArray[np.uint8]:
        """The clips that the video's shard would hold, uint8 [V,T,H,W,C], as the model takes them.

        V is 1 except for the rule "dense", whose windows all count, as in `har-eval --views V`.
        Raises VideoDecodeError.
        """
        clips = decode_clips(path, self.sampler, self.frame_size, fit=self.fit)
        return np.stack([clip.pixels for clip in clips])[:, self.frame_subset]

    def predict_windows(
        self, frames: Iterable[Frame], window: float, hop: float
    ) -> Iterator[Segment]:
        """Windows of `window` seconds, one every `hop` seconds, over a stream of frames.

        In a window the frames are chosen by the rule of the shards, as if the window were the whole
        video. Holds one window of resized frames at a time.
        """
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            return
        length, step = (max(1, round(seconds * first.fps)) for seconds in (window, hop))
        resized = ((frame, self.resize_frame(frame.rgb())) for frame in chain([first], frames))
        for held in sliding_windows(resized, length, step):
            clip = np.stack([held[index][1] for index in self.frame_indices(len(held))])
            end = held[-1][0].seconds + 1 / first.fps
            yield Segment(held[0][0].seconds, end, self.predict_clips(clip[None])[0])

    def resize_frame(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame [H,W,3] -> [h,w,3] as the shards store it."""
        frame = np.empty((*self.frame_size, 3), np.uint8)
        resize(rgb[None], frame[None], self.fit)
        return frame

    def frame_indices(self, n: int) -> list[int]:
        """Which of `n` frames make one clip for the model, by the rule of the shards."""
        sampler = ClipSampler(self.sampler.rule, self.sampler.frames, self.sampler.stride)
        indices = sampler.clip_indices(n)[0].frame_indices
        return [int(indices[i]) for i in self.frame_subset]

    def top_classes(self, probabilities: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """[K] -> the `k` most probable (class, probability)."""
        order = np.argsort(-probabilities, kind="stable")[:k].tolist()
        return [(self.classes[label], float(probabilities[label])) for label in order]


def find_videos(names: Sequence[str | Path]) -> list[Path]:
    """Files, folders (searched to the bottom) and globs -> video files, each once.

    A path that does not exist stays in the list, so that it is reported as a video that cannot be
    read. Raises PredictionError when a folder or a glob holds no video.
    """
    videos: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            matches = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES]
        elif glob.has_magic(str(name)) and not path.exists():
            matches = [Path(match) for match in sorted(glob.glob(str(name), recursive=True))]
        else:
            matches = [path]
        if not matches:
            raise PredictionError(
                f"there is no video in {name}: give video files, or a folder with "
                f"{', '.join(VIDEO_SUFFIXES[:4])} or the like."
            )
        videos.update(dict.fromkeys(matches))
    return list(videos)


def read_frames(path: Path | str) -> Iterator[Frame]:
    """Every frame of a video file, in order. Raises VideoDecodeError."""
    seconds, start, any_frame = 0.0, None, False
    try:
        with open_video(path) as (container, stream):
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            for av_frame in container.decode(stream):
                if av_frame.pts is not None:
                    start = av_frame.time if start is None else start
                    seconds = max(seconds, av_frame.time - start)
                elif any_frame:  # without a time: one step after the one before
                    seconds += 1 / fps
                any_frame = True
                yield Frame(seconds, fps, av_frame)
    except (av.FFmpegError, OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoDecodeError(f"{path} cannot be decoded ({reason}).") from error
    if not any_frame:
        raise VideoDecodeError(f"{path} has no frame that decodes.")

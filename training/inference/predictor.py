"""Class probabilities of video files, by a checkpoint of a run: its best, unless a file is named.

Notes:
- Nothing is configured here. Sampling, stored frame size, crop and normalisation come from the
  checkpoint, and the pixels take the way of an evaluated clip (decode as the shards were built,
  then `har.shards.transforms`), in float32: a video file gives the probabilities that its clip in
  the shards gives.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...pipeline.decode import decode_clips, resize
from ...pipeline.sampling import ClipSampler
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import ClipTransform
from ...shards.transforms.temporal_sampling import describe_views, split_views, view_frames
from ..runtime import checkpoint, device
from .frames import Frame
from .windows import PredictionError, Segment, sliding_windows

Lap = Callable[[str], None]


def _no_lap(stage: str) -> None: ...


class Predictor:
    """A checkpoint, on a device. Raises CheckpointError, ConfigError or PredictionError.

    Methods that take `lap` call it at the end of each stage: "open" (the file is open and its
    packets are read), "decode" (with the resize) and "model" (with the preprocessing).

    run: a run folder, whose best.pt is taken, or a checkpoint in one; path is the file.
    sampler: the rule that the shards were built with. frame_size: (height, width) as stored.
    fit: what became of frames of another shape. frame_subset: which of the stored frames the model
    takes of a clip. views: average over so many of a video, as `har-eval --views`; None for one of
    each clip. view_frames: the stored frames of each view of a clip, int64 [views,T].
    """

    def __init__(self, run: Path, device_name: str | None = None, views: int | None = None) -> None:
        self.path = checkpoint.find_checkpoint(run)
        self.state = checkpoint.load(self.path)
        self.classes: list[str] = list(self.state["classes"])
        self.model_name = str(self.state["model_name"])
        preprocessing = self.state["preprocessing"]
        self.transform = ClipTransform.from_dict(preprocessing)
        num_stored, height, width = preprocessing["clip_shape"][:3]
        sampling = preprocessing["sampling"]
        names = ("rule", "stride", "clips", "fps", "stream")
        options = {name: sampling[name] for name in names if name in sampling}
        self.sampler = ClipSampler(frames=num_stored, **options)
        self.frame_size, self.fit = (height, width), str(preprocessing.get("fit", "squeeze"))
        frames, stride = self.transform.frames, self.transform.frame_stride
        self.frame_subset = view_frames(num_stored, frames, stride)
        clips = self.sampler.clips
        parts = split_views(views or clips, clips, num_stored, frames, stride)
        if parts is None:
            raise PredictionError(
                f"--views {views} does not work: the model takes {frames} of {num_stored} frames: "
                f"give {describe_views(clips, num_stored, frames, stride)}."
            )
        self.num_clips, num_views = parts
        self.view_frames = np.stack(
            [view_frames(num_stored, frames, stride, k, num_views) for k in range(num_views)]
        )
        self.device = device.select_device(device_name or "auto")
        self.model = checkpoint.restore_model(self.state).to(self.device)

    def describe(self) -> str:
        """Which checkpoint this is, for the terminal."""
        classes = len(self.classes)
        return f"{self.path}, epoch {self.state['epoch']}: {self.model_name}, {classes} classes"

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

    def predict_video(
        self, path: Path, warnings: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """float32 [K]: the mean over the clips of `decode_video`, which see."""
        clips = self.decode_video(path, warnings)
        return np.asarray(self.predict_clips(clips).mean(0), np.float32)

    def decode_video(
        self, path: Path, warnings: dict[str, Any] | None = None, lap: Lap = _no_lap
    ) -> NDArray[np.uint8]:
        """The views of the clips that the video's shard would hold, uint8 [V,T,H,W,C].

        Without `views`, V is 1 except for the rule "dense", whose windows all count.
        warnings: gets what is odd about the file (`Clip.warnings`). Raises VideoDecodeError.
        """
        clips = decode_clips(
            path, self.sampler, self.frame_size, fit=self.fit, opened=lambda: lap("open")
        )
        if warnings is not None:
            warnings |= clips[0].warnings
        views = self.take_views(np.stack([clip.pixels for clip in clips]))
        lap("decode")
        return views

    def take_views(self, clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Clips as stored -> a copy of the frames of their views, uint8 [V,T,H,W,C]."""
        views = clips[: self.num_clips, self.view_frames]  # [clips,views,T,H,W,C]
        return views.reshape(-1, *views.shape[2:])

    def describe_input(self) -> str:
        """What of a video is looked at, for the page."""
        frames, num_views = self.transform.frames, self.num_clips * len(self.view_frames)
        if num_views == 1:
            return f"The answer is of {frames} of its frames."
        return f"The answer is the mean over {num_views} views of {frames} frames each."

    def predict_windows(
        self, frames: Iterable[Frame], window: float, hop: float, lap: Lap = _no_lap
    ) -> Iterator[Segment]:
        """Windows of `window` seconds, one every `hop` seconds, over a stream of frames.

        In a window the frames are chosen by the rule of the shards, as if the window were the whole
        video. Holds one window of resized frames at a time.
        """
        resized = ((frame.seconds, self.resize_frame(frame.rgb())) for frame in frames)
        for start, end, held in sliding_windows(resized, window, hop):
            indices = self.frame_indices([seconds for seconds, _ in held])
            clip = np.stack([held[index][1] for index in indices])
            lap("decode")
            probabilities = self.predict_clips(clip[None])[0]
            lap("model")
            yield Segment(start, end, probabilities)

    def resize_frame(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame [H,W,3] -> [h,w,3] as the shards store it."""
        frame = np.empty((*self.frame_size, 3), np.uint8)
        resize(rgb[None], frame[None], self.fit)
        return frame

    def frame_indices(self, seconds: Sequence[float]) -> list[int]:
        """Which of frames at these times make one clip for the model, by the rule of the shards."""
        (clip,) = replace(self.sampler, clips=1).clip_indices(len(seconds), seconds)
        return [int(clip.frame_indices[i]) for i in self.frame_subset]

    def top_classes(self, probabilities: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """[K] -> the `k` most probable (class, probability)."""
        order = np.argsort(-probabilities, kind="stable")[:k].tolist()
        return [(self.classes[label], float(probabilities[label])) for label in order]

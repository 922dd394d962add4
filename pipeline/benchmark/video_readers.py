"""The contestants of har-bench-loader that decode video files while training waits.

`paper` is the paper's way: OpenCV seeks to every frame, and every frame goes through PIL and
torchvision's transforms on its own (sections 3.1 and 3.2). `pyav` decodes each video from its start
with PyAV and augments the clip as this project does. Both give float32 batches of 112x112.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import HarError
from ...shards.transforms.affine import Augmentation
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import ClipTransform
from ..decode import VIDEO_SUFFIXES
from ..sampling import ClipSampler
from .loaders import MEAN, STD, Contestant, workers_of

_SIDE = 112


def videos_in(folder: Path) -> list[Path]:
    """Every video under `folder`, sorted. Raises VideosError when there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise VideosError(f"no video under {folder}: give a folder of videos with --videos.")
    return found


class VideosError(HarError):
    """--videos without a video; one sentence."""


def paper(paths: list[Path], frames: int, batch_size: int, workers: int) -> Contestant:
    """OpenCV's seek for each frame, then PIL and torchvision for each frame. Needs opencv."""
    import cv2  # noqa: F401  (said here, not in a worker)

    return _loader(_Paper(paths, frames), batch_size, workers)


def pyav(paths: list[Path], frames: int, batch_size: int, workers: int) -> Contestant:
    """Decode from the first frame with PyAV, resize, augment the clip with one map."""
    return _loader(_PyAV(paths, frames), batch_size, workers)


def _loader(dataset: Any, batch_size: int, workers: int) -> Contestant:
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, batch_size, shuffle=True, **workers_of(workers))

    def one_pass() -> Iterator[int]:
        for clips in loader:
            yield len(clips)

    return one_pass


class _Paper:
    """Item = float32 [3,T,112,112]."""

    def __init__(self, paths: list[Path], frames: int) -> None:
        from torchvision import transforms

        self._paths, self._frames = paths, frames
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(_SIDE),
                transforms.RandomRotation(15),
                transforms.CenterCrop(_SIDE),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, at: int) -> Any:
        import cv2
        import torch
        from PIL import Image

        cv2.setNumThreads(1)
        capture = cv2.VideoCapture(str(self._paths[at]), cv2.CAP_FFMPEG)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames: list[Any] = []
        for number in (
            ClipSampler("paper", self._frames).clip_indices(max(1, count))[0].frame_indices
        ):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            good, picture = capture.read()
            if good:
                rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
                frames.append(self._transform(Image.fromarray(rgb)))
            elif frames:
                frames.append(frames[-1])
        capture.release()
        return torch.stack(frames, 1)  # [3,T,112,112]


class _PyAV:
    """Item = float32 [3,T,112,112] in channels-last order."""

    def __init__(self, paths: list[Path], frames: int) -> None:
        self._paths, self._frames = paths, frames
        self._processor = ClipProcessor(ClipTransform(), Augmentation())

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, at: int) -> Any:
        import av
        import torch

        with av.open(str(self._paths[at]), metadata_errors="replace") as container:
            container.streams.video[0].thread_type = "NONE"
            decoded = list(container.decode(video=0))
        numbers = ClipSampler("paper", self._frames).clip_indices(len(decoded))[0].frame_indices
        clip = np.stack(
            [decoded[n].to_ndarray(format="rgb24", width=171, height=128) for n in numbers]
        )  # [T,128,171,3]
        out = np.empty((len(clip), _SIDE, _SIDE, 3), np.float32)
        self._processor.process_clip(clip, out, key=self._paths[at].stem, seed=1, epoch=0)
        return torch.from_numpy(out).permute(3, 0, 1, 2)

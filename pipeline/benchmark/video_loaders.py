"""The candidates of har-bench-loader that decode video files while training waits.

`paper` is the paper's way: OpenCV seeks to every frame, and every frame goes through PIL and
torchvision's transforms on its own (sections 3.1 and 3.2). `pyav` decodes each video from its start
with PyAV and augments the clip as this project does. Both give float32 batches of 112x112.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ...shards.transforms.affine import Augmentation
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import KINETICS_MEAN, KINETICS_STD, ClipTransform
from ..dataset import list_folder
from ..decode import open_video
from ..sampling import ClipSampler
from . import BenchError
from .loaders import Candidate, worker_options

_CROP_SIZE = 112


def find_videos(folder: Path, at_most: int) -> list[Path]:
    """Videos under `folder`, evenly chosen. Raises BenchError where there is none."""
    paths = [path for path in list_folder(folder)[0] if path.is_file()]
    if not paths:
        raise BenchError(f"no video under {folder}: give a folder of videos with --videos.")
    return paths[:: max(1, len(paths) // at_most)][:at_most]


def paper(paths: list[Path], frames: int, batch_size: int, workers: int) -> Candidate:
    """OpenCV's seek for each frame, then PIL and torchvision for each frame. Needs opencv."""
    import cv2  # noqa: F401  (raises ImportError here, not in a worker)

    return _candidate(_PaperDataset(paths, frames), batch_size, workers)


def pyav(paths: list[Path], frames: int, batch_size: int, workers: int) -> Candidate:
    """Decode from the first frame with PyAV, resize, augment the clip with one map."""
    return _candidate(_PyAVDataset(paths, frames), batch_size, workers)


def _candidate(dataset: _VideoDataset, batch_size: int, workers: int) -> Candidate:
    loader = DataLoader(dataset, batch_size, shuffle=True, **worker_options(workers))
    return lambda: (len(clips) for clips in loader)


class _VideoDataset(Dataset[torch.Tensor]):
    """Items: float32 [3,T,112,112]."""

    def __init__(self, paths: list[Path], frames: int) -> None:
        self._paths, self._sampler = paths, ClipSampler("paper", frames)

    def __len__(self) -> int:
        return len(self._paths)

    def _frame_indices(self, num_frames: int) -> tuple[int, ...]:
        return self._sampler.clip_indices(max(1, num_frames))[0].frame_indices


class _PaperDataset(_VideoDataset):
    _transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(_CROP_SIZE),
            transforms.RandomRotation(15),
            transforms.CenterCrop(_CROP_SIZE),
            transforms.ToTensor(),
            transforms.Normalize(KINETICS_MEAN, KINETICS_STD),
        ]
    )

    def __getitem__(self, index: int) -> torch.Tensor:
        import cv2

        cv2.setNumThreads(1)
        capture = cv2.VideoCapture(str(self._paths[index]), cv2.CAP_FFMPEG)
        frames: list[Any] = []
        for frame_index in self._frame_indices(int(capture.get(cv2.CAP_PROP_FRAME_COUNT))):
            capture.set(cv2.CAP_PROP_POS_FRAMES, frame_index)
            is_read, bgr = capture.read()
            if is_read:
                rgb = Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
                frames.append(self._transform(rgb))
            elif frames:
                frames.append(frames[-1])
        capture.release()
        return torch.stack(frames, 1)  # [3,T,112,112]


class _PyAVDataset(_VideoDataset):
    _processor = ClipProcessor(ClipTransform(), Augmentation())

    def __getitem__(self, index: int) -> torch.Tensor:
        path = self._paths[index]
        with open_video(path) as (container, stream):
            frames = list(container.decode(stream))
        clip = np.stack(
            [
                frames[n].to_ndarray(format="rgb24", width=171, height=128)
                for n in self._frame_indices(len(frames))
            ]
        )  # [T,128,171,3]
        out = np.empty((len(clip), _CROP_SIZE, _CROP_SIZE, 3), np.float32)
        self._processor.process_clip(clip, out, key=path.stem, seed=1, epoch=0)
        return torch.from_numpy(out).permute(3, 0, 1, 2)  # [3,T,112,112]

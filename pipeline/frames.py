"""Decoded frames -> finished pixels: RGB, upright, resized, uint8.

Odd: frames are converted to RGB at full size and then resized by torch, bilinear with antialias,
uint8: 36 + 72 us a frame of 320x240 to 128x171, measured here, where swscale in one step takes
247 us and is off by up to 29 of 255 (it resizes the halved chroma planes); this way the pixels
equal torchvision's `Resize(..., antialias=True)` to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    import av

RESIZE = {"rule": "bilinear", "antialias": True, "by": "torch", "channels": "RGB"}
_BATCH = 16  # frames that are resized in one call: 1.2 ms here, 16 calls take 3.4
_BATCH_BYTES = 64 << 20


class Frames:
    """Collects frames of one video in the order they come. numbers: theirs.

    Converted frames are copied once, into a batch that the resize reads.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size, self._reformat = size, VideoReformatter()
        self._batch = np.empty((0, 0, 0, 3), np.uint8)  # [n,H,W,3], n >= waiting
        self._waiting = 0
        self._done: list[np.ndarray] = []
        self.numbers: list[int] = []

    def add(self, number: int, frame: av.VideoFrame) -> None:
        rgb = self._rgb(frame)
        if self._waiting == len(self._batch) or rgb.shape != self._batch.shape[1:]:
            self._flush()
            room = max(1, min(_BATCH, _BATCH_BYTES // rgb.nbytes))
            if self._batch.shape != (room, *rgb.shape):
                self._batch = np.empty((room, *rgb.shape), np.uint8)
        self._batch[self._waiting] = rgb
        self._waiting += 1
        self.numbers.append(number)

    def done(self) -> np.ndarray:
        """uint8 [n,h,w,3], in the order of `numbers`."""
        self._flush()
        if not self._done:
            return np.empty((0, *self._size, 3), np.uint8)
        return self._done[0] if len(self._done) == 1 else np.concatenate(self._done)

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [H,W,3], a view of the converter's memory: valid until the next frame."""
        rgb = self._reformat.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # [H,bytes]
        pixels = rows[: rgb.height, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)
        if frame.rotation:
            pixels = np.rot90(pixels, round(frame.rotation / 90))  # both count anticlockwise
        return pixels

    def _flush(self) -> None:
        if self._waiting:
            self._done.append(resize(self._batch[: self._waiting], self._size))
            self._waiting = 0


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [T,H,W,3] -> uint8 [T,h,w,3], a copy, bilinear with antialias, as torchvision does."""
    import torch
    from torch.nn.functional import interpolate

    if frames.shape[1:3] == tuple(size):
        return frames.copy()
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2)  # [T,C,H,W]
    small = interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())  # [T,h,w,C]

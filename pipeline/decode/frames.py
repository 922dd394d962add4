"""Decoded frames -> finished pixels: RGB, upright, resized, uint8.

Odd: frames are converted to RGB at full size and then resized by torch, bilinear with antialias,
uint8: 23 + 48 us a frame of 320x240 to 128x171, measured here, where swscale in one step takes
247 us and is off by up to 29 of 255 (it resizes the halved chroma planes); this way the pixels
equal torchvision's `Resize(..., antialias=True)` to the bit.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    import av

RESIZE = {"rule": "bilinear", "antialias": True, "by": "torch", "channels": "RGB"}
# Frames that are resized in one call, and their bytes: a call of its own for each frame costs 14 us
# more; more than 8 in a call gain nothing and take memory.
_BATCH, _BATCH_BYTES = 8, 2 << 20


class _Tools(threading.local):
    """A thread's converter and the memory it converts into, kept from one video to the next."""

    def __init__(self) -> None:
        self.reformat = VideoReformatter()
        self.batch = np.empty((0, 0, 0, 3), np.uint8)


_TOOLS = _Tools()


class Frames:
    """Collects frames of one video in the order they come. numbers: theirs.

    room: uint8 [n,h,w,3], C order: where the finished frames go, one behind the other. Converted
    frames are copied once, into a batch that the resize reads. One at a time in a thread.
    """

    def __init__(self, room: np.ndarray) -> None:
        self._room = room
        self._waiting = self._done = 0
        self.numbers: list[int] = []

    def add(self, number: int, frame: av.VideoFrame) -> None:
        rgb = self._rgb(frame)
        if self._waiting == len(_TOOLS.batch) or rgb.shape != _TOOLS.batch.shape[1:]:
            self._flush()
            count = max(1, min(_BATCH, _BATCH_BYTES // rgb.nbytes))
            if _TOOLS.batch.shape != (count, *rgb.shape):
                _TOOLS.batch = np.empty((count, *rgb.shape), np.uint8)
        _TOOLS.batch[self._waiting] = rgb
        self._waiting += 1
        self.numbers.append(number)

    def done(self) -> np.ndarray:
        """uint8 [n,h,w,3], the part of the room that is filled, in the order of `numbers`."""
        self._flush()
        return self._room[: self._done]

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [H,W,3], a view of the converter's memory: valid until the next frame."""
        rgb = _TOOLS.reformat.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # [H,bytes]
        pixels = rows[: rgb.height, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)
        if frame.rotation:
            pixels = np.rot90(pixels, round(frame.rotation / 90))  # both count anticlockwise
        return pixels

    def _flush(self) -> None:
        count, self._waiting = self._waiting, 0
        if count:
            resize(_TOOLS.batch[:count], self._room[self._done : self._done + count])
            self._done += count


def resize(frames: np.ndarray, room: np.ndarray) -> None:
    """uint8 [T,H,W,3] -> `room`, uint8 [T,h,w,3]: bilinear with antialias, as torchvision does.

    Odd: this is the operator that `torch.nn.functional.interpolate` calls, which has no `out`.
    """
    import torch

    if frames.shape == room.shape:
        room[:] = frames
        return
    planes, small = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in (frames, room))
    torch.ops.aten._upsample_bilinear2d_aa.out(
        planes, room.shape[1:3], False, None, None, out=small
    )  # [T,C,H,W]; False: align_corners

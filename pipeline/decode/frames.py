"""Decoded frames -> finished pixels: RGB, upright, resized, uint8.

Frames are converted to RGB at full size and then resized by torch, bilinear with antialias, uint8:
23 + 48 us a frame of 320x240 to 128x171, where swscale in one step takes 247 us and is off by up to
29 of 255 (it resizes the halved chroma planes). The pixels equal torchvision's
`Resize(..., antialias=True)` to the bit.
"""

from __future__ import annotations

import threading
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

RESIZE = {"rule": "bilinear", "antialias": True, "by": "torch", "channels": "RGB"}
# Frames that are resized in one call, and their bytes: one call a frame costs 14 us more each;
# more than 8 in a call gain nothing and take memory.
_BATCH, _BATCH_BYTES = 8, 2 << 20


class _ThreadBuffers(threading.local):
    """A thread's converter and the memory it converts into, kept from one video to the next."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()
        self.batch = np.empty((0, 0, 0, 3), np.uint8)


_BUFFERS = _ThreadBuffers()


class FrameResizer:
    """Converts and resizes frames of one video, in the order they come. indices: theirs.

    out: uint8 [n,h,w,3], C order: takes the finished frames, one behind the other. One instance at
    a time in a thread.
    """

    def __init__(self, out: np.ndarray) -> None:
        self._out = out
        self._num_waiting = self._num_done = 0
        self.indices: list[int] = []

    def add(self, index: int, frame: av.VideoFrame) -> None:
        rgb = _to_rgb(frame)
        if self._num_waiting == len(_BUFFERS.batch) or rgb.shape != _BUFFERS.batch.shape[1:]:
            self._flush()
            count = max(1, min(_BATCH, _BATCH_BYTES // rgb.nbytes))
            if _BUFFERS.batch.shape != (count, *rgb.shape):
                _BUFFERS.batch = np.empty((count, *rgb.shape), np.uint8)
        _BUFFERS.batch[self._num_waiting] = rgb
        self._num_waiting += 1
        self.indices.append(index)

    def finish(self) -> np.ndarray:
        """uint8 [n,h,w,3], the filled part of `out`, in the order of `indices`."""
        self._flush()
        return self._out[: self._num_done]

    def _flush(self) -> None:
        count, self._num_waiting = self._num_waiting, 0
        if count:
            end = self._num_done + count
            resize(_BUFFERS.batch[:count], self._out[self._num_done : end])
            self._num_done = end


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H,W,3], a view of the converter's memory: valid until the next frame."""
    rgb = _BUFFERS.reformatter.reformat(frame, format="rgb24", threads=1)
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # [H,bytes]
    return upright(rows[: rgb.height, : rgb.width * 3].reshape(rgb.height, rgb.width, 3), frame)


def upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """[H,W,3] of a frame as a player shows it, turned and mirrored: a view.

    The display matrix sends (x, y) to (a*x + c*y, b*x + d*y); x grows to the right, y downwards.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def resize(frames: np.ndarray, out: np.ndarray) -> None:
    """uint8 [T,H,W,3] -> `out`, uint8 [T,h,w,3]: bilinear with antialias, as torchvision does.

    This calls the operator behind `torch.nn.functional.interpolate`, which has no `out`. Raises
    MemoryError.
    """
    if frames.shape == out.shape:
        out[:] = frames
        return
    source, target = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (frames, out))
    try:
        torch.ops.aten._upsample_bilinear2d_aa.out(
            source, out.shape[1:3], False, None, None, out=target
        )  # [T,C,h,w]; False: align_corners
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise

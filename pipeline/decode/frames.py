"""Decoded frames -> finished pixels: RGB, upright, resized, uint8.

Frames are converted to RGB at full size and then resized by torch, bilinear with antialias, uint8:
23 + 48 us a frame of 320x240 to 128x171, where swscale in one step takes 247 us and is off by up to
29 of 255 (it resizes the halved chroma planes). The pixels equal torchvision's
`Resize(..., antialias=True)` to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
import torch
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

RESIZE = {"rule": "bilinear", "antialias": True, "by": "torch", "channels": "RGB"}
# What becomes of a frame of another shape than the clip's: squeezed to it, its center cut out, or
# shown whole between black bars.
FITS = ("squeeze", "crop", "pad")
_RGB: Any = av.VideoFormat("rgb24")  # found once; PyAV's types know the name alone
_IDENTITY = (1, 0, 0, 1)
_BATCH_BYTES = 1 << 20  # of frames that are resized in one call: what the processor's cache holds
_MOST_WAITING = 2 << 20  # pixels of frames that wait: 27 of 320x240
# What torch.nn.functional.interpolate calls, which has no `out`.
_interpolate: Any = torch._C._nn._upsample_bilinear2d_aa


class _Converters(threading.local):
    """A thread's converter and memory for several frames, kept from one video to the next."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()
        self.batch = np.empty(_BATCH_BYTES, np.uint8)


_CONVERTERS = _Converters()


class FrameResizer:
    """Converts and resizes frames of one video, in the order they come. indices: theirs.

    out: uint8 [n,h,w,3], C order: takes the finished frames, one behind the other. fit: one of
    FITS. source_size: (height, width) of the first frame, upright.

    Several frames are kept and then made in one go, while the code for that is in the processor's
    cache: between two of them about five pictures are decoded. 0.2 of 10 ms a clip.
    """

    def __init__(self, out: np.ndarray, fit: str = "squeeze") -> None:
        self._out, self._fit = out, fit
        self._waiting: list[av.VideoFrame] = []
        self.indices: list[int] = []
        self.source_size = (0, 0)

    def add(self, index: int, frame: av.VideoFrame) -> None:
        self._waiting.append(frame)
        self.indices.append(index)
        if len(self._waiting) * frame.width * frame.height >= _MOST_WAITING:
            self.finish()

    def finish(self) -> np.ndarray:
        """uint8 [n,h,w,3], the filled part of `out`, in the order of `indices`."""
        first = len(self.indices) - len(self._waiting)
        for rgb in _batches(self._waiting):
            if first == 0:
                self.source_size = rgb.shape[1:3]
            resize(rgb, self._out[first : first + len(rgb)], self._fit)
            first += len(rgb)
        self._waiting.clear()
        return self._out[: len(self.indices)]


def _batches(frames: Sequence[av.VideoFrame]) -> Iterator[np.ndarray]:
    """The frames as uint8 [n,H,W,3], upright, several of one size together where they are small.

    The memory is that of the converters: valid until the next.
    """
    start = 0
    while start < len(frames):
        rgb, count = _to_rgb(frames[start]), 1
        most = min(_BATCH_BYTES // rgb.nbytes, len(frames) - start)
        if most < 2:
            yield rgb[None]
        else:
            batch = _CONVERTERS.batch[: most * rgb.nbytes].reshape(most, *rgb.shape)
            batch[0] = rgb
            while count < most and (rgb := _to_rgb(frames[start + count])).shape == batch.shape[1:]:
                batch[count] = rgb
                count += 1
            yield batch[:count]
        start += count


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H,W,3], a view of the converter's memory: valid until the next frame."""
    rgb = _CONVERTERS.reformatter.reformat(frame, format=_RGB, threads=1)
    plane = rgb.planes[0]
    shape, strides = (rgb.height, rgb.width, 3), (plane.line_size, 3, 1)
    return upright(np.ndarray(shape, np.uint8, memoryview(plane), strides=strides), frame)


def upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """[H,W,3] of a frame as a player shows it, turned and mirrored: a view.

    The display matrix sends (x, y) to (a*x + c*y, b*x + d*y); x grows to the right, y downwards.
    """
    a, b, c, d = matrix = _display_matrix(frame)
    if matrix == _IDENTITY:
        return pixels
    if _swaps_axes(matrix):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def is_turned(frame: av.VideoFrame) -> bool:
    """Whether a player shows the rows of a frame as columns."""
    return _swaps_axes(_display_matrix(frame))


def _swaps_axes(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d), see `upright`."""
    # `frame.side_data` would be held by the frame that it holds: pixels that only the garbage
    # collector frees, 2 MB a clip.
    side_data: Any = SideDataContainer(frame)  # type: ignore[call-arg]
    matrix = side_data.get("DISPLAYMATRIX") if side_data else None
    if matrix is None:
        return _IDENTITY
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return a, b, c, d


def resize(frames: np.ndarray, out: np.ndarray, fit: str = "squeeze") -> None:
    """uint8 [T,H,W,3] -> `out`, uint8 [T,h,w,3]: bilinear with antialias, as torchvision does.

    fit: one of FITS. Raises MemoryError.
    """
    if frames.shape == out.shape:
        out[:] = frames
        return
    if fit == "squeeze":
        _squeeze(frames, out)
        return
    (H, W), (h, w) = frames.shape[1:3], out.shape[1:3]
    if fit == "crop":
        rows, columns = _largest_within((H, W), (h, w))
        frames = _center(frames, rows, columns)
    if fit == "pad":
        rows, columns = _largest_within((h, w), (H, W))
        picture = np.empty((len(frames), rows, columns, 3), np.uint8)
        _squeeze(frames, picture)
        out[:] = 0
        _center(out, rows, columns)[:] = picture
    else:
        _squeeze(frames, out)


def _largest_within(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of the proportions of `shape` that lies within `size`."""
    (height, width), (h, w) = size, shape
    if height * w > width * h:
        return max(1, round(width * h / w)), width
    return height, max(1, round(height * w / h))


def _center(frames: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The middle [T,rows,columns,3] of [T,H,W,3]: a view."""
    top, left = (frames.shape[1] - rows) // 2, (frames.shape[2] - columns) // 2
    return frames[:, top : top + rows, left : left + columns]


def _squeeze(frames: np.ndarray, out: np.ndarray) -> None:
    """Resize, whatever the proportions."""
    if min(frames.strides) < 0:  # mirrored: torch knows no such memory
        frames = np.ascontiguousarray(frames)
    source = torch.from_numpy(frames).permute(0, 3, 1, 2)
    target = torch.from_numpy(out).permute(0, 3, 1, 2)
    try:
        _interpolate(source, out.shape[1:3], False, None, None, out=target)  # [T,C,h,w]
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise

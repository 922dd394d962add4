"""The sampling of `augment.apply` on the CPU: one clip, one pass, in a loader's worker.

Bilinear sampling, normalisation and layout in one loop compiled by numba without the GIL: the four
taps of an output pixel and their integer weights are worked out once and used for all frames of a
clip, and nothing is written but the normalised float.

Odd:
- Measured on one core of machine A (docs/benchmarks.md, "Loader"): this 0.62 ms a clip of 16 frames
  128x171 -> 112x112, OpenCV's `warpAffine` per frame and numpy's normalisation 0.96 ms, cutting
  into a channels-last copy first 1.48 ms, torch's `grid_sample` 3.8 ms.
- Weights have 10 bits, so a pixel is off by at most 255/1024 of a level beside float weights, on
  noise as well; on photographs by 0.02.
- The machine code is kept beside this file (or in numba's own cache folder); only the very first
  call on a machine waits 1-2 s for the compiler.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_BITS = 10
_ONE = 1 << _BITS


def pixel_maps(maps: np.ndarray, source: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Maps between normalised coordinates, [...,2,3] -> between pixel numbers, float64 [...,2,3].

    Takes (x, y, 1) of an output pixel to (x, y) of the source, pixel centres at whole numbers.
    """
    (H, W), (h, w) = source, size
    inward = np.array([[2 / w, 0, 1 / w - 1], [0, 2 / h, 1 / h - 1], [0, 0, 1]])
    outward = np.array([[W / 2, 0], [0, H / 2]])
    middle = np.array([[0, 0, (W - 1) / 2], [0, 0, (H - 1) / 2]])
    return outward @ maps.astype(np.float64) @ inward + middle


def coefficients(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """-> float32 (scale, shift) [C]: a pixel v of 0..255 becomes v * scale - shift."""
    wide = np.asarray(std, np.float64)
    return (1 / (255 * wide)).astype(np.float32), (np.asarray(mean) / wide).astype(np.float32)


def sample(
    clip: np.ndarray,
    maps: np.ndarray,
    out: np.ndarray,
    *,
    factor: int,
    scale: np.ndarray,
    shift: np.ndarray,
) -> None:
    """uint8 clip [T,H,W,3], its maps [F,2,3] (F = 1 or T) -> out float32 [T,h,w,3].

    factor: blocks of factor x factor pixels are averaged first (see `augment.blocks`). scale,
    shift: of `coefficients`. Raises ValueError for another number of channels than 3.
    """
    if clip.shape[-1] != 3:
        raise ValueError(f"clips of {clip.shape[-1]} channels cannot be sampled here: give 3.")
    if factor > 1:
        clip = _compiled()[1](clip, factor)
    pixels = pixel_maps(maps, (clip.shape[1], clip.shape[2]), (out.shape[1], out.shape[2]))
    kernel = _compiled()[0]
    scale = scale / np.float32(_ONE * _ONE)
    if len(pixels) == 1:
        kernel(clip, pixels[0], scale, shift, out)
        return
    for frame, one in enumerate(pixels):
        kernel(clip[frame : frame + 1], one, scale, shift, out[frame : frame + 1])


@functools.cache
def _compiled() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two loops as machine code; numba is imported here, it takes 0.4 s."""
    import numba

    how: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": True}
    return numba.njit(**how)(_bilinear), numba.njit(**how)(_average)


def _bilinear(
    clip: np.ndarray, m: np.ndarray, scale: np.ndarray, shift: np.ndarray, out: np.ndarray
) -> None:
    """Frames in the innermost loop: a tap's weights stay in registers (table first: 0.72 ms)."""
    T, H, W, _ = clip.shape
    h, w = out.shape[1], out.shape[2]
    f, o = clip.reshape(T * H * W * 3), out.reshape(T * h * w * 3)
    # unsigned offsets: for signed ones numba tests for "from the end" at every access (1.33 ms)
    right = np.uint64(3 if W > 1 else 0)
    down = np.uint64(W * 3 if H > 1 else 0)
    one, two = np.uint64(1), np.uint64(2)
    frame_in, frame_out = np.uint64(H * W * 3), np.uint64(h * w * 3)
    for y in range(h):
        for x in range(w):
            fx = min(max(m[0, 0] * x + m[0, 1] * y + m[0, 2], 0.0), W - 1.0)
            fy = min(max(m[1, 0] * x + m[1, 1] * y + m[1, 2], 0.0), H - 1.0)
            left, top = min(int(fx), max(W - 2, 0)), min(int(fy), max(H - 2, 0))
            ax, ay = np.int32((fx - left) * _ONE + 0.5), np.int32((fy - top) * _ONE + 0.5)
            wa, wb = np.int32((_ONE - ax) * (_ONE - ay)), np.int32(ax * (_ONE - ay))
            wc, wd = np.int32((_ONE - ax) * ay), np.int32(ax * ay)
            a = np.uint64((top * W + left) * 3)
            q = np.uint64((y * w + x) * 3)
            for _ in range(T):
                b, c = a + right, a + down
                d = c + right
                v = f[a] * wa + f[b] * wb + f[c] * wc + f[d] * wd
                o[q] = np.float32(v) * scale[0] - shift[0]
                v = f[a + one] * wa + f[b + one] * wb + f[c + one] * wc + f[d + one] * wd
                o[q + one] = np.float32(v) * scale[1] - shift[1]
                v = f[a + two] * wa + f[b + two] * wb + f[c + two] * wc + f[d + two] * wd
                o[q + two] = np.float32(v) * scale[2] - shift[2]
                a += frame_in
                q += frame_out


def _average(clip: np.ndarray, factor: int) -> np.ndarray:
    """uint8 [T,H,W,3] -> the rounded means of factor x factor blocks, uint8."""
    T, H, W, C = clip.shape
    out = np.empty((T, H // factor, W // factor, C), np.uint8)
    area = factor * factor
    for t in range(T):
        for y in range(H // factor):
            for x in range(W // factor):
                for c in range(C):
                    total = area // 2
                    for dy in range(factor):
                        for dx in range(factor):
                            total += clip[t, y * factor + dy, x * factor + dx, c]
                    out[t, y, x, c] = total // area
    return out

"""Sampling of one clip by its affine map on the CPU, in a loader's worker (numba, without the GIL).

The four taps of an output pixel and their integer weights are computed once and used for all frames
of the clip. Weights have 10 bits each way: a pixel is off by at most 255/1024 of a level beside
float weights. Only the very first call on a machine waits 2 s for numba's compiler.
"""

from typing import Any

import numba
import numpy as np

# contract: multiply and add may be fused, but nothing is reordered, so that pixels do not depend on
# how the compiler arranges the loop
_OPTIONS: dict[str, Any] = {
    "nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"},
}  # fmt: skip
_ONE = 1 << 10  # a weight of 1; _ONE * _ONE * 255 fits into int32


def sample_clip(
    clip: np.ndarray,
    maps: np.ndarray,
    out: np.ndarray,
    *,
    factor: int,
    scale: np.ndarray,
    shift: np.ndarray,
) -> None:
    """uint8 clip [T,H,W,3], its maps [F,2,3] (F = 1 or T) -> out float32 [T,h,w,3], C-contiguous.

    factor: blocks of factor x factor pixels are averaged first (`affine.pool_factors`). scale,
    shift: float32 [3], a pixel v of 0..255 becomes v * scale - shift. Raises ValueError for another
    number of channels.
    """
    if clip.shape[-1] != 3:
        raise ValueError(f"clips of {clip.shape[-1]} channels cannot be sampled here: give 3.")
    clip = np.ascontiguousarray(clip)
    if factor > 1:
        clip = _average_blocks(clip, factor)
    pixel_maps = _pixel_maps(maps, clip.shape[1:3], out.shape[1:3])
    frames_per_map = len(clip) // len(pixel_maps)
    for number, pixel_map in enumerate(pixel_maps):
        frames = slice(number * frames_per_map, (number + 1) * frames_per_map)
        _sample(clip[frames], pixel_map, scale / np.float32(_ONE**2), shift, out[frames])


def _pixel_maps(maps: np.ndarray, source: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """Maps between normalized coordinates, [...,2,3] -> between pixel numbers, float64 [...,2,3].

    Takes (x, y, 1) of an output pixel to (x, y) of the source, pixel centers at whole numbers.
    """
    (H, W), (h, w) = source, size
    to_normalized = np.array([[2 / w, 0, 1 / w - 1], [0, 2 / h, 1 / h - 1], [0, 0, 1]])
    to_pixels = np.array([[W / 2, 0], [0, H / 2]])
    center = np.array([[0, 0, (W - 1) / 2], [0, 0, (H - 1) / 2]])
    return to_pixels @ maps.astype(np.float64) @ to_normalized + center


@numba.njit(**_OPTIONS)
def _sample(
    clip: np.ndarray, m: np.ndarray, scale: np.ndarray, shift: np.ndarray, out: np.ndarray
) -> None:
    """uint8 [T,H,W,3] -> out float32 [T,h,w,3], both C-contiguous. m: [2,3] between pixel numbers.

    Offsets are unsigned: for signed ones numba tests for "from the end" at every access.
    """
    T, H, W, _ = clip.shape
    h, w = out.shape[1], out.shape[2]
    source, target = clip.reshape(T * H * W * 3), out.reshape(T * h * w * 3)
    right, down = np.uint64(3 if W > 1 else 0), np.uint64(W * 3 if H > 1 else 0)
    for y in range(h):
        for x in range(w):
            fx = min(max(m[0, 1] * y + (m[0, 0] * x + m[0, 2]), 0.0), W - 1.0)
            fy = min(max(m[1, 1] * y + (m[1, 0] * x + m[1, 2]), 0.0), H - 1.0)
            left, top = min(int(fx), max(W - 2, 0)), min(int(fy), max(H - 2, 0))
            ax, ay = np.int32((fx - left) * _ONE + 0.5), np.int32((fy - top) * _ONE + 0.5)
            wa, wb = np.int32((_ONE - ax) * (_ONE - ay)), np.int32(ax * (_ONE - ay))
            wc, wd = np.int32((_ONE - ax) * ay), np.int32(ax * ay)
            a, o = np.uint64((top * W + left) * 3), np.uint64((y * w + x) * 3)
            for _ in range(T):
                for c in range(3):
                    i = a + np.uint64(c)
                    top_row = source[i] * wa + source[i + right] * wb
                    value = top_row + source[i + down] * wc + source[i + down + right] * wd
                    target[o + np.uint64(c)] = np.float32(value) * scale[c] - shift[c]
                a += np.uint64(H * W * 3)
                o += np.uint64(h * w * 3)


@numba.njit(**_OPTIONS)
def _average_blocks(clip: np.ndarray, factor: int) -> np.ndarray:
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

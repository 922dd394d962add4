"""The sampling of `augment.apply` on the CPU: one clip, one pass, in a loader's worker.

Bilinear sampling, normalisation and layout in one loop compiled by numba without the GIL: the four
taps of an output pixel and their integer weights are worked out once and used for all frames of a
clip, and nothing is written but the normalised float.

Odd:
- Measured on one core of machine A (docs/benchmarks.md, "Loader"): this 0.47-0.58 ms a clip of 16
  frames 128x171 -> 112x112, the same loop left to the compiler 0.73 ms, OpenCV's `warpAffine` per
  frame and numpy's normalisation 0.96 ms, torch's `grid_sample` 2.8 ms.
- Weights have 10 bits, so a pixel is off by at most 255/1024 of a level beside float weights, on
  noise as well; on photographs by 0.02.
- The machine code (`har.shards.transforms.sample_kernel`) is kept in `__pycache__` or numba's own folder; only the
  very first call on a machine waits 2 s for the compiler.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
    from . import sample_kernel

    if clip.shape[-1] != 3:
        raise ValueError(f"clips of {clip.shape[-1]} channels cannot be sampled here: give 3.")
    if factor > 1:
        clip = sample_kernel.average(clip, factor)
    pixels = pixel_maps(maps, (clip.shape[1], clip.shape[2]), (out.shape[1], out.shape[2]))
    if min(clip.shape[1:3]) < 2:  # the loop takes two pixels each way
        clip = np.pad(clip, ((0, 0), (0, 1), (0, 1), (0, 0)), "edge")
    clip = np.ascontiguousarray(clip)
    if not out.flags.c_contiguous or out.dtype != np.float32 or clip.dtype != np.uint8:
        raise ValueError(
            f"{clip.dtype} cannot be sampled into {out.dtype}: give uint8 and float32."
        )
    kernel = sample_kernel.bilinear
    scale = scale / np.float32(sample_kernel.ONE**2)
    if len(pixels) == 1:
        kernel(clip, pixels[0], scale, shift, out)
        return
    for frame, one in enumerate(pixels):
        kernel(clip[frame : frame + 1], one, scale, shift, out[frame : frame + 1])

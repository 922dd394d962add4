"""Brightness, contrast and saturation of a clip: one 3x4 matrix for all its frames.

Odd: torchvision clamps after each step and turns contrast about the picture's own mean; here
contrast turns about mid-grey and the only clamp is at the end, so that the three are one matrix, a
pure function of (seed, epoch, key), and need no pass over the pixels first. Not in the paper; part
of modern recipes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as torchvision's rgb_to_grayscale


def matrix(brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Factors, 1 = unchanged -> float64 [3,4]: rgb of 0..1 to rgb, before the clamp to 0..1.

    Brightness first, then contrast, then saturation.
    """
    mixed = saturation * np.eye(3) + (1 - saturation) * np.tile(GREY, (3, 1))
    return np.hstack(
        [mixed * (contrast * brightness), mixed @ np.full((3, 1), 0.5 * (1 - contrast))]
    )


def draw(ranges: tuple[float, float, float], random: np.random.Generator) -> np.ndarray:
    """ranges: (brightness, contrast, saturation), each factor even in [1 - r, 1 + r]."""
    factors = [random.uniform(max(0.0, 1 - wide), 1 + wide) for wide in ranges]
    return matrix(*factors)


def apply(pixels: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """[B,T,3,h,w] of 0..255 and [B,3,4] -> the same shape, clamped to 0..255."""
    import torch

    turn = matrices[..., :3].to(pixels.device, torch.float32)
    shift = 255 * matrices[..., 3].to(pixels.device, torch.float32)
    turned = torch.einsum("bij,btjhw->btihw", turn, pixels)
    return (turned + shift[:, None, :, None, None]).clamp_(0, 255)


def apply_cpu(out: np.ndarray, one: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
    """float32 [T,h,w,3] of 0..255, in place: matrix [3,4], clamp, then v * scale - shift."""
    whole = one.astype(np.float32)
    whole[:, 3] *= 255
    _compiled()(out.reshape(-1, 3), whole, scale, shift)


@functools.cache
def _compiled() -> Callable[..., Any]:
    import numba

    how: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": True}
    return numba.njit(**how)(_turn)


def _turn(out: np.ndarray, m: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
    low, high = np.float32(0), np.float32(255)
    for at in range(len(out)):
        r, g, b = out[at, 0], out[at, 1], out[at, 2]
        for c in range(3):
            value = m[c, 0] * r + m[c, 1] * g + m[c, 2] * b + m[c, 3]
            out[at, c] = min(max(value, low), high) * scale[c] - shift[c]

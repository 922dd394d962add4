"""Brightness, contrast and saturation of a clip: one 3x4 matrix for all its frames.

torchvision clamps after each step and turns contrast about the picture's own mean; here contrast
turns about mid-gray and the only clamp is at the end, so that the three are one matrix. Not in the
paper; part of modern recipes.
"""

import numba
import numpy as np
import torch

GRAY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as torchvision's rgb_to_grayscale


def color_matrix(brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Factors, 1 = unchanged -> float64 [3,4]: rgb of 0..1 to rgb, before the clamp to 0..1.

    Brightness first, then contrast, then saturation.
    """
    mixed = saturation * np.eye(3) + (1 - saturation) * np.tile(GRAY, (3, 1))
    return np.hstack(
        [mixed * (contrast * brightness), mixed @ np.full((3, 1), 0.5 * (1 - contrast))]
    )


def random_color_matrix(
    ranges: tuple[float, float, float], random: np.random.Generator
) -> np.ndarray:
    """ranges r: (brightness, contrast, saturation), each factor uniform in 1 - r .. 1 + r."""
    return color_matrix(*(random.uniform(max(0.0, 1 - r), 1 + r) for r in ranges))


def apply_colors(pixels: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """[B,T,3,h,w] of 0..255 and [B,3,4] -> the same shape, clamped to 0..255."""
    linear = matrices[..., :3].to(pixels.device, torch.float32)
    offset = 255 * matrices[..., 3].to(pixels.device, torch.float32)
    result = torch.einsum("bij,btjhw->btihw", linear, pixels)
    return (result + offset[:, None, :, None, None]).clamp_(0, 255)


def apply_colors_cpu(
    out: np.ndarray, matrix: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> None:
    """float32 [T,h,w,3] of 0..255, in place: matrix [3,4], clamp, then v * scale - shift."""
    matrix = matrix.astype(np.float32)
    matrix[:, 3] *= 255
    _apply(out.reshape(-1, 3), matrix, scale, shift)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def _apply(out: np.ndarray, m: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
    low, high = np.float32(0), np.float32(255)
    for row in range(len(out)):
        r, g, b = out[row, 0], out[row, 1], out[row, 2]
        for c in range(3):
            value = m[c, 0] * r + m[c, 1] * g + m[c, 2] * b + m[c, 3]
            out[row, c] = min(max(value, low), high) * scale[c] - shift[c]

"""Crop, scale, aspect, rotation and flip of a clip as one affine map, sampled once.

The maps are drawn on the host (numpy, a few floats a clip); `sample_batch` samples a whole batch
where it is (torch: CPU or CUDA), `affine_cpu` one clip in a loader's worker.

Notes:
- A map is a pure function of (seed, epoch, key): nothing depends on batch, worker or rank.
- Where a rotated crop reaches over the edge of the frame it repeats the edge; elsewhere its corners
  show what is there, not the black that rotating a crop (the paper's torchvision chain) gives.
- Against aliasing, whole pixel blocks are averaged first where a clip's map shrinks by 2 or more.

Source: paper, sections 3.1 and 3.2 (random resized crop, rotation in +-15 degrees, center crop,
normalize; resize and center crop for evaluation).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from . import rand_augment
from .color import apply_colors

Size = tuple[int, int]  # height, width
Crop = tuple[float, float, float, float]  # top, left, height, width in pixels
_CROP_TRIES = 10  # for a crop that fits, as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Augmentation:
    """The ranges to draw from. scale: share of the frame's area; ratio: width/height of the crop;
    rotation: +-degrees; hflip: probability; per_frame: draw anew for each frame (the paper's way,
    which shakes the clip). color: brightness, contrast, saturation, each a factor in 1 +- this, one
    for all frames (`har.shards.transforms.color`; not in the paper). rand_augment: strength of two
    more operations, 0..30, 0 = none (`har.shards.transforms.rand_augment`)."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 15.0
    hflip: float = 0.0
    per_frame: bool = False
    color: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rand_augment: float = 0.0


def random_maps(
    augmentation: Augmentation,
    *,
    seed: int,
    epoch: int,
    keys: Sequence[str],
    frames: int,
    source: Size,
    size: Size,
) -> np.ndarray:
    """Draw the maps of a batch: float32 [B,F,2,3], F = 1, or `frames` with `per_frame`.

    source, size: of the stored frame and of the output. A map takes the output's
    normalized coordinates to the source's, as `torch.nn.functional.affine_grid` wants them.
    """
    count = frames if augmentation.per_frame else 1
    maps = np.empty((len(keys), count, 2, 3), np.float32)
    for row, key in enumerate(keys):
        random = generator(seed, epoch, key)
        drawn = random_operations(augmentation, seed, epoch, key)
        more = rand_augment.affine_matrix(drawn, size)
        for frame in range(count):
            maps[row, frame] = _map(*_draw(augmentation, random, source), source, size) @ more
    return maps


def random_operations(
    augmentation: Augmentation, seed: int, epoch: int, key: str
) -> rand_augment.Drawn:
    """The operations of `rand_augment` for a clip; none where it is 0."""
    if not augmentation.rand_augment:
        return []
    random = generator(seed, epoch, f"{key}/rand-augment")
    return rand_augment.draw_operations(augmentation.rand_augment, random)


def center_crop_maps(batch: int, *, source: Size, resize: Size, size: Size) -> np.ndarray:
    """Resize to `resize`, then the center crop of `size`: float32 [B,1,2,3], alike for all."""
    height, width = source[0] * size[0] / resize[0], source[1] * size[1] / resize[1]
    # torchvision's CenterCrop rounds the corner to a pixel of the resized frame; so do we
    top = round((resize[0] - size[0]) / 2) * source[0] / resize[0]
    left = round((resize[1] - size[1]) / 2) * source[1] / resize[1]
    center = _map((top, left, height, width), 0.0, False, source, size)
    return np.broadcast_to(center, (batch, 1, 2, 3)).astype(np.float32)


def sample_batch(
    pixels: torch.Tensor,
    maps: np.ndarray,
    *,
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    colors: np.ndarray | None = None,
) -> torch.Tensor:
    """uint8 [B,T,H,W,C] and maps [B,F,2,3] -> float32 [B,C,T,h,w] in channels_last_3d.

    One bilinear sampling, then `colors` (matrices [B,3,4]), then (x / 255 - mean) / std.
    """
    B, T, H, W, C = pixels.shape
    factors = pool_factors(maps, (H, W), size)
    theta = torch.from_numpy(maps).to(pixels.device, torch.float32, non_blocking=True)
    if (factors == factors[0]).all():
        x = _sample(pixels, theta, size, int(factors[0]))
    else:  # a clip's pixels must not depend on the others in its batch
        x = torch.empty((B, T, C, *size), device=pixels.device)
        for factor in np.unique(factors).tolist():
            rows = torch.from_numpy(np.flatnonzero(factors == factor)).to(pixels.device)
            x[rows] = _sample(pixels[rows], theta[rows], size, factor)
    if colors is not None:
        x = apply_colors(x, torch.from_numpy(colors))
    x = x.permute(0, 2, 1, 3, 4)  # [B,C,T,h,w]
    scale = torch.tensor([1 / (255 * s) for s in std], device=x.device).view(1, C, 1, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=x.device)
    x = x * scale - shift.view(1, C, 1, 1, 1)
    return x.to(torch.float32, memory_format=torch.channels_last_3d)


def _sample(pixels: torch.Tensor, maps: torch.Tensor, size: Size, factor: int) -> torch.Tensor:
    """uint8 [B,T,H,W,C] -> float32 [B,T,C,h,w], values 0..255."""
    B, T, H, W, C = pixels.shape
    per_clip = maps.shape[1] == 1
    x = pixels.permute(0, 1, 4, 2, 3)  # [B,T,C,H,W]
    x = x.reshape((B, T * C, H, W) if per_clip else (B * T, C, H, W)).float()
    if factor > 1:
        x = F.avg_pool2d(x, factor)  # [B,T*C,H',W'] or [B*T,C,H',W']
    theta = maps[:, 0] if per_clip else maps.flatten(0, 1)  # [B,2,3] or [B*T,2,3]
    grid = F.affine_grid(theta, [len(theta), C, *size], align_corners=False)  # [.,h,w,2]
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return x.view(B, T, C, *size)


def pool_factors(maps: np.ndarray, source: Size, size: Size) -> np.ndarray:
    """Maps [B,F,2,3] -> int [B]: blocks of f x f pixels are averaged first, where all maps of the
    clip shrink by f or more. f divides the frame, so that normalized coordinates stay the same."""
    H, W = source
    shrink = min(H / size[0], W / size[1])
    if shrink < 2:  # no map can shrink more than the whole frame does
        return np.ones(len(maps), int)
    zooms = np.linalg.norm(maps[..., :2], axis=-1).min(axis=(1, 2))  # smallest window / frame
    factors = np.maximum(1, (zooms * shrink).astype(int))
    for row, factor in enumerate(factors.tolist()):
        while H % factor or W % factor:
            factor -= 1
        factors[row] = factor
    return factors


def generator(seed: int, epoch: int, key: str) -> np.random.Generator:
    """Philox keyed by (seed, epoch, key): the same draw wherever and whenever it is made."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _draw(
    augmentation: Augmentation, random: np.random.Generator, source: Size
) -> tuple[Crop, float, bool]:
    """-> crop, angle in radians, flip."""
    height, width = source
    low, high = math.log(augmentation.ratio[0]), math.log(augmentation.ratio[1])
    # torchvision's fallback: the largest central crop whose ratio is in range
    w, h = min(width, height * augmentation.ratio[1]), min(height, width / augmentation.ratio[0])
    crop = ((height - h) / 2, (width - w) / 2, h, w)
    for _ in range(_CROP_TRIES):
        area = height * width * random.uniform(*augmentation.scale)
        ratio = math.exp(random.uniform(low, high))
        h, w = math.sqrt(area / ratio), math.sqrt(area * ratio)
        if h <= height and w <= width:
            crop = (random.uniform(0, height - h), random.uniform(0, width - w), h, w)
            break
    angle = math.radians(random.uniform(-augmentation.rotation, augmentation.rotation))
    return crop, angle, bool(random.random() < augmentation.hflip)


def _map(crop: Crop, angle: float, flip: bool, source: Size, size: Size) -> np.ndarray:
    """-> the affine map [2,3] from normalized output to normalized source coordinates.

    The output is rotated by `angle` in its own pixels (so that circles stay circles), then
    stretched over the crop.
    """
    (top, left, h, w), (H, W), (out_h, out_w) = crop, source, size
    cos, sin = math.cos(angle), math.sin(angle)
    rotate = np.array([[cos, -sin * out_h / out_w, 0], [sin * out_w / out_h, cos, 0], [0, 0, 1]])
    mirror = np.diag([-1.0 if flip else 1.0, 1.0, 1.0])
    window = np.array(
        [[w / W, 0, (2 * left + w) / W - 1], [0, h / H, (2 * top + h) / H - 1], [0, 0, 1]]
    )
    return (window @ rotate @ mirror)[:2]

"""Mixup and cutmix of clips: each clip of a batch is mixed with the next row of its rank's part.

The share is drawn for each clip, a pure function of (seed, epoch, key); only the partner depends on
the batch, and with several ranks on the rank's part of it (pixels do not cross ranks). Cutmix cuts
one box through all frames. Not in the paper; part of modern recipes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .affine import generator


@dataclass(frozen=True)
class Mix:
    """What was drawn for a batch. share: float32 [b], of the clip itself; the rest is its
    partner's. boxes: int64 [b,4] (top, left, bottom, right) for cutmix, None for mixup."""

    share: np.ndarray
    boxes: np.ndarray | None


def draw(
    kind: str, alpha: float, *, seed: int, epoch: int, keys: Sequence[str], size: tuple[int, int]
) -> Mix:
    """Shares from Beta(alpha, alpha); of cutmix, the box's true share after it is cut to pixels.

    kind: "mixup" or "cutmix". alpha: more than 0. size: (h, w) of the clips.
    """
    shares = np.empty(len(keys), np.float32)
    boxes = np.empty((len(keys), 4), np.int64)
    height, width = size
    for row, key in enumerate(keys):
        random = generator(seed, epoch, f"{key}/mix")
        share = random.beta(alpha, alpha)
        if kind == "cutmix":
            edge = math.sqrt(1 - share)
            y, x = random.uniform(0, height), random.uniform(0, width)
            top, bottom = np.clip([y - edge * height / 2, y + edge * height / 2], 0, height).round()
            left, right = np.clip([x - edge * width / 2, x + edge * width / 2], 0, width).round()
            boxes[row] = top, left, bottom, right
            share = 1 - (bottom - top) * (right - left) / (height * width)
        shares[row] = share
    return Mix(shares, boxes if kind == "cutmix" else None)


def apply(clips: torch.Tensor, mix: Mix) -> torch.Tensor:
    """[b,C,T,h,w] -> mixed clips, a new tensor of the same shape, dtype and layout."""
    partner = clips.roll(-1, 0)
    if mix.boxes is None:
        share = torch.from_numpy(mix.share).to(clips.device, clips.dtype)
        return partner.lerp(clips, share.view(-1, 1, 1, 1, 1))
    mixed = clips.clone(memory_format=torch.preserve_format)
    for row, (top, left, bottom, right) in enumerate(mix.boxes.tolist()):
        mixed[row, :, :, top:bottom, left:right] = partner[row, :, :, top:bottom, left:right]
    return mixed


def targets(labels: torch.Tensor, mix: Mix, classes: int) -> torch.Tensor:
    """int64 [b] -> float32 [b,K], rows sum to 1: what cross_entropy takes for mixed clips."""
    one_hot = F.one_hot(labels, classes).float()
    share = torch.from_numpy(mix.share).to(labels.device).view(-1, 1)
    return share * one_hot + (1 - share) * one_hot.roll(-1, 0)

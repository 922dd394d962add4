"""A `ClipTransform` and an `Augmentation` put to work: stored clips -> input of a network.

`process_clip` runs in the loader's threads (numpy, numba), `process_batch` where the batch is
(torch, CPU or CUDA); both give the same pixels within 1/255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import affine, color
from .affine import Augmentation
from .clip_transform import ClipTransform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ClipProcessor:
    """augmentation: None for the evaluation transform (resize, center crop)."""

    transform: ClipTransform
    augmentation: Augmentation | None = None

    def maps(
        self, *, seed: int, epoch: int, keys: Sequence[str], frames: int, source: tuple[int, int]
    ) -> np.ndarray:
        """The affine maps of these clips, float32 [B,F,2,3]; see `affine.train_maps`."""
        size = self.transform.crop_size
        if self.augmentation is None:
            resize = self.transform.resize_size
            return affine.eval_maps(len(keys), source=source, resize=resize, size=size)
        return affine.train_maps(
            self.augmentation, seed=seed, epoch=epoch, keys=keys, frames=frames, source=source,
            size=size,
        )  # fmt: skip

    def color_matrices(self, *, seed: int, epoch: int, keys: Sequence[str]) -> np.ndarray | None:
        """The color matrices of these clips, [B,3,4], or None where no color changes."""
        if self.augmentation is None or not any(self.augmentation.color):
            return None
        ranges = self.augmentation.color
        return np.stack(
            [color.draw(ranges, affine.generator(seed, epoch, f"{k}/colour")) for k in keys]
        )

    def process_clip(
        self, clip: np.ndarray, out: np.ndarray, *, key: str, seed: int, epoch: int
    ) -> None:
        """uint8 clip [T,H,W,3] -> out float32 [T,h,w,3]."""
        from . import sample_cpu

        T, H, W, _ = clip.shape
        transform = self.transform
        maps = self.maps(seed=seed, epoch=epoch, keys=[key], frames=T, source=(H, W))
        factor = int(affine.blocks(maps, (H, W), transform.crop_size)[0])
        scale, shift = sample_cpu.coefficients(transform.mean, transform.std)
        matrices = self.color_matrices(seed=seed, epoch=epoch, keys=[key])
        if matrices is None:
            sample_cpu.sample(clip, maps[0], out, factor=factor, scale=scale, shift=shift)
            return
        plain = np.ones(3, np.float32), np.zeros(3, np.float32)
        sample_cpu.sample(clip, maps[0], out, factor=factor, scale=plain[0], shift=plain[1])
        color.apply_cpu(out, matrices[0], scale, shift)

    def process_batch(
        self, pixels: torch.Tensor, *, keys: Sequence[str] = (), seed: int = 0, epoch: int = 0
    ) -> torch.Tensor:
        """uint8 [B,T,H,W,C] -> float32 [B,C,T,h,w] in channels_last_3d, on the same device.

        keys: of the B clips; not needed without augmentation.
        """
        import torch

        B, T, H, W, _ = pixels.shape
        names = keys or [""] * B
        maps = self.maps(seed=seed, epoch=epoch, keys=names, frames=T, source=(H, W))
        return affine.apply(
            pixels,
            torch.from_numpy(maps),
            size=self.transform.crop_size,
            mean=self.transform.mean,
            std=self.transform.std,
            colors=self.color_matrices(seed=seed, epoch=epoch, keys=names),
        )

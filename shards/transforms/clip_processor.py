"""A `ClipTransform` and an `Augmentation` put to work: stored clips -> input of a network.

`process_clip` runs in the loader's threads, `process_batch` where the batch is (torch, CPU or
CUDA); they give the same pixels within one level of 0..255.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import affine, affine_cpu, color, rand_augment
from .affine import Augmentation
from .clip_transform import ClipTransform


@dataclass(frozen=True)
class ClipProcessor:
    """augmentation: None for the evaluation transform (resize, center crop).

    Random numbers depend on seed, epoch and the clip's key only.
    """

    transform: ClipTransform
    augmentation: Augmentation | None = None

    def maps(
        self, *, seed: int, epoch: int, keys: Sequence[str], frames: int, source: tuple[int, int]
    ) -> np.ndarray:
        """The affine maps of these clips, float32 [B,F,2,3]; see `affine.random_maps`."""
        size = self.transform.crop_size
        if self.augmentation is None:
            resize = self.transform.resize_size
            return affine.center_crop_maps(len(keys), source=source, resize=resize, size=size)
        return affine.random_maps(
            self.augmentation, seed=seed, epoch=epoch, keys=keys, frames=frames, source=source,
            size=size,
        )  # fmt: skip

    def color_matrices(self, *, seed: int, epoch: int, keys: Sequence[str]) -> np.ndarray | None:
        """The color matrices of these clips, [B,3,4], or None where no color changes."""
        augmentation = self.augmentation
        if augmentation is None or not any((*augmentation.color, augmentation.rand_augment)):
            return None
        matrices = []
        for key in keys:
            draw = affine.generator(seed, epoch, f"{key}/colour")
            matrix = color.random_color_matrix(augmentation.color, draw)
            drawn = affine.random_operations(augmentation, seed, epoch, key)
            matrices.append(rand_augment.add_colors(drawn, matrix))
        return np.stack(matrices)

    def process_clip(
        self, clip: np.ndarray, out: np.ndarray, *, key: str, seed: int, epoch: int
    ) -> None:
        """uint8 clip [T,H,W,3] -> out float32 [T,h,w,3]."""
        T, H, W, _ = clip.shape
        maps = self.maps(seed=seed, epoch=epoch, keys=[key], frames=T, source=(H, W))
        factor = int(affine.pool_factors(maps, (H, W), self.transform.crop_size)[0])
        std = np.asarray(self.transform.std, np.float64)
        scale = (1 / (255 * std)).astype(np.float32)
        shift = (np.asarray(self.transform.mean) / std).astype(np.float32)
        matrices = self.color_matrices(seed=seed, epoch=epoch, keys=[key])
        if matrices is None:
            affine_cpu.sample_clip(clip, maps[0], out, factor=factor, scale=scale, shift=shift)
            return
        one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
        affine_cpu.sample_clip(clip, maps[0], out, factor=factor, scale=one, shift=zero)
        color.apply_colors_cpu(out, matrices[0], scale, shift)

    def process_batch(
        self, pixels: torch.Tensor, *, keys: Sequence[str] = (), seed: int = 0, epoch: int = 0
    ) -> torch.Tensor:
        """uint8 [B,T,H,W,C] -> float32 [B,C,T,h,w] in channels_last_3d, on the same device.

        keys: of the B clips; not needed without augmentation.
        """
        B, T, H, W, _ = pixels.shape
        keys = keys or [""] * B
        maps = self.maps(seed=seed, epoch=epoch, keys=keys, frames=T, source=(H, W))
        return affine.sample_batch(
            pixels,
            maps,
            size=self.transform.crop_size,
            mean=self.transform.mean,
            std=self.transform.std,
            colors=self.color_matrices(seed=seed, epoch=epoch, keys=keys),
        )

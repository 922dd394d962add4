"""A trained network as it is exported: preprocessing before it (if wanted), softmax after it.

Odd: `har.shards.transforms.affine.sample_batch` takes a map for each clip and looks at its values; here there is one map
for all, known beforehand, so its sampling grid is a constant. The parity check of `har-export` and
a test hold that both give the same pixels. This module imports torch: import it where it is used.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ...shards.transforms import affine
from .predictor import Predictor


class ExportWrapper(nn.Module):
    """clips -> (logits [B,K], probabilities [B,K]).

    clips: uint8 [B,T,H,W,3] as the shards hold them, or without `preprocessing` the network's own
    float32 [B,3,T,h,w].
    """

    grid: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, predictor: Predictor, preprocessing: bool) -> None:
        super().__init__()
        self.network = predictor.model
        self.preprocessing = preprocessing
        self._predictor = (predictor,)  # in a tuple: it is no part of what is exported
        wanted = predictor.wanted
        self.size = wanted.crop_size
        height, width = predictor.state["preprocessing"]["clip_shape"][1:3]
        self.stored = (wanted.frames, height, width, 3)
        maps = torch.from_numpy(
            affine.center_crop_maps(
                1, source=(height, width), resize=wanted.resize_size, size=wanted.crop_size
            )
        )
        # the same blocks that `affine.sample_batch` averages before it samples
        self.factor = int(affine.pool_factors(maps.numpy(), (height, width), wanted.crop_size)[0])
        grid = F.affine_grid(maps[:, 0], [1, 3, *wanted.crop_size], align_corners=False)
        self.register_buffer("grid", grid)  # [1,h,w,2]
        mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (wanted.mean, wanted.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.network(self._prepare(clips) if self.preprocessing else clips)  # [B,K]
        return logits, logits.softmax(1)

    def _prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """uint8 [B,T,H,W,3] -> float32 [B,3,T,h,w]."""
        B, (T, H, W, C) = clips.shape[0], self.stored
        x = clips.permute(0, 1, 4, 2, 3).reshape(B, T * C, H, W).float()
        if self.factor > 1:
            x = F.avg_pool2d(x, self.factor)
        grid = self.grid.expand(B, -1, -1, -1)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        x = x.view(B, T, C, *self.size).permute(0, 2, 1, 3, 4)  # [B,C,T,h,w]
        return x * self.scale - self.shift

    def example(self, batch: int) -> torch.Tensor:
        """Made-up clips as `forward` takes them: noise, smooth enough to look like pictures."""
        source = torch.Generator().manual_seed(batch)
        T, H, W, C = self.stored
        coarse = torch.rand(batch * T, C, 6, 8, generator=source)
        smooth = F.interpolate(coarse, (H, W), mode="bilinear", align_corners=False) * 255
        pixels = smooth.round().byte().view(batch, T, C, H, W).permute(0, 1, 3, 4, 2).contiguous()
        return pixels if self.preprocessing else self._predictor[0].input(pixels.numpy())

    def reference(self, clips: torch.Tensor) -> NDArray[np.float32]:
        """What `har-predict` answers to the same clips: probabilities [B,K]."""
        predictor = self._predictor[0]
        given = predictor.input(clips.numpy()) if self.preprocessing else clips
        with torch.inference_mode():
            result: NDArray[np.float32] = predictor.model(given).softmax(1).numpy()
        return result

"""A trained network as it is exported: preprocessing before it (if wanted), softmax after it.

Notes: `har.shards.transforms` computes a sampling grid for each clip; here one grid serves all
clips and is known beforehand, so it is a constant. The parity check of `har-export` and a test hold
that both give the same pixels.
"""

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
        self._predictor = (predictor,)  # in a tuple: it is not part of what is exported
        transform, source = predictor.transform, predictor.frame_size
        self.crop_size = transform.crop_size
        self.clip_shape = (transform.frames, *source, 3)
        maps = affine.center_crop_maps(
            1, source=source, resize=transform.resize_size, size=self.crop_size
        )
        # the blocks that `affine.sample_batch` averages before it samples
        self.block = int(affine.pool_factors(maps, source, self.crop_size)[0])
        theta = torch.from_numpy(maps)[:, 0]
        grid = F.affine_grid(theta, [1, 3, *self.crop_size], align_corners=False)
        self.register_buffer("grid", grid)  # [1,h,w,2]
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1, 1) for values in (transform.mean, transform.std)
        )
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.network(self.preprocess(clips) if self.preprocessing else clips)  # [B,K]
        return logits, logits.softmax(1)

    def preprocess(self, clips: torch.Tensor) -> torch.Tensor:
        """uint8 [B,T,H,W,3] -> float32 [B,3,T,h,w]."""
        B, (T, H, W, C) = clips.shape[0], self.clip_shape
        x = clips.permute(0, 1, 4, 2, 3).reshape(B, T * C, H, W).float()
        if self.block > 1:
            x = F.avg_pool2d(x, self.block)
        grid = self.grid.expand(B, -1, -1, -1)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        x = x.view(B, T, C, *self.crop_size).permute(0, 2, 1, 3, 4)  # [B,C,T,h,w]
        return x * self.scale - self.shift

    def example_clips(self, num_clips: int) -> torch.Tensor:
        """Clips as `forward` takes them, of noise that is smooth enough to look like pictures."""
        generator = torch.Generator().manual_seed(num_clips)
        T, H, W, C = self.clip_shape
        coarse = torch.rand(num_clips * T, C, 6, 8, generator=generator)
        smooth = F.interpolate(coarse, (H, W), mode="bilinear", align_corners=False) * 255
        pixels = smooth.round().byte().view(num_clips, T, C, H, W)
        pixels = pixels.permute(0, 1, 3, 4, 2).contiguous()  # [B,T,H,W,3]
        return pixels if self.preprocessing else self._predictor[0].preprocess(pixels.numpy())

    def reference(self, clips: torch.Tensor) -> NDArray[np.float32]:
        """What `har-predict` answers to the same clips: probabilities [B,K]."""
        predictor = self._predictor[0]
        x = predictor.preprocess(clips.numpy()) if self.preprocessing else clips
        with torch.inference_mode():
            return np.asarray(predictor.model(x).softmax(1), np.float32)

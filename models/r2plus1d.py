"""R(2+1)D-18 (paper S1.2, S2.2, figure 2, appendix): each 3-D convolution cut in two.

A t x d x d convolution becomes 1 x d x d into M middle channels, norm, ReLU, then t x 1 x 1.

What is odd about it:
- M decides the size. "matched" (default) chooses it for every convolution, so that each has the
  weights of the 3-D convolution it replaces: 33,370,839 parameters at 400 classes, against
  33,371,472 of ResNet3D-18. "torchvision" takes one M for both convolutions of a block, from the
  block's own input width, which loses 1.9 M parameters (31,505,325); its weights need it.
- The stem's M is 45 in the paper and in torchvision, although matching would give 83.
- The norm between the halves is not in the paper's text, but in the one it follows.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from . import weights as weight_files
from .resnet3d import VideoResNet
from .weights import WeightsError

STEM_MID = 45  # at width 64; scaled with the width otherwise
_MIDPLANES = ("matched", "torchvision")


class Conv2Plus1D(nn.Module):
    """1 x d x d convolution, norm, ReLU, t x 1 x 1 convolution; no norm after it.

    [B,cin,T,H,W] -> [B,cout,T/st,H/ss,W/ss]; kernel (t, d), stride (st, ss), padded to keep size.
    """

    def __init__(
        self, cin: int, mid: int, cout: int, kernel: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        super().__init__()
        (t, d), (st, ss) = kernel, stride
        self.spatial = nn.Conv3d(cin, mid, (1, d, d), (1, ss, ss), (0, d // 2, d // 2), bias=False)
        self.norm = nn.BatchNorm3d(mid)
        self.temporal = nn.Conv3d(mid, cout, (t, 1, 1), (st, 1, 1), (t // 2, 0, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.spatial(x)), inplace=True)  # [B,mid,T,H/ss,W/ss]
        return self.temporal(x)  # [B,cout,T/st,H/ss,W/ss]


class R2Plus1D(VideoResNet):
    """R(2+1)D-18 from scratch.

    midplanes: "matched" or "torchvision", see the head of this file.
    The other options are those of `har.models.resnet3d.ResNet3D`; "kinetics400" weights are
    torchvision's r2plus1d_18 and need midplanes="torchvision".
    """

    TORCHVISION_KEYS = (
        (r"stem\.conv\.spatial\.", "stem.0."),
        (r"stem\.conv\.norm\.", "stem.1."),
        (r"stem\.conv\.temporal\.", "stem.3."),
        (r"stem\.norm\.", "stem.4."),
        (r"group(\d)\.(\d)\.conv(\d)\.spatial\.", r"layer\1.\2.conv\3.0.0."),
        (r"group(\d)\.(\d)\.conv(\d)\.norm\.", r"layer\1.\2.conv\3.0.1."),
        (r"group(\d)\.(\d)\.conv(\d)\.temporal\.", r"layer\1.\2.conv\3.0.3."),
        (r"group(\d)\.(\d)\.norm(\d)\.", r"layer\1.\2.conv\3.1."),
        (r"group(\d)\.(\d)\.skip\.conv\.", r"layer\1.\2.downsample.0."),
        (r"group(\d)\.(\d)\.skip\.norm\.", r"layer\1.\2.downsample.1."),
        (r"fc\.", "fc."),
    )

    def __init__(
        self,
        num_classes: int,
        *,
        midplanes: str = "matched",
        temporal_stride: int = 2,
        stem_pool: bool = False,
        zero_init_residual: bool = False,
        dropout: float = 0.0,
        width: int = 64,
        weights: str | Path | None = weight_files.NONE,
    ) -> None:
        if midplanes not in _MIDPLANES:
            raise ValueError(f"midplanes must be one of {_MIDPLANES}, got {midplanes!r}")
        if weights == weight_files.KINETICS and (midplanes != "torchvision" or width != 64):
            raise WeightsError(
                f"the {weights} weights of r2plus1d need midplanes='torchvision' and width=64, got "
                f"midplanes={midplanes!r} and width={width}; set those, or start with weights="
                f"{weight_files.NONE!r}"
            )

        def make(cin: int, cout: int, stride: tuple[int, int], block: tuple[int, int]) -> nn.Module:
            mid = matched_midplanes(*(block if midplanes == "torchvision" else (cin, cout)))
            return Conv2Plus1D(cin, mid, cout, (3, 3), stride)

        stem_mid = max(1, round(STEM_MID * width / 64))
        super().__init__(
            num_classes,
            lambda: Conv2Plus1D(3, stem_mid, width, (3, 7), (1, 2)),
            make,
            width=width,
            temporal_stride=temporal_stride,
            stem_pool=stem_pool,
            dropout=dropout,
        )
        self.initialise(zero_init_residual)
        hint = "" if midplanes == "torchvision" else "torchvision's need midplanes='torchvision'"
        self.load_weights(weights, "r2plus1d_18", hint)


def matched_midplanes(cin: int, cout: int) -> int:
    """M so that 3x3 into M and 3x1x1 out of M have the weights of one 3x3x3 (paper S1.2).

    M = floor(27 cin cout / (9 cin + 3 cout)); rounding down costs at most 9 cin + 3 cout weights.
    """
    return max(1, 27 * cin * cout // (9 * cin + 3 * cout))

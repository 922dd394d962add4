"""R(2+1)D-18 (paper S1.2, S2.2, figure 2, appendix): each 3-D convolution factorized in two.

A t x d x d convolution becomes 1 x d x d into M middle channels, norm, ReLU, then t x 1 x 1.

Notes:
- M decides the size. "matched" (default) chooses it for every convolution, so that each has the
  weights of the 3-D convolution it replaces: 33,370,839 parameters at 400 classes, against
  33,371,472 of ResNet3D-18. "torchvision" takes one M for both convolutions of a block, from the
  block's own input width, which loses 1.9 M parameters (31,505,325); its weights need it.
- The stem's M is 45 in the paper and in torchvision, although matching would give 83.
- The norm between the halves is not in the paper's text, but in the one it follows.
"""

from typing import Any

from torch import nn

from .video_resnet import ConvBuilder, VideoResNet
from .weights import KINETICS_OPTIONS, check_kinetics_options

STEM_MIDPLANES = 45  # at width 64; scaled with the width otherwise
_MIDPLANES = ("matched", "torchvision")


class Conv2Plus1D(nn.Sequential):
    """1x3x3 convolution, norm, ReLU, 3x1x1 convolution; no norm after it.

    [B,in,T,H,W] -> [B,out,T/st,H/ss,W/ss]; stride (st, ss), padded to keep the size.
    """

    def __init__(
        self, in_planes: int, out_planes: int, midplanes: int, stride: tuple[int, int]
    ) -> None:
        st, ss = stride
        super().__init__(
            nn.Conv3d(in_planes, midplanes, (1, 3, 3), (1, ss, ss), (0, 1, 1), bias=False),
            nn.BatchNorm3d(midplanes),
            nn.ReLU(inplace=True),
            nn.Conv3d(midplanes, out_planes, (3, 1, 1), (st, 1, 1), (1, 0, 0), bias=False),
        )


class R2Plus1D(VideoResNet):
    """R(2+1)D-18 from scratch.

    midplanes: "matched" or "torchvision", see the head of this file. options: those of
    `VideoResNet`; "kinetics400" weights are torchvision's r2plus1d_18 and need
    midplanes="torchvision" (which `har-train` sets for them).
    """

    model_name = "r2plus1d"

    def __init__(self, num_classes: int, *, midplanes: str = "matched", **options: Any) -> None:
        if midplanes not in _MIDPLANES:
            raise ValueError(f"midplanes must be one of {_MIDPLANES}, got {midplanes!r}")
        needed = {"midplanes": "torchvision", **KINETICS_OPTIONS}
        given = {"midplanes": midplanes, **options}
        hint = check_kinetics_options(self.model_name, given, needed)
        convs = [conv_builder(match_each=midplanes == "matched")] * 4
        super().__init__(num_classes, r2plus1d_stem, convs, "r2plus1d_18", hint, **options)


def r2plus1d_stem(planes: int, in_planes: int = 3) -> nn.Sequential:
    """1x7x7 and 3x1x1, norm and ReLU after each: [B,3,T,H,W] -> [B,planes,T,H/2,W/2]."""
    midplanes = max(1, round(STEM_MIDPLANES * planes / 64))
    return nn.Sequential(
        nn.Conv3d(in_planes, midplanes, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        nn.BatchNorm3d(midplanes),
        nn.ReLU(inplace=True),
        nn.Conv3d(midplanes, planes, (3, 1, 1), 1, (1, 0, 0), bias=False),
        nn.BatchNorm3d(planes),
        nn.ReLU(inplace=True),
    )


def conv_builder(*, match_each: bool) -> ConvBuilder:
    """match_each: M from the convolution's own channels, or else from the block's."""

    def build(
        in_planes: int, out_planes: int, stride: tuple[int, int], block: tuple[int, int]
    ) -> Conv2Plus1D:
        midplanes = matched_midplanes(*((in_planes, out_planes) if match_each else block))
        return Conv2Plus1D(in_planes, out_planes, midplanes, stride)

    return build


def matched_midplanes(in_planes: int, out_planes: int) -> int:
    """M so that 3x3 into M and 3x1x1 out of M have the weights of one 3x3x3 (paper S1.2).

    M = floor(27 in out / (9 in + 3 out)); rounding down costs at most 9 in + 3 out weights.
    """
    return max(1, 27 * in_planes * out_planes // (9 * in_planes + 3 * out_planes))

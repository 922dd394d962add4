"""R3D (paper S1.4, S3.2): torchvision's pretrained network with a new classifier.

Notes:
- The default asks for Kinetics weights and fails where they cannot be had; random weights come
  only from `weights="none"`. Fine-tuning from noise by accident costs days.
- The paper says in one place that R3D and R(2+1)D share an architecture, so `backbone` may also be
  r2plus1d_18, or mc3_18.
- Built from our modules, which equal torchvision's (tests/models/test_resnets.py): importing
  torchvision takes 1.4 s of CPU time, as much as torch itself.
"""

from pathlib import Path

from torch import nn

from .r2plus1d import conv_builder, r2plus1d_stem
from .video_resnet import ConvBuilder, StemBuilder, VideoResNet, basic_stem, conv3d_simple
from .weights import KINETICS, NONE


def conv3d_no_temporal(
    in_planes: int, out_planes: int, stride: tuple[int, int], block: tuple[int, int]
) -> nn.Conv3d:
    """1x3x3, padded to keep the size."""
    st, ss = stride
    return nn.Conv3d(in_planes, out_planes, (1, 3, 3), (st, ss, ss), (0, 1, 1), bias=False)


# torchvision's builder -> stem, convolutions of layers 1-4, temporal stride
_ARCHITECTURES: dict[str, tuple[StemBuilder, list[ConvBuilder], int]] = {
    "r3d_18": (basic_stem, [conv3d_simple] * 4, 2),
    "r2plus1d_18": (r2plus1d_stem, [conv_builder(match_each=False)] * 4, 2),
    "mc3_18": (basic_stem, [conv3d_simple, *[conv3d_no_temporal] * 3], 1),
}
BACKBONES = tuple(_ARCHITECTURES)


class R3D(VideoResNet):
    """torchvision's video ResNet-18, fine-tuned end to end or frozen up to a layer.

    backbone: "r3d_18", "r2plus1d_18" or "mc3_18". The other options mean what they mean
    in `VideoResNet`, whose width, strides and pool are fixed here.
    """

    model_name = "r3d"

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "r3d_18",
        weights: str | Path | None = KINETICS,
        freeze: str | None = NONE,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        input: str = "rgb",
    ) -> None:
        if backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
        stem, convs, temporal_stride = _ARCHITECTURES[backbone]
        super().__init__(
            num_classes, stem, convs, backbone, "", temporal_stride=temporal_stride,
            dropout=dropout, drop_path=drop_path, input=input, weights=weights, freeze=freeze,
        )  # fmt: skip

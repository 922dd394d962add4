"""ResNet3D-18 (paper S1.1, S2.1, figure 1)."""

from __future__ import annotations

from pathlib import Path

from . import weights as weight_files
from .video_resnet import VideoResNet, basic_stem, conv3d_simple


class ResNet3D(VideoResNet):
    """ResNet3D-18 from scratch; 33,371,472 parameters at 400 classes and width 64.

    temporal_stride: of layers 2-4, 2 or 1. stem_pool: max pool after the stem.
    zero_init_residual: every block starts as the identity. dropout: before the classifier.
    drop_path: stochastic depth, of the last block (see `video_resnet`). input: "rgb", "diff" or
    "rgb+diff", what of the frames the first layer reads (see `frame_input`).
    width: channels of the stem and layer 1; the other layers have 2, 4 and 8 times as many.
    weights: "none", "kinetics400" (torchvision's r3d_18, which needs width, temporal_stride and
    stem_pool as they are here), a file or a run folder; the classifier stays new. freeze: "none",
    or the last part that stays fixed: "stem", "layer1" ... "layer4".
    """

    def __init__(
        self,
        num_classes: int,
        *,
        temporal_stride: int = 2,
        stem_pool: bool = False,
        zero_init_residual: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        input: str = "rgb",
        width: int = 64,
        weights: str | Path | None = weight_files.NONE,
        freeze: str | None = weight_files.NONE,
    ) -> None:
        weight_files.check_kinetics_options(
            weights, "resnet3d", width=(width, 64), temporal_stride=(temporal_stride, 2),
            stem_pool=(stem_pool, False),
        )  # fmt: skip
        super().__init__(
            num_classes,
            basic_stem,
            [conv3d_simple] * 4,
            width=width,
            temporal_stride=temporal_stride,
            stem_pool=stem_pool,
            zero_init_residual=zero_init_residual,
            dropout=dropout,
            drop_path=drop_path,
            input=input,
        )
        hint = "" if width == 64 else "kinetics400 needs width=64"
        self.load_weights(weights, "r3d_18", "resnet3d", hint)
        self.freeze(freeze)

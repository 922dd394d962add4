"""ResNet3D-18 (paper S1.1, S2.1, figure 1)."""

from typing import Any

from .video_resnet import VideoResNet, basic_stem, conv3d_simple
from .weights import KINETICS_OPTIONS, check_kinetics_options


class ResNet3D(VideoResNet):
    """ResNet3D-18 from scratch; 33,371,472 parameters at 400 classes and width 64.

    options: those of `VideoResNet`; "kinetics400" weights are torchvision's r3d_18.
    """

    model_name = "resnet3d"

    def __init__(self, num_classes: int, **options: Any) -> None:
        hint = check_kinetics_options(self.model_name, options, KINETICS_OPTIONS)
        super().__init__(num_classes, basic_stem, [conv3d_simple] * 4, "r3d_18", hint, **options)

"""The four networks, small."""

from typing import Any

from torch import nn

from har import models

SMALL: dict[str, dict[str, Any]] = {
    "resnet3d": {"width": 8},
    "r2plus1d": {"width": 8},
    "convlstm": {"hidden": (8, 12), "stem_channels": 8},
    "r3d": {"weights": "none", "backbone": "mc3_18"},  # the smallest of torchvision's three
}


def small_model(name: str, classes: int = 5, seed: int = 0, **options: Any) -> nn.Module:
    return models.build(name, classes, seed=seed, **{**SMALL[name], **options})

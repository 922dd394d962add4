"""R3D (paper S1.4, S3.2): torchvision's pretrained network with a new classifier.

What is odd about it:
- The default asks for Kinetics weights and fails where they cannot be had; random weights come
  only from `weights="none"`. Fine-tuning from noise by accident costs days.
- The paper says in one place that R3D and R(2+1)D share an architecture (CHECKLIST X1), so
  `backbone` may also be r2plus1d_18, or mc3_18.
- The layers keep torchvision's names, so the state dict is torchvision's, classifier aside.
- A frozen group stays in eval mode under `train()`: a batch norm in training mode would go on
  moving its running mean and variance although its weights stand still.
"""

from __future__ import annotations

from pathlib import Path

import torchvision.models.video as torchvision_video
from torch import Tensor, nn

from ..shards.transforms.clip_transform import ClipTransform
from . import weights as weight_files
from .weights import WeightsInfo

BACKBONES = ("r3d_18", "r2plus1d_18", "mc3_18")
GROUPS = ("stem", "layer1", "layer2", "layer3", "layer4")


class R3D(nn.Module):
    """torchvision's video ResNet-18, fine-tuned end to end or frozen up to a group.

    backbone: "r3d_18", "r2plus1d_18" or "mc3_18".
    weights: "kinetics400" (torchvision's cache, fetched once), a path, or "none".
    freeze: "none", or the last group that stays fixed: "stem", "layer1" ... "layer4".
    dropout: before the classifier.
    `weights_info` says which file was read and its sha256; None for random weights.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "r3d_18",
        weights: str | Path | None = weight_files.KINETICS,
        freeze: str | None = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        frozen = _frozen_groups(freeze)
        obtained = weight_files.obtain(weights, backbone)
        self.transform = ClipTransform()
        self.weights_info: WeightsInfo | None = None
        network = getattr(torchvision_video, backbone)(weights=None, num_classes=num_classes)
        self.stem: nn.Module = network.stem
        self.layer1: nn.Module = network.layer1
        self.layer2: nn.Module = network.layer2
        self.layer3: nn.Module = network.layer3
        self.layer4: nn.Module = network.layer4
        self.dropout = nn.Dropout(dropout)
        self.fc = network.fc  # torchvision already draws it from N(0, 0.01)
        if obtained is not None:
            state, self.weights_info = obtained
            weight_files.load_into(self, state, f"the weights in {self.weights_info.path}")
        self._frozen = frozen
        for group in frozen:
            self.get_submodule(group).requires_grad_(False)
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Float [B,3,T,H,W] -> logits [B,K]; any T, H, W >= 1."""
        x = self.stem(x)  # [B,64,T,H/2,W/2]
        x = self.layer1(x)
        x = self.layer2(x)  # [B,128,T/2,H/4,W/4]
        x = self.layer3(x)  # [B,256,T/4,H/8,W/8]
        x = self.layer4(x)  # [B,512,T/8,H/16,W/16]
        x = x.mean((2, 3, 4))  # [B,512]
        return self.fc(self.dropout(x))  # [B,K]

    def train(self, mode: bool = True) -> R3D:
        """As nn.Module.train, but frozen groups stay in eval mode."""
        super().train(mode)
        for group in self._frozen:
            self.get_submodule(group).eval()
        return self


def _frozen_groups(freeze: str | None) -> tuple[str, ...]:
    if freeze is None or freeze == "none":
        return ()
    if freeze not in GROUPS:
        raise ValueError(f"freeze must be none or one of {', '.join(GROUPS)}, got {freeze!r}")
    return GROUPS[: GROUPS.index(freeze) + 1]

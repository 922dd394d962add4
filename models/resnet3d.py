"""ResNet3D-18 (paper S1.1, S2.1, figure 1), and the residual trunk it shares with R(2+1)D-18.

What is odd about it:
- The paper's text and figure disagree on the strides (CHECKLIST X4); `temporal_stride` allows both
  readings. 2 halves time in groups 2-4 (torchvision, 40.7 GMAC at 16x112x112), 1 keeps it (82.2).
- `stem_pool` follows the stem with a 3x3x3 max pool (6.4 GMAC); the paper mentions none.
- `zero_init_residual` zeroes the second norm of each block. torchvision's option of that name only
  touches bottleneck blocks and so does nothing to its 18-layer video networks.
- Names are the paper's (group, skip), not torchvision's; `TORCHVISION_KEYS` is the map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..shards.transforms.clip_transform import ClipTransform
from . import weights as weight_files
from .weights import WeightsError, WeightsInfo

# A convolution of a block: (in, out, stride (t, s), (in, out) of the whole block) -> module.
ConvMaker = Callable[[int, int, tuple[int, int], tuple[int, int]], nn.Module]


class BasicBlock(nn.Module):
    """relu(norm2(conv2(relu(norm1(conv1 x)))) + skip x); two convolutions (CHECKLIST X2, X3).

    [B,cin,T,H,W] -> [B,cout,T/st,H/ss,W/ss] for stride (st, ss). The skip has a convolution only
    where the shape changes, as in figure 1.
    """

    def __init__(self, make: ConvMaker, cin: int, cout: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = make(cin, cout, stride, (cin, cout))
        self.norm1 = nn.BatchNorm3d(cout)
        self.conv2 = make(cout, cout, (1, 1), (cin, cout))
        self.norm2 = nn.BatchNorm3d(cout)
        self.skip = nn.Sequential()
        if cin != cout or stride != (1, 1):
            st, ss = stride
            self.skip.add_module("conv", nn.Conv3d(cin, cout, 1, (st, ss, ss), bias=False))
            self.skip.add_module("norm", nn.BatchNorm3d(cout))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        y += self.skip(x)
        return F.relu(y, inplace=True)


class Stem(nn.Module):
    """Convolution, norm, ReLU, and a max pool if asked: [B,3,T,H,W] -> [B,width,T,H/2,W/2]."""

    def __init__(self, conv: nn.Module, width: int, pool: nn.Module | None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm3d(width)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        return x if self.pool is None else self.pool(x)


class VideoResNet(nn.Module):
    """Stem, four groups of two basic blocks, global average pool, dropout, classifier.

    What differs between the two networks of the paper is the stem's convolution and `make`.
    """

    TORCHVISION_KEYS: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(
        self,
        num_classes: int,
        make_stem: Callable[[], nn.Module],
        make: ConvMaker,
        *,
        width: int,
        temporal_stride: int,
        stem_pool: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        _check(temporal_stride, width, dropout)
        self.transform = ClipTransform()
        self.weights_info: WeightsInfo | None = None
        ts = temporal_stride
        pool = nn.MaxPool3d(3, (ts, 2, 2), 1) if stem_pool else None
        self.stem = Stem(make_stem(), width, pool)
        self.group1 = _group(make, width, width, (1, 1))
        self.group2 = _group(make, width, 2 * width, (ts, 2))
        self.group3 = _group(make, 2 * width, 4 * width, (ts, 2))
        self.group4 = _group(make, 4 * width, 8 * width, (ts, 2))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Float [B,3,T,H,W] -> logits [B,K]; any T, H, W >= 1."""
        x = self.stem(x)  # [B,w,T,H/2,W/2]
        x = self.group1(x)
        x = self.group2(x)  # [B,2w,T/2,H/4,W/4]
        x = self.group3(x)  # [B,4w,T/4,H/8,W/8]
        x = self.group4(x)  # [B,8w,T/8,H/16,W/16]
        x = x.mean((2, 3, 4))  # [B,8w]
        return self.fc(self.dropout(x))  # [B,K]

    def initialise(self, zero_init_residual: bool) -> None:
        """He et al. fan-out for convolutions, norms 1 and 0, classifier N(0, 0.01)."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock):
                    nn.init.zeros_(module.norm2.weight)

    def load_weights(self, weights: str | Path | None, builder: str, hint: str = "") -> None:
        """Take everything but the classifier from a file; its sha256 goes to `weights_info`.

        The file may use torchvision's names or ours. See `har.models.weights.obtain` for `weights`.
        """
        obtained = weight_files.obtain(weights, builder)
        if obtained is None:
            return
        state, info = obtained
        if any(key.startswith("layer1.") for key in state):
            state = from_torchvision(self, state)
        weight_files.load_into(self, state, f"the weights in {info.path}", hint)
        self.weights_info = info


class ResNet3D(VideoResNet):
    """ResNet3D-18 from scratch; 33,371,472 parameters at 400 classes and width 64.

    temporal_stride: of groups 2-4, 2 or 1. stem_pool: max pool after the stem.
    zero_init_residual: every block starts as the identity. dropout: before the classifier.
    width: channels of the stem and group 1; the other groups have 2, 4 and 8 times as many.
    weights: "none", "kinetics400" (torchvision's r3d_18) or a path; the classifier stays new.
    """

    TORCHVISION_KEYS = (
        (r"stem\.conv\.", "stem.0."),
        (r"stem\.norm\.", "stem.1."),
        (r"group(\d)\.(\d)\.conv(\d)\.", r"layer\1.\2.conv\3.0."),
        (r"group(\d)\.(\d)\.norm(\d)\.", r"layer\1.\2.conv\3.1."),
        (r"group(\d)\.(\d)\.skip\.conv\.", r"layer\1.\2.downsample.0."),
        (r"group(\d)\.(\d)\.skip\.norm\.", r"layer\1.\2.downsample.1."),
        (r"fc\.", "fc."),
    )

    def __init__(
        self,
        num_classes: int,
        *,
        temporal_stride: int = 2,
        stem_pool: bool = False,
        zero_init_residual: bool = False,
        dropout: float = 0.0,
        width: int = 64,
        weights: str | Path | None = weight_files.NONE,
    ) -> None:
        super().__init__(
            num_classes,
            lambda: nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            _full_conv,
            width=width,
            temporal_stride=temporal_stride,
            stem_pool=stem_pool,
            dropout=dropout,
        )
        self.initialise(zero_init_residual)
        self.load_weights(weights, "r3d_18", "" if width == 64 else "kinetics400 needs width=64")


def torchvision_key(network: VideoResNet, key: str) -> str:
    """Our name of a parameter or buffer -> torchvision's, by the network's TORCHVISION_KEYS."""
    for pattern, theirs in network.TORCHVISION_KEYS:
        renamed, hits = re.subn(f"^{pattern}", theirs, key)
        if hits:
            return renamed
    raise KeyError(key)


def to_torchvision(network: VideoResNet) -> dict[str, Tensor]:
    """The network's state under torchvision's names, ready for its `load_state_dict`."""
    return {torchvision_key(network, key): v for key, v in network.state_dict().items()}


def from_torchvision(network: VideoResNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's keys to ours; a key the map does not know keeps its name."""
    ours = {torchvision_key(network, key): key for key in network.state_dict()}
    return {ours.get(key, key): value for key, value in state.items()}


def load_torchvision_state(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load all of torchvision's `r3d_18` / `r2plus1d_18` state, the classifier included.

    Raises WeightsError naming the first keys that do not fit, and leaves the model as it was;
    TypeError for a model that has no key map.
    """
    if not isinstance(model, VideoResNet):
        raise TypeError(
            f"only resnet3d and r2plus1d take a torchvision state, not {type(model).__name__}"
        )
    renamed = from_torchvision(model, state_dict)
    weight_files.refuse_misfits(model.state_dict(), renamed, "the torchvision weights")
    model.load_state_dict(renamed)


def _full_conv(cin: int, cout: int, stride: tuple[int, int], block: tuple[int, int]) -> nn.Module:
    """3x3x3, padded; `block` matters to factored convolutions only."""
    st, ss = stride
    return nn.Conv3d(cin, cout, 3, (st, ss, ss), 1, bias=False)


def _group(make: ConvMaker, cin: int, cout: int, stride: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(BasicBlock(make, cin, cout, stride), BasicBlock(make, cout, cout, (1, 1)))


def _check(temporal_stride: int, width: int, dropout: float) -> None:
    if temporal_stride not in (1, 2):
        raise ValueError(f"temporal_stride must be 1 or 2, got {temporal_stride}")
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")


__all__ = [
    "BasicBlock",
    "ConvMaker",
    "ResNet3D",
    "Stem",
    "VideoResNet",
    "WeightsError",
    "from_torchvision",
    "load_torchvision_state",
    "to_torchvision",
    "torchvision_key",
]

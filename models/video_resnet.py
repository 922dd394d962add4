"""The residual network behind ResNet3D, R(2+1)D and R3D, with torchvision's module names.

Notes:
- Names and order of all parameters are those of torchvision's `VideoResNet`, so that its state
  dicts (`r3d_18`, `r2plus1d_18`, `mc3_18`) load as they are.
- `temporal_stride` and `stem_pool` are not in torchvision: the paper's text and figure disagree on
  the strides. 2 halves time in layers 2-4 (torchvision, 40.7 GMAC at 16x112x112), 1 keeps it
  (82.2). `stem_pool` is a 3x3x3 max pool after the stem (6.4 GMAC); the paper mentions none.
- `zero_init_residual` zeroes the second norm of each block. torchvision's option of that name only
  touches bottleneck blocks and so does nothing to its 18-layer video networks.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from ..shards.transforms.clip_transform import ClipTransform
from .frame_input import CHANNELS, check_input, select_input
from .weights import NONE, load_weights, parts_up_to

LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")  # what `freeze` may name
# (in_planes, out_planes, stride (t, s), (in_planes, out_planes) of the whole block) -> module
ConvBuilder = Callable[[int, int, tuple[int, int], tuple[int, int]], nn.Module]
StemBuilder = Callable[[int, int], nn.Sequential]  # from its numbers of output and input channels


class BasicBlock(nn.Module):
    """relu(conv2(relu(conv1 x)) + downsample x); each convolution has its norm with it.

    [B,in,T,H,W] -> [B,out,T/st,H/ss,W/ss] for stride (st, ss). The shortcut has a convolution only
    where the shape changes, as in figure 1 of the paper. drop_path: probability that training
    leaves out the convolutions of a clip.
    """

    def __init__(
        self, conv: ConvBuilder, in_planes: int, planes: int, stride: tuple[int, int]
    ) -> None:
        super().__init__()
        self.drop_path = 0.0
        block = (in_planes, planes)
        self.conv1 = nn.Sequential(
            conv(in_planes, planes, stride, block), nn.BatchNorm3d(planes), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(conv(planes, planes, (1, 1), block), nn.BatchNorm3d(planes))
        self.downsample: nn.Sequential | None = None
        if in_planes != planes or stride != (1, 1):
            st, ss = stride
            self.downsample = nn.Sequential(
                nn.Conv3d(in_planes, planes, 1, (st, ss, ss), bias=False), nn.BatchNorm3d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = drop_clips(self.conv2(self.conv1(x)), self.drop_path if self.training else 0.0)
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class VideoResNet(nn.Module):
    """Stem, four layers of two basic blocks, global average pool, dropout, classifier.

    stem, convs: make the stem and the convolutions of each layer. builder: torchvision's name of
    the network whose weights "kinetics400" means; hint: what other weights of that may need.

    temporal_stride: of layers 2-4, 2 or 1. stem_pool: max pool after the stem. zero_init_residual:
    every block starts as the identity. dropout: before the classifier. drop_path: stochastic depth
    (Huang et al. 2016, arXiv 1603.09382) of the last block; the l-th of L has drop_path l / L.
    input: "rgb", "diff" or "rgb+diff", what of the frames the first layer reads (see
    `frame_input`). width: channels of the stem and layer 1; the other layers have 2, 4 and 8 times
    as many. weights: "none", "kinetics400" (torchvision's cache, fetched once), a file or a run
    folder; the classifier stays new. freeze: "none", or the last part that stays fixed: "stem",
    "layer1" ... "layer4".

    transform: the input that the network is made for. weights_info: the file of weights that was
    loaded; None for random weights. A frozen layer stays in eval mode under `train()`: a batch norm
    in training mode would go on moving its running mean and variance although its weights stand
    still.
    """

    model_name: str  # of the subclass, for messages

    def __init__(
        self,
        num_classes: int,
        stem: StemBuilder,
        convs: Sequence[ConvBuilder],
        builder: str,
        hint: str,
        *,
        temporal_stride: int = 2,
        stem_pool: bool = False,
        zero_init_residual: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        input: str = "rgb",
        width: int = 64,
        weights: str | Path | None = NONE,
        freeze: str | None = NONE,
    ) -> None:
        super().__init__()
        check_input(input)
        if temporal_stride not in (1, 2):
            raise ValueError(f"temporal_stride must be 1 or 2, got {temporal_stride}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        for name, value in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
        self.transform = ClipTransform()
        stride = (temporal_stride, 2)
        self.input = input
        self.stem = stem(width, CHANNELS[input])
        if stem_pool:
            self.stem.append(nn.MaxPool3d(3, (temporal_stride, 2, 2), 1))
        self.layer1 = _make_layer(convs[0], width, width, (1, 1))
        self.layer2 = _make_layer(convs[1], width, 2 * width, stride)
        self.layer3 = _make_layer(convs[2], 2 * width, 4 * width, stride)
        self.layer4 = _make_layer(convs[3], 4 * width, 8 * width, stride)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width, num_classes)
        blocks = [module for module in self.modules() if isinstance(module, BasicBlock)]
        for number, block in enumerate(blocks, 1):
            block.drop_path = drop_path * number / len(blocks)
        self._init_weights(zero_init_residual)
        if input == "rgb+diff":
            hint = "weights of RGB need the option input=rgb (or diff)"
        self.weights_info = load_weights(
            self, weights, builder=builder, model_name=self.model_name, hint=hint
        )
        self._frozen = parts_up_to(freeze, LAYERS)
        for part in self._frozen:
            self.get_submodule(part).requires_grad_(False)
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Float [B,3,T,H,W] -> logits [B,K]; any T, H, W >= 1."""
        x = self.stem(select_input(x, self.input))  # [B,w,T,H/2,W/2]
        x = self.layer1(x)
        x = self.layer2(x)  # [B,2w,T/2,H/4,W/4]
        x = self.layer3(x)  # [B,4w,T/4,H/8,W/8]
        x = self.layer4(x)  # [B,8w,T/8,H/16,W/16]
        x = x.mean((2, 3, 4))  # [B,8w]
        return self.fc(self.dropout(x))  # [B,K]

    def _init_weights(self, zero_init_residual: bool) -> None:
        """He et al. fan-out for convolutions, norms 1 and 0, classifier N(0, 0.01)."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock):
                    nn.init.zeros_(module.conv2.get_parameter("1.weight"))

    def train(self, mode: bool = True) -> Self:
        """As nn.Module.train, but frozen layers stay in eval mode."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self


def drop_clips(x: Tensor, probability: float) -> Tensor:
    """Set random clips of a batch [B,...] to 0 and scale the others, so that the mean stays.

    torchvision.ops.stochastic_depth in mode "row"; importing that takes 1.4 s (see `r3d`).
    """
    if not probability:
        return x
    kept = x.new_empty((len(x), *[1] * (x.dim() - 1))).bernoulli_(1 - probability)
    return x * kept.div_(1 - probability)


def basic_stem(planes: int, in_planes: int = 3) -> nn.Sequential:
    """3x7x7 convolution, norm, ReLU: [B,3,T,H,W] -> [B,planes,T,H/2,W/2]."""
    return nn.Sequential(
        nn.Conv3d(in_planes, planes, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
        nn.BatchNorm3d(planes),
        nn.ReLU(inplace=True),
    )


def conv3d_simple(
    in_planes: int, out_planes: int, stride: tuple[int, int], block: tuple[int, int]
) -> nn.Conv3d:
    """3x3x3, padded to keep the size; `block` matters to factorized convolutions only."""
    st, ss = stride
    return nn.Conv3d(in_planes, out_planes, 3, (st, ss, ss), 1, bias=False)


def _make_layer(
    conv: ConvBuilder, in_planes: int, planes: int, stride: tuple[int, int]
) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(conv, in_planes, planes, stride), BasicBlock(conv, planes, planes, (1, 1))
    )

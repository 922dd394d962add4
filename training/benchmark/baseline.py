"""The baselines: plain models that our networks are timed and checked against.

torchvision's modules where it has them; of a model of the user the same class, so that what is
compared is the training step around it. The ConvLSTM is the one everyone copies: cell by cell,
concatenate input and state, convolve, split; the same architecture as ours and, through
`naive_state_dict`, the same weights, differentiated by autograd alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import video

from ... import models
from ...models.convlstm import ConvLSTM

TORCHVISION = {"resnet3d": "r3d_18", "r2plus1d": "r2plus1d_18", "r3d": "r3d_18"}


def title(model: str) -> str:
    """The baseline of a model, in words."""
    if models.is_custom(model):
        return f"{model} itself"
    return f"torchvision {TORCHVISION[model]}" if model in TORCHVISION else "naive ConvLSTM"


def build(model: str, num_classes: int) -> nn.Module:
    """The baseline of a model, random weights, float32, contiguous memory."""
    if model in TORCHVISION:
        return video.__dict__[TORCHVISION[model]](num_classes=num_classes)
    if models.is_custom(model):
        return models.build(model, num_classes, seed=0)
    convlstm = models.build(model, num_classes, seed=0)
    assert isinstance(convlstm, ConvLSTM)
    return NaiveConvLSTM(convlstm)


class NaiveConvLSTM(nn.Module):
    """Takes [B,3,T,H,W], returns logits [B,K]; no peepholes."""

    def __init__(self, model: ConvLSTM) -> None:
        super().__init__()
        layers: list[Any] = list(model.layers)
        first = layers[0].plan
        width, _, _, side, _ = layers[0].stem_weight.shape
        self.stem = nn.Conv2d(3, width, side, first.stride, side // 2)
        self.cells = nn.ModuleList()
        for layer in layers:
            cin, k = layer.input_weight.shape[1], layer.input_weight.shape[-1]
            self.cells.append(nn.Conv2d(cin + layer.hidden, 4 * layer.hidden, k, padding=k // 2))
        self.norm = nn.BatchNorm3d(layers[-1].hidden)
        self.fc = nn.Linear(self.norm.num_features, model.fc.out_features)
        self.stem_pool: str = first.stem_pool
        self.pools: list[str] = [layer.plan.pool for layer in layers]
        self.return_sequences = model.return_sequences
        self.to(model.fc.weight.dtype).load_state_dict(naive_state_dict(model, model.state_dict()))

    def forward(self, x: Tensor) -> Tensor:
        B, T = x.shape[0], x.shape[2]
        x = x.transpose(1, 2)  # [B,T,3,H,W]
        x = F.relu(self.stem(x.flatten(0, 1)), inplace=True).unflatten(0, (B, T))
        x = _pool(x, self.stem_pool)  # [B,T,S,h,w]
        for conv, pool in zip(self.cells, self.pools, strict=True):
            x = _pool(_layer(conv, x), pool)  # [B,T,C,h,w]
        x = x if self.return_sequences else x[:, -1:]
        return self.fc(self.norm(x.transpose(1, 2).contiguous()).mean((2, 3, 4)))


def naive_state_dict(model: ConvLSTM, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters (or gradients), by name, as the naive stack names and shapes them."""
    named = {
        "stem.weight": values["layers.0.stem_weight"].squeeze(2),
        "stem.bias": values["layers.0.stem_bias"],
        **{key: value for key, value in values.items() if key.split(".")[0] in ("norm", "fc")},
    }
    for n in range(len(model.layers)):
        both = [values[f"layers.{n}.{what}_weight"] for what in ("input", "state")]
        named[f"cells.{n}.weight"] = torch.cat(both, 1).squeeze(2)
        named[f"cells.{n}.bias"] = values[f"layers.{n}.bias"]
    return named


def _pool(x: Tensor, kind: str) -> Tensor:
    """[B,T,C,h,w] -> [B,T,C,h/2,w/2], or as it was."""
    if kind == "none":
        return x
    down = F.max_pool2d if kind == "max" else F.avg_pool2d
    return down(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


def _layer(conv: Any, x: Tensor) -> Tensor:
    """A layer over all steps, x [B,T,Cin,h,w] -> h of every step [B,T,C,h,w]."""
    h = x.new_zeros(x.shape[0], conv.out_channels // 4, *x.shape[-2:])
    c = h
    steps = []
    for t in range(x.shape[1]):
        z = conv(torch.cat([x[:, t], h], 1))
        i, f, o, g = torch.split(z, h.shape[1], 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        steps.append(h)
    return torch.stack(steps, 1)

"""ConvLSTM (paper S1.3, S2.3, figures 3-5): stacked convolutional LSTM layers over a clip.

What is odd about it:
- The paper had to cut resolution, frames and layers because the network ran out of memory. Here
  `memory="lean"` recomputes gates in the backward pass (`models.recurrence`), exactly.
- A strided convolution, the stem, comes first and each layer but the first reads the layer below
  through a 2x2 pool: the paper does not say how it went from pixels to states.
- The last step of the last layer goes to the head (figure 4). `return_sequences` is figure 3: the
  head sees the mean of all steps, and `features` returns every step.
- Peephole weights are one per channel. The original has one per cell of the map, which fixes the
  image size; ours takes any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.recurrence import Recurrence
from models.spec import InputSpec

State = tuple[tuple[Tensor, Tensor], ...]  # (h, c) of each layer, each [B,C,H,W]
_MEMORY = ("lean", "fast")
_POOLING = ("max", "avg", "none")


class ConvLSTMLayer(nn.Module):
    """One layer over a whole clip: x [T,B,Cin,H,W], state -> (h of all steps, (h, c) at the end).

    The forget gate's bias starts at `forget_bias`, the others at 0.
    """

    def __init__(
        self,
        cin: int,
        hidden: int,
        kernel: int,
        *,
        forget_bias: float,
        peephole: bool,
        keep_gates: bool,
        chunk: int,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.keep_gates = keep_gates
        self.chunk = chunk
        self.input_weight = nn.Parameter(torch.empty(4 * hidden, cin, kernel, kernel))
        self.state_weight = nn.Parameter(torch.empty(4 * hidden, hidden, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.peep = nn.Parameter(torch.zeros(3, hidden, 1, 1)) if peephole else None
        self._initialise(forget_bias)

    def _initialise(self, forget_bias: float) -> None:
        """Glorot and Bengio's variance, which suits sigmoid and tanh: both are linear near 0.

        Fan-out counts one gate (hidden k k), since the four gates do not add up.
        """
        for weight in (self.input_weight, self.state_weight):
            taps = weight[0, 0].numel()
            std = math.sqrt(2 / (taps * (weight.shape[1] + self.hidden)))
            nn.init.normal_(weight, 0, std)
        nn.init.constant_(self.bias[self.hidden : 2 * self.hidden], forget_bias)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        weights: list[Tensor] = [self.input_weight, self.bias, self.state_weight]
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, *weights = (tensor.to(dtype) for tensor in (x, *weights))
        T, B, _, H, W = x.shape
        h0 = None if state is None else state[0].to(x.dtype)
        if state is None:
            wide = torch.promote_types(x.dtype, torch.float32)
            c0 = torch.zeros(B, self.hidden, H, W, dtype=wide, device=x.device)
        else:
            c0 = state[1]
        chunk = T if self.keep_gates else min(self.chunk, T)
        hs, c = Recurrence.apply(x, h0, c0, *weights, self.peep, chunk, self.keep_gates)
        return hs, (hs[-1], c)


class ConvLSTM(nn.Module):
    """Strided stem, stacked ConvLSTM layers, global average pool, classifier.

    hidden: channels of each layer; its length is the depth. kernel: odd, of both convolutions.
    stem_channels, stem_kernel, stem_stride: the convolution before the first layer.
    pooling: "max", "avg" or "none", 2x2 between layers. forget_bias: initial forget-gate bias.
    peephole: gates see the cell. return_sequences: classify the mean of all steps.
    memory: "lean" or "fast". chunk: steps whose gates are recomputed at once when lean.
    dropout: before the classifier.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        hidden: Sequence[int] = (32, 32, 64),
        kernel: int = 3,
        stem_channels: int = 32,
        stem_kernel: int = 7,
        stem_stride: int = 2,
        pooling: str = "max",
        forget_bias: float = 1.0,
        peephole: bool = False,
        return_sequences: bool = False,
        memory: str = "lean",
        chunk: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(hidden, kernel, stem_kernel, stem_stride, pooling, memory, chunk, dropout)
        self.input_spec = InputSpec()
        self.pooling = pooling
        self.return_sequences = return_sequences
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem_channels, stem_kernel, stem_stride, stem_kernel // 2),
            nn.ReLU(inplace=True),
        )
        widths = [stem_channels, *hidden]
        self.layers = nn.ModuleList(
            ConvLSTMLayer(
                *channels,
                kernel,
                forget_bias=forget_bias,
                peephole=peephole,
                keep_gates=memory == "fast",
                chunk=chunk,
            )
            for channels in pairwise(widths)
        )
        self.norm = nn.BatchNorm1d(widths[-1])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)
        self._initialise()

    def features(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B,3,T,H,W] -> (last layer's h, states to hand on with the next piece of the video).

        h is [B,C,h,w] of the last step, or [B,C,T,h,w] with `return_sequences`. Reading a video
        in pieces, each with the state of the one before, gives what reading it whole gives.
        """
        B, _, T, _, _ = x.shape
        x = x.transpose(1, 2).transpose(0, 1).flatten(0, 1)  # [T*B,3,H,W]
        x = self.stem(x)  # [T*B,c,H/s,W/s]
        states = []
        for n, layer in enumerate(self.layers):
            if n > 0:
                x = self._pool(x)  # [T*B,c,h/2,w/2]
            h, new = layer(x.unflatten(0, (T, B)), None if state is None else state[n])
            states.append(new)
            x = h.flatten(0, 1)  # [T*B,c,h,w]
        x = x.unflatten(0, (T, B))
        last = x.permute(1, 2, 0, 3, 4) if self.return_sequences else x[-1]
        return last, tuple(states)

    def forward(self, x: Tensor) -> Tensor:
        """Float [B,3,T,H,W] -> logits [B,K]; any T, H, W."""
        return self.classify(self.features(x)[0])

    def classify(self, features: Tensor) -> Tensor:
        """What `features` returned -> logits [B,K]: the mean over space (and steps), then FC."""
        pooled = features.flatten(2).mean(2)  # [B,C]
        return self.fc(self.dropout(self.norm(pooled)))  # [B,K]

    def _pool(self, x: Tensor) -> Tensor:
        if self.pooling == "none" or min(x.shape[-2:]) < 2:
            return x
        return F.max_pool2d(x, 2) if self.pooling == "max" else F.avg_pool2d(x, 2)

    def _initialise(self) -> None:
        """He et al. fan-out for the stem, which a ReLU follows; the classifier N(0, 0.01)."""
        for module in self.stem:
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)


def _check(
    hidden: Sequence[int],
    kernel: int,
    stem_kernel: int,
    stem_stride: int,
    pooling: str,
    memory: str,
    chunk: int,
    dropout: float,
) -> None:
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must name at least one layer of at least 1, got {hidden}")
    if kernel % 2 == 0 or stem_kernel % 2 == 0 or min(kernel, stem_kernel) < 1:
        raise ValueError(f"kernels must be odd, got kernel {kernel} and stem_kernel {stem_kernel}")
    if stem_stride < 1 or chunk < 1:
        raise ValueError(f"stem_stride and chunk must be >= 1, got {stem_stride} and {chunk}")
    if pooling not in _POOLING:
        raise ValueError(f"pooling must be one of {', '.join(_POOLING)}, got {pooling!r}")
    if memory not in _MEMORY:
        raise ValueError(f"memory must be one of {', '.join(_MEMORY)}, got {memory!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")

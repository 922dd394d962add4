"""ConvLSTM (paper S1.3, S2.3, figures 3-5): stacked convolutional LSTM layers over a clip.

Notes:
- The paper had to cut resolution, frames and layers because the network ran out of memory. Here
  `recompute=True` computes the gates again in the backward pass (`har.models.recurrence`), exactly;
  figures, also beside torch.utils.checkpoint, are in docs/benchmarks.md.
- A strided convolution and a pool, the stem, come first, and each layer but the first reads the
  layer below through a 2x2 pool: the paper does not say how it went from pixels to states. States
  start at a quarter of the image's sides: at half of them, 16 channels wide, gate arithmetic costs
  as much as the convolutions. The stem has 64 channels, as those of the other networks.
- The last step of the last layer goes to the head (figure 4). `return_sequences` is figure 3: the
  head sees the mean of all steps, and `features` returns every step.
- The states are normalised over the batch before the head. Without, all clips look alike to it
  (h is small, and its mean over the clips is larger than its spread): with layer norm instead,
  one seed of two stayed at chance for 40 epochs of the demo set; with it none of three did.
- Peephole weights are one per channel. The original has one per cell of the map, which fixes the
  image size; ours takes any.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..shards.transforms.clip_transform import ClipTransform
from . import weights as weight_files
from .frame_input import CHANNELS, check_input, select_input
from .recurrence import Plan, Recurrence, run_for_export

State = tuple[tuple[Tensor, Tensor], ...]  # (h, c) of each layer, each [B,C,H,W]
_POOLING = ("max", "avg", "none")


class ConvLSTMLayer(nn.Module):
    """One layer over a whole clip, with the stem before it (if any) and the pool after it.

    Weights are kept as [out, in, 1, k, k], since `.to(memory_format=torch.channels_last_3d)`
    raises on a network with 4-D parameters.
    stem: channels of a strided convolution with ReLU before the layer, or None for no stem. The
    forget gate's bias starts at `forget_bias`, all others at 0.
    """

    def __init__(
        self,
        cin: int,
        hidden: int,
        kernel: int,
        plan: Plan,
        *,
        stem: int | None,
        stem_kernel: int,
        forget_bias: float,
        peephole: bool,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.plan = plan
        self.stem_weight: nn.Parameter | None = None
        self.stem_bias: nn.Parameter | None = None
        if stem is not None:
            self.stem_weight = nn.Parameter(torch.empty(stem, cin, 1, stem_kernel, stem_kernel))
            self.stem_bias = nn.Parameter(torch.zeros(stem))
            cin = stem
        self.input_weight = nn.Parameter(torch.empty(4 * hidden, cin, 1, kernel, kernel))
        self.state_weight = nn.Parameter(torch.empty(4 * hidden, hidden, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.peep = nn.Parameter(torch.zeros(3, hidden, 1, 1, 1)) if peephole else None
        self._initialise(forget_bias)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, *, keep: bool = False
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [T,B,Cin,H,W] -> (h of every step, pooled [T,B,C,h/2,w/2]; (h, c) of the last).

        keep: the gates' pre-activations for the backward pass, or else recompute them there.
        """
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        T, stem = x.shape[0], self.stem_weight is not None
        small = min(self.plan.sides(x.shape[-2:], stem)) < 2  # one row or column: nothing to pool
        plan = self.plan._replace(
            chunk=min(self.plan.chunk, T), keep=keep, pool="none" if small else self.plan.pool
        )
        h0, c0 = (None, None) if state is None else (state[0].to(dtype), state[1])
        run = run_for_export if torch.compiler.is_exporting() else Recurrence.apply
        out, h, c = run(plan, x, h0, c0, *self._weights(dtype))
        return out, (h, c)

    def _weights(self, dtype: torch.dtype) -> list[Tensor | None]:
        """As `Recurrence` takes them: 4-D, in dtype, channels last, candidate rows doubled."""
        first, rows = 3 * self.hidden, len(self.bias)
        scale = torch.ones(rows, dtype=self.bias.dtype, device=self.bias.device)
        scale[first:] = 2
        wx, bias, wh = (
            weight * scale.view(-1, *[1] * (weight.dim() - 1))
            for weight in (self.input_weight, self.bias, self.state_weight)
        )
        weights = []
        for weight in (self.stem_weight, self.stem_bias, wx, bias, wh):
            if weight is not None:
                weight = weight.to(dtype) if weight.dim() == 1 else weight.squeeze(2).to(dtype)
                if weight.dim() == 4:
                    weight = weight.contiguous(memory_format=torch.channels_last)
            weights.append(weight)
        return [*weights, None if self.peep is None else self.peep.squeeze(2)]

    def _initialise(self, forget_bias: float) -> None:
        """He et al. fan-out for the stem, which a ReLU follows; Glorot and Bengio for the gates.

        Sigmoid and tanh are linear near 0, where Glorot's rule keeps the variance. Fan-out counts
        one gate (hidden k k), since the four gates do not add up.
        """
        if self.stem_weight is not None:
            nn.init.kaiming_normal_(self.stem_weight, mode="fan_out", nonlinearity="relu")
        for weight in (self.input_weight, self.state_weight):
            taps = weight[0, 0].numel()
            nn.init.normal_(weight, 0, math.sqrt(2 / (taps * (weight.shape[1] + self.hidden))))
        nn.init.constant_(self.bias[self.hidden : 2 * self.hidden], forget_bias)


class ConvLSTM(nn.Module):
    """Strided stem, stacked ConvLSTM layers, global average pool, classifier.

    hidden: channels of each layer; its length is the depth. kernel: odd, of both convolutions of
    a layer; one number, or one per layer.
    stem_channels, stem_kernel, stem_stride: the convolution before the first layer; stem_pool: a
    2x2 pool after it.
    pooling: "max", "avg" or "none", 2x2 after the stem and between layers.
    forget_bias: initial forget-gate bias.
    peephole: gates see the cell. return_sequences: classify the mean of all steps.
    recompute: compute the gates again in the backward pass, or else keep them: less memory or less
    time.
    chunk: steps at once in the first layer; twice as many in the others, whose maps are smaller.
    dropout: before the classifier. input: "rgb", "diff" or "rgb+diff", see `frame_input`.
    weights: "none", a file or a run folder; the classifier stays new. freeze: "none", or the last
    part that stays fixed: "stem", "layer1", "layer2", ...
    """

    def __init__(
        self,
        num_classes: int,
        *,
        hidden: Sequence[int] = (32, 64, 64),
        kernel: int | Sequence[int] = 3,
        stem_channels: int = 64,
        stem_kernel: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
        pooling: str = "avg",
        forget_bias: float = 1.0,
        peephole: bool = False,
        return_sequences: bool = False,
        recompute: bool = True,
        chunk: int = 2,
        dropout: float = 0.0,
        input: str = "rgb",
        weights: str | Path | None = weight_files.NONE,
        freeze: str | None = weight_files.NONE,
    ) -> None:
        super().__init__()
        kernels = [kernel] * len(hidden) if isinstance(kernel, int) else list(kernel)
        _check(
            hidden, kernels, stem_kernel, pooling, recompute, dropout,
            stem_channels=stem_channels, stem_stride=stem_stride, chunk=chunk,
        )  # fmt: skip
        check_input(input)
        self.input = input
        self.transform = ClipTransform()
        self.return_sequences = return_sequences
        self.recompute = recompute
        plan = Plan(chunk, True, stem_stride, pooling, stem_pool=pooling if stem_pool else "none")
        self.layers = nn.ModuleList(
            ConvLSTMLayer(
                CHANNELS[input] if n == 0 else hidden[n - 1],
                width,
                kernels[n],
                plan._replace(
                    chunk=chunk if n == 0 else 2 * chunk,
                    pool=pooling if n < len(hidden) - 1 else "none",
                ),
                stem=stem_channels if n == 0 else None,
                stem_kernel=stem_kernel,
                forget_bias=forget_bias,
                peephole=peephole,
            )
            for n, width in enumerate(hidden)
        )
        self.norm = nn.BatchNorm3d(hidden[-1])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden[-1], num_classes)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        self.weights_info = weight_files.load_weights(
            self, weights, builder=None, model_name="convlstm"
        )
        self._freeze(freeze)

    def _freeze(self, last: str | None) -> None:
        """Keep the layers up to `last` as they are in training; the stem is part of the first."""
        parts = ["stem", *(f"layer{n + 1}" for n in range(len(self.layers)))]
        frozen = weight_files.parts_up_to(last, parts)
        for layer in self.layers[: len(frozen) - 1] if frozen else ():
            layer.requires_grad_(False)
        if frozen:
            for name, parameter in self.layers[0].named_parameters():
                if name.startswith("stem_"):
                    parameter.requires_grad_(False)

    def features(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B,3,T,H,W] -> (last layer's h, states to hand on with the next piece of the video).

        h is [B,C,h,w] of the last step, or [B,C,T,h,w] with `return_sequences`. Reading a video
        in pieces, each with the state of the one before, gives what reading it whole gives, but for
        the differences to frames of the piece before (`input`).
        """
        keep_gates = self._layers_that_keep_gates(x)
        x = select_input(x, self.input).permute(2, 0, 1, 3, 4)  # [T,B,C,H,W]
        states = []
        for n, layer in enumerate(self.layers):
            x, new = layer(
                x, None if state is None else state[n], keep=keep_gates[n]
            )  # [T,B,C,h,w]
            states.append(new)
        last = x.permute(1, 2, 0, 3, 4) if self.return_sequences else states[-1][0]
        return last, tuple(states)

    def forward(self, x: Tensor) -> Tensor:
        """Float [B,3,T,H,W] -> logits [B,K]; any T, H, W."""
        return self.classify(self.features(x)[0])

    def classify(self, features: Tensor) -> Tensor:
        """What `features` returned -> logits [B,K]: norm, mean over space (and steps), FC."""
        if features.dim() == 4:
            features = features.unsqueeze(2)  # [B,C,1,h,w]
        # torch 2.15's batch norm has wrong gradients over channels-last maps of 1x1: contiguous
        pooled = self.norm(features.contiguous()).mean((2, 3, 4))  # [B,C]
        return self.fc(self.dropout(pooled))  # [B,K]

    def _layers_that_keep_gates(self, x: Tensor) -> list[bool]:
        """Without `recompute` all layers; with it the last ones, up to the bytes of x [B,3,T,H,W];
        none where nothing is differentiated.

        Backward starts at the last layer, whose gates are freed before the first layer, whose maps
        are the largest, needs its memory. Keeping those saves recomputation; the peak stays the
        same in float32 and grows by a tenth in bfloat16 (8 clips of 16x112x112).
        """
        if not torch.is_grad_enabled():
            return [False] * len(self.layers)
        if not self.recompute:
            return [True] * len(self.layers)
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        gate_bytes = self.gate_bytes(x.shape, dtype.itemsize)
        return [sum(gate_bytes[n:]) <= x.nbytes for n in range(len(gate_bytes))]

    def gate_bytes(self, shape: Sequence[int], itemsize: int) -> list[int]:
        """Bytes of each layer's gates over clips [B,3,T,H,W]: what keeping them takes."""
        B, _, T, *sides = shape
        num_bytes = []
        for layer in self.layers:
            assert isinstance(layer, ConvLSTMLayer)
            sides = layer.plan.sides(sides, layer.stem_weight is not None)
            num_bytes.append(4 * layer.hidden * B * T * sides[0] * sides[1] * itemsize)
            if layer.plan.pool != "none" and min(sides) > 1:
                sides = [side // 2 for side in sides]
        return num_bytes


def _check(
    hidden: Sequence[int],
    kernels: list[int],
    stem_kernel: int,
    pooling: str,
    recompute: bool,
    dropout: float,
    **sizes: int,
) -> None:
    """Raise ValueError for a value that does not work. sizes: those that are 1 or more."""
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must name at least one layer of at least 1, got {hidden}")
    if len(kernels) != len(hidden):
        raise ValueError(f"kernel must be one number or {len(hidden)}, got {kernels}")
    if any(side < 1 or side % 2 == 0 for side in (*kernels, stem_kernel)):
        raise ValueError(f"kernels must be odd, got kernel {kernels}, stem_kernel {stem_kernel}")
    if pooling not in _POOLING:
        raise ValueError(f"pooling must be one of {', '.join(_POOLING)}, got {pooling!r}")
    if not isinstance(recompute, bool):
        raise ValueError(f"recompute must be true or false, got {recompute!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")

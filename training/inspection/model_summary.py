"""har-models: a network layer by layer, and the memory a training step of it takes.

Notes: the network runs on fake tensors (shapes, no data), so that the table of 32 clips of R(2+1)D
takes seconds and no memory. A ConvLSTM layer is one module with up to three convolutions in it, so
it has a row for each; what it recomputes in the backward pass is in the memory, not in the table.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from ... import models
from ..config import ConfigError
from ..runtime import device
from .memory_estimate import Memory, estimate_memory

CLASSES = 101
DESCRIPTIONS = {
    "resnet3d": "ResNet3D-18 from scratch (paper S1.1, figure 1)",
    "r2plus1d": "R(2+1)D-18 from scratch, each 3-D convolution cut in two (S1.2, figure 2)",
    "convlstm": "stacked ConvLSTM from scratch, backward pass of its own (S1.3, figures 3-5)",
    "r3d": "torchvision's R3D-18, pretrained on Kinetics-400, fine-tuned (S1.4)",
}


@dataclass(frozen=True)
class Row:
    """One layer. shape: of its output, batch first; macs: multiply-adds forward, whole batch.

    activation: bytes of its output.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    parameters: int
    macs: int
    activation: int


@dataclass(frozen=True)
class Sheet:
    """All that `har-models show` says: rows, memory, and the network itself (on fake tensors)."""

    model: str
    input: tuple[int, ...]
    precision: str
    rows: list[Row]
    memory: Memory
    network: nn.Module

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `memory.total` in bytes."""
        return {
            "model": self.model,
            "input": list(self.input),
            "precision": self.precision,
            "layers": [asdict(row) for row in self.rows],
            "parameters": self.parameters,
            "macs": self.macs,
            "memory": {**asdict(self.memory), "total": self.memory.total},
        }


def examine(
    name: str,
    frames: int,
    size: tuple[int, int],
    batch: int,
    precision: torch.dtype,
    **options: Any,
) -> Sheet:
    """Run one training step of a network on tensors without data and write down what happens.

    options: of the model. Raises ConfigError for a name or an option that is not there, and where a
    model of the user does not work on such tensors.
    """
    shape = (batch, 3, frames, *size)
    rows: list[Row] = []
    with FakeTensorMode():
        try:
            models.check_options(name, options)
            network = _build(name, **options)
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error)) from error
        network = device.place_model(network, torch.device("cpu"), precision)
        clips = torch.empty(shape).contiguous(memory_format=torch.channels_last_3d)
        if models.is_custom(name):
            models.check_forward(network, name, CLASSES, clips)
        hooks = list(_watch(network, rows))
        memory = estimate_memory(network, clips, precision)
        for hook in hooks:
            hook.remove()
    return Sheet(name, shape, str(precision).removeprefix("torch."), rows, memory, network)


def _build(name: str, **options: Any) -> nn.Module:
    """A network without pretrained weights; under a fake mode."""
    if not models.is_custom(name) and "weights" in models.options_of(name):
        options = {"weights": "none", **options}
    return models.build(name, CLASSES, **options)


def _watch(network: nn.Module, rows: list[Row]) -> Iterator[Any]:
    """Hooks on every layer that add its rows when it has run; yields the hooks."""
    for name, module in network.named_modules():
        is_leaf = not list(module.children()) and list(module.parameters())
        if isinstance(module, models.ConvLSTMLayer):
            make_rows: Callable[..., list[Row]] = _convlstm_rows
        elif is_leaf or "Pool" in type(module).__name__:
            make_rows = _layer_rows
        else:
            continue

        def hook(module: Any, args: Any, out: Any, name: str = name, make: Any = make_rows) -> None:
            rows.extend(make(name, module, args[0] if args else None, out))

        yield module.register_forward_hook(hook)


def _layer_rows(name: str, module: Any, _: Tensor, out: Any) -> list[Row]:
    macs, out = 0, next(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
    if hasattr(module, "weight") and module.weight.dim() > 1:  # convolution or linear, not norm
        macs = math.prod(module.weight.shape[1:]) * out.numel()
    row = Row(
        name=name,
        kind=type(module).__name__,
        shape=tuple(out.shape),
        kernel=_triple(getattr(module, "kernel_size", ())),
        stride=_triple(getattr(module, "stride", ())),
        parameters=sum(p.numel() for p in module.parameters()),
        macs=macs,
        activation=out.nbytes,
    )
    return [row]


def _convlstm_rows(name: str, layer: Any, x: Tensor, out: Any) -> list[Row]:
    """Rows of a ConvLSTM layer: stem, input to gates, state to gates."""
    step, stem, sides = layer.plan.stride, layer.stem_weight, list(x.shape[-2:])
    inner_sides = layer.plan.sides(x.shape[-2:], stem is not None)
    convolutions = [
        ("input", layer.input_weight, layer.bias, inner_sides, 1),
        ("state", layer.state_weight, layer.peep, inner_sides, 1),
    ]
    if stem is not None:
        sides = [(side - 1) // step + 1 for side in sides]
        convolutions.insert(0, ("stem", stem, layer.stem_bias, sides, step))
    rows = []
    for part, weight, more, sides, stride in convolutions:
        shape = (x.shape[1], weight.shape[0], x.shape[0], *sides)
        rows.append(
            Row(
                name=f"{name}.{part}",
                kind="Conv2d",
                shape=shape,
                kernel=tuple(weight.shape[2:]),
                stride=(1, stride, stride),
                parameters=weight.numel() + (0 if more is None else more.numel()),
                macs=math.prod(shape) * math.prod(weight.shape[1:]),
                activation=math.prod(shape) * out[0].element_size(),
            )
        )
    return rows


def _triple(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def table(sheet: Sheet) -> str:
    """The sheet as text: a line a layer, totals, and the memory of a training step."""
    lines = [
        ("layer", "kind", "output", "kernel", "stride", "parameters", "MMAC", "activation"),
        *(
            (
                *(row.name, row.kind, _times(row.shape), _times(row.kernel), _times(row.stride)),
                f"{row.parameters:,}",
                f"{row.macs / 1e6:,.1f}" if row.macs else "",
                _mib(row.activation),
            )
            for row in sheet.rows
        ),
        (
            *("total", "", "", "", "", f"{sheet.parameters:,}", f"{sheet.macs / 1e6:,.1f}"),
            _mib(sum(row.activation for row in sheet.rows)),
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pattern = "  ".join(f"{{:{'<' if n < 5 else '>'}{width}}}" for n, width in enumerate(widths))
    head, *body, totals = (pattern.format(*line).rstrip() for line in lines)
    rule = "-" * max(map(len, (head, *body, totals)))
    title = f"{sheet.model}, clips of {_times(sheet.input)}"
    return "\n".join([title, head, rule, *body, rule, totals, "", _memory(sheet)])


def _memory(sheet: Sheet) -> str:
    memory, batch = sheet.memory, sheet.input[0]
    sizes = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer (Adam)": memory.optimizer,
        "activations": memory.activations,
        "total": memory.total,
        "activations a clip": memory.activations // batch,
    }
    title = f"a training step, batch {batch}, {sheet.precision}, at its worst moment:"
    return "\n".join([title, *(f"  {name:18s}{_mib(size):>14s}" for name, size in sizes.items())])


def overview() -> str:
    """`har-models list`: the four networks, their papers' sections and sizes at 101 classes, and
    the models that installed packages have."""
    lines = [f"{'model':10s}{'parameters':>12s}  what it is"]
    for name, description in DESCRIPTIONS.items():
        with FakeTensorMode():
            count = sum(p.numel() for p in _build(name).parameters())
        lines.append(f"{name:10s}{count:12,}  {description}")
    lines += [
        f"{entry.name:10s}{'':12s}  {entry.value}, of an installed package"
        for entry in metadata.entry_points(group="har.models")
    ]
    return "\n".join([*lines, "", "next: har-models show convlstm --plot convlstm.png"])


def _times(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

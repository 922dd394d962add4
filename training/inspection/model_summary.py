"""har-models: a network layer by layer, and the memory a training step of it takes.

Notes: the network runs on fake tensors (shapes, no data), so that the table of 32 clips of R(2+1)D
takes seconds and no memory. A ConvLSTM layer is one module with up to three convolutions in it, so
it has a row for each; what it recomputes in the backward pass is in the memory, not in the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ... import models
from ..config import ConfigError
from ..runtime import device
from .memory_estimate import Memory, estimate_memory

CLASSES = 101


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `memory.total` in bytes."""
        return {
            "model": self.model,
            "input": list(self.input),
            "precision": self.precision,
            "layers": [asdict(row) for row in self.rows],
            "parameters": sum(row.parameters for row in self.rows),
            "macs": sum(row.macs for row in self.rows),
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

    options: of the model. Raises ConfigError for a name or an option that is not there.
    """
    if "weights" in models.options_of(name):
        options = {"weights": "none", **options}
    shape = (batch, 3, frames, *size)
    rows: list[Row] = []
    try:
        network = models.build(name, CLASSES, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    network = device.place_model(network, torch.device("cpu"), precision)
    with FakeTensorMode():
        _empty(network)
        hooks = list(_watch(network, rows))
        clips = torch.empty(shape).contiguous(memory_format=torch.channels_last_3d)
        memory = estimate_memory(network, clips, precision)
        for hook in hooks:
            hook.remove()
    return Sheet(name, shape, str(precision).removeprefix("torch."), rows, memory, network)


def _empty(network: nn.Module) -> None:
    """Put tensors without data in the place of all parameters and buffers; under a fake mode."""

    def like(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)

    for module in network.modules():
        for key, value in module._parameters.items():
            if value is not None:
                module._parameters[key] = nn.Parameter(like(value), value.requires_grad)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = like(buffer)


def _watch(network: nn.Module, rows: list[Row]) -> Iterator[Any]:
    """Hooks on every layer that add a row when it has run; yields the hooks."""
    for name, module in network.named_modules():
        if isinstance(module, models.ConvLSTMLayer):
            write: Callable[..., list[Row]] = _write_convlstm
        elif _is_pool(module) or (not list(module.children()) and list(module.parameters())):
            write = _write_plain
        else:
            continue

        def hook(module: Any, args: Any, out: Any, *, name: str = name, write: Any = write) -> None:
            rows.extend(write(name, module, args[0], out))

        yield module.register_forward_hook(hook)


def _is_pool(module: nn.Module) -> bool:
    return "Pool" in type(module).__name__


def _write_plain(name: str, module: Any, x: Tensor, out: Tensor) -> list[Row]:
    own = sum(p.numel() for p in module.parameters())
    kernel = _triple(getattr(module, "kernel_size", ()))
    macs = 0
    if hasattr(module, "weight") and module.weight.dim() > 1:  # convolution or linear, not norm
        macs = math.prod(module.weight.shape[1:]) * out.numel()
    stride = _triple(getattr(module, "stride", ()))
    kind = type(module).__name__
    return [Row(name, kind, tuple(out.shape), kernel, stride, own, macs, out.nbytes)]


def _write_convlstm(name: str, layer: Any, x: Tensor, out: Any) -> list[Row]:
    """Rows of a ConvLSTM layer: stem, input to gates, state to gates."""
    T, B = x.shape[:2]
    sides = layer.plan.sides(x.shape[-2:], layer.stem_weight is not None)
    size = out[0].element_size()
    convolutions = [("input", layer.input_weight), ("state", layer.state_weight)]
    rows = []
    if layer.stem_weight is not None:
        full = [(side - 1) // layer.plan.stride + 1 for side in x.shape[-2:]]
        stride = (1, layer.plan.stride, layer.plan.stride)
        rows.append(_convolution(f"{name}.stem", layer.stem_weight, (B, T, full), stride, size))
        rows[0] = _with(rows[0], layer.stem_bias)
    for what, weight in convolutions:
        row = _convolution(f"{name}.{what}", weight, (B, T, sides), (1, 1, 1), size)
        rows.append(_with(row, layer.bias) if what == "input" else _with(row, layer.peep))
    return rows


def _convolution(
    name: str,
    weight: Tensor,
    where: tuple[int, int, list[int]],
    stride: tuple[int, ...],
    size: int,
) -> Row:
    B, T, sides = where
    shape = (B, weight.shape[0], T, *sides)
    macs = math.prod(shape) * math.prod(weight.shape[1:])
    kernel = tuple(weight.shape[2:])
    return Row(name, "Conv2d", shape, kernel, stride, weight.numel(), macs, math.prod(shape) * size)


def _with(row: Row, parameter: Tensor | None) -> Row:
    """The row with the parameters of a bias or a peephole added."""
    extra = 0 if parameter is None else parameter.numel()
    return replace(row, parameters=row.parameters + extra)


def _triple(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def table(sheet: Sheet) -> str:
    """The sheet as text: a line a layer, totals, and the memory of a training step."""
    heads = ("layer", "kind", "output", "kernel", "stride", "parameters", "MMAC", "activation")
    lines = [
        (
            row.name,
            row.kind,
            _times(row.shape),
            _times(row.kernel),
            _times(row.stride),
            f"{row.parameters:,}",
            f"{row.macs / 1e6:,.1f}" if row.macs else "",
            _mib(row.activation),
        )
        for row in sheet.rows
    ]
    totals = (
        f"{sum(row.parameters for row in sheet.rows):,}",
        f"{sum(row.macs for row in sheet.rows) / 1e6:,.1f}",
        _mib(sum(row.activation for row in sheet.rows)),
    )
    lines.append(("total", "", "", "", "", *totals))
    widths = [max(len(line[n]) for line in (heads, *lines)) for n in range(len(heads))]
    shown = [
        "  ".join(
            text.ljust(width) if n < 5 else text.rjust(width)
            for n, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (heads, *lines)
    ]
    rule = "-" * max(map(len, shown))
    body = [shown[0], rule, *shown[1:-1], rule, shown[-1]]
    return "\n".join([f"{sheet.model}, clips of {_times(sheet.input)}", *body, "", _memory(sheet)])


def _memory(sheet: Sheet) -> str:
    needs, batch = sheet.memory, sheet.input[0]
    parts = (
        ("weights", needs.weights),
        ("gradients", needs.gradients),
        ("optimizer (Adam)", needs.optimizer),
        ("activations", needs.activations),
        ("total", needs.total),
    )
    lines = [f"  {what:18s}{_mib(size):>14s}" for what, size in parts]
    each = _mib(needs.activations // batch)
    return "\n".join(
        [
            f"a training step, batch {batch}, {sheet.precision}, at its worst moment:",
            *lines,
            f"  {'activations a clip':18s}{each:>14s}",
        ]
    )


def overview() -> str:
    """`har-models list`: the four networks, their papers' sections and sizes at 101 classes."""
    lines = [f"{'model':10s}{'parameters':>12s}  what it is"]
    for name, what in WHAT.items():
        options: dict[str, Any] = (
            {"weights": "none"} if "weights" in models.options_of(name) else {}
        )
        with FakeTensorMode():
            network = models.build(name, CLASSES, **options)
        count = sum(p.numel() for p in network.parameters())
        lines.append(f"{name:10s}{count:12,}  {what}")
    return "\n".join([*lines, "", "next: har-models show convlstm --plot convlstm.png"])


WHAT = {
    "resnet3d": "ResNet3D-18 from scratch (paper S1.1, figure 1)",
    "r2plus1d": "R(2+1)D-18 from scratch, each 3-D convolution cut in two (S1.2, figure 2)",
    "convlstm": "stacked ConvLSTM from scratch, recomputes its gates (S1.3, figures 3-5)",
    "r3d": "torchvision's R3D-18, pretrained on Kinetics-400, fine-tuned (S1.4)",
}


def _times(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

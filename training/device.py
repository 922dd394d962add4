"""Which device, and in which precision: probed on the machine, not guessed from its name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from training.config import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn


def choose(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:N" -> a device that is there; else a ConfigError."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--device {name!r} is unknown: give auto, cpu, cuda or cuda:N."
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name!r} is not supported: give auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name!r} asks for a GPU and {torch.cuda.device_count()} are visible: "
            "use '--device cpu', or install the driver."
        )
    return device


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to the device, its 5-D weights in channels_last_3d, its 4-D in channels_last.

    Not `model.to(memory_format=...)`: that puts 4-D and 5-D weights into the one format given and
    fails on ConvLSTM's 2-D convolutions.
    """
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    model = model.to(device)
    for weight in model.parameters():
        if weight.dim() in formats:
            weight.data = weight.data.contiguous(memory_format=formats[weight.dim()])
    return model


def precision(wanted: str, device: torch.device) -> torch.dtype:
    """ "auto", "bf16" or "fp32" -> the dtype for autocast (float32 = no autocast).

    auto: bf16 on CUDA devices that have it; on a CPU, what a 3-D convolution runs faster in
    (about 0.1 s to find out; bf16 units made it 2.4x faster on the machine in docs/benchmarks.md).
    """
    import torch

    if wanted == "bf16" or (
        wanted == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    ):
        return torch.bfloat16
    if wanted == "fp32" or device.type == "cuda":
        return torch.float32
    return min((torch.float32, torch.bfloat16), key=_convolution_seconds)


def _convolution_seconds(dtype: torch.dtype) -> float:
    """Best of three of one 3-D convolution on the CPU; unsupported = never chosen."""
    import torch

    x = torch.ones(2, 32, 8, 28, 28, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.ones(32, 32, 3, 3, 3, dtype=dtype)
    seconds = []
    try:
        with torch.no_grad():
            for _ in range(4):
                start = time.perf_counter()
                torch.nn.functional.conv3d(x, weight, padding=1)
                seconds.append(time.perf_counter() - start)
    except RuntimeError:
        return float("inf")
    return min(seconds[1:])

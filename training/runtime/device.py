"""Which device: the CPU, or torch's accelerator (cuda and with it ROCm, xpu, mps)."""

import functools
import platform
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

from ..config import ConfigError
from . import unusable_gpu

DEVICES = "auto, cpu, cuda, cuda:N, xpu or mps"
TRUSTED = ("cpu", "cuda")  # without a trial; others are tried first
_TYPES = (*TRUSTED, "xpu", "mps")


def select_device(
    name: str, local_rank: int | None = None, *, untested: bool = False
) -> torch.device:
    """The device of that name (see `DEVICES`), if it is there and usable; else ConfigError.

    local_rank: this process's number on its machine, where there are several; it picks the GPU.
    untested: "auto" may be of a type that is not trusted; the caller checks what it computes.
    """
    if name == "auto":
        name = best_device_type()
        if name not in TRUSTED and not untested:
            name = "cpu"
    if name in ("cuda", "xpu") and local_rank is not None:
        name = f"{name}:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r} is unknown: give {DEVICES}.") from error
    if device.type not in _TYPES:
        raise ConfigError(f"--device {name!r} is not supported: give {DEVICES}.")
    if device.type == "cpu":
        return device
    if device.type == "cuda" and (fault := unusable_gpu.find_fault(device.index or 0)):
        raise ConfigError(f"--device {name!r}: {fault}, or use '--device cpu'.")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    is_there = accelerator is not None and accelerator.type == device.type
    count = torch.accelerator.device_count() if is_there else 0
    if (device.index or 0) >= count:
        raise ConfigError(
            f"--device {name!r} asks for a GPU and {count} are visible: "
            "use '--device cpu', or install the driver."
        )
    return device


def best_device_type() -> str:
    """What "auto" means: torch's accelerator where it can be used, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type not in _TYPES:
        return "cpu"
    is_unusable = accelerator.type == "cuda" and unusable_gpu.find_fault() is not None
    return "cpu" if is_unusable else accelerator.type


def stream_module(device: torch.device) -> ModuleType | None:
    """`torch.cuda` or `torch.xpu`, for streams, events and pinned memory; None where the device
    has none of them (cpu, mps)."""
    return torch.get_device_module(device) if device.type in ("cuda", "xpu") else None


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's architecture and threads."""
    if (module := stream_module(device)) is not None:
        return str(module.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{device} ({platform.machine()}, {threads} thread{'' if threads == 1 else 's'})"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def place_model(model: nn.Module, device: torch.device, precision: torch.dtype) -> nn.Module:
    """Move a model to the device, its 5-D weights in channels_last_3d, its 4-D in channels_last.

    Not `model.to(memory_format=...)`: that puts 4-D and 5-D weights into the one format given and
    fails on ConvLSTM's 2-D convolutions. In bf16 on the CPU the 3-D convolutions go through
    `mend_depth_2`.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if device.type != "cpu":  # models are built there
        model = model.to(device)
    for weight in model.parameters():
        if weight.dim() in formats:
            weight.data = weight.data.contiguous(memory_format=formats[weight.dim()])
    if device.type == "cpu" and precision == torch.bfloat16:
        for module in model.modules():
            if not isinstance(module, nn.Conv3d):
                continue
            if (module.kernel_size[0], module.stride[0], module.padding[0]) == (3, 1, 1):
                forward = functools.partial(mend_depth_2, module.forward)
                module.forward = forward  # type: ignore[method-assign]
    return model


def mend_depth_2(convolve: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A 3-tap, stride-1, padded convolution over [B,C,T,H,W], at depth 2 by way of depth 3.

    torch 2.15 on a CPU with bf16 units leaves parts of this weight gradient unwritten at depth 2
    (and at no other depth from 1 to 16), which is what the last residual group of a 16-frame clip
    has. A third plane of zeros is what the padding reads there anyway, so the first two planes of
    the result, and all gradients, are the same.
    """
    return convolve(F.pad(x, (0, 0, 0, 0, 0, 1)))[:, :, :2] if x.shape[2] == 2 else convolve(x)

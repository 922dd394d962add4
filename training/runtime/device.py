"""Which device, and in which precision: probed on the machine, not guessed from its name."""

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..config import ConfigError


def select_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device of that name ("auto", "cpu", "cuda", "cuda:N"), if it is there; else ConfigError.

    local_rank: this process's number on its machine, where there are several; it picks the GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
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


def place_model(model: nn.Module, device: torch.device, precision: torch.dtype) -> nn.Module:
    """Move a model to the device, its 5-D weights in channels_last_3d, its 4-D in channels_last.

    Not `model.to(memory_format=...)`: that puts 4-D and 5-D weights into the one format given and
    fails on ConvLSTM's 2-D convolutions. In bf16 on the CPU the 3-D convolutions go through
    `conv_at_depth_3` at depth 2.
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
                forward = functools.partial(_forward_at_depth_3, module.forward)
                module.forward = forward  # type: ignore[method-assign]
    return model


def conv_at_depth_3(
    convolve: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """A 3-tap, stride-1, padded convolution over [B,C,2,H,W], by way of depth 3.

    torch 2.15 on a CPU with bf16 units leaves parts of this weight gradient unwritten at depth 2
    (and at no other depth from 1 to 16), which is what the last residual group of a 16-frame clip
    has. A third plane of zeros is what the padding reads there anyway, so the first two planes of
    the result, and all gradients, are the same.
    """
    return convolve(F.pad(x, (0, 0, 0, 0, 0, 1)))[:, :, :2]


def _forward_at_depth_3(
    forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    return conv_at_depth_3(forward, x) if x.shape[2] == 2 else forward(x)


def select_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto", "bf16" or "fp32" -> the dtype for autocast (float32 = no autocast).

    auto: bf16 on CUDA devices that have it; on a CPU, bf16 where a 3-D convolution of
    `place_model` both gives the right gradients in it and runs faster. Raises ConfigError where
    bf16 is asked for and wrong.
    """
    if name == "fp32":
        return torch.float32
    if device.type == "cuda":
        use_bf16 = name == "bf16" or torch.cuda.is_bf16_supported()
        return torch.bfloat16 if use_bf16 else torch.float32
    error, speedup = probe_bf16()
    if name == "bf16" and error > BF16_TOLERANCE:
        raise ConfigError(
            f"--precision bf16 gives wrong gradients here (3-D convolution on this CPU, torch "
            f"{torch.__version__}, relative error {error:.2g}): use '--precision fp32' or 'auto'."
        )
    use_bf16 = error <= BF16_TOLERANCE and (name == "bf16" or speedup > 1)
    return torch.bfloat16 if use_bf16 else torch.float32


BF16_TOLERANCE = 0.05  # sound bf16 gives 0.003-0.005, unsound 0.3 to infinity


def probe_bf16(workaround: bool = True) -> tuple[float, float]:
    """-> (worst relative error of a bf16 3-D convolution's weight gradient, speed over float32).

    On the CPU, over depths 1 to 4, as `place_model` has them or, without `workaround`, as torch has
    them. About 0.1 s.
    """
    worst, seconds = 0.0, {torch.float32: 0.0, torch.bfloat16: 0.0}
    for depth in (1, 2, 3, 4):
        random = torch.Generator().manual_seed(depth)
        x = torch.randn(4, 64, depth, 7, 7, generator=random)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        weight = torch.randn(64, 64, 3, 3, 3, generator=random) * 0.05
        output_gradient = torch.randn(4, 64, depth, 7, 7, generator=random)
        gradients = {}
        for dtype in seconds:
            tensors = (x.to(dtype), weight.to(dtype), output_gradient.to(dtype))
            gradients[dtype], elapsed = time_weight_gradient(*tensors, workaround and depth == 2)
            seconds[dtype] += elapsed
        worst = max(worst, relative_error(gradients[torch.bfloat16], gradients[torch.float32]))
    return worst, seconds[torch.float32] / seconds[torch.bfloat16]


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest difference over the largest value; nan is as wrong as infinity."""
    error = ((value - exact).abs().max() / exact.abs().max()).item()
    return error if error == error else float("inf")


def time_weight_gradient(
    x: torch.Tensor, weight: torch.Tensor, output_gradient: torch.Tensor, workaround: bool = False
) -> tuple[torch.Tensor, float]:
    """-> float32 gradient of a 3x3x3 convolution's weight, and the seconds of both passes."""
    elapsed = float("inf")
    for _ in range(3):  # the best of three: a busy machine must not decide the precision
        leaf = weight.clone().requires_grad_()
        convolve = functools.partial(F.conv3d, weight=leaf, padding=1)
        _synchronize(x.device)
        start = time.perf_counter()
        y = conv_at_depth_3(convolve, x) if workaround else convolve(x)
        y.backward(output_gradient)
        _synchronize(x.device)
        elapsed = min(elapsed, time.perf_counter() - start)
    assert leaf.grad is not None
    return leaf.grad.float(), elapsed


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

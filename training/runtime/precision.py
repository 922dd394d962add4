"""In which precision a device trains: probed there, not guessed from its name."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..config import ConfigError
from .device import mend_depth_2, synchronize

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
TOLERANCE = 0.05  # sound bf16 gives 0.003-0.006, sound fp16 0.0007, unsound 0.3 to infinity
_FP16_GAIN = 1.2  # over bf16, below which bf16 is taken: it needs no loss scaling
_LONG = 0.05  # seconds of repetitions after which three are enough
_SLOW = 0.8  # of float32's speed: said where such a precision was asked for


@dataclass(frozen=True)
class Probe:
    """One precision against float32 on the same device, in a training step of a 3-D convolution.

    error: of the weight's gradient, largest difference over largest value. speedup: times as fast.
    """

    error: float
    speedup: float

    @property
    def is_right(self) -> bool:
        return self.error <= TOLERANCE


def select_precision(
    name: str, device: torch.device, log: Callable[[str], None] = lambda _: None
) -> torch.dtype:
    """ "auto", "bf16", "fp16" or "fp32" -> the dtype for autocast (float32 = no autocast).

    auto: of float32 and `candidates` the fastest that gives the right gradient. A precision that
    was asked for is a ConfigError where it is wrong, and a line of the log where it is slow.
    """
    if name == "auto":
        return fastest({dtype: probe_precision(dtype, device) for dtype in candidates(device)})
    dtype = DTYPES[name]
    if dtype == torch.float32:
        return dtype
    probe = probe_precision(dtype, device)
    if not probe.is_right:
        raise ConfigError(
            f"--precision {name} gives wrong gradients here (3-D convolution on {device}, torch "
            f"{torch.__version__}, relative error {probe.error:.2g}): use '--precision fp32' or "
            "'auto'; a run that began in it can go on on another machine."
        )
    if probe.speedup < _SLOW:
        log(
            f"--precision {name} has {probe.speedup:.2g} of float32's speed on this machine "
            f"({device}); the run keeps it, a new one with '--precision auto' would not take it"
        )
    return dtype


def candidates(device: torch.device) -> list[torch.dtype]:
    """The precisions that `auto` tries beside float32 (on CUDA: TF32).

    On a CPU bf16 alone. On a GPU bf16 only where it has units for it: a T4 emulates it, many times
    slower than the fp16 that it is made for.
    """
    if device.type == "cpu":
        return [torch.bfloat16]
    return [torch.bfloat16, torch.float16] if has_bf16_units(device) else [torch.float16]


def has_bf16_units(device: torch.device) -> bool:
    """Whether this GPU computes in bf16 itself; True where torch does not know (mps)."""
    module = torch.get_device_module(device)
    if not hasattr(module, "is_bf16_supported"):
        return True
    with module.device(device):
        return bool(module.is_bf16_supported(including_emulation=False))


def fastest(probes: dict[torch.dtype, Probe]) -> torch.dtype:
    """The dtype that `auto` takes: the fastest that is right, and bf16 rather than fp16."""
    gains = {dtype: probe.speedup for dtype, probe in probes.items() if probe.is_right}
    if torch.float16 in gains:
        gains[torch.float16] /= _FP16_GAIN if torch.bfloat16 in gains else 1
    best = max(gains, key=lambda dtype: gains[dtype], default=torch.float32)
    return best if gains.get(best, 0) > 1 else torch.float32


def probe_precision(dtype: torch.dtype, device: torch.device, workaround: bool = True) -> Probe:
    """Time and check training steps of 3-D convolutions in `dtype` and in float32.

    On a GPU one as in the first residual group; on the CPU small ones of the last group, over
    depths 1 to 4, as `place_model` has them or, without `workaround`, as torch has them: 0.3 s, or
    a few seconds where the processor has no units for `dtype`. A device that has not the type at
    all gives an infinite error.
    """
    try:
        if device.type == "cpu":
            return _probe_cpu(dtype, workaround)
        exact, slow = time_convolution(device, torch.float32, torch.channels_last_3d)
        rough, fast = time_convolution(device, dtype, torch.channels_last_3d)
    except (RuntimeError, TypeError):  # "not implemented for 'Half'", and mps's own
        return Probe(float("inf"), 0.0)
    return Probe(relative_error(rough, exact), slow / fast)


def _probe_cpu(dtype: torch.dtype, workaround: bool) -> Probe:
    error, seconds = 0.0, {torch.float32: 0.0, dtype: 0.0}
    for depth in (1, 2, 3, 4):
        random = torch.Generator().manual_seed(depth)
        x = torch.randn(4, 64, depth, 7, 7, generator=random)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        weight = torch.randn(64, 64, 3, 3, 3, generator=random) * 0.05
        output_gradient = torch.randn(4, 64, depth, 7, 7, generator=random)
        gradients = {}
        for kind in seconds:
            tensors = (x.to(kind), weight.to(kind), output_gradient.to(kind))
            gradients[kind], elapsed = time_weight_gradient(*tensors, workaround)
            seconds[kind] += elapsed
        error = max(error, relative_error(gradients[dtype], gradients[torch.float32]))
    return Probe(error, seconds[torch.float32] / seconds[dtype])


def time_convolution(
    device: torch.device, dtype: torch.dtype, form: torch.memory_format
) -> tuple[torch.Tensor, float]:
    """-> float32 weight gradient of a convolution as in group 1, and the seconds of a step."""
    random = torch.Generator().manual_seed(0)
    batch, side = (1, 28) if device.type == "cpu" else (8, 56)
    x = torch.randn(batch, 64, 8, side, side, generator=random)
    weight = torch.randn(64, 64, 3, 3, 3, generator=random) * 0.05
    x, weight = (t.to(device, dtype).contiguous(memory_format=form) for t in (x, weight))
    return time_weight_gradient(x.requires_grad_(), weight, torch.ones_like(x))


def time_weight_gradient(
    x: torch.Tensor, weight: torch.Tensor, output_gradient: torch.Tensor, workaround: bool = False
) -> tuple[torch.Tensor, float]:
    """-> float32 gradient of a 3x3x3 convolution's weight, and the seconds of both passes."""
    seconds: list[float] = []
    # the best of many: a busy machine must not decide the precision
    while len(seconds) < 3 or (len(seconds) < 12 and sum(seconds) < _LONG):
        leaf = weight.clone().requires_grad_()
        convolve = functools.partial(F.conv3d, weight=leaf, padding=1)
        synchronize(x.device)
        start = time.perf_counter()
        y = mend_depth_2(convolve, x) if workaround else convolve(x)
        y.backward(output_gradient)
        synchronize(x.device)
        seconds.append(time.perf_counter() - start)
    assert leaf.grad is not None
    return leaf.grad.float(), min(seconds)


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest difference over the largest value; nan is as wrong as infinity."""
    error = ((value - exact).abs().max() / exact.abs().max()).item()
    return error if error == error else float("inf")

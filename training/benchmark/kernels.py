"""Where the time of a training step goes: the device's longest kernels (on the CPU, operators)."""

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from .steps import Step

# Copies between memory layouts and convolutions without a library kernel: a fault of ours.
SLOW_KERNELS = ("nchwtonhwc", "nhwctonchw", "vol2col", "slow_conv")


@dataclass(frozen=True)
class Kernel:
    """share: of the time of all kernels, 0 to 1. calls, milliseconds: of one step."""

    name: str
    share: float
    calls: float
    milliseconds: float


def profile_step(step: Step, device: torch.device, steps: int = 3) -> list[Kernel]:
    """All kernels of a step, the longest first; the step has run before."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    on_cuda = device.type == "cuda"
    kernels = []
    for event in profiler.key_averages():
        if on_cuda and event.device_type == torch.autograd.DeviceType.CPU:
            continue  # what launches kernels, not a kernel
        time = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        kernels.append((event.key, event.count / steps, time / 1000 / steps))
    total = sum(time for _, _, time in kernels) or 1.0
    kernels.sort(key=lambda kernel: -kernel[2])
    return [Kernel(name, time / total, calls, time) for name, calls, time in kernels]


def slow_kernels(kernels: list[Kernel]) -> list[str]:
    """A line for each kernel that should not be there."""
    return [
        f"{kernel.name}: {kernel.share:.1%} of the step"
        for kernel in kernels
        if any(name in kernel.name.lower() for name in SLOW_KERNELS)
    ]

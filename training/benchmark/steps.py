"""The candidates of har-bench-train: a training step of each model and of its baseline, and the
memory that one takes.
"""

import contextlib
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ... import models
from ...models.convlstm import ConvLSTM
from ..optim import LossScaler
from ..runtime import device as devices
from ..runtime.memory import is_short as is_memory_short
from ..runtime.memory import peak_bytes
from ..step import forward, random_clips
from . import baseline

NUM_CLASSES = 101
BASELINE = "baseline of "  # a candidate is a model's name, or this and the name
Step = Callable[..., None]


@dataclass(frozen=True)
class Workload:
    """What every candidate computes on: a batch of clips [B,3,T,H,W], where, and how precisely.

    recompute: of the ConvLSTM, as --recompute.
    """

    shape: tuple[int, int, int, int, int]
    device: torch.device
    precision: torch.dtype
    recompute: str = "auto"


def make_step(candidate: str, workload: Workload) -> Step:
    """-> one training step: ours in our memory format and precision, or its baseline's.

    Without an argument it runs on a batch that stays on the device, else on clips [B,C,T,h,w].
    """
    (B, _, T, H, W), device = workload.shape, workload.device
    clips = random_clips(B, T, (H, W), device)
    if candidate.startswith(BASELINE):
        model = baseline.build(candidate.removeprefix(BASELINE), NUM_CLASSES).to(device)
        workload = replace(workload, precision=torch.float32)
        return training_step(model, clips.contiguous(), workload, fused=False)
    return training_step(build_model(candidate, workload), clips, workload)


def build_model(name: str, workload: Workload, **options: Any) -> nn.Module:
    """A model, random weights, as it is trained."""
    if not models.is_custom(name) and "weights" in models.options_of(name):
        options = {"weights": "none", **options}
    model = models.build(name, NUM_CLASSES, seed=0, **options)
    if models.is_custom(name):
        _, _, T, H, W = workload.shape
        clips = random_clips(2, T, (H, W), torch.device("cpu"))
        models.check_forward(model, name, NUM_CLASSES, clips)
    if isinstance(model, ConvLSTM) and "recompute" not in options:
        set_recompute(model, workload)
    return devices.place_model(model, workload.device, workload.precision)


def training_step(
    model: nn.Module, clips: torch.Tensor, workload: Workload, *, fused: bool = True
) -> Step:
    """Forward and backward pass and Adam; float16 with loss scaling, as in training."""
    device, precision = workload.device, workload.precision
    capturable = fused and device.type == "cuda"  # in a CUDA graph
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused, capturable=capturable)
    scaler = LossScaler(precision, device)
    labels = torch.zeros(len(clips), dtype=torch.int64, device=device)
    model.train()

    def step(clips: torch.Tensor = clips) -> None:
        loss = F.cross_entropy(forward(model, clips, precision), labels)
        optimizer.zero_grad(set_to_none=True)
        scaler.backward(loss)
        scaler.step(optimizer, (), clip_grad=0)

    return step


def set_recompute(model: ConvLSTM, workload: Workload) -> None:
    """Let `model` compute gates again in the backward pass, or keep them, as --recompute says."""
    gate_bytes = model.gate_bytes(workload.shape, workload.precision.itemsize)
    is_short = is_memory_short(sum(gate_bytes), workload.device)
    model.recompute = is_short if workload.recompute == "auto" else workload.recompute == "on"


def matrix_product(device: torch.device, precision: torch.dtype) -> Step:
    """A square product that keeps the device as busy as it can be; `matrix_size` is its size.

    Float32 on CUDA: torch computes convolutions in TF32 and products not, unless told to; both are
    TF32 here, or the models' share of the peak would come out too high; neither is where TF32 is
    off.
    """
    size = matrix_size(device)
    a, b = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    out = torch.empty_like(a)
    is_float32 = device.type == "cuda" and precision == torch.float32
    is_tf32 = is_float32 and torch.backends.cudnn.allow_tf32

    def step() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if is_tf32 else before)
        torch.mm(a, b, out=out)
        torch.set_float32_matmul_precision(before)

    return step


def matrix_size(device: torch.device) -> int:
    """Large enough for the device's best, on the CPU small enough for a fraction of a second."""
    return 8192 if device.type == "cuda" else 2048


def seconds_per_step(step: Step, count: int, device: torch.device) -> float:
    """The device's queue is empty before and after the `count` steps."""
    devices.synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        step()
    devices.synchronize(device)
    return (time.perf_counter() - start) / count


def peak_memory(candidate: str, workload: Workload) -> int:
    """Most bytes a training step takes: of the device's allocator, or of a child process (CPU)."""
    device = workload.device
    if device.type != "cpu":
        module = torch.get_device_module(device)
        module.empty_cache()
        before = module.memory_allocated(device)  # of the candidates that were timed
        module.reset_peak_memory_stats(device)
        _two_steps(candidate, workload)
        return (peak_bytes(device) or 0) - before
    code = f"from {__name__} import print_peak_memory; print_peak_memory()"
    precision = str(workload.precision).removeprefix("torch.")
    arguments = json.dumps([candidate, workload.shape, precision, workload.recompute])
    command = [sys.executable, "-c", code, arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_peak_memory() -> None:
    """Print how many bytes a candidate and two steps of it add to this process at most (CPU).

    A tiny step goes before, so that what libraries load at first use is not counted: 150 MB, twice
    what a batch of 8 ConvLSTM clips takes.
    """
    candidate, shape, precision, recompute = json.loads(sys.argv[1])
    workload = Workload(tuple(shape), torch.device("cpu"), getattr(torch, precision), recompute)
    _two_steps(candidate, replace(workload, shape=(2, 3, 4, 32, 32)))
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only Linux
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # 5: VmHWM becomes what is in use now
    before = peak_bytes(workload.device) or 0
    _two_steps(candidate, workload)
    print((peak_bytes(workload.device) or 0) - before)


def _two_steps(candidate: str, workload: Workload) -> None:
    step = make_step(candidate, workload)
    step()
    step()

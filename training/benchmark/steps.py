"""The contestants of har-bench-train: a training step of each model and of its reference, and what
memory one takes.

Odd: on the CPU a peak is of a process of its own, from which a tiny step goes before, so that what
libraries load at first use is not counted.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime import device as devices
from ..runtime.memory import peak_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

CLASSES = 101
BASE = "reference of "  # a contestant is a model's name, or this before it


def contestant(
    who: str, shape: tuple[int, ...], on: torch.device, dtype: torch.dtype
) -> Callable[..., None]:
    """-> one training step: ours in our memory format and precision, or its reference's.

    It runs on a batch that stays, or on the clips [B,C,T,h,w] it is given.
    """
    import torch

    from ... import models
    from . import baseline

    if who.startswith(BASE):
        model = baseline.build(who.removeprefix(BASE), CLASSES).to(on)
        return _step(model, torch.randn(shape, device=on), torch.float32, fused=False)
    options = {"weights": "none"} if "weights" in models.options_of(who) else {}
    model = devices.place_model(models.build(who, CLASSES, seed=0, **options), on, dtype)
    clips = torch.randn(shape, device=on).contiguous(memory_format=torch.channels_last_3d)
    return _step(model, clips, dtype, fused=True)


def _step(
    model: nn.Module, stays: torch.Tensor, dtype: torch.dtype, *, fused: bool
) -> Callable[..., None]:
    import torch
    import torch.nn.functional as F

    from ..step import forward

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    labels = torch.zeros(len(stays), dtype=torch.int64, device=stays.device)
    model.train()

    def step(clips: torch.Tensor = stays) -> None:
        loss = F.cross_entropy(forward(model, clips, dtype), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def matrix_product(on: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """A square product that keeps the device as busy as it can be; `matrix_side` is its side.

    Float32 on CUDA: torch computes convolutions in TF32 and products not, unless told; both are
    TF32 here, or the models' share of the peak would come out too high.
    """
    import torch

    side = matrix_side(on)
    a, b = (torch.randn(side, side, device=on, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    is_tf32 = on.type == "cuda" and dtype == torch.float32

    def step() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if is_tf32 else before)
        torch.mm(a, b, out=out)
        torch.set_float32_matmul_precision(before)

    return step


def matrix_side(on: torch.device) -> int:
    """Large enough for the device's best, on the CPU small enough for a fraction of a second."""
    return 8192 if on.type == "cuda" else 2048


def peak(name: str, shape: tuple[int, ...], on: torch.device, dtype: torch.dtype) -> int:
    """Most bytes a training step takes; on the CPU above what the idle process takes."""
    import torch

    if on.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(on)  # the contestants of the race may still be there
        torch.cuda.reset_peak_memory_stats(on)
        step = contestant(name, shape, on, dtype)
        step()
        step()
        return peak_bytes(on) - before
    code = (
        "import sys, json; from har.training.benchmark import steps;"
        "print(steps.peak_here(*json.loads(sys.argv[1])))"
    )
    argument = json.dumps([name, shape, str(dtype).removeprefix("torch.")])
    command = [sys.executable, "-c", code, argument]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_here(who: str, shape: Sequence[int], dtype: str) -> int:
    """Most bytes that building a contestant and two steps of it add to this process (CPU).

    A tiny step goes before, so that what libraries load at first use is not counted: 150 MB, twice
    what a batch of 8 ConvLSTM clips takes.
    """
    import torch

    on, kind = torch.device("cpu"), getattr(torch, dtype)
    contestant(who, (2, 3, 4, 32, 32), on, kind)()
    base = _forget_peak()
    step = contestant(who, tuple(shape), on, kind)
    step()
    step()
    return peak_bytes(on) - base


def _forget_peak() -> int:
    """Give free memory back and start the process's peak anew, where Linux lets us; -> it now."""
    import ctypes
    import gc

    import torch

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # 5: VmHWM becomes what is in use now
    return peak_bytes(torch.device("cpu"))

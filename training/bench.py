"""har-bench-train: what a training step of each model costs, beside a plain reference loop.

The reference is what a paper's code does: float32, contiguous memory, Adam, and torchvision's
module (r2plus1d_18 beside r2plus1d, r3d_18 beside resnet3d and r3d) or, beside convlstm, the naive
cell-by-cell ConvLSTM of the same architecture (`training.reference`).

Odd: steps run on one synthetic batch that stays on the device, so this is the compute alone; rounds
of all contestants are interleaved, and peak memory is of the device's allocator (CUDA) or, on the
CPU, of a process of its own for each contestant.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import device as devices
from training.config import ConfigError
from training.run import peak_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

CLASSES = 101
_BASE = "reference of "  # a contestant is a model's name, or this before it


def run(
    names: Sequence[str],
    *,
    frames: int,
    size: int,
    batch_size: int,
    steps: int,
    rounds: int,
    device: str,
    precision: str,
    as_json: bool,
) -> str:
    """Time every model of `names`; -> a table, or JSON: a list with one object a model."""
    for option, value in (("frames", frames), ("size", size), ("batch-size", batch_size)):
        _check(option, value)
    for option, value in (("steps", steps), ("rounds", rounds)):
        _check(option, value)
    on = devices.choose(device)
    dtype = devices.precision(precision, on)
    shape = (batch_size, 3, frames, size, size)
    rivals = {name: _BASE + _twin(name) for name in names}
    everyone = [*names, *sorted(set(rivals.values()))]
    seconds = _race(everyone, shape, on, dtype, steps, rounds)
    peaks = {who: _peak(who, shape, on, dtype) for who in everyone}
    results = [_result(name, rivals[name], seconds, peaks, batch_size, on, dtype) for name in names]
    return json.dumps(results, indent=1) if as_json else _table(results, shape)


def _check(option: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"--{option} {value} does not work: give 1 or more.")


def _twin(name: str) -> str:
    """The model whose reference is also that of `name`: resnet3d and r3d share one."""
    return "resnet3d" if name == "r3d" else name


def _race(
    everyone: Sequence[str],
    shape: tuple[int, ...],
    on: torch.device,
    dtype: torch.dtype,
    steps: int,
    rounds: int,
) -> dict[str, float]:
    """-> the median over rounds of each contestant's seconds a step, the rounds interleaved."""
    contestants = {who: _contestant(who, shape, on, dtype) for who in everyone}
    seconds: dict[str, list[float]] = {who: [] for who in everyone}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for who, step in contestants.items():
            spent = _time(step, 1 if number == 0 else steps, on)
            if number:
                seconds[who].append(spent)
    return {who: statistics.median(spent) for who, spent in seconds.items()}


def _result(
    name: str,
    rival: str,
    seconds: dict[str, float],
    peaks: dict[str, int],
    batch: int,
    on: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """One object of --json. ratio.reference: times as fast; ratio.memory: share of its peak."""
    import torch

    from training import reference

    return {
        "model": name,
        "clips_per_s": batch / seconds[name],
        "step_s": seconds[name],
        "reference": f"{reference.name_of(name)}, float32",
        "reference_clips_per_s": batch / seconds[rival],
        "ratio.reference": seconds[rival] / seconds[name],
        "peak_bytes": peaks[name],
        "reference_peak_bytes": peaks[rival],
        "ratio.memory": peaks[name] / peaks[rival],
        "precision": str(dtype).removeprefix("torch."),
        "device": str(on),
        "torch": torch.__version__,
    }


def _contestant(
    who: str, shape: tuple[int, ...], on: torch.device, dtype: torch.dtype
) -> Callable[[], None]:
    """-> one training step: ours in our memory format and precision, or its reference's."""
    import torch

    import models
    from training import reference

    if who.startswith(_BASE):
        model = reference.build(who.removeprefix(_BASE), CLASSES).to(on)
        return _step(model, torch.randn(shape, device=on), torch.float32, fused=False)
    options = {"weights": "none"} if "weights" in models.options_of(who) else {}
    model = devices.place(models.build(who, CLASSES, seed=0, **options), on, dtype)
    clips = torch.randn(shape, device=on).contiguous(memory_format=torch.channels_last_3d)
    return _step(model, clips, dtype, fused=True)


def _step(
    model: nn.Module, clips: torch.Tensor, dtype: torch.dtype, *, fused: bool
) -> Callable[[], None]:
    import torch
    import torch.nn.functional as F

    from training.loop import forward

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    labels = torch.zeros(len(clips), dtype=torch.int64, device=clips.device)
    model.train()

    def step() -> None:
        loss = F.cross_entropy(forward(model, clips, dtype), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _time(step: Callable[[], None], steps: int, on: torch.device) -> float:
    """Seconds a step, the device's queue empty before and after."""
    import torch

    def settle() -> None:
        if on.type == "cuda":
            torch.cuda.synchronize(on)

    settle()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    settle()
    return (time.perf_counter() - start) / steps


def _peak(name: str, shape: tuple[int, ...], on: torch.device, dtype: torch.dtype) -> int:
    """Most bytes a training step takes; on the CPU above what the idle process takes."""
    import torch

    if on.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(on)  # the contestants of the race may still be there
        torch.cuda.reset_peak_memory_stats(on)
        step = _contestant(name, shape, on, dtype)
        step()
        step()
        return peak_bytes(on) - before
    code = (
        "import sys, json; from training import bench;"
        "print(bench.peak_here(*json.loads(sys.argv[1])))"
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
    _contestant(who, (2, 3, 4, 32, 32), on, kind)()
    base = _forget_peak()
    step = _contestant(who, tuple(shape), on, kind)
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


def _table(results: list[dict[str, Any]], shape: tuple[int, ...]) -> str:
    batch, _, frames, height, width = shape
    first = results[0]
    lines = [
        f"training step, batch {batch} of {frames}x{height}x{width}, {first['device']}, "
        f"{first['precision']}, torch {first['torch']}",
        f"{'model':10s}{'clips/s':>10s}{'step':>10s}{'peak':>10s}{'speed-up':>10s}{'memory':>9s}"
        "  against",
    ]
    lines += [
        f"{line['model']:10s}{line['clips_per_s']:10.2f}{line['step_s'] * 1000:7.0f} ms"
        f"{line['peak_bytes'] / 1e9:7.2f} GB{line['ratio.reference']:9.2f}x"
        f"{line['ratio.memory']:8.2f}x  {line['reference']}"
        for line in results
    ]
    return "\n".join(lines)

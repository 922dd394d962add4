"""har-bench-train: what a training step of each model costs, beside a plain reference loop.

The reference is what a paper's code does: torchvision's module, float32, contiguous memory, Adam.
r2plus1d is set beside torchvision's r2plus1d_18, resnet3d and r3d beside r3d_18, and convlstm
beside r3d_18 too (torchvision has none), which makes its ratio one of cost, not of skill.

Odd: steps run on one synthetic batch that stays on the device, so this is the compute alone; rounds
of all contestants are interleaved, and peak memory is of the device's allocator (CUDA) or, on the
CPU, of a process of its own for each model.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training import device as devices
from training.run import peak_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

CLASSES = 101
_REFERENCE = {"r2plus1d": "r2plus1d_18"}  # the others: r3d_18


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
    import torch

    on = devices.choose(device)
    dtype = devices.precision(precision, on)
    shape = (batch_size, 3, frames, size, size)
    references = sorted({_REFERENCE.get(name, "r3d_18") for name in names})
    contestants = {name: _ours(name, shape, on, dtype) for name in names}
    contestants |= {name: _reference(name, shape, on) for name in references}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for name, step in contestants.items():
            spent = _time(step, 1 if number == 0 else steps, on)
            if number:
                seconds[name].append(spent)
    results = []
    for name in names:
        own = statistics.median(seconds[name])
        other = statistics.median(seconds[_REFERENCE.get(name, "r3d_18")])
        results.append(
            {
                "model": name,
                "clips_per_s": batch_size / own,
                "step_s": own,
                "reference": f"torchvision {_REFERENCE.get(name, 'r3d_18')}, float32",
                "ratio.reference": other / own,
                "peak_bytes": _peak(name, shape, on, dtype),
                "precision": str(dtype).removeprefix("torch."),
                "device": str(on),
                "torch": torch.__version__,
            }
        )
    return json.dumps(results, indent=1) if as_json else _table(results, shape)


def _ours(
    name: str, shape: tuple[int, ...], on: torch.device, dtype: torch.dtype
) -> Callable[[], None]:
    """-> one training step of our model, in our memory format and precision."""
    import torch

    import models

    options = {"weights": "none"} if "weights" in models.options_of(name) else {}
    model = devices.place(models.build(name, CLASSES, seed=0, **options), on, dtype)
    clips = torch.randn(shape, device=on).contiguous(memory_format=torch.channels_last_3d)
    return _step(model, clips, dtype, fused=True)


def _reference(name: str, shape: tuple[int, ...], on: torch.device) -> Callable[[], None]:
    import torch
    from torchvision.models import video

    model = getattr(video, name)(num_classes=CLASSES).to(on)
    return _step(model, torch.randn(shape, device=on), torch.float32, fused=False)


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
        torch.cuda.reset_peak_memory_stats(on)
        step = _ours(name, shape, on, dtype)
        step()
        step()
        return peak_bytes(on)
    code = (
        "import sys, json, torch; from training import bench; from training.run import peak_bytes;"
        "name, shape, kind = json.loads(sys.argv[1]); on = torch.device('cpu');"
        "base = peak_bytes(on); step = bench._ours(name, tuple(shape), on, getattr(torch, kind));"
        "step(); step(); print(peak_bytes(on) - base)"
    )
    argument = json.dumps([name, shape, str(dtype).removeprefix("torch.")])
    command = [sys.executable, "-c", code, argument]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _table(results: list[dict[str, Any]], shape: tuple[int, ...]) -> str:
    batch, _, frames, height, width = shape
    first = results[0]
    lines = [
        f"training step, batch {batch} of {frames}x{height}x{width}, {first['device']}, "
        f"{first['precision']}, torch {first['torch']}",
        f"{'model':10s}{'clips/s':>10s}{'step':>10s}{'peak':>10s}{'speed-up':>10s}  over",
    ]
    lines += [
        f"{line['model']:10s}{line['clips_per_s']:10.2f}{line['step_s'] * 1000:7.0f} ms"
        f"{line['peak_bytes'] / 1e9:7.2f} GB{line['ratio.reference']:9.2f}x  {line['reference']}"
        for line in results
    ]
    return "\n".join(lines)

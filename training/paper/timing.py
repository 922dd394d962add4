"""A short timing of this machine: how many clips a second, how long decoding takes.

Odd: two steps of a small batch say enough for a figure in hours, and take seconds even on a CPU.
Warm-up is not counted; loading from shards runs beside the compute and is left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..runtime import device

if TYPE_CHECKING:
    import torch

_CLASSES = 101
_TIMED = 2  # steps
_ON_CPU = 2  # clips in a batch there
_DECODED = 8  # videos
_SIZE = 112  # where --size is not given


def training(config: Config) -> tuple[float, float]:
    """-> clips a second of training, and of evaluation, of the model and shape of `config`."""
    import torch
    import torch.nn.functional as F

    from ... import models
    from ..step import forward

    on = device.choose(config.device)
    precision = device.precision(config.precision, on)
    config = replace(config, weights="none")
    extra = {"weights": "none"} if "weights" in models.options_of(config.model) else {}
    model = models.build(config.model, _CLASSES, seed=0, **config.options, **extra)
    model = device.place(model, on, precision)
    batch = min(config.batch_size, _ON_CPU) if on.type == "cpu" else config.batch_size
    side = config.size or _SIZE
    clips = torch.randn(batch, 3, config.frames, side, side, device=on)
    labels = torch.zeros(batch, dtype=torch.int64, device=on)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        F.cross_entropy(forward(model, clips, precision), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def look() -> None:
        with torch.inference_mode():
            forward(model, clips, precision)

    trained = batch / _time(step, on)
    model.eval()
    return trained, batch / _time(look, on)


def decoding(videos: Sequence[Path]) -> float:
    """Seconds to build shards of `videos` with a process a core, from a few of them."""
    from ..inference import predictor

    made: dict[str, Any] = {"rule": "paper"}
    wanted = {"clip_shape": [16, 128, 171, 3], "frames": 16, "sampling": made}
    apart = max(1, len(videos) // _DECODED)
    spent, read = 0.0, 0
    for path in videos[::apart][: _DECODED + 1]:
        start = time.perf_counter()
        try:
            predictor.read_clips(path, wanted)
        except ValueError as error:
            if not predictor.is_video_fault(error):
                raise
            continue
        if read or len(videos) == 1:  # the first pays for what is imported
            spent += time.perf_counter() - start
        read += 1
    each = spent / max(1, read - 1)
    return each * len(videos) / (os.cpu_count() or 1)


def where() -> str:
    """The device that all this was timed on, in words."""
    import torch

    on = device.choose("auto")
    if on.type == "cuda":
        return torch.cuda.get_device_name(on)
    threads = torch.get_num_threads()
    return f"this CPU ({threads} thread{'' if threads == 1 else 's'})"


def _time(step: Callable[[], None], on: torch.device) -> float:
    """Seconds a step, after one that is not counted."""
    import torch

    def settle() -> None:
        if on.type == "cuda":
            torch.cuda.synchronize(on)

    step()
    settle()
    start = time.perf_counter()
    for _ in range(_TIMED):
        step()
    settle()
    return (time.perf_counter() - start) / _TIMED

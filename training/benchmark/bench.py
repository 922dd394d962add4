"""har-bench-train: what a training step of each model costs, beside a plain reference loop.

The reference is what a paper's code does: float32, contiguous memory, Adam, and torchvision's
module (r2plus1d_18 beside r2plus1d, r3d_18 beside resnet3d and r3d) or, beside convlstm, the naive
cell-by-cell ConvLSTM of the same architecture (`har.training.benchmark.baseline`). The same step is timed on
one batch that stays on the device and on batches of the real loader (`har.training.benchmark.data`), and a
large matrix product in the same precision says what the device can do at best.

Odd: rounds of all contestants are interleaved, and peak memory is of the device's allocator (CUDA)
or, on the CPU, of a process of its own for each contestant. A GPU's host runs ahead of it, so there
the wait for data is what a step on the loader's batches takes longer than one on the batch that
stays; on the CPU it is the time in which the step stood still, which a busy machine does not blur.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ConfigError
from ..runtime import device as devices
from .steps import BASE, contestant, matrix_product, matrix_side, peak

if TYPE_CHECKING:
    import torch

    from .data import Fed

_FED = "fed "  # before a model's name: the same step on the loader's batches
_MATRIX = "matrix"  # the matrix product


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
    on = devices.select_device(device)
    dtype = devices.select_precision(precision, on)
    shape = (batch_size, 3, frames, size, size)
    rivals = {name: BASE + _twin(name) for name in names}
    everyone = [*names, *sorted(set(rivals.values()))]
    seconds, waits = _race(names, everyone, shape, on, dtype, steps, rounds)
    peaks = {who: peak(who, shape, on, dtype) for who in everyone}
    results = [
        _result(name, rivals[name], seconds, peaks, batch_size, on, dtype)
        | _data(name, seconds, waits[_FED + name], on)
        | _use(name, seconds, shape, on, dtype)
        for name in names
    ]
    return json.dumps(results, indent=1) if as_json else _table(results, shape)


def _check(option: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"--{option} {value} does not work: give 1 or more.")


def _twin(name: str) -> str:
    """The model whose reference is also that of `name`: resnet3d and r3d share one."""
    return "resnet3d" if name == "r3d" else name


def _race(
    names: Sequence[str],
    everyone: Sequence[str],
    shape: tuple[int, ...],
    on: torch.device,
    dtype: torch.dtype,
    steps: int,
    rounds: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """-> the medians of `_rounds` over all contestants: `everyone`, the models `names` again on the
    loader's batches, and the matrix product."""
    from .data import Fed

    contestants = {who: contestant(who, shape, on, dtype) for who in everyone}
    contestants[_MATRIX] = matrix_product(on, dtype)
    batches = Fed.batches_of(rounds, steps) + Fed.batches_of(1, 1)
    with tempfile.TemporaryDirectory(prefix="har-bench-train-") as folder:
        fed = _fed(names, contestants, shape, on, Path(folder), batches)
        try:
            return _rounds(contestants | fed, steps, rounds, on)
        finally:
            for one in fed.values():
                one.close()


def _rounds(
    contestants: Mapping[str, Callable[..., None]], steps: int, rounds: int, on: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """-> the median over rounds, interleaved, of each contestant's seconds a step, and of the share
    of its steps that a fed one stood waiting for the loader.

    Of the matrix product it is the least: a peak. Its median on a busy machine gave an mfu of 1.2.
    """
    from .data import Fed

    seconds: dict[str, list[float]] = {}
    waits: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for who, step in contestants.items():
            count = 1 if number == 0 else steps
            if isinstance(step, Fed):
                step.catch_up()
            spent = _time(step, count, on)
            if number:
                seconds.setdefault(who, []).append(spent)
                if isinstance(step, Fed):
                    waits.setdefault(who, []).append(step.waited / count / spent)
    best = {_MATRIX: min(seconds[_MATRIX])} if _MATRIX in seconds else {}
    return _medians(seconds) | best, _medians(waits)


def _medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {who: statistics.median(many) for who, many in values.items()}


def _fed(
    names: Sequence[str],
    contestants: dict[str, Callable[..., None]],
    shape: tuple[int, ...],
    on: torch.device,
    folder: Path,
    batches: int,
) -> dict[str, Fed]:
    """The steps of the models `names` again, on batches of a shard set written to `folder`."""
    from ...shards.transforms.clip_transform import ClipTransform
    from . import data

    batch, _, frames, size, _ = shape
    clips = data.write_set(
        folder, clips=max(16, 2 * batch), frames=frames, size=size, spec=ClipTransform()
    )
    return {
        _FED + name: data.Fed(
            data.open_feed(clips, batch, batches, size, ClipTransform(), on), contestants[name]
        )
        for name in names
    }


def _data(name: str, seconds: dict[str, float], waited: float, on: torch.device) -> dict[str, Any]:
    """data_wait: share of a step on the loader's batches spent waiting; see the file's head.

    ratio.fed: the time of such a step over that of a step on a batch that stays on the device.
    """
    fed, stays = seconds[_FED + name], seconds[name]
    wait = max(0.0, 1 - stays / fed) if on.type == "cuda" else waited
    return {"data_wait": wait, "fed_step_s": fed, "ratio.fed": fed / stays}


def _use(
    name: str,
    seconds: dict[str, float],
    shape: tuple[int, ...],
    on: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """mfu: the model's floating point operations a second over those of the matrix product.

    A step is three times the forward's multiply-adds (backward has two products for each one), two
    operations each; what the ConvLSTM computes again to save memory does not count.
    """
    from ..inspection import model_summary

    sheet = model_summary.examine(name, shape[2], (shape[3], shape[4]), shape[0], dtype)
    flops = 3 * 2 * sum(row.macs for row in sheet.rows)
    peak = 2 * matrix_side(on) ** 3 / seconds[_MATRIX]
    return {
        "mfu": flops / seconds[name] / peak,
        "step_flops": flops,
        "matrix_flops_per_s": peak,
    }


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

    from . import baseline

    return {
        "model": name,
        "clips_per_s": batch / seconds[name],
        "step_s": seconds[name],
        "reference": f"{baseline.name_of(name)}, float32",
        "reference_clips_per_s": batch / seconds[rival],
        "ratio.reference": seconds[rival] / seconds[name],
        "peak_bytes": peaks[name],
        "reference_peak_bytes": peaks[rival],
        "ratio.memory": peaks[name] / peaks[rival],
        "precision": str(dtype).removeprefix("torch."),
        "device": str(on),
        "torch": torch.__version__,
    }


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


def _table(results: list[dict[str, Any]], shape: tuple[int, ...]) -> str:
    batch, _, frames, height, width = shape
    first = results[0]
    lines = [
        f"training step, batch {batch} of {frames}x{height}x{width}, {first['device']}, "
        f"{first['precision']}, torch {first['torch']}, matrix peak "
        f"{first['matrix_flops_per_s'] / 1e12:.2f} TFLOP/s",
        f"{'model':10s}{'clips/s':>10s}{'step':>10s}{'data wait':>11s}{'mfu':>7s}{'peak':>10s}"
        f"{'speed-up':>10s}{'memory':>9s}  against",
    ]
    lines += [
        f"{line['model']:10s}{line['clips_per_s']:10.2f}{line['step_s'] * 1000:7.0f} ms"
        f"{line['data_wait']:11.1%}{line['mfu']:7.1%}"
        f"{line['peak_bytes'] / 1e9:7.2f} GB{line['ratio.reference']:9.2f}x"
        f"{line['ratio.memory']:8.2f}x  {line['reference']}"
        for line in results
    ]
    return "\n".join(lines)

"""har-bench-train: what a training step of each model costs, beside a plain baseline.

The baseline is what a paper's code does: float32, contiguous memory, Adam, and torchvision's module
(r2plus1d_18 for r2plus1d, r3d_18 for resnet3d and r3d) or, for convlstm, the naive cell-by-cell
ConvLSTM of the same architecture (`baseline`). The same step is timed on one batch that stays on
the device and on batches of the real loader (`data`), and a large matrix product in the same
precision shows what the device can do at best.

Notes: rounds of all candidates are interleaved. Peak memory is that of the device's allocator
(CUDA) or, on the CPU, of one process for each candidate. A GPU's host runs ahead of it, so there
the wait for data is what a step on the loader's batches takes longer than one on the batch that
stays; on the CPU it is the time in which the step waited, which a busy machine does not blur.
"""

import contextlib
import itertools
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..inspection import model_summary
from ..runtime import device as devices
from ..runtime.precision import select_precision
from . import baseline
from .data import LoaderStep, noise_transform, write_noise_set
from .steps import (
    BASELINE,
    Step,
    Workload,
    make_step,
    matrix_product,
    matrix_size,
    peak_memory,
    seconds_per_step,
)

_LOADER = "loader + "  # before a model's name: the same step on the loader's batches
_GPU_CACHE = "gpu cache + "  # the same on batches that are gathered on the device
_MATRIX = "matrix"  # the matrix product


def run(
    names: Sequence[str], *, frames: int, size: int, batch_size: int, steps: int, rounds: int,
    device: str, precision: str, recompute: str, as_json: bool,
) -> str:  # fmt: skip
    """Time every model of `names`; -> a table, or JSON: a list with one object a model."""
    target = devices.select_device(device)
    shape = (batch_size, 3, frames, size, size)
    workload = Workload(shape, target, select_precision(precision, target), recompute)
    results = measure_models(names, workload, steps, rounds)
    return json.dumps(results, indent=1) if as_json else _table(results, workload)


def measure_models(
    names: Sequence[str], workload: Workload, steps: int, rounds: int, *, gpu_cache: bool = False
) -> list[dict[str, Any]]:
    """One object a model, as JSON prints them. gpu_cache: time batches of `--cache gpu` as well."""
    baselines = {name: BASELINE + _with_same_baseline(name) for name in names}
    candidates = [*names, *sorted(set(baselines.values()))]
    sources = {_LOADER: False, **({_GPU_CACHE: True} if gpu_cache else {})}
    seconds, data_waits = _measure(names, candidates, workload, steps, rounds, sources)
    peaks = {candidate: peak_memory(candidate, workload) for candidate in candidates}
    results = []
    for name in names:
        result = compare(name, baselines[name], seconds, peaks, workload)
        result |= data_costs(name, seconds, data_waits[_LOADER + name], workload)
        if gpu_cache:
            result["ratio.gpu_cache_step"] = seconds[_GPU_CACHE + name] / seconds[name]
        results.append(result | utilization(name, seconds, workload))
    return results


def _with_same_baseline(name: str) -> str:
    """The model whose baseline is also that of `name`: resnet3d and r3d share one."""
    return "resnet3d" if name == "r3d" else name


def _measure(
    names: Sequence[str], candidates: Sequence[str], workload: Workload, steps: int, rounds: int,
    sources: Mapping[str, bool],
) -> tuple[dict[str, float], dict[str, float]]:  # fmt: skip
    """-> the medians of `time_rounds` over all `candidates`, the models `names` again on batches of
    each source (prefix of their names -> with a GPU cache or not), and the matrix product."""
    batch_size, _, frames, size, _ = workload.shape
    all_steps = {candidate: make_step(candidate, workload) for candidate in candidates}
    all_steps[_MATRIX] = matrix_product(workload.device, workload.precision)
    transform = noise_transform(frames, size)
    num_batches = LoaderStep.num_batches(rounds, steps) + LoaderStep.num_batches(1, 1)
    with (
        tempfile.TemporaryDirectory(prefix="har-bench-train-") as folder,
        contextlib.ExitStack() as loaders,
    ):
        manifest = write_noise_set(Path(folder), max(16, 2 * batch_size), transform)
        for (prefix, gpu_cache), name in itertools.product(sources.items(), names):
            step = LoaderStep(
                all_steps[name], manifest, transform, batch_size=batch_size,
                num_batches=num_batches, device=workload.device, gpu_cache=gpu_cache,
            )  # fmt: skip
            loaders.callback(step.close)
            all_steps[prefix + name] = step
        return time_rounds(all_steps, steps, rounds, workload.device)


def time_rounds(
    all_steps: Mapping[str, Step], steps: int, rounds: int, device: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """-> the median over rounds, interleaved, of each candidate's seconds a step, and of the share
    of these that a `LoaderStep` waited for its loader.

    Of the matrix product it is the least: a peak. Its median on a busy machine gave an mfu of 1.2.
    """
    seconds: dict[str, list[float]] = {}
    data_waits: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for name, step in all_steps.items():
            count = steps if number else 1
            if isinstance(step, LoaderStep):
                step.skip_prefetched()
            step_seconds = seconds_per_step(step, count, device)
            if number:
                seconds.setdefault(name, []).append(step_seconds)
                if isinstance(step, LoaderStep):
                    share = step.data_time / count / step_seconds
                    data_waits.setdefault(name, []).append(share)
    best = {_MATRIX: min(seconds[_MATRIX])} if _MATRIX in seconds else {}
    return _medians(seconds) | best, _medians(data_waits)


def _medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(series) for name, series in values.items()}


def compare(
    name: str, base: str, seconds: dict[str, float], peaks: dict[str, int], workload: Workload
) -> dict[str, Any]:
    """ratio.baseline: times as fast; ratio.memory: share of its peak."""
    batch_size = workload.shape[0]
    return {
        "model": name,
        "clips_per_s": batch_size / seconds[name],
        "step_s": seconds[name],
        "baseline": f"{baseline.title(name)}, float32",
        "baseline_clips_per_s": batch_size / seconds[base],
        "ratio.baseline": seconds[base] / seconds[name],
        "peak_bytes": peaks[name],
        "baseline_peak_bytes": peaks[base],
        "ratio.memory": peaks[name] / peaks[base],
        "precision": str(workload.precision).removeprefix("torch."),
        **({"recompute": workload.recompute} if name == "convlstm" else {}),
        "device": str(workload.device),
        "torch": torch.__version__,
    }


def data_costs(
    name: str, seconds: dict[str, float], data_wait: float, workload: Workload
) -> dict[str, Any]:
    """data_wait: share of a step on the loader's batches spent waiting; see the notes above.

    ratio.loader_step: the time of such a step over that of a step on a batch that stays.
    """
    loader_step, step = seconds[_LOADER + name], seconds[name]
    if workload.device.type != "cpu":
        data_wait = max(0.0, 1 - step / loader_step)
    return {
        "data_wait": data_wait, "loader_step_s": loader_step,
        "ratio.loader_step": loader_step / step,
    }  # fmt: skip


def utilization(name: str, seconds: dict[str, float], workload: Workload) -> dict[str, Any]:
    """mfu: the model's floating point operations a second over those of the matrix product.

    A step is three times the forward's multiply-adds (backward has two products for each one), two
    operations each; what the ConvLSTM computes again to save memory does not count.
    """
    B, _, T, H, W = workload.shape
    summary = model_summary.examine(name, T, (H, W), B, workload.precision)
    step_flops = 3 * 2 * sum(row.macs for row in summary.rows)
    peak = 2 * matrix_size(workload.device) ** 3 / seconds[_MATRIX]
    return {
        "mfu": step_flops / seconds[name] / peak, "step_flops": step_flops,
        "matrix_flops_per_s": peak,
    }  # fmt: skip


def _table(results: list[dict[str, Any]], workload: Workload) -> str:
    B, _, T, H, W = workload.shape
    first = results[0]
    lines = [
        f"training step, batch {B} of {T}x{H}x{W}, {first['device']}, {first['precision']}, "
        f"torch {first['torch']}, matrix peak {first['matrix_flops_per_s'] / 1e12:.2f} TFLOP/s",
        f"{'model':10s}{'clips/s':>10s}{'step':>10s}{'data wait':>11s}{'mfu':>7s}{'peak':>10s}"
        f"{'speed-up':>10s}{'memory':>9s}  against",
    ]
    lines += [
        f"{line['model']:10s}{line['clips_per_s']:10.2f}{line['step_s'] * 1000:7.0f} ms"
        f"{line['data_wait']:11.1%}{line['mfu']:7.1%}"
        f"{line['peak_bytes'] / 1e9:7.2f} GB{line['ratio.baseline']:9.2f}x"
        f"{line['ratio.memory']:8.2f}x  {line['baseline']}"
        for line in results
    ]
    return "\n".join(lines)

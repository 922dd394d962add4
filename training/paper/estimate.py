"""What `har-reproduce` is about to cost in hours on this machine, stage by stage.

A few steps of each model and a few videos are timed; on a CPU that takes seconds. The sum is an
upper bound: every run is taken to last all its epochs, although patience often ends it sooner.
Reading shards runs beside the compute and is left out.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...pipeline.dataset import list_folder
from ...pipeline.decode import VideoDecodeError, decode_clips
from ...pipeline.sampling import ClipSampler
from ...shards import splits
from ...shards.format import load_manifest
from ..benchmark.steps import Step, Workload, build_model, seconds_per_step, training_step
from ..config import AUTO, Config
from ..report import format_duration
from ..runtime import device as devices
from ..runtime.precision import select_precision
from ..step import forward, random_clips
from .plan import ReproduceOptions, RunPlan, Stage

UCF101_VIDEOS = 13_320
# train, val, test; of the official split 1 as `har.shards.splits` cuts it: 7,430 / 2,107 / 3,783
_SHARES = {"paper": (0.64, 0.16, 0.2), "official-1": (0.558, 0.158, 0.284)}
_TIMED_STEPS = 2
_CPU_BATCH_SIZE = 2
_AUTO_BATCH_SIZE = 16  # where --batch-size auto is not known yet
_TIMED_VIDEOS = 8


@dataclass(frozen=True)
class Speed:
    """Clips a second of a model on this machine."""

    train: float
    evaluate: float


def describe_costs(options: ReproduceOptions, stages: Sequence[Stage]) -> str:
    """What is to do and its hours, stage by stage, as lines; times a few steps of each model."""
    num_runs = sum(len(stage.runs) for stage in stages)
    left = {run.folder: run for stage in stages for run in stage.runs if not run.is_evaluated}
    lines = [f"{num_runs} runs in {len(stages)} stages, {num_runs - len(left)} of them done."]
    videos = [] if options.shards_exist else list_folder(options.videos)[0]
    total = 0.0
    if videos:
        total = measure_decoding(videos)
        lines.append(f"  {'shards':32s}{format_duration(total):>10s}  ({len(videos):,} videos)")
        if len(videos) != UCF101_VIDEOS:
            lines.append(
                f"  These are not UCF101's {UCF101_VIDEOS:,} videos: nothing will compare."
            )
    configs = {run.config.model: run.config for run in reversed(left.values())}
    speeds = {model: measure_speed(config) for model, config in configs.items()}
    for stage in stages:
        runs = [run for run in stage.runs if run.folder in left]
        seconds = sum(_run_seconds(options, run, speeds, len(videos)) for run in runs)
        total += seconds
        cost = format_duration(seconds) if runs else "done"
        lines.append(f"  {stage.name:32s}{cost:>10s}  then {format_duration(total)} in all")
    name = devices.device_name(devices.select_device("auto"))
    lines.append(
        f"At most {format_duration(total)} on {name}; patience often ends a run sooner. "
        "Stop with Ctrl-C at any time, best after a stage, when its report is whole: "
        "the same command goes on."
    )
    return "\n".join(lines)


def _run_seconds(
    options: ReproduceOptions, run: RunPlan, speeds: dict[str, Speed], num_videos: int
) -> float:
    """Seconds to train and test a run, if it lasts all its epochs."""
    config, speed = run.config, speeds[run.config.model]
    train, val, test = _subset_sizes(options, config, num_videos)
    seconds = config.epochs * (train / speed.train + val / speed.evaluate)
    if config.max_minutes:
        seconds = min(seconds, config.max_minutes * 60)
    return seconds + test / speed.evaluate


def _subset_sizes(
    options: ReproduceOptions, config: Config, num_videos: int
) -> tuple[float, float, float]:
    """Clips in train, val, test: of the shards or, before they are built, by UCF101's shares."""
    if options.shards_exist:
        split = splits.make_split(load_manifest(options.shards), config.split, config.split_seed)
        return float(len(split.train)), float(len(split.val)), float(len(split.test))
    train, val, test = _SHARES.get(config.split, _SHARES["paper"])
    return train * num_videos, val * num_videos, test * num_videos


def measure_speed(config: Config) -> Speed:
    """Time two steps of the model and clip shape of `config`, after one for warm-up.

    On a CPU the batch is two clips.
    """
    device = devices.select_device(config.device)
    batch_size = _AUTO_BATCH_SIZE if config.batch_size == AUTO else config.batch_size
    if device.type == "cpu":
        batch_size = min(batch_size, _CPU_BATCH_SIZE)
    size = config.size or 112
    precision = select_precision(config.precision, device)
    workload = Workload((batch_size, 3, config.frames, size, size), device, precision)
    model = build_model(config.model, workload, **config.options)
    clips = random_clips(batch_size, config.frames, (size, size), device)
    train_step = training_step(model, clips, workload)

    def eval_step() -> None:
        with torch.inference_mode():
            forward(model, clips, precision)

    def clips_per_second(step: Step) -> float:
        step()
        return batch_size / seconds_per_step(step, _TIMED_STEPS, device)

    train = clips_per_second(train_step)
    model.eval()
    return Speed(train, clips_per_second(eval_step))


def measure_decoding(videos: Sequence[Path]) -> float:
    """Seconds to decode all `videos` with a process a core, from a few of them.

    Videos that cannot be decoded are left out; the first only warms up, where there are more.
    """
    seconds = []
    for path in videos[:: max(1, len(videos) // _TIMED_VIDEOS)][: _TIMED_VIDEOS + 1]:
        start = time.perf_counter()
        try:
            list(decode_clips(path, ClipSampler(), (128, 171)))
        except VideoDecodeError:
            continue
        seconds.append(time.perf_counter() - start)
    timed = seconds[1:] or seconds
    return sum(timed) / max(1, len(timed)) * len(videos) / (os.cpu_count() or 1)

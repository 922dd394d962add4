"""Does a training step fit in the device's memory? Said before the first step, asked after a full
one, and answered with the largest batch by `--batch-size auto`.

The need is foretold on tensors without data (`har.training.inspection.memory_estimate`), in about 0.3 s, after the first
that loads torch's fake tensors (2 s). What a convolution library takes as work space is not in it,
so auto fills `SAFE` of the memory only, and on CUDA tries a real step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...shards.transforms.clip_transform import ClipTransform
from .. import step
from ..config import Config, ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..state import TrainState
    from .distributed import DistributedContext

MOST = 256  # clips that --batch-size auto takes at most: larger batches want another learning rate
SAFE = 0.8  # of the free memory
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Task:
    """A training step whose memory is foretold. stored: (T,H,W,C) of the shards."""

    config: Config
    model: nn.Module
    wanted: ClipTransform
    stored: tuple[int, ...]
    device: torch.device
    precision: torch.dtype

    def needs(self, clips: int) -> int:
        """Bytes that a step of `clips` clips takes beyond the weights, which are there already."""
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        from ..inspection import memory_estimate, model_summary

        model = copy.deepcopy(self.model)
        for module in model.modules():
            if isinstance(module, torch.nn.SyncBatchNorm):  # as much memory, and asks no other rank
                module.__class__ = torch.nn.BatchNorm3d  # type: ignore[assignment]
        with FakeTensorMode():
            model_summary._empty(model)
            shape = (max(2, clips), 3, self.wanted.frames, *self.wanted.crop_size)
            batch = torch.empty(shape).contiguous(memory_format=torch.channels_last_3d)
            whole = memory_estimate.foretell(model, batch, self.precision)
        optimizer = whole.optimizer // (2 if self.config.optimizer == "sgd" else 1)
        activations = whole.activations * clips // max(2, clips)  # a batch norm refuses one clip
        return whole.gradients + optimizer + activations + clips * self.fed

    @property
    def fed(self) -> int:
        """Bytes a clip that the feed holds: on CUDA the next batch as it is augmented, on the CPU
        the rings of the train and the val side."""
        frames, (height, width) = self.wanted.frames, self.wanted.crop_size
        ready = frames * height * width * 3 * _FLOAT
        if self.device.type == "cpu":
            return 8 * ready
        stored = frames * self.stored[1] * self.stored[2] * self.stored[3]
        return stored * (1 + _FLOAT) + 3 * ready


def free(device: torch.device) -> int | None:
    """Bytes that this process can still take on `device`; None where the system does not say."""
    import torch

    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    found = [size for size in (_available(), _left_in_group()) if size is not None]
    return min(found, default=None)


def _available() -> int | None:
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    row = next(row for row in info.read_text().splitlines() if row.startswith("MemAvailable"))
    return int(row.split()[1]) * 1024


def _left_in_group() -> int | None:
    """What a container's limit leaves (cgroup v2), page cache not counted as taken."""
    root = Path("/sys/fs/cgroup")
    try:
        most = (root / "memory.max").read_text().strip()
        if most == "max":
            return None
        rows = (row.split() for row in (root / "memory.stat").read_text().splitlines())
        taken = {name: int(value) for name, value in rows}
        used = int((root / "memory.current").read_text())
        return int(most) - used + taken["active_file"] + taken["inactive_file"]
    except (OSError, ValueError, KeyError):
        return None


def largest(task: Task, room: int, most: int) -> int:
    """The largest power of two of clips, at most `most`, that a step fits into `room` bytes; 0
    where not even one does. A step's need rises with its clips, so halves are tried from above."""
    clips = 1 << max(0, most.bit_length() - 1)
    while clips and task.needs(clips) > room:
        clips //= 2
    return clips


def settle_batch(task: Task, most: int, ranks: DistributedContext) -> tuple[Config, str]:
    """`--batch-size auto` -> the config with the number, and a line for the log.

    most: clips of the train side. Every rank gets the same. Raises ConfigError where not even one
    clip fits.
    """

    def agree(number: int) -> int:
        return -ranks.any(-number, task.device)  # the smallest of all

    room = free(task.device)
    if room is None:
        raise ConfigError(
            "--batch-size auto cannot see how much memory is free here: give a number."
        )
    clips = agree(largest(task, int(room * SAFE), max(1, min(MOST, most) // ranks.count)))
    while clips and task.device.type == "cuda" and not agree(int(_runs(task, clips))):
        clips //= 2
    if clips == 0:
        raise ConfigError(
            f"not one clip fits into the {_size(room)} free on {task.device} (a step of one needs "
            f"{_size(task.needs(1))}): use fewer --frames, a smaller --size or another --device."
        )
    found = replace(task.config, batch_size=clips * ranks.count)
    return found, f"--batch-size auto: {found.batch_size}"


def _runs(task: Task, clips: int) -> bool:
    """Whether a real step fits, with the optimizer's and the feed's memory taken (CUDA)."""
    import torch

    weights = sum(p.nbytes for p in task.model.parameters())
    copies = (1 if task.config.optimizer == "sgd" else 2) + bool(task.config.ema)
    try:
        taken = copies * weights + clips * task.fed
        beside = torch.empty(taken, dtype=torch.uint8, device=task.device)
        batch = step.random_clips(clips, task.wanted.frames, task.wanted.crop_size, task.device)
        step.dummy_step(task.model, batch, task.precision)
        del beside
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def foretell(trainer: TrainState) -> str:
    """Note the free memory in `trainer.room`; -> the line on whether a step fits, before the first.

    A step that does not fit by the estimate is a warning: the estimate may be wrong.
    """
    task, clips = _task(trainer), _at_once(trainer)
    trainer.room = free(trainer.device)
    try:
        need = task.needs(clips)
    except Exception as error:  # an operator that fake tensors do not know must not stop a run
        return f"memory: no estimate ({type(error).__name__})"
    if trainer.device.type == "cpu":
        need -= clips * task.fed  # the rings are there already
    if trainer.room is None:
        return f"memory: a step of {clips} clips takes {_size(need)}"
    line = f"memory: a step of {clips} clips takes {_size(need)} of {_size(trainer.room)} free"
    if need <= trainer.room:
        return line
    return f"{line}\nwarning: that will hardly fit on {trainer.device}: {_advice(trainer)}."


def too_large(trainer: TrainState) -> str:
    """What to do now that the device's memory is full."""
    T, (H, W) = trainer.preprocessing.frames, trainer.preprocessing.crop_size
    try:
        advice = _advice(trainer)
    except Exception:  # no estimate must not hide what happened
        advice = f"use --accumulate {trainer.config.accumulate * 2} or fewer --frames"
    return (
        f"{trainer.device} is out of memory with {_at_once(trainer)} clips of {T}x{H}x{W} at once: "
        f"{advice}; what was saved is in {trainer.folder}."
    )


def is_full(error: BaseException) -> bool:
    """Whether `error` says that memory is full; torch's CPU allocator has no type for it."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _advice(trainer: TrainState) -> str:
    """The largest batch that should fit, and the two options that save most."""
    task, ranks = _task(trainer), trainer.ranks.count
    below = max(1, _at_once(trainer) // 2)  # whatever the estimate says, this batch did not fit
    fits = below if trainer.room is None else largest(task, trainer.room, below)
    batch = fits * ranks * trainer.config.accumulate
    first = f"by the estimate --batch-size {batch} fits" if fits else "not one clip fits"
    options = sorted(_options(trainer, task))[:2]
    helpful = " and ".join(f"{text} ({_size(need)} a step)" for need, text in options)
    return f"{first}; what helps most is {helpful}" if helpful else first


def _options(trainer: TrainState, task: Task) -> list[tuple[int, str]]:
    """What could be changed, each with the bytes a step then takes."""
    import torch

    config, clips, found = task.config, _at_once(trainer), []
    if clips % 2 == 0:
        text = f"--accumulate {config.accumulate * 2}, the same batch in more parts"
        found.append((task.needs(clips // 2), text))
    if config.frames > 1:
        shorter = replace(task, wanted=replace(task.wanted, frames=config.frames // 2))
        found.append((shorter.needs(clips), f"--frames {config.frames // 2}"))
    if task.precision == torch.float32 and task.device.type == "cuda":
        half = replace(task, precision=torch.bfloat16)
        found.append((half.needs(clips), "--precision bf16"))
    if config.model == "convlstm" and config.options.get("memory") == "fast":
        lean = replace(task, model=_lean(config, len(trainer.manifest.classes)))
        found.append((lean.needs(clips), "--model-options memory=lean"))
    return found


def _lean(config: Config, classes: int) -> nn.Module:
    from ... import models
    from ..state import model_options

    options: dict[str, Any] = {**model_options(config), "memory": "lean"}
    return models.build(config.model, classes, **options)


def _task(trainer: TrainState) -> Task:
    return Task(
        trainer.config,
        trainer.model,
        trainer.preprocessing,
        trainer.manifest.clip_shape,
        trainer.device,
        trainer.precision,
    )


def _at_once(trainer: TrainState) -> int:
    """Clips of one forward pass on one device."""
    return trainer.config.batch_size // trainer.config.accumulate // trainer.ranks.count


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

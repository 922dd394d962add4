"""Device memory: how much is free, the batch that `--batch-size auto` finds, and what helps when
memory is full.
"""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import Config, ConfigError
from .distributed import DistributedContext

resource: Any = None
with contextlib.suppress(ImportError):  # Windows has none
    import resource

MAX_BATCH = 256  # clips that --batch-size auto takes: larger batches want another learning rate
_SAFE = 0.8  # of the free memory of the CPU
_KEEP_SHARE = 0.25  # of the free memory: what is kept to save time may take that much
# A clip's bytes at a step's peak over those that autograd saves: 0.96-1.02 for the ResNets, up to
# 1.8 for the ConvLSTM, which takes more in the loader than here.
_PEAK_OVER_SAVED = 1.5


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process can still take on `device`; None where the system does not say."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type != "cpu":
        module = torch.get_device_module(device)
        cached = module.memory_reserved(device) - module.memory_allocated(device)
        return int(module.mem_get_info(device)[0]) + cached
    sizes = (_proc_bytes("/proc/meminfo", "MemAvailable"), _cgroup_free_bytes())
    return min((size for size in sizes if size is not None), default=None)


def is_short(num_bytes: int, device: torch.device) -> bool:
    """Whether `num_bytes` more is much for `device`: over a quarter of what is free, or unknown."""
    free = free_bytes(device)
    return free is None or num_bytes > _KEEP_SHARE * free


def peak_bytes(device: torch.device) -> int | None:
    """Most memory used so far: of the device's allocator, or of this process on the CPU; None
    where the system does not say (Windows, mps).

    VmHWM where there is a /proc: Linux hands ru_maxrss on through fork and exec, so that a small
    process started by a large one reports the large one's peak.
    """
    if device.type == "mps":
        return None
    if device.type != "cpu":
        return int(torch.get_device_module(device).max_memory_allocated(device))
    peak = _proc_bytes("/proc/self/status", "VmHWM")
    if peak is not None or resource is None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _proc_bytes(path: str, name: str) -> int | None:
    """The value of a line like "VmHWM: 123 kB"; None where there is no /proc."""
    if not Path(path).exists():
        return None
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _cgroup_free_bytes() -> int | None:
    """What a container's limit leaves (cgroup v2), page cache not counted as used."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return None
        lines = (line.split() for line in (root / "memory.stat").read_text().splitlines())
        stat = {name: int(value) for name, value in lines}
        used = int((root / "memory.current").read_text())
        return int(limit) - used + stat["active_file"] + stat["inactive_file"]
    except (OSError, ValueError, KeyError):
        return None


@dataclass(frozen=True)
class BatchTrial:
    """Training steps of different sizes, to find the largest that fits.

    step: runs one with so many clips, forward and backward. weight_bytes: of the weights that
    train, and so of their gradients. state_bytes: what comes beside a step (optimizer, EMA, cached
    clips). clip_bytes: what a clip takes in the loader.
    """

    step: Callable[[int], None]
    device: torch.device
    weight_bytes: int
    state_bytes: int
    clip_bytes: int

    def find(self, num_clips: int, ctx: DistributedContext) -> int:
        """The batch size over all ranks; alike on all of them. num_clips: of the train subset.

        Raises ConfigError where not even one clip fits.
        """
        free = free_bytes(self.device)
        if free is None:
            raise ConfigError(
                "--batch-size auto cannot see how much memory is free here: give a number."
            )
        cpu_limit = self._cpu_limit(free) if self.device.type == "cpu" else None

        def fits(clips: int) -> bool:
            here = self._runs(clips) if cpu_limit is None else clips <= cpu_limit
            return not ctx.all_reduce_max(int(not here), self.device)

        clips = find_batch_size(fits, max(1, min(MAX_BATCH, num_clips) // ctx.world_size))
        if clips == 0:
            raise ConfigError(
                f"not one clip fits into the {free / 1e9:.1f} GB free on {self.device}: use fewer "
                "--frames, a smaller --size or another --device."
            )
        return clips * ctx.world_size

    def _cpu_limit(self, free: int) -> float:
        """How many clips fit by what autograd saves: on the CPU a full memory kills the process."""
        saved = (saved_bytes(lambda: self.step(4)) - saved_bytes(lambda: self.step(2))) / 2
        budget = _SAFE * free - self.weight_bytes - self.state_bytes
        return budget / max(1, self.clip_bytes + _PEAK_OVER_SAVED * saved)

    def _runs(self, clips: int) -> bool:
        """Whether a real step fits, with the memory of optimizer and loader taken (CUDA)."""
        reserved, fits = None, False
        num_bytes = self.state_bytes + clips * self.clip_bytes
        with contextlib.suppress(torch.OutOfMemoryError):
            reserved = torch.empty(num_bytes, dtype=torch.uint8, device=self.device)
            self.step(clips)
            fits = True
        del reserved  # before the cache is emptied
        torch.get_device_module(self.device).empty_cache()
        return fits


def find_batch_size(fits: Callable[[int], bool], limit: int, start: int = 8) -> int:
    """The largest power of two of clips, at most `limit`, for which `fits` is true; 0 for none.

    Doubles from `start` until a step does not fit, or halves where `start` does not.
    """
    size = min(start, 1 << (limit.bit_length() - 1))
    if fits(size):
        while size * 2 <= limit and fits(size * 2):
            size *= 2
        return size
    while size and not fits(size):
        size //= 2
    return size


def saved_bytes(step: Callable[[], None]) -> int:
    """Bytes of the tensors that autograd keeps for the backward pass of `step`."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(sizes.values())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory is full; torch's CPU allocator has no type for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def out_of_memory_message(
    config: Config, batch_size: int, device: torch.device, precision: torch.dtype, folder: Path
) -> str:
    """One sentence with what helps. batch_size: clips of one forward pass on one device."""
    advice = []
    if batch_size % 2 == 0:
        parts = config.grad_accum_steps * 2
        advice.append(f"--grad-accum-steps {parts} (the same batch in more parts)")
    if config.cache == "gpu":
        advice.append("--cache ram")
    if config.model == "convlstm" and config.recompute != "on":
        advice.append("--recompute on")
    if precision == torch.float32 and device.type == "cuda":
        advice.append("--precision bf16 (fp16 on a GPU without bf16 units)")
    if config.frames > 1:
        advice.append(f"--frames {config.frames // 2}")
    advice.append("a smaller --size or --batch-size")
    return (
        f"{device} is out of memory with {batch_size} clips of {config.frames} frames at once: use "
        f"{', '.join(advice[:-1])} or {advice[-1]}; what was saved is in {folder}."
    )

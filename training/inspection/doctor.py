"""har-doctor: is this machine fit to decode and train? One line a check, and what to do about it.

Notes:
- Arithmetic is probed, not looked up: torch 2.9 had 3-D convolutions in bfloat16 that were wrong
  and 10 to 20 times slow, and torch 2.15 leaves parts of a CPU gradient unwritten at depth 2.
- Decoding is checked by the commands themselves (`har-shards synthetic`, then `build`) in a process
  of their own, since nothing but prediction may import the decoder here, and since a broken codec
  library can take its process down.
"""

import contextlib
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..runtime import device as devices
from ..runtime import memory

OK, WARNING, FAIL = "OK", "warning", "fail"
GB = 1e9
TORCH = (2, 10)  # the first whose 3-D convolutions in bfloat16 are right on CUDA
SLOW = 3.0  # on a GPU, a bfloat16 convolution this many times slower than float32 is a fault
FULL_SET = 14 * GB  # UCF101 as 13,320 clips of 16x128x171
LIBRARIES = ("torchvision", "av", "numpy", "webdataset", "pillow", "matplotlib")


@dataclass(frozen=True)
class Line:
    """One check. status: OK, warning or fail; remedy: what to do, empty if all is well."""

    name: str
    status: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        hint = f"\n{'':24s}-> {self.remedy}" if self.remedy else ""
        return f"{self.status:9s}{self.name:15s}{self.text}{hint}"


# What a check says, then its possible faults, worst first: (is it so, status, remedy).
Fault = tuple[bool, str, str]
Result = tuple[str, list[Fault]]


def run_checks(device: str, folder: Path) -> Iterator[Line]:
    """All checks, one after the other. folder: where data would go (disk space).

    A check that breaks is a line too, never a traceback. ConfigError for a device not there.
    """
    target = devices.select_device(device)
    for name in CHECKS:
        yield run_check(name, target, folder)


def run_check(name: str, device: torch.device, folder: Path) -> Line:
    """One of `CHECKS` -> its line: OK, or the first fault that is so."""
    try:
        text, faults = CHECKS[name](device, folder)
    except Exception as error:  # whatever is broken on a strange machine, the rest is checked
        text = f"the check itself failed: {type(error).__name__}: {error}".splitlines()[0]
        return Line(name, FAIL, text, "see the message; report it if it is ours")
    for is_so, status, remedy in faults:
        if is_so:
            return Line(name, status, text, remedy)
    return Line(name, OK, text)


def _check_torch(*_: Any) -> Result:
    text = f"{torch.__version__}, Python {platform.python_version()}"
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    return text, [
        (version < TORCH, FAIL, "pip install 'torch>=2.10' (2.9 has wrong bf16 in 3-D)"),
    ]


def _check_libraries(*_: Any) -> Result:
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    missing = [name for name in LIBRARIES if name not in versions]
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    if missing:
        text = f"missing: {', '.join(missing)}"
    return text, [(bool(missing), FAIL, "pip install -e .")]


def _check_device(device: torch.device, _: Path) -> Result:
    """What trains; more threads than cores is a warning, for it can cost tens of times."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}", []
    linux = sys.platform.startswith("linux")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    text = f"{device} ({platform.machine()}), {threads} thread{plural} on {cores} cores"
    return text, [(threads > cores, WARNING, f"OMP_NUM_THREADS={cores} har-train ...")]


def _check_memory(device: torch.device, _: Path) -> Result:
    """Free memory of the machine, and of the GPU."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = memory.available_bytes() or total
    text, least = f"{free / GB:.1f} of {total / GB:.1f} GB free", free
    if device.type == "cuda":
        gpu_free, gpu_total = torch.cuda.mem_get_info(device)
        text = f"GPU {gpu_free / GB:.1f} of {gpu_total / GB:.1f} GB free; {text}"
        least = min(free, gpu_free)
    remedy = "end other programs, or train with a smaller --batch-size (see har-models show)"
    return text, [(least < 4 * GB, WARNING, remedy)]


def _check_cudnn(device: torch.device, _: Path) -> Result:
    if device.type != "cuda":
        return "not used on the CPU", []
    if not torch.backends.cudnn.is_available():
        return "not available", [(True, FAIL, "install a torch built with cuDNN")]
    return str(torch.backends.cudnn.version()), []


def _check_bf16(device: torch.device, _: Path) -> Result:
    """A bfloat16 3-D convolution's gradient against float32's: error and speed.

    A slow one fails on a GPU only: a CPU without bf16 units is sound, and trains in float32.
    """
    on_gpu = device.type == "cuda"
    error, speedup = _probe_cuda(device) if on_gpu else devices.probe_bf16()
    text = f"3-D convolution: relative error {error:.2g}, {speedup:.1f}x the speed of float32"
    raw_error = error if on_gpu else devices.probe_bf16(workaround=False)[0]
    if raw_error > devices.BF16_TOLERANCE >= error:
        text += f" (with our workaround; torch alone has error {raw_error:.2g} at depth 2)"
    faults = [
        (error > devices.BF16_TOLERANCE, FAIL, "train with --precision fp32, or another torch"),
        (on_gpu and speedup < 1 / SLOW, FAIL, "pip install 'torch>=2.10', or --precision fp32"),
    ]
    if not any(is_so for is_so, *_ in faults):
        text += f"; --precision auto takes {'bf16' if on_gpu or speedup > 1 else 'fp32'}"
    return text, faults


def _check_layout(device: torch.device, _: Path) -> Result:
    """A training step of a 3-D convolution, channels_last_3d against contiguous."""
    dtype = devices.select_precision("auto", device)
    formats = (torch.contiguous_format, torch.channels_last_3d)
    plain, last = (_time_convolution(device, dtype, form)[1] for form in formats)
    name = str(dtype).removeprefix("torch.")
    text = f"channels_last_3d {plain / last:.2f}x the speed of contiguous ({name}); it is used"
    return text, [(last > 1.2 * plain, WARNING, "training works but is slower here; report it")]


def _check_decoding(*_: Any) -> Result:
    """Write six synthetic videos, build a shard set of them, verify it; in another process."""
    code = "import sys; from har.pipeline.cli import shards_main; shards_main(sys.argv[1:])"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        videos, shards = f"{folder}/videos", f"{folder}/shards"
        for arguments in (
            ["synthetic", videos, "--groups", "1", "--clips", "1"],
            ["build", videos, "--out", shards, "--frames", "4", "--size", "32x40"],
            ["verify", shards],
        ):
            command = [sys.executable, "-c", code, *arguments]
            process = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if process.returncode:
                message = process.stderr.strip() or f"exit code {process.returncode}"
                text = f"har-shards {arguments[0]}: {message.splitlines()[-1]}"
                return text, [(True, FAIL, "pip install --force-reinstall av")]
    seconds = time.perf_counter() - start
    return f"6 videos written, decoded and verified in {seconds:.1f} s", []


def _check_shared_memory(*_: Any) -> Result:
    """Free space in /dev/shm, which containers keep at 64 MB unless told."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return "no /dev/shm on this system", []
    free = shutil.disk_usage(path).free
    remedy = "docker run --shm-size=2g, or --workers 0"
    return f"{free / GB:.2f} GB free in {path}", [(free < 1 * GB, WARNING, remedy)]


def _check_open_files(*_: Any) -> Result:
    """How many files a process may hold open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    remedy = f"ulimit -n {4096 if hard < 0 or hard >= 4096 else hard}"
    return f"at most {soft}", [(soft < 128, FAIL, remedy), (soft < 1024, WARNING, remedy)]


def _check_disk(_: torch.device, folder: Path) -> Result:
    """Free space where data goes: UCF101 as clips of 16x128x171 takes 14 GB."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    remedy = "too little for all of UCF101 (14 GB); smaller: har-shards build --size 64x86"
    return f"{free / GB:.1f} GB free for {folder}", [
        (free < 0.5 * GB, FAIL, "free some space, or pass --folder another disk"),
        (free < FULL_SET, WARNING, remedy),
    ]


CHECKS: dict[str, Callable[[torch.device, Path], Result]] = {
    "torch": _check_torch,
    "libraries": _check_libraries,
    "device": _check_device,
    "memory": _check_memory,
    "cuDNN": _check_cudnn,
    "bf16": _check_bf16,
    "layout": _check_layout,
    "decoding": _check_decoding,
    "shared memory": _check_shared_memory,
    "open files": _check_open_files,
    "disk": _check_disk,
}


def _probe_cuda(device: torch.device) -> tuple[float, float]:
    """-> (relative error of a bfloat16 convolution's weight gradient, speed over float32)."""
    (exact, slow), (rough, fast) = (
        _time_convolution(device, dtype, torch.channels_last_3d)
        for dtype in (torch.float32, torch.bfloat16)
    )
    return devices.relative_error(rough, exact), slow / fast


def _time_convolution(
    device: torch.device, dtype: torch.dtype, form: torch.memory_format
) -> tuple[torch.Tensor, float]:
    """-> float32 weight gradient of a convolution as in group 1, and the seconds of a step."""
    random = torch.Generator().manual_seed(0)
    batch, side = (8, 56) if device.type == "cuda" else (1, 28)
    x = torch.randn(batch, 64, 8, side, side, generator=random)
    weight = torch.randn(64, 64, 3, 3, 3, generator=random) * 0.05
    x, weight = (t.to(device, dtype).contiguous(memory_format=form) for t in (x, weight))
    return devices.time_weight_gradient(x.requires_grad_(), weight, torch.ones_like(x))

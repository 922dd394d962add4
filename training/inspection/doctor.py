"""har-doctor: is this machine fit to decode and train? One line a check, and what to do about it.

Notes:
- Arithmetic is probed, not looked up: torch 2.9 had 3-D convolutions in bfloat16 that were wrong
  and 10 to 20 times slow, and torch 2.15 leaves parts of a CPU gradient unwritten at depth 2. What
  is only slow is no fault of a processor or a GPU without units for it: it trains in another
  precision.
- Decoding is checked by the commands themselves (`har-shards synthetic`, `build`, `verify`), each
  in a process of its own: a broken codec library can take its process down.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..runtime import device as devices
from ..runtime import memory, unusable_gpu
from ..runtime.memory import resource
from ..runtime.precision import NAMES, candidates, fastest, probe_precision, time_convolution
from ..runtime.run_dir import installed_versions

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
    target = devices.select_device(device, untested=True)
    for name in CHECKS:
        if name != "GPU" or device != "cpu":  # asked for: a GPU beside it is none of its business
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
    versions = installed_versions(LIBRARIES)
    missing = [name for name in LIBRARIES if name not in versions]
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    if missing:
        text = f"missing: {', '.join(missing)}"
    return text, [(bool(missing), FAIL, "pip install -e .")]


def _check_device(device: torch.device, _: Path) -> Result:
    """What trains; more threads than cores is a warning, for it can cost tens of times."""
    name = devices.device_name(device)
    if device.type == "cuda":
        build = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return f"{device}, {name}, {build}", []
    if device.type != "cpu":
        remedy = "har-train tries a step first, and says so; if it is wrong: --device cpu"
        return f"{name}: no test of ours has run on {device.type}", [(True, WARNING, remedy)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    text = f"{device} ({platform.machine()}), {threads} thread{plural} on {cores} cores"
    return text, [(threads > cores, WARNING, f"OMP_NUM_THREADS={cores} har-train ...")]


def _check_gpu(device: torch.device, _: Path) -> Result:
    """A GPU that is there and that torch cannot use."""
    if device.type != "cpu":
        return f"{device} is used", []
    fault = unusable_gpu.find_fault()
    if fault is None:
        return "no NVIDIA GPU to be seen", []
    return fault.text, [(True, FAIL, fault.remedy)]


def _check_memory(device: torch.device, _: Path) -> Result:
    """Free memory of the machine, and of the GPU."""
    free = {name: memory.free_bytes(torch.device(name)) for name in ("cpu", str(device))}
    known = {name: num_bytes for name, num_bytes in free.items() if num_bytes is not None}
    if not known:
        return "this system does not say how much is free", []
    text = ", ".join(f"{num_bytes / GB:.1f} GB free ({name})" for name, num_bytes in known.items())
    least = min(known.values())
    remedy = "end other programs, or train with a smaller --batch-size (see har-models show)"
    return text, [(least < 4 * GB, WARNING, remedy)]


def _check_cudnn(device: torch.device, _: Path) -> Result:
    if device.type != "cuda":
        return f"not used on {'the CPU' if device.type == 'cpu' else device.type}", []
    if not torch.backends.cudnn.is_available():
        return "not available", [(True, FAIL, "install a torch built with cuDNN")]
    return str(torch.backends.cudnn.version()), []


def _check_precision(device: torch.device, _: Path) -> Result:
    """A 3-D convolution's gradient in bf16 and fp16 against float32's: error and speed.

    A slow one fails on a GPU with units for it only: elsewhere float32, or fp16, is simply right.
    """
    probes = {dtype: probe_precision(dtype, device) for dtype in candidates(device)}
    texts, faults = [], []
    for dtype, probe in probes.items():
        name = NAMES[dtype]
        text = f"{name} error {probe.error:.2g}, {probe.speedup:.2g}x the speed of fp32"
        if device.type == "cpu" and probe.is_right:
            plain = probe_precision(dtype, device, workaround=False)
            if not plain.is_right:
                text += f" (by our workaround; torch alone has error {plain.error:.2g} at depth 2)"
        texts.append(text)
        is_slow = device.type == "cuda" and probe.speedup < 1 / SLOW
        faults += [
            (not probe.is_right, FAIL, f"{name} is wrong here: --precision auto leaves it out"),
            (is_slow, FAIL, f"{name} is too slow here: another torch, at least 2.10"),
        ]
    texts.append(f"auto takes {NAMES[fastest(probes)]}")
    return "3-D convolution: " + "; ".join(texts), faults


def _check_layout(device: torch.device, _: Path) -> Result:
    """A training step of a 3-D convolution, channels_last_3d against contiguous."""
    dtype = fastest({dtype: probe_precision(dtype, device) for dtype in candidates(device)})
    formats = (torch.contiguous_format, torch.channels_last_3d)
    plain, last = (time_convolution(device, dtype, form)[1] for form in formats)
    name = str(dtype).removeprefix("torch.")
    text = f"channels_last_3d {plain / last:.2f}x the speed of contiguous ({name}); it is used"
    return text, [(last > 1.2 * plain, WARNING, "training works but is slower here; report it")]


def _check_decoding(*_: Any) -> Result:
    """Write six synthetic videos, build a shard set of them, verify it; in another process."""
    code = "import sys; from har.pipeline.cli import shards_main; shards_main(sys.argv[1:])"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        videos, shards = f"{folder}/videos", f"{folder}/shards"
        small = ["--frames", "4", "--size", "32x40", "--workers", "1"]
        for arguments in (
            ["synthetic", videos, "--groups", "1", "--clips", "1"],
            ["build", videos, "--out", shards, *small],
            ["verify", shards],
        ):
            command = [sys.executable, "-c", code, *arguments]
            process = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if process.returncode:
                message = process.stderr.strip() or f"exit code {process.returncode}"
                text = f"har-shards {arguments[0]}: {message.splitlines()[-1]}"
                is_ours = "Traceback" in message and not re.search(
                    "(Import|NotFound)Error", message
                )
                remedy = (
                    "report it: a fault of har" if is_ours else "pip install --force-reinstall av"
                )
                return text, [(True, FAIL, remedy)]
    seconds = time.perf_counter() - start
    return f"6 videos written, decoded and verified in {seconds:.1f} s", []


def _check_shared_memory(*_: Any) -> Result:
    """Free space in /dev/shm, which containers keep at 64 MB unless told."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return "no /dev/shm on this system", []
    free = shutil.disk_usage(path).free
    remedy = "docker run --shm-size=2g: ranks (NCCL) and a DataLoader's workers need it"
    return f"{free / GB:.2f} GB free in {path}", [(free < 1 * GB, WARNING, remedy)]


def _check_open_files(*_: Any) -> Result:
    """How many files a process may hold open."""
    if resource is None:
        return "no limit known on this system", []
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
    "GPU": _check_gpu,
    "memory": _check_memory,
    "cuDNN": _check_cudnn,
    "precision": _check_precision,
    "layout": _check_layout,
    "decoding": _check_decoding,
    "shared memory": _check_shared_memory,
    "open files": _check_open_files,
    "disk": _check_disk,
}

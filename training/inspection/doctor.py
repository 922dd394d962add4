"""har-doctor: is this machine fit to decode and train? One line a check, and what to do about it.

Notes:
- Arithmetic is probed, not looked up: torch 2.9 had 3-D convolutions in bfloat16 that were wrong
  and 10 to 20 times slow, and torch 2.15 leaves parts of a CPU gradient unwritten at depth 2.
- Decoding is checked by the commands themselves (`har-shards synthetic`, then `build`) in a process
  of their own, since nothing but prediction may import the decoder here, and since a broken codec
  library can take its process down.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F

from ..runtime import device as devices

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


def run_checks(device: str, folder: Path) -> Iterator[Line]:
    """All checks, one after the other. folder: where data would go (disk space).

    A check that breaks is a line too, never a traceback. ConfigError for a device not there.
    """
    target = devices.select_device(device)
    checks: list[tuple[str, Callable[[], Line]]] = [
        ("torch", check_torch),
        ("libraries", check_libraries),
        ("device", lambda: check_device(target)),
        ("memory", lambda: check_memory(target)),
        ("cuDNN", lambda: check_cudnn(target)),
        ("bf16", lambda: check_bf16(target)),
        ("layout", lambda: check_layout(target)),
        ("decoding", check_decoding),
        ("shared memory", check_shared_memory),
        ("open files", check_open_files),
        ("disk", lambda: check_disk(folder)),
    ]
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # whatever is broken on a strange machine, the rest is checked
            text = f"the check itself failed: {type(error).__name__}: {error}"
            yield Line(name, FAIL, text.splitlines()[0], "see the message; report it if it is ours")


def check_torch() -> Line:
    """Python's and torch's versions; torch below 2.10 fails."""
    text = f"{torch.__version__}, Python {platform.python_version()}"
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < TORCH:
        return Line("torch", FAIL, text, "pip install 'torch>=2.10' (2.9 has wrong bf16 in 3-D)")
    return Line("torch", OK, text)


def check_libraries() -> Line:
    """Versions of the other libraries; a missing one fails."""
    versions, missing = [], []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Line("libraries", FAIL, f"missing: {', '.join(missing)}", "pip install -e .")
    return Line("libraries", OK, ", ".join(versions))


def check_device(device: torch.device) -> Line:
    """What trains; more threads than cores is a warning, for it can cost tens of times."""
    if device.type == "cuda":
        return Line(
            "device",
            OK,
            f"{device}, {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}",
        )
    cores = len(os.sched_getaffinity(0)) if _linux() else os.cpu_count() or 1
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    text = f"{device} ({platform.machine()}), {threads} thread{plural} on {cores} cores"
    if threads > cores:
        return Line("device", WARNING, text, f"OMP_NUM_THREADS={cores} har-train ...")
    return Line("device", OK, text)


def check_memory(device: torch.device) -> Line:
    """Free memory of the machine, and of the GPU."""
    text, minimum = "", 4 * GB
    free = float("inf")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        text = f"GPU {free / GB:.1f} of {total / GB:.1f} GB free; "
    host, host_total = _host_memory()
    text += f"{host / GB:.1f} of {host_total / GB:.1f} GB free"
    if min(free, host) < minimum:
        remedy = "end other programs, or train with a smaller --batch-size (see har-models show)"
        return Line("memory", WARNING, text, remedy)
    return Line("memory", OK, text)


def check_cudnn(device: torch.device) -> Line:
    """cuDNN's version where a GPU trains."""
    if device.type != "cuda":
        return Line("cuDNN", OK, "not used on the CPU")
    if not torch.backends.cudnn.is_available():
        return Line("cuDNN", FAIL, "not available", "install a torch built with cuDNN")
    return Line("cuDNN", OK, str(torch.backends.cudnn.version()))


def check_bf16(device: torch.device) -> Line:
    """A bfloat16 3-D convolution's gradient against float32's: error and speed.

    A slow one fails on a GPU only: a CPU without bf16 units is sound, and trains in float32.
    """
    if device.type == "cuda":
        error, gain = _probe_cuda(device)
        raw = error
    else:
        raw, _ = devices.probe_bf16(workaround=False)
        error, gain = devices.probe_bf16()
    text = f"3-D convolution: relative error {error:.2g}, {gain:.1f}x the speed of float32"
    if raw > devices.BF16_TOLERANCE >= error:
        text += f" (with our workaround; torch alone has error {raw:.2g} at depth 2)"
    if error > devices.BF16_TOLERANCE:
        return Line("bf16", FAIL, text, "train with --precision fp32, or another torch")
    if device.type == "cuda" and gain < 1 / SLOW:
        return Line("bf16", FAIL, text, "pip install 'torch>=2.10', or --precision fp32")
    used = "bf16" if device.type == "cuda" or gain > 1 else "fp32"
    return Line("bf16", OK, f"{text}; --precision auto takes {used}")


def check_layout(device: torch.device) -> Line:
    """A training step of a 3-D convolution, channels_last_3d against contiguous."""
    dtype = devices.select_precision("auto", device)
    formats = (torch.contiguous_format, torch.channels_last_3d)
    plain, last = (min(_convolve(device, dtype, form)[1] for _ in range(3)) for form in formats)
    name = str(dtype).removeprefix("torch.")
    text = f"channels_last_3d {plain / last:.2f}x the speed of contiguous ({name}); it is used"
    if last > 1.2 * plain:
        return Line("layout", WARNING, text, "training works but is slower here; report it")
    return Line("layout", OK, text)


def check_decoding() -> Line:
    """Write six synthetic videos, build a shard set of them, verify it; in another process."""
    with tempfile.TemporaryDirectory() as folder:
        videos, shards = f"{folder}/videos", f"{folder}/shards"
        start = time.perf_counter()
        for arguments in (
            ["synthetic", videos, "--groups", "1", "--clips", "1"],
            ["build", videos, "--out", shards, "--frames", "4", "--size", "32x40"],
            ["verify", shards],
        ):
            code = "import sys; from har.pipeline.cli import shards_main; shards_main(sys.argv[1:])"
            process = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                capture_output=True,
                text=True,
                timeout=120,
            )
            if process.returncode:
                message = (
                    process.stderr.strip() or f"exit code {process.returncode}"
                ).splitlines()[-1]
                text = f"har-shards {arguments[0]}: {message}"
                return Line("decoding", FAIL, text, "pip install --force-reinstall av")
        seconds = time.perf_counter() - start
    return Line("decoding", OK, f"6 videos written, decoded and verified in {seconds:.1f} s")


def check_shared_memory() -> Line:
    """Free space in /dev/shm, which containers keep at 64 MB unless told."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return Line("shared memory", OK, "no /dev/shm on this system")
    free = shutil.disk_usage(path).free
    text = f"{free / GB:.2f} GB free in {path}"
    if free < 1 * GB:
        return Line("shared memory", WARNING, text, "docker run --shm-size=2g, or --workers 0")
    return Line("shared memory", OK, text)


def check_open_files() -> Line:
    """How many files a process may hold open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"at most {soft}"
    if soft < 1024:
        remedy = f"ulimit -n {4096 if hard < 0 or hard >= 4096 else hard}"
        return Line("open files", FAIL if soft < 128 else WARNING, text, remedy)
    return Line("open files", OK, text)


def check_disk(folder: Path) -> Line:
    """Free space where data goes: UCF101 as clips of 16x128x171 takes 14 GB."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / GB:.1f} GB free for {folder}"
    if free < 0.5 * GB:
        return Line("disk", FAIL, text, "free some space, or pass --folder another disk")
    if free < FULL_SET:
        remedy = "too little for all of UCF101 (14 GB); smaller: har-shards build --size 64x86"
        return Line("disk", WARNING, text, remedy)
    return Line("disk", OK, text)


def _probe_cuda(device: torch.device) -> tuple[float, float]:
    """-> (relative error of a bfloat16 convolution's weight gradient, speed over float32)."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        runs = [_convolve(device, dtype, torch.channels_last_3d) for _ in range(3)]
        found[dtype] = runs[-1][0], min(spent for _, spent in runs)
    (exact, slow), (rough, fast) = found[torch.float32], found[torch.bfloat16]
    error = ((rough - exact).abs().max() / exact.abs().max()).item()
    return (error if error == error else float("inf")), slow / fast


def _convolve(
    device: torch.device, dtype: torch.dtype, form: torch.memory_format
) -> tuple[torch.Tensor, float]:
    """-> float32 weight gradient of a convolution as in group 1, and the seconds of a step."""
    random = torch.Generator().manual_seed(0)
    batch, side = (8, 56) if device.type == "cuda" else (1, 28)
    x = torch.randn(batch, 64, 8, side, side, generator=random).to(device, dtype)
    weight = (torch.randn(64, 64, 3, 3, 3, generator=random) * 0.05).to(device, dtype)
    x, weight = x.contiguous(memory_format=form), weight.contiguous(memory_format=form)
    x.requires_grad_()
    weight.requires_grad_()
    _synchronize(device)
    start = time.perf_counter()
    y = F.conv3d(x, weight, padding=1)
    y.backward(torch.ones_like(y))
    _synchronize(device)
    assert weight.grad is not None
    return weight.grad.float(), time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _linux() -> bool:
    return sys.platform.startswith("linux")


def _host_memory() -> tuple[float, float]:
    """-> (free, all) bytes of the machine's memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    whole = float(page * os.sysconf("SC_PHYS_PAGES"))
    info = Path("/proc/meminfo")
    if not info.exists():
        return whole, whole
    line = next(row for row in info.read_text().splitlines() if row.startswith("MemAvailable"))
    return float(line.split()[1]) * 1024, whole

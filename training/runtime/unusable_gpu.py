"""An NVIDIA GPU that is there and that torch cannot use: why, and what to install.

Sources: NVIDIA's CUDA compatibility guide (CUDA 13 needs driver 580 or newer, CUDA 12 driver 525);
PyTorch's support matrix (RELEASE.md): builds for CUDA 13 leave out everything before Turing
(compute capability 7.5), those for CUDA 12.6 have 5.0 to 9.0 and ended with torch 2.14.
"""

import os
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

_LEAST_DRIVER = {12: 525, 13: 580}  # of a CUDA major version
_OLD_BUILD = "install 'torch>=2.10,<2.15' and torchvision from PyTorch's package index cu126"
_NEW_BUILD = "install torch and torchvision from PyTorch's package index cu130"
_QUERY = ("name", "driver_version", "compute_cap")


@dataclass(frozen=True)
class Gpu:
    """What nvidia-smi says of the first GPU. driver: None where there is none that answers.
    capability: None where it is unknown (of drivers before 510)."""

    name: str
    driver: str | None = None
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class GpuFault:
    """text: what is there and why it is not used. remedy: what to do."""

    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


def find_fault(index: int = 0) -> GpuFault | None:
    """Why GPU `index` cannot be used; None where it can, or where no NVIDIA GPU is visible."""
    if torch.version.hip or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    with warnings.catch_warnings(record=True) as caught:  # torch's reasons become part of ours
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            if index >= torch.cuda.device_count():
                return None
            capability = torch.cuda.get_device_capability(index)
            if has_kernels(torch.cuda.get_arch_list(), capability):
                return None
            gpu = query_gpu() or Gpu(torch.cuda.get_device_name(index))
            gpu = replace(gpu, capability=capability)
            return explain(gpu, torch.version.cuda, torch.cuda.get_arch_list())
    found = query_gpu()
    if found is None:
        return None
    reason = str(caught[0].message).split(". ")[0] if caught else ""
    return explain(found, torch.version.cuda, torch.cuda.get_arch_list(), reason)


def query_gpu() -> Gpu | None:
    """The first GPU that nvidia-smi knows, or that has a device file; None where there is none."""
    for fields in (_QUERY, _QUERY[:2]):  # an old nvidia-smi does not know the third
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            break
        values = [value.strip() for value in answer.stdout.partition("\n")[0].split(",")]
        if answer.returncode == 0 and len(values) == len(fields):
            major, _, minor = values[2].partition(".") if len(values) > 2 else ("", "", "")
            capability = (int(major), int(minor)) if major.isdigit() else None
            return Gpu(values[0], values[1], capability)
    device_files = sorted(Path("/dev").glob("nvidia[0-9]*"))
    return Gpu(f"an NVIDIA GPU ({device_files[0]})") if device_files else None


def explain(
    gpu: Gpu, build: str | None, architectures: Sequence[str], reason: str = ""
) -> GpuFault:
    """Why `gpu` cannot be used. build: the CUDA version that torch is built for, None for a build
    without; architectures: as of `torch.cuda.get_arch_list()`; reason: torch's own."""
    if gpu.driver is None:
        return GpuFault(
            f"{gpu.name} is there and its driver does not answer (nvidia-smi)",
            "install NVIDIA's driver 580 or newer; in a container, start it with '--gpus all'",
        )
    driver = int(gpu.driver.partition(".")[0])
    least_driver = _LEAST_DRIVER.get(int(build.partition(".")[0]), 0) if build else 0
    name = f"{gpu.name} (driver {gpu.driver}) cannot be used"
    if build is None:
        cause = f"torch {torch.__version__} is a build without CUDA"
    elif gpu.capability and not has_kernels(architectures, gpu.capability):
        capability = ".".join(map(str, gpu.capability))
        built_for = ", ".join(architectures)
        cause = f"its compute capability {capability} is not among this torch's ({built_for})"
    elif driver < least_driver:
        cause = f"this torch is for CUDA {build}, which needs driver {least_driver} or newer"
    else:
        cause = reason or "torch.cuda.is_available() is false"
    return GpuFault(f"{name}: {cause}", advise(gpu.capability, driver))


def advise(capability: tuple[int, int] | None, driver: int) -> str:
    """Which build of torch, or which driver, makes such a GPU usable."""
    if capability and capability < (5, 0):
        return "no build of torch 2.10 or newer has kernels for it: train with '--device cpu'"
    if capability and capability < (7, 5):
        update = "" if driver >= _LEAST_DRIVER[12] else "update NVIDIA's driver to 580, then "
        return f"{update}{_OLD_BUILD}"
    if driver >= _LEAST_DRIVER[13]:
        return _NEW_BUILD
    if driver < _LEAST_DRIVER[12] or (capability and capability >= (10, 0)):
        return f"update NVIDIA's driver to 580 or newer, then {_NEW_BUILD}"
    return f"{_OLD_BUILD}, or update NVIDIA's driver to 580 or newer"


def has_kernels(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether a build for `architectures` ("sm_75", "compute_120", ...) runs on this capability.

    Machine code runs on later minor versions of its major one, PTX on all later ones. A build that
    names no architecture is taken to run.
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        version = divmod(int(number.rstrip("af")), 10)
        if kind == "compute" and version <= capability:
            return True
        if kind == "sm" and version[0] == capability[0] and version[1] <= capability[1]:
            return True
    return not architectures

"""har-doctor on machines that are not here: docs/troubleshooting.md shows what it says there."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from har.training.inspection import doctor
from har.training.runtime import precision, unusable_gpu
from har.training.runtime.precision import Probe

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "troubleshooting.md").read_text()
CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
BF16, FP16 = Probe(0.0035, 1.6), Probe(0.0007, 2.9)


def machine(monkeypatch, *, gpu=None, accelerator=None, machine="x86_64", probes=(BF16, FP16),
            native_bf16=True, shm=8e9):  # fmt: skip
    """gpu: what nvidia-smi answers. accelerator: of torch. shm: bytes free in /dev/shm."""

    def run(command, **_):
        if gpu is None:
            raise FileNotFoundError(command[0])
        return SimpleNamespace(returncode=0, stdout=gpu)

    answers = dict(zip((torch.bfloat16, torch.float16), probes, strict=True))
    module = SimpleNamespace(
        device=lambda _: contextlib.nullcontext(), get_device_name=lambda _: "Tesla T4",
        is_bf16_supported=lambda including_emulation: native_bf16 or including_emulation,
    )  # fmt: skip
    there = None if accelerator is None else torch.device(accelerator)
    for owner, name, value in (
        (subprocess, "run", run),
        (unusable_gpu.Path, "glob", lambda *_: iter(())),
        (torch.accelerator, "current_accelerator", lambda check_available=False: there),
        (torch.accelerator, "device_count", lambda: 1),
        (torch.cuda, "is_available", lambda: accelerator == "cuda"),
        (torch.cuda, "device_count", lambda: int(accelerator == "cuda")),
        (torch.cuda, "get_device_capability", lambda _: (7, 5)),
        (torch.cuda, "get_arch_list", lambda: CUDA_13),
        (torch.version, "cuda", "13.2"),
        (torch, "get_device_module", lambda _: module),
        (torch, "get_num_threads", lambda: 2),
        (os, "cpu_count", lambda: 2),
        (platform, "machine", lambda: machine),
        (doctor, "probe_precision", lambda dtype, device, workaround=True: answers[dtype]),
        (doctor, "Path", lambda name: Path(name if shm else "/nowhere")),
        (shutil, "disk_usage", lambda _: SimpleNamespace(free=shm, total=shm, used=0)),
    ):
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(Path, "is_dir", lambda self: str(self) == "/dev/shm")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


EMULATED = Probe(0.0061, 0.046)
MACHINES = {
    "A GPU that is too old for this torch": {"gpu": "Tesla P100-PCIE-16GB, 580.95.05, 6.0"},
    "A driver that is too old for this torch": {"gpu": "Tesla T4, 550.54.15, 7.5"},
    "A GPU without bf16 units": {"accelerator": "cuda", "native_bf16": False},
    "A processor without bf16 units": {"probes": (EMULATED, EMULATED)},
    "A Mac": {
        "accelerator": "mps", "machine": "arm64", "shm": None,
        "probes": (Probe(0.0036, 1.2), Probe(0.0008, 1.3)),
    },
    "A container with 64 MB of /dev/shm": {"shm": 67.1e6},
}  # fmt: skip
CHECKS = ("device", "GPU", "precision", "shared memory")


@pytest.mark.parametrize("name", list(MACHINES))
def test_the_page_shows_what_the_doctor_says_of_each_machine(name, monkeypatch):
    block = re.search(rf"^## {name}$.*?```\n\$ har-doctor\n(.*?)```", PAGE, re.M | re.S)
    machine(monkeypatch, **MACHINES[name])
    device = doctor.devices.select_device("auto", untested=True)
    lines = [str(doctor.run_check(check, device, Path())) for check in CHECKS]
    assert block is not None
    assert block[1] == "\n".join(lines) + "\n", "\n".join(lines)


def test_a_processor_without_bf16_units_is_sound(monkeypatch):
    machine(monkeypatch, probes=(EMULATED, EMULATED))
    line = doctor.run_check("precision", torch.device("cpu"), Path())
    assert (line.status, line.remedy) == (doctor.OK, "")
    assert precision.fastest({torch.bfloat16: EMULATED}) == torch.float32

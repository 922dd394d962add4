"""A GPU that is there and cannot be used: the reason, and the build or driver that helps."""

import subprocess
import warnings
from types import SimpleNamespace

import pytest
import torch
from tiny_train import message, train

from har.training.runtime import unusable_gpu
from har.training.runtime.unusable_gpu import Gpu, explain, has_kernels

CUDA_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CUDA_12 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
OLD = "install 'torch>=2.10,<2.15' and torchvision from PyTorch's package index cu126"
NEW = "install torch and torchvision from PyTorch's package index cu130"
TOO_OLD = "UserWarning: The NVIDIA driver on your system is too old (found version 11040)"


@pytest.mark.parametrize(
    ("gpu", "build", "architectures", "text", "remedy"),
    [
        (Gpu("Tesla P100", "580.65.06", (6, 0)), "13.2", CUDA_13,
         "compute capability 6.0 is not among this torch's (sm_75, sm_80", OLD),
        (Gpu("Tesla V100", "535.104", (7, 0)), "13.2", CUDA_13, "capability 7.0 is not", OLD),
        (Gpu("Tesla V100", "470.82", (7, 0)), "13.2", CUDA_13, "capability 7.0 is not",
         f"update NVIDIA's driver to 580, then {OLD}"),
        (Gpu("Tesla K80", "470.82", (3, 7)), "13.2", CUDA_13, "capability 3.7 is not",
         "no build of torch 2.10 or newer has kernels for it: train with '--device cpu'"),
        (Gpu("Tesla T4", "550.54.15", (7, 5)), "13.2", CUDA_13,
         "this torch is for CUDA 13.2, which needs driver 580 or newer",
         f"{OLD}, or update NVIDIA's driver to 580 or newer"),
        (Gpu("Tesla T4", "470.82"), "12.6", CUDA_12, "for CUDA 12.6, which needs driver 525",
         f"update NVIDIA's driver to 580 or newer, then {NEW}"),
        (Gpu("RTX 5090", "575.51", (12, 0)), "13.0", CUDA_13, "needs driver 580",
         f"update NVIDIA's driver to 580 or newer, then {NEW}"),
        (Gpu("H100", "580.65", (9, 0)), None, (), "is a build without CUDA", NEW),
        (Gpu("H100", "535.104", (9, 0)), None, (), "is a build without CUDA", OLD),
        (Gpu("an NVIDIA GPU (/dev/nvidia0)"), "13.2", CUDA_13, "its driver does not answer",
         "start it with '--gpus all'"),
        (Gpu("H100", "580.65", (9, 0)), "13.2", CUDA_13, "device busy", NEW),
    ],
)  # fmt: skip
def test_each_cause_has_its_text_and_its_remedy(gpu, build, architectures, text, remedy):
    fault = explain(gpu, build, architectures, reason="device busy")
    assert fault.text.startswith(gpu.name)
    assert text in fault.text
    assert remedy in fault.remedy


@pytest.mark.parametrize(
    ("architectures", "capability", "answer"),
    [
        (CUDA_13, (7, 5), True),
        (CUDA_13, (8, 9), True),  # machine code of 8.6 runs on later minor versions
        (CUDA_13, (7, 0), False),
        (("sm_90a", "compute_90"), (12, 0), True),  # PTX runs on all later ones
        (("sm_86",), (8, 0), False),
        ((), (6, 0), True),  # a build that does not say
    ],
)
def test_which_builds_run_on_which_gpu(architectures, capability, answer):
    assert has_kernels(architectures, capability) == answer


@pytest.fixture
def machine(monkeypatch):
    """A machine without NVIDIA GPU; `machine(...)` gives it one."""

    def fake(*, smi=None, devices=(), available=False, capability=(9, 0), warning=None):
        def run(command, **_):
            fields = command[1].partition("=")[2].split(",")
            if smi is None:
                raise FileNotFoundError("nvidia-smi")
            known = [smi[field] for field in fields if field in smi]
            code = 0 if len(known) == len(fields) else 6
            return SimpleNamespace(returncode=code, stdout=", ".join(known) + "\n")

        def is_available():
            if warning:
                warnings.warn(warning, stacklevel=1)
            return available

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(unusable_gpu.Path, "glob", lambda *_: iter(devices))
        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(available))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(CUDA_13))
        monkeypatch.setattr(torch.version, "cuda", "13.2")
        monkeypatch.setattr(
            torch.accelerator, "current_accelerator",
            lambda check_available=False: torch.device("cuda") if available else None,
        )  # fmt: skip

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake()
    return fake


SMI = {"name": "Tesla T4", "driver_version": "550.54.15", "compute_cap": "7.5"}


@pytest.mark.parametrize(
    ("there", "text"),
    [
        (
            {"smi": SMI, "warning": TOO_OLD},
            "Tesla T4 (driver 550.54.15) cannot be used: this torch",
        ),
        ({"smi": {**SMI, "driver_version": "581.1"}, "warning": TOO_OLD}, "driver on your system"),
        # a driver whose nvidia-smi does not know capabilities
        ({"smi": {"name": "T4", "driver_version": "450.5"}}, "T4 (driver 450.5) cannot be used"),
        ({"devices": ["/dev/nvidia0"]}, "an NVIDIA GPU (/dev/nvidia0) is there and its driver"),
        ({"available": True, "capability": (6, 0)}, "Tesla P100 is there and its driver"),
        ({"available": True, "capability": (6, 0), "smi": SMI}, "capability 6.0 is not among"),
        ({"available": True}, None),
        ({}, None),
    ],
)
def test_what_the_machine_says_becomes_one_fault(machine, there, text):
    machine(**there)
    fault = unusable_gpu.find_fault()
    assert fault is None if text is None else text in fault.text


@pytest.mark.parametrize("value", ["", "-1"])
def test_a_gpu_that_the_user_hides_is_no_fault(machine, monkeypatch, value):
    machine(smi=SMI)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert unusable_gpu.find_fault() is None


def test_training_says_loudly_why_it_runs_on_the_cpu(machine, shards, tmp_path):
    machine(smi=SMI)
    result = train(shards, tmp_path / "run", "--device", "auto", "--epochs", 1)
    assert result.exit_code == 0, result.output
    text = message(result)
    assert text.startswith("WARNING: Tesla T4 (driver 550.54.15) cannot be used: this torch is for")
    assert "this run trains on the CPU. To use the GPU: install 'torch>=2.10,<2.15'" in text
    result = train(shards, tmp_path / "asked", "--device", "cuda")
    assert result.exit_code == 2
    assert "needs driver 580 or newer; install" in message(result)
    assert "WARNING" not in train(shards, tmp_path / "cpu", "--epochs", 1).output  # --device cpu

"""har-doctor: each check's three answers, and the command."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from har.training.cli.models import doctor_main
from har.training.inspection import doctor
from har.training.runtime import device

CPU = torch.device("cpu")


@pytest.mark.parametrize("bf16_speedup", [1.6, 0.02])  # with and without bf16 units
def test_a_sound_machine_passes_and_says_so(
    bf16_speedup: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "probe_bf16", lambda workaround=True: (0.004, bf16_speedup))
    done = CliRunner().invoke(doctor_main, ["--device", "cpu", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    for name in ("torch", "device", "memory", "cuDNN", "bf16", "layout", "decoding", "open files"):
        assert any(line.split(None, 1)[1:] and name in line for line in lines), name
    assert "6 videos written, decoded and verified" in done.output
    assert lines[-1].endswith("0 fail")


def test_a_failing_check_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = doctor.Line("torch", doctor.FAIL, "2.9.1", "pip install 'torch>=2.10'")
    monkeypatch.setattr(doctor, "run_checks", lambda device, folder: iter([broken]))
    done = CliRunner().invoke(doctor_main, [])
    assert done.exit_code == 1
    assert "-> pip install 'torch>=2.10'" in done.output


def test_an_unknown_device_is_one_sentence() -> None:
    done = CliRunner().invoke(doctor_main, ["--device", "abacus"])
    assert done.exit_code == 2
    assert "--device 'abacus' is unknown" in done.output


def test_a_check_that_breaks_is_a_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> doctor.Line:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(doctor, "check_torch", broken)
    monkeypatch.setattr(doctor, "check_decoding", lambda: doctor.Line("decoding", doctor.OK, ""))
    lines = list(doctor.run_checks("cpu", tmp_path))
    assert lines[0].status == doctor.FAIL
    assert "RuntimeError: no such thing" in lines[0].text
    assert len(lines) == 11


def test_old_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    line = doctor.check_torch()
    assert line.status == doctor.FAIL
    assert "torch>=2.10" in line.remedy


def test_a_missing_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "not-a-library-of-ours"))
    line = doctor.check_libraries()
    assert line.status == doctor.FAIL
    assert "not-a-library-of-ours" in line.text


@pytest.mark.parametrize(
    ("probe", "status", "words"),
    [
        ((0.004, 1.6), doctor.OK, "--precision auto takes bf16"),
        ((0.004, 0.8), doctor.OK, "--precision auto takes fp32"),
        ((float("inf"), 1.6), doctor.FAIL, "inf"),
        ((0.004, 0.1), doctor.OK, "--precision auto takes fp32"),
    ],
)
def test_bf16_is_judged_by_error_and_speed(
    probe: tuple[float, float], status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "probe_bf16", lambda workaround=True: probe)
    line = doctor.check_bf16(CPU)
    assert line.status == status
    assert words in line.text


def test_slow_bf16_on_a_gpu_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_probe_cuda", lambda device: (0.004, 0.1))
    line = doctor.check_bf16(torch.device("cuda"))
    assert (line.status, "0.1x" in line.text) == (doctor.FAIL, True)


def test_more_threads_than_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    line = doctor.check_device(CPU)
    assert line.status == doctor.WARNING
    assert "OMP_NUM_THREADS=" in line.remedy


@pytest.mark.parametrize(
    ("free", "status"), [(1e8, doctor.FAIL), (5e9, doctor.WARNING), (1e11, doctor.OK)]
)
def test_disk_space(free: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=free, total=1e12, used=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert doctor.check_disk(Path("data/not/there/yet")).status == status


def test_little_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm on this system")
    usage = SimpleNamespace(free=64e6, total=64e6, used=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    line = doctor.check_shared_memory()
    assert line.status == doctor.WARNING
    assert "--shm-size" in line.remedy


@pytest.mark.parametrize(
    ("limit", "status"), [(64, doctor.FAIL), (256, doctor.WARNING), (4096, doctor.OK)]
)
def test_open_file_limits(limit: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (limit, 8192))
    assert doctor.check_open_files().status == status


def test_a_decoder_that_does_not_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: Any, **options: Any) -> Any:
        return SimpleNamespace(returncode=1, stderr="Error: no codec\n")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    line = doctor.check_decoding()
    assert line.status == doctor.FAIL
    assert "har-shards synthetic: Error: no codec" in line.text

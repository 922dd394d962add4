"""har-doctor: each check's three answers, and the command."""

import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from har.training.cli.models import doctor_main
from har.training.inspection import doctor
from har.training.inspection.doctor import FAIL, OK, WARNING
from har.training.runtime import unusable_gpu
from har.training.runtime.precision import Probe
from har.training.runtime.unusable_gpu import GpuFault


def check(name: str, target: str = "cpu") -> doctor.Line:
    return doctor.run_check(name, torch.device(target), Path("data/not/there/yet"))


def fake_probe(monkeypatch: pytest.MonkeyPatch, error: float, speedup: float) -> None:
    """One answer for every precision, and convolutions that take no time."""
    monkeypatch.setattr(doctor, "probe_precision", lambda *_, **__: Probe(error, speedup))
    monkeypatch.setattr(doctor, "time_convolution", lambda *_: (torch.zeros(1), 1.0))


def test_a_sound_machine_passes_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_probe(monkeypatch, 0.004, 1.6)
    monkeypatch.setitem(doctor.CHECKS, "decoding", lambda *_: ("", []))  # see test_bare_machine.py
    done = CliRunner().invoke(doctor_main, ["--device", "cpu", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    for name in ("torch", "device", "memory", "cuDNN", "precision", "layout", "open files"):
        assert any(line.split(None, 1)[1:] and name in line for line in lines), name
    assert lines[-1].endswith("0 fail")


def test_a_failing_check_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = doctor.Line("torch", FAIL, "2.9.1", "pip install 'torch>=2.10'")
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
    def broken(*_: object) -> doctor.Result:
        raise RuntimeError("no such thing")

    monkeypatch.setitem(doctor.CHECKS, "torch", broken)
    monkeypatch.setitem(doctor.CHECKS, "decoding", lambda *_: ("", []))
    fake_probe(monkeypatch, 0.004, 1.0)
    lines = list(doctor.run_checks("cpu", tmp_path))
    assert lines[0].status == FAIL
    assert "RuntimeError: no such thing" in lines[0].text
    assert [line.name for line in lines] == [name for name in doctor.CHECKS if name != "GPU"]


@pytest.mark.parametrize(
    ("probe", "target", "status", "text"),
    [
        ((0.004, 1.6), "cpu", OK, "auto takes bf16"),
        ((0.004, 0.8), "cpu", OK, "auto takes fp32"),
        ((0.004, 0.1), "cpu", OK, "auto takes fp32"),
        ((float("inf"), 1.6), "cpu", FAIL, "bf16 is wrong here: --precision auto leaves it out"),
        ((0.004, 0.1), "cuda", FAIL, "fp16 is too slow here"),
    ],
)
def test_a_precision_is_judged_by_error_and_speed(
    probe: tuple[float, float],
    target: str,
    status: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_probe(monkeypatch, *probe)
    monkeypatch.setattr(doctor, "candidates", lambda device: [
        torch.float16 if device.type == "cuda" else torch.bfloat16])  # fmt: skip
    line = check("precision", target)
    assert line.status == status
    assert text in str(line)


def test_a_gpu_that_cannot_be_used_fails_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert check("GPU").status == OK or torch.cuda.is_available()
    fault = GpuFault("Tesla P100 cannot be used: too old", "install the build cu126")
    monkeypatch.setattr(unusable_gpu, "find_fault", lambda index=0: fault)
    line = check("GPU")
    assert line.status == FAIL
    assert str(line).endswith("-> install the build cu126")
    monkeypatch.setattr(doctor, "run_check", lambda name, *_: doctor.Line(name, OK, ""))
    names = {line.name for line in doctor.run_checks("cpu", Path())}  # not asked for
    assert "GPU" not in names


def decoder_failure(*_: object, **__: object) -> SimpleNamespace:
    return SimpleNamespace(returncode=1, stderr="Error: no codec\n")


def fault_of_ours(*_: object, **__: object) -> SimpleNamespace:
    return SimpleNamespace(returncode=1, stderr="Traceback (most ...\nNameError: x\n")


def disk_usage(free: float) -> object:
    return lambda path: SimpleNamespace(free=free, total=1e12, used=0)


def limit(files: int) -> object:
    return lambda what: (files, 8192)


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "value", "status", "text"),
    [
        ("torch", torch, "__version__", "2.9.1+cu128", FAIL, "torch>=2.10"),
        ("libraries", doctor, "LIBRARIES", ("numpy", "none-of-ours"), FAIL, "none-of-ours"),
        ("device", torch, "get_num_threads", lambda: 4096, WARNING, "OMP_NUM_THREADS="),
        ("disk", shutil, "disk_usage", disk_usage(1e8), FAIL, "--folder"),
        ("disk", shutil, "disk_usage", disk_usage(5e9), WARNING, "14 GB"),
        ("disk", shutil, "disk_usage", disk_usage(1e11), OK, "100.0 GB"),
        ("open files", resource, "getrlimit", limit(64), FAIL, "ulimit -n 4096"),
        ("open files", resource, "getrlimit", limit(256), WARNING, "ulimit -n 4096"),
        ("open files", resource, "getrlimit", limit(4096), OK, "at most 4096"),
        (
            *("decoding", doctor.subprocess, "run", decoder_failure),
            *(FAIL, "har-shards synthetic: Error: no codec"),
        ),
        (
            *("decoding", doctor.subprocess, "run", fault_of_ours),
            *(FAIL, "NameError: x\n                        -> report it: a fault of har"),
        ),
    ],
)
def test_each_check_tells_good_from_bad(
    name: str,
    owner: object,
    attribute: str,
    value: object,
    status: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, attribute, value)
    line = check(name)
    assert line.status == status
    assert text in str(line)


def test_little_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm on this system")
    monkeypatch.setattr(shutil, "disk_usage", disk_usage(64e6))
    line = check("shared memory")
    assert line.status == WARNING
    assert "--shm-size" in line.remedy

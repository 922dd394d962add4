"""`make gpu`, tried on the CPU at tiny sizes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from har import models
from har.training.benchmark import bench, gpu, variants
from har.training.benchmark.kernels import profile_step, slow_kernels
from har.training.runtime.device import place_model

CPU = torch.device("cpu")
GPU_TESTS = Path(__file__).resolve().parents[2] / "gpu"


@pytest.fixture
def run_tiny(monkeypatch, tmp_path):
    """Runs the command with one small model; -> its result, and what it wrote."""
    monkeypatch.setattr(gpu, "TINY", replace(gpu.TINY, models=("convlstm",)))
    # on a CPU a process for each; test_bench.py measures it
    monkeypatch.setattr(bench, "peak_memory", lambda candidate, workload: 1 << 20)

    def run(*options):
        command = ["--device", "cpu", "--tiny", "--no-compile", "--out", str(tmp_path), *options]
        result = CliRunner().invoke(gpu.gpu_main, command)
        return result, json.loads((tmp_path / "gpu.json").read_text())

    return run


@pytest.mark.filterwarnings("ignore")  # the profiler's own
def test_every_part_is_measured_or_named_as_not_run(run_tiny, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_one.py").write_text("def test_one():\n    assert 1 + 1 == 3\n")
    result, written = run_tiny("--tests", str(tmp_path / "tests"))
    assert result.exit_code == 1  # of the failing test
    assert "1 failed" in written["tests"]["output"]
    (line,) = written["models"]
    assert (line["model"], line["batch_size"], line["precision"]) == ("convlstm", 2, "fp32")
    assert line["ratio.gpu_cache_step"] > 0
    assert len(written["kernels"]["convlstm"]) == 10
    shares = [kernel["share"] for kernel in written["kernels"]["convlstm"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1
    assert written["slow kernels"] == []
    tried = {line["variant"]: line for line in written["variants"]}
    assert set(tried) == {"gates kept", "gates computed again"}
    assert all(line["difference"] < 1e-5 for line in tried.values())
    assert written["not run"]["CUDA graph of convlstm"] == "needs CUDA"
    assert written["not run"]["torch.compile of convlstm"] == "--no-compile"
    page = (tmp_path / "gpu.md").read_text()
    assert result.stdout.strip() == page.strip()
    assert "| convlstm | gates kept |" in page
    assert f"fp32 {line['matrix_flops_per_s'] / 1e12:.3g} TFLOP/s" in page


@pytest.mark.filterwarnings("ignore")
def test_what_does_not_fit_into_the_time_is_named(run_tiny):
    result, written = run_tiny("--minutes", "0")
    assert result.exit_code == 0
    assert written["models"] == written["variants"] == []
    assert written["not run"]["batch 2 in fp32"] == "no time left"
    assert written["not run"]["convlstm"] == "no time left"


@pytest.mark.parametrize(
    ("options", "told"),
    [([], "There is nothing to measure: --device 'cuda'"), (["--device", "cpu"], "takes hours")],
)
def test_without_a_gpu_it_says_so_and_how_to_try_it(options, told, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(gpu.gpu_main, [*options, "--out", str(tmp_path / "gpu")])
    assert result.exit_code == 2
    assert told in result.stderr
    assert "OPTIONS='--device cpu --tiny'" in result.stderr
    assert not (tmp_path / "gpu").exists()


def test_it_needs_no_video_decoder_no_webdataset_and_no_installation():
    code = (
        "import sys, pytest\n"
        "sys.modules.update(dict.fromkeys(['av', 'webdataset', 'tomli_w', 'jinja2']))\n"
        "import har.training.benchmark.gpu\n"
        f"sys.exit(pytest.main(['--collect-only', '-pno:cacheprovider', {str(GPU_TESTS)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_a_resumed_deterministic_run_is_bit_equal" in done.stdout


def test_exact_float32_is_timed_once_beside_the_others():
    pairs = gpu.Scale().combinations()
    assert len(pairs) == 10
    assert pairs[-1] == (32, "fp32")
    with gpu.float32_as("fp32"):
        assert not torch.backends.cudnn.allow_tf32
    with gpu.float32_as("TF32"):
        assert torch.backends.cudnn.allow_tf32


def test_a_variant_that_fails_is_named_with_its_reason(tmp_path):
    session = gpu.Session(CPU, gpu.TINY, tmp_path, 60, compile=False)
    gpu._attempt(session, "variants", "a variant", lambda: 1 / 0)
    assert session.results["not run"] == {"a variant": "ZeroDivisionError: division by zero"}


@pytest.mark.filterwarnings("ignore")
def test_slow_kernels_are_named():
    x, weight = torch.randn(1, 4, 6, 8, 8), torch.randn(4, 4, 3, 3, 3)
    with torch.backends.mkldnn.flags(enabled=False):
        kernels = profile_step(lambda: torch.conv3d(x, weight), CPU, steps=1)
    assert any("slow_conv3d" in line for line in slow_kernels(kernels))


@pytest.mark.parametrize(
    ("change_model", "change_clips"),
    [
        (variants.convolve_on_views, lambda clips: clips),
        (lambda model: variants.pad_stem(4, model), lambda clips: variants.pad_channels(4, clips)),
    ],
)
def test_a_variant_computes_the_same(change_model, change_clips):
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
    clips = clips.contiguous(memory_format=torch.channels_last_3d)
    gradients = []
    for change in (False, True):
        model = models.build("r2plus1d", 5, seed=0, width=8).double()
        model = place_model(model, CPU, torch.float32)
        x = clips
        if change:
            model, x = change_model(model), change_clips(clips)
        model(x).logsumexp(1).sum().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    for key, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], expected, rtol=1e-6, atol=1e-8)

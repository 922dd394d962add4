"""har-bench-train: what it prints, and that its baselines are what they say."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from har import models
from har.training.benchmark import baseline, bench, steps
from har.training.benchmark.data import LoaderStep, noise_transform, write_noise_set
from har.training.benchmark.steps import Step, Workload
from har.training.cli.models import bench_train_main
from har.training.inspection import model_summary

TINY = [
    "--frames", "4", "--size", "32", "--batch-size", "2", "--steps", "1", "--rounds", "1", "--json",
]  # fmt: skip
CPU = torch.device("cpu")
WORKLOAD = Workload((2, 3, 4, 32, 32), CPU, torch.float32)


def bench_train(*words: str) -> Any:
    return CliRunner().invoke(bench_train_main, ["--device", "cpu", "--precision", "fp32", *words])


@pytest.mark.slow
def test_json_has_an_object_a_model_set_beside_its_baseline() -> None:
    done = bench_train("--model", "all", *TINY)
    assert done.exit_code == 0, done.output
    results = {line["model"]: line for line in json.loads(done.stdout)}
    assert {name: line["baseline"] for name, line in results.items()} == {
        "resnet3d": "torchvision r3d_18, float32",
        "r2plus1d": "torchvision r2plus1d_18, float32",
        "convlstm": "naive ConvLSTM, float32",
        "r3d": "torchvision r3d_18, float32",
    }
    line = results["convlstm"]
    assert line["clips_per_s"] == pytest.approx(2 / line["step_s"])
    speeds = line["clips_per_s"] / line["baseline_clips_per_s"]
    assert line["ratio.baseline"] == pytest.approx(speeds)
    assert line["ratio.memory"] == line["peak_bytes"] / line["baseline_peak_bytes"]
    assert line["peak_bytes"] > 2 * 3 * 4 * 32 * 32 * 4
    assert 0 < line["data_wait"] < 1
    assert line["ratio.loader_step"] == pytest.approx(line["loader_step_s"] / line["step_s"])
    step = line["step_flops"] / line["step_s"]
    assert line["mfu"] == pytest.approx(step / line["matrix_flops_per_s"])
    assert 0 < line["mfu"] < 1


@pytest.mark.parametrize("name", models.NAMES)
def test_baselines_are_plain_float32_networks(name: str) -> None:
    model = baseline.build(name, 5)
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())
    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 5)


def test_a_table_is_printed_without_json() -> None:
    line = {
        "model": "convlstm", "clips_per_s": 40.0, "step_s": 0.2, "peak_bytes": 10**9,
        "ratio.baseline": 1.5, "ratio.memory": 0.25, "baseline": "naive ConvLSTM, float32",
        "device": "cpu", "precision": "bfloat16", "torch": "2.15.0", "data_wait": 0.004,
        "mfu": 0.321, "matrix_flops_per_s": 2.5e11,
    }  # fmt: skip
    text = bench._table([line], Workload((8, 3, 8, 56, 56), CPU, torch.bfloat16))
    for part in (
        "batch 8 of 8x56x56", "1.50x", "0.4%", "32.1%", "matrix peak 0.25 TFLOP/s",
        "0.25x  naive ConvLSTM, float32",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "vgg"), "--model 'vgg' is unknown: choose one of resnet3d"),
        (("--steps", "0"), "'--steps': 0 is not in the range x>=1."),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    done = bench_train(*words)
    assert done.exit_code == 2
    assert sentence in done.output


def loader_step(folder: Path, step: Step, num_batches: int) -> LoaderStep:
    transform = noise_transform(4, 28)
    manifest = write_noise_set(folder, 5, transform)
    assert manifest.clip_shape == (4, 32, 43, 3)  # 128x171 at a quarter of 112
    return LoaderStep(step, manifest, transform, batch_size=2, num_batches=num_batches, device=CPU)


def test_steps_on_the_loader_see_other_augmented_clips_each_time(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    step = loader_step(tmp_path, lambda clips: seen.append(clips.clone()), 4)
    for _ in range(4):
        step()
    step.close()
    assert all(clips.shape == (2, 3, 4, 28, 28) and clips.std() > 0.1 for clips in seen)
    assert not torch.equal(seen[0], seen[1])
    assert step.data_time > 0


def test_the_loader_has_batches_for_all_rounds_and_a_round_starts_at_no_wait(
    tmp_path: Path,
) -> None:
    seen: list[int] = []
    step = loader_step(
        tmp_path, lambda clips: seen.append(len(clips)), LoaderStep.num_batches(2, 3)
    )
    for _ in range(2):
        step.skip_prefetched()
        assert step.data_time == 0
        for _ in range(3):
            step()
    step.close()
    assert seen == [2] * (2 * (3 + 1))


class SlowLoaderStep(LoaderStep):
    """One that waits 4 ms for each batch."""

    def __init__(self) -> None:
        self.data_time = 0.0

    def skip_prefetched(self) -> None:
        self.data_time = 0.0

    def __call__(self) -> None:
        time.sleep(0.005)
        self.data_time += 0.004


def test_a_slow_loader_shows_as_waiting() -> None:
    seconds, data_waits = bench.time_rounds({"loader + r3d": SlowLoaderStep()}, 3, 3, CPU)
    assert 0.1 < data_waits["loader + r3d"] < 0.8
    assert seconds["loader + r3d"] > 0.005
    costs = bench.data_costs("r3d", {**seconds, "r3d": 0.001}, 0.8, WORKLOAD)
    assert costs["data_wait"] == 0.8


def test_the_peak_is_the_best_round_of_the_matrix_product_not_the_middle_one() -> None:
    naps = iter([0.0, 0.03, 0.03, 0.001])  # the first round is not counted
    seconds, _ = bench.time_rounds({"matrix": lambda: time.sleep(next(naps))}, 1, 3, CPU)
    assert seconds["matrix"] < 0.02


@pytest.mark.parametrize(("step_s", "wait"), [(0.04, 0.2), (0.06, 0)])  # the last is noise
def test_on_a_gpu_the_wait_is_what_a_step_on_the_loader_takes_longer(
    step_s: float, wait: float
) -> None:
    on_gpu = Workload(WORKLOAD.shape, torch.device("cuda"), torch.bfloat16)
    costs = bench.data_costs("r3d", {"loader + r3d": 0.05, "r3d": step_s}, 0.9, on_gpu)
    assert costs["data_wait"] == pytest.approx(wait)


def test_a_model_as_fast_as_the_matrix_product_uses_all_of_the_device() -> None:
    rows = model_summary.examine("convlstm", 4, (32, 32), 2, torch.float32).rows
    products = sum(row.macs for row in rows) / steps.matrix_size(CPU) ** 3
    seconds = {"matrix": 1.0, "convlstm": 3 * products}
    assert bench.utilization("convlstm", seconds, WORKLOAD)["mfu"] == pytest.approx(1)


def test_the_matrix_product_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "matrix_size", lambda device: 64)
    before = torch.get_float32_matmul_precision()
    steps.matrix_product(CPU, torch.bfloat16)()
    assert torch.get_float32_matmul_precision() == before

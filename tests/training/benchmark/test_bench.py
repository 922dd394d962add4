"""har-bench-train: what it prints, and that its references are what they say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner

from har import models
from har.shards.transforms.clip_transform import ClipTransform
from har.training.benchmark import baseline, bench, data
from har.training.benchmark import steps as bench_steps
from har.training.cli.models import bench_train_main
from har.training.input.device_loader import DeviceLoader
from har.training.inspection import model_summary

TINY = ("--frames", "4", "--size", "32", "--batch-size", "2", "--steps", "1", "--rounds", "1")


def bench_train(*words: str) -> Any:
    return CliRunner().invoke(bench_train_main, ["--device", "cpu", "--precision", "fp32", *words])


@pytest.mark.slow
def test_json_is_a_list_with_an_object_a_model() -> None:
    done = bench_train("--model", "convlstm", *TINY, "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert found["model"] == "convlstm"
    assert found["reference"] == "naive ConvLSTM, float32"
    assert found["clips_per_s"] == pytest.approx(2 / found["step_s"])
    speeds = found["clips_per_s"] / found["reference_clips_per_s"]
    assert found["ratio.reference"] == pytest.approx(speeds)
    assert found["ratio.memory"] == found["peak_bytes"] / found["reference_peak_bytes"]
    assert found["peak_bytes"] > 2 * 3 * 4 * 32 * 32 * 4
    assert 0 < found["data_wait"] < 1
    assert found["ratio.fed"] == pytest.approx(found["fed_step_s"] / found["step_s"])
    step = found["step_flops"] / found["step_s"]
    assert found["mfu"] == pytest.approx(step / found["matrix_flops_per_s"])
    assert 0 < found["mfu"] < 1


@pytest.mark.slow
def test_all_four_models_are_set_beside_their_references() -> None:
    done = bench_train("--model", "all", *TINY, "--json")
    found = json.loads(done.stdout)
    assert [line["model"] for line in found] == list(models.NAMES)
    assert [line["reference"].split(",")[0] for line in found] == [
        "torchvision r3d_18",
        "torchvision r2plus1d_18",
        "naive ConvLSTM",
        "torchvision r3d_18",
    ]


@pytest.mark.parametrize("name", models.NAMES)
def test_references_are_plain_float32_networks(name: str) -> None:
    model = baseline.build(name, 5)
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())
    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 5)


def test_a_table_is_printed_without_json() -> None:
    line = {
        "model": "convlstm",
        "clips_per_s": 40.0,
        "step_s": 0.2,
        "peak_bytes": 10**9,
        "ratio.reference": 1.5,
        "ratio.memory": 0.25,
        "reference": "naive ConvLSTM, float32",
        "device": "cpu",
        "precision": "bfloat16",
        "torch": "2.15.0",
        "data_wait": 0.004,
        "mfu": 0.321,
        "matrix_flops_per_s": 2.5e11,
    }
    text = bench._table([line], (8, 3, 8, 56, 56))
    assert "batch 8 of 8x56x56" in text
    assert "1.50x" in text
    assert "0.4%" in text
    assert "32.1%" in text
    assert "matrix peak 0.25 TFLOP/s" in text
    assert "0.25x  naive ConvLSTM, float32" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "vgg"), "--model 'vgg' is unknown: choose one of resnet3d"),
        (("--steps", "0"), "--steps 0 does not work: give 1 or more."),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    done = bench_train(*words)
    assert done.exit_code == 2
    assert sentence in done.output


CPU = torch.device("cpu")


def tiny_feed(folder: Path, batches: int) -> DeviceLoader:
    clips = data.write_set(folder, clips=5, frames=4, size=28, spec=ClipTransform())
    assert clips.clip_shape == (4, 32, 43, 3)  # 128x171 at a quarter of 112
    return data.open_feed(clips, 2, batches, 28, ClipTransform(), CPU)


def test_fed_steps_see_other_augmented_clips_each_time(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    fed = data.Fed(tiny_feed(tmp_path, 4), lambda clips: seen.append(clips.clone()))
    for _ in range(4):
        fed()
    fed.close()
    assert all(clips.shape == (2, 3, 4, 28, 28) and clips.std() > 0.1 for clips in seen)
    assert not torch.equal(seen[0], seen[1])
    assert fed.waited > 0


def test_the_batches_of_all_rounds_are_there_and_a_round_starts_at_no_wait(tmp_path: Path) -> None:
    steps = 0

    def step(clips: torch.Tensor) -> None:
        nonlocal steps
        steps += 1

    fed = data.Fed(tiny_feed(tmp_path, data.Fed.batches_of(2, 3)), step)
    for _ in range(2):
        fed.catch_up()
        assert fed.waited == 0
        for _ in range(3):
            fed()
    fed.close()
    assert steps == 2 * (3 + 1)


class Slow:
    """A feed that lets its user wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def epoch(self) -> Iterator[Any]:
        while True:
            time.sleep(self.seconds)
            yield SimpleNamespace(clips=None)


def test_a_slow_loader_shows_as_waiting() -> None:
    fed = data.Fed(cast(DeviceLoader, Slow(0.004)), lambda clips: time.sleep(0.001))
    seconds, waits = bench._rounds({"fed convlstm": fed}, 3, 3, CPU)
    assert 0.5 < waits["fed convlstm"] < 1
    assert seconds["fed convlstm"] > 0.005
    assert bench._data("convlstm", {**seconds, "convlstm": 0.001}, 0.8, CPU)["data_wait"] == 0.8


def test_the_peak_is_the_best_round_of_the_matrix_product_not_the_middle_one() -> None:
    naps = iter([0.0, 0.03, 0.03, 0.001])  # the first round is not counted
    seconds, _ = bench._rounds({"matrix": lambda: time.sleep(next(naps))}, 1, 3, CPU)
    assert seconds["matrix"] < 0.02


def test_on_a_gpu_the_wait_is_what_a_fed_step_takes_longer() -> None:
    seconds = {"fed r3d": 0.05, "r3d": 0.04}
    on = torch.device("cuda")
    assert bench._data("r3d", seconds, 0.9, on)["data_wait"] == pytest.approx(0.2)
    assert bench._data("r3d", {**seconds, "r3d": 0.06}, 0.9, on)["data_wait"] == 0  # noise


def test_a_model_as_fast_as_the_matrix_product_uses_all_of_the_device() -> None:
    shape = (2, 3, 4, 32, 32)
    macs = sum(
        row.macs for row in model_summary.examine("convlstm", 4, (32, 32), 2, torch.float32).rows
    )
    product = bench_steps.matrix_side(CPU) ** 3  # multiply-adds
    seconds = {"matrix": 1.0, "convlstm": 3 * macs / product}
    assert bench._use("convlstm", seconds, shape, CPU, torch.float32)["mfu"] == pytest.approx(1)


def test_the_matrix_product_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_steps, "matrix_side", lambda on: 64)
    before = torch.get_float32_matmul_precision()
    bench_steps.matrix_product(CPU, torch.bfloat16)()
    assert torch.get_float32_matmul_precision() == before

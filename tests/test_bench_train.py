"""har-bench-train: what it prints, and that its references are what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import models
from training import bench, reference
from training.cli_models import bench_train_main

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
    model = reference.build(name, 5)
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
    }
    text = bench._table([line], (8, 3, 8, 56, 56))
    assert "batch 8 of 8x56x56" in text
    assert "1.50x" in text
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

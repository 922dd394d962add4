"""The layer table, the estimated memory against the measured, the drawing, and the commands."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from processors import HAS_BF16_UNITS

from har import models
from har.training.cli.models import models_main
from har.training.inspection import diagram, model_summary
from har.training.inspection.memory_estimate import LiveBytes
from har.training.runtime import device
from har.training.step import forward

SMALL: dict[str, dict[str, Any]] = {
    "resnet3d": {"width": 16},
    "r2plus1d": {"width": 16},
    "convlstm": {"hidden": (16, 24)},
    "r3d": {},
}
FULL_PRECISION = torch.bfloat16 if HAS_BF16_UNITS else torch.float32
SHAPE = (4, 3, 8, 48, 48)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sheet(name: str, precision: torch.dtype = torch.float32, **options: Any) -> model_summary.Sheet:
    B, _, T, *size = SHAPE
    return model_summary.examine(name, T, (size[0], size[1]), B, precision, **options)


def measured_peak(
    name: str, shape: tuple[int, ...], precision: torch.dtype, options: dict[str, Any]
) -> int:
    """Bytes alive at the worst moment of a second training step with Adam, on real tensors."""
    if name == "r3d":
        options = {"weights": "none", **options}
    model = device.place_model(models.build(name, 101, **options), torch.device("cpu"), precision)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    clips = torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)
    labels = torch.zeros(len(clips), dtype=torch.long)
    peak = 0
    for _ in range(2):
        optimizer.zero_grad()
        state = [t for held in optimizer.state.values() for t in held.values()]
        with LiveBytes(clips, *model.parameters(), *model.buffers(), *state) as live:
            F.cross_entropy(forward(model, clips, precision), labels).backward()
            optimizer.step()
        peak = live.peak
    return peak


@pytest.mark.parametrize(
    ("name", "shape", "precision", "options"),
    [
        *(
            (name, SHAPE, precision, SMALL[name])
            for name in ("resnet3d", "r2plus1d", "convlstm")
            for precision in (torch.float32, torch.bfloat16)
        ),
        *(
            pytest.param(name, (4, 3, 16, 112, 112), FULL_PRECISION, {}, marks=pytest.mark.slow)
            for name in models.NAMES
        ),
    ],
)
def test_estimated_memory_is_within_15_percent_of_the_measured(
    name: str, shape: tuple[int, ...], precision: torch.dtype, options: dict[str, Any]
) -> None:
    measured = measured_peak(name, shape, precision, options)
    B, _, T, H, W = shape
    estimate = model_summary.examine(name, T, (H, W), B, precision, **options).memory.total
    assert estimate == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", models.NAMES)
def test_rows_hold_every_parameter_once(name: str) -> None:
    found = sheet(name, **SMALL[name])
    assert found.parameters == sum(p.numel() for p in found.network.parameters())


def test_multiply_adds_are_those_of_the_papers_networks() -> None:
    """40.70 G: torchvision's own figure (`_ops` of its r3d_18 weights, 40.697)."""
    found = model_summary.examine("resnet3d", 16, (112, 112), 2, torch.float32)
    assert found.macs / 2 == pytest.approx(40.697e9, rel=1e-3)


def test_a_row_says_shape_kernel_and_bytes() -> None:
    stem = sheet("resnet3d").rows[0]
    assert (stem.name, stem.kernel, stem.stride) == ("stem.0", (3, 7, 7), (1, 2, 2))
    assert stem.shape == (4, 64, 8, 24, 24)
    assert stem.activation == math.prod(stem.shape) * 4
    assert stem.macs == math.prod(stem.shape) * 3 * 3 * 7 * 7


def test_convlstm_has_a_row_for_each_convolution() -> None:
    rows = {row.name: row for row in sheet("convlstm", hidden=(8, 12), peephole=True).rows}
    assert rows["layers.0.stem"].shape == (4, 64, 8, 24, 24)
    assert rows["layers.0.state"].shape == (4, 32, 8, 12, 12)
    assert rows["layers.1.input"].shape == (4, 48, 8, 6, 6)
    assert rows["layers.1.state"].parameters == 48 * 12 * 9 + 3 * 12


def test_recomputing_is_estimated_to_take_less_than_keeping() -> None:
    recomputing, keeping = (
        sheet("convlstm", recompute=recompute).memory.total for recompute in (True, False)
    )
    assert recomputing < keeping


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *SMALL.items(),
        ("convlstm", {"hidden": (8, 8), "return_sequences": True}),
        ("convlstm", {"hidden": (8, 8), "pooling": "none"}),
    ],
)
def test_drawings_are_written(name: str, options: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"net.{kind}"
    frames = 2 if "hidden" in options and len(options) > 1 else 8  # all steps, or first and last
    summary = model_summary.examine(name, frames, (32, 32), 1, torch.float32, **options)
    diagram.save(summary, path)
    head = path.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if kind == "png" else b"<?xml" in head


def har_models(*words: str) -> Any:
    return CliRunner().invoke(models_main, list(words))


def test_list_names_the_four_networks() -> None:
    done = har_models("list")
    assert done.exit_code == 0, done.output
    assert all(name in done.output for name in models.NAMES)
    assert "33,218,085" in done.output


def test_show_prints_a_table_and_draws(tmp_path: Path) -> None:
    plot = tmp_path / "net.png"
    done = har_models(
        *("show", "resnet3d", "--frames", "4", "--size", "32", "--batch-size", "2"),
        *("--model-options", "width=8", "--plot", str(plot)),
    )
    assert done.exit_code == 0, done.output
    assert "layer4.1.conv2" in done.output
    assert "activations a clip" in done.output
    assert plot.exists()


def test_show_prints_json() -> None:
    done = har_models("show", "convlstm", "--frames", "4", "--size", "32", "--json")
    found = json.loads(done.stdout)
    assert found["parameters"] == sum(row["parameters"] for row in found["layers"])
    parts = found["memory"]
    assert parts.pop("total") == sum(parts.values())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "vgg"), "there is no model 'vgg'; choose one of resnet3d"),
        (("show", "convlstm", "--size", "0"), "'--size': 0 is not in the range x>=1."),
        (("show", "convlstm", "--precision", "int8"), "not one of 'fp32', 'bf16', 'fp16'"),
        (("show", "convlstm", "--model-options", "width=3"), "has no option 'width'"),
        (("show", "convlstm", "--size", "32", "--plot", "a.bmp"), "must end in .png, .svg, .pdf"),
        (("show", "convlstm", "--size", "32", "--plot", "no/a.png"), "there is no folder no"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    done = har_models(*words)
    assert done.exit_code == 2
    assert sentence in done.output
    assert "Traceback" not in done.output

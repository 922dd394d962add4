"""The door to the four networks: names, options, seeds, errors."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from made_models import small_model

from har import models


def test_unknown_model_lists_the_four() -> None:
    with pytest.raises(models.UnknownModelError, match="resnet3d, r2plus1d, convlstm, r3d"):
        models.build("resnet50", 10)


@pytest.mark.parametrize("name", models.NAMES)
def test_an_unknown_option_and_no_classes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"has no option .colour.*dropout"):
        models.build(name, 10, colour="red")
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        models.build(name, 0)


@pytest.mark.parametrize(
    ("names", "option", "value", "sentence"),
    [
        ("convlstm", "hidden", (), "at least one layer"),
        ("convlstm", "kernel", 4, "kernels must be odd"),
        ("convlstm", "kernel", (3, 3, 3), "kernel must be one number or 2"),
        ("convlstm", "pooling", "sum", "pooling must be one of max, avg, none"),
        ("convlstm", "recompute", "lean", "recompute must be true or false"),
        ("convlstm", "stem_channels", 0, "stem_channels must be at least 1, got 0"),
        ("convlstm", "chunk", 0, "chunk must be at least 1, got 0"),
        ("convlstm", "freeze", "layer3", "one of stem, layer1, layer2, got 'layer3'"),
        ("r3d", "freeze", "layer9", "freeze must be none or one of stem, layer1"),
        ("r3d", "backbone", "r3d_50", "backbone must be one of r3d_18, r2plus1d_18, mc3_18"),
        ("r2plus1d", "midplanes", "half", "midplanes must be one of"),
        ("resnet3d r2plus1d", "temporal_stride", 3, "temporal_stride must be 1 or 2, got 3"),
        ("resnet3d r2plus1d", "width", 0, "width must be at least 1, got 0"),
        ("resnet3d r2plus1d", "dropout", -0.1, "dropout must be"),
        ("convlstm", "dropout", 1.0, "dropout must be"),
        ("resnet3d r2plus1d r3d", "drop_path", 1.0, "drop_path must be at least 0 and below 1"),
        ("resnet3d r2plus1d convlstm r3d", "input", "flow", "input must be one of rgb, diff, rgb"),
    ],
)
def test_a_value_that_does_not_work_is_refused(
    names: str, option: str, value: Any, sentence: str
) -> None:
    for name in names.split():
        with pytest.raises(ValueError, match=sentence):
            small_model(name, **{option: value})


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("convlstm", {"peephole": "False"}, "peephole must be true or false, got 'False'"),
        ("resnet3d", {"stem_pool": "no"}, "stem_pool must be true or false, got 'no'"),
        ("resnet3d", {"width": 2.5}, "width must be a whole number, got 2.5"),
        ("r2plus1d", {"temporal_stride": 2.0}, "temporal_stride must be a whole number, got 2.0"),
        ("r3d", {"dropout": "high"}, "dropout must be a number, got 'high'"),
        ("convlstm", {"hidden": 4}, r"hidden must be a list such as \[32;64\], got 4"),
        ("convlstm", {"hidden": (4, "x")}, "hidden must be a whole number, got 'x'"),
    ],
)
def test_options_of_another_type_are_refused(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        models.check_options(name, options)


@pytest.mark.parametrize("name", models.NAMES)
def test_options_of_the_right_type_are_taken(name: str) -> None:
    models.check_options(name, models.options_of(name))
    models.check_options("convlstm", {"kernel": (3, 5, 5), "hidden": [4], "dropout": 0})


@pytest.mark.parametrize("name", models.NAMES)
def test_seed_decides_the_weights_and_spares_the_global_generator(name: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = small_model(name, seed=7).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = (small_model(name, seed=seed).state_dict() for seed in (7, 8))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_the_page_of_models_has_their_sizes_and_options() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]*\| ([\d,]+) \| (.*) \|$", page, re.MULTILINE)
    assert [name for name, *_ in rows] == list(models.NAMES)
    common = {"weights", "freeze", "dropout", "input"}
    for name, size, options in rows:
        model = models.build(name, 101, weights="none")
        assert f"{sum(p.numel() for p in model.parameters()):,}" == size
        assert set(re.findall(r"`(\w+)`", options)) == set(models.options_of(name)) - common
        assert models.head_name(model) == "fc"

"""The door to the four networks: names, options, seeds, errors."""

import re
from pathlib import Path

import pytest
import torch

from har import models


def test_unknown_model_lists_the_four() -> None:
    with pytest.raises(models.UnknownModelError, match="resnet3d, r2plus1d, convlstm, r3d"):
        models.build("resnet50", 10)


@pytest.mark.parametrize("name", models.NAMES)
def test_unknown_option_lists_the_allowed_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"has no option .colour.*dropout"):
        models.build(name, 10, colour="red")


@pytest.mark.parametrize("name", models.NAMES)
def test_no_classes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        models.build(name, 0)


def small(name: str) -> dict[str, object]:
    if name == "convlstm":
        return {"hidden": (4, 4), "stem_channels": 4}
    return {"weights": "none"} if name == "r3d" else {"width": 4}


@pytest.mark.parametrize("name", models.NAMES)
def test_seed_decides_the_weights_and_spares_the_global_generator(name: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = models.build(name, 5, seed=7, **small(name)).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again = models.build(name, 5, seed=7, **small(name)).state_dict()
    other = models.build(name, 5, seed=8, **small(name)).state_dict()
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

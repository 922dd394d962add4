"""ResNet3D-18 and R(2+1)D-18 against torchvision's implementation, and their options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.video import mc3_18, r2plus1d_18, r3d_18

from har import models
from har.models.r2plus1d import Conv2Plus1D, R2Plus1D
from har.models.resnet3d import (
    BasicBlock,
    ResNet3D,
    VideoResNet,
    from_torchvision,
    load_torchvision_state,
    to_torchvision,
)

PAIRS: list[tuple[str, Any, dict[str, Any]]] = [
    ("resnet3d", r3d_18, {}),
    ("r2plus1d", r2plus1d_18, {"midplanes": "torchvision"}),
]


def network(name: str, classes: int = 5, **options: Any) -> VideoResNet:
    model = models.build(name, classes, seed=0, **options)
    assert isinstance(model, VideoResNet)
    return model


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("resnet3d", {}, 33_371_472),
        ("r2plus1d", {}, 33_370_839),
        ("r2plus1d", {"midplanes": "torchvision"}, 31_505_325),
    ],
)
def test_parameter_counts_at_400_classes(
    name: str, options: dict[str, Any], parameters: int
) -> None:
    assert count(network(name, 400, **options)) == parameters


def shaken(twin: VideoResNet) -> VideoResNet:
    """Norms away from 1 and 0, so that a swapped or lost one cannot go unnoticed."""
    generator = torch.Generator().manual_seed(1)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm3d):
            for values, low in (
                (module.weight.data, 0.5),
                (module.bias.data, -0.1),
                (module.running_mean, -0.2),
                (module.running_var, 0.5),
            ):
                assert values is not None
                values.uniform_(low, low + 0.4, generator=generator)
    return twin


@pytest.mark.parametrize(("name", "twin", "options"), PAIRS, ids=["resnet3d", "r2plus1d"])
@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_outputs_and_gradients_equal_torchvisions(
    name: str, twin: Any, options: dict[str, Any], training: bool
) -> None:
    theirs = shaken(twin(num_classes=9)).double().train(training)
    ours = network(name, 9, **options).double().train(training)
    load_torchvision_state(ours, theirs.state_dict())
    x = torch.randn(2, 3, 3, 16, 20, dtype=torch.float64)
    a, b = theirs(x), ours(x)
    assert (a - b).abs().max() <= 1e-9
    a.square().sum().backward()
    b.square().sum().backward()
    renamed = from_torchvision(ours, {k: _grad(p) for k, p in theirs.named_parameters()})
    found = {k: _grad(p) for k, p in ours.named_parameters()}
    assert found.keys() == renamed.keys()
    assert max((found[k] - renamed[k]).abs().max().item() for k in found) <= 1e-9


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize(("name", "twin", "options"), PAIRS, ids=["resnet3d", "r2plus1d"])
def test_key_map_works_both_ways(name: str, twin: Any, options: dict[str, Any]) -> None:
    ours, theirs = network(name, 4, **options), twin(num_classes=4)
    exported = to_torchvision(ours)
    theirs.load_state_dict(exported, strict=True)
    back = from_torchvision(ours, theirs.state_dict())
    assert all(torch.equal(back[key], value) for key, value in ours.state_dict().items())
    assert back.keys() == ours.state_dict().keys()


def test_misfit_names_the_first_keys_and_changes_nothing() -> None:
    ours = network("resnet3d", 4)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(models.WeightsError, match=r"do not fit.*group2\.0\.conv1\.weight"):
        load_torchvision_state(ours, mc3_18(num_classes=4).state_dict())
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())


def test_convlstm_takes_no_torchvision_state() -> None:
    with pytest.raises(TypeError, match="only resnet3d and r2plus1d"):
        models.load_torchvision_state(models.build("convlstm", 3), {})


def test_matched_blocks_have_the_weights_of_the_3d_blocks() -> None:
    full, factored = network("resnet3d"), network("r2plus1d")

    def weights(block: nn.Module) -> int:
        """Convolutions only: the norms between the halves have no counterpart in 3-D."""
        return sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Conv3d))

    blocks = list(
        zip(
            (m for m in full.modules() if isinstance(m, BasicBlock)),
            (m for m in factored.modules() if isinstance(m, BasicBlock)),
            strict=True,
        )
    )
    assert len(blocks) == 8
    for one, two in blocks:
        assert weights(two) == pytest.approx(weights(one), rel=1e-3)


def test_stem_of_r2plus1d_is_45_then_64() -> None:
    stem = network("r2plus1d").stem.conv
    assert isinstance(stem, Conv2Plus1D)
    assert stem.spatial.weight.shape == (45, 3, 1, 7, 7)
    assert stem.temporal.weight.shape == (64, 45, 3, 1, 1)


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d"])
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (1, 32, 2, 7, 7)),
        ({"temporal_stride": 1}, (1, 32, 16, 7, 7)),
        ({"stem_pool": True}, (1, 32, 1, 4, 4)),
        ({"stem_pool": True, "temporal_stride": 1}, (1, 32, 16, 4, 4)),
    ],
)
def test_strides_and_pool_set_the_size_of_the_last_group(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    model = network(name, width=4, **options)
    seen: list[torch.Size] = []
    model.group4.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    model(torch.randn(1, 3, 16, 112, 112))
    assert seen == [shape]


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d"])
def test_zero_init_residual_makes_every_block_start_as_its_skip(name: str) -> None:
    model = network(name, width=4, zero_init_residual=True).eval()
    x = torch.rand(1, 4, 2, 8, 8)  # not negative: the block ends in a ReLU
    assert torch.equal(model.group1(x), x)
    assert not torch.equal(network(name, width=4).eval().group1(x), x)


def test_dropout_acts_in_training_only() -> None:
    model = network("resnet3d", width=4, dropout=0.9)
    x = torch.randn(2, 3, 4, 16, 16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("kind", [ResNet3D, R2Plus1D])
def test_initialisation_is_he_fan_out(kind: type[VideoResNet]) -> None:
    model = network("resnet3d" if kind is ResNet3D else "r2plus1d", 101)
    for module in model.group3.modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.weight[0, 0].numel() * module.out_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        elif isinstance(module, nn.BatchNorm3d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert model.fc.bias.eq(0).all()


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temporal_stride": 3}, "temporal_stride must be 1 or 2, got 3"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"dropout": -0.1}, "dropout must be"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        network(name, **options)


def test_unknown_midplanes_are_refused() -> None:
    with pytest.raises(ValueError, match="midplanes must be one of"):
        network("r2plus1d", midplanes="half")

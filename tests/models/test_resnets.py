"""The residual networks against torchvision's implementation, and their options."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video as torchvision_video

from har import models
from har.models.video_resnet import BasicBlock, VideoResNet


def network(name: str, classes: int = 5, **options: Any) -> VideoResNet:
    model = models.build(name, classes, seed=0, **options)
    assert isinstance(model, VideoResNet)
    return model


def torchvision_model(builder: str) -> nn.Module:
    """Norms away from 1 and 0, so that a swapped or lost one cannot go unnoticed."""
    model: nn.Module = getattr(torchvision_video, builder)(num_classes=9)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            for values, low in (
                (module.weight.data, 0.5),
                (module.bias.data, -0.1),
                (module.running_mean, -0.2),
                (module.running_var, 0.5),
            ):
                assert values is not None
                values.uniform_(low, low + 0.4, generator=generator)
    return model


def r3d(backbone: str, **marks: Any) -> Any:
    return pytest.param("r3d", {"weights": "none", "backbone": backbone}, backbone, **marks)


@pytest.mark.parametrize(
    ("name", "options", "builder"),
    [
        ("resnet3d", {}, "r3d_18"),
        ("r2plus1d", {"midplanes": "torchvision"}, "r2plus1d_18"),
        r3d("mc3_18"),
        *(r3d(name, marks=pytest.mark.slow) for name in ("r3d_18", "r2plus1d_18")),  # as the above
    ],
)
@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_outputs_and_gradients_equal_torchvisions(
    name: str, options: dict[str, Any], builder: str, training: bool
) -> None:
    theirs = torchvision_model(builder).double().train(training)
    ours = network(name, 9, **options).double().train(training)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 3, 16, 20, dtype=torch.float64)
    logits, expected = ours(x), theirs(x)
    assert (logits - expected).abs().max() <= 1e-9
    logits.square().sum().backward()
    expected.square().sum().backward()
    for (key, ours_p), (other_key, theirs_p) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert key == other_key
        assert (gradient(ours_p) - gradient(theirs_p)).abs().max() <= 1e-9, key


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_matched_blocks_have_the_weights_of_the_3d_blocks() -> None:
    def weights(block: nn.Module) -> int:
        """Convolutions only: the norms between the halves have no counterpart in 3-D."""
        return sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Conv3d))

    full, factorized = (
        [weights(m) for m in network(name).modules() if isinstance(m, BasicBlock)]
        for name in ("resnet3d", "r2plus1d")
    )
    assert len(full) == 8
    assert factorized == pytest.approx(full, rel=1e-3)


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
def test_strides_and_pool_set_the_size_of_the_last_layer(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    model = network(name, width=4, **options)
    shapes: list[torch.Size] = []
    model.layer4.register_forward_hook(lambda _module, _args, out: shapes.append(out.shape))
    model(torch.randn(1, 3, 16, 112, 112))
    assert shapes == [shape]


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d"])
def test_zero_init_residual_makes_every_block_start_as_its_shortcut(name: str) -> None:
    model = network(name, width=4, zero_init_residual=True).eval()
    x = torch.rand(1, 4, 2, 8, 8)  # not negative: the block ends in a ReLU
    assert torch.equal(model.layer1(x), x)
    assert not torch.equal(network(name, width=4).eval().layer1(x), x)


def test_dropout_acts_in_training_only() -> None:
    model = network("resnet3d", width=4, dropout=0.9)
    x = torch.randn(2, 3, 4, 16, 16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d"])
def test_initialization_is_he_fan_out(name: str) -> None:
    model = network(name, 101)
    for module in model.layer3.modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.weight[0, 0].numel() * module.out_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        elif isinstance(module, nn.BatchNorm3d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert model.fc.bias.eq(0).all()

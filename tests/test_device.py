"""Device and precision: what is not there or not sound is refused in one sentence."""

import pytest
import torch

from training import device
from training.config import ConfigError

CPU = torch.device("cpu")


def test_auto_and_cpu_give_a_device():
    assert device.choose("cpu") == CPU
    assert device.choose("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "meta"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ConfigError, match="give auto, cpu, cuda or cuda:N"):
        device.choose(name)


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="asks for a GPU"):
        device.choose("cuda:99")


@pytest.mark.parametrize(
    ("probe", "auto"),
    [
        ((0.004, 2.0), torch.bfloat16),  # right and faster
        ((0.004, 0.9), torch.float32),  # right and slower
        ((1e30, 2.0), torch.float32),  # faster and wrong
        ((float("inf"), 2.0), torch.float32),
    ],
)
def test_auto_takes_bf16_only_where_it_is_right_and_faster(monkeypatch, probe, auto):
    monkeypatch.setattr(device, "probe_bf16", lambda: probe)
    assert device.precision("auto", CPU) == auto


def test_bf16_asked_for_where_it_is_wrong_is_refused(monkeypatch):
    monkeypatch.setattr(device, "probe_bf16", lambda: (0.7, 2.0))
    with pytest.raises(ConfigError, match="wrong gradients.*--precision fp32"):
        device.precision("bf16", CPU)
    monkeypatch.setattr(device, "probe_bf16", lambda: (0.004, 0.5))
    assert device.precision("bf16", CPU) == torch.bfloat16


def test_the_probe_agrees_with_a_check_by_hand_at_depth_two():
    error, gain = device.probe_bf16()
    assert gain > 0
    x = torch.randn(4, 64, 2, 7, 7, generator=torch.Generator().manual_seed(2))
    weight = torch.randn(64, 64, 3, 3, 3, generator=torch.Generator().manual_seed(3)) * 0.05
    exact = device._weight_gradient(x, weight)[0]
    rounded = device._weight_gradient(x.bfloat16(), weight.bfloat16())[0]
    wrong = not ((rounded - exact).abs().max() / exact.abs().max() <= device.BF16_TOLERANCE)
    assert not wrong or error > device.BF16_TOLERANCE


def test_place_keeps_values_and_sets_layouts():
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.Conv2d(3, 4, 3))
    before = [p.clone() for p in net.parameters()]
    placed = device.place(net, CPU)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert placed[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(before, placed.parameters(), strict=True))

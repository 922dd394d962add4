"""Device and precision: what is not there or not sound is refused in one sentence."""

import copy

import pytest
import torch

from har.training.config import ConfigError
from har.training.runtime import device

CPU = torch.device("cpu")


def test_auto_and_cpu_give_a_device():
    assert device.select_device("cpu") == CPU
    assert device.select_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "give auto, cpu, cuda or cuda:N") for name in ("gpu", "cpu:x", "meta")),
        ("cuda:99", "asks for a GPU"),
    ],
)
def test_an_unknown_device_and_a_gpu_that_is_not_there_are_refused(name, text):
    with pytest.raises(ConfigError, match=text):
        device.select_device(name)


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
    assert device.select_precision("auto", CPU) == auto


def test_bf16_asked_for_where_it_is_wrong_is_refused(monkeypatch):
    monkeypatch.setattr(device, "probe_bf16", lambda: (0.7, 2.0))
    with pytest.raises(ConfigError, match=r"wrong gradients.*--precision fp32"):
        device.select_precision("bf16", CPU)
    monkeypatch.setattr(device, "probe_bf16", lambda: (0.004, 0.5))
    assert device.select_precision("bf16", CPU) == torch.bfloat16


def test_the_mended_convolution_is_the_convolution():
    """Forward and every gradient in float64, at depth 2, 3-tap kernels of both families."""
    for kernel, padding in (((3, 3, 3), (1, 1, 1)), ((3, 1, 1), (1, 0, 0))):
        net = torch.nn.Conv3d(4, 5, kernel, padding=padding).double()
        x = torch.randn(2, 4, 2, 5, 6, dtype=torch.float64, requires_grad=True)
        towards = torch.randn(2, 5, 2, 5, 6, dtype=torch.float64)
        results = []
        for run in (net, lambda x, net=net: device.conv_at_depth_3(net, x)):
            y = run(x)
            gradients = torch.autograd.grad((y * towards).sum(), [x, *net.parameters()])
            results.append([y, *gradients])
        for plain, mended in zip(*results, strict=True):
            torch.testing.assert_close(plain, mended, rtol=0, atol=1e-12)


def test_gradients_in_bf16_on_this_cpu_are_right_once_mended():
    """What `place` gives, over the depths a clip passes through; float32 is the truth."""
    torch.manual_seed(0)
    net = torch.nn.Conv3d(64, 64, 3, padding=1)
    placed = device.place_model(copy.deepcopy(net), CPU, torch.bfloat16)
    for depth in (1, 2, 3, 4, 8):
        x = torch.randn(4, 64, depth, 7, 7)
        gradients = []
        for run, on in ((net, False), (placed, True)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
                y = run(x)
            gradients.append(torch.autograd.grad(y.float().square().mean(), run.weight)[0])
        error = (gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()
        assert error < device.BF16_TOLERANCE, depth


def test_the_probe_sees_what_it_is_for():
    error, gain = device.probe_bf16()
    assert error <= device.BF16_TOLERANCE
    assert gain > 0


def test_place_keeps_values_and_sets_layouts():
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.Conv2d(3, 4, 3))
    before = [p.clone() for p in net.parameters()]
    placed = device.place_model(net, CPU, torch.float32)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert placed[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(before, placed.parameters(), strict=True))

"""Which device: the accelerator that is there and usable; what is not is refused in a sentence."""

import copy
from types import SimpleNamespace

import pytest
import torch

from har.training.config import ConfigError
from har.training.runtime import device, unusable_gpu
from har.training.runtime.precision import TOLERANCE
from har.training.runtime.unusable_gpu import GpuFault

CPU = torch.device("cpu")


def test_auto_and_cpu_give_a_device():
    assert device.select_device("cpu") == CPU
    assert device.select_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("accelerator", "untested", "fault", "auto"),
    [
        (None, True, None, "cpu"),
        ("cuda", False, None, "cuda"),
        ("cuda", True, GpuFault("too old", "buy"), "cpu"),
        ("mps", True, None, "mps"),
        ("xpu", True, None, "xpu"),
        ("mps", False, None, "cpu"),  # predictions: nobody would check what it computes
        ("hpu", True, None, "cpu"),
    ],
)
def test_auto_takes_the_accelerator_that_can_be_used(
    monkeypatch, accelerator, untested, fault, auto
):
    there = accelerator and SimpleNamespace(type=accelerator)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: there)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(unusable_gpu, "find_fault", lambda index=0: fault)
    assert device.select_device("auto", untested=untested).type == auto


def test_a_gpu_that_cannot_be_used_is_refused_with_its_reason(monkeypatch):
    fault = GpuFault("Tesla P100 cannot be used: it is old", "install the build cu126")
    monkeypatch.setattr(unusable_gpu, "find_fault", lambda index=0: fault)
    text = (
        "--device 'cuda': Tesla P100 .* it is old; install the build cu126, or use '--device cpu'"
    )
    with pytest.raises(ConfigError, match=text):
        device.select_device("cuda")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "give auto, cpu, cuda, cuda:N, xpu or mps") for name in ("gpu", "cpu:x", "meta")),
        *((name, "asks for a GPU") for name in ("cuda:99", "mps", "xpu:7")),
    ],
)
def test_an_unknown_device_and_a_gpu_that_is_not_there_are_refused(name, text):
    with pytest.raises(ConfigError, match=text):
        device.select_device(name)


def test_the_mended_convolution_is_the_convolution():
    """Forward and every gradient in float64, at depth 2, 3-tap kernels of both families."""
    for kernel, padding in (((3, 3, 3), (1, 1, 1)), ((3, 1, 1), (1, 0, 0))):
        net = torch.nn.Conv3d(4, 5, kernel, padding=padding).double()
        x = torch.randn(2, 4, 2, 5, 6, dtype=torch.float64, requires_grad=True)
        towards = torch.randn(2, 5, 2, 5, 6, dtype=torch.float64)
        results = []
        for run in (net, lambda x, net=net: device.mend_depth_2(net, x)):
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
        assert error < TOLERANCE, depth


def test_place_keeps_values_and_sets_layouts():
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.Conv2d(3, 4, 3))
    before = [p.clone() for p in net.parameters()]
    placed = device.place_model(net, CPU, torch.float32)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert placed[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(before, placed.parameters(), strict=True))

"""What a GPU computes, beside the CPU; and that no batch is overwritten on its way to it."""

import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_shards import make_shards
from tiny_train import OPTIONS, har_train, losses_of, stop_after

from har import models
from har.shards.loading import BatchSampler, LoaderOptions
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_transform import ClipTransform
from har.training.input import DeviceLoader
from har.training.optim import LossScaler
from har.training.runtime import checkpoint
from har.training.runtime.device import place_model, synchronize
from har.training.runtime.precision import DTYPES
from har.training.step import forward

CPU = torch.device("cpu")


def tiny_model(name, device, precision=torch.float32):
    options = {"convlstm": {"hidden": [8, 8], "stem_channels": 8}, "r3d": {"weights": "none"}}
    model = models.build(name, 5, seed=0, **options.get(name, {"width": 8}))
    return place_model(model, device, precision).train()


def tiny_clips(device, count=4):
    clips = torch.randn(count, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    return clips.contiguous(memory_format=torch.channels_last_3d).to(device)


def allow_tf32(allowed):
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        backend.allow_tf32 = allowed


@pytest.fixture
def exact_float32():
    """Without TF32, which rounds the inputs of convolutions and products to 10 bits."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    allow_tf32(False)
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


@pytest.mark.parametrize("name", models.NAMES)
def test_one_training_step_equals_the_cpus(name, device, exact_float32):
    gradients, losses = [], []
    for place in (CPU, device):
        model = tiny_model(name, place)
        labels = torch.tensor([0, 1, 2, 3], device=place)
        loss = F.cross_entropy(forward(model, tiny_clips(place), torch.float32), labels)
        loss.backward()
        losses.append(loss.item())
        gradients.append({k: p.grad.cpu() for k, p in model.named_parameters()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for key, expected in gradients[0].items():
        tolerance = 2e-3 * expected.abs().max().clamp(min=1e-4)
        assert (gradients[1][key] - expected).abs().max() <= tolerance, key


@pytest.mark.parametrize("precision", ["bf16", "fp16", "TF32"])
def test_losses_in_lower_precision_follow_those_in_float32(precision, device, exact_float32):
    steps = 50 if device.type == "cuda" else 3
    losses = {}
    for name in ("fp32", precision):
        dtype = DTYPES.get(name, torch.float32)
        allow_tf32(name == "TF32")
        model = tiny_model("resnet3d", device, dtype)
        optimizer, scaler = torch.optim.Adam(model.parameters(), 1e-3), LossScaler(dtype, device)
        clips, labels = tiny_clips(device), torch.arange(4, device=device)
        losses[name] = []
        for _ in range(steps):
            loss = F.cross_entropy(forward(model, clips, dtype), labels)
            optimizer.zero_grad()
            scaler.backward(loss)
            scaler.step(optimizer, model.parameters(), clip_grad=0)
            losses[name].append(loss.item())
    expected = np.array(losses["fp32"])
    assert np.abs(np.array(losses[precision]) - expected).max() < 0.1 * expected[0]
    assert device.type == "cpu" or losses[precision][-1] < 0.5 * expected[0]


@pytest.mark.parametrize("gpu_cache", [False, True])
def test_no_buffer_is_reused_before_its_copy_has_happened(tmp_path, device, gpu_cache):
    """Every clip is one number of its own; the device is kept busy, so that the host is ahead."""
    shape = (4, 32, 40, 3)
    numbers = iter(range(10_000))
    clips = make_shards(
        tmp_path / "set", shape=shape, groups=20, clips=4,
        draw=lambda key: np.full(shape, next(numbers) % 251, np.uint8),
    )  # fmt: skip
    transform = ClipTransform(4, (32, 40), (32, 40), (0.0,) * 3, (1.0,) * 3)
    sampler = BatchSampler(np.arange(len(clips.index)), 8, seed=1, shuffle=True)
    loader = DeviceLoader(
        clips, sampler, transform, device, LoaderOptions(workers=2), gpu_cache=gpu_cache
    )
    taken = []
    for epoch in range(3):
        for batch in loader.epoch(epoch):
            if device.type == "cuda":
                torch.cuda._sleep(20_000_000)  # about 10 ms
            expected = (batch.indices % 251).float() / 255
            pixels = batch.clips.flatten(1)
            taken.append(torch.stack([pixels.amin(1) - expected, pixels.amax(1) - expected]))
    synchronize(device)
    loader.close()
    assert len(taken) == 3 * loader.num_batches
    assert torch.stack([difference.abs().max() for difference in taken]).max() < 1e-5


def test_augmentation_equals_the_cpus(tmp_path, device, exact_float32):
    clips = make_shards(tmp_path / "set", shape=(4, 36, 48, 3))
    transform = ClipTransform(4, (24, 24), (28, 36))
    augmentation = Augmentation(hflip=0.5, color=(0.3, 0.3, 0.3))
    batches = []
    for place in (CPU, device):
        sampler = BatchSampler(np.arange(len(clips.index)), 10, seed=2, shuffle=True)
        loader = DeviceLoader(clips, sampler, transform, place, augmentation=augmentation)
        batches.append([(batch.keys, batch.clips.cpu().clone()) for batch in loader.epoch(1)])
        loader.close()
    for (keys, expected), (same_keys, pixels) in zip(*batches, strict=True):
        assert keys == same_keys
        assert (pixels - expected).abs().max() < 0.02  # normalized: 1.2 levels of 255


@pytest.mark.parametrize("model", ["resnet3d", "convlstm"])
def test_a_resumed_deterministic_run_is_bit_equal(tmp_path, device, monkeypatch, model):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    shards = make_shards(tmp_path / "set").root
    options = [
        "--shards", shards, "--model", model, "--model-options", OPTIONS[model], "--frames", 4,
        "--size", 16, "--batch-size", 6, "--epochs", 2, "--device", device, "--precision", "fp32",
        "--deterministic",
    ]  # fmt: skip
    result = har_train("--out", tmp_path / "whole", *options)
    assert result.exit_code == 0, result.output
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        result = har_train("--out", tmp_path / "stopped", *options)
    assert result.exit_code == 128 + signal.SIGTERM, result.output
    result = har_train("--resume", tmp_path / "stopped")
    assert result.exit_code == 0, result.output
    torch.use_deterministic_algorithms(False)
    lines = [losses_of(tmp_path / run) for run in ("whole", "stopped")]
    assert lines[0] == lines[1]
    states = [checkpoint.load(tmp_path / run / "last.pt")["model"] for run in ("whole", "stopped")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])

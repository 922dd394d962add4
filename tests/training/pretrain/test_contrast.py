"""The losses of a pretraining against plain loops, and what they are made of."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_shards import make_shards
from tiny_train import OPTIONS, prepared

from har.shards.format import load_manifest
from har.shards.loading import BatchSampler, Loader, LoaderOptions, view_key
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.temporal_sampling import random_windows
from har.training import step
from har.training.config import ConfigError
from har.training.input import DeviceLoader
from har.training.pretrain import contrast, quality
from har.training.pretrain.config import PretrainConfig


def info_nce(anchor, positive, negatives, temperature):
    """-> (loss, whether the positive is the most similar), of plain numbers."""
    similar = math.exp(float(anchor @ positive) / temperature)
    others = [math.exp(float(anchor @ negative) / temperature) for negative in negatives]
    return -math.log(similar / (similar + sum(others))), similar > max(others, default=0.0)


def mean_of_pairs(pairs):
    losses, hits = zip(*pairs, strict=True)
    return sum(losses) / len(losses), sum(hits) / len(hits)


@pytest.mark.parametrize(
    ("windows", "clips", "valid"),
    [
        (1, [4, 7, 9], [1, 1, 1]),
        (2, [4, 7, 9], [1, 1, 1]),
        (3, [4, 7, 4, 7], [1, 1, 0, 0]),  # padding that repeats the batch's own clips
        (2, [4, 7, 9], [1, 1, 0]),
        (1, [4, 7, 7, 4], [1, 0, 0, 0]),  # the one valid clip has no negatives
        (2, [4], [1]),  # no negatives: nothing to learn from the other clips
    ],
)
def test_losses_are_those_of_plain_loops(windows, clips, valid):
    random = torch.Generator().manual_seed(0)
    shape = (len(clips), windows, 2, 5)
    x = F.normalize(torch.randn(shape, generator=random, dtype=torch.float64), dim=-1)
    x.requires_grad_()
    ids, is_valid = torch.tensor(clips), torch.tensor(valid, dtype=torch.bool)
    *instance, is_counted = contrast.instance_contrast(x, ids, is_valid, 0.2)
    views = x.detach().flatten(1, 2)  # [n,v,D]
    for n, clip in enumerate(clips):
        negatives = [
            view for m, other in enumerate(clips) if other != clip and valid[m] for view in views[m]
        ]
        expected = mean_of_pairs(
            info_nce(a, b, negatives, 0.2)
            for i, a in enumerate(views[n])
            for j, b in enumerate(views[n])
            if i != j
        )
        assert tuple(part[n].item() for part in instance) == pytest.approx(expected)
        assert is_counted[n] == (valid[n] and len(negatives) > 0)
    total = instance[0].sum()
    if windows > 1:
        temporal = contrast.temporal_contrast(x, 0.2)
        for n in range(len(clips)):
            expected = mean_of_pairs(
                info_nce(
                    x[n, w, a].detach(),
                    x[n, w, 1 - a].detach(),
                    [v for u in range(windows) if u != w for v in x[n, u].detach()],
                    0.2,
                )
                for w in range(windows)
                for a in range(2)
            )
            assert tuple(part[n].item() for part in temporal) == pytest.approx(expected)
        total = total + temporal[0].sum()
    (gradient,) = torch.autograd.grad(total, x)
    assert gradient.isfinite().all()
    assert (gradient.abs().sum() > 0) == (len(clips) > 1 or windows > 1)


def losses_of_batches(shards, **settings):
    """The `ClipLosses` of an epoch, untrained."""
    task, config = task_and_config(shards, **settings)
    state = prepared(shards, config=config, task=task)
    try:
        with torch.no_grad():
            return [task.losses(state, batch) for batch in state.train_loader.epoch(1)]
    finally:
        state.close()


def test_a_clip_that_is_left_alone_counts_in_no_figure(shards):
    full, last = losses_of_batches(shards, windows=1, batch_size=17)  # 18 train clips
    assert full.valid.all()
    assert not last.valid.any()
    assert last.weights.sum() == 1  # its loss is 0: the step's mean stays a number
    assert last.losses[0] == 0


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 6, "grad_accum_steps": 6}])
def test_without_an_instance_term_the_accuracy_is_the_temporal_one(shards, settings):
    lines = []
    task, config = task_and_config(shards, **settings)
    prepared(shards, lines.append, config=config, task=task).close()
    assert "a guess has train acc 0.333, temporal 0.333" in lines[-1]
    assert "warning: a forward pass has 1 clip, which has no other to be told from" in lines[-1]
    for clips in losses_of_batches(shards, **settings):
        assert torch.equal(clips.correct, clips.further[0])
        assert clips.valid.all()


@pytest.mark.parametrize("settings", [{"windows": 1}, {"temporal_weight": 0.0}])
def test_a_forward_pass_of_one_clip_and_no_temporal_term_is_refused(shards, settings):
    task, config = task_and_config(shards, batch_size=6, grad_accum_steps=6, **settings)
    with pytest.raises(ConfigError, match=r"a forward pass has 1 clip .* give a larger --batch"):
        prepared(shards, config=config, task=task)


@pytest.mark.parametrize(
    ("num_clips", "part", "right"),
    [
        (18, 6, 1 / 21),
        (18, 17, 1 / 65),  # the one that is left is not counted
        (18, 16, (16 / 61 + 2 / 5) / 18),
        (3, 16, 1 / 9),
    ],
)
def test_a_guess_is_right_so_often_over_the_batches_of_an_epoch(num_clips, part, right):
    assert contrast.guess_accuracy(num_clips, part, views=4) == pytest.approx(right)


def test_one_train_clip_is_refused_and_one_class_is_said(tmp_path):
    single = {"classes": ("Punch",), "groups": 1, "clips": 1}
    task, config = task_and_config(make_shards(tmp_path / "a", **single).root)
    with pytest.raises(ConfigError, match="has 1 train clip, and har-pretrain tells clips from"):
        prepared(tmp_path / "a", config=config, task=task)
    lines = []
    task, config = task_and_config(make_shards(tmp_path / "b", classes=("Punch",)).root)
    prepared(tmp_path / "b", lines.append, config=config, task=task).close()
    assert "note: all 6 train clips are of class 'Punch': a training from these" in lines[-1]


@pytest.mark.parametrize("model", list(OPTIONS))
def test_a_step_reaches_every_weight_of_each_model(shards, model):
    task, config = task_and_config(shards, model=model, model_options=OPTIONS[model])
    state = prepared(shards, config=config, task=task)
    try:
        batch = next(state.train_loader.epoch(1))
        state.model.train()
        clips = task.losses(state, batch)
        step.weighted_mean(state, clips).backward()
        assert not [n for n, p in state.model.named_parameters() if p.grad is None]
        assert all(p.grad.isfinite().all() for p in state.model.parameters())
        assert clips.losses.shape == clips.further[0].shape == (6,)
    finally:
        state.close()


def task_and_config(shards, **settings):
    given = {
        "shards": str(shards), "frames": 2, "size": 16, "batch_size": 6, "precision": "fp32",
        "device": "cpu", "model_options": OPTIONS["resnet3d"],
    }  # fmt: skip
    config = PretrainConfig(**{**given, **settings})
    return contrast.make_task(config), config


@pytest.mark.parametrize(
    ("stored", "frames", "count"), [(16, 8, 2), (64, 8, 3), (7, 2, 1), (6, 2, 3)]
)
def test_windows_of_a_clip_lie_apart_and_have_one_stride(stored, frames, count):
    seen = set()
    for seed in range(100):
        windows = random_windows(stored, frames, count, np.random.default_rng(seed))
        assert windows.shape == (count, frames)
        assert windows.min() >= 0
        assert windows.max() < stored
        assert len(np.unique(np.diff(windows, axis=1))) == 1
        assert len(np.unique(windows)) == windows.size
        assert (np.diff(windows[:, 0]) > 0).all()
        seen.add(windows.tobytes())
    assert len(seen) > 1 or stored == frames * count


@pytest.mark.parametrize("gpu_cache", [False, True])
def test_a_batch_holds_two_augmentations_of_each_window(shards, gpu_cache):
    manifest = load_manifest(shards)
    transform = prepared(shards, frames=2).transform
    augmentation = Augmentation(rotation=5.0)
    sampler = BatchSampler(np.arange(9), 8, seed=3, shuffle=True, views=4)
    options = LoaderOptions(windows=2)
    loader = DeviceLoader(
        manifest, sampler, transform, torch.device("cpu"), options, augmentation=augmentation,
        gpu_cache=gpu_cache,
    )  # fmt: skip
    plain = Loader(manifest, BatchSampler(np.arange(30), 30), LoaderOptions())
    for stored_batch in plain.epoch():
        stored = stored_batch.pixels.clone()
    processor = ClipProcessor(transform, augmentation)
    *_, batch = loader.epoch(5, start=4)  # the last of the epoch's five
    assert batch.indices.tolist() == batch.indices[::4].repeat_interleave(4).tolist()
    for row, index in enumerate(batch.indices.tolist()):
        frames = loader.loader.frame_indices(5, index, row % 4)
        assert frames.tolist() == loader.loader.frame_indices(5, index, row % 4 // 2 * 2).tolist()
        clip = stored[index][frames].numpy()
        out = np.empty((2, *transform.crop_size, 3), np.float32)
        key = view_key(batch.keys[row], row % 4)
        processor.process_clip(clip, out, key=key, seed=3, epoch=5)
        assert torch.allclose(
            batch.clips[row], torch.from_numpy(out).permute(3, 0, 1, 2), atol=0.02
        )
    assert not torch.equal(batch.clips[0], batch.clips[1])
    loader.close()
    plain.close()


def test_the_nearest_neighbour_is_looked_for_in_other_groups():
    angles = torch.tensor([0.0, 0.01, 0.3, 0.35, 2.0, 2.3])
    features = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.tensor([0, 1, 0, 1, 1, 2])
    groups = torch.tensor([0, 0, 1, 2, -1, -1])
    # 0 -> 2 right, 1 -> 2 wrong, 2 -> 3 wrong, 3 -> 2 wrong, 4 -> 5 wrong; 5: alone of its class
    assert quality.neighbour_accuracy(features, labels, groups) == pytest.approx(1 / 5)
    assert quality.neighbour_accuracy(features, torch.arange(6), groups) is None


def test_features_that_are_all_alike_are_warned_of(shards):
    lines = []
    task, config = task_and_config(shards)
    state = prepared(shards, lines.append, config=config, task=task)
    try:
        lines.clear()
        assert quality.measure_quality(state)["spread"] > 0.1
        assert lines == []
        with torch.no_grad():
            state.model.stem[1].weight.zero_()  # the input no longer comes through
        assert quality.measure_quality(state)["spread"] < 0.01
        assert "the network has collapsed" in lines[0]
    finally:
        state.close()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"augment": False}, "har-pretrain has no setting augment"),
        ({"mixup_alpha": 0.2}, "har-pretrain has no setting mixup_alpha"),
        ({"windows": 0}, "--windows 0"),
        ({"temperature": 0.0}, "--temperature 0.0"),
        ({"temporal_weight": -1.0}, "--temporal-weight -1.0"),
        ({"weights": ""}, "--weights '' names nothing: give kinetics400"),
    ],
)
def test_settings_without_sense_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        PretrainConfig(**settings)

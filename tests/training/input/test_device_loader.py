"""Batches on the device, here the CPU: equal to the torch path, kept, from --cache gpu the same."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_tars import make_tars

from har.shards.format import ClipReader
from har.shards.loading import BatchSampler, CorruptClipWarning, Loader, LoaderOptions
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform
from har.training.config import ConfigError
from har.training.input import DeviceLoader
from har.training.input.gpu_cache import GpuCache, check_fits
from har.training.runtime import memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
TRANSFORM = ClipTransform(4, (8, 10), (9, 11), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
AUGMENTATION = Augmentation(hflip=0.5, color=(0.3, 0.3, 0.3))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("input") / "set", shards=3)


@pytest.fixture
def corrupt_clips(tmp_path):
    """A set whose clip 3 has a flipped bit."""
    clips = make_tars(tmp_path / "set")
    path = clips.shard_path(0)
    data = bytearray(path.read_bytes())
    data[int(clips.index["offset"][3])] ^= 1
    path.write_bytes(data)
    return clips


def sampler_of(clips, **more):
    return BatchSampler(np.arange(len(clips.index))[1:], 8, **{"seed": 4, "shuffle": True, **more})


def loader_of(clips, *more, **options):
    return DeviceLoader(clips, sampler_of(clips), TRANSFORM, CPU, *more, **options)


def assert_equal(one, two):
    assert (one.step, one.keys, one.num_valid) == (two.step, two.keys, two.num_valid)
    for name in ("indices", "labels", "valid"):
        assert np.array_equal(np.asarray(getattr(one, name)), np.asarray(getattr(two, name)))


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION])
def test_ready_clips_equal_the_torch_path(clips, augmentation):
    reader, loader = ClipReader(clips), loader_of(clips, augmentation=augmentation)
    batch = next(loader.epoch(2))
    loader.close()
    stored = torch.from_numpy(np.stack([reader.read(n) for n in batch.indices.tolist()]))
    processor = ClipProcessor(TRANSFORM, augmentation)
    expected = processor.process_batch(stored, keys=batch.keys, seed=4, epoch=2)
    assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(batch.clips, expected, atol=1 / 255 / 0.2, rtol=0)


def test_a_batch_that_is_kept_does_not_change(clips):
    loader = loader_of(clips)
    batches = loader.epoch()
    first = next(batches)
    before = first.clips.clone()
    assert sum(1 for _ in batches) == loader.num_batches - 1
    loader.close()
    assert torch.equal(first.clips, before)


def test_many_epochs_never_run_out_of_buffers(clips):
    loader = loader_of(clips, augmentation=Augmentation())
    for epoch in range(5):
        total = 0
        for batch in loader.epoch(epoch):
            total += int(batch.valid.sum())
        assert total == len(clips.index) - 1
    loader.close()


def test_corrupt_clips_are_replaced_where_that_is_allowed(corrupt_clips):
    loader = loader_of(corrupt_clips, LoaderOptions(max_corrupt=1))
    with pytest.warns(CorruptClipWarning):
        keys = [key for batch in loader.epoch() for key in batch.keys]
    loader.close()
    assert len(keys) == 40
    assert corrupt_clips.keys()[3] not in keys
    assert list(loader.loader.corrupt) == [3]


@pytest.mark.parametrize(
    "options", [{}, {"frames": 2}, {"frames": 2, "temporal_jitter": True}], ids=str
)
@pytest.mark.parametrize(
    "more", [{}, {"rank": 1, "world_size": 2}, {"block_size": 8}, {"shuffle": False}], ids=str
)
def test_pixels_and_order_of_the_gpu_cache_are_those_of_the_loader(clips, options, more):
    loader = Loader(clips, sampler_of(clips, **more), LoaderOptions(**options))
    cache = GpuCache(loader, CPU)
    for epoch in (1, 2):
        for one, two in zip(cache.epoch(epoch, 1), loader.epoch(epoch, 1), strict=True):
            assert_equal(one, two)
            assert torch.equal(one.pixels, two.pixels)
    loader.close()


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION])
def test_augmented_batches_of_the_gpu_cache_equal_those_without_it(clips, augmentation):
    plain = Loader(clips, sampler_of(clips), LoaderOptions(frames=4))
    cached = loader_of(clips, augmentation=augmentation, gpu_cache=True)
    processor = ClipProcessor(TRANSFORM, augmentation)
    for one, two in zip(cached.epoch(3), plain.epoch(3), strict=True):
        expected = processor.process_batch(two.pixels, keys=two.keys, seed=4, epoch=3)
        assert_equal(one, two)
        assert torch.equal(one.clips, expected)
    cached.close()
    plain.close()


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_gpu_cache_replaces_a_corrupt_clip_as_the_loader_does(corrupt_clips, shuffle):
    options = LoaderOptions(max_corrupt=1, workers=0)
    sampler = sampler_of(corrupt_clips, shuffle=shuffle)
    loader, plain = (Loader(corrupt_clips, sampler, options) for _ in range(2))
    with pytest.warns(CorruptClipWarning):
        cache = GpuCache(loader, CPU)
    assert list(loader.corrupt) == [3]
    with pytest.warns(CorruptClipWarning):
        expected = [replace(batch, pixels=batch.pixels.clone()) for batch in plain.epoch()]
    for one, two in zip(cache.epoch(), expected, strict=True):
        assert_equal(one, two)
        assert torch.equal(one.pixels, two.pixels)


def test_a_gpu_cache_without_a_gpu_or_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="keeps the clips on a GPU and this run is on cpu"):
        check_fits(CPU, 1, None)
    check_fits(CUDA, 1000, 1000)
    with pytest.raises(ConfigError, match=r"needs 1,001 bytes.*cuda:0 has 1,000 free"):
        check_fits(CUDA, 1001, 1000)


def test_on_a_gpu_the_batches_of_the_cache_equal_those_without_it(clips):
    if not torch.cuda.is_available():
        missing = pytest.fail if os.environ.get("HAR_REQUIRE_CUDA") == "1" else pytest.skip
        missing("needs a GPU")
    plain, cached = (
        DeviceLoader(
            clips, sampler_of(clips), TRANSFORM, CUDA, augmentation=AUGMENTATION, gpu_cache=gpu
        )
        for gpu in (False, True)
    )
    for one, two in zip(plain.epoch(1), cached.epoch(1), strict=True):
        assert one.keys == two.keys
        assert torch.equal(one.clips, two.clips)
    assert memory.free_bytes(CUDA) > 0

"""--cache gpu: the batches are those without it, bit for bit; what it cannot do it refuses."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from made_tars import make_tars

from har.shards.loading import BatchSampler, CorruptClipWarning, Loader, LoaderOptions
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform
from har.training.config import ConfigError
from har.training.input import gpu_cache
from har.training.input.device_loader import DeviceLoader
from har.training.input.gpu_cache import GpuCache
from har.training.runtime import memory

CPU = torch.device("cpu")
WANTED = ClipTransform(4, (8, 10), (9, 11), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("resident") / "set", shards=3)


def plan_of(clips, **more):
    given = {"seed": 4, "shuffle": True, **more}
    return BatchSampler(np.arange(len(clips.index))[2:], 8, **given)


def assert_equal(one, two):
    assert one.step == two.step
    assert one.keys == two.keys
    for name in ("num_valid", "indices", "labels", "valid"):
        assert np.array_equal(np.asarray(getattr(one, name)), np.asarray(getattr(two, name)))


@pytest.mark.parametrize("options", [{}, {"frames": 2}, {"frames": 2, "temporal_jitter": True}])
@pytest.mark.parametrize(
    "more", [{}, {"rank": 1, "world_size": 2}, {"block_size": 8}, {"shuffle": False}]
)
def test_its_pixels_and_order_are_those_of_the_loader(clips, options, more):
    loader = Loader(clips, plan_of(clips, **more), LoaderOptions(**options))
    kept = GpuCache(loader, CPU, workers=1)
    for epoch in (1, 2):
        for one, two in zip(kept.epoch(epoch, 1), loader.epoch(epoch, 1), strict=True):
            assert_equal(one, two)
            assert torch.equal(one.pixels, two.pixels)
    loader.close()


@pytest.mark.parametrize("rule", [None, Augmentation(hflip=0.5, color=(0.3, 0.3, 0.3))])
def test_augmented_batches_equal_those_without_it_on_the_same_path(clips, rule):
    loader = Loader(clips, plan_of(clips), LoaderOptions(frames=4))
    feed = DeviceLoader(clips, plan_of(clips), WANTED, CPU, augmentation=rule, cache="gpu")
    processor = ClipProcessor(WANTED, rule)
    for ready, batch in zip(feed.epoch(3), loader.epoch(3), strict=True):
        expected = processor.process_batch(batch.pixels, keys=batch.keys, seed=4, epoch=3)
        assert_equal(ready, batch)
        assert torch.equal(ready.clips, expected)
    feed.close()
    loader.close()


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_corrupt_clip_is_replaced_as_the_loader_does(tmp_path, shuffle):
    clips = make_tars(tmp_path / "set")
    path = clips.shard_path(0)
    data = bytearray(path.read_bytes())
    data[int(clips.index["offset"][3])] ^= 1
    path.write_bytes(data)
    loader = Loader(clips, plan_of(clips, shuffle=shuffle), LoaderOptions(max_corrupt=1))
    with pytest.warns(CorruptClipWarning):
        kept = GpuCache(loader, CPU, workers=0)
    assert list(loader.corrupt) == [3]
    plain = Loader(clips, plan_of(clips, shuffle=shuffle), LoaderOptions(max_corrupt=1, workers=0))
    with pytest.warns(CorruptClipWarning):
        expected = [dataclasses.replace(b, pixels=b.pixels.clone()) for b in plain.epoch()]
    for one, two in zip(kept.epoch(), expected, strict=True):
        assert_equal(one, two)
        assert torch.equal(one.pixels, two.pixels)


def test_without_a_gpu_it_is_refused():
    with pytest.raises(ConfigError, match=r"keeps the clips on a GPU and this run is on cpu"):
        gpu_cache.check_fits(CPU, 1, None)


def test_clips_that_do_not_fit_are_refused_with_both_numbers():
    cuda = torch.device("cuda:0")
    gpu_cache.check_fits(cuda, 1000, 1000)
    with pytest.raises(ConfigError, match=r"needs 1,001 bytes.*cuda:0 has 1,000 free"):
        gpu_cache.check_fits(cuda, 1001, 1000)


def test_on_a_gpu_the_runs_batches_equal_those_without_it(clips):
    if not torch.cuda.is_available():
        missing = pytest.fail if os.environ.get("HAR_REQUIRE_CUDA") == "1" else pytest.skip
        missing("needs a GPU")
    cuda = torch.device("cuda:0")
    rule = Augmentation(hflip=0.5, color=(0.3, 0.3, 0.3))
    plain, kept = (
        DeviceLoader(clips, plan_of(clips), WANTED, cuda, augmentation=rule, cache=cache)
        for cache in ("none", "gpu")
    )
    for one, two in zip(plain.epoch(1), kept.epoch(1), strict=True):
        assert one.keys == two.keys
        assert torch.equal(one.clips, two.clips)
    assert memory.free_bytes(cuda) > 0

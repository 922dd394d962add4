"""Batches on the device, here the CPU: equal to the torch path, kept, from --cache gpu the same."""

import contextlib
import os
from dataclasses import replace
from types import SimpleNamespace

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
from har.training.input import DeviceLoader, device_loader
from har.training.input import gpu_cache as gpu_cache_module
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
    assert (one.step, one.keys) == (two.step, two.keys)
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
    "options",
    [
        {}, {"frames": 2}, {"frames": 2, "temporal_jitter": True},
        {"frames": 2, "frame_stride": (1, 2), "temporal_jitter": True},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    "more", [{}, {"rank": 1, "world_size": 2}, {"block_size": 8}, {"shuffle": False}], ids=str
)
def test_pixels_and_order_of_the_gpu_cache_are_those_of_the_loader(clips, options, more):
    loader = Loader(clips, sampler_of(clips, **more), LoaderOptions(**options))
    cache = GpuCache(loader, CPU)
    for epoch in (1, 2):
        for one, two in zip(cache.epoch(epoch, 1), loader.epoch(epoch, 1), strict=True):
            assert_equal(one, two)
            assert one.num_valid == two.num_valid
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
        assert one.num_valid == two.num_valid
        assert torch.equal(one.pixels, two.pixels)


def test_a_gpu_cache_without_a_gpu_or_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="keeps the clips on a GPU and this run is on cpu"):
        check_fits(CPU, 1, None)
    check_fits(CUDA, 1000, 1000)
    with pytest.raises(ConfigError, match=r"needs 1,001 bytes.*cuda:0 has 1,000 free"):
        check_fits(CUDA, 1001, 1000)


class Streams:
    """What `torch.cuda` and `torch.xpu` have of streams and events, on the CPU, with a diary."""

    def __init__(self):
        self.diary = diary = []

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self, stream):
                diary.append(("record", stream))

            def synchronize(self):
                diary.append(("synchronize", self))

            def query(self):
                return True

            def elapsed_time(self, _):
                return 0.0

        self.Event = Event
        self.stream = contextlib.nullcontext

    def Stream(self, _):  # noqa: N802
        return "side"

    def current_stream(self, _):
        return SimpleNamespace(wait_event=lambda event: self.diary.append(("wait", event)))


@pytest.mark.parametrize("gpu_cache", [False, True])
def test_a_device_with_streams_copies_beside_the_step_and_augments_there(
    clips, monkeypatch, gpu_cache
):
    streams = Streams()
    for module in (device_loader, gpu_cache_module):
        monkeypatch.setattr(module, "stream_module", lambda _: streams)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    loader = loader_of(clips, augmentation=AUGMENTATION, gpu_cache=gpu_cache)
    reader, processor, copied = ClipReader(clips), ClipProcessor(TRANSFORM, AUGMENTATION), 0
    for batch in loader.epoch(3):
        stored = torch.from_numpy(np.stack([reader.read(n) for n in batch.indices.tolist()]))
        expected = processor.process_batch(stored, keys=batch.keys, seed=4, epoch=3)
        assert torch.equal(batch.clips, expected)
        copied += 1
    loader.close()
    assert copied == loader.num_batches
    kinds = [kind for kind, _ in streams.diary]
    assert kinds.count("wait") == copied  # of the step, for its batch
    if not gpu_cache:  # no buffer is filled again before its copy has happened
        assert kinds.count("synchronize") > 0


def test_a_device_without_streams_gets_plain_copies_of_what_the_workers_augment(clips, monkeypatch):
    """`meta` stands for mps: a device that the loader knows nothing about."""
    meta = DeviceLoader(
        clips, sampler_of(clips), TRANSFORM, torch.device("meta"), augmentation=AUGMENTATION
    )
    plain = loader_of(clips, augmentation=AUGMENTATION)
    for one, two in zip(meta.epoch(1), plain.epoch(1), strict=True):
        assert one.clips.device.type == one.labels.device.type == "meta"
        assert one.clips.is_contiguous(memory_format=torch.channels_last_3d)
        assert (one.clips.shape, one.clips.dtype, one.keys) == (
            two.clips.shape,
            two.clips.dtype,
            two.keys,
        )
        assert one.copy_events is None
    meta.close()
    plain.close()


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

"""The feed on the CPU: ready batches from the loader's workers, equal to the torch path, kept."""

import numpy as np
import pytest
import torch
from made_tars import make_tars

from har.shards.format import ClipReader
from har.shards.loading import BatchSampler, CorruptClipWarning
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform
from har.training.input.device_loader import DeviceLoader

WANTED = ClipTransform(4, (8, 10), (9, 11), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("feed") / "set", shards=3)


def feed_of(clips, **options):
    plan = BatchSampler(np.arange(len(clips.index)), 8, seed=4, shuffle=True)
    return DeviceLoader(clips, plan, WANTED, torch.device("cpu"), **options)


@pytest.mark.parametrize("rule", [None, Augmentation(hflip=0.5, color=(0.3, 0.3, 0.3))])
def test_ready_clips_equal_the_torch_path(clips, rule):
    reader, feed = ClipReader(clips), feed_of(clips, augmentation=rule)
    batch = next(feed.epoch(2))
    stored = torch.from_numpy(np.stack([reader.read(n) for n in batch.indices.tolist()]))
    processor = ClipProcessor(WANTED, rule)
    expected = processor.process_batch(stored, keys=batch.keys, seed=4, epoch=2)
    feed.close()
    assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(batch.clips, expected, atol=1 / 255 / 0.2, rtol=0)


def test_a_batch_that_is_kept_does_not_change(clips):
    feed = feed_of(clips)
    batches = feed.epoch()
    first = next(batches)
    before = first.clips.clone()
    assert len(list(map(lambda ready: ready.step, batches))) == feed.num_batches - 1  # noqa: C417
    feed.close()
    assert torch.equal(first.clips, before)


def test_many_epochs_never_run_out_of_slots(clips):
    feed = feed_of(clips, augmentation=Augmentation())
    for epoch in range(5):
        total = 0
        for ready in feed.epoch(epoch):
            total += int(ready.valid.sum())
        assert total == len(clips.index)
    feed.close()


def test_corrupt_clips_are_replaced_where_that_is_allowed(tmp_path):
    clips = make_tars(tmp_path / "set")
    path = clips.shard_path(0)
    data = bytearray(path.read_bytes())
    data[int(clips.index["offset"][3])] ^= 1
    path.write_bytes(data)
    feed = feed_of(clips, max_corrupt=1)
    with pytest.warns(CorruptClipWarning):
        seen = [key for ready in feed.epoch() for key in ready.keys]
    feed.close()
    assert len(seen) == 40
    assert clips.keys()[3] not in seen
    assert list(feed.loader.corrupt) == [3]

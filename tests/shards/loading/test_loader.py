"""The loader gives the sampler's batches, with the right pixels, from buffers that are reused."""

import threading

import numpy as np
import pytest
import torch
from made_tars import SHAPE, make_tars, stored_clips

from har.shards.loading import Batch, BatchSampler, Loader, LoaderError, LoaderOptions


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("loader") / "set", shards=3)


@pytest.fixture(scope="module")
def stored(clips):
    return stored_clips(clips)


def loader_of(clips, transform=None, batch_transform=None, **options):
    sampler = BatchSampler(np.arange(len(clips.index)), 8, seed=2, shuffle=True)
    return Loader(
        clips, sampler, LoaderOptions(**options), transform=transform,
        batch_transform=batch_transform,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_every_row_has_the_pixels_and_label_of_its_key(clips, stored, workers):
    label_of = dict(zip(clips.keys(), clips.index["label"].tolist(), strict=True))
    rows = 0
    with loader_of(clips, workers=workers) as loader:
        for batch in loader.epoch(1):
            assert tuple(batch.pixels.shape) == (8, *SHAPE)
            assert batch.labels.dtype == np.int64
            assert batch.labels.tolist() == [label_of[key] for key in batch.keys]
            for key, pixels in zip(batch.keys, batch.pixels.numpy(), strict=True):
                assert np.array_equal(pixels, stored[key])
                rows += 1
    assert rows == 40  # 34 clips, the last batch padded


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("stride", "frames_of_views"),
    [
        (None, [[0, 2]]),
        (None, [[0, 2], [1, 3]]),
        (1, [[1, 2]]),  # in the middle
        (1, [[0, 1], [1, 2], [2, 3]]),
    ],
)
def test_each_view_has_evenly_spaced_frames_or_a_window(
    clips, stored, workers, stride, frames_of_views
):
    sampler, seen = BatchSampler(np.arange(5), 4, views=len(frames_of_views)), []
    options = LoaderOptions(frames=2, frame_stride=stride, workers=workers)
    with Loader(clips, sampler, options) as loader:
        for batch in loader.epoch():
            for row in np.flatnonzero(batch.valid):
                view = int(batch.views[row])
                expected = stored[batch.keys[row]][frames_of_views[view]]
                assert np.array_equal(batch.pixels[row], expected)
                seen.append((int(batch.indices[row]), view))
    assert seen == [(index, view) for index in range(5) for view in range(len(frames_of_views))]


def test_temporal_jitter_draws_an_offset_per_clip_and_epoch(clips):
    with loader_of(clips, frames=2, temporal_jitter=True) as loader:
        drawn = {tuple(loader.frame_indices(epoch, 0).tolist()) for epoch in range(40)}
    assert drawn == {(0, 2), (1, 3)}


@pytest.mark.parametrize("workers", [0, 3])
def test_a_window_is_a_pure_function_of_seed_epoch_and_key(clips, stored, workers):
    windows = {}
    for batch_size, rank, world_size in ((8, 0, 1), (4, 0, 2), (4, 1, 2)):
        sampler = BatchSampler(
            np.arange(len(clips.index)), batch_size, 2, True, rank=rank, world_size=world_size
        )
        options = LoaderOptions(
            frames=2, frame_stride=(1, 3), temporal_jitter=True, workers=workers
        )
        with Loader(clips, sampler, options) as loader:
            for epoch in (1, 2):
                for batch in loader.epoch(epoch):
                    for row in np.flatnonzero(batch.valid):
                        key, index = batch.keys[row], int(batch.indices[row])
                        frames = loader.frame_indices(epoch, index)
                        assert np.array_equal(batch.pixels[row], stored[key][frames])
                        same = windows.setdefault((epoch, key), frames.tolist())
                        assert same == frames.tolist()
    assert len(windows) == 2 * len(clips.index)
    strides = [two - one for one, two in windows.values()]
    assert {*strides} == {1, 2, 3}
    changed = sum(windows[1, key] != windows[2, key] for key in clips.keys())  # noqa: SIM118
    assert changed > len(clips.index) / 2


@pytest.mark.parametrize("workers", [0, 3])
def test_a_transform_of_the_caller_is_applied_clip_by_clip(clips, stored, workers):
    def transform(clip):
        return torch.from_numpy(clip).float().mean((1, 2))  # [T,C]

    with loader_of(clips, transform, workers=workers) as loader:
        for batch in loader.epoch():
            assert (batch.pixels.dtype, batch.pixels.shape) == (torch.float32, (8, 4, 3))
            for key, row in zip(batch.keys, batch.pixels, strict=True):
                assert torch.equal(row, transform(stored[key]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_changes_shape_or_dtype_is_refused(clips, workers):
    def transform(clip):
        return clip[: 1 + int(clip.any())]

    with (
        loader_of(clips, transform, workers=workers) as loader,
        pytest.raises(LoaderError, match=r"uint8 \[2, 12, 14, 3\] for v_\w+ and uint8 \[1, 12, 14"),
    ):
        next(loader.epoch())


def test_a_batch_transform_gives_what_the_iterator_gives(clips):
    threads = set()

    def transform(batch):
        threads.add(threading.current_thread())
        return batch.pixels.float() / 255, torch.from_numpy(batch.labels)

    with loader_of(clips, batch_transform=transform) as loader:
        batches = [(pixels.shape, labels.tolist()) for pixels, labels in loader.epoch(1)]
    with loader_of(clips) as loader:
        assert batches == [(batch.pixels.shape, batch.labels.tolist()) for batch in loader.epoch(1)]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize(
    ("views", "options", "message"),
    [
        (1, {"frames": 2, "frame_stride": (1, 4)}, "span 5 frames .* --frame-stride 3 or"),
        (4, {"frames": 2, "frame_stride": 1}, "4 views of 2 frames .* use at most 3"),
        (3, {"frames": 2}, r"3 views of 2 frames .* hold 4 frames: use at most 2"),
        (1, {"frames": 9}, r"9 frames asked for .* hold 4: use --frames 4"),
        (1, {"frame_stride": 0}, "frame_stride = 0"),
        (1, {"frame_stride": (3, 2)}, r"frame_stride = \(3, 2\)"),
        (1, {"cache": "disk"}, "unknown cache 'disk': choose one of none, ram"),
        (1, {"workers": -1}, "workers = -1: give 0 or more"),
        (1, {"prefetch_batches": 0}, "prefetch_batches = 0: give 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(clips, views, options, message):
    with pytest.raises(LoaderError, match=message):
        Loader(clips, BatchSampler(np.arange(5), 4, views=views), LoaderOptions(**options))


def test_buffers_are_reused_and_never_more(clips):
    with loader_of(clips, prefetch_batches=2) as loader:
        seen = {batch.pixels.data_ptr() for epoch in range(5) for batch in loader.epoch(epoch)}
    assert len(seen) <= 4


def test_a_buffer_is_filled_again_only_after_its_event(clips):
    waited = []

    class Copy:
        def synchronize(self):
            waited.append(True)

    with loader_of(clips, prefetch_batches=1) as loader:
        for batch in loader.epoch():
            batch.release(Copy())
    assert waited


def test_a_detached_tensor_keeps_its_pixels_and_frees_the_buffer_when_it_dies(clips, stored):
    with loader_of(clips, prefetch_batches=1) as loader:
        batches = loader.epoch()
        first = next(batches)
        keys, kept = first.keys, first.detach()[2:]
        for _ in range(4):
            next(batches)
        assert all(np.array_equal(kept[n - 2], stored[keys[n]]) for n in range(2, 8))
        free = len(loader._buffers._free)
        del kept
        assert len(loader._buffers._free) == free + 1


def test_a_pool_whose_buffers_are_all_kept_says_so(clips):
    with (
        loader_of(clips, prefetch_batches=1) as loader,
        pytest.raises(LoaderError, match="every buffer of the loader is in use"),
    ):
        list(map(Batch.detach, loader.epoch()))


def test_leaving_an_epoch_early_does_not_block_the_next(clips):
    with loader_of(clips) as loader:
        for _ in range(10):
            next(iter(loader.epoch()))
        assert len(list(loader.epoch())) == 5


def test_a_set_kept_in_memory_is_read_once_and_gives_the_same_batches(tmp_path):
    clips = make_tars(tmp_path / "set")
    stored = stored_clips(clips)
    with loader_of(clips, cache="ram") as loader:
        for epoch in range(3):
            for batch in loader.epoch(epoch):
                pixels = batch.pixels.numpy()
                assert all(np.array_equal(pixels[n], stored[k]) for n, k in enumerate(batch.keys))
            clips.shard_path(0).unlink(missing_ok=True)  # what is open stays open
            loader._builder.reader.close()

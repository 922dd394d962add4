"""The loader gives the plan's batches, right pixels, from a ring that never grows."""

import threading

import numpy as np
import pytest
from made_shards import SHAPE, make_shards

from har.shards.format import ClipReader, ShardSetError
from har.shards.loading import BatchSampler, Loader, LoaderError, LoaderOptions


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("loader") / "set")


def whole_epoch(loader, epoch=1, start=0):
    """Copies of what an epoch gives: [(step, pixels, labels, keys, valid)]."""
    with loader:
        return [
            (b.step, b.pixels.numpy().copy(), b.labels.tolist(), b.keys, b.valid.tolist())
            for b in loader.epoch(epoch, start)
        ]


def plan_of(clips, **options):
    return BatchSampler(np.arange(len(clips.index)), 8, seed=2, shuffle=True, **options)


def same(one, two):
    return all(
        a[0] == b[0] and np.array_equal(a[1], b[1]) and a[2:] == b[2:]
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_every_row_has_the_pixels_and_label_of_its_key(clips, workers):
    reader = ClipReader(clips)
    of_key = {key: number for number, key in enumerate(clips.keys())}
    rows = 0
    for _, pixels, labels, keys, _ in whole_epoch(
        Loader(clips, plan_of(clips), LoaderOptions(workers=workers))
    ):
        for row, key in enumerate(keys):
            assert np.array_equal(pixels[row], reader.read(of_key[key]))
            assert labels[row] == clips.index["label"][of_key[key]]
            rows += 1
    assert rows == 32  # 30 clips, the last batch filled up to 8


def test_worker_count_does_not_change_the_batches(clips):
    runs = [whole_epoch(Loader(clips, plan_of(clips), LoaderOptions(workers=n))) for n in (0, 1, 3)]
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])


def test_ranks_together_have_the_global_batch(clips):
    whole = whole_epoch(Loader(clips, plan_of(clips)))
    parts = [whole_epoch(Loader(clips, plan_of(clips, rank=r, world_size=2))) for r in (0, 1)]
    for step, batch in enumerate(whole):
        together = np.concatenate([part[step][1] for part in parts])
        assert np.array_equal(together, batch[1])


@pytest.mark.parametrize("start", [1, 2, 3])
def test_resume_at_a_step_gives_the_rest_of_the_epoch(clips, start):
    whole = whole_epoch(
        Loader(clips, plan_of(clips), LoaderOptions(temporal_jitter=True, frames=2))
    )
    rest = whole_epoch(
        Loader(clips, plan_of(clips), LoaderOptions(temporal_jitter=True, frames=2)), start=start
    )
    assert same(whole[start:], rest)


def test_fewer_frames_are_evenly_spaced(clips):
    reader = ClipReader(clips)
    plan = BatchSampler(np.arange(4), 4)
    ((_, pixels, _, _, _),) = whole_epoch(Loader(clips, plan, LoaderOptions(frames=2)))
    for row in range(4):
        assert np.array_equal(pixels[row], reader.read(row)[[0, 2]])


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_a_clip_are_its_evenly_spaced_phases(clips, workers):
    reader, plan = ClipReader(clips), BatchSampler(np.arange(5), 4, views=2)
    with Loader(clips, plan, LoaderOptions(frames=2, workers=workers)) as loader:
        rows = [
            (one, view, pixels.copy())
            for b in loader.epoch()
            for one, view, pixels, good in zip(
                b.indices, b.views, b.pixels.numpy(), b.valid, strict=True
            )
            if good
        ]
    assert [row[:2] for row in rows] == [(one, view) for one in range(5) for view in (0, 1)]
    for one, view, pixels in rows:
        assert np.array_equal(pixels, reader.read(int(one))[[view, 2 + view]])


def test_more_views_than_the_frames_give_are_refused(clips):
    with pytest.raises(LoaderError, match=r"3 views of 2 frames .* hold 4 frames: use at most 2"):
        Loader(clips, BatchSampler(np.arange(5), 4, views=3), LoaderOptions(frames=2))


def test_jitter_draws_a_phase_per_clip_and_epoch(clips):
    loader = Loader(clips, plan_of(clips), LoaderOptions(frames=2, temporal_jitter=True))
    chosen = {tuple(loader._builder.frame_indices(epoch, 0).tolist()) for epoch in range(40)}
    assert chosen == {(0, 2), (1, 3)}


def test_the_ring_is_reused_and_never_grows(clips):
    with Loader(clips, plan_of(clips), LoaderOptions(prefetch_batches=2)) as loader:
        seen = {batch.pixels.data_ptr() for epoch in range(5) for batch in loader.epoch(epoch)}
    assert len(seen) <= 4


def test_a_slot_is_filled_again_only_after_its_event(clips):
    happened = threading.Event()
    waited = []

    class Copy:
        def synchronize(self):
            waited.append(True)
            happened.set()

    with Loader(clips, plan_of(clips), LoaderOptions(prefetch_batches=1)) as loader:
        for batch in loader.epoch():
            batch.release(Copy())
    assert happened.is_set()
    assert len(waited) >= 1


def test_leaving_an_epoch_early_does_not_block_the_next(clips):
    with Loader(clips, plan_of(clips)) as loader:
        for _ in range(10):
            next(iter(loader.epoch()))
        assert len(list(loader.epoch())) == 4


def test_more_frames_than_stored_says_how_many_there_are(clips):
    with pytest.raises(LoaderError, match=r"9 frames asked for .* hold 4: use --frames 4"):
        Loader(clips, plan_of(clips), LoaderOptions(frames=9))


def test_a_stuck_worker_is_named(clips, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(ClipReader, "read_into", lambda *_: release.wait(5))
    loader = Loader(clips, plan_of(clips), LoaderOptions(timeout=0.1))
    try:
        with pytest.raises(LoaderError, match=r"har-loader-\d has been at sample v_\w+") as caught:
            next(loader.epoch())
        assert "release.wait(5)" in str(caught.value)  # its stack
    finally:
        release.set()
        loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_bit_stops_with_key_and_offset(tmp_path, workers):
    clips = make_shards(tmp_path / "set")
    path = clips.shard_path(0)
    data = bytearray(path.read_bytes())
    size = clips.clip_bytes
    data[5 * size + 77] ^= 4
    path.write_bytes(data)
    key = clips.keys()[5]
    with pytest.raises(ShardSetError, match=rf"{key} .* at byte {5 * size:,} has pixels"):
        whole_epoch(Loader(clips, plan_of(clips), LoaderOptions(workers=workers)))


def test_a_cut_shard_and_a_missing_shard_are_named(tmp_path):
    clips = make_shards(tmp_path / "set")
    path = clips.shard_path(0)
    path.write_bytes(path.read_bytes()[: -clips.clip_bytes // 2])
    with pytest.raises(ShardSetError, match=r"ends after [\d,]+ of"):
        whole_epoch(Loader(clips, plan_of(clips)))
    path.unlink()
    with pytest.raises(ShardSetError, match=r"shard-000000\.tar cannot be opened"):
        whole_epoch(Loader(clips, plan_of(clips)))


def test_shape_of_a_batch(clips):
    with Loader(clips, plan_of(clips)) as loader:
        batches = loader.epoch()
        batch = next(batches)
        assert tuple(batch.pixels.shape) == (8, *SHAPE)
        assert batch.labels.dtype == np.int64
        batch.release()

"""The sampler is a pure function: same batches for any ranks, each clip once, any step at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from har.shards.loading import BatchSampler, BatchSamplerError

sizes = st.integers(1, 60)
batches = st.sampled_from([1, 2, 3, 4, 6, 12, 24])


def epoch_order(sampler, epoch):
    rows = [sampler.batch(epoch, step) for step in range(sampler.num_batches)]
    return np.concatenate([row.indices[row.valid] for row in rows])


@given(sizes, batches, st.booleans(), st.integers(0, 5))
@settings(deadline=None)
def test_each_clip_counts_once_in_every_epoch(n, batch, shuffle, epoch):
    indices = np.arange(100, 100 + n)
    seen = epoch_order(BatchSampler(indices, batch, seed=3, shuffle=shuffle), epoch)
    assert sorted(seen.tolist()) == indices.tolist()


@given(sizes, st.sampled_from([1, 2, 3]), st.integers(0, 3))
@settings(deadline=None)
def test_ranks_together_have_the_batch_of_one_process(n, world_size, epoch):
    indices = np.arange(n)
    whole = BatchSampler(indices, 12, seed=1, shuffle=True)
    parts = [
        BatchSampler(indices, 12, seed=1, shuffle=True, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    assert {part.num_batches for part in parts} == {whole.num_batches}
    for step in range(whole.num_batches):
        together = [part.batch(epoch, step) for part in parts]
        expected = whole.batch(epoch, step)
        assert (
            np.concatenate([row.indices for row in together]).tolist() == expected.indices.tolist()
        )
        assert np.concatenate([row.valid for row in together]).tolist() == expected.valid.tolist()
        assert {row.num_valid for row in together} == {int(expected.valid.sum())}


def test_train_order_changes_with_epoch_and_seed_and_repeats_itself():
    indices = np.arange(50)
    first = epoch_order(BatchSampler(indices, 8, seed=0, shuffle=True), 1).tolist()
    assert first == epoch_order(BatchSampler(indices, 8, seed=0, shuffle=True), 1).tolist()
    assert first != epoch_order(BatchSampler(indices, 8, seed=0, shuffle=True), 2).tolist()
    assert first != epoch_order(BatchSampler(indices, 8, seed=1, shuffle=True), 1).tolist()


def test_every_batch_has_full_size():
    sampler = BatchSampler(np.arange(3), 8, shuffle=True)
    rows = sampler.batch(0, 0)
    assert len(rows.indices) == 8
    assert rows.valid.tolist() == [True] * 3 + [False] * 5


def test_batch_size_that_does_not_divide_among_ranks_is_refused():
    with pytest.raises(BatchSamplerError, match="10 does not divide among 3 ranks"):
        BatchSampler(np.arange(20), 10, world_size=3)


def test_no_clip_and_step_outside_are_refused():
    with pytest.raises(BatchSamplerError, match="no clip"):
        BatchSampler(np.arange(0), 4)
    with pytest.raises(BatchSamplerError, match="step 3 is outside"):
        BatchSampler(np.arange(12), 4).batch(0, 3)


@given(sizes, st.integers(0, 70), st.integers(0, 3))
@settings(deadline=None)
def test_a_blockwise_epoch_has_each_clip_once_too(n, block_size, epoch):
    indices = np.arange(7, 7 + n)
    sampler = BatchSampler(indices, 4, seed=3, shuffle=True, block_size=block_size)
    assert sorted(epoch_order(sampler, epoch).tolist()) == indices.tolist()


def test_a_block_keeps_few_runs_open_and_quality_says_what_it_costs():
    indices = np.arange(8000)
    true, stored = BatchSampler(indices, 8, shuffle=True), BatchSampler(indices, 8)
    blockwise = BatchSampler(indices, 8, shuffle=True, block_size=800)
    assert true.shuffle_quality() == pytest.approx(1, abs=0.05)
    assert 0.05 < blockwise.shuffle_quality() < 0.3
    assert stored.shuffle_quality() < 0.001
    order = epoch_order(blockwise, 1)
    for start in range(0, 8000, 800):  # of each 800 clips in turn only 8 runs of 100 are touched
        assert len(np.unique(order[start : start + 800] // 100)) == 8
    assert order.tolist() != epoch_order(blockwise, 2).tolist()


def test_a_block_as_large_as_the_split_is_a_true_permutation():
    indices = np.arange(50)
    whole, true = (
        BatchSampler(indices, 8, shuffle=True, block_size=block_size) for block_size in (50, 0)
    )
    assert epoch_order(whole, 1).tolist() == epoch_order(true, 1).tolist()


def test_a_negative_block_size_is_refused():
    with pytest.raises(BatchSamplerError, match="block of -1 clips"):
        BatchSampler(np.arange(9), 3, block_size=-1)


@given(sizes, batches, st.integers(1, 4), st.sampled_from([1, 2]))
@settings(deadline=None)
def test_each_clip_comes_once_in_each_view_and_is_counted_once(n, batch, views, world_size):
    indices, batch = np.arange(50, 50 + n), batch * world_size
    samplers = [
        BatchSampler(indices, batch, rank=rank, world_size=world_size, views=views)
        for rank in range(world_size)
    ]
    rows = [
        sampler.batch(0, step) for step in range(samplers[0].num_batches) for sampler in samplers
    ]
    pairs = [
        (one, view)
        for row in rows
        for one, view in zip(
            row.indices[row.valid].tolist(), row.views[row.valid].tolist(), strict=True
        )
    ]
    assert pairs == [(one, view) for one in indices.tolist() for view in range(views)]
    assert sum(row.num_valid for row in rows[::world_size]) == n


@given(sizes, batches, st.booleans(), st.sampled_from([1, 2, 3]), st.data())
@settings(deadline=None)
def test_the_indices_of_an_epoch_are_those_of_its_batches(n, batch, shuffle, world_size, data):
    rank = data.draw(st.integers(0, world_size - 1))
    sampler = BatchSampler(np.arange(n), batch * world_size, 5, shuffle, rank, world_size)
    start = data.draw(st.integers(0, sampler.num_batches))
    rows = [sampler.batch(2, step).indices for step in range(start, sampler.num_batches)]
    expected = np.concatenate([np.empty(0, int), *rows])
    assert sampler.epoch_indices(2, start).tolist() == expected.tolist()


def test_views_of_a_shuffled_sampler_are_refused():
    with pytest.raises(
        BatchSamplerError, match="2 views a clip: give 1 or, without shuffling, more"
    ):
        BatchSampler(np.arange(9), 3, shuffle=True, views=2)
    with pytest.raises(BatchSamplerError, match="0 views"):
        BatchSampler(np.arange(9), 3, views=0)

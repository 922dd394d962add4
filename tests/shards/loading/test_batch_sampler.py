"""The sampler is a pure function: same batches for any ranks, each clip once, any step at once."""

from dataclasses import replace

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


@given(sizes, batches, st.booleans(), st.integers(0, 70), st.integers(0, 5))
@settings(deadline=None)
def test_each_clip_counts_once_in_every_epoch(n, batch, shuffle, block_size, epoch):
    indices = np.arange(100, 100 + n)
    sampler = BatchSampler(indices, batch, seed=3, shuffle=shuffle, block_size=block_size)
    assert sorted(epoch_order(sampler, epoch).tolist()) == indices.tolist()


@given(sizes, st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 4]), st.integers(0, 3))
@settings(deadline=None)
def test_ranks_together_have_the_batch_of_one_process(n, world_size, views, epoch):
    indices = np.arange(n)
    whole = BatchSampler(indices, 24, seed=1, shuffle=True, views=views)
    parts = [replace(whole, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {part.num_batches for part in parts} == {whole.num_batches}
    for step in range(whole.num_batches):
        together = [part.batch(epoch, step) for part in parts]
        expected = whole.batch(epoch, step)
        assert all((np.diff(row.indices.reshape(-1, views)) == 0).all() for row in together)
        for field in ("indices", "valid", "views"):
            joined = np.concatenate([getattr(row, field) for row in together])
            assert joined.tolist() == getattr(expected, field).tolist()
        assert {row.num_valid for row in together} == {int(expected.valid.sum()) // views}


def test_train_order_changes_with_epoch_and_seed_and_repeats_itself():
    first, again, other_epoch, other_seed = (
        epoch_order(BatchSampler(np.arange(50), 8, seed, shuffle=True), epoch).tolist()
        for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    )
    assert first == again
    assert first not in (other_epoch, other_seed)


def test_every_batch_has_full_size():
    rows = BatchSampler(np.arange(3), 8, shuffle=True).batch(0, 0)
    assert len(rows.indices) == 8
    assert rows.valid.tolist() == [True] * 3 + [False] * 5


@pytest.mark.parametrize(
    ("clips", "options", "message"),
    [
        (20, {"batch_size": 10, "world_size": 3}, "10 does not divide among 3 ranks"),
        (0, {}, "no clip"),
        (9, {"block_size": -1}, "block of -1 clips"),
        (
            20,
            {"batch_size": 12, "shuffle": True, "views": 2, "world_size": 4},
            r"6 \(12 rows, 2 of each clip\) does not divide among 4 ranks",
        ),
        (9, {"views": 0}, "0 views"),
    ],
)
def test_what_cannot_be_is_refused(clips, options, message):
    with pytest.raises(BatchSamplerError, match=message):
        BatchSampler(np.arange(clips), **{"batch_size": 3, **options})


def test_a_step_outside_the_epoch_is_refused():
    with pytest.raises(BatchSamplerError, match="step 3 is outside"):
        BatchSampler(np.arange(12), 4).batch(0, 3)


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
    whole, true = (BatchSampler(indices, 8, shuffle=True, block_size=size) for size in (50, 0))
    assert epoch_order(whole, 1).tolist() == epoch_order(true, 1).tolist()


@given(sizes, batches, st.integers(1, 4), st.sampled_from([1, 2]))
@settings(deadline=None)
def test_each_clip_comes_once_in_each_view_and_is_counted_once(n, batch, views, world_size):
    indices, batch = np.arange(50, 50 + n), batch * world_size
    options = {"world_size": world_size, "views": views}
    samplers = [BatchSampler(indices, batch, rank=rank, **options) for rank in range(world_size)]
    steps = range(samplers[0].num_batches)
    rows = [sampler.batch(0, step) for step in steps for sampler in samplers]
    pairs = np.concatenate([np.stack([row.indices, row.views], 1)[row.valid] for row in rows])
    assert pairs.tolist() == [[index, view] for index in indices.tolist() for view in range(views)]
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

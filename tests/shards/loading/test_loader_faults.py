"""Faults on the way: damaged shards, stuck and dead threads, corrupt clips that are replaced."""

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_tars import flip_bit, make_tars, stored_clips

from har.shards.edit import compact_set, relabel_clips, remove_clips
from har.shards.format import ShardSetError, load_manifest
from har.shards.format.reader import ClipReader
from har.shards.loading import (
    BatchSampler,
    BatchSamplerError,
    CorruptClipWarning,
    Loader,
    LoaderError,
    LoaderOptions,
    check_resume,
)  # fmt: skip
from har.shards.loading.workers import _Worker


@pytest.fixture
def clips(tmp_path):
    return make_tars(tmp_path / "set")


@pytest.fixture
def stored(clips):
    return stored_clips(clips)


def corrupt(clips, *indices):
    """Flip one bit of each clip's pixels."""
    for row in clips.index[[*indices]]:
        flip_bit(clips.shard_path(int(row["shard"])), int(row["offset"]) + 5)


def loader_of(clips, *, batch=8, shuffle=False, **options):
    sampler = BatchSampler(np.arange(len(clips.index)), batch, seed=1, shuffle=shuffle)
    return Loader(clips, sampler, LoaderOptions(**options))


def rows_of(clips, *, epochs=1, shuffle=True, **options):
    """Rows of whole epochs: [(key, valid, pixels)]."""
    with loader_of(clips, shuffle=shuffle, **options) as loader:
        return [
            row
            for epoch in range(epochs)
            for batch in loader.epoch(epoch)
            for row in zip(batch.keys, batch.valid.tolist(), batch.pixels.clone(), strict=True)
        ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_bit_stops_with_key_and_offset(clips, workers):
    corrupt(clips, 5)
    key, offset = clips.keys()[5], int(clips.index["offset"][5])
    with pytest.raises(ShardSetError, match=rf"{key} .* at byte {offset:,} has pixels"):
        rows_of(clips, workers=workers)


def test_a_cut_shard_and_a_missing_shard_are_named(clips):
    path = clips.shard_path(0)
    path.write_bytes(path.read_bytes()[: int(clips.index["offset"][-1]) + 9])
    with pytest.raises(ShardSetError, match=r"ends after 9 of 2,016 bytes"):
        rows_of(clips)
    path.unlink()
    with pytest.raises(ShardSetError, match=r"shard-000000\.tar cannot be opened"):
        rows_of(clips)


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_clips_are_replaced_and_the_epoch_keeps_its_length(clips, stored, workers):
    corrupt(clips, 3, 4, 20)
    with pytest.warns(CorruptClipWarning, match="replaced a corrupt clip: sample v_"):
        rows = rows_of(clips, workers=workers, max_corrupt=3)
    assert len(rows) == 40
    assert sum(valid for _, valid, _ in rows) == 34
    assert not {clips.keys()[n] for n in (3, 4, 20)} & {key for key, _, _ in rows}
    assert all(np.array_equal(pixels, stored[key]) for key, _, pixels in rows)


def test_replacements_do_not_depend_on_workers_or_epoch_before(clips):
    corrupt(clips, 3, 4, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptClipWarning)
        runs = [
            [key for key, _, _ in rows_of(clips, workers=workers, max_corrupt=3, epochs=2)]
            for workers in (0, 1, 4)
        ]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_in_an_evaluation_a_replaced_clip_does_not_count(clips, workers):
    corrupt(clips, 3, 9)
    with loader_of(clips, workers=workers, max_corrupt=2) as loader:
        with pytest.warns(CorruptClipWarning):
            batches = list(loader.epoch())
        assert sorted(loader.corrupt) == [3, 9]
        assert clips.keys()[9] in loader.corrupt[9]
    counts = [(batch.num_valid, int(batch.valid.sum())) for batch in batches]
    keys = [key for b in batches for key, valid in zip(b.keys, b.valid, strict=True) if valid]
    assert counts == [(7, 7), (7, 7), (8, 8), (8, 8), (2, 2)]
    assert sorted(keys) == sorted(set(clips.keys()) - {clips.keys()[3], clips.keys()[9]})


def test_in_training_a_replaced_clip_counts(clips):
    corrupt(clips, 3, 9)
    loader = loader_of(clips, shuffle=True, max_corrupt=2)
    with loader, pytest.warns(CorruptClipWarning):
        assert [batch.num_valid for batch in loader.epoch()] == [8, 8, 8, 8, 2]


@pytest.mark.parametrize(
    ("indices", "limit", "message"),
    [
        ([3, 4, 20], 2, r"more than 2 clips are corrupt, the last: sample v_"),
        (range(34), 99, "every clip of this subset"),
    ],
)
def test_too_many_corrupt_clips_stop(clips, indices, limit, message):
    corrupt(clips, *indices)
    with pytest.warns(CorruptClipWarning), pytest.raises(ShardSetError, match=message):
        rows_of(clips, max_corrupt=limit)


def test_a_stuck_worker_is_named_with_its_stack(clips, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(ClipReader, "read_into", lambda *_: release.wait(5))
    loader = loader_of(clips, timeout=0.1)
    try:
        with pytest.raises(LoaderError, match=r"har-loader-\d has been at sample v_\w+") as caught:
            next(loader.epoch())
        assert "release.wait(5)" in str(caught.value)
    finally:
        release.set()
        loader.close()


def test_a_slow_worker_that_makes_progress_is_not_called_stuck(clips, monkeypatch):
    pause, read_into = threading.Event(), ClipReader.read_into

    def read_slowly(self, index, out):
        pause.wait(0.05)
        read_into(self, index, out)

    monkeypatch.setattr(ClipReader, "read_into", read_slowly)
    with loader_of(clips, batch=34, workers=1, timeout=0.5) as loader:
        next(loader.epoch()).release()  # takes 1.7 s


def test_a_dead_worker_is_named(clips, monkeypatch):
    monkeypatch.setattr(_Worker, "run", lambda self: None)
    with (
        loader_of(clips, timeout=0.05) as loader,
        pytest.raises(LoaderError, match="har-loader-0 is dead"),
    ):
        next(loader.epoch())


def test_another_manifest_refuses_to_resume(clips, tmp_path):
    check_resume(clips.digest, clips)
    other = make_tars(tmp_path / "other", clips=32)
    with pytest.raises(BatchSamplerError, match=r"other has changed since .* start a new run"):
        check_resume(clips.digest, other)
    keys = other.keys()
    compact_set(remove_clips(other.root, keys[:3]).root)
    changed = relabel_clips(other.root, [{"key": keys[3], "label": "new"}])
    with pytest.raises(
        BatchSamplerError, match=r"began \(3 clips removed, 1 clip relabelled\): give the run"
    ):
        check_resume(other.digest, changed)
    check_resume(changed.digest, compact_set(other.root))  # the same clips in the same order


@pytest.mark.parametrize("times", [40, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "shard-000000.tar"])
@pytest.mark.parametrize("how", ["flip", "cut"])
def test_damage_anywhere_is_an_error_that_names_the_place_or_harmless(
    clips, stored, name, how, times
):
    """A flipped byte of a tar header harms nobody."""
    path = clips.root / name
    data, random = path.read_bytes(), np.random.default_rng(5)
    errors = []
    for _ in range(times):
        position = int(random.integers(len(data)))
        damaged = bytearray(data)
        if how == "flip":
            damaged[position] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged if how == "flip" else data[:position])
        try:
            rows = rows_of(load_manifest(clips.root), workers=0)
        except ShardSetError as error:  # anything else is a crash
            errors.append(str(error))
        else:
            assert all(np.array_equal(pixels, stored[key]) for key, _, pixels in rows)
    assert errors
    assert all(str(clips.root) in error for error in errors)


_NOT_CLOSED = """
import sys, time, numpy as np
from har.shards.format import load_manifest
from har.shards.loading import BatchSampler, Loader, LoaderOptions
clips = load_manifest(sys.argv[1])
loader = Loader(clips, BatchSampler(np.arange(len(clips.index)), 4), LoaderOptions(workers=1))
fill_row = loader._builder.fill_row
def slow(*arguments):
    time.sleep(0.1)
    fill_row(*arguments)
    print("filled", flush=True)
loader._builder.fill_row = slow
epoch = loader.epoch()
next(epoch)
"""


def test_a_loader_that_nobody_closed_ends_its_threads_before_python_ends(tmp_path):
    """A thread that came out of compiled code while Python shut down aborted the process."""
    clips = make_tars(tmp_path / "set", clips=8)
    done = subprocess.run(
        [sys.executable, "-c", _NOT_CLOSED, str(clips.root)], capture_output=True, text=True,
        cwd=Path(__file__).parents[3], timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("filled") >= 5  # 4 of the first batch, and the clip in hand at the end

"""Faults on the way: a flipped or missing byte, a dead thread, a corrupt clip that is replaced."""

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_tars import make_tars

from har.shards.format import ClipReader, ShardSetError, load_manifest
from har.shards.loading import (
    Batch,
    BatchSampler,
    BatchSamplerError,
    CorruptClipWarning,
    Loader,
    LoaderError,
    LoaderOptions,
    check_resume,
)
from har.shards.loading.workers import _Worker


def spoil(clips, *samples):
    """Turn one bit of each sample's pixels."""
    for sample in samples:
        row = clips.index[sample]
        path = clips.shard_path(int(row["shard"]))
        data = bytearray(path.read_bytes())
        data[int(row["offset"]) + 5] ^= 1
        path.write_bytes(data)


def loaded(clips, *, shuffle=True, ranks=1, epochs=1, **options):
    """Rows of whole epochs: [(key, valid, pixels)], all ranks in turn."""
    rows = []
    for rank in range(ranks):
        plan = BatchSampler(
            np.arange(len(clips.index)), 8, seed=1, shuffle=shuffle, rank=rank, world_size=ranks
        )
        with Loader(clips, plan, LoaderOptions(**options)) as loader:
            for epoch in range(epochs):
                for batch in loader.epoch(epoch):
                    pixels = batch.pixels.numpy().copy()
                    rows += list(zip(batch.keys, batch.valid.tolist(), pixels, strict=True))
    return rows


def truth(root):
    clips = make_tars(root)
    reader = ClipReader(clips)
    return clips, {key: reader.read(n) for n, key in enumerate(clips.keys())}


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_clips_are_replaced_and_the_epoch_keeps_its_length(tmp_path, workers):
    clips, right = truth(tmp_path / "set")
    bad = {clips.keys()[n] for n in (3, 4, 20)}
    spoil(clips, 3, 4, 20)
    with pytest.warns(CorruptClipWarning, match="replaced a corrupt clip: sample v_"):
        rows = loaded(clips, workers=workers, max_corrupt=3)
    assert len(rows) == 40
    assert sum(valid for _, valid, _ in rows) == 34
    assert not bad & {key for key, _, _ in rows}
    assert all(np.array_equal(pixels, right[key]) for key, _, pixels in rows)


def test_replacements_do_not_depend_on_workers_or_epoch_before(tmp_path):
    clips, _ = truth(tmp_path / "set")
    spoil(clips, 3, 4, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptClipWarning)
        runs = [
            [key for key, _, _ in loaded(clips, workers=workers, max_corrupt=3, epochs=2)]
            for workers in (0, 1, 4)
        ]
    assert runs[0] == runs[1] == runs[2]


def test_in_an_evaluation_a_replaced_clip_does_not_count(tmp_path):
    clips, _ = truth(tmp_path / "set")
    spoil(clips, 3)
    with pytest.warns(CorruptClipWarning):
        rows = loaded(clips, shuffle=False, max_corrupt=1)
    counted = [key for key, valid, _ in rows if valid]
    assert sorted(counted) == sorted(set(clips.keys()) - {clips.keys()[3]})


@pytest.mark.parametrize("workers", [0, 2])
def test_in_an_evaluation_counted_is_what_really_counts(tmp_path, workers):
    clips, _ = truth(tmp_path / "set")
    spoil(clips, 3, 9)
    plan = BatchSampler(np.arange(34), 8)
    with (
        Loader(clips, plan, LoaderOptions(workers=workers, max_corrupt=2)) as loader,
        pytest.warns(CorruptClipWarning),
    ):
        counts = [(b.num_valid, int(b.valid.sum())) for b in loader.epoch()]
    assert counts == [(7, 7), (7, 7), (8, 8), (8, 8), (2, 2)]


def test_in_training_a_replaced_clip_counts(tmp_path):
    clips, _ = truth(tmp_path / "set")
    spoil(clips, 3, 9)
    plan = BatchSampler(np.arange(34), 8, shuffle=True)
    with (
        Loader(clips, plan, LoaderOptions(max_corrupt=2)) as loader,
        pytest.warns(CorruptClipWarning),
    ):
        assert [b.num_valid for b in loader.epoch()] == [8, 8, 8, 8, 2]


def test_one_corrupt_clip_more_than_allowed_stops(tmp_path):
    clips, _ = truth(tmp_path / "set")
    spoil(clips, 3, 4, 20)
    with (
        pytest.warns(CorruptClipWarning),
        pytest.raises(ShardSetError, match=r"more than 2 clips are corrupt, the last: sample v_"),
    ):
        loaded(clips, max_corrupt=2)


def test_a_set_of_nothing_but_corrupt_clips_says_so(tmp_path):
    clips, _ = truth(tmp_path / "set")
    spoil(clips, *range(34))
    with pytest.warns(CorruptClipWarning), pytest.raises(ShardSetError, match="every clip"):
        loaded(clips, max_corrupt=99)


def test_bad_clips_are_kept_with_their_reason(tmp_path):
    clips, _ = truth(tmp_path / "set")
    spoil(clips, 7)
    loader = Loader(clips, BatchSampler(np.arange(34), 34), LoaderOptions(max_corrupt=1))
    with loader, pytest.warns(CorruptClipWarning):
        next(loader.epoch()).release()
    assert list(loader.corrupt) == [7]
    assert clips.keys()[7] in loader.corrupt[7]


def test_a_set_kept_in_memory_is_read_once_and_gives_the_same_batches(tmp_path):
    clips, right = truth(tmp_path / "set")
    with Loader(
        clips, BatchSampler(np.arange(34), 8, shuffle=True), LoaderOptions(cache="ram")
    ) as loader:
        for epoch in range(3):
            for batch in loader.epoch(epoch):
                pixels = batch.pixels.numpy()
                assert all(np.array_equal(pixels[n], right[k]) for n, k in enumerate(batch.keys))
            clips.shard_path(0).unlink(missing_ok=True)  # what is open stays open
            loader._builder.reader.close()


def test_an_unknown_cache_is_refused(tmp_path):
    clips = make_tars(tmp_path / "set")
    with pytest.raises(LoaderError, match="unknown cache 'disk': choose one of none, ram"):
        Loader(clips, BatchSampler(np.arange(34), 8), LoaderOptions(cache="disk"))


def test_a_dead_worker_is_named(tmp_path, monkeypatch):
    clips, _ = truth(tmp_path / "set")
    monkeypatch.setattr(_Worker, "run", lambda self: None)
    with (
        Loader(clips, BatchSampler(np.arange(34), 8), LoaderOptions(timeout=0.05)) as loader,
        pytest.raises(LoaderError, match="har-loader-0 is dead"),
    ):
        next(loader.epoch())


def test_a_slow_worker_that_gets_on_is_not_called_stuck(tmp_path, monkeypatch):
    clips, _ = truth(tmp_path / "set")
    pause, read = threading.Event(), ClipReader.read_into

    def slowly(self, sample, out):
        pause.wait(0.05)
        read(self, sample, out)

    monkeypatch.setattr(ClipReader, "read_into", slowly)
    with Loader(
        clips, BatchSampler(np.arange(34), 34), LoaderOptions(workers=1, timeout=0.5)
    ) as loader:
        next(loader.epoch()).release()  # takes 1.7 s


def test_a_lent_tensor_keeps_its_pixels_and_gives_the_slot_back_when_it_dies(tmp_path):
    clips, right = truth(tmp_path / "set")
    with Loader(clips, BatchSampler(np.arange(34), 8), LoaderOptions(prefetch_batches=1)) as loader:
        batches = loader.epoch()
        first = next(batches)
        keys, kept = first.keys, first.detach()[2:]
        for _ in range(4):
            next(batches)
        assert all(np.array_equal(kept[n - 2], right[keys[n]]) for n in range(2, 8))
        free = len(loader._buffers._free)
        del kept
        assert len(loader._buffers._free) == free + 1


def test_a_ring_that_is_lent_out_whole_says_so(tmp_path):
    clips, _ = truth(tmp_path / "set")
    with (
        Loader(clips, BatchSampler(np.arange(34), 8), LoaderOptions(prefetch_batches=1)) as loader,
        pytest.raises(LoaderError, match="every buffer of the loader is in use"),
    ):
        list(map(Batch.detach, loader.epoch()))


def test_another_manifest_refuses_to_resume(tmp_path):
    clips, _ = truth(tmp_path / "set")
    check_resume(clips.digest, clips)
    other = make_tars(tmp_path / "other", clips=32)
    with pytest.raises(BatchSamplerError, match=r"other has changed since .* start a new run"):
        check_resume(clips.digest, other)


def try_whole(root):
    """-> None when every pixel is right, or the sentence of the error."""
    try:
        clips = load_manifest(root)
        rows = loaded(clips, workers=0)
    except ShardSetError as error:  # anything else is a crash
        return str(error), None
    return None, rows


@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "shard-000000.tar"])
@pytest.mark.parametrize("how", ["flip", "cut"])
def test_damage_anywhere_is_an_error_that_names_the_place_or_harmless(tmp_path, name, how):
    """40 damages each; `slow` runs many more. A flipped byte of a tar header harms nobody."""
    fuzz(tmp_path, name, how, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "shard-000000.tar"])
@pytest.mark.parametrize("how", ["flip", "cut"])
def test_much_damage_anywhere_is_an_error_or_harmless(tmp_path, name, how):
    fuzz(tmp_path, name, how, 1500)


def fuzz(tmp_path, name, how, times):
    clips, right = truth(tmp_path / "set")
    path = clips.root / name
    whole, random = path.read_bytes(), np.random.default_rng(5)
    errors = 0
    for _ in range(times):
        at = int(random.integers(len(whole)))
        if how == "flip":
            damaged = bytearray(whole)
            damaged[at] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
        else:
            path.write_bytes(whole[:at])
        error, rows = try_whole(clips.root)
        if error is None:
            assert all(np.array_equal(pixels, right[key]) for key, _, pixels in rows)
        else:
            errors += 1
            assert str(clips.root) in error
    assert errors > 0


_FORGOTTEN = """
import sys, time, numpy as np
from har.shards.loading import BatchSampler, Loader, LoaderOptions
clips = manifest.load(sys.argv[1])
loader = Loader(clips, BatchSampler(np.arange(len(clips.index)), 4), LoaderOptions(workers=1))
fill = loader._builder.fill_row
def slow(*given):
    time.sleep(0.4)
    fill(*given)
    print("filled", flush=True)
loader._builder.fill_row = slow
epoch = loader.epoch()
next(epoch)
"""


def test_a_loader_that_nobody_closed_ends_its_threads_before_python_ends(tmp_path):
    """A thread that came out of compiled code while Python shut down aborted the process."""
    made = make_tars(tmp_path / "set", clips=8)
    done = subprocess.run(
        [sys.executable, "-c", _FORGOTTEN, str(made.root)], capture_output=True, text=True,
        cwd=Path(__file__).parents[3], timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("filled") >= 5  # 4 of the first batch, and the clip in hand at the end

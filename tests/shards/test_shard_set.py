"""One object to begin with: what it says, and the loops that users write."""

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from made_tars import SHAPE, make_tars

import har.shards
from har.shards import ShardSet, open_shard_set
from har.shards.format import ClipReader, ShardSetError
from har.shards.loading import LoaderError
from har.shards.splits import SplitError


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory) -> ShardSet:
    root = tmp_path_factory.mktemp("shard_set") / "set"
    make_tars(root, 5, 40)
    return open_shard_set(root)


def keys_of(loader):
    """Keys of the rows that count, and their pixels."""
    return {
        key: pixels.clone()
        for batch in loader
        for key, pixels, valid in zip(batch.keys, batch.pixels, batch.valid, strict=True)
        if valid
    }


def test_a_shard_set_says_what_it_holds(shard_set):
    assert (len(shard_set), len(shard_set.classes)) == (40, 10)
    assert repr(shard_set) == (
        f"ShardSet('{shard_set.manifest.root}', 40 clips of 4x12x14x3, 10 classes)"
    )
    assert shard_set.split("paper", seed=3).seed == 3
    with pytest.raises(ShardSetError, match="no shard set at"):
        open_shard_set("/nowhere")


def test_a_for_loop_gives_each_clip_of_the_subset_once_and_releases_by_itself(shard_set):
    reader = ClipReader(shard_set.manifest)
    rows = {key: number for number, key in enumerate(shard_set.manifest.keys())}
    for subset in ("train", "val", "test"):
        indices = shard_set.split("paper").subset(subset)
        loader = shard_set.loader(subset, batch_size=3, split="paper")
        clips = keys_of(loader)
        assert len(loader) == -(-len(indices) // 3)
        assert set(clips) == set(shard_set.manifest.keys(indices))
        for key, pixels in clips.items():
            assert np.array_equal(pixels, reader.read(rows[key]))


def test_train_is_shuffled_anew_each_epoch_and_the_others_are_in_order(shard_set):
    loader = shard_set.loader("train", 4, split="paper", seed=5)
    epochs = [list(keys_of(loader)) for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])
    loader.epoch = 0
    assert list(keys_of(loader)) == epochs[0]
    in_order = shard_set.manifest.keys(shard_set.split("paper").test)
    assert list(keys_of(shard_set.loader("test", 4, split="paper"))) == in_order
    in_order = shard_set.manifest.keys(shard_set.split("paper").train)
    assert list(keys_of(shard_set.loader("train", 4, split="paper", shuffle=False))) == in_order


def test_ranks_share_the_global_batch(shard_set):
    whole = shard_set.loader("val", 4, split="paper")
    parts = [shard_set.loader("val", 4, split="paper", rank=r, world_size=2) for r in (0, 1)]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert batch.keys == halves[0].keys + halves[1].keys


def test_a_users_transforms_run_in_the_loaders_threads_and_decide_what_the_loop_gets(shard_set):
    threads = set()

    def mean_frame(clip: np.ndarray) -> torch.Tensor:
        threads.add(threading.current_thread())
        return torch.from_numpy(clip).float().mean(0)  # [H,W,C]

    def detach(batch):
        return batch.detach(), batch.labels

    options = {"split": "paper", "workers": 2, "frames": 2}
    plain = torch.cat([b.pixels.clone() for b in shard_set.loader("val", 4, **options)])
    loader = shard_set.loader("val", 4, transform=mean_frame, batch_transform=detach, **options)
    pairs = list(loader)  # all kept: detached pixels are not overwritten
    assert torch.equal(torch.cat([pixels for pixels, _ in pairs]), plain.float().mean(1))
    assert pairs[0][1].dtype == np.int64
    assert threads - {threading.main_thread()}


def test_threads_and_files_are_given_back(shard_set):
    gc.collect()
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in shard_set.loader("train", 4, split="paper"):
        break
    with shard_set.loader("train", 4, split="paper") as loader:
        next(iter(loader))
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (("dev",), {"split": "paper"}, SplitError, "unknown subset 'dev'"),
        (("val",), {"split": "csv"}, SplitError, "needs a split column"),
        (("val",), {"split": "paper", "frames": 5}, LoaderError, "5 frames"),
        (("val",), {"split": "paper", "wrkers": 5}, TypeError, "wrkers"),
    ],
)
def test_what_does_not_fit_is_said_at_once(shard_set, arguments, options, error, text):
    with pytest.raises(error, match=text):
        shard_set.loader(*arguments, **options)


def test_looking_at_a_format_does_not_import_torch():
    code = "import sys, har.shards.format, har.shards.splits; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert har.shards.wds_pipeline
    with pytest.raises(AttributeError, match=r"module 'har.shards' has no attribute 'nothing'"):
        _ = har.shards.nothing


def test_a_batch_that_a_loop_is_left_with_stays_valid(shard_set):
    batch = next(iter(shard_set.loader("train", 2, split="paper")))
    assert tuple(batch.pixels.shape) == (2, *SHAPE)
    assert batch.pixels.dtype == torch.uint8

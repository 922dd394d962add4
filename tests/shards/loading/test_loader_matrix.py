"""Workers, ranks and shards change nothing: not a batch, not a pixel; nor does a resume."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_tars import PROCESSOR, make_tars

from har.shards.format import ShardInfo, load_manifest, save_manifest
from har.shards.loading import BatchSampler, Loader, LoaderOptions
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("matrix")
    return {count: make_tars(root / f"of{count}", count) for count in (1, 3, 17)}


def epoch_of(clips, *, workers, rank=0, world_size=1, shuffle=True, start=0, transform=None):
    sampler = BatchSampler(
        np.arange(len(clips.index)), 12, seed=3, shuffle=shuffle, rank=rank, world_size=world_size
    )
    options = LoaderOptions(frames=2, temporal_jitter=shuffle, workers=workers)
    with Loader(clips, sampler, options, transform=transform) as loader:
        return [
            (b.step, b.keys, b.valid.tolist(), b.labels.tolist(), b.pixels.numpy().tobytes())
            for b in loader.epoch(1, start)
        ]


def global_batches(ranks):
    """The ranks' batches of one epoch -> the global batches."""
    batches = []
    for parts in zip(*ranks, strict=True):
        assert len({part[0] for part in parts}) == 1
        lists = [[value for part in parts for value in part[field]] for field in (1, 2, 3)]
        batches.append((parts[0][0], *lists, b"".join(part[4] for part in parts)))
    return batches


@pytest.fixture(scope="module")
def expected(sets):
    return {
        shuffle: epoch_of(sets[1], workers=0, shuffle=shuffle, transform=PROCESSOR)
        for shuffle in (True, False)
    }


@pytest.mark.parametrize("shards", [1, 3, 17])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_global_batches_are_the_same_for_any_workers_ranks_and_shards(
    sets, expected, workers, world_size, shards
):
    for shuffle in (True, False):
        options = {"workers": workers, "world_size": world_size, "shuffle": shuffle}
        ranks = [
            epoch_of(sets[shards], rank=rank, transform=PROCESSOR, **options)
            for rank in range(world_size)
        ]
        assert global_batches(ranks) == expected[shuffle]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", [None, PROCESSOR])
def test_a_resume_from_any_step_is_bit_identical(sets, workers, transform):
    batches = epoch_of(sets[3], workers=workers, transform=transform)
    for start in range(len(batches) + 1):
        rest = epoch_of(sets[17], workers=workers, start=start, transform=transform)
        assert rest == batches[start:]


def test_a_set_of_100_000_clips_gives_its_first_batch_within_a_second(tmp_path):
    clips = make_tars(tmp_path / "set", clips=34)
    index = np.tile(clips.index, 2942)[:100_000].copy()
    index["key"] = np.char.add(b"v_", np.arange(100_000).astype("S6"))
    index["video"] = np.arange(100_000)
    shard = clips.shards[0]
    object.__setattr__(clips, "index", index)
    object.__setattr__(clips, "shards", (ShardInfo(shard.name, 100_000, shard.bytes, shard.xxh3),))
    save_manifest(clips, tmp_path / "set")
    start = time.process_time()  # wall time of a shared machine says nothing
    sampler = BatchSampler(np.arange(100_000), 32, shuffle=True)
    with Loader(load_manifest(tmp_path / "set"), sampler) as loader:
        next(loader.epoch(0, 1000)).release()
    assert time.process_time() - start < 1


def _resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("augmented", [False, True])
def test_memory_does_not_grow_over_fifty_epochs(tmp_path, augmented, detach):
    clips = make_tars(tmp_path / "set", clips=34, shape=(16, 64, 85, 3))
    processor = ClipProcessor(ClipTransform(16, (56, 56), (64, 85)), Augmentation())
    sampler = BatchSampler(np.arange(34), 8, shuffle=True)
    with Loader(clips, sampler, transform=processor if augmented else None) as loader:
        sizes = []
        for epoch in range(53):
            for batch in loader.epoch(epoch):
                batch.detach() if detach else batch.release()
            sizes.append(_resident_pages())
    assert sizes[-1] <= 1.01 * sizes[2]


_ENDLESS = """
import sys, numpy as np
from har.shards.format import load_manifest
from har.shards.loading import BatchSampler, Loader, LoaderOptions
clips = load_manifest(sys.argv[1])
sampler = BatchSampler(np.arange(len(clips.index)), 8, shuffle=True)
loader = Loader(clips, sampler, LoaderOptions(workers=4))
for epoch in range(10**9):
    for batch in loader.epoch(epoch):
        if epoch == 3:
            print("running", flush=True)
"""


def test_a_killed_run_leaves_no_process_and_no_shared_memory(sets):
    before = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(sets[1].root)], stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3], start_new_session=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"running\n"
        process.send_signal(signal.SIGKILL)
    with pytest.raises(ProcessLookupError):  # the whole group is gone, not only its leader
        os.killpg(process.pid, 0)
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "har" in name}

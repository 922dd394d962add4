"""torch's own DataLoader over the sampler gives the loader's batches, bit for bit."""

import pickle
import warnings

import numpy as np
import pytest
from made_server import serving
from made_tars import PROCESSOR, flip_bit, make_tars
from semaphores import needs_semaphores
from torch.utils.data import DataLoader

from har.shards.format import load_manifest
from har.shards.loading import (
    BatchSampler,
    ClipBatchDataset,
    CorruptClipWarning,
    Loader,
    LoaderError,
    LoaderOptions,
    StepSampler,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("dataset") / "set", 3)


def sampler_of(clips, **options):
    return BatchSampler(np.arange(len(clips.index)), 12, **{"seed": 3, "shuffle": True, **options})


def contents(batches):
    return [
        (
            b.step, b.keys, b.indices.tolist(), b.valid.tolist(), b.labels.tolist(), b.num_valid,
            b.views.tolist(), tuple(b.pixels.stride()), b.pixels.numpy().tobytes(),
        )
        for b in batches
    ]  # fmt: skip


def by_loader(clips, sampler, start=0, transform=None, **options):
    with Loader(clips, sampler, LoaderOptions(**options), transform=transform) as loader:
        return contents(loader.epoch(1, start))


def by_torch(clips, sampler, workers=0, start=0, transform=None, **options):
    fork = {"multiprocessing_context": "fork"} if workers else {}
    dataset = ClipBatchDataset(clips, sampler, LoaderOptions(**options), transform=transform)
    steps = StepSampler(sampler, 1, start)
    return contents(
        DataLoader(dataset, batch_size=None, sampler=steps, num_workers=workers, **fork)
    )


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=needs_semaphores)])
@pytest.mark.parametrize("transform", [None, PROCESSOR, np.negative])
def test_batches_are_bit_for_bit_those_of_the_loader(clips, workers, transform):
    sampler = sampler_of(clips)
    options = {"transform": transform, "frames": 2, "temporal_jitter": True}
    assert by_torch(clips, sampler, workers, **options) == by_loader(clips, sampler, **options)


@pytest.mark.parametrize(
    ("sampler_options", "options"),
    [
        ({"rank": 0, "world_size": 2}, {"start": 1}),
        ({"rank": 1, "world_size": 2}, {"start": 2}),
        ({}, {"start": 3}),
        ({"shuffle": False, "views": 2}, {"frames": 2}),
    ],
)
def test_so_are_those_of_a_resume_of_ranks_and_of_views(clips, sampler_options, options):
    sampler = sampler_of(clips, **sampler_options)
    assert by_torch(clips, sampler, **options) == by_loader(clips, sampler, **options)


def test_a_corrupt_clip_is_replaced_as_the_loader_does(tmp_path):
    clips = make_tars(tmp_path / "set")
    flip_bit(clips.shard_path(0), int(clips.index["offset"][7]))
    sampler = sampler_of(clips, shuffle=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptClipWarning)
        replaced = by_torch(clips, sampler, max_corrupt=1)
        assert replaced == by_loader(clips, sampler, max_corrupt=1)


def test_the_step_sampler_counts_the_steps_left(clips):
    steps = StepSampler(sampler_of(clips), 4, 1)
    assert len(steps) == 2
    assert list(steps) == [(4, 1), (4, 2)]


def test_a_dataset_in_use_can_be_pickled(clips):
    dataset = ClipBatchDataset(clips, sampler_of(clips))
    first = dataset[0, 0]
    again = pickle.loads(pickle.dumps(dataset))
    assert contents([again[0, 0]]) == contents([first])


def test_more_frames_than_stored_are_refused(clips):
    with pytest.raises(LoaderError, match="9 frames asked for"):
        ClipBatchDataset(clips, sampler_of(clips), LoaderOptions(frames=9))[0, 0]


@needs_semaphores
def test_worker_processes_read_a_remote_set_through_one_cache(clips, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("HAR_CACHE", str(tmp_path / "cache"))
    sampler = sampler_of(clips)
    with serving(clips.root.parent) as server:
        remote = load_manifest(f"{server.url}/set")
        assert by_torch(remote, sampler, workers=2) == by_loader(clips, sampler)
        assert max(server.asked.values()) == 1

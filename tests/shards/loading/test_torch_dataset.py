"""torch's own DataLoader over the plan gives the loader's batches, bit for bit."""

import pickle
import warnings

import numpy as np
import pytest
from made_server import serving
from made_tars import make_tars
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
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform

TRANSFORM = ClipTransform(2, (8, 8), (10, 12), (0.4,) * 3, (0.2,) * 3)
AUGMENTED = ClipProcessor(TRANSFORM, Augmentation(hflip=0.5))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("dataset") / "set", 3)


def plan_of(clips, **options):
    return BatchSampler(np.arange(len(clips.index)), 12, **{"seed": 3, "shuffle": True, **options})


def flat(batches):
    return [
        (
            b.step, b.keys, b.indices.tolist(), b.valid.tolist(), b.labels.tolist(), b.num_valid,
            b.views.tolist(), tuple(b.pixels.stride()), b.pixels.numpy().tobytes(),
        )
        for b in batches
    ]  # fmt: skip


def of_loader(clips, plan, epoch=1, start=0, transform=None, **options):
    with Loader(clips, plan, LoaderOptions(**options), transform=transform) as loader:
        return flat(loader.epoch(epoch, start))


def of_torch(clips, plan, workers=0, epoch=1, start=0, transform=None, **options):
    how = {"multiprocessing_context": "fork"} if workers else {}
    dataset = ClipBatchDataset(clips, plan, LoaderOptions(**options), transform=transform)
    sampler = StepSampler(plan, epoch, start)
    return flat(DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers, **how))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processor", [None, AUGMENTED])
def test_batches_are_bit_for_bit_those_of_the_loader(clips, workers, processor):
    plan = plan_of(clips)
    how = {"transform": processor, "frames": 2, "temporal_jitter": True}
    assert of_torch(clips, plan, workers, **how) == of_loader(clips, plan, **how)


@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_resume_and_the_ranks_too(clips, start):
    for rank in (0, 1):
        plan = plan_of(clips, rank=rank, world_size=2)
        assert of_torch(clips, plan, start=start) == of_loader(clips, plan, start=start)


def test_views_and_the_end_of_an_evaluation_too(clips):
    plan = plan_of(clips, shuffle=False, views=2)
    assert of_torch(clips, plan, frames=2) == of_loader(clips, plan, frames=2)


def test_a_corrupt_clip_is_replaced_as_the_loader_does(tmp_path):
    clips = make_tars(tmp_path / "set")
    data = bytearray(clips.shard_path(0).read_bytes())
    data[int(clips.index["offset"][7])] ^= 1
    clips.shard_path(0).write_bytes(data)
    plan = plan_of(clips, shuffle=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptClipWarning)
        assert of_torch(clips, plan, max_corrupt=1) == of_loader(clips, plan, max_corrupt=1)


def test_the_sampler_counts_the_steps_left(clips):
    steps = StepSampler(plan_of(clips), 4, 1)
    assert len(steps) == 2
    assert list(steps) == [(4, 1), (4, 2)]


def test_a_dataset_in_use_can_be_pickled(clips):
    dataset = ClipBatchDataset(clips, plan_of(clips))
    first = dataset[0, 0]
    again = pickle.loads(pickle.dumps(dataset))
    assert flat([again[0, 0]]) == flat([first])


def test_more_frames_than_stored_are_refused(clips):
    with pytest.raises(LoaderError, match="9 frames asked for"):
        ClipBatchDataset(clips, plan_of(clips), LoaderOptions(frames=9))[0, 0]


def test_worker_processes_read_a_remote_set_through_one_cache(clips, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("HAR_CACHE", str(tmp_path / "cache"))
    plan = plan_of(clips)
    with serving(clips.root.parent) as server:
        far = load_manifest(f"{server.url}/set")
        assert of_torch(far, plan, workers=2) == of_loader(clips, plan)
        assert max(server.asked.values()) == 1

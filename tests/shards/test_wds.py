"""The webdataset pipeline gives what a stock one reads from the same tars, and is stricter."""

import io
import json

import numpy as np
import pytest
import webdataset
from edited_sets import stock_samples
from made_server import serving
from made_tars import make_tars
from semaphores import needs_semaphores

from har.shards import wds_pipeline
from har.shards.format import ShardSetError, load_manifest
from har.shards.splits import make_split


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("wds") / "set", 5, 40)


def check_equal(samples, expected):
    assert len(samples) == len(expected)
    for sample, raw in zip(samples, expected, strict=True):
        assert sample["__key__"] == raw["__key__"]
        assert np.array_equal(sample["npy"], np.load(io.BytesIO(raw["npy"])))
        assert (sample["cls"], sample["json"]) == (int(raw["cls"]), json.loads(raw["json"]))


def test_samples_are_those_of_a_stock_pipeline(manifest):
    samples = list(wds_pipeline(manifest.root))
    check_equal(samples, stock_samples(manifest))
    assert samples[0]["npy"].dtype == np.uint8
    assert samples[0]["npy"].shape == manifest.clip_shape
    assert [sample["cls"] for sample in samples] == manifest.index["label"].tolist()


def test_a_subset_is_that_of_the_split(manifest):
    subset = make_split(manifest, "paper", 2).test
    samples = list(wds_pipeline(manifest.root, subset="test", split="paper", split_seed=2))
    assert sorted(sample["__key__"] for sample in samples) == manifest.keys(subset)


def test_it_is_a_pipeline_with_webdatasets_own_stages(manifest):
    pipeline = wds_pipeline(manifest.root).shuffle(10).to_tuple("npy", "cls").batched(8)
    batches = list(pipeline)
    assert [len(labels) for _, labels in batches] == [8] * 5
    assert batches[0][0].shape == (8, *manifest.clip_shape)


@needs_semaphores
def test_workers_share_the_shards(manifest):
    pipeline = wds_pipeline(manifest.root).to_tuple("__key__")
    loader = webdataset.WebLoader(pipeline, batch_size=None, num_workers=2)
    assert sorted(key for (key,) in loader) == manifest.keys()


def test_a_set_behind_a_url_comes_through_the_cache(manifest, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("HAR_CACHE", str(tmp_path / "cache"))
    with serving(manifest.root.parent) as server:
        for _ in range(2):
            check_equal(list(wds_pipeline(f"{server.url}/set")), stock_samples(manifest))
        assert all(server.asked[shard.name] == 1 for shard in manifest.shards)


def test_a_shard_cut_between_two_members_is_an_error(tmp_path):
    manifest = make_tars(tmp_path / "set", 2, 8)
    path = manifest.shard_path(1)
    border = int(manifest.index["offset"][6]) - 640
    path.write_bytes(path.read_bytes()[:border])
    assert len(stock_samples(manifest)) == 6  # in silence
    with pytest.raises(ShardSetError, match=r"shard-000001\.tar has [\d,]+ bytes, not"):
        list(wds_pipeline(manifest.root))
    path.unlink()
    with pytest.raises(ShardSetError, match=r"shard-000001\.tar cannot be opened"):
        list(wds_pipeline(load_manifest(manifest.root).root))

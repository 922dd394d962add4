"""The manifest is what a reader trusts: missing, foreign, damaged and hostile ones are refused."""

import hashlib
import io
import json

import numpy as np
import pytest
from made_shards import make_shards

from har.shards.format import ShardSetError, load_manifest, save_manifest, valid_key


@pytest.fixture
def root(tmp_path):
    make_shards(tmp_path / "set")
    return tmp_path / "set"


def rewrite(root, **changes):
    path = root / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_saved_is_loaded(root):
    loaded = load_manifest(root)
    assert loaded.clip_shape == (4, 20, 24, 3)
    assert loaded.classes == ("Punch", "Wave", "YoYo")
    assert len(loaded.index) == 30
    assert loaded.keys()[0] == "v_Punch_g01_c01"
    assert loaded.digest == load_manifest(root).digest


def test_saving_the_same_set_twice_gives_the_same_bytes(root, tmp_path):
    make_shards(tmp_path / "again")
    for name in ("manifest.json", "index.npy"):
        assert (root / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_missing_half_built_and_foreign_folders_are_told_apart(tmp_path, root):
    with pytest.raises(ShardSetError, match=r"no shard set at .*make shards"):
        load_manifest(tmp_path / "nowhere")
    (root / "manifest.json").unlink()
    with pytest.raises(ShardSetError, match=r"lost its manifest\.json.*same 'har-shards build'"):
        load_manifest(root)
    (root / "index.npy").unlink()
    with pytest.raises(ShardSetError, match=r"holds shards, and neither .*another --out"):
        load_manifest(root)
    (root / ".build").mkdir()
    with pytest.raises(ShardSetError, match=r"half built .*har-shards build"):
        load_manifest(root)
    (tmp_path / "else").mkdir()
    with pytest.raises(ShardSetError, match="is not a shard set"):
        load_manifest(tmp_path / "else")
    (tmp_path / "else" / "x.csv").touch()
    with pytest.raises(ShardSetError, match=r"x\.csv is a file: give the folder"):
        load_manifest(tmp_path / "else" / "x.csv")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"schema": 2}', '{"schema": 2, "shards": 3}']
)
def test_damaged_manifests_are_refused(root, text):
    (root / "manifest.json").write_text(text)
    with pytest.raises(ShardSetError, match=r"manifest\.json"):
        load_manifest(root)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schema": 99}, "has schema 99"),
        ({"clip_shape": [4, 20, 24]}, "clip shape"),
        ({"clip_shape": [4, 2**40, 24, 3]}, "clip shape"),
        ({"clip_shape": [4, 0, 24, 3]}, "clip shape"),
        ({"classes": []}, "names no classes"),
        ({"classes": ["A"]}, "label outside"),
        ({"groups": []}, "group outside"),
        ({"index_sha256": "0" * 64}, "not the index"),
        ({"surprise": 1}, "not a shard set's manifest"),
        ({"remote": "http://x"}, "not a shard set's manifest"),
        ({"groups": [7] * 15}, "group's name is not text"),
        ({"groups": ["YoYo"] * 15}, "groups are not UCF101's"),
        ({"sampling": "paper"}, "not JSON objects"),
        ({"index_file": "../index.npy"}, "no name of an index"),
        ({"edits": [{"command": "add", "digest": "x"}]}, "no edit of a shard set"),
        ({"edits": 3}, "not a shard set's manifest"),
    ],
)
def test_hostile_manifests_are_refused(root, changes, text):
    rewrite(root, **changes)
    with pytest.raises(ShardSetError, match=text):
        load_manifest(root)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "../shard-000000.tar"}, "shard names must be"),
        ({"name": "/etc/passwd"}, "shard names must be"),
        ({"name": "shard-0.tar"}, "shard names must be"),
        ({"name": ""}, "shard names must be"),
        ({"name": 5}, "shard names must be"),
        ({"bytes": 2**70}, "absurd size"),
        ({"bytes": -1}, "absurd size"),
        ({"bytes": 1e9}, "absurd size"),
        ({"samples": "30"}, "absurd size"),
        ({"samples": True}, "absurd size"),
        ({"xxh3": "0" * 31 + "/"}, "not 32 hex digits"),
        ({"xxh3": None}, "not 32 hex digits"),
        ({"removed": -1}, "absurd size"),
        ({"relabelled": -1}, "relabelled is not true or false"),
    ],
)
def test_hostile_names_sizes_and_checksums_are_refused(root, change, text):
    shards = json.loads((root / "manifest.json").read_text())["shards"]
    rewrite(root, shards=[shards[0] | change])
    with pytest.raises(ShardSetError, match=text):
        load_manifest(root)


def damaged_index(root, column, value):
    loaded = load_manifest(root)
    index = loaded.index.copy()
    index[column][3] = value
    object.__setattr__(loaded, "index", index)
    save_manifest(loaded, root)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("offset", 2**63, "lies outside its shard"),
        ("offset", 30 * 4 * 20 * 24 * 3 - 1, "lies outside its shard"),
        ("shard", 1, "names a shard"),
        ("label", 3, "label outside"),
        ("group", -2, "group outside"),
        ("group", 15, "group outside"),
        ("side", 4, "split side"),
        ("key", b"v_\xff", "not ASCII"),
    ],
)
def test_an_index_that_points_outside_is_refused(root, column, value, text):
    with pytest.raises(ShardSetError, match=text):
        damaged_index(root, column, value)


def test_a_damaged_index_is_refused(root):
    path = root / "index.npy"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ShardSetError, match="not the index"):
        load_manifest(root)


def test_an_index_that_would_unpickle_is_refused(root):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    (root / "index.npy").write_bytes(buffer.getvalue())
    rewrite(root, index_sha256=hashlib.sha256(buffer.getvalue()).hexdigest())
    with pytest.raises(ShardSetError, match="damaged"):
        load_manifest(root)


def test_keys():
    assert all(map(valid_key, ["v_YoYo_g01_c01", "a@1", "A-b+c=d"]))
    assert not any(map(valid_key, ["", "a.b", "a/b", "a b", "é", "x" * 91]))

"""Every fault of a shard set is found, and named with shard, key and byte."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_tars import make_manifest

from har.shards.format import Manifest, ShardWriter, save_manifest, verify_full, verify_quick
from har.shards.format.writer import sample_bytes, tar_header

SHAPE = (2, 9, 11, 3)


@pytest.fixture
def clips(tmp_path: Path) -> Manifest:
    """Three shards of four samples."""
    rng, rows, shards, root = np.random.default_rng(0), [], [], tmp_path / "set"
    root.mkdir()
    for number in range(3):
        with ShardWriter(root / f"shard-{number:06d}.tar") as shard:
            for at in range(4):
                key, pixels = f"k{number}{at}", rng.integers(0, 256, SHAPE, np.uint8)
                offset, check = shard.add(key, pixels, at % 2, {"class": "AB"[at % 2], "fps": 25.0})
                rows.append((key, number, offset, at % 2, -1, number * 4 + at, 0, 0, 2, 0, check))
            shards.append(shard.close())
    return save_manifest(make_manifest(rows, clip_shape=SHAPE, shards=tuple(shards)), root)


def test_whole_set_has_no_fault(clips: Manifest) -> None:
    assert verify_quick(clips) == verify_full(clips) == []


def test_any_single_bit_is_found_and_named_with_its_sample(clips: Manifest) -> None:
    path = clips.shard_path(1)
    raw = path.read_bytes()
    starts = (clips.index["offset"][4:8] - 640).tolist()
    for at in range(0, len(raw), 97):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        (fault, *_) = verify_full(clips, workers=1)
        sample = max((n for n, start in enumerate(starts) if start <= at), default=0)
        assert fault.shard == path.name
        assert 0 <= fault.offset <= at
        assert fault.key == ("" if at >= len(raw) - 1024 else f"k1{sample}"), at
    path.write_bytes(raw)
    assert verify_full(clips) == []


@pytest.mark.parametrize("cut", [1, 512, 1024])
def test_truncation_is_found_without_reading(clips: Manifest, cut: int) -> None:
    path = clips.shard_path(2)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size - cut)
    (fault,) = verify_quick(clips)
    assert (
        str(fault)
        == f"shard-000002.tar, byte {size - cut:,}: has {size - cut:,} bytes, not {size:,}"
    )


def test_cut_at_a_member_border_names_the_first_lost_sample(clips: Manifest) -> None:
    path = clips.shard_path(0)
    border = int(clips.index["offset"][2]) - 640
    with open(path, "r+b") as file:
        file.truncate(border)
    (fault,) = verify_quick(clips)
    assert (fault.shard, fault.key, fault.offset) == ("shard-000000.tar", "k02", border)
    assert verify_full(clips) == [fault]


def test_missing_and_foreign_shards(clips: Manifest) -> None:
    clips.shard_path(0).unlink()
    shutil.copy(clips.shard_path(1), clips.root / "shard-000007.tar")
    shutil.copy(clips.shard_path(1), clips.shard_path(2))
    missing, foreign = map(str, verify_quick(clips))
    assert missing == "shard-000000.tar: is missing"
    assert foreign.startswith("shard-000007.tar: is not of this set")
    swapped = verify_full(clips)[2]  # shard 1 under the name of shard 2: its first key is wrong
    assert (swapped.shard, swapped.key, swapped.offset) == ("shard-000002.tar", "k20", 1)


def test_quick_reads_no_shard(clips: Manifest) -> None:
    path = clips.shard_path(1)
    path.write_bytes(bytes(path.stat().st_size))
    assert verify_quick(clips) == []
    assert verify_full(clips)


def test_a_shard_left_by_an_exception_is_not_there(tmp_path: Path) -> None:
    class Trouble(Exception):  # noqa: N818
        pass

    with pytest.raises(Trouble), ShardWriter(tmp_path / "shard-000000.tar") as shard:  # noqa: PT012
        shard.add("k", np.zeros(SHAPE, np.uint8), 0, {})
        raise Trouble
    assert list(tmp_path.iterdir()) == []


def test_sample_bytes_is_no_less_than_a_sample_takes(clips: Manifest) -> None:
    assert clips.shards[0].bytes - 1024 <= 4 * sample_bytes(SHAPE)
    with pytest.raises(ValueError, match="ustar"):
        tar_header("k" * 101, 1)

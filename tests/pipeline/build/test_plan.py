"""Which video goes to which shard; what changes a plan and what does not."""

import itertools
from pathlib import Path

import pytest
from made_trees import touch

from har.pipeline.build.plan import (
    MIN_SHARDS,
    BuildOptions,
    PlanError,
    describe_differences,
    make_plan,
    parse_bytes,
    parse_size,
)
from har.pipeline.dataset import Dataset, find_videos
from har.pipeline.sampling import ClipSampler


def _dataset(root: Path, classes: int = 5, groups: int = 12) -> Dataset:
    """4 files a group, named as UCF101's."""
    numbers = itertools.product(range(classes), range(1, groups + 1), range(1, 5))
    touch(root, *(f"C{c}/v_C{c}_g{g:02d}_c{k:02d}.avi" for c, g, k in numbers))
    return find_videos(root)


def test_groups_stay_together_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    plan = make_plan(_dataset(tmp_path), BuildOptions(ClipSampler(frames=2), (8, 8)))
    groups = [video.group for shard in plan.shards for video in shard]
    starts = [group for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    assert len(starts) == len(set(starts)) == 60
    numbers = [int(group[-2:]) for group in groups]
    assert numbers == sorted(numbers)
    homes = {(video.group, n) for n, shard in enumerate(plan.shards) for video in shard}
    assert len(homes) == 60  # no group lies in two shards
    assert len(plan.shards) >= MIN_SHARDS
    assert plan.first_videos[:2] == (0, len(plan.shards[0]))


def test_hash_follows_videos_and_options_and_nothing_else(tmp_path: Path) -> None:
    videos = _dataset(tmp_path, 2, 3)
    plan = make_plan(videos, BuildOptions())
    assert make_plan(find_videos(tmp_path), BuildOptions()).hash == plan.hash
    assert make_plan(videos, BuildOptions(size=(64, 64))).hash != plan.hash
    (tmp_path / "C0" / "v_C0_g01_c01.avi").write_bytes(b"longer")
    changed = make_plan(find_videos(tmp_path), BuildOptions())
    assert changed.hash != plan.hash
    assert "listing" in describe_differences(plan.facts, changed.facts)[0]


def test_shards_are_as_large_as_asked(tmp_path: Path) -> None:
    options = BuildOptions(ClipSampler(frames=2), (64, 64), shard_bytes=parse_bytes("160KB"))
    plan = make_plan(_dataset(tmp_path), options)
    assert {len(shard) for shard in plan.shards} == {4}  # one group of 4 clips of 27.6 KB


def test_sizes_are_read_as_people_write_them() -> None:
    assert parse_bytes("64MB") == 64_000_000
    assert parse_bytes("1 MiB") == 1 << 20
    assert parse_size("128x171") == (128, 171)
    for text in ("many", "-1MB"):
        with pytest.raises(PlanError, match="64MB"):
            parse_bytes(text)
    with pytest.raises(PlanError, match="128x171"):
        parse_size("128")

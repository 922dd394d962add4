"""Splits by rule: group safety, UCF101's own lists on all 13,320 names, the paper's sizes."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tars import make_manifest

from har.shards import splits
from har.shards.format import NO_GROUP

SUBSETS = ("train", "val", "test")


def manifest_of(names, *, grouping="ucf101", groups=None, sides=None, views=1):
    """A manifest in memory: `names` are (class, key) pairs, groups default to UCF101's."""
    classes = sorted({label for label, _ in names})
    if groups is None:
        groups = [f"{label}/{key.rsplit('_', 2)[1]}" for label, key in names]
    known = sorted(set(groups) - {None})
    rows = [
        (
            key if view == 0 else f"{key}@{view}",
            0, 0, classes.index(label), known.index(group) if group else NO_GROUP,
            video, view, sides[video] if sides else 0, 16, 0, 0,
        )
        for video, ((label, key), group) in enumerate(zip(names, groups, strict=True))
        for view in range(views)
    ]  # fmt: skip
    return make_manifest(rows, classes=tuple(classes), groups=tuple(known), grouping=grouping)


def ucf(classes=2, groups=25, clips=2):
    names = "ABCDEFGH"[:classes]
    return [
        (c, f"v_{c}_g{g:02d}_c{k:02d}")
        for c in names
        for g in range(1, groups + 1)
        for k in range(1, clips + 1)
    ]


def group_numbers(manifest, ids):
    return {int(re.search(r"_g(\d+)_", key)[1]) for key in manifest.keys(ids)}


def test_grouped_gives_ucf101_groups_16_4_5():
    manifest = manifest_of(ucf())
    split = splits.make_split(manifest, "grouped")
    assert group_numbers(manifest, split.train) == set(range(1, 17))
    assert group_numbers(manifest, split.val) == set(range(17, 21))
    assert group_numbers(manifest, split.test) == set(range(21, 26))
    assert split.leak == 0


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4))
@settings(deadline=None)
def test_grouped_has_a_group_on_each_side_from_three_groups_on(counts):
    names = [
        (c, f"v_{c}_g{g:02d}_c01")
        for c, n in zip("ABCD", counts, strict=False)
        for g in range(1, n + 1)
    ]
    manifest = manifest_of(names)
    split = splits.make_split(manifest, "grouped")
    label = manifest.index["label"]
    for number, count in enumerate(counts):
        here = [int((label[split.subset(side)] == number).sum()) for side in SUBSETS]
        assert sum(here) == count
        assert min(here) >= 1 or count < 3


def test_a_group_that_spans_classes_stays_together():
    names = [(c, f"{c}{n}") for c in "AB" for n in range(10)]
    groups = [f"film{n % 5}" for _, n in [(c, n) for c in "AB" for n in range(10)]]
    manifest = manifest_of(names, grouping="csv", groups=groups)
    split = splits.make_split(manifest, "grouped")
    column = manifest.index["group"]
    sides = [set(column[split.subset(side)].tolist()) for side in SUBSETS]
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert all(sides)


def test_all_views_of_a_video_go_to_one_side():
    manifest = manifest_of(ucf(clips=1), views=3)
    split = splits.make_split(manifest, "paper", seed=5)
    videos = [set(manifest.index["video"][split.subset(side)].tolist()) for side in SUBSETS]
    assert sum(map(len, videos)) == 50
    assert len(split.train) == 3 * len(videos[0])


def test_digest_does_not_depend_on_the_order_in_the_shards():
    names = ucf()
    one, two = manifest_of(names), manifest_of(names[::-1])
    for name in ("grouped", "official-2", "paper"):
        assert splits.make_split(one, name).digest == splits.make_split(two, name).digest
    assert splits.make_split(one, "paper", 0).digest != splits.make_split(one, "paper", 1).digest
    official = [splits.make_split(one, f"official-{n}").digest for n in (1, 2, 3)]
    assert len(set(official)) == 3


def test_csv_split_is_the_csv_column():
    names = [("A", f"a{n}") for n in range(4)]
    manifest = manifest_of(names, grouping=None, groups=[None] * 4, sides=[1, 2, 3, 1])
    split = splits.make_split(manifest, "csv")
    assert manifest.keys(split.train) == ["a0", "a3"]
    assert manifest.keys(split.val) == ["a1"]
    assert manifest.keys(split.test) == ["a2"]
    assert split.leak is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("grouped", "needs groups .* '--split paper'"),
        ("official-1", "needs groups"),
        ("csv", "needs a split column"),
        ("mine", "unknown split 'mine': choose one of grouped"),
    ],
)
def test_a_split_the_set_cannot_give_says_the_way_out(name, text):
    manifest = manifest_of([("A", "a"), ("B", "b")], grouping=None, groups=[None, None])
    with pytest.raises(splits.SplitError, match=text):
        splits.make_split(manifest, name)


def test_official_refuses_groups_that_are_not_ucf101s():
    manifest = manifest_of([("A", "a")], grouping="csv", groups=["film"])
    with pytest.raises(splits.SplitError, match="not UCF101's"):
        splits.make_split(manifest, "official-1")


@pytest.fixture(scope="module")
def all_names(real_clips):
    """All 13,320 names of UCF101: any official train list with its test list."""
    folder = real_clips / "ucfTrainTestlist"
    lines = (folder / "trainlist01.txt").read_text().split("\n")
    lines += (folder / "testlist01.txt").read_text().split("\n")
    paths = [Path(line.split()[0]) for line in lines if line.strip()]
    return [(path.parent.name, path.stem) for path in paths]


def official(folder, which):
    text = (folder / "ucfTrainTestlist" / f"testlist{which:02d}.txt").read_text()
    return {Path(line.strip()).stem for line in text.split("\n") if line.strip()}


@pytest.mark.real
@pytest.mark.parametrize(
    ("which", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)]
)
def test_official_splits_equal_ucf101s_lists(real_clips, all_names, which, train, test):
    manifest = manifest_of(all_names)
    split = splits.make_split(manifest, f"official-{which}")
    assert (len(split.train) + len(split.val), len(split.test)) == (train, test)
    assert set(manifest.keys(split.test)) == official(real_clips, which)
    assert group_numbers(manifest, split.val) == {22, 23, 24, 25}
    assert split.leak == 0


@pytest.mark.real
def test_grouped_and_paper_have_the_known_sizes_on_all_of_ucf101(all_names):
    manifest = manifest_of(all_names)
    grouped = splits.make_split(manifest, "grouped")
    assert [len(grouped.subset(side)) for side in SUBSETS] == [8578, 2121, 2621]
    leaks = []
    for seed in range(5):
        paper = splits.make_split(manifest, "paper", seed)
        assert [len(paper.subset(side)) for side in SUBSETS] == [8525, 2131, 2664]
        leaks.append(paper.leak)
    assert np.min(leaks) >= 0.972
    assert np.max(leaks) <= 0.990

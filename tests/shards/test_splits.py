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
from har.shards.group_balance import balance_groups

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


def sizes_of(split):
    return [len(split.subset(side)) for side in SUBSETS]


def parts_of(manifest, split, column="group"):
    """The groups (or videos) of each subset, none of which is in two."""
    parts = [set(manifest.index[column][split.subset(side)].tolist()) for side in SUBSETS]
    assert len(set.union(*parts)) == sum(map(len, parts))
    return parts


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
    groups = [f"film{n % 5}" for _ in "AB" for n in range(10)]
    manifest = manifest_of(names, grouping="csv", groups=groups)
    assert all(parts_of(manifest, splits.make_split(manifest, "grouped")))


def test_all_views_of_a_video_go_to_one_side():
    manifest = manifest_of(ucf(clips=1), views=3)
    split = splits.make_split(manifest, "paper", seed=5)
    videos = parts_of(manifest, split, "video")
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


def test_where_no_group_spans_classes_grouped_is_what_it_always_was():
    """Digests of the version before groups that span classes were balanced."""
    uneven = [("A", 3), ("B", 7), ("C", 1), ("D", 2), ("E", 12)]
    names = [(c, f"v_{c}_g{g:02d}_c01") for c, n in uneven for g in range(1, n + 1)]
    for made, digest in ((ucf(), "b664d55426245fb8"), (names, "5f1111074d6760bd")):
        assert splits.make_split(manifest_of(made), "grouped").digest == digest


def uneven_sources(seed=0, sources=46, clips=300):
    """(names, groups): two classes of as many clips, from sources of very different sizes."""
    random = np.random.default_rng(seed)
    sizes = random.lognormal(0, 0.8, sources)
    source = random.choice(sources, clips, p=sizes / sizes.sum())
    names = [("AB"[n % 2], f"{'AB'[n % 2]}{n:03d}") for n in range(clips)]
    return names, [f"source{number}" for number in source]


def class_shares(manifest, indices):
    """The share of each class that the samples `indices` are."""
    labels, num_classes = manifest.index["label"], len(manifest.classes)
    counts = (np.bincount(part, minlength=num_classes) for part in (labels[indices], labels))
    return np.divide(*counts)


@pytest.mark.parametrize("seed", range(8))
def test_grouped_balances_classes_where_groups_span_them(seed):
    names, groups = uneven_sources(seed)
    manifest = manifest_of(names, grouping="csv", groups=groups)
    split = splits.make_split(manifest, "grouped")
    for side, share in zip(SUBSETS, (0.64, 0.16, 0.2), strict=True):
        assert class_shares(manifest, split.subset(side)) == pytest.approx(share, abs=0.06)
    assert split.leak == 0


def videos_of_folds(manifest, num_folds, seed=0):
    """The splits of all folds; their test subsets are a partition of the set."""
    made = [
        splits.make_split(manifest, f"fold-{n}/{num_folds}", seed) for n in range(1, num_folds + 1)
    ]
    tested = np.concatenate([split.test for split in made])
    assert sorted(tested.tolist()) == list(range(len(manifest.index)))
    for split in made:
        parts_of(manifest, split)
        assert sum(sizes_of(split)) == len(tested)
    return made


def test_the_folds_of_ucf101_have_a_fifth_of_each_class_and_no_leak():
    manifest = manifest_of(ucf(classes=3))
    for split in videos_of_folds(manifest, 5):
        for side, share in zip(SUBSETS, (0.64, 0.16, 0.2), strict=True):
            assert class_shares(manifest, split.subset(side)) == pytest.approx(share)
        assert (split.leak, split.notes) == (0, ())


def test_a_small_set_has_every_class_in_every_subset_of_every_fold():
    manifest = manifest_of(ucf(classes=6, groups=5))
    for split in videos_of_folds(manifest, 5):
        assert splits.list_gaps(manifest, split) == []
        assert sizes_of(split) == [36, 12, 12]


def test_folds_of_sources_that_span_classes_are_even_and_by_seed():
    names, groups = uneven_sources(3)
    manifest = manifest_of(names, grouping="csv", groups=groups)
    made = videos_of_folds(manifest, 4)
    for split in made:
        assert class_shares(manifest, split.test) == pytest.approx(0.25, abs=0.06)
        assert class_shares(manifest, split.val) == pytest.approx(0.15, abs=0.06)
    again, other = (splits.make_split(manifest, "fold-2/4", seed) for seed in (0, 1))
    assert again.digest == made[1].digest != other.digest
    assert len({split.digest for split in made}) == 4
    turned = manifest_of(names[::-1], grouping="csv", groups=groups[::-1])
    assert splits.make_split(turned, "fold-2/4").digest == again.digest


def test_videos_without_groups_are_folded_one_by_one_and_that_is_said():
    manifest = manifest_of(ucf(), grouping=None, groups=[None] * 100, views=2)
    split = splits.make_split(manifest, "fold-1/5")
    assert sizes_of(split) == [128, 32, 40]
    assert "each video without a group is a group of its own" in split.notes[0]
    assert sum(map(len, parts_of(manifest, split, "video"))) == 100


def test_balanced_parts_are_as_even_as_scikit_learns():
    selection = pytest.importorskip("sklearn.model_selection")
    ours, theirs = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        groups = np.unique(random.integers(0, 30, 200), return_inverse=True)[1]
        labels = random.integers(0, 4, 200) if seed % 2 else groups % 4
        expected = np.empty(200, int)
        folds = selection.StratifiedGroupKFold(4).split(labels, labels, groups)
        for fold, (_, test) in enumerate(folds):
            expected[test] = fold
        for parts, deviations in ((balance_groups(groups, labels, 4)[groups], ours),
                                  (expected, theirs)):  # fmt: skip
            counts = np.zeros((4, 4))
            np.add.at(counts, (parts, labels), 1)
            deviations.append((counts / counts.sum(axis=0)).std(axis=0).mean())
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.1)
    assert ours[::2] == pytest.approx(theirs[::2])  # no group spans classes: the same but for names


def test_val_is_held_out_of_train_by_group_where_the_split_has_none():
    names = ucf()
    sides = [3 if "_g25_" in key else 1 for _, key in names]
    manifest = manifest_of(names, sides=sides)
    assert len(splits.make_split(manifest, "csv").val) == 0
    split = splits.make_split(manifest, "csv", val_from_train=0.125)
    assert sizes_of(split) == [84, 12, 4]
    parts_of(manifest, split)
    assert class_shares(manifest, split.val) == pytest.approx(6 / 50)
    held = np.concatenate([split.train, split.val])
    assert group_numbers(manifest, held) == set(range(1, 25))
    with pytest.raises(splits.SplitError, match=r"'grouped' of .* has 16 val clips: leave it out"):
        splits.make_split(manifest, "grouped", val_from_train=0.1)


def test_subsets_that_lack_classes_or_clips_say_which():
    names = [(c, f"{c}{n}") for c in "ABCDEFGH" for n in range(2)]
    sides = [1 if c == "A" or (c == "B" and key == "B0") else 3 for c, key in names]
    manifest = manifest_of(names, grouping=None, groups=[None] * 16, sides=sides)
    assert splits.list_gaps(manifest, splits.make_split(manifest, "csv")) == [
        "no train clip of 6 of 8 classes, which cannot be learned: C, D, E, F, G, ...",
        "no val clips",
        "no test clip of 1 of 8 classes: A",
    ]


def test_csv_split_is_the_csv_column():
    names = [("A", f"a{n}") for n in range(4)]
    manifest = manifest_of(names, grouping=None, groups=[None] * 4, sides=[1, 2, 3, 1])
    split = splits.make_split(manifest, "csv")
    assert manifest.keys(split.train) == ["a0", "a3"]
    assert manifest.keys(split.val) == ["a1"]
    assert manifest.keys(split.test) == ["a2"]
    assert (split.leak, split.notes) == (None, ())
    manifest.index["side"][3] = 0
    assert splits.make_split(manifest, "csv").notes == ("1 of 4 clips are in no subset.",)
    for name in ("paper", "fold-1/2"):
        assert "does not keep the set's own subsets" in splits.make_split(manifest, name).notes[-1]
    with pytest.raises(splits.SplitError, match=r"use '--split csv' \(the subsets it was built"):
        splits.make_split(manifest, "grouped")


@pytest.mark.parametrize(
    ("grouping", "name", "text"),
    [
        (None, "grouped", "needs groups .* '--split paper'"),
        (None, "official-1", "needs groups"),
        (None, "csv", "needs a split column"),
        (None, "mine", "unknown split 'mine': choose one of grouped"),
        ("csv", "official-1", "not UCF101's"),
        ("csv", "fold-4/3", "there is no split 'fold-4/3': give fold-1/3 to fold-3/3"),
        ("csv", "fold-1/1", "another number of folds of 2 or more"),
        ("csv", "fold-1/4", "has 3: give fewer folds, at most 3"),
        ("csv", "fold-0/3", "unknown split"),
        ("csv", "fold-1", "or fold-I/K"),
    ],
)
def test_a_split_the_set_cannot_give_says_the_way_out(grouping, name, text):
    names = [("A", "a"), ("B", "b"), ("C", "c")]
    groups = ["film1", "film2", "film3"] if grouping else [None] * 3
    with pytest.raises(splits.SplitError, match=text):
        splits.make_split(manifest_of(names, grouping=grouping, groups=groups), name)


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
    assert sizes_of(grouped) == [8578, 2121, 2621]
    leaks = []
    for seed in range(5):
        paper = splits.make_split(manifest, "paper", seed)
        assert sizes_of(paper) == [8525, 2131, 2664]
        leaks.append(paper.leak)
    assert np.min(leaks) >= 0.972
    assert np.max(leaks) <= 0.990

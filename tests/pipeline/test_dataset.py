"""Folders and CSVs -> videos: classes, groups, sides, keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from har.pipeline import dataset
from har.pipeline.build import plan
from har.pipeline.build.plan import BuildOptions
from har.pipeline.sampling import ClipSampler


def _touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def test_tree_of_ucf101(tmp_path: Path) -> None:
    root = _touch(
        tmp_path, "YoYo/v_YoYo_g02_c01.avi", "Punch/v_Punch_g11_c03.avi", "YoYo/notes.txt",
        "YoYo/.v_YoYo_g03_c01.avi",
    )  # fmt: skip
    found = dataset.find_videos(root)
    assert (found.classes, found.grouping) == (("Punch", "YoYo"), "ucf101")
    punch, yoyo = found.videos
    assert (punch.path, punch.label, punch.group, punch.clip, punch.key) == (
        "Punch/v_Punch_g11_c03.avi", 0, "Punch/g11", 3, "v_Punch_g11_c03",
    )  # fmt: skip
    assert (yoyo.label, yoyo.group, yoyo.side) == (1, "YoYo/g02", 0)


def test_handstand_pushups_is_one_class_however_it_is_written(tmp_path: Path) -> None:
    root = _touch(tmp_path, "HandStandPushups/v_HandStandPushups_g01_c01.avi")
    (root / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    found = dataset.find_videos(root)
    assert found.classes == ("ApplyEyeMakeup", "HandstandPushups")
    assert (found.videos[0].label, found.videos[0].group) == (1, "HandstandPushups/g01")


@pytest.mark.real
def test_class_list_of_ucf101(real_clips: Path) -> None:
    names = dataset.read_classes(real_clips / "ucfTrainTestlist" / "classInd.txt")
    assert len(names) == 101
    assert (names[0], names[-1]) == ("ApplyEyeMakeup", "YoYo")
    found = dataset.find_videos(
        real_clips / "ucf101", classes=real_clips / "ucfTrainTestlist" / "classInd.txt"
    )
    assert {names[video.label] for video in found.videos} == {"ApplyEyeMakeup", "Punch", "YoYo"}


def test_class_that_the_list_does_not_have(tmp_path: Path) -> None:
    root = _touch(tmp_path, "Swim/a.avi")
    (root / "classInd.txt").write_text("1 Run\n")
    with pytest.raises(dataset.DatasetError, match=r"'Swim' of Swim/a\.avi is not in"):
        dataset.find_videos(root)


def test_missing_and_empty_folders_say_where_ucf101_comes_from(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(dataset.DatasetError, match=r"Kaggle.*'make demo' needs none of it"):
            dataset.find_videos(folder)


def test_hmdb51_has_no_groups_unless_a_regex_finds_them(tmp_path: Path) -> None:
    root = _touch(tmp_path, "run/Movie_run_f_cm_np1_1.avi", "run/Other_run_f_cm_np1_2.avi")
    assert dataset.find_videos(root).grouping is None
    found = dataset.find_videos(root, group_regex=r"/(\w+?)_run_")
    assert found.grouping == "regex"
    assert [video.group for video in found.videos] == ["Movie", "Other"]
    with pytest.raises(dataset.DatasetError, match=r"finds no group in run/Movie"):
        dataset.find_videos(root, group_regex="_g(\\d+)_")
    with pytest.raises(dataset.DatasetError, match="no regular expression"):
        dataset.find_videos(root, group_regex="(")


def test_kinetics_folders_give_the_split_and_equal_names_get_own_keys(tmp_path: Path) -> None:
    root = _touch(tmp_path, "train/dance/a.b.mp4", "val/dance/a_b.mp4", "val/sing/c.webm")
    found = dataset.find_videos(root)
    assert [video.side for video in found.videos] == [1, 2, 2]
    keys = [video.key for video in found.videos]
    assert len(set(keys)) == 3
    assert not any("." in key for key in keys)
    assert keys[2] == "c"
    assert found.classes == ("dance", "sing")


def test_csv_with_groups_and_split(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "path,label,group,split\r\nb/2.mp4,run,s1,test\r\na/1.mp4,sit,s1,validation\r\n"
    )
    found = dataset.find_videos(path)
    assert (found.classes, found.grouping, found.root) == (("run", "sit"), "csv", tmp_path)
    first, second = found.videos
    assert (first.path, first.group, first.side) == ("a/1.mp4", "s1", 2)
    assert (second.label, second.side) == (0, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na,b\n", "needs path,label"),
        ("path,label\n", "names no video"),
        ("path,label,split\na,b,later\n", "line 2: .*split 'later'"),
        ("path,label\na,b\na,c\n", "names a more than once"),
    ],
)
def test_csv_that_makes_no_sense(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(dataset.DatasetError, match=says):
        dataset.find_videos(tmp_path / "x.csv")


def _ucf101_names(tmp_path: Path, classes: int = 5, groups: int = 12) -> dataset.Dataset:
    names = [
        f"C{c}/v_C{c}_g{g:02d}_c{k:02d}.avi"
        for c in range(classes)
        for g in range(1, groups + 1)
        for k in range(1, 5)
    ]
    return dataset.find_videos(_touch(tmp_path, *names))


def test_plan_keeps_groups_together_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    made = plan.make_plan(_ucf101_names(tmp_path), BuildOptions(ClipSampler(frames=2), (8, 8)))
    order = [video for shard in made.shards for video in shard]
    runs = [name for at, name in enumerate(v.group for v in order) if name != order[at - 1].group]
    assert len(runs) == len(set(runs)) == 60
    assert [int(video.group[-2:]) for video in order] == sorted(int(v.group[-2:]) for v in order)
    homes: dict[str, set[int]] = {}
    for number, shard in enumerate(made.shards):
        for video in shard:
            homes.setdefault(video.group, set()).add(number)
    assert all(len(shards) == 1 for shards in homes.values())
    assert len(made.shards) >= plan.MIN_SHARDS


def test_plan_hash_follows_videos_and_options_and_nothing_else(tmp_path: Path) -> None:
    videos = _ucf101_names(tmp_path, 2, 3)
    first = plan.make_plan(videos, BuildOptions())
    assert plan.make_plan(dataset.find_videos(tmp_path), BuildOptions()).hash == first.hash
    assert plan.make_plan(videos, BuildOptions(size=(64, 64))).hash != first.hash
    (tmp_path / "C0" / "v_C0_g01_c01.avi").write_bytes(b"longer")
    changed = plan.make_plan(dataset.find_videos(tmp_path), BuildOptions())
    assert changed.hash != first.hash
    assert "listing" in plan.describe_differences(first.facts, changed.facts)[0]


def test_shards_are_as_large_as_asked(tmp_path: Path) -> None:
    options = BuildOptions(ClipSampler(frames=2), (64, 64), shard_bytes=plan.parse_bytes("160KB"))
    made = plan.make_plan(_ucf101_names(tmp_path), options)
    assert {len(shard) for shard in made.shards} == {4}  # one group of 4 clips of 27.6 KB
    assert plan.parse_bytes("64MB") == 64_000_000
    assert plan.parse_bytes("1 MiB") == 1 << 20
    for text in ("many", "-1MB"):
        with pytest.raises(plan.PlanError, match="64MB"):
            plan.parse_bytes(text)
    with pytest.raises(plan.PlanError, match="128x171"):
        plan.parse_size("128")


def test_hmdb51_groups_are_the_films_its_file_names_begin_with(tmp_path: Path) -> None:
    """The regex that README.md gives."""
    root = _touch(
        tmp_path,
        "cartwheel/Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",
        "cartwheel/Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_7.avi",
        "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
    )
    found = dataset.find_videos(root, group_regex="([^/]+)/(?P<group>.+)_\\1_")
    groups = [video.group for video in found.videos]
    assert groups == ["April_09", "Turnk_r_Pippi_Michel", "Turnk_r_Pippi_Michel"]
    assert (found.classes, found.grouping) == (("brush_hair", "cartwheel"), "regex")


def test_kinetics_sides_are_its_top_folders_and_groups_its_youtube_ids(tmp_path: Path) -> None:
    """The regex that README.md gives."""
    root = _touch(
        tmp_path,
        "train/abseiling/0wR5jVB-WPk_000417_000427.mp4",
        "train/abseiling/0wR5jVB-WPk_000427_000437.mp4",
        "val/air drumming/-2EU_hPcOqw_000010_000020.mp4",
    )
    found = dataset.find_videos(root, group_regex="([^/]{11})_[0-9]{6}_[0-9]{6}[.]")
    assert [video.side for video in found.videos] == [1, 1, 2]
    assert [video.group for video in found.videos] == ["0wR5jVB-WPk"] * 2 + ["-2EU_hPcOqw"]
    assert found.classes == ("abseiling", "air drumming")


def test_linked_class_folders_are_read_and_circles_are_not_followed(tmp_path: Path) -> None:
    for name in ("YoYo", "Punch"):
        (tmp_path / "real" / name).mkdir(parents=True)
        (tmp_path / "real" / name / f"v_{name}_g01_c01.avi").write_bytes(b"")
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "YoYo").symlink_to(tmp_path / "real" / "YoYo")
    (tmp_path / "real" / "YoYo" / "round").symlink_to(tmp_path / "real" / "YoYo")
    (chosen / "again").symlink_to(chosen)
    assert [video.path for video in dataset.find_videos(chosen).videos] == [
        "YoYo/v_YoYo_g01_c01.avi"
    ]


def test_a_folder_that_cannot_be_read_is_named_and_what_is_no_file_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _touch(tmp_path, "YoYo/v_YoYo_g01_c01.avi", "Punch/v_Punch_g01_c01.avi")
    (root / "YoYo" / "v_YoYo_g01_c02.avi").symlink_to(root / "gone.avi")
    os.mkfifo(root / "YoYo" / "v_YoYo_g01_c03.avi")
    found = [video.path for video in dataset.find_videos(root).videos]
    assert {"YoYo/v_YoYo_g01_c02.avi", "YoYo/v_YoYo_g01_c03.avi"} < set(found)
    scandir = os.scandir

    def refuses(path: str) -> object:
        if str(path).endswith("Punch"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(dataset.DatasetError, match=r"Punch cannot be read \(Permission denied"):
        dataset.find_videos(root)

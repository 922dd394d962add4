"""Folders and CSVs -> videos: classes, groups, subsets, keys."""

import os
from pathlib import Path

import pytest
from made_trees import touch

from har.pipeline.dataset import DatasetError, find_videos


def test_tree_of_ucf101(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "YoYo/v_YoYo_g02_c01.avi", "Punch/v_Punch_g11_c03.avi", "YoYo/notes.txt",
        "YoYo/.v_YoYo_g03_c01.avi",
    )  # fmt: skip
    data = find_videos(root)
    assert (data.classes, data.grouping) == (("Punch", "YoYo"), "ucf101")
    punch, yoyo = data.videos
    assert (punch.path, punch.label, punch.group, punch.clip, punch.key) == (
        "Punch/v_Punch_g11_c03.avi", 0, "Punch/g11", 3, "v_Punch_g11_c03",
    )  # fmt: skip
    assert (yoyo.label, yoyo.group, yoyo.subset) == (1, "YoYo/g02", 0)


def test_handstand_pushups_is_one_class_however_it_is_written(tmp_path: Path) -> None:
    root = touch(tmp_path, "HandStandPushups/v_HandStandPushups_g01_c01.avi")
    (root / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    data = find_videos(root)
    assert data.classes == ("ApplyEyeMakeup", "HandstandPushups")
    assert (data.videos[0].label, data.videos[0].group) == (1, "HandstandPushups/g01")
    touch(tmp_path, "Swim/a.avi")
    with pytest.raises(DatasetError, match=r"'Swim' of Swim/a\.avi is not in"):
        find_videos(root)


@pytest.mark.real
def test_class_list_of_ucf101(real_clips: Path) -> None:
    class_list = real_clips / "ucfTrainTestlist" / "classInd.txt"
    data = find_videos(real_clips / "ucf101", classes=class_list)
    names = data.classes
    assert (len(names), names[0], names[-1]) == (101, "ApplyEyeMakeup", "YoYo")
    assert {names[video.label] for video in data.videos} == {"ApplyEyeMakeup", "Punch", "YoYo"}


def test_missing_and_empty_folders_say_where_ucf101_comes_from(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DatasetError, match=r"Kaggle.*'make demo' needs none of it"):
            find_videos(folder)


def test_hmdb51_has_no_groups_unless_a_regex_finds_them(tmp_path: Path) -> None:
    root = touch(tmp_path, "run/Movie_run_f_cm_np1_1.avi", "run/Other_run_f_cm_np1_2.avi")
    assert find_videos(root).grouping is None
    data = find_videos(root, group_regex=r"/(\w+?)_run_")
    assert data.grouping == "regex"
    assert [video.group for video in data.videos] == ["Movie", "Other"]
    for regex, text in (
        (r"_g(\d+)_", "finds no group in run/Movie"),
        ("(", "no regular expression"),
    ):
        with pytest.raises(DatasetError, match=text):
            find_videos(root, group_regex=regex)


def test_kinetics_folders_give_the_split_and_equal_names_get_own_keys(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/dance/a.b.mp4", "val/dance/a_b.mp4", "val/sing/c.webm")
    data = find_videos(root)
    assert [video.subset for video in data.videos] == [1, 2, 2]
    keys = [video.key for video in data.videos]
    assert len(set(keys)) == 3
    assert not any("." in key for key in keys)
    assert keys[2] == "c"
    assert data.classes == ("dance", "sing")


def test_a_folder_that_cannot_be_read_is_named_and_what_is_no_file_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = touch(tmp_path, "YoYo/v_YoYo_g01_c01.avi", "Punch/v_Punch_g01_c01.avi")
    (root / "YoYo" / "v_YoYo_g01_c02.avi").symlink_to(root / "gone.avi")
    os.mkfifo(root / "YoYo" / "v_YoYo_g01_c03.avi")
    found = [video.path for video in find_videos(root).videos]
    assert {"YoYo/v_YoYo_g01_c02.avi", "YoYo/v_YoYo_g01_c03.avi"} < set(found)
    scandir = os.scandir

    def refuses(path: str) -> object:
        if str(path).endswith("Punch"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(DatasetError, match=r"Punch cannot be read \(Permission denied"):
        find_videos(root)


def test_a_video_that_is_not_named_as_the_others_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "YoYo/v_YoYo_g01_c01.avi", "YoYo/v_YoYo_g02_c01.avi", "YoYo/my own.avi")
    data = find_videos(tmp_path)
    assert data.grouping is None
    (note,) = data.notes
    assert note.startswith("1 of 3 videos are not named like UCF101's (YoYo/my own.avi)")

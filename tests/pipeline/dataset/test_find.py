"""Folders and CSVs -> videos: classes, groups, subsets, keys."""

import os
from pathlib import Path

import pytest

from har.pipeline.dataset import DatasetError, find_videos


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
    data = find_videos(root)
    assert (data.classes, data.grouping) == (("Punch", "YoYo"), "ucf101")
    punch, yoyo = data.videos
    assert (punch.path, punch.label, punch.group, punch.clip, punch.key) == (
        "Punch/v_Punch_g11_c03.avi", 0, "Punch/g11", 3, "v_Punch_g11_c03",
    )  # fmt: skip
    assert (yoyo.label, yoyo.group, yoyo.subset) == (1, "YoYo/g02", 0)


def test_handstand_pushups_is_one_class_however_it_is_written(tmp_path: Path) -> None:
    root = _touch(tmp_path, "HandStandPushups/v_HandStandPushups_g01_c01.avi")
    (root / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    data = find_videos(root)
    assert data.classes == ("ApplyEyeMakeup", "HandstandPushups")
    assert (data.videos[0].label, data.videos[0].group) == (1, "HandstandPushups/g01")
    _touch(tmp_path, "Swim/a.avi")
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
    root = _touch(tmp_path, "run/Movie_run_f_cm_np1_1.avi", "run/Other_run_f_cm_np1_2.avi")
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
    root = _touch(tmp_path, "train/dance/a.b.mp4", "val/dance/a_b.mp4", "val/sing/c.webm")
    data = find_videos(root)
    assert [video.subset for video in data.videos] == [1, 2, 2]
    keys = [video.key for video in data.videos]
    assert len(set(keys)) == 3
    assert not any("." in key for key in keys)
    assert keys[2] == "c"
    assert data.classes == ("dance", "sing")


def test_csv_with_groups_and_split(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "path,label,group,split\r\nb/2.mp4,run,s1,test\r\na/1.mp4,sit,s1,validation\r\n"
    )
    data = find_videos(path)
    assert (data.classes, data.grouping, data.root) == (("run", "sit"), "csv", str(tmp_path))
    first, second = data.videos
    assert (first.path, first.group, first.subset) == ("a/1.mp4", "s1", 2)
    assert (second.label, second.subset) == (0, 3)


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
    with pytest.raises(DatasetError, match=says):
        find_videos(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("paths", "regex", "groups", "classes", "subsets"),
    [
        (
            [
                "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
                "cartwheel/Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",
                "cartwheel/Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_7.avi",
            ],
            "([^/]+)/(?P<group>.+)_\\1_",
            ["April_09", "Turnk_r_Pippi_Michel", "Turnk_r_Pippi_Michel"],
            ("brush_hair", "cartwheel"),
            [0, 0, 0],
        ),
        (
            [
                "train/abseiling/0wR5jVB-WPk_000417_000427.mp4",
                "train/abseiling/0wR5jVB-WPk_000427_000437.mp4",
                "val/air drumming/-2EU_hPcOqw_000010_000020.mp4",
            ],
            "([^/]{11})_[0-9]{6}_[0-9]{6}[.]",
            ["0wR5jVB-WPk", "0wR5jVB-WPk", "-2EU_hPcOqw"],
            ("abseiling", "air drumming"),
            [1, 1, 2],
        ),
    ],
    ids=["hmdb51", "kinetics"],
)
def test_the_regex_that_the_documents_give_finds_films_and_youtube_ids(
    tmp_path: Path, paths: list[str], regex: str, groups: list[str], classes: tuple[str, ...],
    subsets: list[int],
) -> None:  # fmt: skip
    data = find_videos(_touch(tmp_path, *paths), group_regex=regex)
    assert [video.group for video in data.videos] == groups
    assert [video.subset for video in data.videos] == subsets
    assert (data.classes, data.grouping) == (classes, "regex")


def test_linked_class_folders_are_read_and_circles_are_not_followed(tmp_path: Path) -> None:
    for name in ("YoYo", "Punch"):
        (tmp_path / "real" / name).mkdir(parents=True)
        (tmp_path / "real" / name / f"v_{name}_g01_c01.avi").write_bytes(b"")
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "YoYo").symlink_to(tmp_path / "real" / "YoYo")
    (tmp_path / "real" / "YoYo" / "round").symlink_to(tmp_path / "real" / "YoYo")
    (chosen / "again").symlink_to(chosen)
    assert [video.path for video in find_videos(chosen).videos] == ["YoYo/v_YoYo_g01_c01.avi"]


def test_a_folder_that_cannot_be_read_is_named_and_what_is_no_file_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _touch(tmp_path, "YoYo/v_YoYo_g01_c01.avi", "Punch/v_Punch_g01_c01.avi")
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

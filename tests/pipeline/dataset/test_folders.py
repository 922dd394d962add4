"""What the folders of a tree mean: subsets, classes, groups; what is left out."""

import zipfile
from pathlib import Path

import pytest
from made_trees import images, left_out, rows, touch

from har.pipeline.dataset import DatasetError, find_videos, list_folder

UCF11 = [
    f"basketball/v_shooting_{group:02d}/v_shooting_{group:02d}_{clip:02d}.mpg"
    for group in (1, 2)
    for clip in (1, 2)
] + ["biking/v_biking_01/v_biking_01_01.mpg"]


@pytest.mark.parametrize(
    ("names", "layout", "expected"),
    [
        (["a/1.avi", "b/2.avi"], None, {"a/1.avi": "- a ", "b/2.avi": "- b "}),
        (["train/a/1.avi", "val/a/2.avi"], None, {"val/a/2.avi": "val a "}),
        *(
            ([f"{top}/a/1.avi", "train/a/0.avi"], None, {f"{top}/a/1.avi": f"{subset} a "})
            for subset, tops in {
                "train": ("Train", "TRAIN", "training"),
                "val": ("validation", "validate", "valid", "Val", "dev"),
                "test": ("Test", "testing", "TEST"),
            }.items()
            for top in tops
        ),
        # a wrapper, as archives have it
        (["UCF/train/a/1.avi", "UCF/val/b/2.avi"], None, {"UCF/train/a/1.avi": "train a "}),
        (["UCF/a/1.avi", "UCF/b/2.avi"], None, {"UCF/a/1.avi": "- a ", "UCF/b/2.avi": "- b "}),
        # a class may be called as a subset
        (["test/1.avi", "walk/2.avi"], None, {"test/1.avi": "- test ", "walk/2.avi": "- walk "}),
        (["training/1.avi", "walk/2.avi", "run/3.avi"], None, {"training/1.avi": "- training "}),
        # groups
        (UCF11, None, {UCF11[0]: "- basketball v_shooting_01", UCF11[4]: "- biking v_biking_01"}),
        (
            [f"train/{name}" for name in UCF11] + ["Test/biking/v_biking_02/v_biking_02_01.mpg"],
            None,
            {f"train/{UCF11[0]}": "train basketball v_shooting_01"},
        ),
        (["a/p1/1.avi", "b/p1/2.avi"], "class/group/clip", {"a/p1/1.avi": "- a p1"}),
        (["a/p1/1.avi", "b/p2/2.avi"], "class/clip", {"a/p1/1.avi": "- p1 "}),
        (["Test/a/p1/1.avi"], "split/class/group/clip", {"Test/a/p1/1.avi": "test a p1"}),
        (["dev/a/1.avi", "train/a/2.avi"], "split/class/clip", {"dev/a/1.avi": "val a "}),
        (["x/y/a/p1/1.avi", "x/y/b/p1/2.avi"], "class/group/clip", {"x/y/a/p1/1.avi": "- a p1"}),
        # UCF101's names say what their class is, wherever the class folder lies
        (
            ["one/YoYo/v_YoYo_g01_c01.avi", "two/Punch/v_Punch_g02_c01.avi"],
            None,
            {"one/YoYo/v_YoYo_g01_c01.avi": "- YoYo YoYo/g01"},
        ),
        # frames as images
        (
            [*images("swipe/12"), *images("push/7", name="img_{:d}.PNG")],
            None,
            {"push/7/": "- push ", "swipe/12/": "- swipe "},
        ),
    ],
)  # fmt: skip
def test_folders_are_read_as_they_are_named(
    tmp_path: Path, names: list[str], layout: str | None, expected: dict[str, str]
) -> None:
    found = rows(find_videos(touch(tmp_path, *names), layout=layout))
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (
            ["a/p1/1.avi", "b/p2/2.avi"], {},
            r"a/p1/1\.avi can be read in two ways: as class 'a' and group 'p1' \(--layout "
            r"class/group/clip\), or as class 'p1' \(--layout class/clip\)",
        ),
        (
            ["train_256/run/1.avi", "val_256/run/2.avi"], {},
            r"give one of the two; top folders that are subsets are called train, val and test\.",
        ),
        (
            ["train/a/p1/1.avi", "val/b/p2/2.avi"], {},
            r"class 'a' and group 'p1' \(--layout split/class/group/clip\)",
        ),
        (["a/1.avi", "b/extra/2.avi"], {}, "b/extra/2.avi can be read in two ways"),
        (["a/1.avi"], {"layout": "group/clip"}, "--layout 'group/clip' is none of class/clip"),
        (
            ["x/a/1.avi", "train/a/1.avi"], {"layout": "split/class/clip"},
            "top folder 'x' of x/a/1.avi is no subset: name it train, val, test",
        ),
        (
            ["a/1.avi", "b/p/2.avi"], {"layout": "class/group/clip"},
            "a/1.avi lies in fewer folders than --layout says",
        ),
        (
            ["train/a/1.avi", "validate/2.avi", "validate/3.avi"], {},
            r"validate/ holds videos in no class folder.*\(validate/2\.avi, 2 in all\).*--list",
        ),
        (["train/1.mp4", "val/2.mp4"], {}, "holds videos in no class folder.*1 in all.*--list"),
        (
            ["1.avi", "2.avi"], {},
            "under .*left out: videos in the top folder, .* 2 in all.*sort them .* or .*--list",
        ),
    ],
)  # fmt: skip
def test_folders_with_two_readings_are_one_sentence(
    tmp_path: Path, names: list[str], options: dict[str, str], says: str
) -> None:
    with pytest.raises(DatasetError, match=says):
        find_videos(touch(tmp_path, *names), **options)


def test_a_class_list_decides_which_folder_is_the_class(tmp_path: Path) -> None:
    names = ["walk/p1/1.avi", "run/p1/2.avi"]
    root = touch(tmp_path, *names)
    (root / "classInd.txt").write_text("walk\nrun\n")
    assert rows(find_videos(root)) == {names[1]: "- run p1", names[0]: "- walk p1"}
    (root / "classInd.txt").write_text("p1\n")
    assert rows(find_videos(root)) == {names[1]: "- p1 ", names[0]: "- p1 "}


def test_what_is_guessed_is_said(tmp_path: Path) -> None:
    data = find_videos(touch(tmp_path / "1", "train/a/1.avi", "validate/a/2.avi", "more/a/3.avi"))
    assert data.notes == (
        "top folders: validate/ is the subset val",
        "top folders that are in no subset: more",
    )
    (note,) = find_videos(touch(tmp_path / "2", *UCF11)).notes
    assert "read as class/group/clip" in note
    assert "class basketball, group v_shooting_01" in note
    assert find_videos(touch(tmp_path / "3", "a/1.avi")).notes == ()
    (note,) = find_videos(touch(tmp_path / "4", "bus/1.avi", "train/2.avi")).notes
    assert note == "top folders that are read as classes, not as subsets: train"


def test_all_that_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    names = ["a/1.avi", "a/2.MTS", "a/3.xyz", "a/4.txt", "a/5.xyz", "b/.hidden.avi", ".git/x.avi"]
    names += ["loose.avi", "b/", "c/readme", "c/deep/er/", "a/still_1.jpg", "train/d/6.avi"]
    names += ["test/7.avi", *images("a/no", 1)]
    data = find_videos(touch(tmp_path, *names))
    assert list(rows(data)) == ["a/1.avi", "a/2.MTS", "train/d/6.avi"]
    suffixes = "files without a video's suffix (.xyz 2, .txt 1, none 1)"
    assert left_out(data) == {
        suffixes: (4, ("a/3.xyz", "a/4.txt", "a/5.xyz", "c/readme")),
        "images that are not the numbered frames of one video": (
            2,
            ("a/no/00001.jpg", "a/still_1.jpg"),
        ),
        "hidden files and folders": (2, (".git/", "b/.hidden.avi")),
        "folders without a video": (3, ("a/no/", "b/", "c/")),
        "videos in the top folder, in no class folder": (1, ("loose.avi",)),
        "test videos without a class folder, which have no label": (1, ("test/7.avi",)),
    }


def test_the_videos_below_a_folder_are_files_and_image_folders(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "root"  # what is above does not count
    names = ["a.MP4", "beside/b.avi", "._a.MP4", ".trash/c.avi", "note.txt", "folder.mp4/"]
    touch(root, *names, *images("beside", 2), *images("frames", 2))
    videos, left_out = list_folder(root)
    assert videos == [root / "a.MP4", root / "beside" / "b.avi", root / "frames"]
    assert len(left_out) == 4
    assert list_folder(root / "frames")[0] == [root / "frames"]
    assert list_folder(root / "none") == ([], [])


def test_what_an_archive_holds_is_read_as_a_tree(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        names = ["top/train/a/1.avi", "top/Val/b/2.avi", "top/x.txt", "../up.avi"]
        for name in [
            *names,
            "__MACOSX/top/a/._1.avi",
            *(f"top/{one}" for one in images("test/c/9")),
        ]:
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("top/train/a/link.avi")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "1.avi")
    data = find_videos(tmp_path / "set.zip")
    assert rows(data) == {
        "Val/b/2.avi": "val b ",
        "test/c/9/": "test c ",
        "train/a/1.avi": "train a ",
    }
    reasons = left_out(data)
    assert [
        reasons[f"files of the archive that are not read ({why})"][1]
        for why in ("a link", "its name leads out of the folder")
    ] == [("top/train/a/link.avi",), ("../up.avi",)]
    assert [video.size for video in data.videos] == [1, 3, 1]


def test_links_that_lead_into_each_other_give_each_file_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.avi", "b/2.avi")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "again.avi").symlink_to(tmp_path / "a" / "1.avi")
    data = find_videos(tmp_path)
    assert rows(data) == {"a/1.avi": "- a ", "b/2.avi": "- b "}
    assert left_out(data) == {
        "links to what is read already": (3, ("a/to_b/", "b/again.avi", "b/to_a/"))
    }


def test_links_to_files_elsewhere_are_videos_of_their_own_name(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "x1", "pool/2.avi")
    root = touch(tmp_path / "set", "a/0.avi", "loose.avi")
    (root / "a" / "1.avi").symlink_to(store / "x1")
    (root / "a" / "3.avi").symlink_to(root / "loose.avi")
    (root / "b").symlink_to(store / "pool")
    (root / "c").symlink_to(store / "pool")
    data = find_videos(root)
    assert rows(data) == {
        "a/0.avi": "- a ",
        "a/1.avi": "- a ",
        "a/3.avi": "- a ",
        "b/2.avi": "- b ",
    }
    assert left_out(data)["links to what is read already"] == (1, ("c/",))

"""Lists of videos: encodings, delimiters, line numbers, and the lists of other tools."""

import codecs
import unicodedata
from pathlib import Path

import pytest
from made_builds import upload
from made_trees import images, left_out, rows, touch

from har.pipeline.dataset import DatasetError, find_videos

NFD = unicodedata.normalize("NFD", "Läufer")
TREE = ["run/1.avi", "run/2.avi", "walk/3.avi"]
CSV = "path,label,group,split\r\nrun/1.avi,Läufer,s1,train\r\nwalk/3.avi,gehen,s2,validation\r\n"
EXPECTED = {"run/1.avi": "train Läufer s1", "walk/3.avi": "val gehen s2"}


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (CSV.encode(), ""),
        (CSV.encode("utf-8-sig"), ""),
        (CSV.replace(",", "\t").encode("utf-16"), ""),
        (codecs.BOM_UTF16_BE + CSV.replace(",", ";").encode("utf-16-be"), ""),
        (CSV.replace(",", ";").encode("cp1252"), "list x.csv: read in the Windows code page"),
        (("sep=;\r\n" + CSV.replace(",", ";")).encode("utf-8-sig"), ""),
        (CSV.replace("path,label", '" Path ",LABEL').encode(), ""),
        (CSV.replace("\r\n", "\r\n,,,\r\n\r\n").replace("validation", "val,,").encode(), ""),
        (CSV.replace("run/1.avi", ".\\run\\1.avi").replace("walk/3", "./walk//3").encode(), ""),
    ],
    ids=["utf-8", "bom", "utf-16 tabs", "utf-16-be", "cp1252", "sep", "header", "blank", "paths"],
)  # fmt: skip
def test_a_table_is_read_as_excel_and_windows_write_it(
    tmp_path: Path, data: bytes, note: str
) -> None:
    (touch(tmp_path, *TREE) / "x.csv").write_bytes(data)
    found = find_videos(tmp_path / "x.csv")
    assert (rows(found), found.grouping) == (EXPECTED, "csv")
    assert "".join(found.notes).startswith(note)
    assert bool(found.notes) == bool(note)


def test_absolute_paths_and_dots_are_the_same_video(tmp_path: Path) -> None:
    path = touch(tmp_path, *TREE) / "x.csv"
    path.write_text(f"path,label\n{tmp_path}/run/1.avi,a\n/elsewhere/9.avi,b\nnone.avi,b\n")
    assert list(rows(find_videos(path))) == ["/elsewhere/9.avi", "none.avi", "run/1.avi"]
    for other in ("./run/1.avi", "run/../run/1.avi", f"{tmp_path}/run/1.avi", "run\\1.avi"):
        path.write_text(f"path,label\n\nrun/1.avi,a\n{other},b\n")
        with pytest.raises(DatasetError, match=r"line 4 names run/1\.avi more than once: .*line 3"):
            find_videos(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('path,label\n"a\nb",c\n\n\nd,\n', r"x\.csv, line 6: path and label"),
        ("path,label\na,b,c\n", "line 2: it has 3 fields and the header 2"),
        ("path,label,split\n\na,b,later\n", "line 3: split 'later' must be one of train, val"),
        ('path,label\n"a,b\n', None),
        ("file,label\na,b\n", r"columns \['file', 'label'\]: it needs path,label"),
        ("walk/3.avi 1 2 3\n", "line 1: it gives several labels"),
        ("\n\n", "names no video"),
        ("path,label\n", "names no video"),
        ("no/1.avi 0\n", r"none of the 1 videos of .*x\.csv is in .*'no/1\.avi'.*--list"),
        ("youtube_id,time_start,time_end\nabc,1,x\n", "line 2: time_start and time_end must be"),
        ("youtube_id,time_start,time_end\nabc,1,inf\n", "line 2: time_start and time_end must"),
        ("path,label,Label\na,b,c\n", "has two columns 'label'"),
    ],
)
def test_lines_that_make_no_sense_are_named_by_their_number(
    tmp_path: Path, text: str, says: str | None
) -> None:
    (touch(tmp_path, *TREE) / "x.csv").write_text(text)
    if says is None:  # an open quote: csv takes the rest for one field
        says = "path and label must not be empty"
    with pytest.raises(DatasetError, match=says):
        find_videos(tmp_path / "x.csv")


@pytest.mark.parametrize("text", ["3", "null", '{"1": "a"}', '["a"]'])
def test_json_that_is_no_list_of_videos(tmp_path: Path, text: str) -> None:
    (touch(tmp_path, *TREE) / "x.json").write_text(text)
    says = r"x\.json(, entry 1: it needs id| is no list of videos)"
    with pytest.raises(DatasetError, match=says):
        find_videos(tmp_path / "x.json")


def test_numbers_in_json_are_labels_zero_as_well(tmp_path: Path) -> None:
    (touch(tmp_path, *TREE) / "x.json").write_text(
        '[{"path": "run/1.avi", "label": 0}, {"path": "walk/3.avi", "label": 1}]'
    )
    data = find_videos(tmp_path / "x.json")
    assert [(data.classes[video.label], video.path) for video in data.videos] == [
        ("run", "run/1.avi"), ("walk", "walk/3.avi"),
    ]  # fmt: skip
    assert data.notes == ("labels: numbers, named by the folders (0 is run ...)",)


def test_bytes_that_are_no_text_are_one_sentence(tmp_path: Path) -> None:
    (touch(tmp_path, *TREE) / "x.csv").write_bytes(b"path,label\n\x81\x8d,\x9d\n")
    with pytest.raises(DatasetError, match=r"no text in UTF-8, UTF-16 or .*'CSV UTF-8'"):
        find_videos(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(CSV.encode("utf-16")[:-1])
    with pytest.raises(DatasetError, match="no text in UTF-8"):
        find_videos(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("names", "lists", "expected", "classes"),
    [
        (  # mmaction2: numbers, named by the folders; blanks in paths
            ["air drumming/a, b.mp4", "yoga/c.mp4"],
            {"k_train_list.txt": "air drumming/a, b.mp4 1\n", "k_val_list.txt": "yoga/c.mp4 0\n"},
            {"air drumming/a, b.mp4": "train air drumming ", "yoga/c.mp4": "val yoga "},
            ("yoga", "air drumming"),
        ),
        (  # SlowFast: paths of another machine, labels that no folder names
            ["videos/a.mp4", "videos/b.mp4", "videos/c.mp4"],
            {
                "train.csv": "/data/k/videos/a.mp4 10\n/data/k/videos/b.mp4 9\n",
                "val.csv": "/data/k/videos/c.mp4 9\n",
            },
            {"videos/a.mp4": "train 10 ", "videos/b.mp4": "train 9 ", "videos/c.mp4": "val 9 "},
            ("9", "10"),
        ),
        (  # names of labels with blanks, tabs
            ["1.mp4", "2.mp4"],
            {"x.txt": "1.mp4\tair drumming\n2.mp4\tyoga\n"},
            {"1.mp4": "- air drumming ", "2.mp4": "- yoga "},
            ("air drumming", "yoga"),
        ),
        (  # a class that the numbered list lacks; names in another Unicode form than on the disk
            [f"{NFD}/1.avi", "b/2.avi", "a/3.avi"],
            {"trainlist01.txt": f"{NFD}/1.avi 2\nb/2.avi 1\n", "testlist01.txt": "a/3.avi\n"},
            {f"{NFD}/1.avi": "train Läufer ", "b/2.avi": "train b ", "a/3.avi": "test a "},
            ("b", "Läufer", "a"),
        ),
        (  # a table of frame folders
            [*images("clips/12"), *images("clips/7")],
            {"x.csv": "path,label,split\nclips/12,wave,train\n./clips/7/,nod,val\n"},
            {"clips/12/": "train wave ", "clips/7/": "val nod "},
            ("nod", "wave"),
        ),
        (  # mmaction2's frame folders: path, number of frames, label
            [*images("YoYo/v_1", name="img_{:05d}.jpg"), *images("Punch/v_2")],
            {"ucf101_train_split_1_rawframes.txt": "YoYo/v_1 3 1\nPunch/v_2 3 0\n"},
            {"YoYo/v_1/": "train YoYo ", "Punch/v_2/": "train Punch "},
            ("Punch", "YoYo"),
        ),
    ],
    ids=["mmaction2", "slowfast", "tabs", "unicode", "frames", "rawframes"],
)  # fmt: skip
def test_lists_of_other_tools(
    tmp_path: Path, names: list[str], lists: dict[str, str], expected: dict[str, str],
    classes: tuple[str, ...],
) -> None:  # fmt: skip
    root = touch(tmp_path / "videos_of", *names)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    data = find_videos(root, lists=[str(tmp_path / name) for name in lists])
    assert rows(data) == expected
    assert data.classes == classes
    assert left_out(data) == {}
    if len(lists) == 1 and "x.csv" in lists:  # the list may lie with the videos, and stand for them
        (tmp_path / "x.csv").rename(root / "x.csv")
        assert find_videos(root / "x.csv").videos == data.videos


def test_subsets_of_folders_count_beside_a_list_where_the_layout_says_so(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "train/a/1.avi", "test/b/2.avi")
    path = tmp_path / "labels.csv"
    path.write_text("path,label\ntrain/a/1.avi,run\ntest/b/2.avi,walk\n")
    data = find_videos(root, lists=[str(path)])
    assert rows(data) == {"train/a/1.avi": "- run ", "test/b/2.avi": "- walk "}
    assert "the folders test, train give no subset" in data.notes[0]
    data = find_videos(root, lists=[str(path)], layout="split/class/clip")
    assert rows(data) == {"train/a/1.avi": "train run ", "test/b/2.avi": "test walk "}
    assert data.notes == ()
    path.write_text("path,label,split\ntrain/a/1.avi,run,val\ntest/b/2.avi,walk,\n")
    data = find_videos(root, lists=[str(path)], layout="split/class/clip")
    assert rows(data) == {"train/a/1.avi": "val run ", "test/b/2.avi": "- walk "}


def test_a_folder_around_all_videos_is_no_class_of_those_without_a_label(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "clips/1.webm", "clips/2.webm", "clips/3.webm", "run/4.webm")
    (tmp_path / "train.json").write_text(
        '[{"id": 1, "template": "Hold [it]"}, {"id": 2, "label": "run"}]'
    )
    (tmp_path / "test.json").write_text('[{"id": 3}, {"id": 4}]')
    lists = [str(tmp_path / "train.json"), str(tmp_path / "test.json")]
    data = find_videos(root, lists=lists)
    assert rows(data) == {
        "clips/1.webm": "train Hold it ", "clips/2.webm": "train run ", "run/4.webm": "test run ",
    }  # fmt: skip
    assert left_out(data) == {"test videos without a label": (1, ("clips/3.webm",))}
    (tmp_path / "val.json").write_text('[{"id": 3}]')
    with pytest.raises(DatasetError, match=r"entry 1 gives no label, and clips/3\.webm lies"):
        find_videos(root, lists=[lists[0], str(tmp_path / "val.json")])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label,start,,end\nrun/1.avi,a,0,,3\n", "columns that are not read: start, end"),
        ("run/1.avi,a,4,0\nrun/2.avi,b,3,\n", "x.csv: no header, so read as path and label, of 4 "),
        ("run/1.avi,a,\nrun/2.avi,b,\n", ""),
    ],
)
def test_columns_that_are_not_read_are_said(tmp_path: Path, text: str, says: str) -> None:
    (touch(tmp_path, *TREE) / "x.csv").write_text(text)
    assert says in " ".join(find_videos(tmp_path / "x.csv").notes)
    assert bool(says) == bool(find_videos(tmp_path / "x.csv").notes)


@pytest.mark.parametrize("rest", ["120,3", "0:01.5,0:03,run", " 7 ,run"])
def test_a_csv_whose_label_cannot_be_told_is_not_guessed(tmp_path: Path, rest: str) -> None:
    (touch(tmp_path, *TREE) / "x.csv").write_text(f"run/1.avi,{rest}\nrun/2.avi,{rest}\n")
    with pytest.raises(DatasetError, match="columns and no header, and the second holds numbers"):
        find_videos(tmp_path / "x.csv")


def test_a_folder_of_images_from_a_mac_has_its_hidden_files(tmp_path: Path) -> None:
    root = touch(tmp_path, *images("7"), *images("7", name="._{:05d}.jpg"), "7/.DS_Store")
    (root / "x.csv").write_text("path,label\n7,nod\n")
    (video,) = find_videos(root / "x.csv").videos
    assert (video.path, video.size) == ("7/", 3)


def test_lists_and_tree_that_differ_are_counted(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", *TREE)
    (tmp_path / "train.txt").write_text("run/1.avi run\nrun/9.avi run\n")
    data = find_videos(root, lists=[str(tmp_path / "*.txt")])
    assert rows(data) == {"run/1.avi": "train run "}
    assert left_out(data) == {
        "videos that a list names and that are not there": (1, ("run/9.avi",)),
        "videos that no list names": (2, ("run/2.avi", "walk/3.avi")),
    }
    assert data.notes == ("list train.txt: taken for the subset train",)
    (tmp_path / "test.txt").write_text("run/1.avi run\n")
    (tmp_path / "._test.txt").write_bytes(b"\0\5\x16\7")  # macOS leaves such beside each file
    with pytest.raises(DatasetError, match=r"names run/1.avi more than once: .*lists of one split"):
        find_videos(root, lists=[str(tmp_path / "*.txt")])
    for lists, says in {"no*.txt": "there is no such file", "gone.csv": "cannot be read"}.items():
        with pytest.raises(DatasetError, match=says):
            find_videos(root, lists=[str(tmp_path / lists)])


def test_lists_and_videos_may_lie_behind_urls(tmp_path: Path) -> None:
    root = touch(tmp_path, *TREE, *images("run/4"))
    (tmp_path / "train.txt").write_text("run/1.avi\trun\nrun/4\trun\n")
    (tmp_path / "val.txt").write_text("walk/3.avi walk\n")
    upload(root, "memory://lists")
    local = find_videos(root, lists=[str(tmp_path / "*.txt")])
    remote = find_videos("memory://lists", lists=["memory://lists/*.txt"])
    assert rows(remote) == {
        "run/1.avi": "train run ", "run/4/": "train run ", "walk/3.avi": "val walk ",
    }  # fmt: skip
    assert (remote.videos, remote.left_out) == (local.videos, local.left_out)


def test_a_list_may_name_links(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "pool/1.avi")
    (root / "run").mkdir()
    (root / "run" / "one.avi").symlink_to(root / "pool" / "1.avi")
    (tmp_path / "train.txt").write_text("run/one.avi run\n")
    data = find_videos(root, lists=[str(tmp_path / "train.txt")])
    assert list(rows(data)) == ["run/one.avi"]


def test_a_name_that_fits_two_files_is_not_guessed(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "a/1.avi", "b/1.avi", "b/2.mp4")
    (tmp_path / "x.txt").write_text("1.avi run\n")
    with pytest.raises(DatasetError, match=r"line 1: '1\.avi' may be a/1\.avi or b/1\.avi"):
        find_videos(root, lists=[str(tmp_path / "x.txt")])
    (tmp_path / "x.txt").write_text("c/1.avi run\nb/2.avi run\n")  # another folder is another file
    data = find_videos(root, lists=[str(tmp_path / "x.txt")])
    assert list(rows(data)) == ["b/2.mp4"]


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ("1 2", "no\nrun\nwalk\nyes\n", ["run", "walk"]),
        ("1 2", "x\nother\nyes\n", ["x", "other"]),  # as the folder x says
        ("0 1", "run\nwalk\n", ["run", "walk"]),
        ("1 2", "run\nwalk\n", ["run", "walk"]),  # the list counts from 1
        ("1 2", "1 run\n2 walk\n", ["run", "walk"]),
        ("0 1", "1 run\n2 walk\n", ["run", "walk"]),
        ("1 101", "1 run\n101 walk\n", ["run", "walk"]),
        ("2 1", '{"run": "2", "walk": 1}', ["run", "walk"]),
        ("1 9", "run\nwalk\n", None),
        ("1 9", "1 run\n101 walk\n", None),
    ],
)
def test_numbers_of_labels_are_looked_up_in_the_class_list(
    tmp_path: Path, labels: str, classes: str, expected: list[str] | None
) -> None:
    root = touch(tmp_path / "set", "x/1.avi", "x/2.avi")
    first, second = labels.split()
    (tmp_path / "train.txt").write_text(f"x/1.avi {first}\nx/2.avi {second}\n")
    (tmp_path / "names").write_text(classes)
    if expected is None:
        with pytest.raises(
            DatasetError, match=r"line 2: label 9 is not in .*names, which has [01] to"
        ):
            find_videos(root, lists=[str(tmp_path / "train.txt")], classes=tmp_path / "names")
        return
    data = find_videos(root, lists=[str(tmp_path / "train.txt")], classes=tmp_path / "names")
    assert [data.classes[video.label] for video in data.videos] == expected

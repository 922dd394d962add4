"""Names of classes: spelling, order, lists of them; names that are no UTF-8."""

import unicodedata
from pathlib import Path

import pytest
from made_trees import rows, touch

from har.pipeline.dataset import DatasetError, find_videos, note_lines

NFC, NFD = (unicodedata.normalize(form, "Läufer") for form in ("NFC", "NFD"))


def _csv(folder: Path, *labels: str) -> Path:
    lines = [f'{number}.avi,"{label}"' for number, label in enumerate(labels)]
    (folder / "x.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    return folder / "x.csv"


@pytest.mark.parametrize(
    ("labels", "merge_case", "classes", "note"),
    [
        (["run", "run ", " run"], False, ("run",), ""),
        (["run\nfast", "run fast\r\n"], False, ("run fast",), "class 'run fast': also written"),
        ([NFC, NFD], False, (NFC,), "class 'Läufer': also written"),
        (["run", "RUN", "run"], True, ("run",), "class 'run': also written 'RUN'"),
        (["Run", "run"], True, ("Run",), "class 'Run': also written 'run'"),
        (["0", "10", "2", "1"], False, ("0", "1", "2", "10"), ""),
        (["0", "10", "2", "a1"], False, ("0", "10", "2", "a1"), ""),
    ],
)
def test_labels_are_one_class_however_they_are_written(
    tmp_path: Path, labels: list[str], merge_case: bool, classes: tuple[str, ...], note: str
) -> None:
    data = find_videos(_csv(tmp_path, *labels), merge_case=merge_case)
    assert data.classes == classes
    assert {video.label for video in data.videos} == set(range(len(classes)))
    assert "".join(data.notes).startswith(note)


def test_names_that_differ_by_case_are_one_sentence_with_both(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/Run/1.avi", "val/run/2.avi", "val/run/3.avi")
    says = r"classes 'Run' \(1 videos\) and 'run' \(2\) differ only .* --merge-case"
    with pytest.raises(DatasetError, match=says):
        find_videos(root)
    data = find_videos(root, merge_case=True)
    assert rows(data) == {
        "train/Run/1.avi": "train run ", "val/run/2.avi": "val run ", "val/run/3.avi": "val run ",
    }  # fmt: skip
    (root / "classInd.txt").write_text("1 RUN\n2 Walk\n")  # a list decides, and keeps its numbers
    data = find_videos(root)
    assert (data.classes, {video.label for video in data.videos}) == (("RUN", "Walk"), {0})


def test_folders_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    data = find_videos(touch(tmp_path, f"{NFC}/1.avi", f"{NFD}/2.avi"))
    assert data.classes == (NFC,)
    assert {video.path for video in data.videos} == {f"{NFC}/1.avi", f"{NFD}/2.avi"}


@pytest.mark.parametrize(
    ("raw", "folders", "classes"),
    [
        (b"\xef\xbb\xbf1 run\r\n2 walk\r\n", ["run"], ("run", "walk")),
        ("run\nwalk\n".encode("utf-16"), ["run"], ("run", "walk")),
        ("Läufer\n".encode("cp1252"), [NFD], (NFC,)),
        (b"3 point shot\n5 point shot\n", ["3 point shot"], ("3 point shot", "5 point shot")),
        (b"1 person\n2 persons\n", ["1 person"], ("1 person", "2 persons")),
        (b"0\n1\n2\n", ["2"], ("0", "1", "2")),
        (b"2 walk\n1 run\n", ["run"], ("run", "walk")),
        (b"7 walk\n3 run\n", ["run"], ("run", "walk")),
        (b"id,name\r\n0,run, fast\r\n1,walk\r\n", ["walk"], ("run, fast", "walk")),
        (b"drink,eat\nrun,walk\n", ["run,walk"], ("drink,eat", "run,walk")),
        (b'{"walk": "1", "run": "0"}', ["run"], ("run", "walk")),
    ],
)
def test_class_lists_are_read_as_they_are_written(
    tmp_path: Path, raw: bytes, folders: list[str], classes: tuple[str, ...]
) -> None:
    root = touch(tmp_path / "set", *(f"{folder}/1.avi" for folder in folders))
    (root / "names.txt").write_bytes(raw)
    data = find_videos(root, classes=root / "names.txt")
    assert (data.classes, data.left_out) == (classes, ())


@pytest.mark.parametrize("text", ["1 run\n2 run\n", "run\nRun\n", "", '{"run": "x"}'])
def test_class_lists_that_make_no_sense(tmp_path: Path, text: str) -> None:
    root = touch(tmp_path / "set", "run/1.avi")
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(DatasetError, match=r"names\.txt (must name each class once|is no JSON)"):
        find_videos(root, classes=tmp_path / "names.txt")


def test_names_that_are_no_utf_8_are_found_and_can_be_written_anywhere(tmp_path: Path) -> None:
    root = touch(tmp_path, b"caf\xe9/v\xff.avi", b"th\xc3\xa9/2.avi", b"caf\xe9/n\xff.xyz")
    data = find_videos(root, group_regex="(caf.|th.)")
    assert data.classes == ("caf\\xe9", "thé")
    first = data.videos[0]
    assert (first.path, first.group) == ("caf\udce9/v\udcff.avi", "caf\\xe9")
    assert Path(data.root, first.path).read_bytes() == b"x"
    assert note_lines(data.describe())[0].endswith("caf\\xe9/n\\xff.xyz")

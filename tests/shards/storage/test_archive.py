"""Archives give the files of the tree that they were made of, one by one, and nothing else."""

import gzip
import os
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from made_archives import FILES, KINDS, pack, rar_bytes

from har.shards.storage import (
    ArchiveError,
    FileFetcher,
    archive,
    gzip_stream,
    is_archive,
    open_archive,
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_those_of_the_tree(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == ".rar":
        pytest.importorskip("rarfile")
    monkeypatch.setattr(gzip_stream, "_POINT_BYTES", 1000)
    path = pack(tmp_path / f"UCF101{kind}", FILES)
    opened = open_archive(path)
    assert opened.find() == {name: len(data) for name, data in FILES.items()}
    for name in reversed(FILES):  # from the last to the first: at any place
        assert opened.read(name) == FILES[name]
    with FileFetcher(str(path)) as files:
        copy = files.path("A/2.avi")
        assert (copy.read_bytes(), copy.suffix) == (FILES["A/2.avi"], ".avi")
        files.done(copy)
        assert not copy.exists()
        assert not files.path("A/none.avi").exists()
    assert open_archive(path) is opened
    assert opened.left_out == {}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["UCF-101/A/1.avi", "UCF-101/B/2.avi"], ["A/1.avi", "B/2.avi"]),
        (["UCF-101/A/1.avi", "__MACOSX/UCF-101/._A"], ["A/1.avi", "__MACOSX/UCF-101/._A"]),
        (["readme.txt", "U/A/1.avi", "U/classInd.txt"], ["readme.txt", "A/1.avi", "classInd.txt"]),
        (["./U/A/1.avi"], ["A/1.avi"]),
        (["A/1.avi", "A/2.avi"], ["A/1.avi", "A/2.avi"]),
        (["train/A/1.avi", "train/B/2.avi"], ["train/A/1.avi", "train/B/2.avi"]),
        (["dev/A/1.avi", "dev/B/2.avi"], ["dev/A/1.avi", "dev/B/2.avi"]),
        (["A/1.avi", "B/2.avi"], ["A/1.avi", "B/2.avi"]),
    ],
)
def test_one_folder_around_everything_is_left_away(
    tmp_path: Path, names: list[str], found: list[str]
) -> None:
    path = pack(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    assert list(open_archive(path).find()) == found


def test_names_that_lead_out_and_links_are_left_out_and_named(tmp_path: Path) -> None:
    bad = dict.fromkeys(["../out.avi", "/etc/b.avi", "A/../../c.avi", "C:/d.avi"], b"x")
    path = pack(tmp_path / "a.zip", {**bad, **FILES})
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("A/link.avi")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "1.avi")
    opened = open_archive(path)
    assert list(opened.find()) == list(FILES)
    out = "its name leads out of the folder"
    assert opened.left_out == {**dict.fromkeys(bad, out), "A/link.avi": "a link"}
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"A/{number}.avi")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert list(open_archive(path).left_out.values()) == ["a link", "a link", "no plain file"]
    path = pack(tmp_path / "windows.zip", {"A\\1.avi": b"x", "B\\ü.avi": b"y"})
    assert list(open_archive(path).find()) == ["A/1.avi", "B/ü.avi"]


def test_a_file_that_grows_a_hundredfold_or_beyond_the_disk_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_RATIO_BYTES", 1000)
    path = pack(tmp_path / "a.zip", {"A/bomb.avi": bytes(1 << 20), "A/1.avi": os.urandom(2000)})
    with FileFetcher(str(path)) as files:
        bomb, video = files.path("A/bomb.avi"), files.path("A/1.avi")
        assert not bomb.exists()
        assert files.faults[bomb].startswith("it would grow from 1,")
        assert video.stat().st_size == 2000
    free = type("usage", (), {"free": 1000})
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: free)
    with pytest.raises(ArchiveError, match=r"takes 0\.00 GB of scratch space .* set TMPDIR"):
        open_archive(path).extract("A/1.avi", tmp_path / "x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_archive_is_one_sentence(tmp_path: Path, kind: str) -> None:
    if kind == ".rar":
        pytest.importorskip("rarfile")
    whole = pack(tmp_path / f"whole{kind}", FILES).read_bytes()
    for name, data in (("cut", whole[: len(whole) // 2]), ("other", b"<html>not found</html>")):
        path = tmp_path / f"{name}{kind}"
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match=r"is damaged or no .*: get it once more, whole"):
            open_archive(path)


def test_one_wrong_byte_costs_its_file_only(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", FILES)
    raw = bytearray(path.read_bytes())
    raw[raw.index(FILES["A/2.avi"][:50]) + 20] ^= 1
    path.write_bytes(raw)
    with FileFetcher(str(path)) as files:
        assert files.path("A/1.avi").read_bytes() == FILES["A/1.avi"]
        copy = files.path("A/2.avi")
        assert not copy.exists()
        assert files.faults == {
            copy: "it is damaged in the archive (Bad CRC-32 for file 'UCF-101/A/2.avi')."
        }


def test_several_gzip_files_behind_each_other_are_one(tmp_path: Path) -> None:
    """As pigz and bgzip write them; and zeros behind the end are no fault."""
    tar = pack(tmp_path / "a.tar", FILES).read_bytes()
    pieces = [gzip.compress(tar[at : at + 30_000]) for at in range(0, len(tar), 30_000)]
    (tmp_path / "b.tgz").write_bytes(b"".join(pieces) + bytes(100))
    opened = open_archive(tmp_path / "b.tgz")
    assert {name: opened.read(name) for name in opened.find()} == FILES


def test_what_is_an_archive(tmp_path: Path) -> None:
    (tmp_path / "set.tar").mkdir()
    assert not is_archive(tmp_path / "set.tar")
    assert is_archive("UCF101.ZIP")
    assert not is_archive("list.csv")
    with pytest.raises(ArchiveError, match="is an archive behind a URL: download it"):
        open_archive("s3://bucket/UCF101.zip")


def test_a_rar_without_its_program_or_solid_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rarfile = pytest.importorskip("rarfile")
    path = tmp_path / "packed.rar"
    path.write_bytes(rar_bytes(FILES, method=0x33))

    def missing(**_: bool) -> None:
        raise rarfile.RarCannotExec("no tool")

    monkeypatch.setattr(rarfile, "tool_setup", missing)
    with pytest.raises(ArchiveError, match="needs the program unrar or unar: install"):
        open_archive(path)
    monkeypatch.undo()
    (tmp_path / "solid.rar").write_bytes(rar_bytes(FILES, flags=0x8))
    with pytest.raises(ArchiveError, match="is a solid rar"):
        open_archive(tmp_path / "solid.rar")


def test_a_rar_without_rarfile_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rarfile", None)
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(ArchiveError, match=r"needs rarfile .* 'pip install \.\[rar\]'"):
        open_archive(tmp_path / "a.rar")

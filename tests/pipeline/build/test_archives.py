"""Sets built from an archive are those of the unpacked folder, byte for byte."""

import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_archives import KINDS, pack_tree
from made_builds import build, build_command, tree_bytes

from har.pipeline.build import load_rejects
from har.pipeline.cli import shards_main
from har.pipeline.dataset import DatasetError, find_videos
from har.pipeline.inspect import describe_build
from har.shards.storage import ArchiveError, gzip_stream


@pytest.mark.parametrize("kind", KINDS)
def test_the_set_of_an_archive_is_that_of_the_folder(
    few_videos: Path, few_built: Path, tmp_path: Path, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if kind == ".rar":
        pytest.importorskip("rarfile")
    monkeypatch.setattr(gzip_stream, "_POINT_BYTES", 10_000)
    path = pack_tree(few_videos, tmp_path / f"UCF101{kind}", top="UCF-101/")
    result = CliRunner().invoke(shards_main, build_command(path, tmp_path / "set")[3:])
    assert result.exit_code == 0, result.output
    assert "7 videos of 2 classes: about 96.8 kB" in result.output
    assert "6 clips of 6 videos" in result.output
    assert tree_bytes(tmp_path / "set") == tree_bytes(few_built)


def test_subsets_and_groups_are_found_by_the_names_inside(few_videos: Path, tmp_path: Path) -> None:
    path = pack_tree(few_videos / "Punch", tmp_path / "a.zip", top="train/Punch/")
    assert {video.subset for video in find_videos(path).videos} == {1}
    assert find_videos(path).grouping == "ucf101"


def test_what_an_archive_cannot_give_is_a_reject_or_is_named(
    few_videos: Path, tmp_path: Path
) -> None:
    path = pack_tree(few_videos, tmp_path / "a.zip")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"Punch/v_Punch_g02_c01.avi") + 2000
    raw[at] ^= 1
    path.write_bytes(raw)
    manifest = build(path, tmp_path / "set")
    reasons = {reject["key"]: reject["reason"] for reject in load_rejects(tmp_path / "set")}
    assert reasons["v_Punch_g02_c01"].startswith("it is damaged in the archive (")
    raw[at] ^= 1
    path.write_bytes(raw)
    assert manifest.rejects == 2
    assert build(path, tmp_path / "set").rejects == 1  # got once more, whole
    pack_tree(few_videos, path, top="../")
    with pytest.raises(DatasetError, match="no videos"):
        find_videos(path)
    both = pack_tree(few_videos, tmp_path / "b.tar", top="top/../")
    with pytest.raises(DatasetError, match="no videos"):
        find_videos(both)
    path = pack_tree(few_videos, tmp_path / "c.zip")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../out.avi", b"x")
    text = describe_build(build(path, tmp_path / "c"), tmp_path / "c")
    assert (
        "left out: files of the archive that are not read (its name leads out of the folder)"
        in text
    )
    assert "../out.avi" in text


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar.gz"])
def test_an_archive_that_is_none_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404</html>")
    with pytest.raises(ArchiveError, match="is damaged or no"):
        find_videos(tmp_path / name)
    with pytest.raises(ArchiveError, match="an archive behind a URL: download it"):
        find_videos(f"memory://x/{name}")

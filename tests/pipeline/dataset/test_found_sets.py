"""Sets that were built of what was found: names of any bytes, folders of images, what is said."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import made_videos
import pytest
from click.testing import CliRunner
from made_builds import build, build_command, tree_bytes, upload
from made_trees import touch

from har.pipeline.cli import shards_main
from har.shards.format import load_manifest


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(shards_main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/: a class and a video whose names are no UTF-8, a class list, files to leave out;
    set/: what is built of it by the command."""
    root = tmp_path_factory.mktemp("odd")
    plain = made_videos.write(root / "plain.avi", frames=8)
    odd_name = b"tea/x\xe9.txt"
    names = [b"caf\xe9/v\xff.avi", b"caf\xe9/bad\xff.avi", "tea/v.avi", odd_name]
    touch(root / "videos", *names)
    for path in (root / "videos").rglob("v*.avi"):
        path.write_bytes(plain.read_bytes())
    (root / "videos" / "classInd.txt").write_text("1 tea\n2 milk\n3 caf\\xe9\n")
    command = build_command(root / "videos", root / "set")
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    (root / "said").write_bytes(done.stdout)
    return root


def test_names_that_are_no_utf_8_are_built_and_said(odd: Path) -> None:
    said = (odd / "said").read_text(encoding="utf-8")
    assert "2 clips of 2 videos" in said
    assert "  caf\\xe9/bad\\xff.avi: it cannot be decoded" in said
    suffixes = "left out: files without a video's suffix (.txt 1), 1 in all: "
    assert f"{suffixes}tea/x\\xe9.txt" in said
    assert "no clip: 1 of the 3 classes: milk" in said
    manifest = load_manifest(odd / "set")
    assert manifest.classes == ("tea", "milk", "caf\\xe9")
    info = _run("info", odd / "set")
    assert {line for line in said.splitlines() if line[:8] in ("left out", "no clip:")} <= set(
        info.splitlines()
    )
    _run("preview", odd / "set", "-o", odd / "sheet.png", "--class", "caf*")
    _run("verify", odd / "set")
    (reject,) = map(json.loads, (odd / "set" / "rejects.jsonl").read_text().splitlines())
    assert (
        reject["path"].encode().decode("unicode_escape").encode("latin-1") == b"caf\xe9/bad\xff.avi"
    )


def test_a_set_that_leaves_nothing_out_has_no_notes(tmp_path: Path) -> None:
    made_videos.tree(tmp_path / "videos", groups=1, clips=1)
    build(tmp_path / "videos", tmp_path / "set")
    names = {"index.npy", "manifest.json", "rejects.jsonl", "shard-000000.tar", "shard-000001.tar"}
    assert set(tree_bytes(tmp_path / "set")) - {"classes.txt"} == names
    for text in ("[", "[]"):
        (tmp_path / "set" / "notes.json").write_text(text)
        done = CliRunner().invoke(shards_main, ["info", str(tmp_path / "set")])
        assert (done.exit_code, "notes.json is damaged" in done.output) == (2, True)


def test_folders_of_images_are_built_alike_from_a_folder_a_url_and_an_archive(
    tmp_path: Path,
) -> None:
    videos = tmp_path / "videos"
    for number, name in enumerate(("swipe/12", "swipe/7", "push/9")):
        made_videos.write_images(videos / name, 6, "{:05d}.jpg", seed=100 * number)
    manifest = build(videos, tmp_path / "set")
    assert (manifest.classes, sorted(manifest.keys())) == (("push", "swipe"), ["12", "7", "9"])
    assert manifest.index["decoded"].tolist() == [6, 6, 6]
    expected = tree_bytes(tmp_path / "set")
    assert b'"source": "push/9/"' in b"".join(expected.values())
    with zipfile.ZipFile(tmp_path / "videos.zip", "w") as archive:
        for path in videos.rglob("*.jpg"):
            archive.write(path, f"top/{path.relative_to(videos)}")
    upload(videos, "memory://images")
    for number, place in enumerate((tmp_path / "videos.zip", "memory://images")):
        build(place, tmp_path / f"set{number}")
        assert tree_bytes(tmp_path / f"set{number}") == expected

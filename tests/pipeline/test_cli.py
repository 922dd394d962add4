"""The commands as a user types them: text, exit codes, nothing lost."""

from pathlib import Path

import made_videos
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from har.pipeline.cli import shards_main


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(shards_main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/ (2 classes x 3 groups), set/ built of it."""
    root = tmp_path_factory.mktemp("cli")
    for name in ("Punch", "YoYo"):
        for group in (1, 2, 3):
            path = root / "videos" / name / f"v_{name}_g{group:02d}_c01.avi"
            made_videos.write(path, seed=group, frames=12)
    built = _run("build", root / "videos", "--out", root / "set", "--frames", 4, "--size", "24x32")
    assert built.exit_code == 0, built.output
    assert "6 clips of 6 videos in 6 shards" in built.output
    return root


def test_colons_in_names_are_no_protocols(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path, and a URL's scheme before the colon, would be the worst."""
    monkeypatch.chdir(tmp_path)
    source = next((folder / "videos").rglob("*.avi"))
    for name in ("2024-08-20T13:28:35Z", "http:b"):
        video = Path("videos:1", "Yo:Yo", f"{name}.avi")
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(source.read_bytes())
    built = _run("build", "videos:1", "--out", "set:1", "--frames", 4, "--size", "24x32")
    assert built.exit_code == 0, built.output
    assert "2 clips of 2 videos" in built.output


def test_info_says_what_a_set_is(folder: Path) -> None:
    said = _run("info", folder / "set")
    assert said.exit_code == 0
    for part in (
        "4 frames of 24x32x3",
        "frames 4, rule paper",
        "6 (ucf101)",
        "av ",
        "grouped",
        "fold-I/K",
    ):
        assert part in said.output
    split = _run("info", folder / "set", "--split", "grouped")
    assert "leak: 0.0% of the test clips" in split.output
    assert split.output.splitlines()[-2].split() == ["all", *["2", "33.3%"] * 3]
    assert _run("info", folder / "set", "--split", "csv").exit_code == 2
    unknown = _run("info", folder / "set", "--split", "mine")
    assert (unknown.exit_code, "grouped" in unknown.output) == (2, True)


def test_verify_names_the_fault_and_fails(folder: Path) -> None:
    for way in ("--quick", "--full"):
        assert _run("verify", folder / "set", way).exit_code == 0
    path = folder / "set" / "shard-000003.tar"
    raw = path.read_bytes()
    path.write_bytes(raw[:700] + bytes([raw[700] ^ 4]) + raw[701:])
    said = _run("verify", folder / "set")
    path.write_bytes(raw)
    assert said.exit_code == 1
    assert "shard-000003.tar, sample v_YoYo_g02_c01, byte 640: pixels do not match" in said.output


def test_preview_draws_classes_and_keys(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    assert _run("preview", folder / "set", "-o", out).exit_code == 0
    with Image.open(out) as picture:
        assert picture.size == (4 * (32 + 2), 6 * (24 + 14 + 2))
    assert _run("preview", folder / "set", "-o", out, "--class", "Y*", "--rows", 2).exit_code == 0
    with Image.open(out) as picture:
        assert picture.height == 2 * 40
    none = _run("preview", folder / "set", "-o", out, "--key", "nothing*")
    assert (none.exit_code, "keys are like" in none.output) == (2, True)
    bad = _run("preview", folder / "set", "-o", tmp_path / "sheet.nonsense")
    assert (bad.exit_code, "try a .png" in bad.output) == (2, True)


def test_synthetic_writes_videos(tmp_path: Path) -> None:
    said = _run("synthetic", tmp_path, "--groups", 1, "--clips", 1)
    assert said.exit_code == 0
    assert "6 videos of 6 classes" in said.output
    assert len(list(tmp_path.rglob("v_*_g01_c01.avi"))) == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--size", "huge"], "height x width"),
        (["--frames", "0"], "--frames 0 is not in 1..1024"),
        (["--shard-size", "lots"], "64MB"),
        (["--clips", "3"], "needs '--sampling dense'"),
        (["--frames", "8"], "frames: 4 there, 8 now"),
        (["--group-regex", "x"], "finds no group"),
        (["--classes", "none.txt"], "none.txt cannot be read"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    folder: Path, options: list[str], says: str
) -> None:
    said = _run("build", folder / "videos", "--out", folder / "set", *options)
    assert said.exit_code == 2
    assert says in said.output
    assert said.output.startswith("Error: ")
    assert len(said.output.strip().splitlines()) == 1


def test_missing_videos_say_where_to_get_them_and_missing_sets_how_to_build(tmp_path: Path) -> None:
    said = _run("build", tmp_path / "UCF-101", "--out", tmp_path / "set")
    assert said.exit_code == 2
    assert "Center for Research in Computer Vision" in said.output
    assert not (tmp_path / "set").exists()
    for command in ("info", "verify", "preview"):
        said = _run(command, tmp_path / "set")
        assert (said.exit_code, "make shards" in said.output) == (2, True)

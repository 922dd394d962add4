"""har-predict as a command: its forms of output, its files, and what it refuses."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from click.testing import Result
from made_predictor import CLASSES, make_video_run
from PIL import Image
from tiny_train import run_command

from har.training.cli.results import predict_main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video_run(tmp_path_factory.mktemp("answers") / "a")


@pytest.fixture
def videos(synthetic_videos: Path) -> list[str]:
    return [str(path) for path in sorted(synthetic_videos.rglob("*.avi"))[:2]]


def _predict(run: Path, *words: object) -> Result:
    return run_command(predict_main, run, *words)


def _rows(told: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(told.stdout)))


def test_csv_has_a_row_for_each_class_and_for_each_broken_video(run: Path, videos: list, tmp_path):
    broken = tmp_path / "broken, with a comma.avi"
    broken.write_text("")
    told = _predict(run, "--csv", "--top", 2, broken, *videos)
    assert told.exit_code == 1
    rows = _rows(told)
    assert [row["video"] for row in rows] == [str(broken), *[v for v in videos for _ in range(2)]]
    assert rows[0]["error"] == f"{broken} is empty: 0 bytes."
    as_json = json.loads(_predict(run, "--json", "--top", 2, videos[0]).stdout)[0]["top"]
    for row, one, rank in zip(rows[1:3], as_json, "12", strict=True):
        assert (row["class"], row["rank"], row["start"]) == (one["class"], rank, "")
        assert float(row["probability"]) == pytest.approx(one["probability"], abs=1e-6)


def test_windows_as_json_csv_and_text_are_the_same_answers(run: Path, videos: list):
    given = ["--window", 0.8, "--top", 1, videos[0]]
    found = json.loads(_predict(run, "--json", *given).stdout)[0]
    rows = _rows(_predict(run, "--csv", *given))
    assert len(found["windows"]) == len(rows) > 2
    for one, row in zip(found["windows"], rows, strict=True):
        assert float(row["start"]) == one["start"]
        assert row["class"] == one["top"][0]["class"]
    text = _predict(run, *given).stdout.splitlines()
    assert text[0] == videos[0]
    assert len(text) == 2 + len(found["timeline"])
    assert found["timeline"][0]["start"] == 0
    assert found["timeline"][-1]["end"] == found["windows"][-1]["end"]
    assert {piece["class"] for piece in found["timeline"]} <= set(CLASSES)


def test_all_files_are_written_for_one_video(run: Path, videos: list, tmp_path: Path):
    files = [tmp_path / name for name in ("t.png", "a.mp4", "c.gif")]
    told = _predict(
        run, "--window", 0.8, "--timeline", files[0], "--annotate", files[1], "--cam", files[2],
        videos[0],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "c.gif", "t.png"]
    for path in (files[0], files[2]):
        Image.open(path).close()
    with av.open(str(files[1])) as video:
        assert sum(1 for _ in video.decode(video=0)) >= 40


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_colon_in_a_name_is_no_protocol(
    run: Path, videos: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_folder: bool
):
    monkeypatch.chdir(tmp_path)
    name, out = "2024-08-20T13:28:35Z.avi", "http:x.mp4"
    Path(name).write_bytes(Path(videos[0]).read_bytes())
    options = ["--json", "--window", 0.8, "--annotate", out]
    told = _predict(run, *options, "." if as_folder else name)
    assert told.exit_code == 0, told.output
    expected = _predict(run, "--json", "--window", 0.8, videos[0])
    answer, expected_answer = (json.loads(result.stdout)[0] for result in (told, expected))
    assert answer["top"] == expected_answer["top"]
    assert Path(out).stat().st_size > 0


def test_several_videos_write_into_a_folder(run: Path, videos: list, tmp_path: Path):
    told = _predict(run, "--cam", tmp_path / "maps", *videos)
    assert told.exit_code == 0, told.output
    assert sorted(p.stem for p in (tmp_path / "maps").iterdir()) == [Path(v).stem for v in videos]


def test_a_broken_video_has_no_picture_and_the_others_have(run: Path, videos: list, tmp_path):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(b"RIFF")
    told = _predict(run, "--annotate", tmp_path / "out", "--window", 1, cut, videos[0])
    assert told.exit_code == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{Path(videos[0]).stem}.mp4"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], "there is nothing to predict"),
        (["--json", "--csv", "x.avi"], "exclude each other"),
        (["--hop", "1", "x.avi"], "--hop is about windows: add --window"),
        (["--timeline", "t.png", "x.avi"], "--timeline is about windows"),
        (["--window", "-1", "x.avi"], "--window -1 does not work"),
        (["--annotate", "a.mp4", "x.avi", "y.avi"], "one file for 2 videos: give a folder"),
        (["--annotate", "out", "a/x.avi", "b/x.avi"], "have the same name"),
        (["--annotate", "x.avi", "x.avi"], "is one of the videos"),
        (["--annotate", "x.txt", "x.avi"], "end it in .mp4"),
        (["--cam", "x.mp4", "x.avi"], "end it in .gif"),
        (["--window", "1", "--timeline", "x.mp4", "x.avi"], "end it in .png or .svg"),
        (["--top", "0", "x.avi"], "'--top': 0 is not in the range x>=1"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(run: Path, given: list, text: str):
    told = _predict(run, *given)
    assert told.exit_code == 2
    assert text in told.output
    assert "Traceback" not in told.output


def test_names_that_are_no_utf_8_and_folders_of_images_are_videos(
    run: Path, videos: list, tmp_path: Path
):
    odd = tmp_path / "a" / "caf\udce9.avi"
    odd.parent.mkdir()
    odd.write_bytes(b"")
    frames = tmp_path / "b" / "12"
    frames.mkdir(parents=True)
    with av.open(videos[0]) as container:
        for number, frame in enumerate(container.decode(video=0)):
            frame.to_image().save(frames / f"{number:05d}.png")
    for form in ("--json", "--top=3"):
        told = _predict(run, form, tmp_path, videos[0])
        assert told.exit_code == 1, told.output
        assert "caf\\xe9.avi is empty: 0 bytes." in told.stderr
        assert str(frames) in told.stdout
        if form == "--json":
            first, *answers = json.loads(told.stdout)
            assert first["video"] == f"{tmp_path}/a/caf\\xe9.avi"
            assert answers[0]["top"] == answers[1]["top"]  # the video's own frames, without loss
    code = "from har.training.cli.results import predict_main as main; main()"
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    printed = subprocess.run(
        [sys.executable, "-c", code, run, "--csv", odd], capture_output=True, env=environment
    )
    assert (printed.returncode, b"caf\\xe9.avi is empty: 0 bytes." in printed.stdout) == (1, True)
    picture = tmp_path / "t.png"
    told = _predict(run, "--window", 0.5, "--timeline", picture, "--csv", frames)
    assert (told.exit_code, picture.exists()) == (0, True), told.output
    assert {row["video"] for row in _rows(told)} == {str(frames)}

"""har-predict among other programs: standard input, files, thresholds, timing, hostile use."""

import csv
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import Result
from made_predictor import make_video_run
from made_server import serving
from made_videos import write
from tiny_train import run_command

from har.progress import ProgressBar
from har.training.cli.results import predict_main
from har.training.inference import video_source
from har.training.prediction import command, pictures, results

COMMAND = "from har.training.cli.results import predict_main as main; main()"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video_run(tmp_path_factory.mktemp("hand") / "a")


@pytest.fixture(scope="module")
def videos(synthetic_videos: Path) -> list[Path]:
    return sorted(synthetic_videos.rglob("*.avi"))[:2]


def _predict(run: Path, *given: object, stdin: bytes | None = None) -> Result:
    return run_command(predict_main, run, *given, input=stdin)


def _process(run: Path, *given: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", COMMAND, run, *map(str, given)]
    return subprocess.run(command, stderr=subprocess.PIPE, check=False, **options)


def _top(told: Result) -> list[dict]:
    assert told.exit_code == 0, told.output
    return json.loads(told.stdout)[0]["top"]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("kind", ["mpeg4_b.avi", "mpeg4.mp4", "mpeg4.mkv"])
def test_standard_input_is_answered_as_the_file_and_leaves_nothing(
    run: Path, tmp_path: Path, scratch: Path, kind: str
):
    video = write(tmp_path / kind, kind)  # the index of an mp4 stands at its end
    if kind.endswith("mp4"):
        assert video.read_bytes().index(b"moov") > video.read_bytes().index(b"mdat")
    told = _predict(run, "--json", "-", stdin=video.read_bytes())
    assert _top(told) == _top(_predict(run, "--json", video))
    assert json.loads(told.stdout)[0]["video"] == "-"
    assert list(scratch.iterdir()) == []


def test_a_pipe_that_cannot_seek_names_its_pictures_stdin(
    run: Path, videos: list[Path], tmp_path: Path
):
    with subprocess.Popen(["cat", videos[0]], stdout=subprocess.PIPE) as source:
        told = _process(run, "--csv", "--cam", tmp_path / "maps", "-", stdin=source.stdout)
    assert told.returncode == 0, told.stderr
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["stdin.gif"]


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        (b"", [], "standard input is empty: 0 bytes."),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", [], "it is no video that can be read here"),
        (bytes(1_500_000), ["--max-mb", 1], "it is larger than 1 MB (--max-mb)"),
        (None, [], "standard input is empty: 0 bytes."),
    ],
)
def test_standard_input_without_a_video_is_one_sentence(
    run: Path, scratch: Path, data: bytes | None, options: list, text: str
):
    told = _predict(run, *options, "-", stdin=data)
    assert told.exit_code == 1
    assert text in told.output
    assert list(scratch.iterdir()) == []


def test_faults_of_standard_input_never_name_the_temporary_file(
    run: Path, tmp_path: Path, scratch: Path
):
    song = tmp_path / "song.mp4"
    with av.open(str(song), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        tone = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), "fltp")
        tone.sample_rate = 44100
        out.mux(stream.encode(tone))
        out.mux(stream.encode())
    half = write(tmp_path / "v.mp4", "mpeg4.mp4").read_bytes()
    for data, fault in (
        (song.read_bytes(), "has no video stream."),
        (half[: len(half) // 2], "is cut off: its index (moov), which a camera writes last, is"),
    ):
        told = _predict(run, "-", stdin=data)
        assert f"standard input {fault}" in told.stderr
        assert str(scratch) not in told.output


def test_no_standard_input_and_a_terminal_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video_source.sys, "stdin", None)
    with pytest.raises(video_source.PredictionError, match="no file comes in there"):
        video_source.find_videos(["-"])


def test_a_full_temporary_folder_is_named(
    run: Path, videos: list[Path], scratch: Path, monkeypatch
):
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video_source, "_read_stdin", full)
    told = _predict(run, "-", stdin=videos[0].read_bytes())
    assert told.exit_code == 1
    assert f"in the folder of temporary files {scratch}: TMPDIR sets another" in told.output


@pytest.mark.parametrize("fault", ["stall", "hold"])
def test_a_url_that_never_answers_ends_after_the_time_that_is_stated(
    run: Path, videos: list[Path], tmp_path: Path, scratch: Path, fault: str
):
    (tmp_path / "a.avi").write_bytes(videos[0].read_bytes())
    with serving(tmp_path) as server:
        server.faults["a.avi"] = [fault]
        told = _predict(run, "--timeout", 1, f"{server.url}/a.avi")
        assert server.asked["a.avi"] <= 1  # no further try
    assert told.exit_code == 1
    assert f"{server.url}/a.avi was not predicted: no byte of it came for 1 s (--timeout)." in (
        told.output
    )


def test_a_slow_url_is_no_silent_one(run: Path, videos: list[Path], tmp_path: Path):
    (tmp_path / "a.avi").write_bytes(videos[0].read_bytes())
    with serving(tmp_path) as server:
        server.faults["a.avi"] = ["slow"]
        told = _predict(run, "--json", "--timeout", 20, f"{server.url}/a.avi")
    assert _top(told) == _top(_predict(run, "--json", videos[0]))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_file_holds_the_answers_and_standard_output_nothing(
    run: Path, videos: list[Path], tmp_path: Path, suffix: str
):
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"")
    out = tmp_path / "new" / f"answers.{suffix.upper()}"
    told = _predict(run, "-o", out, "--top", 1, videos[0], broken)
    assert (told.exit_code, told.stdout) == (1, "")
    assert f"{out}: 2 videos, 1 of them without an answer" in told.stderr
    expected = json.loads(_predict(run, "--json", "--top", 1, videos[0], broken).stdout)
    if suffix == "csv":
        rows = list(csv.DictReader(io.StringIO(out.read_text())))
        assert [row["video"] for row in rows] == [entry["video"] for entry in expected]
        assert rows[0]["class"] == expected[0]["top"][0]["class"]
    elif suffix == "json":
        assert json.loads(out.read_text()) == expected
    else:
        assert list(map(json.loads, out.read_text().splitlines())) == expected
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_broken_off_list_leaves_the_file_as_it_was(
    run: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "a.jsonl"
    out.write_text("before")
    monkeypatch.setattr(results.VideoPrediction, "messages", property(lambda _: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        command.predict_videos(run, videos, out=out)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.jsonl", "before")]


def test_what_a_file_cannot_be_is_said_before_anything_is_predicted(
    run: Path, videos: list[Path], tmp_path: Path
):
    folder = tmp_path / "x.csv"
    folder.mkdir()
    image = tmp_path / "video.csv"
    image.write_bytes(videos[0].read_bytes())
    for options, text in [
        (["-o", "x.txt"], "-o x.txt cannot be written: end it in .csv, .json or .jsonl"),
        (["-o", "/dev/full"], "-o /dev/full cannot be written: end it in"),
        (["-o", "x.csv", "--json"], "-o x.csv is csv: leave --json out"),
        (["-o", folder], "cannot be written (it is a folder)"),
        (["-o", videos[0] / "x.csv"], "c01.avi is no folder)"),
        (["-o", image, image], "is one of the videos: give another name"),
        (["-o", "x.json", "--threshold", "1.5"], "--threshold 1.5 is no probability"),
        (["-o", "x.json", "--threshold", "nan"], "--threshold nan is no probability"),
    ]:
        told = _predict(run, *options, videos[0])
        assert (told.exit_code, told.stdout) == (2, ""), told.output
        assert text in told.stderr
    assert image.read_bytes() == videos[0].read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("form", "unbuffered"),
    [("--json", "1"), *(pytest.param(f, "", marks=pytest.mark.slow) for f in ("--csv", "--top=2"))],
)
def test_a_full_disk_under_standard_output_is_one_sentence(
    run: Path, videos: list[Path], form: str, unbuffered: str
):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        told = _process(run, form, videos[0], stdout=full, env=environment)
    assert told.returncode == 2
    assert told.stderr.decode().splitlines()[-1] == (
        "Error: standard output cannot be written (No space left on device): give it a place with "
        "room."
    )


@pytest.mark.parametrize(
    ("form", "unbuffered"),
    [("--top=2", "1"), *(pytest.param(f, "", marks=pytest.mark.slow) for f in ("--json", "--csv"))],
)
def test_a_reader_that_goes_away_is_no_news(
    run: Path, videos: list[Path], form: str, unbuffered: str
):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        told = _process(run, form, *videos, stdout=closed, env=environment)
    assert told.returncode == 1
    assert [line.split()[0] for line in told.stderr.decode().splitlines()] == ["checkpoint:"]


@pytest.mark.parametrize("option", ["annotate", "cam", "timeline", "out"])
def test_a_full_disk_under_a_file_is_one_sentence(
    run: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
):
    suffix = {"annotate": "mp4", "cam": "gif", "timeline": "png", "out": "json"}[option]
    out = tmp_path / f"x.{suffix}"
    out.with_name(f".{out.name}.tmp").symlink_to("/dev/full")
    told = _predict(run, f"--{option}", out, "--window", 1, videos[0])
    assert told.exit_code == 2
    assert str(out) in told.stderr
    assert "cannot be written (No space left on device" in told.stderr
    assert "try .mp4" not in told.stderr
    assert not out.exists()


def test_a_threshold_says_unknown_and_keeps_the_probabilities(
    run: Path, videos: list[Path], tmp_path: Path
):
    plain = json.loads(_predict(run, "--json", "--window", 0.8, videos[0]).stdout)[0]
    best = max(window["top"][0]["probability"] for window in plain["windows"])
    options = ["--window", 0.8, "--threshold"]
    low = json.loads(_predict(run, "--json", *options, 0, videos[0]).stdout)[0]
    high = json.loads(_predict(run, "--json", *options, best, videos[0]).stdout)[0]
    all_unknown = json.loads(_predict(run, "--json", *options, 1, videos[0]).stdout)[0]
    assert "label" not in plain
    for entry in (low, high, all_unknown):
        assert entry["top"] == plain["top"]
        assert [w["top"] for w in entry["windows"]] == [w["top"] for w in plain["windows"]]
    assert low["label"] == plain["top"][0]["class"]
    assert [(s["start"], s["end"], s["label"]) for s in low["timeline"]] == [
        (s["start"], s["end"], s["class"]) for s in plain["timeline"]
    ]
    labels = [window["label"] for window in high["windows"]]
    assert labels.count("unknown") < len(labels)  # the best reaches it
    for window in high["windows"]:
        first = window["top"][0]
        known = first["probability"] >= best
        assert window["label"] == (first["class"] if known else "unknown")
    assert {s["label"] for s in all_unknown["timeline"]} == {"unknown"}
    assert len(all_unknown["timeline"]) <= len(plain["timeline"])
    rows = list(csv.DictReader(io.StringIO(_predict(run, "--csv", *options, 1, videos[0]).stdout)))
    assert {row["label"] for row in rows} == {"unknown"}
    assert all(row["class"] != "unknown" for row in rows)
    text = _predict(run, *options, 1, videos[0]).stdout.splitlines()
    assert text[1] == "  unknown"
    assert "s  unknown  0." in text[-1]


@pytest.mark.parametrize("window", [[], ["--window", 0.8]])
def test_timing_says_the_stages_of_each_video_and_their_mean(
    run: Path, videos: list[Path], window: list
):
    told = _predict(run, "--json", "--timing", *window, *videos)
    entries = json.loads(told.stdout)
    assert [set(entry["milliseconds"]) for entry in entries] == [{"open", "decode", "model"}] * 2
    assert all(value > 0 for entry in entries for value in entry["milliseconds"].values())
    means = [sum(e["milliseconds"][s] for e in entries) / 2 for s in ("open", "decode", "model")]
    expected = "mean of 2 videos: open {:.1f} ms, decode {:.1f} ms, model {:.1f} ms"
    assert told.stderr.splitlines()[-1] == expected.format(*means)
    rows = list(csv.DictReader(io.StringIO(_predict(run, "--csv", "--timing", *videos).stdout)))
    assert all(float(row["decode_ms"]) > 0 for row in rows)
    assert "ms, model" in _predict(run, "--timing", videos[0]).stdout.splitlines()[-1]
    assert "milliseconds" not in _predict(run, "--json", videos[0]).stdout


def test_a_log_file_gets_a_line_every_so_often_and_one_video_none(
    run: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
):
    class Often(ProgressBar):
        def __init__(self, *given: object, **options: object) -> None:
            super().__init__(*given, log_every=1e-9, **options)

    monkeypatch.setattr(command, "ProgressBar", Often)
    told = _predict(run, *videos)
    assert "predict: 2/2" in told.stderr
    assert "predict" not in told.stdout
    assert "predict:" not in _predict(run, videos[0]).stderr


def test_a_terminal_shows_a_bar_that_no_answer_runs_into(run: Path, videos: list[Path]):
    termios = pytest.importorskip("termios")
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    command = [sys.executable, "-c", COMMAND, run, *map(str, videos)]
    with subprocess.Popen(command, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:
                break
            if not block:
                break
            shown += block
    os.close(master)
    assert process.returncode == 0, shown
    text = shown.decode()
    assert "predict:" in text
    assert "0/2" in text
    for video in videos:  # at the beginning of a line, or of one that was cleared
        before = text[: text.index(f"{video}\r\n")]
        assert before.rpartition("\r")[2].strip() in ("", "\n"), repr(before[-80:])


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root reads everything")
def test_files_that_may_not_be_read_are_said(run: Path, videos: list[Path], tmp_path: Path):
    secret = tmp_path / "secret.avi"
    secret.write_bytes(b"")
    secret.chmod(0)
    assert "secret.avi cannot be decoded (Permission denied)" in _predict(run, secret).output


def test_what_is_no_file_is_said(run: Path, tmp_path: Path):
    pipe = tmp_path / "pipe.avi"
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    for path, text in [
        (pipe, "is not a regular file"),
        (tmp_path / "missing.avi", "cannot be decoded (No such file or directory)"),
        (tmp_path, "pipe.avi is not a regular file"),
    ]:
        told = _predict(run, path)
        assert told.exit_code == 1
        assert text in told.stderr
    (tmp_path / "nothing").mkdir()
    told = _predict(run, tmp_path / "nothing")
    assert (told.exit_code, "there is no video in" in told.stderr) == (2, True)


def test_a_picture_that_may_not_be_written_is_one_sentence(
    run: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pictures, "write_atomically", refuse)
    told = _predict(run, "--cam", tmp_path / "x.gif", videos[0])
    assert told.exit_code == 2
    assert "x.gif cannot be written (Permission denied): give a place" in told.stderr

"""har-predict on URLs: the answer of the same file, within limits of size and time."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from click.testing import Result
from made_predictor import make_video_run
from made_rtsp import camera
from made_server import s3, serving
from made_videos import encode, ffmpeg, needs_ffmpeg
from tiny_train import run_command

from har.shards import storage
from har.shards.storage import remote_folder
from har.training.cli.results import predict_main
from har.training.inference import video_source
from har.training.inference.uploaded_video import UploadLimits
from har.training.inference.video_source import local_file

pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video_run(tmp_path_factory.mktemp("url") / "a")


@pytest.fixture
def video(synthetic_videos: Path, tmp_path: Path) -> Path:
    path = tmp_path / "files" / "clip.avi"
    path.parent.mkdir()
    shutil.copy(sorted(synthetic_videos.rglob("*.avi"))[0], path)
    return path


def predict(run: Path, *given: object) -> Result:
    return run_command(predict_main, run, *given)


def answers(told: Result) -> list[dict]:
    return [{**entry, "video": ""} for entry in json.loads(told.stdout)]


@pytest.mark.parametrize("kind", ["http", "http with a query", "s3", "file"])
def test_a_url_gives_the_answer_of_its_file(run: Path, video: Path, tmp_path: Path, kind: str):
    options = ["--json", "--window", 0.8, "--annotate", tmp_path / "out"]
    expected = answers(predict(run, *options, video))
    shutil.rmtree(tmp_path / "out")
    if kind == "s3":
        pytest.importorskip("s3fs")
        with s3("videos"):
            storage.open_folder("s3://videos").write("clip.avi", video.read_bytes())
            told = predict(run, *options, "s3://videos/clip.avi")
    elif kind == "file":
        told = predict(run, *options, video.as_uri())
    else:
        with serving(video.parent) as server:
            query = "?key=a/b" if "query" in kind else ""
            url = f"{server.url}/clip.avi{query}"
            told = predict(run, *options, url)
            assert json.loads(told.stdout)[0]["video"] == url
    assert told.exit_code == 0, told.output
    assert answers(told) == expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("clip.avi", ["--max-seconds", 1], "was not predicted: it is longer than 1 s"),
        ("large.avi", ["--max-mb", 1], "was not predicted: it is larger than 1 MB (--max-mb)"),
        ("list.m3u8", [], "was not predicted: it is no video that can be read here"),
        ("missing.avi", [], "missing.avi cannot be fetched"),
        ("cut.avi", [], "cut.avi is cut off"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence_that_names_the_url(
    run: Path, video: Path, name: str, options: list, text: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_folder, "PAUSE", 0.01)
    data = video.read_bytes()
    (video.parent / "large.avi").write_bytes(data + bytes(2_000_000))
    (video.parent / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:10,\nfile://{video}\n")
    (video.parent / "cut.avi").write_bytes(data[: len(data) // 2])
    with serving(video.parent) as server:
        told = predict(run, "--json", *options, f"{server.url}/{name}", video)
    assert told.exit_code == 1
    bad, good = json.loads(told.stdout)
    assert text in bad["error"]
    assert f"{server.url}/{name}" in bad["error"]
    assert "har-" not in bad["error"].replace("har-predict", "")
    assert good["top"]


@needs_ffmpeg
def test_a_live_stream_is_recorded_for_its_seconds(run: Path, tmp_path: Path):
    video = encode(tmp_path / "yard.mp4", ["-c:v", "libx264", "-g", "12", "-bf", "0"], frames=50)
    with camera(video) as url:
        with local_file(url, UploadLimits(max_seconds=2)) as (path, notes):
            with av.open(str(path)) as container:
                times = [frame.time for frame in container.decode(video=0)]
            assert times[-1] - times[0] < 2
            assert len(times) >= 25  # it begins at a key picture
        told = predict(run, "--json", "--max-seconds", 2, url)
    assert notes == ["only its beginning was recorded: --max-seconds and --max-mb set limits."]
    assert not path.exists()
    assert told.exit_code == 0, told.output
    (entry,) = json.loads(told.stdout)
    assert (entry["video"], entry["warnings"]) == (url, notes)


def test_a_camera_that_is_not_there_is_one_sentence(run: Path):
    told = predict(run, "rtsp://127.0.0.1:9/yard")
    assert told.exit_code == 1
    assert "rtsp://127.0.0.1:9/yard cannot be read (Connection refused)." in told.output


@pytest.mark.parametrize("words", [b"", b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: DESCRIBE\r\n\r\n"])
def test_a_camera_that_falls_silent_is_given_up_after_the_time_that_is_stated(
    run: Path, words: bytes
):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def answer() -> None:
            held.append(listener.accept()[0])  # and not another word
            held[0].sendall(words)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/yard"
        told = predict(run, "--timeout", 1, url)
        thread.join()
        held[0].close()
    assert told.exit_code == 1
    text = f"{url} was not predicted: no byte of it came for 1 s (--timeout)."
    assert text in told.output


def test_a_stream_without_a_key_picture_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packets = [SimpleNamespace(pts=n, dts=n, is_keyframe=False) for n in range(9)]
    live = SimpleNamespace(
        streams=SimpleNamespace(best=lambda _: "video"), demux=lambda _: iter(packets)
    )
    file = SimpleNamespace(add_stream_from_template=lambda _: None)
    limits = UploadLimits(max_seconds=1, silent_seconds=1)
    now = iter([0.5, 1.5, 2.5])  # seconds; a fourth packet is not looked at
    monkeypatch.setattr(video_source.time, "monotonic", lambda: next(now))
    assert video_source._copy_stream("rtsp://yard", live, file, limits, [0.0]) is False


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with videos and other things in it."""
    monkeypatch.chdir(tmp_path)
    videos = ("a/deep/2.avi", "a/deep/1.MP4", "b.mkv", "clip[1].avi")
    others = ("a/a.txt", "a/b.TXT", "a/c.srt", "a/.hidden.avi", "a/.cache/x.avi", "a/cover.jpg")
    for name in videos + others:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("a/empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "videos", "num_twice"),
    [
        (["b.mkv", "a"], ["b.mkv", "a/deep/1.MP4", "a/deep/2.avi"], 0),
        (["a/**/*.avi", "a/deep/2.avi"], ["a/deep/2.avi"], 1),
        (["b.mkv", "./b.mkv", "{root}/b.mkv"], ["b.mkv"], 2),
        (["clip[1].avi"], ["clip[1].avi"], 0),  # looks like a glob
        (["missing.avi"], ["missing.avi"], 0),
        (["[a-b]*"], ["a/deep/1.MP4", "a/deep/2.avi", "b.mkv"], 0),  # a glob of a folder, too
    ],
    ids=str,
)
def test_files_folders_and_globs_are_found_once_and_in_order(
    tree: Path, capsys: pytest.CaptureFixture, names: list, videos: list, num_twice: int
):
    found = video_source.find_videos([name.format(root=tree) for name in names])
    assert list(map(str, found)) == videos
    told = capsys.readouterr().err
    text = f"named twice, and predicted once: {num_twice} of the videos"
    assert (text in told) == (num_twice > 0)


def test_what_is_left_out_of_a_folder_is_counted_by_kind(tree: Path, capsys: pytest.CaptureFixture):
    video_source.find_videos(["a"])
    told = capsys.readouterr().err
    for text in (
        "left out: files without a video's suffix (.txt 2, .srt 1), 3 in all: a.txt, b.TXT, c.srt",
        "left out: images that are not the numbered frames of one video, 1 in all: cover.jpg",
        "left out: hidden files and folders, 2 in all: .cache/, .hidden.avi",
        "left out: folders without a video, 1 in all: empty/",
    ):
        assert f"a: {text}" in told


@pytest.mark.parametrize("name", ["a/empty", "*.wmv"])
def test_a_folder_or_glob_without_videos_is_an_error(tree: Path, name: str):
    with pytest.raises(video_source.PredictionError, match="there is no video in"):
        video_source.find_videos([name])


def test_what_is_taken_for_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("http:").mkdir()
    Path("http:/mine.avi").touch()
    names = ["rtsp://camera/", "https://host/a/b%20c.mp4?x=1", "http://mine.avi", "13:28:35Z.mp4"]
    videos = video_source.find_videos(names)
    assert videos == [*names[:2], Path("http:/mine.avi"), Path("13:28:35Z.mp4")]
    assert [video_source.name_of(video) for video in videos] == [
        "camera", "b c", "mine", "13:28:35Z",
    ]  # fmt: skip


@needs_ffmpeg
def test_several_video_streams_are_said_and_one_can_be_chosen(run: Path, tmp_path: Path):
    path = tmp_path / "two.mkv"
    sources = ["-f", "lavfi", "-i", "testsrc2=size=96x80:rate=25"]
    sources += ["-f", "lavfi", "-i", "color=red:size=192x160:rate=25"]
    ffmpeg(*sources, "-map", "0", "-map", "1", "-t", "1", "-c:v", "ffv1", path)
    single = tmp_path / "one.mkv"
    ffmpeg("-i", path, "-map", "0:1", "-c", "copy", single)
    for window in ([], ["--window", 0.5]):
        told = predict(run, "--json", *window, path)
        text = "it has several video streams (0, 1): 0 was taken, --stream chooses another."
        assert f"{path}: {text}" in told.stderr
        assert json.loads(told.stdout)[0]["warnings"] == [text]
        (other,) = answers(predict(run, "--json", *window, "--stream", 1, path))
        assert "1 was taken" in other.pop("warnings")[0]
        assert [other] == answers(predict(run, "--json", *window, single))
        missing = predict(run, *window, "--stream", 2, path)
        assert missing.exit_code == 1
        assert "two.mkv has no video stream 2: give one of 0, 1 as --stream" in missing.output


@needs_ffmpeg
def test_broken_time_stamps_are_said(run: Path, tmp_path: Path):
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for part, start in zip(parts, ("5000", "0"), strict=True):
        encode(part, ["-c:v", "mpeg2video", "-bf", "0", "-output_ts_offset", start], frames=50)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    told = predict(run, "--json", "--window", 2, "--hop", 2, joined)
    (entry,) = json.loads(told.stdout)
    text = "1 frame without a usable time stamp: the frame rate of the file gives it."
    assert entry["warnings"] == [text]
    assert f"{joined}: {text}" in told.stderr
    assert [(w["start"], w["end"]) for w in entry["windows"]] == [(0, 2), (2, 4)]

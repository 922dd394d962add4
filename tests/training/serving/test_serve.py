"""har-serve: a clip over real HTTP, and in a browser without a network; uploads that mean harm."""

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from chromium import Chromium, needs_chromium
from click.testing import CliRunner
from made_predictor import CLASSES, make_video_run
from page_server import FORM, Server, make_form, page_server

from har.pipeline.decode import DecoderProcess
from har.training.cli.results import serve_main
from har.training.inference.uploaded_video import decode_upload
from har.training.serving.video_service import VideoService

# Gradio and what it brings warn of each other's future at import
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with page_server(tmp_path_factory.mktemp("serve") / "x") as server:
        yield server


def _video(path: Path, frames: int, size: tuple[int, int] = (48, 64)) -> bytes:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((*size, 3), np.uint8), format="rgb24")
        for index in range(frames):
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path.read_bytes()


def test_a_clip_is_answered_as_har_predict_answers_and_leaves_no_file(
    server: Server, clip: bytes, tmp_path: Path
):
    (tmp_path / "swipe.avi").write_bytes(clip)
    predictor = server.service.predictor
    probabilities = predictor.predict_video(tmp_path / "swipe.avi")
    shares, html = server.answer("swipe.avi", clip)
    assert shares == pytest.approx(dict(predictor.top_classes(probabilities, 5)), abs=1e-5)
    assert set(shares) == set(CLASSES)
    assert html.count("data:image/png;base64,") == html.count("data:image/gif;base64,") == 1
    assert server.files() == []


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.avi", b""),
        ("text.mp4", b"hello " * 1000),
        ("picture.avi", b"\x89PNG\r\n\x1a\n" + bytes(300)),
        ("head.avi", b"RIFF\xff\xff\xff\x7fAVI LIST"),
        ("playlist.mp4", PLAYLIST),
        ("concat.mkv", b"ffconcat version 1.0\nfile /etc/passwd\n"),
    ],
)
def test_what_is_no_video_is_refused_in_one_sentence(server: Server, name: str, data: bytes):
    shares, html = server.answer(name, data)
    assert shares == {}
    reason = "empty: 0 bytes" if not data else "no video that can be read here"
    assert f"{name} was not predicted: it is {reason}." in html
    assert str(server.folder) not in html
    assert server.files() == []


def test_a_playlist_that_names_a_real_clip_is_not_followed(server: Server, clip: bytes, tmp_path):
    (tmp_path / "secret.avi").write_bytes(clip)
    script = f"ffconcat version 1.0\nfile '{tmp_path / 'secret.avi'}'\n".encode()
    assert server.answer("x.avi", script)[0] == {}


def test_a_cut_clip_is_refused_or_answered_but_never_breaks(server: Server, clip: bytes):
    for end in (100, 5_000, len(clip) // 2):
        server.answer("cut.avi", clip[:end])
    assert server.answer("whole.avi", clip)[0]
    assert server.files() == []


def test_long_wide_and_lying_videos_are_refused(server: Server, tmp_path: Path):
    data = _video(tmp_path / "a.avi", 520)
    assert "longer than 20 s" in server.answer("long.avi", data)[1]
    lying = bytearray(data)
    for header, offset in ((b"avih", 16), (b"strh", 32)):  # dwTotalFrames, dwLength
        start = data.index(header) + 8 + offset
        lying[start : start + 4] = (3).to_bytes(4, "little")
    assert "longer than 20 s" in server.answer("lie.avi", bytes(lying))[1]
    wide = _video(tmp_path / "b.avi", 1, (3200, 4096))
    assert "its frames are 4096x3200" in server.answer("wide.avi", wide)[1]
    assert server.files() == []


def test_a_body_that_is_too_large_or_says_no_length_never_reaches_the_disk(server: Server):
    large = {**FORM, "Content-Length": "2100000"}  # it is answered before the body comes
    response = server.request("POST", "/gradio_api/upload", b"", **large)
    assert response == (413, "The file is too large.")
    pieces = iter([make_form("a.avi", b"")[:-10], *(bytes(100_000) for _ in range(3))])
    try:
        status, _ = server.request("POST", "/gradio_api/upload", pieces, **FORM)
    except (BrokenPipeError, ConnectionResetError):
        status = 411  # it hung up before all was sent
    assert status == 411
    assert server.files() == []


@pytest.mark.parametrize("name", ["../../../etc/cron.d/x.avi", "C:\\\\temp\\\\x.avi", "/etc/x.avi"])
def test_a_clients_path_is_only_a_name_to_show(server: Server, clip: bytes, name: str):
    shares, html = server.answer(name, clip)
    assert shares
    assert re.sub(r"base64,[^\"]*", "", html).startswith("<p>x.avi</p>")
    assert server.files() == []


def test_a_name_with_markup_stays_text(server: Server):
    _, html = server.answer("<img src=x onerror=alert(1)>.avi", b"nothing")
    assert "<img src=x" not in html
    assert "was not predicted" in html


def test_only_an_uploaded_file_is_opened(server: Server, clip: bytes, tmp_path: Path):
    outside = tmp_path / "mine.avi"
    outside.write_bytes(clip)
    inside = server.service.upload_dir / "vibe" / ".." / ".." / "x.avi"
    for path in (outside, inside, "http://127.0.0.1/x.avi", ""):
        _, label, html = server.service.answer({"path": str(path), "orig_name": "x.avi"})
        assert (label, "send it again" in html) == (None, True)
    assert outside.exists()
    assert "choose a video first" in server.service.answer(None)[2]
    assert "send one of .avi" in server.answer("x.exe", clip)[1]


def test_other_sites_cannot_use_it(server: Server, clip: bytes):
    assert server.upload("a.avi", clip, Origin="https://evil.example")[0] == 403
    assert server.upload("a.avi", clip, Origin="null")[0] == 403
    assert server.request("GET", "/", Host="evil.example")[0] == 400
    assert server.request("GET", "/", Host=f"localhost:{server.port}")[0] == 200
    assert server.request("GET", "/gradio_api/file=/etc/passwd")[0] in (403, 404)
    assert server.files() == []


def test_a_decoder_that_takes_too_long_is_ended(server: Server, clip: bytes, monkeypatch):
    process = DecoderProcess(decode_upload, num_bytes=6 * 36 * 48 * 3, timeout=1e-6)
    monkeypatch.setattr(server.service, "_decoder", process)
    assert "was not predicted: no answer within 1e-06 s." in server.answer("a.avi", clip)[1]
    assert server.files() == []
    monkeypatch.undo()
    assert server.answer("a.avi", clip)[0]


def test_an_upload_that_nobody_asks_about_is_removed_later(server: Server, clip: bytes):
    assert server.upload("idle.avi", clip)[0] == 200
    server.answer("a.avi", clip)
    assert server.files() == ["idle.avi"]
    for path in server.service.upload_dir.iterdir():
        os.utime(path, (0, 0))
    server.answer("b.avi", b"nothing")
    assert server.files() == []


def test_the_folder_that_a_killed_server_left_is_removed_by_the_next(server: Server):
    left = server.folder / "har-serve-killed" / "har-serve-uploads"
    left.mkdir(parents=True)
    (left / "a.avi").touch()
    of_user = server.folder / "har-serve-results" / "uploads"
    of_user.mkdir(parents=True)
    VideoService(server.service.predictor).close()
    assert not left.parent.exists()
    of_user.rmdir()  # it is there, and the folder has to be empty at the end
    of_user.parent.rmdir()
    assert server.service.upload_dir.is_dir()  # of one that runs


_CUT = (
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",  # a camera that shows a test picture
    "--use-fake-ui-for-media-stream",
)
_CLICK = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() === '%s').click()"
_IS_THERE = "[...document.querySelectorAll('button')].some(b => b.innerText.trim() === '%s')"
_ANSWERED = "document.querySelectorAll('figure img').length === 2"


@needs_chromium
@pytest.mark.parametrize("width", [pytest.param(390, marks=pytest.mark.slow), 1280])
def test_a_browser_without_a_network_sends_a_clip_and_a_recording(
    server: Server, clip: bytes, tmp_path: Path, width: int
):
    video = tmp_path / "swipe.avi"
    video.write_bytes(clip)
    browser = Chromium(tmp_path / "profile", width, flags=_CUT)
    try:
        browser.go(f"http://127.0.0.1:{server.port}/")
        browser.wait("document.querySelector('input[type=file]') !== null")
        assert "ResNet3D answers with one of 3 classes." in browser.ask("document.body.innerText")
        browser.choose_file("input[type=file]", video)
        browser.wait(_ANSWERED, 120)
        assert browser.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        text = browser.ask("document.body.innerText")
        assert all(name in text for name in CLASSES)
        assert browser.ask("document.documentElement.scrollWidth") == width
        browser.ask("document.querySelector('figure').remove()")
        browser.ask("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
        for name, seconds in (("Click to Access Webcam", 1), ("Record", 1), ("Stop", 6)):
            browser.wait(_IS_THERE % name)
            time.sleep(seconds)  # on a busy machine one second of recording can be empty
            browser.ask(_CLICK % name)
        browser.wait(_ANSWERED, 120)
        # said by Gradio's stream at its end, and by its player of a recording that is answered
        known = ("Method not implemented", "gradio_api/file=")
        assert [line for line in browser.console if not any(k in line for k in known)] == []
        own = (f"http://127.0.0.1:{server.port}/", "data:", f"blob:http://127.0.0.1:{server.port}/")
        assert [url for url in browser.requests if not url.startswith(own)] == []
    except AssertionError:
        print(browser.ask("document.body.innerText"), browser.console)
        raise
    finally:
        browser.close()
    assert server.files() == []


def test_a_taken_port_and_bad_limits_are_one_sentence(tmp_path: Path):
    run = make_video_run(tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = CliRunner().invoke(serve_main, [str(run), "--port", port])
    assert told.exit_code == 2
    assert "cannot be listened on" in told.output
    told = CliRunner().invoke(serve_main, [str(run), "--max-mb", "0"])
    assert (told.exit_code, "'--max-mb': 0 is not in the range" in told.output) == (2, True)
    told = CliRunner().invoke(serve_main, [str(tmp_path)])
    assert (told.exit_code, "there is no checkpoint" in told.output) == (2, True)

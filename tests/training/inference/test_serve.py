"""har-serve over real HTTP: a real clip, and uploads that mean harm."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from chromium import Chromium, needs_chromium
from click.testing import CliRunner
from made_predictor import CLASSES, make_video_run

from har.training.cli.results import serve_main
from har.training.inference.predictor import Predictor
from har.training.inference.upload import Limits

serve = pytest.importorskip("har.training.inference.serve")
uvicorn = pytest.importorskip("uvicorn")
_EDGE = "----edge"


class Served:
    """A server in a thread; `post` and `get` are plain HTTP."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.folder = folder
        limits = Limits(megabytes=1, seconds=4, work_seconds=40)
        self.service = serve.Service(Predictor(run, "cpu"), limits)
        self.socket = serve.listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        hosts = ["127.0.0.1", "localhost"]
        self._server = uvicorn.Server(serve.configuration(self.service, hosts))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.socket]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self.service.close()
        self.socket.close()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str):
        """-> (status, text, headers) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def post(self, name: str, data: bytes, *, field: str = "video", **headers: str):
        body = (
            f'--{_EDGE}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            f"Content-Type: video/x-msvideo\r\n\r\n"
        ).encode() + data
        body += f"\r\n--{_EDGE}--\r\n".encode()
        kind = f"multipart/form-data; boundary={_EDGE}"
        status, text, _ = self.ask("POST", "/predict", body, **{"Content-Type": kind, **headers})
        return status, text

    def left(self) -> list[str]:
        """Temporary files that are still there."""
        return [path.name for path in self.folder.rglob("*")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = make_video_run(tmp_path_factory.mktemp("serve") / "a", "resnet3d")
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        one = Served(run, folder)
        yield one
        one.close()


@pytest.fixture(scope="module")
def clip(synthetic_videos: Path) -> bytes:
    return sorted(synthetic_videos.rglob("*.avi"))[0].read_bytes()


def _video(path: Path, frames: int, size: tuple[int, int] = (48, 64)) -> bytes:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((*size, 3), np.uint8), format="rgb24")
        for number in range(frames):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path.read_bytes()


def test_a_clip_is_answered_with_bars_frames_and_attention(served: Served, clip: bytes, tmp_path):
    status, text = served.post("swipe.avi", clip)
    assert status == 200
    (tmp_path / "swipe.avi").write_bytes(clip)
    known = served.service.predictor
    top = known.top(known.of_video(tmp_path / "swipe.avi"), 5)
    bars = re.findall(r'<li><span>(\w+)</span>.*?<span class="number">([\d.]+)</span>', text)
    assert [(name, float(value)) for name, value in bars] == [
        (name, pytest.approx(value, abs=6e-4)) for name, value in top
    ]
    assert {name for name, _ in bars} == set(CLASSES)
    assert text.count("data:image/png;base64,") == text.count("data:image/gif;base64,") == 1
    assert served.left() == []


def test_the_first_page_and_its_headers(served: Served):
    status, text, headers = served.ask("GET", "/")
    assert status == 200
    assert "ResNet3D answers with one of 3 classes." in text
    assert "Up to 1 MB and 4 s." in text
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in headers
    assert served.ask("GET", "/style.css")[0] == served.ask("GET", "/script.js")[0] == 200
    assert served.ask("GET", "/predict")[0] == 405
    assert served.ask("GET", "/../../etc/passwd")[0] == 404


@pytest.mark.parametrize(
    "name", ["../../../etc/cron.d/x.avi", "C:\\\\temp\\\\x.avi", "/etc/x.avi", "%2e%2e/x.avi"]
)
def test_a_clients_path_is_only_a_name_to_show(served: Served, clip: bytes, name: str):
    status, text = served.post(name, clip)
    assert status == 200
    assert "x.avi" in text
    assert "etc" not in re.sub(r"base64,[^\"]*", "", text)
    assert served.left() == []


def test_a_name_with_markup_stays_text(served: Served):
    status, text = served.post("<img src=x onerror=alert(1)>.avi", b"nothing")
    assert status == 422
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;.avi" in text


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.avi", b""),
        ("text.mp4", b"hello " * 1000),
        ("picture.avi", b"\x89PNG\r\n\x1a\n" + bytes(300)),
        ("head.avi", b"RIFF\xff\xff\xff\x7fAVI LIST"),
        ("playlist.mp4", PLAYLIST),
        ("concat.mkv", CONCAT),
        ("script.avi", b"<script>alert(1)</script>"),
    ],
)
def test_what_is_no_video_is_refused_in_one_sentence(served: Served, name: str, data: bytes):
    status, text = served.post(name, data)
    assert status == 422
    assert f"{name} was not predicted: it is no video that can be read here." in text
    assert str(served.folder) not in text
    assert served.left() == []


def test_a_playlist_that_names_a_real_clip_is_not_followed(
    served: Served, clip: bytes, tmp_path: Path
):
    (tmp_path / "secret.avi").write_bytes(clip)
    script = f"ffconcat version 1.0\nfile '{tmp_path / 'secret.avi'}'\n".encode()
    assert served.post("x.avi", script)[0] == 422


def test_a_cut_clip_is_refused_or_answered_but_never_breaks(served: Served, clip: bytes):
    for end in (100, 5_000, len(clip) // 2):
        assert served.post("cut.avi", clip[:end])[0] in (200, 422)
    assert served.post("whole.avi", clip)[0] == 200
    assert served.left() == []


def test_too_long_too_large_and_too_wide_are_refused(served: Served, tmp_path: Path):
    status, text = served.post("long.avi", _video(tmp_path / "a.avi", 130))
    assert (status, "longer than 4 s" in text) == (422, True)
    wide = _video(tmp_path / "b.avi", 1, (3200, 4096))
    status, text = served.post("wide.avi", wide)
    assert (status, "its frames are 4096x3200" in text) == (422, True)
    status, text = served.post("large.avi", bytes(1_100_000))
    assert (status, "larger than 1 MB" in text) == (413, True)
    assert served.left() == []


def test_a_lying_header_does_not_hide_a_long_video(served: Served, tmp_path: Path):
    data = bytearray(_video(tmp_path / "a.avi", 130))
    where = data.index(b"avih") + 8 + 16  # dwTotalFrames
    data[where : where + 4] = (3).to_bytes(4, "little")
    where = data.index(b"strh") + 8 + 32  # dwLength
    data[where : where + 4] = (3).to_bytes(4, "little")
    status, text = served.post("lie.avi", bytes(data))
    assert (status, "longer than 4 s" in text) == (422, True)


def test_a_body_without_a_length_is_counted_while_it_comes(served: Served):
    def pieces() -> Iterator[bytes]:
        yield (
            f'--{_EDGE}\r\nContent-Disposition: form-data; name="video"; filename="a.avi"\r\n\r\n'
        ).encode()
        for _ in range(30):
            yield bytes(100_000)

    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    kind = {"Content-Type": f"multipart/form-data; boundary={_EDGE}"}
    try:
        connection.request("POST", "/predict", pieces(), kind, encode_chunked=True)
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):
        status = 413  # it was hung up on before it had sent all
    finally:
        connection.close()
    assert status == 413
    assert served.left() == []


def test_wrong_types_and_forms_are_refused(served: Served, clip: bytes):
    assert served.post("a.exe", clip)[0] == 415
    assert served.post("avi", clip)[0] == 415
    assert served.post("a.avi", clip, field="other")[0] == 400
    assert served.ask("POST", "/predict", b"x")[0] == 400
    kind = {"Content-Type": f"multipart/form-data; boundary={_EDGE}"}
    assert served.ask("POST", "/predict", b"no form at all", **kind)[0] == 400


def test_other_sites_cannot_use_it(served: Served, clip: bytes):
    assert served.post("a.avi", clip, Origin="https://evil.example")[0] == 403
    assert served.post("a.avi", clip, Origin="null")[0] == 403
    assert served.ask("GET", "/", Host="evil.example")[0] == 400
    assert served.post("a.avi", clip, Origin=f"http://127.0.0.1:{served.port}")[0] == 200


def test_a_crowd_is_asked_to_come_again(served: Served, clip: bytes):
    served.service.waiting, before = 4, served.service.waiting
    try:
        assert served.post("a.avi", clip)[0] == 503
    finally:
        served.service.waiting = before
    assert served.post("a.avi", clip)[0] == 200


def test_a_decoder_that_hangs_is_ended(served: Served, clip: bytes, monkeypatch):
    monkeypatch.setattr(serve.upload, "read", time.sleep)
    monkeypatch.setattr(served.service, "limits", Limits(1, 4, work_seconds=1))
    monkeypatch.setattr(
        served.service._apart,
        "call",
        lambda function, *given, seconds: type(served.service._apart).call(
            served.service._apart, time.sleep, 60, seconds=seconds
        ),
    )
    status, text = served.post("a.avi", clip)
    assert (status, "it took longer than 1 s" in text) == (422, True)
    monkeypatch.undo()
    assert served.post("a.avi", clip)[0] == 200


_DROP = """
const bytes = Uint8Array.from(atob('%s'), one => one.charCodeAt(0)), held = new DataTransfer();
held.items.add(new File([bytes], 'dropped.avi'));
document.querySelector('form').dispatchEvent(new DragEvent('drop', {dataTransfer: held}));
"""


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_drops_a_clip_and_sees_the_answer(
    served: Served, clip: bytes, tmp_path: Path, width: int
):
    video = tmp_path / "swipe.avi"
    video.write_bytes(clip)
    browser = Chromium(tmp_path / "profile", width)
    try:
        browser.go(f"http://127.0.0.1:{served.port}/")
        assert (
            browser.ask("getComputedStyle(document.querySelector('form')).borderStyle") == "dashed"
        )
        if width < 600:
            browser.choose_file("#video", video)
            browser.ask("document.querySelector('button').click()")
        else:
            browser.ask(_DROP % base64.b64encode(clip).decode())
        browser.wait("document.readyState === 'complete' && document.images.length === 2", 60)
        assert browser.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert browser.ask("document.querySelectorAll('li rect').length") == 6
        assert browser.ask("document.documentElement.scrollWidth") == width
        assert browser.console == []
        large = tmp_path / "large.avi"
        large.write_bytes(bytes(2_000_000))
        browser.choose_file("#video", large)
        browser.wait("document.querySelector('#note').textContent === 'This file is too large.'")
        assert browser.ask("document.querySelector('button').disabled")
    finally:
        browser.close()


def test_a_taken_port_and_bad_limits_are_one_sentence(tmp_path: Path):
    run = make_video_run(tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = CliRunner().invoke(serve_main, [str(run), "--port", port])
    assert told.exit_code == 2
    assert "cannot be listened on" in told.output
    told = CliRunner().invoke(serve_main, [str(run), "--max-mb", "0"])
    assert (told.exit_code, "--max-mb 0" in told.output) == (2, True)
    told = CliRunner().invoke(serve_main, [str(tmp_path)])
    assert (told.exit_code, "there is no checkpoint" in told.output) == (2, True)

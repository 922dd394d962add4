"""har-serve for other programs: its JSON, /health, a proxy before it, models of a chosen stream."""

import http.client
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import made_videos
import pytest
from chromium import Chromium, needs_chromium
from click.testing import CliRunner
from made_predictor import CLASSES
from made_server import serving
from page_server import FORM, Server, make_form, page_server

from har.training.cli.results import serve_main

pytestmark = pytest.mark.filterwarnings("default")  # of Gradio, see test_serve.py
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text()
NAME = "har.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("programs") / "x"
    with page_server(folder, hosts=(NAME,), root_path="/har") as server:
        yield server


class _Proxy(BaseHTTPRequestHandler):
    """What nginx does for `location /har/` with the settings of docs/serving.md."""

    port = 0

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers) | {
            "X-Forwarded-Host": self.headers["Host"],
            "X-Forwarded-Proto": self.headers.get("X-Test-Proto", "http"),
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        path = self.path.removeprefix("/har")
        connection.request(self.command, path, body or None, headers)
        response = connection.getresponse()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while block := response.read1(65536):
            self.wfile.write(block)
            self.wfile.flush()
        connection.close()

    do_POST = do_GET  # noqa: N815


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[str]:
    handler = type("Proxy", (_Proxy,), {"port": server.port})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}/har"
        http_server.shutdown()


def _ask(server: Server, upload: object) -> dict:
    """The answer of the API to Gradio's record of a file."""
    body = json.dumps({"data": [upload]})
    kind = {"Content-Type": "application/json"}
    status, text = server.request("POST", "/gradio_api/call/predict", body, **kind)
    assert status == 200, text
    _, events = server.request("GET", f"/gradio_api/call/predict/{json.loads(text)['event_id']}")
    (line,) = [line for line in events.splitlines() if line.startswith("data: ")]
    (answer,) = json.loads(line.removeprefix("data: "))
    return answer


def _upload(server: Server, name: str, data: bytes) -> dict:
    status, text = server.upload(name, data)
    assert status == 200, text
    return {"path": json.loads(text)[0], "meta": {"_type": "gradio.FileData"}}


def test_the_api_answers_what_har_predict_answers_and_leaves_no_file(
    server: Server, clip: bytes, tmp_path: Path
):
    (tmp_path / "swipe.avi").write_bytes(clip)
    predictor = server.service.predictor
    expected = predictor.top_classes(predictor.predict_video(tmp_path / "swipe.avi"), 5)
    answer = _ask(server, _upload(server, "swipe.avi", clip))
    assert answer["video"] == "swipe.avi"
    assert [row["class"] for row in answer["top"]] == [name for name, _ in expected]
    assert [row["probability"] for row in answer["top"]] == pytest.approx(
        [value for _, value in expected], abs=1e-5
    )
    assert set(answer) == {"video", "top"}
    assert server.files() == []


def test_the_api_refuses_in_one_sentence_and_opens_only_uploads(
    server: Server, clip: bytes, tmp_path: Path
):
    answer = _ask(server, _upload(server, "text.mp4", b"hello"))
    assert answer == {
        "video": "text.mp4",
        "error": "text.mp4 was not predicted: it is no video that can be read here.",
    }
    outside = tmp_path / "mine.avi"
    outside.write_bytes(clip)
    (tmp_path / "a.avi").write_bytes(clip)
    with serving(tmp_path) as other:
        for path in (str(outside), f"{other.url}/a.avi", "/etc/passwd", ""):
            sentence = "This file is not here: send it again."
            record = {"path": path, "meta": {"_type": "gradio.FileData"}}
            assert _ask(server, record)["error"] == sentence
            assert server.ask(record) == ({}, f'<p role="alert">{sentence}</p>')
        assert not other.asked
    for nothing in (None, "text", 1, [], {}):
        assert "There was no file" in _ask(server, nothing)["error"]
    assert server.files() == []


def test_health_says_what_answers(server: Server):
    status, text = server.request("GET", "/health")
    assert (status, json.loads(text)) == (
        200,
        {
            "ok": True, "model": "resnet3d", "run": "run", "checkpoint": "best.pt",
            "classes": list(CLASSES), "har": metadata.version("har-ucf101"),
        },
    )  # fmt: skip
    assert server.request("GET", "/health", Host="evil.example")[0] == 400


def _block(language: str, port: int) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert ":8931" in block
    return block.replace(":8931", f":{port}")


@pytest.mark.parametrize("language", ["bash", "python"])
def test_the_examples_of_the_documentation_run(
    server: Server, clip: bytes, tmp_path: Path, language: str
):
    (tmp_path / "swipe.avi").write_bytes(clip)
    if language == "bash" and not shutil.which("curl"):
        pytest.skip("needs the program curl")
    program = ["bash", "-ec"] if language == "bash" else [sys.executable, "-W", "ignore", "-c"]
    told = subprocess.run(
        [*program, _block(language, server.port)], capture_output=True, text=True, cwd=tmp_path
    )
    assert told.returncode == 0, told.stderr
    assert any(name in told.stdout for name in CLASSES)
    assert server.files() == []


def test_behind_a_proxy_the_page_says_its_public_address(server: Server, proxy: str):
    port = int(proxy.rsplit(":", 1)[1].removesuffix("/har"))
    for host, proto in ((NAME, "https"), (f"127.0.0.1:{port}", "http")):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/har/", headers={"Host": host, "X-Test-Proto": proto})
        page = connection.getresponse().read().decode()
        connection.close()
        assert f'"root":"{proto}://{host}/har"' in page


def test_behind_a_proxy_names_that_are_allowed_and_no_others_may_send(server: Server, clip: bytes):
    def send(host: str, origin: str) -> int:
        form = make_form("a.avi", clip)
        path, headers = "/gradio_api/upload", {**FORM, "Host": host, "Origin": origin}
        return server.request("POST", path, form, **headers)[0]

    assert send(NAME, f"https://{NAME}") == 200
    assert send(f"127.0.0.1:{server.port}", f"https://{NAME}") == 200  # a proxy's default Host
    assert send(NAME, "https://evil.example") == 403
    assert send(NAME, "null") == 403
    assert send(f"127.0.0.1:{server.port}", "http://localhost:1") == 403
    assert send("evil.example", "https://evil.example") == 400
    for path in server.service.upload_dir.rglob("a.avi"):
        path.unlink()


def test_a_client_of_gradio_works_through_the_proxy(proxy: str, clip: bytes, tmp_path: Path):
    from gradio_client import Client, handle_file

    (tmp_path / "swipe.avi").write_bytes(clip)
    client = Client(f"{proxy}/", verbose=False)
    answer = client.predict(handle_file(str(tmp_path / "swipe.avi")), api_name="/predict")
    assert {row["class"] for row in answer["top"]} == set(CLASSES)


@needs_chromium
def test_a_browser_works_through_the_proxy(proxy: str, clip: bytes, tmp_path: Path):
    video = tmp_path / "swipe.avi"
    video.write_bytes(clip)
    browser = Chromium(tmp_path / "profile", 1280)
    try:
        browser.go(f"{proxy}/")
        browser.wait("document.querySelector('input[type=file]') !== null")
        browser.choose_file("input[type=file]", video)
        browser.wait("document.querySelectorAll('figure img').length === 2", 120)
        own = (f"{proxy}/", "data:", "blob:")
        others = [url for url in browser.requests if not url.startswith(own)]
        # Gradio's page names a manifest and two pictures from the root: it works without
        assert {url.removeprefix(proxy.removesuffix("/har")) for url in others} <= {
            "/manifest.json",
            "/favicon.ico",
            "/static/img/logo_nosize.svg",
        }
    finally:
        browser.close()


def test_settings_for_a_proxy_that_make_no_sense_are_one_sentence(tmp_path: Path):
    told = CliRunner().invoke(serve_main, [str(tmp_path), "--root-path", "har"])
    assert (told.exit_code, "--root-path har is no path: begin it" in told.output) == (2, True)


@made_videos.needs_ffmpeg
def test_a_model_of_a_chosen_stream_takes_it_and_says_where_there_is_none(tmp_path: Path):
    two, one = tmp_path / "two.mkv", tmp_path / "one.mkv"
    sources = ["-f", "lavfi", "-i", "testsrc2=size=96x80:rate=25"]
    sources += ["-f", "lavfi", "-i", "color=red:size=4160x2400:rate=25"]
    made_videos.ffmpeg(*sources, "-map", "1", "-map", "0", "-t", "1", "-c:v", "ffv1", two)
    made_videos.ffmpeg("-i", two, "-map", "0:1", "-c", "copy", one)
    with page_server(tmp_path / "x", sampling={"stream": 1}) as server:
        predictor = server.service.predictor
        probabilities = dict(predictor.top_classes(predictor.predict_video(two), 5))
        shares, html = server.answer("two.mkv", two.read_bytes())  # stream 0 would be too large
        assert shares == pytest.approx(probabilities, abs=1e-5)
        assert "it has several video streams: 1 was taken." in html
        shares, html = server.answer("one.mkv", one.read_bytes())
        assert shares == pytest.approx(probabilities, abs=1e-5)
        note = "it has no video stream 1, of which the shards were: the main one counts."
        assert note in html
        assert _ask(server, _upload(server, "one.mkv", one.read_bytes()))["warnings"] == [note]
        assert "no video that can be read" in server.answer("x.mkv", b"nothing")[1]
        assert server.files() == []

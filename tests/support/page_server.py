"""har-serve in a thread, asked over HTTP as its page asks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_predictor import make_video_run

from har.training.inference.predictor import Predictor
from har.training.inference.uploaded_video import UploadLimits
from har.training.serving import serve

BOUNDARY = "----boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Client:
    """What the page of a har-serve on this machine asks it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def upload(self, name: str, data: bytes, **headers: str) -> tuple[int, str]:
        return self.request("POST", "/gradio_api/upload", make_form(name, data), **FORM, **headers)

    def answer(self, name: str, data: bytes) -> tuple[dict[str, float], str]:
        """Upload a file and ask about it, as the page does -> probabilities, and the HTML."""
        status, text = self.upload(name, data)
        assert status == 200, text
        return self.ask({"path": json.loads(text)[0], "orig_name": name})

    def ask(self, upload: dict[str, Any]) -> tuple[dict[str, float], str]:
        """Ask about a file, as the page does."""
        record = {**upload, "meta": {"_type": "gradio.FileData"}}
        join = {"data": [record], "fn_index": 0, "session_hash": "test"}
        kind = {"Content-Type": "application/json"}
        status, text = self.request("POST", "/gradio_api/queue/join", json.dumps(join), **kind)
        assert status == 200, text
        _, events = self.request("GET", "/gradio_api/queue/data?session_hash=test")
        (line,) = [line for line in events.splitlines() if "process_completed" in line]
        output = json.loads(line.removeprefix("data: "))["output"]
        empty, label, html = output["data"]
        assert empty is None
        shares = {row["label"]: row["confidence"] for row in (label or {}).get("confidences", [])}
        return shares, html


class Server(Client):
    """har-serve in a thread. folder: where all its temporary files go."""

    def __init__(
        self, run: Path, folder: Path, hosts: tuple[str, ...] = (), root_path: str = ""
    ) -> None:
        self.folder = folder
        self.service = serve.VideoService(Predictor(run, "cpu"), UploadLimits(2, 20, 40))
        self.listener = serve.listen("127.0.0.1", 0)
        super().__init__(self.listener.getsockname()[1])
        self._server = serve.build_server(self.service, (*serve.LOOPBACK, *hosts), root_path)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self.listener]}
        )
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self.service.close()
        self.listener.close()

    def files(self) -> list[str]:
        """Temporary files that are there."""
        return [path.name for path in self.folder.rglob("*") if path.is_file()]


def make_form(name: str, data: bytes) -> bytes:
    head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    parts = (f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode(), data, f"\r\n--{BOUNDARY}--\r\n".encode())
    return b"".join(parts)


@contextlib.contextmanager
def page_server(folder: Path, **options: Any) -> Iterator[Server]:
    """A server of an untrained model; at its end nothing is left. folder: is made. options: of
    `Server`, and sampling: of its shards."""
    folder.mkdir()
    run = make_video_run(folder / "a", "resnet3d", **options.pop("sampling", {}))
    temporary = folder / "temporary"
    temporary.mkdir()
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        server = Server(run, temporary, **options)
        try:
            yield server
        finally:
            server.close()
    assert list(temporary.iterdir()) == []
    os.environ.clear()
    os.environ.update(environment)

"""Real servers on loopback: HTTP that serves a folder and fails as it is told to; S3."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    """faults: file name -> what happens to its requests in turn, the last one from then on:

    "" (nothing), "cut" (half of it), "wrong" (a byte), "slow" (in 20 pieces, 1 s), "stall" (half of
    it, then silence), a status as "404", or "hold" (not before `go` is set). asked: GETs of a name.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        self.root, self.go = root, threading.Event()
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no news."""


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def __init__(self, request: Any, address: Any, server: Server) -> None:
        super().__init__(request, address, server, directory=str(server.root))

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.asked[name] += 1
        turns = self.server.faults.get(name, [""])
        how = turns.pop(0) if len(turns) > 1 else turns[0]
        if how.isdigit():
            self.send_error(int(how))
            return
        if how == "hold":
            self.server.go.wait(20)
        if how in ("", "hold"):
            super().do_GET()
            return
        self._fail(how, bytearray((self.server.root / self.path.lstrip("/")).read_bytes()))

    def _fail(self, how: str, data: bytearray) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if how == "wrong":
            data[len(data) // 2] ^= 1
            self.wfile.write(data)
        elif how == "slow":
            piece = -(-len(data) // 20)
            for at in range(0, len(data), piece):
                self.wfile.write(data[at : at + piece])
                time.sleep(0.05)
        else:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if how == "stall":
                self.server.go.wait(20)
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Server]:
    server = Server(root)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def s3(bucket: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real S3-speaking server (moto's) with one empty bucket, that this process's s3:// means."""
    import fsspec
    import pytest

    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    at = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": at, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            # of another test's server
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            for _ in range(200):
                with contextlib.suppress(OSError), urllib.request.urlopen(at):
                    break
                time.sleep(0.1)
            urllib.request.urlopen(urllib.request.Request(f"{at}/{bucket}", method="PUT")).close()
            yield process
    finally:
        process.kill()
        process.wait()

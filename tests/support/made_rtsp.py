"""A camera on loopback: an RTSP server that sends a video again and again, as ffmpeg packs it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class _Camera(socketserver.StreamRequestHandler):
    """One client: RFC 2326 with RTP in the connection itself ("interleaved")."""

    def handle(self) -> None:
        while True:
            lines = list(iter(lambda: self.rfile.readline().strip().decode(), ""))
            if not lines:
                return
            method = lines[0].split()[0]
            sequence = next(line for line in lines if line.lower().startswith("cseq"))
            headers, body = {"Session": "1"}, b""
            if method == "OPTIONS":
                headers = {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"}
            elif method == "DESCRIBE":
                body = self.server.description
                headers = {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
            elif method == "SETUP":
                headers["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
            text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            answer = f"RTSP/1.0 200 OK\r\n{sequence}\r\n{text}\r\n".encode()
            self.wfile.write(answer + body)
            if method == "PLAY":
                with contextlib.suppress(OSError):  # the client has gone
                    self._relay()
                return

    def _relay(self) -> None:
        while True:
            packet = self.server.packets.recv(65536)
            self.wfile.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)


@contextlib.contextmanager
def camera(video: Path) -> Iterator[str]:
    """-> the URL of a server that sends `video` (H.264) at its own speed, without an end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind(("127.0.0.1", 0))
        packets.settimeout(20)
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        target = f"rtp://127.0.0.1:{packets.getsockname()[1]}?pkt_size=1200"
        description = video.with_suffix(".sdp")
        command = ["ffmpeg", "-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", video]
        command += ["-c", "copy", "-f", "rtp", "-sdp_file", description, target]
        with (
            subprocess.Popen(command) as program,
            socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Camera) as server,
        ):
            try:
                for _ in range(200):
                    if description.exists() and b"m=video" in description.read_bytes():
                        break
                    time.sleep(0.05)
                lines = description.read_bytes().splitlines()[1:]  # the first is a remark
                server.description = b"\r\n".join([*lines, b"a=control:track1", b""])
                server.packets, server.daemon_threads = packets, True
                threading.Thread(target=server.serve_forever, daemon=True).start()
                yield f"rtsp://127.0.0.1:{server.server_address[1]}/yard"
                server.shutdown()
            finally:
                program.kill()

"""`har-serve`: a local web page that takes a video and shows its frames, top classes and attention.

The page, the upload, the browser's camera and the queue (one video at a time, four waiting) are
Gradio's. It is for one person at this machine, and still trusts nobody.

Notes:
- `RequestGuard` does what Gradio does not. Gradio's size limit is for each file of a request, after
  a part of it is on the disk; it answers requests of other sites' pages; and its page may ask other
  hosts for scripts and fonts.
- An answer goes to the page as text and data: URLs, so that no file of it lies in Gradio's cache.
  The uploaded file is removed with its answer, and the cache folder, our own, at the end.
- The app is mounted, not launched: `launch` looks for newer versions and can open a public link.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
import socket
import tempfile
import time
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import HarError
from ...pipeline.decode import VIDEO_SUFFIXES, DecoderError, DecoderProcess
from ..plots import DISPLAY_NAMES
from . import grad_cam
from .predictor import Predictor
from .uploaded_video import UploadError, UploadLimits, decode_upload

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
_MAX_QUEUED = 4
_MAX_IDLE_SECONDS = 600  # an uploaded file that nobody asks about is removed after these
_NUM_STRIP_FRAMES = 8
_MEMORY_LIMIT = 8 << 30  # bytes of the decoder's address space
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; base-uri 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class ServeError(HarError):
    """A server that cannot start; one sentence."""


class VideoService:
    """What stands behind the page: predictor, decoder process and the folder of uploads."""

    def __init__(self, predictor: Predictor, limits: UploadLimits | None = None) -> None:
        self.predictor, self.limits = predictor, limits or UploadLimits()
        self._folder = tempfile.TemporaryDirectory(prefix="har-serve-")
        self.upload_dir = Path(self._folder.name).resolve()
        sampler = predictor.sampler
        self._clip_shape = (sampler.frames, *predictor.frame_size, 3)
        self._decoder = DecoderProcess(
            decode_upload,
            num_bytes=sampler.clips * int(np.prod(self._clip_shape)),
            timeout=self.limits.decode_seconds,
            memory_limit=_MEMORY_LIMIT,
        )

    def answer(self, upload: dict[str, Any] | None) -> tuple[None, dict[str, float] | None, str]:
        """Gradio's record of an uploaded file -> (an empty input, the label's values, HTML).

        The file is removed, whether it is a video or not.
        """
        self._remove_idle_uploads()
        if not upload:
            return None, None, _alert("There was no file: choose a video first.")
        path = Path(str(upload.get("path"))).resolve()
        name = str(upload.get("orig_name") or path.name).replace("\\", "/").rsplit("/", 1)[-1]
        if path.parent.parent != self.upload_dir or not path.is_file():  # Gradio's DIR/HASH/NAME
            return None, None, _alert("This file is not here: send it again.")
        try:
            return None, *self._predict(path, name[:120])
        except (UploadError, DecoderError) as error:
            return None, None, _alert(f"{name[:120]} was not predicted: {error}")
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds the same file under another name
                path.parent.rmdir()

    def close(self) -> None:
        """End the decoder and remove every uploaded file."""
        self._decoder.kill()
        self._folder.cleanup()

    def _predict(self, path: Path, name: str) -> tuple[dict[str, float], str]:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UploadError(f"send one of {', '.join(VIDEO_SUFFIXES)}.")
        predictor = self.predictor
        num_clips, pixels = self._decoder.call(
            path, self.limits.max_seconds, asdict(predictor.sampler), predictor.frame_size
        )
        shape = (num_clips, *self._clip_shape)
        clips = pixels[: np.prod(shape)].reshape(shape)[:, predictor.frame_subset]  # a copy
        top = predictor.top_classes(predictor.predict_clips(clips).mean(0), 5)
        gif = grad_cam.encode_gif(grad_cam.animate_clip(predictor, clips[0]))
        map_name = grad_cam.MAP_NAMES[predictor.model_name]
        html = (
            f"<p>{escape(name)}</p>"
            + _figure("png", frame_strip(clips[0]), "Frames of the clip, in order.")
            + _figure("gif", gif, f"The clip, and beside it the clip with its {map_name}.")
        )
        return dict(top), html

    def _remove_idle_uploads(self) -> None:
        for path in self.upload_dir.iterdir():
            if time.time() - path.stat().st_mtime > _MAX_IDLE_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:  # the part of an upload that was broken off
                    path.unlink(missing_ok=True)


def frame_strip(clip: NDArray[np.uint8]) -> bytes:
    """Up to 8 frames of a clip uint8 [T,H,W,3], evenly, four a row, as the bytes of a PNG."""
    indices = np.linspace(0, len(clip) - 1, min(_NUM_STRIP_FRAMES, len(clip))).round().astype(int)
    height, width = clip.shape[1:3]
    columns = min(4, len(indices))
    rows = -(-len(indices) // columns)
    sheet = Image.new("RGB", (columns * (width + 4) - 4, rows * (height + 4) - 4), "white")
    for cell, index in enumerate(indices):
        corner = ((cell % columns) * (width + 4), (cell // columns) * (height + 4))
        sheet.paste(Image.fromarray(clip[index]), corner)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _figure(image_format: str, data: bytes, caption: str) -> str:
    url = f"data:image/{image_format};base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure style="margin:0 0 16px"><img src="{url}" alt="{escape(caption)}" '
        'style="width:100%;border-radius:6px">'
        f'<figcaption style="opacity:.75">{escape(caption)}</figcaption></figure>'
    )


def _alert(sentence: str) -> str:
    return f'<p role="alert">{escape(sentence)}</p>'


class RequestGuard:
    """ASGI middleware: requests of this page only, with a body that is not too large.

    hosts: what a Host header may say, without the port; None for anything. A Host of another name
    that leads here (DNS rebinding) and a form of another site are refused. A body must declare its
    length (the server cuts it there), at most `max_bytes`.
    """

    def __init__(self, app: Any, hosts: tuple[str, ...] | None, max_bytes: int) -> None:
        self._app, self._hosts, self._max_bytes = app, hosts, max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, text = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send_with_headers(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": text.encode()})

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        """-> status and sentence of a request that is not passed on."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self._hosts is not None and name.strip("[]") not in self._hosts:
            return 400, "This server has another name."
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return 403, "This came from the page of another site: open this page itself."
        length = headers.get("content-length", "")
        if not length.isdigit():
            return 411, "The length of what is sent must be declared."
        if int(length) > self._max_bytes:
            return 413, "The file is too large."
        return None


def build_app(service: VideoService, hosts: tuple[str, ...] | None) -> Any:
    """The ASGI application: Gradio's page behind a `RequestGuard`."""
    os.environ.update(_ENVIRONMENT)
    os.environ["GRADIO_TEMP_DIR"] = str(service.upload_dir)
    import fastapi
    import gradio

    max_bytes = service.limits.max_mb * 1_000_000
    app = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        _build_page(service),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=max_bytes,
        ssr_mode=False,
        show_error=True,
        app_kwargs={"openapi_url": None},
    )
    return RequestGuard(app, hosts, max_bytes + 10_000)  # a form's own lines are some hundred bytes


def _build_page(service: VideoService) -> Any:
    import gradio

    predictor, limits = service.predictor, service.limits
    model = f"{DISPLAY_NAMES[predictor.model_name]} answers with one of {len(predictor.classes)}"
    with gradio.Blocks(title="What happens in a video?", analytics_enabled=False) as page:
        gradio.Markdown(
            f"# What happens in a video?\n{model} classes. A video of up to {limits.max_mb} MB and "
            f"{limits.max_seconds} s stays on this machine and is deleted when it is answered."
        )
        with gradio.Row():
            with gradio.Column():
                with gradio.Tab("File"):  # not gradio.Video: its player calls an .avi an error
                    file = gradio.File(label="Video", file_types=list(VIDEO_SUFFIXES))
                with gradio.Tab("Camera"):
                    camera = gradio.Video(label="Camera", sources=["webcam"], include_audio=False)
                label = gradio.Label(label="Most probable", num_top_classes=5)
            with gradio.Column():
                pictures = gradio.HTML(padding=False)
        for video, event in ((file, file.upload), (camera, camera.stop_recording)):
            event(
                service.answer,
                inputs=video,
                outputs=[video, label, pictures],
                preprocess=False,  # Gradio would copy the file, or fetch it where its path is a URL
                concurrency_id="model",
                concurrency_limit=1,
                api_visibility="private",
            )
    return page.queue(max_size=_MAX_QUEUED)


def serve_run(
    run_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_mb: int = 100,
    max_seconds: int = 120,
    device: str | None = None,
) -> None:
    """Serve until Ctrl-C. Raises ServeError, UploadError or CheckpointError, each one sentence."""
    limits = UploadLimits(max_mb, max_seconds)
    predictor = Predictor(run_dir, device)
    with listen(host, port) as listener:
        service = VideoService(predictor, limits)
        try:
            hosts = LOOPBACK if host in LOOPBACK else None
            server = build_server(service, hosts)
            address = f"[{host}]" if ":" in host else host
            print(f"http://{address}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
            if hosts is None:
                print(f"anyone who reaches {host} can send videos: no password.", flush=True)
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # the way to end it; uvicorn has closed its connections
            print("ended.")
        finally:
            service.close()


def build_server(service: VideoService, hosts: tuple[str, ...] | None) -> Any:
    """A uvicorn server, quiet and without WebSockets. Raises ServeError without Gradio."""
    try:
        app = build_app(service, hosts)
        import uvicorn
    except ImportError as error:
        raise ServeError(
            f"har-serve needs the package {error.name}, which is not installed: "
            "pip install 'har-ucf101[web]'."
        ) from error
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,  # an open page holds a connection
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ServeError where the port is taken or the host is not ours."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=16)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServeError(
            f"{host}:{port} cannot be listened on ({reason}): choose another --port or --host."
        ) from error

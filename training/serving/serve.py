"""`har-serve`: a web page that takes a video and shows its frames, top classes and attention; the
same for programs, as JSON.

The page, the upload, the browser's camera and the queue (one video at a time, four waiting) are
Gradio's. It asks for no password and trusts nobody.

Notes:
- `guard_requests` does what Gradio does not. Gradio's size limit is for each file of a request,
  after a part of it is on the disk; it answers requests of other sites' pages; and its page may ask
  other hosts for scripts and fonts.
- A request names the file that it is about: Gradio's handling of that name is replaced (`_leave`).
- The app is mounted, not launched: `launch` looks for newer versions and can open a public link.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import HarError
from ...pipeline.decode import VIDEO_SUFFIXES
from ..inference.predictor import Predictor
from ..inference.uploaded_video import UploadLimits
from ..plots import DISPLAY_NAMES
from .video_service import VideoService

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
_MAX_QUEUED = 4
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


def guard_requests(app: Any, hosts: tuple[str, ...] | None, max_bytes: int) -> Any:
    """ASGI middleware: requests of this page only, with a body that is not too large.

    hosts: what a Host header may say, without the port; None for anything. A Host of another name
    that leads here (DNS rebinding) and a form of another site are refused; behind a proxy the page
    may have come from any of `hosts`. A body must declare its length (the server cuts it there), at
    most `max_bytes`.
    """
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.responses import PlainTextResponse

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        refusal = _refuse(scope["method"], Headers(scope=scope), hosts, max_bytes)
        respond = PlainTextResponse(*refusal, {"Connection": "close"}) if refusal else app
        await respond(scope, receive, send_with_headers)

    return guarded


def _refuse(
    method: str, headers: Mapping[str, str], hosts: tuple[str, ...] | None, max_bytes: int
) -> tuple[str, int] | None:
    """-> sentence and status of a request that is not passed on."""
    host = headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if hosts is not None and name.strip("[]") not in hosts:
        return "This server has another name.", 400
    if method in ("GET", "HEAD"):
        return None
    origin = urlsplit(headers.get("origin", f"http://{host}"))  # https: the proxy's
    is_named = origin.hostname in (hosts or ()) and origin.hostname not in LOOPBACK
    if origin.scheme not in ("http", "https") or (origin.netloc != host and not is_named):
        return "This came from the page of another site: open this page itself.", 403
    length = headers.get("content-length", "")
    if not length.isdigit():
        return "The length of what is sent must be declared.", 411
    return ("The file is too large.", 413) if int(length) > max_bytes else None


def build_app(service: VideoService, hosts: tuple[str, ...] | None, root_path: str = "") -> Any:
    """The ASGI application: Gradio's page and /health, behind `guard_requests`.

    root_path: below which path, or at which URL, a proxy shows the page.
    """
    os.environ.update(_ENVIRONMENT)
    os.environ["GRADIO_TEMP_DIR"] = str(service.upload_dir)
    import fastapi
    import gradio

    max_bytes = service.limits.max_mb * 1_000_000
    api = fastapi.FastAPI(openapi_url=None)
    api.get("/health")(service.health)
    app = gradio.mount_gradio_app(
        api,
        _build_page(service),
        path="/",
        root_path=root_path or None,
        footer_links=[],
        run_history=False,
        max_file_size=max_bytes,
        ssr_mode=False,
        show_error=True,
        app_kwargs={"openapi_url": None},
    )
    return guard_requests(
        app, hosts, max_bytes + 10_000
    )  # a form's own lines are some hundred bytes


def _build_page(service: VideoService) -> Any:
    import gradio

    predictor, limits = service.predictor, service.limits
    name = DISPLAY_NAMES.get(predictor.model_name, predictor.model_name)
    model = f"{name} answers with one of {len(predictor.classes)}"
    with gradio.Blocks(title="What happens in a video?", analytics_enabled=False) as page:
        gradio.Markdown(
            f"# What happens in a video?\n{model} classes. A video of up to {limits.max_mb} MB and "
            f"{limits.max_seconds} s stays on this machine and is deleted when it is answered. "
            f"{predictor.describe_input()}"
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

        def predict(video: gradio.FileData) -> dict[str, Any]:
            """The most probable classes of an uploaded video."""
            is_record = isinstance(video, (dict, gradio.FileData))  # a client sends what it likes
            return service.answer_json(dict(video) if is_record else None)

        gradio.api(predict, api_name="predict", concurrency_id="model", concurrency_limit=1)
    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = _leave
    return page.queue(max_size=_MAX_QUEUED)


async def _leave(path: str) -> str:
    """Instead of Gradio's: of an app that is mounted it copies any file of this machine that a
    request names, and fetches any URL. `VideoService` takes uploaded files only."""
    return path


def serve_run(
    run_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_mb: int = 100,
    max_seconds: int = 120,
    device: str | None = None,
    views: int | None = None,
    root_path: str = "",
    allowed_hosts: tuple[str, ...] = (),
) -> None:
    """Serve until Ctrl-C. root_path: see `build_app`. allowed_hosts: names that requests may come
    under, beside this machine's own where it listens on loopback.

    Raises ServeError or CheckpointError, each one sentence.
    """
    if root_path and not root_path.startswith(("/", "http://", "https://")):
        raise ServeError(
            f"--root-path {root_path} is no path: begin it with /, or give the URL of the page."
        )
    limits = UploadLimits(max_mb, max_seconds)
    predictor = Predictor(run_dir, device, views)
    with listen(host, port) as listener:
        service = VideoService(predictor, limits)
        try:
            is_local = host in LOOPBACK
            hosts = (*LOOPBACK, *allowed_hosts) if is_local or allowed_hosts else None
            server = build_server(service, hosts, root_path.rstrip("/"))
            address = f"[{host}]" if ":" in host else host
            print(f"http://{address}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
            if not is_local:
                print(f"anyone who reaches {host} can send videos: no password.", flush=True)
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # the way to end it; uvicorn has closed its connections
            print("ended.")
        finally:
            service.close()


def build_server(service: VideoService, hosts: tuple[str, ...] | None, root_path: str = "") -> Any:
    """A uvicorn server, quiet and without WebSockets. Raises ServeError without Gradio."""
    try:
        app = build_app(service, hosts, root_path)
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

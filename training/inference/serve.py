"""`har-serve`: a local page that takes a video and shows its frames, top classes and attention.

Odd: it is made for one person at this machine, and still trusts nobody: another site's script in
the same browser can reach a loopback port. So the Host and Origin headers must be our own, a body
is counted while it comes, the file is decoded in a process of its own (`har.training.inference.sandbox`), and a
client's file name is only ever shown, never opened. One video is worked on at a time.
"""

from __future__ import annotations

import asyncio
import io
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HarError
from ...pipeline.decode import VIDEO_SUFFIXES
from ..plots import DISPLAY_NAMES
from . import grad_cam, serve_page, upload
from .predictor import Predictor
from .sandbox import Sandbox, SandboxError
from .upload import Limits, UploadError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WAITING = 4  # videos at once; more are asked to come again
_UPLOAD_SECONDS = 120  # a body that trickles in for longer is dropped
_TOO_LARGE = "har.too_large"  # in a request's scope
_STRIP = 8  # frames shown
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'self'; "
    "script-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a form's Origin is "null", even our own
    "Cache-Control": "no-store",
}


class ServeError(HarError):
    """A server that cannot start; one sentence."""


class _Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is answered with a sentence and a status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Service:
    """The predictor behind the page, and what it takes. `close` ends its child process."""

    def __init__(self, predictor: Predictor, limits: Limits | None = None) -> None:
        self.predictor, self.limits = predictor, limits or Limits()
        self.most_bytes = self.limits.megabytes * 1_000_000
        self.again = (self.limits.megabytes, self.limits.seconds)
        self.waiting = 0
        self._apart = Sandbox()
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, request: Request) -> str:
        """A posted video -> the page of its answer. Raises _Refused."""
        if self.waiting >= _WAITING:
            raise _Refused(503, "Too many videos at once: try again in a minute.")
        self.waiting += 1
        try:
            with tempfile.TemporaryDirectory(prefix="har-serve-") as folder:
                path, name = await self._receive(request, Path(folder))
                async with self._one_at_a_time:
                    return await asyncio.to_thread(self._work, path, name)
        finally:
            self.waiting -= 1

    def close(self) -> None:
        self._apart.close()

    async def _receive(self, request: Request, folder: Path) -> tuple[Path, str]:
        """Store the posted file under a name of ours; -> its path, and the client's name."""
        from starlette.datastructures import UploadFile
        from starlette.exceptions import HTTPException

        try:
            async with (
                asyncio.timeout(_UPLOAD_SECONDS),
                request.form(max_files=1, max_fields=2) as form,
            ):
                sent = form.get("video")
                if not isinstance(sent, UploadFile) or not sent.filename:
                    raise _Refused(400, "There was no file: choose a video first.")
                name, suffix = _name(sent.filename)
                path = folder / f"upload{suffix}"
                with open(path, "wb") as file:
                    while piece := await sent.read(1 << 20):
                        file.write(piece)
        except TimeoutError as error:
            raise _Refused(408, "The file took too long to arrive.") from error
        except HTTPException as error:
            if request.scope.get(_TOO_LARGE):
                raise _Refused(413, f"The file is larger than {self.again[0]} MB.") from error
            raise _Refused(400, "What was sent is no form with a file.") from error
        return path, name

    def _work(self, path: Path, name: str) -> str:
        made = self.predictor.state["preprocessing"]
        seconds = self.limits.work_seconds
        try:
            clips = self._apart.call(upload.read, path, made, self.limits, seconds=seconds)
        except (UploadError, SandboxError) as error:
            raise _Refused(422, f"{name} was not predicted: {error}") from error
        return serve_page.answer(
            name,
            self.predictor.top(self.predictor.probabilities(clips).mean(0), 5),
            strip(clips[0]),
            grad_cam.gif(grad_cam.of_clip(self.predictor, clips[0])),
            grad_cam.KINDS[self.predictor.model_name],
            self.again,
        )


def _name(given: str) -> tuple[str, str]:
    """A client's file name -> its last part, to show, and the suffix that it ends in."""
    name = given.replace("\\", "/").rsplit("/", 1)[-1][:120]
    suffix = next((one for one in VIDEO_SUFFIXES if name.lower().endswith(one)), None)
    if suffix is None or len(name) == len(suffix):
        raise _Refused(415, f"{name} is not taken: send one of {', '.join(VIDEO_SUFFIXES)}.")
    return name, suffix


def strip(clip: NDArray[np.uint8]) -> bytes:
    """Up to 8 frames of a clip uint8 [T,H,W,3], evenly, four a row, as the bytes of a PNG."""
    from PIL import Image

    chosen = np.linspace(0, len(clip) - 1, min(_STRIP, len(clip))).round().astype(int)
    height, width = clip.shape[1:3]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * (width + 4) - 4, rows * (height + 4) - 4), "white")
    for n, number in enumerate(chosen):
        place = ((n % columns) * (width + 4), (n // columns) * (height + 4))
        sheet.paste(Image.fromarray(clip[number]), place)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def application(service: Service, hosts: list[str]) -> Starlette:
    """The web application. hosts: what a Host header may say, without a port."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    known = service.predictor
    about = f"{DISPLAY_NAMES[known.model_name]} answers with one of {len(known.classes)} classes."

    async def index(request: Request) -> Response:
        return HTMLResponse(serve_page.form(about, *service.again), headers=_HEADERS)

    async def style(request: Request) -> Response:
        return Response(serve_page.STYLE, media_type="text/css", headers=_HEADERS)

    async def script(request: Request) -> Response:
        return Response(serve_page.SCRIPT, media_type="text/javascript", headers=_HEADERS)

    async def post(request: Request) -> Response:
        try:
            _check_origin(request)
            return HTMLResponse(await service.answer(request), headers=_HEADERS)
        except _Refused as refused:
            page = serve_page.refusal(refused.sentence, service.again)
            return HTMLResponse(page, refused.status, headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/style.css", style),
            Route("/script.js", script),
            Route("/predict", post, methods=["POST"]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(_BodyLimit, most=service.most_bytes),
        ],
    )


def _check_origin(request: Request) -> None:
    """A page of another site may post to us; the browser then says so."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host')}":
        raise _Refused(403, "This came from another site's page: open this page itself.")


class _BodyLimit:
    """Count a body while it comes: Content-Length may be missing or wrong."""

    def __init__(self, app: Any, most: int) -> None:
        # the form's own lines around the file are some hundred bytes
        self._app, self._most = app, most + 10_000

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.formparsers import MultiPartException

        seen = 0

        async def counted() -> Any:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                scope[_TOO_LARGE] = True
                # of this kind, because on it the form parser closes what it has stored so far
                raise MultiPartException("too large")
            return message

        if scope["type"] == "http":
            declared = dict(scope["headers"]).get(b"content-length", b"0")
            if not declared.isdigit() or int(declared) > self._most:
                seen = self._most + 1  # refused at the first piece
        await self._app(scope, counted, send)


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


def run(
    run: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_mb: int = 100,
    max_seconds: int = 120,
    device: str | None = None,
) -> None:
    """Serve until Ctrl-C. Raises ServeError, UploadError or CheckpointError, each one sentence."""
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ServeError(
            f"har-serve needs the package {error.name}, which is not installed: "
            "pip install 'har-ucf101[web]'."
        ) from error
    limits = Limits(max_mb, max_seconds)
    service = Service(Predictor(run, device), limits)
    with listen(host, port) as opened:
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{opened.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        if host not in LOOPBACK:
            print(f"anyone who reaches {host} can send videos: there is no password.", flush=True)
        hosts = ["127.0.0.1", "localhost", "[::1]", address] if host in LOOPBACK else ["*"]
        try:
            uvicorn.Server(configuration(service, hosts)).run(sockets=[opened])
        except KeyboardInterrupt:  # how it is ended; uvicorn has closed its connections
            print("ended.")
        finally:
            service.close()


def configuration(service: Service, hosts: list[str]) -> Any:
    """uvicorn's settings: quiet, no WebSockets."""
    import uvicorn

    return uvicorn.Config(
        application(service, hosts),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
    )

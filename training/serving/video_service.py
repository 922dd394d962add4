"""What stands behind `har-serve`: an uploaded file in, probabilities and HTML or JSON out.

Notes: an answer goes to the page as text and data: URLs, so that no file of it lies in Gradio's
cache. The uploaded file is removed with its answer, and the cache folder, our own, at the end; of a
server that was killed, by the next one, which sees that nobody holds the lock of its folder.
"""

import base64
import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...pipeline.decode import VIDEO_SUFFIXES, DecoderError, DecoderProcess
from ...shards.storage import LocalFolder
from ..inference import grad_cam
from ..inference.predictor import Predictor
from ..inference.uploaded_video import UploadError, UploadLimits, decode_upload

# TMPDIR/har-serve-*/har-serve-uploads: a name that no folder of a user's own has by chance
_PREFIX, _UPLOADS = "har-serve-", "har-serve-uploads"
_MAX_IDLE_SECONDS = 600  # an uploaded file that nobody asks about is removed after these
_NUM_STRIP_FRAMES = 8
_MEMORY_LIMIT = 5 << 30  # bytes that the decoder may take for a video


class VideoService:
    """Predictor, decoder process and the folder of uploads."""

    def __init__(self, predictor: Predictor, limits: UploadLimits | None = None) -> None:
        self.predictor, self.limits = predictor, limits or UploadLimits()
        remove_abandoned_folders()
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX))
        self._stack.enter_context(LocalFolder(Path(folder)).locked())
        self.upload_dir = Path(folder, _UPLOADS).resolve()
        self.upload_dir.mkdir()  # only now: a folder with it and without a lock is abandoned
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
        try:
            with self._uploaded_file(upload) as (path, name):
                clips, warnings = self._decode(path, name)
                top = self._predict(clips)
                return None, dict(top), self._draw(clips[0], name, warnings)
        except UploadError as error:
            return None, None, f'<p role="alert">{escape(str(error))}</p>'

    def answer_json(self, upload: dict[str, Any] | None) -> dict[str, Any]:
        """The same for programs: an entry of `har-predict --json`. The file is removed."""
        name = _name_of(upload or {})
        try:
            with self._uploaded_file(upload) as (path, name):
                clips, warnings = self._decode(path, name)
                top = [{"class": c, "probability": p} for c, p in self._predict(clips)]
        except UploadError as error:
            return {"video": name, "error": str(error)}
        return {"video": name, "top": top} | ({"warnings": warnings} if warnings else {})

    def health(self) -> dict[str, Any]:
        """That the server runs, and what it answers with."""
        path = self.predictor.path
        return {
            "ok": True,
            "model": self.predictor.model_name,
            "run": path.parent.absolute().name,
            "checkpoint": path.name,
            "classes": self.predictor.classes,
            "har": metadata.version("har-ucf101"),
        }

    def close(self) -> None:
        """End the decoder and remove every uploaded file."""
        self._decoder.kill()
        self._stack.close()

    @contextlib.contextmanager
    def _uploaded_file(self, upload: dict[str, Any] | None) -> Iterator[tuple[Path, str]]:
        """The file of Gradio's record and its name to show; it is removed after the block.

        Raises UploadError.
        """
        self._remove_idle_uploads()
        if not upload:
            raise UploadError("There was no file: choose a video first.")
        path = Path(str(upload.get("path"))).resolve()
        if path.parent.parent != self.upload_dir or not path.is_file():  # Gradio's DIR/HASH/NAME
            raise UploadError("This file is not here: send it again.")
        try:
            yield path, _name_of(upload)
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds the same file under another name
                path.parent.rmdir()

    def _decode(self, path: Path, name: str) -> tuple[NDArray[np.uint8], list[str]]:
        """-> uint8 [V,T,H,W,3] as the model takes them, and what is odd about the file.

        Raises UploadError.
        """
        predictor = self.predictor
        try:
            if path.suffix.lower() not in VIDEO_SUFFIXES:
                raise UploadError(f"send one of {', '.join(VIDEO_SUFFIXES)}.")
            decoded, pixels = self._decoder.call(
                path, self.limits.max_seconds, asdict(predictor.sampler), predictor.frame_size,
                predictor.fit,
            )  # fmt: skip
        except (UploadError, DecoderError) as error:
            raise UploadError(f"{name} was not predicted: {error}") from error
        shape = (decoded["num_clips"], *self._clip_shape)
        return predictor.take_views(pixels[: np.prod(shape)].reshape(shape)), decoded["warnings"]

    def _predict(self, clips: NDArray[np.uint8]) -> list[tuple[str, float]]:
        return self.predictor.top_classes(self.predictor.predict_clips(clips).mean(0), 5)

    def _draw(self, clip: NDArray[np.uint8], name: str, warnings: Sequence[str]) -> str:
        predictor = self.predictor
        html = "".join(f"<p>{escape(text)}</p>" for text in (name, *warnings))
        html += _figure("png", frame_strip(clip), "Frames of the clip, in order.")
        if map_name := grad_cam.map_name(predictor.model, predictor.model_name):
            gif = grad_cam.encode_gif(grad_cam.animate_clip(predictor, clip))
            html += _figure("gif", gif, f"The clip, and beside it the clip with its {map_name}.")
        return html

    def _remove_idle_uploads(self) -> None:
        for path in self.upload_dir.iterdir():
            if time.time() - path.stat().st_mtime > _MAX_IDLE_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:  # the part of an upload that was broken off
                    path.unlink(missing_ok=True)


def remove_abandoned_folders() -> None:
    """Remove the folders that servers left which were killed."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows locks no folders
        return
    for uploads in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_UPLOADS}"):
        with contextlib.suppress(OSError), LocalFolder(uploads.parent).locked() as is_abandoned:
            if is_abandoned:
                shutil.rmtree(uploads.parent)


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


def _name_of(upload: Mapping[str, Any]) -> str:
    """What to show as its name: a client may send a path."""
    name = str(upload.get("orig_name") or upload.get("path") or "")
    return name.replace("\\", "/").rsplit("/", 1)[-1][:120]

"""What stands behind the page of `har-serve`: an uploaded file in, probabilities and HTML out.

Notes: an answer goes to the page as text and data: URLs, so that no file of it lies in Gradio's
cache. The uploaded file is removed with its answer, and the cache folder, our own, at the end.
"""

import base64
import contextlib
import io
import shutil
import tempfile
import time
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...pipeline.decode import VIDEO_SUFFIXES, DecoderError, DecoderProcess
from ..inference import grad_cam
from ..inference.predictor import Predictor
from ..inference.uploaded_video import UploadError, UploadLimits, decode_upload

_MAX_IDLE_SECONDS = 600  # an uploaded file that nobody asks about is removed after these
_NUM_STRIP_FRAMES = 8
_MEMORY_LIMIT = 5 << 30  # bytes that the decoder may take for a video


class VideoService:
    """Predictor, decoder process and the folder of uploads."""

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
            path, self.limits.max_seconds, asdict(predictor.sampler), predictor.frame_size,
            predictor.fit,
        )  # fmt: skip
        shape = (num_clips, *self._clip_shape)
        clips = predictor.take_views(pixels[: np.prod(shape)].reshape(shape))
        top = predictor.top_classes(predictor.predict_clips(clips).mean(0), 5)
        html = f"<p>{escape(name)}</p>"
        html += _figure("png", frame_strip(clips[0]), "Frames of the clip, in order.")
        if map_name := grad_cam.map_name(predictor.model, predictor.model_name):
            gif = grad_cam.encode_gif(grad_cam.animate_clip(predictor, clips[0]))
            html += _figure("gif", gif, f"The clip, and beside it the clip with its {map_name}.")
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

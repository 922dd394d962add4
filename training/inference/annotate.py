"""A video written out again with the label of every moment drawn in: `har-predict --annotate`.

Odd: the pictures keep their own times, so a video of changing frame rate stays in step; sound is
left out. Sizes are rounded down to even numbers, which yuv420p needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HarError
from . import windows
from .windows import Piece

if TYPE_CHECKING:
    from PIL.Image import Image

    from .predictor import Frame

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi")
_CLOCK = Fraction(1, 90_000)  # seconds a tick
_INK, _BAR, _GROUND = (255, 255, 255, 255), (90, 170, 255, 255), (0, 0, 0, 170)


class AnnotateError(HarError):
    """A video that cannot be written as asked; one sentence."""


def check_name(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise AnnotateError(f"--annotate {path} is no video's name: end it in .mp4.")


def write(
    path: Path, frames: Iterable[Frame], pieces: Sequence[Piece], classes: Sequence[str]
) -> Path:
    """Write `frames` with the label of `pieces` at their time; -> path, whole or not at all.

    Raises AnnotateError for a name that is no video's; the errors of `frames` pass through.
    """
    import av

    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        with av.open(str(unfinished), "w") as out:
            _encode(out, frames, pieces, classes)
        os.replace(unfinished, path)
    except av.FFmpegError as error:
        reason = error.strerror or error
        raise AnnotateError(f"{path} cannot be written ({reason}): try .mp4 or .mkv.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _encode(
    out: Any, frames: Iterable[Frame], pieces: Sequence[Piece], classes: Sequence[str]
) -> None:
    import av

    stream: Any = None
    strips: dict[int, NDArray[np.uint8]] = {}  # one a piece: text is drawn once, not every frame
    last = -1
    for frame in frames:
        rgb = frame.rgb()
        rgb = rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2]
        if stream is None:
            stream = _stream(out, frame.fps, rgb.shape)
        piece = windows.at(pieces, frame.seconds)
        if id(piece) not in strips:
            strips[id(piece)] = _strip(piece, classes, stream.width, stream.height)
        if rgb.shape[:2] != (stream.height, stream.width):  # a few videos change size on the way
            rgb = _fit(rgb, stream.width, stream.height)
        picture = av.VideoFrame.from_ndarray(lay(rgb, strips[id(piece)]), format="rgb24")
        last = max(last + 1, round(frame.seconds / _CLOCK))
        picture.pts, picture.time_base = last, _CLOCK
        out.mux(stream.encode(picture))
    if stream is not None:
        out.mux(stream.encode())


def _stream(out: Any, fps: float, shape: Sequence[int]) -> Any:
    """An H.264 stream, or MPEG-4 part 2 where this FFmpeg has no libx264."""
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    stream = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
    stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "yuv420p"
    if codec == "libx264":
        stream.options = {"crf": "20", "preset": "fast"}
        stream.codec_context.time_base = _CLOCK  # MPEG-4 part 2 allows at most 65,535 ticks
    else:
        stream.bit_rate = 4_000_000
    return stream


def _fit(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).resize((width, height)))


def lay(rgb: NDArray[np.uint8], strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay an RGBA strip [h,W,4] over the lower edge of a frame [H,W,3]; -> a new frame."""
    out = rgb.copy()
    below = out[len(out) - len(strip) :]
    share = strip[..., 3:].astype(np.float32) / 255
    below[:] = (below * (1 - share) + strip[..., :3] * share).round().astype(np.uint8)
    return out


def _strip(piece: Piece, classes: Sequence[str], width: int, height: int) -> NDArray[np.uint8]:
    """The label, its probability, and a bar of that length: RGBA [h,W,4], h about 1/8 of H."""
    share = float(piece.probabilities[piece.label])
    return np.asarray(label(classes[piece.label], share, width, max(18, height // 8)))


def label(name: str, share: float, width: int, height: int) -> Image:
    """A strip `width` x `height` with a class, its probability and a bar, as an RGBA image."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGBA", (width, height), _GROUND)
    draw = ImageDraw.Draw(strip)
    margin, bar = max(3, height // 6), max(2, height // 10)
    draw.rectangle((0, height - bar, round(share * width) - 1, height - 1), fill=_BAR)
    number = f"{share:.2f}"
    size = (height - bar) * 0.62
    letters = font(size)
    room = width - 3 * margin - draw.textlength(number, letters)
    while draw.textlength(name, letters) > room and size > 6:
        size *= 0.92
        letters = font(size)
    middle = (height - bar) / 2
    draw.text((margin, middle), name, _INK, letters, anchor="lm")
    draw.text((width - margin, middle), number, _INK, letters, anchor="rm")
    return strip


def font(size: float) -> Any:
    """DejaVu Sans, which comes with matplotlib and has more letters than Pillow's own."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)

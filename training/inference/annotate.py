"""`har-predict --annotate`: the video written again, with the label of every moment drawn into it.

Notes: frames keep their own times, so a video of variable frame rate stays in step; sound is left
out. Sizes are rounded down to even numbers, which yuv420p needs.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import matplotlib
from PIL import Image, ImageDraw, ImageFont

from ...atomic import replacing
from .predictor import Frame
from .windows import PredictionError, Segment, segment_at

CONTAINER_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".avi": "avi"}
_TIME_BASE = Fraction(1, 90_000)  # seconds
_TEXT_COLOR, _BAR_COLOR, _BACKGROUND = (255, 255, 255, 255), (90, 170, 255, 255), (0, 0, 0, 170)


def write_annotated(
    path: Path, frames: Iterable[Frame], segments: Sequence[Segment], classes: Sequence[str]
) -> Path:
    """Write `frames` with the label of `segments` at their time; -> path, whole or not at all.

    path: its suffix is one of CONTAINER_FORMATS. Raises PredictionError for a failed write; errors
    of `frames` pass through.
    """
    container_format = CONTAINER_FORMATS[path.suffix.lower()]
    try:
        with (
            replacing(path) as temporary,
            av.open(str(temporary.absolute()), "w", format=container_format) as container,
        ):
            _encode(container, frames, segments, classes)
    except av.FFmpegError as error:
        reason = error.strerror or error
        raise PredictionError(f"{path} cannot be written ({reason}): try .mp4 or .mkv.") from error
    return path


def _encode(
    container: Any, frames: Iterable[Frame], segments: Sequence[Segment], classes: Sequence[str]
) -> None:
    stream: Any = None
    strips: dict[int, Image.Image] = {}  # by segment: text is drawn once, not every frame
    last_pts = -1
    for frame in frames:
        image = Image.fromarray(frame.rgb())
        if stream is None:
            stream = _add_stream(container, frame.fps, image.width // 2 * 2, image.height // 2 * 2)
        size = (stream.width, stream.height)
        if (image.width // 2 * 2, image.height // 2 * 2) != size:
            image = image.resize(size)  # some videos change their size midway
        image = image.crop((0, 0, *size))
        segment = segment_at(segments, frame.seconds)
        if id(segment) not in strips:
            probability = float(segment.probabilities[segment.label])
            height = max(18, stream.height // 8)
            strips[id(segment)] = draw_label(
                classes[segment.label], probability, stream.width, height
            )
        strip = strips[id(segment)]
        image.paste(strip, (0, stream.height - strip.height), strip)
        av_frame = av.VideoFrame.from_image(image)
        last_pts = max(last_pts + 1, round(frame.seconds / _TIME_BASE))
        av_frame.pts, av_frame.time_base = last_pts, _TIME_BASE
        container.mux(stream.encode(av_frame))
    if stream is not None:
        container.mux(stream.encode())


def _add_stream(container: Any, fps: float, width: int, height: int) -> Any:
    """An H.264 stream, or MPEG-4 part 2 where this FFmpeg has no libx264."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    if codec == "libx264":
        stream.options = {"crf": "20", "preset": "fast"}
        stream.codec_context.time_base = _TIME_BASE  # MPEG-4 part 2 allows at most 1/65,535 s
    else:
        stream.bit_rate = 4_000_000
    return stream


def draw_label(name: str, probability: float, width: int, height: int) -> Image.Image:
    """A strip `width` x `height` with a class, its probability and a bar of that length, RGBA."""
    strip = Image.new("RGBA", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    margin, bar_height = max(3, height // 6), max(2, height // 10)
    bar = (0, height - bar_height, round(probability * width) - 1, height - 1)
    draw.rectangle(bar, fill=_BAR_COLOR)
    number = f"{probability:.2f}"
    size = (height - bar_height) * 0.62
    font = _load_font(size)
    max_width = width - 3 * margin - draw.textlength(number, font)
    while draw.textlength(name, font) > max_width and size > 6:
        size *= 0.92
        font = _load_font(size)
    middle = (height - bar_height) / 2
    draw.text((margin, middle), name, _TEXT_COLOR, font, anchor="lm")
    draw.text((width - margin, middle), number, _TEXT_COLOR, font, anchor="rm")
    return strip


def _load_font(size: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has more letters than Pillow's own."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)

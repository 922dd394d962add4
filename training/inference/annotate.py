"""`har-predict --annotate`: the video written again, with the label of every moment drawn into it.

Notes:
- Frames keep their own times, so a video of variable frame rate stays in step, and so does its
  sound (`sound`). AVI knows one rate only, and such videos are refused there.
- The picture keeps its size and the shape of its pixels. H.264 of an odd width or height is written
  with full color (4:4:4), for 4:2:0 has one color for two pixels.
"""

import contextlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw

from ...atomic import replacing
from ...fonts import load_font
from ...shards.storage import DISK_ERRORS
from .frames import Frame
from .sound import SoundCopy
from .windows import UNKNOWN, PredictionError, Segment, segment_at

CONTAINER_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".avi": "avi"}
_TIME_BASE = Fraction(1, 90_000)  # seconds
_MPEG4_TIME_BASE = Fraction(1, 60_000)  # MPEG-4 part 2 allows at most 1/65,535
_TEXT_COLOR, _BAR_COLOR, _BACKGROUND = (255, 255, 255, 255), (90, 170, 255, 255), (0, 0, 0, 170)


def write_annotated(
    path: Path,
    frames: Iterable[Frame],
    segments: Sequence[Segment],
    classes: Sequence[str],
    *,
    sound: Path | None = None,
    threshold: float = 0.0,
) -> list[str]:
    """Write `frames` with the label of `segments` at their time, whole or not at all; -> what is
    to be said of the sound, "it" is the video.

    path: its suffix is one of CONTAINER_FORMATS. sound: the file whose sound it gets. threshold: a
    label of a lower probability is "unknown". Raises PredictionError for a failed write; errors of
    `frames` pass through.
    """
    container_format = CONTAINER_FORMATS[path.suffix.lower()]
    try:
        with (
            replacing(path) as temporary,
            av.open(str(temporary.absolute()), "w", format=container_format) as container,
        ):
            return _encode(container, frames, _Labels(segments, classes, threshold), sound)
    except av.FFmpegError as error:
        reason = error.strerror or error
        is_full = error.errno in DISK_ERRORS
        hint = "free some space, or write to another disk" if is_full else "try .mp4 or .mkv"
        raise PredictionError(f"{path} cannot be written ({reason}): {hint}.") from error


class _Labels:
    """Draws the label of a moment; the text of a segment is drawn once, not for every frame."""

    def __init__(
        self, segments: Sequence[Segment], classes: Sequence[str], threshold: float
    ) -> None:
        self._segments, self._classes, self._threshold = segments, classes, threshold
        self._strips: dict[int, Image.Image] = {}

    def draw(self, image: Image.Image, seconds: float) -> None:
        segment = segment_at(self._segments, seconds)
        if id(segment) not in self._strips:
            name = self._classes[segment.label] if segment.reaches(self._threshold) else UNKNOWN
            probability = float(segment.probabilities[segment.label])
            height = max(18, image.height // 8)
            self._strips[id(segment)] = draw_label(name, probability, image.width, height)
        strip = self._strips[id(segment)]
        image.paste(strip, (0, image.height - strip.height), strip)


def _encode(
    container: Any, frames: Iterable[Frame], labels: _Labels, sound: Path | None
) -> list[str]:
    stream: Any = None
    copy: SoundCopy | None = None
    last_pts = -1
    with contextlib.ExitStack() as stack:
        for frame in frames:
            image = Image.fromarray(frame.rgb())
            if stream is None:
                stream = _add_stream(container, frame, image.size)
                if sound is not None and not sound.is_dir():
                    copy = SoundCopy(sound, container, frame.start)
                    stack.callback(copy.close)
            size = (stream.width, stream.height)
            if image.size != size:
                image = image.resize(size)  # some videos change their size midway
            labels.draw(image, frame.seconds)
            av_frame = av.VideoFrame.from_image(image)
            time_base = stream.codec_context.time_base
            pts = round(frame.seconds / time_base)
            if pts <= last_pts and container.format.name == "avi":
                raise PredictionError(
                    "the video has frames at uneven times, which AVI cannot hold: give --annotate "
                    "a name that ends in .mp4 or .mkv."
                )
            last_pts = max(last_pts + 1, pts)
            av_frame.pts, av_frame.time_base = last_pts, time_base
            if copy is not None:
                copy.write_until(frame.seconds)
            container.mux(stream.encode(av_frame))
        if stream is not None:
            container.mux(stream.encode())
        if copy is not None:
            copy.write_until(float("inf"))
    return copy.notes if copy is not None else []


def _add_stream(container: Any, frame: Frame, size: tuple[int, int]) -> Any:
    """An H.264 stream, or MPEG-4 part 2 where this FFmpeg has no libx264. size: (width, height)."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    rate = Fraction(frame.fps).limit_denominator(1001)
    stream = container.add_stream(codec, rate=rate)
    (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
    stream.codec_context.sample_aspect_ratio = frame.pixel_aspect
    stream.codec_context.time_base = _TIME_BASE if codec == "libx264" else _MPEG4_TIME_BASE
    if container.format.name == "avi":
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.max_b_frames = 0  # AVI has no times of presentation
    if codec == "libx264":
        stream.options = {"crf": "20", "preset": "fast"}
        stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
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
    font, number_font = load_font(name, size), load_font(number, size)
    max_width = width - 3 * margin - draw.textlength(number, number_font)
    while draw.textlength(name, font) > max_width and size > 6:
        size *= 0.92
        font, number_font = load_font(name, size), load_font(number, size)
    middle = (height - bar_height) / 2
    draw.text((margin, middle), name, _TEXT_COLOR, font, anchor="lm")
    draw.text((width - margin, middle), number, _TEXT_COLOR, number_font, anchor="rm")
    return strip

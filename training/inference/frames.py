"""Every frame of a video file, one after the other: for windows over it and for its copy."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ...pipeline.decode import (
    FILE_FAULTS,
    IMAGE_FPS,
    FrameClock,
    VideoDecodeError,
    check_whole,
    describe_streams,
    find_images,
    is_turned,
    open_video,
    read_image,
    reason,
    upright,
)


@dataclass(frozen=True)
class Frame:
    """One decoded frame. seconds: since the first; fps: of the stream. pixel_aspect: width of a
    pixel by its height, upright. start: of the first frame, in the file's own time, seconds."""

    seconds: float
    fps: float
    av_frame: av.VideoFrame
    pixel_aspect: Fraction = Fraction(1)
    start: float = 0.0

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 [H,W,3], RGB, upright."""
        pixels = np.asarray(self.av_frame.to_ndarray(format="rgb24"), np.uint8)
        return np.ascontiguousarray(upright(pixels, self.av_frame))


def read_frames(
    path: Path | str,
    stream: int | None = None,
    warnings: dict[str, Any] | None = None,
    opened: Callable[[], None] = lambda: None,
) -> Iterator[Frame]:
    """Every frame of a video file, or a folder of images, in the order of presentation.

    stream: index of the video stream, None = the one that a player shows. warnings: gets, behind
    the last frame, what is odd about the file (`Clip.warnings`). opened: is called once the file is
    open. Raises VideoDecodeError, also for a file that is cut off.
    """
    if Path(path).is_dir():
        yield from _read_images(Path(path))
        return
    try:
        with open_video(path, stream=stream) as (container, video):
            check_whole(path, video)
            clock = FrameClock.of_stream(container, video)
            streams = describe_streams(container, video)
            aspect = Fraction(video.sample_aspect_ratio or 1)
            opened()
            start: float | None = None
            for frame in container.decode(video):
                seconds = clock.tick(clock.stamp(frame))
                start = clock.start if start is None else start  # later stamps may be mended
                shape = 1 / aspect if is_turned(frame) else aspect
                yield Frame(seconds, clock.rate, frame, shape, start)
            check_whole(path, video)  # of a file in fragments, it is known now
    except FILE_FAULTS as error:
        raise VideoDecodeError(f"{path} cannot be decoded ({reason(error)}).") from error
    if clock.num_frames == 0:
        raise VideoDecodeError(f"{path} has no frame that decodes.")
    if warnings is not None:
        warnings |= streams | ({"guessed_times": clock.num_guessed} if clock.num_guessed else {})


def _read_images(folder: Path) -> Iterator[Frame]:
    clock = FrameClock(1 / IMAGE_FPS, IMAGE_FPS)
    try:
        for number, path in enumerate(find_images(folder)):
            yield Frame(clock.tick(number), IMAGE_FPS, read_image(path))
    except OSError as error:
        raise VideoDecodeError(f"{folder} cannot be decoded ({reason(error)}).") from error
    if clock.num_frames == 0:
        raise VideoDecodeError(f"{folder} has no numbered images that can be read.")

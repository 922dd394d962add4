"""Presentation time stamps -> seconds since the first frame, also where stamps are broken."""

from __future__ import annotations

import math
from collections.abc import Iterable

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# A longer step is no pause but a wrong stamp. These are ffmpeg's own limits (dts_delta_threshold,
# dts_error_threshold): MPEG's streams may start their clock again at any place, other files not.
_MAX_STEP_MPEG, _MAX_STEP = 10.0, 30 * 3600.0
_DEFAULT_RATE = 25.0  # as libavformat's, where a file says nothing
_DEFAULT_SAMPLES = 1024  # of a frame of sound whose codec has no fixed number


class FrameClock:
    """Gives each frame its time, in the order of presentation.

    time_base: seconds of one unit of the stamps. rate: frames a second, 0 where unknown. A frame
    whose stamp is missing, not later than that of the frame before or too far from it comes one
    step of the rate after that frame, and later stamps count from there. num_guessed: how many
    those are.
    has_pts: False for AVI, in which frames come at the rate. Its stamps are those of decoding: they
    show where a frame was left out, and the last ones may be missing.
    """

    def __init__(
        self, time_base: float, rate: float, max_step: float = _MAX_STEP, has_pts: bool = True
    ) -> None:
        self.rate, self.has_pts = rate or _DEFAULT_RATE, has_pts
        self._time_base, self._max_step = time_base, max_step
        self._start: float | None = None  # stamp, in seconds, of the moment 0
        self.seconds = 0.0  # of the last frame
        self.step = 1 / self.rate  # between the last two frames
        self.num_frames = self.num_guessed = 0
        self._last_stamps: tuple[float, float] = (-math.inf, -math.inf)  # of frames: pts, dts
        self._num_wrong = [0, 0]  # how many of each fell

    @classmethod
    def of_stream(cls, container: InputContainer, stream: VideoStream) -> FrameClock:
        """The clock of a stream's frames: their stamps are in its time base."""
        return cls._of(container, stream, float(stream.average_rate or stream.guessed_rate or 0))

    @classmethod
    def of_sound(cls, container: InputContainer, stream: AudioStream) -> FrameClock:
        """The clock of a stream of sound: its frames are those of the codec."""
        codec = stream.codec_context
        num_samples = codec.frame_size or _DEFAULT_SAMPLES
        return cls._of(container, stream, codec.sample_rate / num_samples)

    @classmethod
    def _of(cls, container: InputContainer, stream: Stream, rate: float) -> FrameClock:
        name = container.format.name
        max_step = _MAX_STEP_MPEG if name in ("mpegts", "mpeg") else _MAX_STEP
        return cls(float(stream.time_base or 0), rate, max_step, name != "avi")

    @property
    def start(self) -> float:
        """The moment 0 in the file's own time, in seconds; 0 where the file has no such times."""
        return self._start or 0.0 if self.has_pts else 0.0

    @property
    def end(self) -> float:
        """When the last frame ends, in seconds: it lasts as long as the one before it."""
        return self.seconds + self.step

    def stamp(self, timed: Packet | VideoFrame | AudioFrame) -> int | None:
        """Which of its stamps counts. Frames are given in the order in which they are decoded.

        Some files have times of decoding as those of presentation (MPEG-4 copied out of an AVI):
        of frames that kind counts of which fewer fell, as in libavcodec's `guess_correct_pts`.
        """
        pts, dts = timed.pts, timed.dts
        if not self.has_pts or pts is None or dts is None or isinstance(timed, Packet):
            return pts if self.has_pts and pts is not None else dts
        is_wrong = (pts <= self._last_stamps[0], dts <= self._last_stamps[1])
        self._num_wrong = [sum(pair) for pair in zip(self._num_wrong, is_wrong, strict=True)]
        self._last_stamps = (pts, dts)
        return pts if self._num_wrong[0] <= self._num_wrong[1] else dts

    def tick(self, stamp: int | None) -> float:
        """The time of the next frame, in seconds since the first."""
        time = None if stamp is None else stamp * self._time_base
        if self.num_frames == 0:
            self._start = time
        else:
            seconds = self.seconds
            if time is not None and self._start is not None:
                seconds = time - self._start
            if not 0 < seconds - self.seconds <= self._max_step:
                self.num_guessed += self.has_pts or time is not None
                seconds = self.seconds + 1 / self.rate
                self._start = self._start if time is None else time - seconds
            self.seconds, self.step = seconds, seconds - self.seconds
        self.num_frames += 1
        return self.seconds

    def times(self, stamps: Iterable[int | None]) -> list[float]:
        """`tick` for each."""
        return [self.tick(stamp) for stamp in stamps]

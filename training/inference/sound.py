"""The sound of a video, for a copy of it: its packets as they are, or encoded anew.

Notes:
- Times count from the first frame of the video, as those of the copied frames do. Stamps that are
  missing or jump are replaced as those of frames are (`FrameClock`).
- What begins before the first frame is left out; of AAC that is one packet of 0.02 s.
"""

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream

from ...pipeline.decode import FILE_FAULTS, FrameClock
from .windows import PredictionError

_EARLIEST = -0.001  # seconds: what begins before is left out
_LATEST_START_AVI = 0.1  # seconds: AVI keeps no times, sound begins with the picture
_TimedPacket = tuple[float, Any]  # seconds since the first frame


class SoundCopy:
    """The sound of `source`, a file, on its way into `target`, a container that no packet was
    written to: it gets the streams.

    start: seconds, in the file's own time, of its first frame. notes: what became of the sound
    where it is not just copied, after `close`. Raises what `av.open` raises.
    """

    def __init__(self, source: Path, target: Any, start: float) -> None:
        self.notes: list[str] = []
        self._target = target
        self._stack = contextlib.ExitStack()
        file = str(source.absolute())
        container = self._stack.enter_context(av.open(file, metadata_errors="replace"))
        self._tracks = {
            stream.index: _Track(stream, added, FrameClock.of_sound(container, stream))
            for stream in container.streams.audio
            if (added := self._add_stream(stream)) is not None
        }
        self._packets = self._convert(container, start)
        self._next = next(self._packets, None)
        if self._next and target.format.name == "avi" and self._next[0] > _LATEST_START_AVI:
            raise PredictionError(
                f"the sound begins {self._next[0]:.2f} s after the picture, which AVI cannot hold: "
                "give --annotate a name that ends in .mp4 or .mkv."
            )

    def write_until(self, seconds: float) -> None:
        """Write what begins before that moment; inf for all."""
        while self._next is not None and self._next[0] < seconds:
            self._target.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._stack.close()
        num_damaged = sum(track.num_damaged for track in self._tracks.values())
        if num_damaged:
            packets = "packet of its sound is" if num_damaged == 1 else "packets of its sound are"
            self.notes.append(f"{num_damaged} {packets} damaged and left out.")

    def _add_stream(self, stream: AudioStream) -> Any:
        """The stream of the target for one of the source; None where there can be none."""
        container = self._target.format.name
        if _carries(container, stream):
            return self._target.add_stream_from_template(stream)
        codec_context: Any = stream.codec_context
        if codec_context is None:
            self.notes.append("its sound is of an unknown codec and left out.")
            return None
        codec = "mp3" if container == "avi" and "mp3" in av.codecs_available else "aac"
        name = codec_context.codec.canonical_name
        self.notes.append(f"its sound was encoded anew, {name} as {codec}, for {container}.")
        rate, rates = codec_context.sample_rate, av.Codec(codec, "w").audio_rates or ()
        encoded = self._target.add_stream(codec, rate=rate if rate in rates else 48_000)
        encoded.codec_context.layout = "mono" if codec_context.channels == 1 else "stereo"
        return encoded

    def _convert(self, container: Any, start: float) -> Iterator[_TimedPacket]:
        streams = [container.streams[index] for index in self._tracks]
        for packet in container.demux(streams) if streams else ():
            yield from self._tracks[packet.stream.index].convert(packet, start)


class _Track:
    """One stream. num_damaged: packets that do not decode."""

    def __init__(self, source: AudioStream, target: Any, clock: FrameClock) -> None:
        self._source, self._target, self._clock = source, target, clock
        self._is_copy = not target.codec_context.codec.is_encoder
        self._first: float | None = None  # seconds, in the file's own time
        self._num_samples = 0  # that end before the next frame of sound
        self.num_damaged = 0

    def convert(self, packet: Any, start: float) -> Iterator[_TimedPacket]:
        """A packet of the source, an empty one at its end -> packets of the target."""
        if self._is_copy:
            if packet.size and (seconds := self._seconds(packet) - start) > _EARLIEST:
                packet.pts = packet.dts = round(seconds / float(packet.time_base))
                packet.stream = self._target
                yield seconds, packet
            return
        frames = []
        try:
            frames = self._source.codec_context.decode(packet if packet.size else None)
        except FILE_FAULTS:
            self.num_damaged += 1
        for frame in frames:
            if (seconds := self._seconds(frame) - start) > _EARLIEST:
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = max(self._num_samples, round(seconds * frame.sample_rate))
                self._num_samples = frame.pts + frame.samples  # stamps may be too coarse
                for encoded in self._target.encode(frame):
                    yield float(encoded.pts * encoded.time_base), encoded
        if not packet.size:
            for encoded in self._target.encode(None):
                yield float(encoded.pts * encoded.time_base), encoded

    def _seconds(self, timed: Any) -> float:
        """In the file's own time."""
        stamp = self._clock.stamp(timed)
        if self._first is None:
            self._first = float((stamp or 0) * (self._source.time_base or 0))
        return self._first + self._clock.tick(stamp)


def _carries(container: str, stream: AudioStream) -> bool:
    """Whether a container holds the packets of a stream as they are: one is begun to find out."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True

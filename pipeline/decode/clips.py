"""A video -> clips, uint8 [T,H,W,3], exactly the frames that a plain decode from the start gives.

`decode_clips` reads the packets and then goes one of two ways:
- Only the pictures that the chosen frames need are decoded (`packets`). Where one of them is
  damaged, or a frame does not come out, the second way is taken; damage in a picture that nothing
  needs is not seen.
- Every frame is decoded, and only the chosen ones are converted: streams that cannot be trusted in
  part, files too large to hold. The number of packets is taken for the number of frames; where the
  decode gives another number, the frames are chosen again, and a second decode fetches those that
  are missing.
A folder of numbered images is a video as well (`images`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ..sampling import ClipSampler
from .container import FILE_FAULTS, VideoDecodeError, open_video, reason
from .frames import FrameResizer
from .images import IMAGE_FPS, find_images, read_image
from .packets import decode_frames
from .scan import Scan, Warnings, scan_video
from .timestamps import FrameClock

_NewResizer = Callable[[], FrameResizer]
logging.getLogger("libav").setLevel(logging.CRITICAL)  # a fault is raised, and said once


@dataclass(frozen=True)
class Clip:
    """One clip of a video.

    pixels: uint8 [T,H,W,3], RGB, upright. frame_indices: the T frames, counted in presentation
    order; the last `num_padded` of them repeat the last frame. num_decoded: frames that decode;
    num_declared: that the header claims (0 = it says nothing). fps: 0.0 where unknown.
    source_size: (height, width) of the video's frames, upright. stream: the index of the video
    stream, where the file has several. warnings: what was odd, by name:
    - streams: where the file has several video streams, their indices and which was taken.
    - no_length: True where a file of this kind does not say how long it is: a cut is not seen.
    - guessed_times: frames without a usable time stamp, where the sampler goes by time.
    - repaired: frames that FFmpeg could decode only in part, where all frames are decoded.
    - lost: what `keep_partial` went on without, see `_lost`.
    """

    pixels: np.ndarray
    frame_indices: tuple[int, ...]
    num_padded: int
    num_decoded: int
    num_declared: int
    fps: float
    source_size: tuple[int, int]
    stream: int | None = None
    warnings: Warnings = field(default_factory=dict)


def decode_clip(
    path: Path | str,
    *,
    frames: int = 16,
    size: tuple[int, int] = (128, 171),
    rule: str = "paper",
    stride: int | None = None,
    fps: float | None = None,
    stream: int | None = None,
    fit: str = "squeeze",
    keep_partial: bool = False,
) -> Clip:
    """The one clip of a video that its shard would hold: same rule, same pixels.

    size: (H, W). fit, keep_partial: see `decode_clips`; the others are those of `ClipSampler`.
    Raises VideoDecodeError, and SamplingError for options that make no sense.
    """
    sampler = ClipSampler(rule, frames, stride, fps=fps, stream=stream)
    return decode_clips(path, sampler, size, fit=fit, keep_partial=keep_partial)[0]


def decode_clips(
    path: Path | str,
    sampler: ClipSampler,
    size: tuple[int, int],
    *,
    fit: str = "squeeze",
    keep_partial: bool = False,
    out: np.ndarray | None = None,
    opened: Callable[[], None] = lambda: None,
) -> list[Clip]:
    """All clips that `sampler` takes of a video, resized straight to `size` (H, W).

    fit: what becomes of frames of another shape (`frames.FITS`): "squeeze" to `size`, "crop" the
    center, or "pad" with black. keep_partial: take what decodes before and behind a fault, instead
    of raising. out: uint8 [K*T,H,W,3] for the pixels; those of a single clip without padding lie
    there, others may be copies. opened: is called once the file is open and its packets are read.
    Raises VideoDecodeError.
    """
    path = Path(path)
    if out is None:
        out = np.empty((sampler.clips * sampler.frames, *size, 3), np.uint8)
    new_resizer = functools.partial(FrameResizer, out, fit)
    try:
        if path.is_dir():
            opened()
            scan, decoded = _decode_images(path, sampler, new_resizer, keep_partial)
        else:
            scan, decoded = _decode_file(path, sampler, new_resizer, keep_partial, opened)
    except FILE_FAULTS as error:
        raise VideoDecodeError(f"{path} cannot be decoded ({reason(error)}).") from error
    if decoded.num_decoded == 0:
        raise VideoDecodeError(f"{path} has no frame that decodes.")
    warnings = {**scan.warnings, "repaired": decoded.num_repaired, "lost": _lost(scan, decoded)}
    if sampler.fps is not None:
        warnings["guessed_times"] = decoded.clock.num_guessed
    return [
        Clip(
            pixels=decoded.select(clip.frame_indices),
            frame_indices=clip.frame_indices,
            num_padded=clip.num_padded,
            num_decoded=decoded.num_decoded,
            num_declared=scan.num_declared,
            fps=scan.fps,
            source_size=decoded.resizer.source_size,
            stream=scan.stream,
            warnings={name: value for name, value in warnings.items() if value},
        )
        for clip in sampler.clip_indices(decoded.num_decoded, decoded.seconds)
    ]


def decode_only(path: Path, sampler: ClipSampler) -> int:
    """Decode what `decode_clips` would and convert nothing: the ceiling of a benchmark.

    -> how many frames of the clip came out. Raises VideoDecodeError.
    """
    with contextlib.ExitStack() as stack:
        scan, decoder = scan_video(path, stack, sampler)
        if scan.index is None:
            opened, stream = stack.enter_context(open_video(path, stream=sampler.stream))
            num_decoded = sum(1 for _ in opened.decode(stream))
            return sampler.frames if num_decoded else 0
        indices = _frame_indices(sampler, scan.index.num_frames, scan.seconds)
        return sum(1 for _ in decode_frames(scan.index, decoder, indices))


@dataclass(frozen=True)
class _DecodedFrames:
    """resizer: has the finished frames. num_decoded: how many frames the video has. seconds, clock:
    see `Scan`. num_failed: faults that the decode went past. num_repaired: see `Clip`."""

    resizer: FrameResizer
    num_decoded: int
    seconds: list[float] | None
    clock: FrameClock
    num_failed: int = 0
    num_repaired: int = 0

    def select(self, frame_indices: tuple[int, ...]) -> np.ndarray:
        """uint8 [T,H,W,3]: no copy where the clip is exactly what was decoded."""
        pixels = self.resizer.finish()
        if tuple(self.resizer.indices) == frame_indices:
            return pixels
        rows = {index: row for row, index in enumerate(self.resizer.indices)}
        return pixels[[rows[index] for index in frame_indices]]


def _lost(scan: Scan, decoded: _DecodedFrames) -> dict[str, float]:
    """What is not there though the file says so, as far as it is known; {} where nothing is lost.

    packets: that do not decode. frames: fewer than the header declares. seconds: that the video
    ends before its time. bytes: missing at the end of the file.
    """
    if not decoded.num_failed and not scan.num_missing:
        return {}
    seconds = scan.duration - decoded.clock.end
    lost = {
        "packets": decoded.num_failed,
        "frames": max(0, scan.num_declared - decoded.num_decoded),
        "seconds": round(seconds, 3) if seconds > decoded.clock.step / 2 else 0,
        "bytes": scan.num_missing,
    }
    return {name: value for name, value in lost.items() if value}


def _frame_indices(sampler: ClipSampler, n: int, seconds: Sequence[float] | None) -> set[int]:
    return {index for clip in sampler.clip_indices(n, seconds) for index in clip.frame_indices}


def _decode_images(
    folder: Path, sampler: ClipSampler, new_resizer: _NewResizer, keep_partial: bool
) -> tuple[Scan, _DecodedFrames]:
    """Read the chosen images of a folder; keep_partial: one that cannot be read is no frame."""
    paths, num_failed = find_images(folder), 0
    num_declared = len(paths)
    while paths:
        clock, resizer = FrameClock(1 / IMAGE_FPS, IMAGE_FPS), new_resizer()
        seconds = clock.times(range(len(paths)))
        for index in sorted(_frame_indices(sampler, len(paths), seconds)):
            try:
                resizer.add(index, read_image(paths[index]))
            except OSError:
                if not keep_partial:
                    raise
                del paths[index]
                num_failed += 1
                break  # and choose again
        else:
            resizer.finish()
            scan = Scan(num_declared, num_declared, IMAGE_FPS, None, seconds, clock)
            return scan, _DecodedFrames(resizer, len(paths), seconds, clock, num_failed)
    raise VideoDecodeError(f"{folder} has no numbered images that can be read.")


def _decode_file(
    path: Path,
    sampler: ClipSampler,
    new_resizer: _NewResizer,
    keep_partial: bool,
    opened: Callable[[], None],
) -> tuple[Scan, _DecodedFrames]:
    with contextlib.ExitStack() as stack:
        scan, decoder = scan_video(path, stack, sampler, keep_partial)
        opened()
        decoded = _decode_needed(scan, decoder, sampler, new_resizer)
    return scan, decoded or _decode_all(path, scan, sampler, new_resizer, keep_partial)


def _decode_needed(
    scan: Scan, decoder: VideoCodecContext, sampler: ClipSampler, new_resizer: _NewResizer
) -> _DecodedFrames | None:
    """Decode only what the chosen frames need; None where that is not possible or goes wrong."""
    if scan.index is None:
        return None
    indices = _frame_indices(sampler, scan.index.num_frames, scan.seconds)
    resizer = new_resizer()
    try:
        for index, frame in decode_frames(scan.index, decoder, indices):
            resizer.add(index, frame)
    except FILE_FAULTS:
        return None  # a plain decode says what is wrong
    if sorted(resizer.indices) != sorted(indices):
        return None
    resizer.finish()
    return _DecodedFrames(resizer, scan.index.num_frames, scan.seconds, scan.clock)


def _decode_all(
    path: Path, scan: Scan, sampler: ClipSampler, new_resizer: _NewResizer, keep_partial: bool
) -> _DecodedFrames:
    """Decode everything, convert what is chosen; twice where the first choice was wrong."""
    indices = _frame_indices(sampler, max(1, scan.num_packets), scan.seconds or [0.0])
    decoded = _decode_once(path, sampler.stream, indices, new_resizer, keep_partial)
    if decoded.num_decoded:
        indices = _frame_indices(sampler, decoded.num_decoded, decoded.seconds)
        if not indices <= set(decoded.resizer.indices):
            decoded = _decode_once(path, sampler.stream, indices, new_resizer, keep_partial)
    return decoded


def _decode_once(
    path: Path, stream: int | None, indices: set[int], new_resizer: _NewResizer, keep_partial: bool
) -> _DecodedFrames:
    """One decode from the first frame to the last; keep_partial: past what does not decode."""
    resizer, faults, num_repaired = new_resizer(), _FaultCounter(keep_partial), 0
    seconds: list[float] = []
    with open_video(path, stream=stream) as (opened, video):
        clock = FrameClock.of_stream(opened, video)
        for frame in _every_frame(opened, video, faults):
            if len(seconds) in indices:
                resizer.add(len(seconds), frame)
            seconds.append(clock.tick(clock.stamp(frame)))
            num_repaired += frame.is_corrupt
    resizer.finish()
    return _DecodedFrames(resizer, len(seconds), seconds, clock, faults.count, num_repaired)


class _FaultCounter:
    """A context that counts faults of the file and goes on, or lets them pass."""

    def __init__(self, goes_on: bool) -> None:
        self._goes_on, self.count = goes_on, 0

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        is_fault = kind is not None and issubclass(kind, FILE_FAULTS) and self._goes_on
        self.count += is_fault
        return is_fault


def _every_frame(
    opened: InputContainer, stream: VideoStream, faults: _FaultCounter
) -> Iterator[av.VideoFrame]:
    """All frames, as ffmpeg gives them out: after a fault of the file come those that the decoder
    holds, after one of a packet the packets behind it."""
    packets = opened.demux(stream)
    packet: av.Packet | None = None
    is_open = True
    while is_open:
        is_open = False
        with faults:
            packet = next(packets, None)
            is_open = packet is not None
        if packet is not None and is_open and not packet.size:
            continue  # PyAV's mark of the end, or the picture before once more
        frames: list[av.VideoFrame] = []
        with faults:
            frames = stream.codec_context.decode(packet if is_open else None)
        yield from frames

"""Frames have the times that ffprobe gives them; clips by time hold the frames that are nearest."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from exactness import decode_whole
from made_videos import (
    by_hand,
    encode,
    ffmpeg,
    needs_ffmpeg,
    probe,
    resized,
    variable_rate,
    wrong_rate,
)

from har.pipeline.decode import FrameClock, VideoDecodeError, decode_clip, decode_clips, open_video
from har.pipeline.sampling import ClipSampler

SIZE = (24, 32)


def clock_times(path: Path) -> tuple[list[float], FrameClock]:
    with open_video(path) as (opened, stream):
        clock = FrameClock.of_stream(opened, stream)
        return clock.times(clock.stamp(frame) for frame in opened.decode(stream)), clock


VP8 = ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-g", "30"]
TIMED = {  # name: (file, arguments of ffmpeg), all with frames at uneven times
    "h264": ("a.mp4", ["-c:v", "libx264", "-g", "20", "-bf", "2"]),
    "h264 in mkv": ("a.mkv", ["-c:v", "libx264", "-g", "20", "-bf", "2"]),
    "h264 in ts": ("a.ts", ["-c:v", "libx264", "-g", "20", "-bf", "2"]),
    "mpeg4": ("a.mp4", ["-c:v", "mpeg4", "-bf", "2"]),
    "vp8 with hidden pictures": ("a.webm", VP8),
    "flv": ("a.flv", ["-c:v", "flv"]),
    "wmv": ("a.wmv", ["-c:v", "wmv2"]),
    "mjpeg": ("a.mov", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
}
LEFT_OUT = ["-vf", "select='not(between(n,10,24))'", "-fps_mode", "vfr"]
RATED = {
    "mpeg4 in avi, frames left out": ("a.avi", ["-c:v", "mpeg4", "-bf", "0", *LEFT_OUT]),
    "mpeg4 in avi": ("a.avi", ["-c:v", "mpeg4", "-bf", "2"]),
    "h264 in avi": ("a.avi", ["-c:v", "libx264", "-bf", "2"]),
    "packed mpeg4 in avi": ("a.avi", ["-c:v", "libxvid", "-bf", "2", "-g", "20"]),
    "mpeg2 in mpg": ("a.mpg", ["-c:v", "mpeg2video", "-bf", "2"]),
}


@needs_ffmpeg
@pytest.mark.parametrize("name", [*TIMED, *RATED, "header of 1000 fps"])
def test_frames_and_clips_go_by_the_time_stamps(tmp_path: Path, name: str) -> None:
    if name in TIMED:
        path = variable_rate(tmp_path / TIMED[name][0], TIMED[name][1])
    elif name in RATED:
        path = encode(tmp_path / RATED[name][0], RATED[name][1])
    else:
        path = wrong_rate(tmp_path / "a.webm")
    expected = probe(path)
    times, clock = clock_times(path)
    assert times == pytest.approx(expected, abs=1e-5)
    assert clock.num_guessed == 0
    frames = [resized(frame, SIZE) for frame in by_hand(path)]
    sampler = ClipSampler("dense", 8, fps=5, clips=3)
    last_start = max(0.0, expected[-1] - 7 / 5)
    for decode in (decode_clips, decode_whole):
        clips = decode(path, sampler, SIZE)
        for number, clip in enumerate(clips):
            moments = number / 2 * last_start + np.arange(8) / 5
            distances = np.abs(expected - moments[:, None])  # [8,N]
            chosen = distances[np.arange(8), clip.frame_indices]
            assert chosen == pytest.approx(distances.min(1), abs=2e-5)
            np.testing.assert_array_equal(clip.pixels, [frames[i] for i in clip.frame_indices])
            assert "guessed_times" not in clip.warnings


@needs_ffmpeg
def test_stamps_of_decoding_in_the_place_of_those_of_presentation(tmp_path: Path) -> None:
    """As when MPEG-4 with B-pictures is copied out of an AVI."""
    path = encode(tmp_path / "a.mp4", ["-c:v", "mpeg4", "-bf", "2", "-g", "20"])
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", "setts=pts=DTS", tmp_path / "b.mp4")
    times, clock = clock_times(tmp_path / "b.mp4")
    assert times[:-1] == pytest.approx(probe(tmp_path / "b.mp4")[:-1], abs=1e-5)
    assert times[-1] == pytest.approx(times[-2] + 1 / 25)  # which has no stamp of decoding
    assert clock.num_guessed == 1
    for fps in (10, 25):
        sampler = ClipSampler("dense", 12, fps=fps)
        in_part, whole = (
            decode(tmp_path / "b.mp4", sampler, SIZE)[0] for decode in (decode_clips, decode_whole)
        )
        assert in_part.frame_indices == whole.frame_indices
        assert in_part.warnings == whole.warnings == {"guessed_times": 1}
        np.testing.assert_array_equal(in_part.pixels, whole.pixels)


@needs_ffmpeg
def test_clips_of_25_30_and_60_fps_have_the_same_speed(tmp_path: Path) -> None:
    spans = []
    for rate in ("25", "30000/1001", "60"):
        path = tmp_path / "a.mp4"
        ffmpeg("-f", "lavfi", "-i", f"testsrc2=size=96x80:rate={rate}:d=4", path)
        clip = decode_clip(path, frames=16, size=SIZE, rule="dense", fps=12.5)
        seconds = np.array(clip.frame_indices) / float(Fraction(rate))
        assert np.diff(seconds) == pytest.approx(0.08, abs=1 / float(Fraction(rate)))
        spans.append(seconds[-1] - seconds[0])
    assert spans == pytest.approx([15 * 0.08] * 3, abs=1 / 25)


@pytest.mark.parametrize(
    ("stamps", "times", "num_guessed"),
    [
        ([7, 8, 10], [0, 1, 3], 0),
        ([None, None, None], [0, 0.5, 1], 2),
        ([0, 1, None, 3], [0, 1, 1.5, 3], 1),
        ([None, 5, 6], [0, 0.5, 1.5], 1),
        ([0, 1, 1, 2], [0, 1, 1.5, 2.5], 1),
        ([0, 1, -50, -49], [0, 1, 1.5, 2.5], 1),
        ([0, 1, 900, 901], [0, 1, 1.5, 2.5], 1),
    ],
)
def test_stamps_that_are_missing_or_broken_are_replaced_by_the_rate(
    stamps: list[int | None], times: list[float], num_guessed: int
) -> None:
    clock = FrameClock(time_base=1.0, rate=2.0, max_step=10.0)
    assert clock.times(stamps) == times
    assert clock.num_guessed == num_guessed


def test_the_rate_of_a_file_that_says_nothing_is_25() -> None:
    assert FrameClock(1.0, 0.0).times([None, None]) == [0, 0.04]


@needs_ffmpeg
def test_two_recordings_joined_in_one_ts_go_on_in_time(tmp_path: Path) -> None:
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for part, start in zip(parts, ("5000", "0"), strict=True):
        encode(part, ["-c:v", "mpeg2video", "-bf", "0", "-output_ts_offset", start], frames=50)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    times, clock = clock_times(joined)
    assert times == pytest.approx(np.arange(100) / 25, abs=1e-3)
    assert clock.num_guessed == 1
    clip = decode_clip(joined, frames=4, size=SIZE, rule="dense", fps=1)
    assert clip.frame_indices == (12, 37, 62, 87)
    assert clip.warnings == {"no_length": True, "guessed_times": 1}


@needs_ffmpeg
def test_the_stream_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    sources = ["-f", "lavfi", "-i", "testsrc2=size=96x80:rate=25", "-f", "lavfi", "-i", "sine"]
    sources += ["-f", "lavfi", "-i", "color=red:size=192x160:rate=25"]
    mapped = ["-map", "0", "-map", "1", "-map", "2", "-t", "1", "-c:v", "ffv1"]
    mapped += ["-disposition:v:0", "0", "-disposition:v:1", "default"]
    ffmpeg(*sources, *mapped, path)
    first, best = (decode_clip(path, frames=2, size=SIZE, stream=index) for index in (0, 2))
    assert (first.stream, best.stream) == (0, 2)
    assert first.warnings == {"streams": {"in_file": [0, 2], "taken": 0}}
    default = decode_clip(path, frames=2, size=SIZE)
    assert default.stream == 2
    np.testing.assert_array_equal(default.pixels, best.pixels)
    assert not np.array_equal(default.pixels, first.pixels)
    for wrong in (1, 7):
        with pytest.raises(VideoDecodeError, match=rf"no video stream {wrong}: give one of 0, 2"):
            decode_clip(path, size=SIZE, stream=wrong)

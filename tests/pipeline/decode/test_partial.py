"""Files that are cut off or damaged: a reject, or with keep_partial the frames of ffmpeg."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import encode, needs_ffmpeg, shown

from har.pipeline.decode import VideoDecodeError, decode_clip, decode_clips
from har.pipeline.sampling import ClipSampler

pytestmark = needs_ffmpeg
X264, X265 = ["-c:v", "libx264", "-g", "10"], ["-c:v", "libx265", "-x265-params"]
FASTSTART = ["-movflags", "+faststart"]
FILES = {
    "index first": ("a.mp4", [*X264, *FASTSTART]),
    "hevc": ("a.mp4", [*X265, "log-level=none:keyint=10", *FASTSTART]),
    "fragments": ("a.mp4", [*X264, "-movflags", "frag_keyframe+empty_moov"]),
    "mkv": ("a.mkv", X264),
    "webm": ("a.webm", ["-c:v", "libvpx", "-g", "10"]),
    "avi": ("a.avi", ["-c:v", "mpeg4", "-g", "10"]),
    "avi, B-pictures": ("a.avi", ["-c:v", "mpeg4", "-g", "10", "-bf", "2"]),
    "avi, H.264": ("a.avi", [*X264, "-bf", "0"]),
    "wmv": ("a.wmv", ["-c:v", "wmv2"]),
    "flv": ("a.flv", ["-c:v", "flv"]),
}


def assert_as_ffmpeg(path: Path, num_sure: int) -> dict:
    """All frames are those of ffmpeg; -> the warnings. num_sure: from this one on, versions of
    FFmpeg may repair in different ways."""
    expected = shown(path)
    sampler = ClipSampler("uniform", len(expected))
    (clip,) = decode_clips(path, sampler, (80, 96), keep_partial=True)
    assert clip.num_decoded == len(expected)
    for pixels, frame in zip(clip.pixels[:num_sure], expected, strict=False):
        assert np.abs(pixels.astype(int) - frame).mean() < 3
    return clip.warnings


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_breaks_off(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / FILES[name][0], FILES[name][1], frames=40)
    assert decode_clip(path, frames=4, size=(24, 32), keep_partial=True).warnings == {}
    data = path.read_bytes()
    for share in (0.5, 0.8):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(VideoDecodeError, match=r"a\.\w+ is cut off: [\d,]+ bytes of at least"):
            decode_clip(path, frames=4, size=(24, 32))
        num_shown = len(shown(path))
        assert 0 < num_shown < 40
        lost = assert_as_ffmpeg(path, num_shown - 2)["lost"]
        num_missing = len(data) - path.stat().st_size
        assert 0 < lost["bytes"] <= num_missing
        if path.suffix == ".avi" or name in ("index first", "hevc"):  # headers count the frames
            assert lost["frames"] == 40 - num_shown
        if name == "fragments":  # its header says nothing of the whole
            continue
        assert lost["bytes"] >= 0.9 * num_missing  # an index of an AVI is not counted
        if name != "wmv":  # libavformat believes no length of a file that is cut off
            assert lost["seconds"] == pytest.approx((40 - num_shown) / 25, abs=0.17)  # 4 B-pictures


def _packet_span(path: Path, number: int) -> tuple[int, int]:
    """Where a packet of the video begins, and its bytes."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return packets[number].pos, packets[number].size


@pytest.mark.parametrize(
    "name", [name for name in FILES if name not in ("mkv", "webm", "wmv", "flv")]
)
def test_frames_behind_a_bad_packet_are_kept(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / FILES[name][0], FILES[name][1], frames=40)
    data, (position, size) = bytearray(path.read_bytes()), _packet_span(path, 13)
    data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(VideoDecodeError, match=r"a\.\w+ cannot be decoded"):
        decode_clip(path, frames=40, size=(24, 32))
    lost = assert_as_ffmpeg(path, 40)["lost"]
    assert lost["packets"] == 1
    num_declared = 0 if name == "fragments" else 40
    assert lost.get("frames", 0) == max(0, num_declared - len(shown(path)))
    assert "bytes" not in lost


def test_frames_that_ffmpeg_repaired_are_counted(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", ["-c:v", "mpeg4", "-g", "10"], frames=40)
    data, (position, size) = bytearray(path.read_bytes()), _packet_span(path, 13)
    middle = position + 8 + size // 3  # 8: of the chunk's header
    data[middle : middle + size // 3] = bytes(range(256))[: size // 3]
    path.write_bytes(data)
    clip = decode_clip(path, frames=40, size=(24, 32))
    assert clip.warnings["repaired"] >= 1


@pytest.mark.parametrize("file", ["a.ts", "a.mpg", "a.ogv"])
def test_where_nothing_says_how_long_a_file_was_that_is_said(tmp_path: Path, file: str) -> None:
    path = encode(
        tmp_path / file, ["-c:v", "libtheora" if "ogv" in file else "mpeg2video"], frames=40
    )
    for share in (1, 0.5):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        clip = decode_clip(path, frames=4, size=(24, 32))
        assert (clip.num_decoded, clip.num_declared) == (len(shown(path)), 0)
        assert clip.warnings["no_length"] is True
        assert set(clip.warnings) <= ({"no_length"} if share == 1 else {"no_length", "repaired"})


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_size_that_cannot_be_is_none(tmp_path: Path, size: float) -> None:
    path = encode(tmp_path / "a.flv", ["-c:v", "flv"], frames=9)
    data, name = bytearray(path.read_bytes()), b"\0\x08filesize\0"
    at = data.index(name) + len(name)
    data[at : at + 8] = struct.pack(">d", size)
    path.write_bytes(data)
    clip = decode_clip(path, frames=4, size=(24, 32))
    assert (clip.num_decoded, clip.warnings) == (9, {"no_length": True})

"""Streams whose headers change on the way: what is known of a stream is known per header, or it is
decoded whole; files made by ffmpeg and joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from exactness import RULES, assert_exact, is_in_part
from made_videos import encode, ffmpeg, needs_ffmpeg

pytestmark = needs_ffmpeg

X264 = ["-c:v", "libx264", "-x264-params"]
LARGER = ["-vf", "scale=128:96"]
MPEG4, MPEG2 = ["-c:v", "mpeg4", "-bf", "2", "-g", "12"], ["-c:v", "mpeg2video", "-bf", "2"]
H264, VP9 = [*X264, "keyint=16:bframes=2"], ["-c:v", "libvpx-vp9", "-cpu-used", "8", "-g", "20"]


def joined(first: Path, second: Path) -> Path:
    """The bytes of both."""
    path = first.with_name(f"joined{first.suffix}")
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def copied(first: Path, second: Path) -> Path:
    """The packets of both in one container, by ffmpeg, without encoding: times go on."""
    path, names = first.with_name(f"copied{first.suffix}"), first.with_name("list.txt")
    names.write_text(f"file '{first}'\nfile '{second}'\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", names, "-c", "copy", path)
    return path


def continued(first: Path, second: Path) -> Path:
    """An FLV whose decoder configuration changes: the tags of both, times going on."""
    data, at = bytearray(second.read_bytes()[13:]), 0
    while at + 11 <= len(data):  # type, size (3 bytes), time (3 bytes, ms), ...
        time = int.from_bytes(data[at + 4 : at + 7], "big") + 10_000
        data[at + 4 : at + 7] = time.to_bytes(3, "big")
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    path = first.with_name("continued.flv")
    path.write_bytes(first.read_bytes() + data)
    return path


def _copy(
    path: Path, out: Path, is_key: Callable[[av.Packet], bool] = lambda packet: packet.is_keyframe
) -> Path:
    """The packets of a video in a new file, those that `is_key` chooses marked as key packets."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.is_keyframe = is_key(packet)
                packet.stream = stream
                target.mux(packet)
    return out


def of_two_entries(first: Path, second: Path) -> Path:
    """An mp4 of two sample entries, each with a decoder configuration of its own."""
    path = _copy(continued(first, second), first.with_name("two.mp4"))
    data = path.read_bytes()
    assert data[data.index(b"stsd") + 8 :][:4] == (2).to_bytes(4, "big")
    return path


Join = Callable[[Path, Path], Path]
CASES: dict[str, tuple[Join, str, list[str], list[str], bool]] = {
    # how, suffix, arguments of the first and of the second, whether it can be decoded in part
    "MPEG-4, another size, AVI": (copied, "avi", MPEG4, [*LARGER, *MPEG4], False),
    "MPEG-4, another clock, AVI": (copied, "avi", MPEG4, ["-r", "30000/1001", *MPEG4], False),
    "MPEG-4, another size, TS": (joined, "ts", MPEG4, [*LARGER, *MPEG4], False),
    "two AVIs": (joined, "avi", MPEG4, [*LARGER, *MPEG4], False),
    "H.264, another size, TS": (joined, "ts", H264, [*LARGER, *H264], False),
    "H.264, other headers, TS": (copied, "ts", H264, [*X264, "keyint=12:ref=1:cabac=0"], False),
    "H.264, the same headers, TS": (copied, "ts", H264, H264, True),
    "H.264, times start again, TS": (joined, "ts", H264, H264, False),
    "H.264, another configuration, FLV": (continued, "flv", H264, [*LARGER, *H264], False),
    "H.264, two sample entries, mp4": (of_two_entries, "flv", H264, [*LARGER, *H264], False),
    "MPEG-2, another size, TS": (copied, "ts", MPEG2, [*LARGER, *MPEG2], False),
    "MPEG-2, times start again, PS": (joined, "mpg", MPEG2, [*LARGER, *MPEG2], False),
    "VP9, another size": (copied, "webm", VP9, [*LARGER, *VP9], True),
    "MJPEG, another size": (copied, "mkv", ["-c:v", "mjpeg"], [*LARGER, "-c:v", "mjpeg"], True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_whose_headers_change_equals_a_plain_decode(tmp_path: Path, name: str) -> None:
    join, suffix, first, second, in_part = CASES[name]
    parts = [
        encode(tmp_path / f"{number}.{suffix}", arguments, frames=40)
        for number, arguments in enumerate((first, second))
    ]
    path = join(*parts)
    assert is_in_part(path) == in_part
    assert_exact(path, RULES)


@pytest.mark.parametrize(
    ("suffix", "arguments"),
    [("webm", VP9), ("avi", ["-c:v", "msmpeg4", "-g", "30"]), ("mkv", MPEG2), ("mkv", H264)],
)
def test_packets_that_are_wrongly_marked_as_key_change_no_pixel(
    tmp_path: Path, suffix: str, arguments: list[str]
) -> None:
    path = encode(tmp_path / f"a.{suffix}", arguments, frames=60)
    assert_exact(_copy(path, tmp_path / f"all.{suffix}", lambda packet: True), RULES)

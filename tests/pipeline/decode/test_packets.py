"""Decoding a part of a stream gives the pixels of a plain decode: codecs, containers, groups."""

from __future__ import annotations

import contextlib
import random
import subprocess
from itertools import cycle
from pathlib import Path

import av
import pytest
from exactness import RULES, SIZE, assert_exact, is_in_part, packet_index
from made_videos import encode, ffmpeg, needs_ffmpeg

from har.pipeline.decode import clips as decode
from har.pipeline.decode.packets import index_packets
from har.pipeline.sampling import ClipSampler

pytestmark = needs_ffmpeg

X264, X265 = ["-c:v", "libx264", "-x264-params"], ["-c:v", "libx265", "-x265-params"]
QUIET = "log-level=none:"
IN_PART = {  # name: (suffixes of the containers that carry it, arguments of ffmpeg)
    "h264 baseline": (
        "mp4 mkv ts flv mov 3gp avi", ["-c:v", "libx264", "-profile:v", "baseline", "-g", "20"],
    ),
    "h264 pyramid": (
        "mkv mp4 ts flv mov 3gp",
        [*X264, "keyint=24:bframes=3:b-pyramid=normal:b-adapt=0:scenecut=0"],
    ),
    "h264 open groups": ("ts mkv mp4 flv", [*X264, "keyint=16:bframes=3:open-gop=1"]),
    "h264 intra refresh": ("mov mkv ts", [*X264, "keyint=16:intra-refresh=1"]),
    "h264 one key frame": ("flv mp4 mkv ts", [*X264, "keyint=infinite"]),
    "h264 without B-pictures in avi": ("avi", [*X264, "keyint=16:bframes=0"]),
    "h264 interlaced": ("mp4 mkv ts", ["-flags", "+ildct+ilme", *X264, "keyint=20:tff=1"]),
    "hevc RASL": ("mp4 mkv ts mov", [*X265, QUIET + "keyint=16:min-keyint=8:open-gop=1:bframes=4"]),
    "hevc RADL": ("mkv mp4 ts", [*X265, QUIET + "keyint=16:open-gop=1:radl=2"]),
    "hevc temporal layers": ("mp4 mkv ts", [*X265, QUIET + "keyint=24:temporal-layers=3"]),
    "vp8 with hidden pictures": (
        "webm mkv avi",
        ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-g", "30"],
    ),
    "vp9 with hidden pictures": (
        "webm mkv mp4",
        ["-c:v", "libvpx-vp9", "-auto-alt-ref", "6", "-lag-in-frames", "25", "-g", "32",
         "-cpu-used", "8"],
    ),
    "av1": ("mkv mp4 webm", ["-c:v", "libsvtav1", "-preset", "12", "-g", "16"]),
    "mpeg1": ("mpg mkv ts", ["-c:v", "mpeg1video", "-r", "25", "-bf", "2", "-g", "12"]),
    "mpeg2": ("ts mpg mkv mp4 mov", ["-c:v", "mpeg2video", "-bf", "2", "-g", "12"]),
    "mpeg4": ("mp4 mkv avi mov ts 3gp", ["-c:v", "mpeg4", "-bf", "2", "-g", "20"]),
    "mpeg4 in 3gp": ("3gp mkv", ["-c:v", "mpeg4", "-bf", "0", "-g", "20"]),
    "mjpeg": ("avi mov mkv", ["-c:v", "mjpeg"]),
    "prores": ("mov mkv", ["-c:v", "prores_ks", "-profile:v", "0"]),
    "theora": ("ogv mkv", ["-c:v", "libtheora", "-g", "20"]),
    "wmv": ("wmv asf avi", ["-c:v", "wmv2", "-g", "20"]),
    "flv1": ("flv", ["-c:v", "flv", "-g", "20"]),
}  # fmt: skip
WHOLE = {
    "h264 with B-pictures in avi": ("a.avi", [*X264, "keyint=20:bframes=3"]),
    "gif": ("a.gif", ["-r", "10"]),
    "colors of a palette": ("a.avi", ["-c:v", "rawvideo", "-pix_fmt", "pal8"]),
    "gray in mov": ("a.mov", ["-c:v", "rawvideo", "-pix_fmt", "gray"]),  # by a palette as well
}


@pytest.mark.parametrize("name", IN_PART)
def test_a_stream_decoded_in_part_equals_a_plain_decode(tmp_path: Path, name: str) -> None:
    suffixes, arguments = IN_PART[name]
    path = encode(tmp_path / f"a.{suffixes.split()[0]}", arguments)
    assert is_in_part(path)
    assert_exact(path, RULES)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", IN_PART)
def test_real_clips_in_every_codec_and_container_equal_a_plain_decode(
    real_clips: Path, tmp_path: Path, name: str
) -> None:
    """Each of the 83, and the odd ones; their containers take turns."""
    suffixes, arguments = IN_PART[name]
    sources = sorted((real_clips / "ucf101").rglob("*.avi"))
    sources += [path for path in (real_clips / "odd").iterdir() if path.name != "corrupted.mp4"]
    num_whole = 0
    for source, suffix in zip(sources, cycle(suffixes.split()), strict=False):
        path = tmp_path / f"{source.stem}.{suffix}"
        scaled = "-vf scale=160:120 -pix_fmt yuv420p -frames:v 90 -an"
        ffmpeg("-i", source, *scaled.split(), *arguments, path)
        num_whole += not is_in_part(path)
        assert_exact(path, RULES)
        path.unlink()
    assert num_whole < len(sources) / 2


def av1_arguments(draw: random.Random) -> list[str]:
    """Group length, pyramid, screen content, film grain, tiles, resilience to errors."""
    if draw.random() < 0.3:
        return [
            "-c:v", "libaom-av1", "-cpu-used", "8", "-g", draw.choice(["8", "30"]), "-usage",
            draw.choice(["good", "realtime"]), "-error-resilience", draw.choice(["0", "default"]),
            "-tiles", draw.choice(["1x1", "2x1"]), "-lag-in-frames", draw.choice(["0", "19"]),
        ]  # fmt: skip
    params = f"hierarchical-levels={draw.choice([3, 4, 5])}:scm={draw.choice([0, 1, 2])}"
    params += draw.choice(["", ":film-grain=8", ":enable-overlays=1", ":fast-decode=1"])
    group = draw.choice(["1", "8", "16", "33", "100"])
    return ["-c:v", "libsvtav1", "-preset", "12", "-g", group, "-svtav1-params", params]


def test_pictures_of_av1_that_nothing_refers_to_are_left_out(tmp_path: Path) -> None:
    """And not those that a later packet shows once more, nor key pictures."""
    path = encode(tmp_path / "a.mp4", ["-c:v", "libsvtav1", "-preset", "12", "-g", "16"], frames=64)
    index = packet_index(path)
    assert index is not None
    assert all(is_reference or not is_start for is_start, is_reference in zip(
        index.is_start, index.is_reference, strict=True
    ))  # fmt: skip
    assert 8 <= index.is_reference.count(False) <= 40
    assert_exact(path, RULES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_encodes_of_av1_equal_a_plain_decode(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    arguments, suffix = av1_arguments(draw), draw.choice(["mp4", "mkv", "webm"])
    path = encode(tmp_path / f"a.{suffix}", arguments, draw.randint(20, 90))
    assert is_in_part(path)
    assert_exact(path, [*RULES, ClipSampler("paper", draw.randint(1, 40))])


@pytest.mark.parametrize("name", WHOLE)
def test_a_stream_that_cannot_be_trusted_is_decoded_whole(tmp_path: Path, name: str) -> None:
    file, arguments = WHOLE[name]
    path = encode(tmp_path / file, arguments)
    assert not is_in_part(path)
    assert_exact(path, RULES)


def test_pictures_shown_in_another_order_than_their_times_are_decoded_whole(tmp_path: Path) -> None:
    """The P-picture that two B-pictures refer to was lost."""
    whole = encode(tmp_path / "whole.mkv", ["-c:v", "mpeg2video", "-bf", "2"])
    path = tmp_path / "a.mkv"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", "noise=drop=eq(n\\,1)", path)
    assert not is_in_part(path)
    assert_exact(path, RULES)


def test_a_stream_without_packets_has_no_index() -> None:
    assert index_packets([], av.CodecContext.create("mpeg4", "r"), "mov") is None


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_frames_hidden_by_a_cut_without_encoding_are_not_counted(
    tmp_path: Path, codec: str
) -> None:
    """`ffmpeg -ss 1.5 -c copy` keeps the pictures from the key frame on and marks them."""
    whole = encode(tmp_path / "whole.mp4", ["-c:v", codec, "-g", "25"], frames=100)
    path = tmp_path / "cut.mp4"
    ffmpeg("-ss", "1.5", "-i", whole, "-c", "copy", path)
    ffmpeg("-i", path, "-fps_mode", "passthrough", tmp_path / "%03d.png")
    shown = len(list(tmp_path.glob("*.png")))
    with av.open(str(path)) as container:
        packets = sum(packet.size > 0 for packet in container.demux(video=0))
    assert shown < packets
    assert decode.decode_clip(path, frames=4, size=SIZE).num_decoded == shown
    assert_exact(path, RULES)


@pytest.mark.real
def test_real_files_of_other_codecs_equal_a_plain_decode(real_clips: Path) -> None:
    paths = sorted((real_clips / "codecs").glob("*.m[kp]*"))
    assert len(paths) >= 7
    for path in paths:
        if path.name != "README.md":
            assert_exact(path, RULES[:2])


def random_arguments(draw: random.Random) -> tuple[str, list[str]]:
    """A suffix and arguments of ffmpeg: group length, B-pictures, references, pyramid, ..."""
    group, bframes = draw.choice([1, 2, 5, 8, 12, 24, 48, 250]), draw.choice([0, 1, 2, 3, 5, 8])
    common = f"keyint={group}:min-keyint=1:bframes={bframes}:ref={draw.choice([1, 2, 4])}"
    common += f":open-gop={draw.choice([0, 1])}:scenecut={draw.choice([0, 40])}"
    codec = draw.choice(["h264", "h264", "h264", "hevc", "hevc", "vp9", "vp8", "mpeg2", "mpeg4"])
    if codec == "h264":
        more = f":b-pyramid={draw.choice(['none', 'normal', 'strict'])}"
        more += draw.choice(["", "", ":intra-refresh=1", ":tff=1"])
        preset = ["-preset", draw.choice(["ultrafast", "veryfast", "medium"])]
        suffix = draw.choice(["mp4", "mkv", "ts", "flv", "mov", "avi"])
        return suffix, ["-c:v", "libx264", *preset, "-x264-params", common + more]
    if codec == "hevc":
        common += ":rc-lookahead=10"  # x265 wants it above the B-pictures
        radl = draw.choice([0, 0, 1, 2])
        more = f":radl={radl}" if radl and bframes > radl and group > 8 else ""
        more += draw.choice(["", "", "", ":temporal-layers=2" if bframes > 1 else ""])
        return draw.choice(["mp4", "mkv", "ts"]), [
            "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", QUIET + common + more,
        ]  # fmt: skip
    if codec in ("vp8", "vp9"):
        hidden = [
            "-auto-alt-ref", draw.choice(["0", "1"]), "-lag-in-frames", draw.choice(["0", "16"]),
        ]  # fmt: skip
        library = "libvpx" if codec == "vp8" else "libvpx-vp9"
        return draw.choice(["webm", "mkv"]), [
            "-c:v", library, *hidden, "-g", str(group), "-b:v", "200k", "-cpu-used", "8",
        ]  # fmt: skip
    if codec == "mpeg2":
        name = draw.choice(["mpeg1video", "mpeg2video"])
        options = ["-bf", str(min(bframes, 3)), "-g", str(min(group, 60)), "-q:v", "5"]
        return draw.choice(["mpg", "ts", "mkv"]), ["-c:v", name, *options]
    options = ["-bf", str(min(bframes, 2)), "-g", str(group), "-q:v", "5"]
    return draw.choice(["mp4", "mkv", "mov", "3gp", "avi"]), ["-c:v", "mpeg4", *options]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_random_encodes_equal_a_plain_decode(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    suffix, arguments = random_arguments(draw)
    frames = draw.randint(20, 120)
    path = encode(tmp_path / f"a.{suffix}", arguments, frames)
    if draw.random() < 0.25:  # cut somewhere without encoding
        cut = tmp_path / f"cut.{suffix}"
        with contextlib.suppress(subprocess.CalledProcessError):
            ffmpeg("-ss", f"{draw.uniform(0, frames / 30):.2f}", "-i", path, "-c", "copy", cut)
            with contextlib.suppress(decode.VideoDecodeError):
                decode.decode_clip(cut, frames=1, size=SIZE)  # a cut may leave no frame at all
                path = cut
    assert_exact(path, [*RULES, ClipSampler("paper", draw.randint(1, 40))])

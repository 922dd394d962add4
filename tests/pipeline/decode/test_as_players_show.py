"""What a player shows is decoded: turned and mirrored, the best stream, whole files; by ffmpeg."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import encode, ffmpeg, needs_ffmpeg, shown

from har.pipeline.dataset import find_videos
from har.pipeline.decode import VIDEO_SUFFIXES, VideoDecodeError, decode_clip
from har.training.inference import video_source
from har.training.inference.frames import read_frames
from har.training.inference.uploaded_video import check_video

pytestmark = needs_ffmpeg


def assert_alike(pixels: np.ndarray, expected: np.ndarray) -> None:
    """Two versions of swscale differ by a little; another picture differs by far more."""
    assert np.abs(pixels.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_turned_and_mirrored_video_comes_out_upright(
    tmp_path: Path, codec: str, transposed: bool, signs: tuple[int, int]
) -> None:
    path = encode(tmp_path / "a.mp4", ["-c:v", codec], frames=3)  # 96x80
    data, (x, y) = bytearray(path.read_bytes()), (sign << 16 for sign in signs)
    at = data.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: 3x3, 16.16 and 2.30 bits
    data[at : at + 20] = struct.pack(">5i", *((0, x, 0, y, 0) if transposed else (x, 0, 0, 0, y)))
    path.write_bytes(data)
    size = (96, 80) if transposed else (80, 96)
    expected = shown(path, size)
    assert_alike(decode_clip(path, frames=3, size=size).pixels, expected)
    assert_alike(np.stack([frame.rgb() for frame in read_frames(path)]), expected)


@pytest.mark.parametrize("color_range", ["tv", "pc"])
@pytest.mark.parametrize("matrix", ["smpte170m", "bt709", "bt2020nc"])
def test_colors_are_those_that_the_header_means(
    tmp_path: Path, matrix: str, color_range: str
) -> None:
    filters = f"scale=out_color_matrix={matrix}:out_range={color_range},format=yuv420p"
    header = ["-colorspace", matrix, "-color_range", color_range]
    path = encode(tmp_path / "a.mp4", ["-vf", filters, *header, "-c:v", "libx264"], frames=3)
    assert_alike(decode_clip(path, frames=3, size=(80, 96)).pixels, shown(path, (80, 96)))
    other = f"h264_metadata=matrix_coefficients={1 if matrix == 'smpte170m' else 6}"
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", other, tmp_path / "b.mp4")
    clip = decode_clip(tmp_path / "b.mp4", frames=3, size=(80, 96))
    with pytest.raises(AssertionError):  # the header matters
        assert_alike(clip.pixels, shown(path, (80, 96)))


# For versions of swscale place the chroma of 10 bit 4:2:0 half a pixel apart.
SMOOTH = ["-vf", "scale=12:10,scale=96:80"]
X265 = [*SMOOTH, "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params"]
WIDE = "log-level=none:colorprim=bt2020:colormatrix=bt2020nc:transfer="
FORMATS = {
    "10 bit": ("a.mp4", [*X265, "log-level=none"]),
    "HDR, PQ": ("a.mp4", [*X265, f"{WIDE}smpte2084"]),
    "HDR, HLG": ("a.mkv", [*X265, f"{WIDE}arib-std-b67"]),
    "10 bit 4:2:2": ("a.mov", ["-c:v", "prores_ks", "-profile:v", "2"]),
    "4:2:2": ("a.mp4", ["-c:v", "libx264", "-pix_fmt", "yuv422p"]),
    "4:4:4": ("a.mp4", ["-c:v", "libx264", "-pix_fmt", "yuv444p"]),
    "full range": ("a.avi", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
    "gray": ("a.mkv", ["-c:v", "ffv1", "-pix_fmt", "gray"]),
    "gray, 10 bit": ("a.mkv", ["-c:v", "ffv1", "-pix_fmt", "gray10le"]),
    "RGB": ("a.mkv", ["-c:v", "ffv1", "-pix_fmt", "bgr0"]),
    "RGB in planes": ("a.mp4", ["-c:v", "libx264rgb"]),
    "alpha": ("a.mov", ["-vf", "format=rgba,colorchannelmixer=aa=0.5", "-c:v", "png"]),
    "alpha, 10 bit": ("a.mov", ["-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"]),
    "palette": ("a.gif", []),
    "interlaced": ("a.mpg", ["-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-top", "1"]),
    "pixel aspect": ("a.mp4", ["-vf", "setsar=2", "-c:v", "libx264"]),
    "no matrix named, HD": ("a.mkv", ["-vf", "scale=1280:720", "-c:v", "libx264"]),
    "odd size": ("a.mkv", ["-vf", "crop=75:61", "-c:v", "ffv1"]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_of_every_kind_are_those_of_ffmpeg(tmp_path: Path, name: str) -> None:
    """No tone mapping, no stretching, no deinterlacing, no background behind transparent pixels;
    chroma of interlaced frames belongs to their fields."""
    file, arguments = FORMATS[name]
    path = encode(tmp_path / file, arguments, frames=3)
    with av.open(str(path)) as container:
        size = (container.streams.video[0].height, container.streams.video[0].width)
    clip = decode_clip(path, frames=3, size=size)
    by_fields = int(name == "interlaced")
    filters = ["-vf", f"scale=interl={by_fields}:flags=bilinear,format=rgb24"]
    assert clip.num_decoded == 3
    assert_alike(clip.pixels, shown(path, size, *filters))


@pytest.mark.real
def test_the_best_of_several_streams_is_taken(real_clips: Path) -> None:
    path = real_clips / "codecs" / "nasa_13013.mp4"
    clip = decode_clip(path, frames=390, size=(270, 480))
    expected = shown(path, (270, 480), "-map", "0:3")
    assert (clip.num_decoded, clip.stream, len(expected)) == (390, 3, 390)
    assert_alike(clip.pixels[::30], expected[::30])
    assert sum(1 for _ in read_frames(path)) == 390


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", ["-c:v", "libx264"], frames=10)
    song, cover = tmp_path / "song.m4a", tmp_path / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", song)
    ffmpeg("-f", "lavfi", "-i", "color=red:size=640x480", "-frames:v", "1", cover)
    cover_first, cover_last = tmp_path / "cover.mp4", tmp_path / "cover.m4a"
    mapped = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", cover, "-i", video, *mapped, cover_first)
    ffmpeg("-i", song, "-i", cover, *mapped, cover_last)
    clip = decode_clip(cover_first, frames=10, size=(80, 96))
    assert (clip.num_decoded, clip.stream) == (10, None)
    assert_alike(clip.pixels, shown(video, (80, 96)))
    with pytest.raises(VideoDecodeError, match=r"cover\.m4a has no video stream but a cover"):
        decode_clip(cover_last)


def test_a_codec_that_ffmpeg_does_not_know_is_a_reject(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mpg", ["-c:v", "qtrle", "-pix_fmt", "rgb24"], frames=3)
    for decode in (decode_clip, lambda path: list(read_frames(path))):
        with pytest.raises(VideoDecodeError, match="video stream of an unknown codec"):
            decode(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, -20, 3, 40])
def test_an_avi_with_a_wrong_size_is_taken_whole(tmp_path: Path, size: int) -> None:
    path = encode(tmp_path / "a.avi", ["-c:v", "mpeg4"], frames=20)
    data = bytearray(path.read_bytes())
    wrong = size if size in (0, 0xFFFFFFFF) else len(data) - 8 + size
    data[4:8] = wrong.to_bytes(4, "little")
    path.write_bytes(data)
    clip = decode_clip(path, frames=20, size=(80, 96))
    assert clip.num_decoded == 20
    assert_alike(clip.pixels, shown(path, (80, 96)))


def _piped(path: Path, name: str) -> Path:
    """The video again, written by ffmpeg to a pipe: without sizes, index and duration."""
    command = ["ffmpeg", "-v", "quiet", "-i", str(path), "-c", "copy", "-f", name, "pipe:1"]
    piped = path.with_name(f"piped{path.suffix}")
    piped.write_bytes(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return piped


@pytest.mark.parametrize(("suffix", "name"), [("avi", "avi"), ("mkv", "matroska")])
def test_a_file_written_to_a_pipe_is_taken_whole(tmp_path: Path, suffix: str, name: str) -> None:
    path = _piped(encode(tmp_path / f"a.{suffix}", ["-c:v", "mpeg4"], frames=20), name)
    clip = decode_clip(path, frames=20, size=(80, 96))
    assert (clip.num_decoded, clip.num_declared) == (20, 0)
    assert_alike(clip.pixels, shown(path, (80, 96)))


def test_an_avi_cut_between_two_frames_is_a_reject(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", ["-c:v", "mpeg4"], frames=20)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"00dc", 0, data.index(b"idx1"))])
    with pytest.raises(VideoDecodeError, match=r"a\.avi is cut off"):
        decode_clip(path)


MUXERS = {  # where ffmpeg does not take it from the suffix
    ".divx": "avi", ".m4v": "mp4", ".mpe": "mpeg", ".vob": "vob", ".mts": "mpegts", ".f4v": "mp4",
}  # fmt: skip
CODECS = {
    ".webm": "libvpx", ".wmv": "wmv2", ".asf": "wmv2", ".flv": "flv", ".ogv": "libtheora",
    ".gif": "gif", ".mxf": "mpeg2video", ".vob": "mpeg2video",
} | dict.fromkeys((".mpg", ".mpeg", ".mpe"), "mpeg1video")  # fmt: skip


def test_every_suffix_is_found_and_opened_in_any_case(tmp_path: Path) -> None:
    for suffix in VIDEO_SUFFIXES:
        path = tmp_path / "class" / f"a{suffix[1:]}{suffix.upper()}"
        path.parent.mkdir(exist_ok=True)
        muxer = ["-f", MUXERS[suffix]] if suffix in MUXERS else []
        arguments = ["-c:v", CODECS.get(suffix, "mpeg4"), *muxer]
        encode(path, arguments, frames=6)
        assert decode_clip(path, frames=2).num_decoded == len(shown(path, (80, 96))), suffix
        check_video(path, max_seconds=60)
    assert len(find_videos(tmp_path).videos) == len(VIDEO_SUFFIXES)
    assert len(video_source.find_videos([tmp_path])) == len(VIDEO_SUFFIXES)

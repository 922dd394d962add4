"""Frames equal those of a plain decode counted by hand, whatever the file and the short cut."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import made_videos
import numpy as np
import pytest
from exactness import RULES, assert_exact, packet_index

from har.pipeline.decode import VideoDecodeError, clips, decode_clip, decode_clips
from har.pipeline.decode.packets import PacketIndex, needed_positions
from har.pipeline.sampling import ClipSampler

SIZE = (24, 30)


def _num_needed(index: PacketIndex, frames: set[int]) -> int:
    """How many packets are decoded for those frames."""
    positions = {index.presentation[frame] for frame in frames}
    return sum(map(len, needed_positions(index, positions)))


@pytest.mark.parametrize("kind", made_videos.KINDS)
def test_every_odd_kind_equals_a_plain_decode(tmp_path: Path, kind: str) -> None:
    assert_exact(made_videos.write(tmp_path / kind, kind), RULES, SIZE)


@pytest.mark.real
@pytest.mark.parametrize(
    ("samplers", "size"),
    [
        (RULES[:1], (32, 43)),
        pytest.param([ClipSampler(), *RULES], (128, 171), marks=pytest.mark.slow),
    ],
)
def test_real_clips_equal_a_plain_decode(
    real_clips: Path, samplers: list[ClipSampler], size: tuple[int, int]
) -> None:
    paths = sorted((real_clips / "ucf101").rglob("*.avi"))
    assert len(paths) == 83
    for path in paths:
        assert_exact(path, samplers, size)


@pytest.mark.real
def test_odd_real_files(real_clips: Path) -> None:
    for path in sorted((real_clips / "odd").iterdir()):
        if path.name != "corrupted.mp4":
            assert_exact(path, RULES, (32, 43))
    with pytest.raises(VideoDecodeError, match=r"corrupted\.mp4 cannot be decoded"):
        decode_clip(real_clips / "odd" / "corrupted.mp4")


@pytest.mark.real
def test_packed_b_frames_and_lying_headers_are_counted_right(real_clips: Path) -> None:
    packed = real_clips / "ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    assert decode_clip(packed, frames=4).num_decoded == 164
    lying = next((real_clips / "ucf101").rglob("v_YoYo_g11_c04.avi"))
    clip = decode_clip(lying, frames=4)
    assert (clip.num_declared, clip.num_decoded) == (195, 194)


@pytest.mark.real
def test_rotated_video_comes_out_upright(real_clips: Path) -> None:
    path = real_clips / "odd" / "video_90.mov"
    upright = decode_clip(path, frames=1, size=(568, 320)).pixels[0]  # portrait: no resize
    with av.open(str(path)) as container:
        lying = next(container.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(upright, np.rot90(lying, -1))


@pytest.mark.real
def test_pictures_left_out_of_ucf101_change_no_pixel(real_clips: Path) -> None:
    for path in sorted((real_clips / "ucf101").rglob("*.avi"))[::13]:
        index, sampler = packet_index(path), ClipSampler()
        assert index is not None
        frames = clips._frame_indices(sampler, index.num_frames, None)
        assert _num_needed(index, frames) < index.num_frames
        assert_exact(path, [sampler], SIZE)


def test_b_frames_that_no_clip_needs_are_not_decoded(tmp_path: Path) -> None:
    index = packet_index(made_videos.write(tmp_path / "v.avi", "mpeg4_b.avi", gop=12))
    assert index is not None
    assert index.num_frames == 40
    assert _num_needed(index, {0, 12}) < 10
    assert _num_needed(index, {0}) == 1


@pytest.mark.parametrize("sampler", [*RULES, ClipSampler("uniform", 60)])
def test_pixels_are_made_in_the_memory_that_is_given(tmp_path: Path, sampler: ClipSampler) -> None:
    path = made_videos.write(tmp_path / "v.avi", frames=40)
    out = np.zeros((sampler.clips * sampler.frames, *SIZE, 3), np.uint8)
    decoded = decode_clips(path, sampler, SIZE, out=out)
    for clip, alone in zip(decoded, decode_clips(path, sampler, SIZE), strict=True):
        np.testing.assert_array_equal(clip.pixels, alone.pixels)
    if len(decoded) == 1 and not decoded[0].num_padded:
        assert decoded[0].pixels.ctypes.data == out.ctypes.data
    assert (decoded[0].pixels.dtype, decoded[0].fps) == (np.uint8, 25.0)


def test_threads_do_not_share_a_converter(tmp_path: Path) -> None:
    kinds = ["mpeg4_b.avi", "grey.mkv", "mjpeg.mov", "ten_bit.mkv"]  # one size, four formats
    paths = [made_videos.write(tmp_path / kind, kind) for kind in kinds] * 12
    expected = [decode_clip(path, frames=8, size=SIZE).pixels for path in paths[: len(kinds)]]
    with ThreadPoolExecutor(len(kinds)) as pool:
        results = list(pool.map(lambda path: decode_clip(path, frames=8, size=SIZE), paths))
    for number, clip in enumerate(results):
        np.testing.assert_array_equal(clip.pixels, expected[number % len(kinds)])


def test_frames_are_freed_at_once_not_by_the_garbage_collector(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "v.avi")
    gc.collect()
    gc.disable()
    try:
        decode_clip(path, frames=8, size=SIZE)
        left = [item for item in gc.get_objects() if type(item) is av.VideoFrame]
    finally:
        gc.enable()
    assert not left


def test_short_video_repeats_its_last_frame(tmp_path: Path) -> None:
    clip = decode_clip(made_videos.write(tmp_path / "s.avi", "short.avi"), frames=8, size=SIZE)
    assert (clip.frame_indices, clip.num_padded) == ((0, 1, 2, 3, 4, 4, 4, 4), 3)
    np.testing.assert_array_equal(clip.pixels[4], clip.pixels[7])


@pytest.mark.parametrize("content", [b"", b"no video", b"RIFF\x00\x00\x00\x00AVI LIST"])
def test_what_is_no_video_is_one_sentence_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.avi").write_bytes(content)
    for name in ("bad", "missing"):
        with pytest.raises(VideoDecodeError, match=rf"{name}\.avi cannot be decoded|bad\.avi is"):
            decode_clip(tmp_path / f"{name}.avi")


def test_video_without_a_frame(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "zero.mkv", "grey.mkv", frames=0)
    with pytest.raises(VideoDecodeError, match=r"no frame that decodes|cannot be decoded"):
        decode_clip(path)


@pytest.mark.parametrize("keep_partial", [False, True])
def test_an_empty_file_and_one_without_its_index_say_so(tmp_path: Path, keep_partial: bool) -> None:
    raw = made_videos.write(tmp_path / "whole.mp4", "h264.mp4").read_bytes()
    media, index = raw.index(b"mdat") - 4, raw.index(b"moov") - 4
    lost = r"v\.mp4 is cut off: its index \(moov\), which a camera writes last, is missing\."
    for data, text in (
        (b"", r"v\.mp4 is empty: 0 bytes\."),
        (raw[: (media + index) // 2], lost),
        (raw[:index], lost),
        (raw[: index + 60], lost),
        (raw[:media] + bytes(4) + raw[media + 4 : index], lost),  # size 0: never finished
        (b"text", r"v\.mp4 cannot be decoded \(Invalid data"),
        (bytes(9000), r"v\.mp4 cannot be decoded \(Invalid data"),
    ):
        path = tmp_path / "v.mp4"
        path.write_bytes(data)
        with pytest.raises(VideoDecodeError, match=text):
            decode_clip(path, frames=4, size=SIZE, keep_partial=keep_partial)


def test_a_video_that_fails_half_way_is_kept_only_if_asked(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "v.mp4", "h264.mp4", gop=10)
    raw = bytearray(path.read_bytes())
    start, end = raw.index(b"mdat") + 4, raw.index(b"moov")
    middle = start + (end - start) // 2
    raw[middle : end - 4] = b"\xff" * (end - 4 - middle)
    path.write_bytes(raw)
    with pytest.raises(VideoDecodeError, match=r"v\.mp4 cannot be decoded \(Invalid data"):
        decode_clip(path, frames=4, size=SIZE)
    clip = decode_clip(path, frames=4, size=SIZE, keep_partial=True)
    assert max(clip.frame_indices) < clip.num_decoded < 40

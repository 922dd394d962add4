"""Frames equal those of a plain decode counted by hand, whatever the file and the short cut."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import made_videos
import numpy as np
import pytest

from har.pipeline.decode import clips as decode
from har.pipeline.decode import mpeg4
from har.pipeline.sampling import ClipSampler

RULES = [
    ClipSampler("paper", 8),
    ClipSampler("uniform", 8),
    ClipSampler("dense", 8, stride=3, clips=3),
    ClipSampler("paper", 1),
]
SIZE = (24, 30)


def _assert_exact(path: Path, rules: list[ClipSampler], size: tuple[int, int]) -> None:
    frames = made_videos.by_hand(path)
    small = [made_videos.resized(frame, size) for frame in frames]
    for rule in rules:
        for clip, pick in zip(
            decode.decode_clips(path, rule, size), rule.clip_indices(len(frames)), strict=True
        ):
            assert clip.num_decoded == len(frames)
            assert (clip.frame_indices, clip.num_padded) == (pick.frame_indices, pick.num_padded)
            assert clip.pixels.shape == (rule.frames, *size, 3)
            for at, number in enumerate(pick.frame_indices):
                np.testing.assert_array_equal(clip.pixels[at], small[number])


def _scan(path: Path) -> decode._Scan:
    with contextlib.ExitStack() as opened:
        return decode._scan(path, opened)[0]


@pytest.mark.parametrize("kind", made_videos.KINDS)
def test_every_odd_kind_equals_a_plain_decode(tmp_path: Path, kind: str) -> None:
    _assert_exact(made_videos.write(tmp_path / kind, kind), RULES, SIZE)


@pytest.mark.real
def test_real_clips_equal_a_plain_decode(real_clips: Path) -> None:
    for path in sorted((real_clips / "ucf101").rglob("*.avi")):
        _assert_exact(path, RULES[:1], (32, 43))


@pytest.mark.real
@pytest.mark.slow
def test_every_real_clip_equals_a_plain_decode_by_every_rule(real_clips: Path) -> None:
    paths = sorted((real_clips / "ucf101").rglob("*.avi"))
    assert len(paths) == 83
    for path in paths:
        _assert_exact(path, [ClipSampler(), *RULES], (128, 171))


@pytest.mark.real
def test_odd_real_files(real_clips: Path) -> None:
    paths = sorted((real_clips / "odd").iterdir())
    for path in paths:
        if path.name != "corrupted.mp4":
            _assert_exact(path, RULES, (32, 43))
    with pytest.raises(decode.VideoDecodeError, match=r"corrupted\.mp4 cannot be decoded"):
        decode.decode_clip(real_clips / "odd" / "corrupted.mp4")


@pytest.mark.real
def test_packed_b_frames_and_lying_headers_are_counted_right(real_clips: Path) -> None:
    packed = real_clips / "ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    assert decode.decode_clip(packed, frames=4).num_decoded == 164
    lying = next((real_clips / "ucf101").rglob("v_YoYo_g11_c04.avi"))
    clip = decode.decode_clip(lying, frames=4)
    assert (clip.num_declared, clip.num_decoded) == (195, 194)


@pytest.mark.real
def test_rotated_video_comes_out_upright(real_clips: Path) -> None:
    path = real_clips / "odd" / "video_90.mov"
    upright = decode.decode_clip(path, frames=1, size=(568, 320)).pixels[0]  # portrait: no resize
    with decode._open(path) as container:
        lying = next(container.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(upright, np.rot90(lying, -1))


@pytest.mark.real
def test_the_short_cut_is_taken_on_ucf101_and_gives_the_pixels_of_a_whole_decode(
    real_clips: Path,
) -> None:
    for path in sorted((real_clips / "ucf101").rglob("*.avi"))[::13]:
        stream = _scan(path)
        assert stream.pictures is not None
        rule = ClipSampler()
        used = mpeg4.needed_pictures(
            stream.pictures, decode._frame_indices(rule, len(stream.pictures))
        )
        assert len(used) < len(stream.pictures)
        quick, whole = (
            decode.decode_clips(path, rule, SIZE, decode_all=way)[0] for way in (False, True)
        )
        np.testing.assert_array_equal(quick.pixels, whole.pixels)


def test_b_frames_that_no_clip_needs_are_not_decoded(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "v.avi", "mpeg4_b.avi", gop=12)
    stream = _scan(path)
    assert stream.pictures is not None
    assert sorted(stream.pictures.frame_indices) == list(range(40))
    used = mpeg4.needed_pictures(stream.pictures, {0, 12})
    assert len(used) < 10
    assert stream.pictures.pict_types[mpeg4.needed_pictures(stream.pictures, {0})].tolist() == [
        mpeg4.I_VOP
    ]


def test_one_decoder_gives_the_clip_that_shards_hold(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "v.avi")
    clip = decode.decode_clip(path, frames=8, size=SIZE)
    assert clip.pixels.dtype == np.uint8
    assert (clip.num_padded, clip.num_decoded, clip.fps) == (0, 40, 25.0)


@pytest.mark.parametrize("rule", [*RULES, ClipSampler("uniform", 60)])
def test_pixels_are_made_in_the_room_that_is_given(tmp_path: Path, rule: ClipSampler) -> None:
    path = made_videos.write(tmp_path / "v.avi", frames=40)
    room = np.zeros((rule.clips * rule.frames, *SIZE, 3), np.uint8)
    there = decode.decode_clips(path, rule, SIZE, out=room)
    for clip, alone in zip(there, decode.decode_clips(path, rule, SIZE), strict=True):
        np.testing.assert_array_equal(clip.pixels, alone.pixels)
    if len(there) == 1 and not there[0].num_padded:
        assert there[0].pixels.ctypes.data == room.ctypes.data


def test_threads_do_not_share_a_converter(tmp_path: Path) -> None:
    kinds = ["mpeg4_b.avi", "grey.mkv", "mjpeg.mov", "ten_bit.mkv"]  # one size, four formats
    paths = [made_videos.write(tmp_path / kind, kind) for kind in kinds] * 12
    expected = [
        decode.decode_clip(path, frames=8, size=SIZE).pixels for path in paths[: len(kinds)]
    ]
    with ThreadPoolExecutor(len(kinds)) as pool:
        clips = list(pool.map(lambda path: decode.decode_clip(path, frames=8, size=SIZE), paths))
    for at, clip in enumerate(clips):
        np.testing.assert_array_equal(clip.pixels, expected[at % len(kinds)])


def test_short_video_repeats_its_last_frame(tmp_path: Path) -> None:
    clip = decode.decode_clip(
        made_videos.write(tmp_path / "s.avi", "short.avi"), frames=8, size=SIZE
    )
    assert (clip.frame_indices, clip.num_padded) == ((0, 1, 2, 3, 4, 4, 4, 4), 3)
    np.testing.assert_array_equal(clip.pixels[4], clip.pixels[7])


@pytest.mark.parametrize("content", [b"", b"no video", b"RIFF\x00\x00\x00\x00AVI LIST"])
def test_what_is_no_video_is_one_sentence_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.avi"
    path.write_bytes(content)
    with pytest.raises(decode.VideoDecodeError, match=r"bad\.avi"):
        decode.decode_clip(path)
    with pytest.raises(decode.VideoDecodeError, match=r"missing\.avi cannot be decoded"):
        decode.decode_clip(tmp_path / "missing.avi")


def test_video_without_a_frame_or_without_a_picture_stream(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "zero.mkv", "grey.mkv", frames=0)
    with pytest.raises(decode.VideoDecodeError, match=r"no frame that decodes|cannot be decoded"):
        decode.decode_clip(path)


def test_a_video_that_fails_half_way_is_kept_only_if_asked(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "v.mp4", "h264.mp4", gop=10)
    raw = bytearray(path.read_bytes())
    start, end = raw.index(b"mdat") + 4, raw.index(b"moov")
    raw[start + (end - start) // 2 : end - 4] = b"\xff" * (end - 4 - start - (end - start) // 2)
    path.write_bytes(raw)
    with pytest.raises(decode.VideoDecodeError, match=r"v\.mp4 cannot be decoded \(Invalid data"):
        decode.decode_clips(path, ClipSampler(frames=4), SIZE)
    kept = decode.decode_clips(path, ClipSampler(frames=4), SIZE, keep_partial=True)[0]
    assert 0 < kept.num_decoded < 40
    assert max(kept.frame_indices) < kept.num_decoded
